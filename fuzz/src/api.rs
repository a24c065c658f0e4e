//! A ledger driven at random, against a naive model: appends under every condition, reads, projections, rebuilds, and
//! handles that are opened again.

use std::collections::HashMap;
use std::path::Path;

use runledger_events::{
    EventId, EventKind, Metadata, Position, RunId, RuntimeEvent, SessionId, StreamName, StreamVersion,
};
use runledger_projections::{Projections, Queries};
use runledger_store::{
    AppendError, EventFilter, EventLog, ExpectedVersion, LogReader, NewEvent, OpenOptions, Read, SqliteLog,
    StreamAppend, SyncMode,
};

const STEPS_MAX: usize = 32;

const STREAMS: [&str; 5] = ["session/a", "session/b", "run/r", "run/q", "request/a:t1"];

/// What stands behind `{"id":…,"timestamp":…`; some are of shapes that no runner would write, and in no order.
const BODIES: [&str; 26] = [
    r#""kind":"user.prompt","sessionId":"x","data":{"prompt":"one"}"#,
    r#""kind":"user.prompt","data":{"prompt":"\ud83d two"}"#,
    r#""kind":"session.start","sessionId":"x","data":{"source":"startup","model":"m"}"#,
    r#""kind":"session.end","sessionId":"x","data":{"reason":"clear"}"#,
    r#""kind":"tool.pre","sessionId":"x","data":{"tool_name":"Bash","tool_use_id":"t1","tool_input":{"command":"ls"}}"#,
    r#""kind":"tool.post","sessionId":"x","data":{"tool_name":"Bash","tool_use_id":"t1","tool_response":[[[1e999]]]}"#,
    r#""kind":"tool.failure","data":{"tool_use_id":"t1","error":7,"exit_code":9223372036854775807}"#,
    r#""kind":"permission.request","sessionId":"x","data":{"tool_name":"Bash","tool_use_id":"t1","tool_input":{"command":"ls"}},"interaction":{"expectsDecision":true}"#,
    r#""eventId":"2","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}}"#,
    r#""kind":"usage.update","sessionId":"x","data":{"usage":{"input":9223372036854775807,"output":9223372036854775807,"total":9223372036854775807},"delta":{"input":9223372036854775807}}"#,
    r#""kind":"usage.update","sessionId":"x","data":{"delta":{"input":3,"output":4,"cacheRead":5,"contextSize":6},"thread_id":"z"}"#,
    r#""kind":"message.delta","data":{"item_id":"i","delta":"He"}"#,
    r#""kind":"message.complete","sessionId":"x","data":{"item_id":"i","message":"Hello"}"#,
    r#""kind":"reasoning.delta","data":{"item_id":"i","delta":"Hm","content_index":-9223372036854775808}"#,
    r#""kind":"plan.delta","data":{"plan":[{"step":"s","status":"pending"},7]}"#,
    r#""kind":"subagent.start","data":{"agent_id":"g","agent_type":"Explore"},"agentId":"g""#,
    r#""kind":"subagent.stop","data":{"agent_id":"g","last_assistant_message":"done"}"#,
    r#""kind":"stop.request","sessionId":"x","data":{"stop_hook_active":true,"last_assistant_message":"Hello"}"#,
    r#""kind":"notification","data":{"notification_type":"idle","message":{}}"#,
    r#""kind":"turn.complete","sessionId":"x","data":{"turn_id":"u","status":"interrupted"}"#,
    r#""kind":"made.up","data":null,"payload":[{}]"#,
    r#""kind":"workflow.start","data":{"run_id":"r","session_id":"a","workflow_name":"w","harness":"command","max_iterations":4294967295,"attempt":1,"deadline_at":9223372036854775807}"#,
    r#""kind":"workflow.transition","data":{"from":"idle","to":"starting","status":"running"}"#,
    r#""kind":"workflow.iteration","data":{"phase":"start","iteration":1,"continuation":{"mode":"fresh"},"prompt":"p"}"#,
    r#""kind":"workflow.iteration","data":{"phase":"end","iteration":1,"outcome":"continue","exit_code":-1,"tokens":{"input":9223372036854775807,"output":1,"total":1}}"#,
    r#""kind":"workflow.end","data":{"status":"completed","stop_reason":"done","iteration":1}"#,
];

const TIMES: [&str; 6] = [
    "",
    r#""timestamp":1761000000000,"#,
    r#""timestamp":0,"#,
    r#""timestamp":-1,"#,
    r#""timestamp":9223372036854775807,"#,
    r#""timestamp":-9223372036854775808,"#,
];

/// The bytes as choices; at their end each is the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % bound
    }
}

/// One event: its id, where it has one, and its JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    id: Option<String>,
    json: String,
    kind: EventKind,
}

/// An append: to this stream, under this condition, these events.
#[derive(Debug, Clone)]
struct Step {
    stream: &'static str,
    expected: ExpectedVersion,
    events: Vec<Given>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Position, version, and whether it was there before.
    Receipts(Vec<(u64, u64, bool)>),
    Wrong(String, ExpectedVersion, u64),
    Taken(String, String),
}

/// The naive model: a list of all events.
#[derive(Debug, Clone, Default)]
struct Model(Vec<(&'static str, Given)>);

impl Model {
    fn of<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = (usize, &'a Given)> {
        self.0.iter().enumerate().filter(move |(_, row)| row.0 == stream).map(|(at, row)| (at, &row.1))
    }

    fn version(&self, stream: &str) -> u64 {
        self.of(stream).count() as u64
    }

    /// Where this event is already; an error where another one has its id.
    fn known(&self, stream: &'static str, event: &Given) -> Result<Option<(u64, u64, bool)>, Outcome> {
        let Some(id) = &event.id else {
            return Ok(None);
        };
        let Some((nth, (at, there))) = self.of(stream).enumerate().find(|(_, (_, row))| row.id.as_ref() == Some(id))
        else {
            return Ok(None);
        };
        let is_same = there.json == event.json;
        if is_same {
            Ok(Some((at as u64 + 1, nth as u64 + 1, true)))
        } else {
            Err(Outcome::Taken(stream.into(), id.clone()))
        }
    }

    fn append_all(&mut self, steps: &[Step]) -> Outcome {
        let before = self.0.len();
        let mut receipts = Vec::new();
        for step in steps {
            if let Err(outcome) = self.append(step, &mut receipts) {
                self.0.truncate(before);
                return outcome;
            }
        }
        Outcome::Receipts(receipts)
    }

    fn append(&mut self, step: &Step, receipts: &mut Vec<(u64, u64, bool)>) -> Result<(), Outcome> {
        let stream = step.stream;
        let known = step.events.iter().map(|event| self.known(stream, event)).collect::<Result<Vec<_>, _>>()?;
        let count = known.iter().flatten().count();
        if count > 0 && count == step.events.len() {
            receipts.extend(known.into_iter().flatten());
            return Ok(());
        }
        let version = self.version(stream);
        let is_exact = matches!(step.expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
        if !step.expected.holds(StreamVersion(version)) || (count > 0 && is_exact) {
            return Err(Outcome::Wrong(stream.into(), step.expected, version));
        }
        for event in &step.events {
            let receipt = match self.known(stream, event)? {
                Some(receipt) => receipt,
                None => {
                    self.0.push((stream, event.clone()));
                    (self.0.len() as u64, self.version(stream), false)
                }
            };
            receipts.push(receipt);
        }
        Ok(())
    }
}

/// The ledger under test, with whatever handles are open.
struct Ledger<'a> {
    path: &'a Path,
    log: SqliteLog,
    reader: LogReader,
    projections: Option<Projections>,
    model: Model,
}

/// A list of things to do, each a byte or a few.
pub fn api(bytes: &[u8]) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder can be made");
    let path = folder.path().join("ledger.db");
    let log = open(&path);
    let reader = log.reader().expect("a log can be read");
    let mut ledger = Ledger { path: &path, log, reader, projections: None, model: Model::default() };
    let mut choices = Choices(bytes);
    for _ in 0..STEPS_MAX {
        if choices.0.is_empty() {
            break;
        }
        match choices.below(12) {
            0..=5 => ledger.append(&mut choices),
            6 => ledger.read_stream(&mut choices),
            7 => ledger.read(&mut choices),
            8 => ledger.find(&mut choices),
            9 => ledger.project(),
            10 => ledger.rebuild(&mut choices),
            _ => ledger.reopen(&mut choices),
        }
    }
    ledger.read_models_are_those_of_a_fresh_fold();
    ledger.log_is_sound();
}

/// It need not outlive the power.
fn open(path: &Path) -> SqliteLog {
    SqliteLog::open_with(path, &OpenOptions { sync: SyncMode::Normal, ..OpenOptions::default() })
        .expect("a log can be opened")
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a name")
}

fn given(choices: &mut Choices<'_>) -> Given {
    let id = choices.below(9);
    let id = (id > 0).then(|| id.to_string());
    let id_field = id.as_ref().map(|id| format!(r#""id":"{id}","#)).unwrap_or_default();
    let time = TIMES[choices.below(TIMES.len())];
    // A decision's time has another name.
    let body = BODIES[choices.below(BODIES.len())];
    let json = format!("{{{id_field}{time}{body}}}");
    let kind = RuntimeEvent::from_json(&json).unwrap_or_else(|error| panic!("{json}: {error}")).kind().clone();
    Given { id, json, kind }
}

fn step(choices: &mut Choices<'_>) -> Step {
    let stream = STREAMS[choices.below(STREAMS.len())];
    let expected = match choices.below(8) {
        0..=3 => ExpectedVersion::Any,
        4 => ExpectedVersion::NoStream,
        5 => ExpectedVersion::StreamExists,
        _ => ExpectedVersion::Exact(StreamVersion(choices.below(8) as u64)),
    };
    let count = choices.below(4);
    Step { stream, expected, events: (0..count).map(|_| given(choices)).collect() }
}

/// What stands in a stream belongs to what the stream is of.
fn append_of(step: &Step) -> StreamAppend {
    let stream = stream(step.stream);
    let metadata = Metadata {
        session_id: stream.session_id().or_else(|| Some(SessionId::new("a").expect("a name"))),
        run_id: stream.run_id(),
        ..Metadata::default()
    };
    let event = |given: &Given| {
        let event = RuntimeEvent::from_json(&given.json).expect("it was read before");
        NewEvent::new(event, metadata.clone()).expect("the log takes it")
    };
    StreamAppend { events: step.events.iter().map(event).collect(), stream, expected: step.expected }
}

impl Ledger<'_> {
    fn append(&mut self, choices: &mut Choices<'_>) {
        let steps: Vec<Step> = (0..=choices.below(2)).map(|_| step(choices)).collect();
        let expected = self.model.append_all(&steps);
        let actual = match self.log.append_all(steps.iter().map(append_of).collect()) {
            Ok(receipts) => {
                Outcome::Receipts(receipts.iter().map(|r| (r.position.0, r.stream_version.0, r.is_duplicate)).collect())
            }
            Err(AppendError::WrongExpectedVersion(conflict)) => {
                Outcome::Wrong(conflict.stream.to_string(), conflict.expected, conflict.actual.0)
            }
            Err(AppendError::IdTaken { stream, id, .. }) => Outcome::Taken(stream.to_string(), id.to_string()),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(actual, expected, "{steps:?}");
        let head = self.reader.head().expect("a head").position.0;
        assert_eq!(head, self.model.0.len() as u64);
    }

    fn read_stream(&self, choices: &mut Choices<'_>) {
        let name = STREAMS[choices.below(STREAMS.len())];
        let after = choices.below(8);
        let read = self.reader.read_stream(&stream(name), StreamVersion(after as u64), Read::All).expect("a stream");
        let expected: Vec<&str> = self.model.of(name).skip(after).map(|(_, row)| row.json.as_str()).collect();
        let texts: Vec<&str> = read.iter().map(|event| event.content.json().expect("its text")).collect();
        assert_eq!(texts, expected, "{name} after {after}");
    }

    fn read(&self, choices: &mut Choices<'_>) {
        let kind = self.model.0.get(choices.below(64)).map(|(_, row)| row.kind.clone());
        let (after, limit) = (choices.below(16) as u64, 1 + choices.below(4));
        let filter = EventFilter { kinds: kind.clone().map(|kind| vec![kind]), ..EventFilter::default() };
        let head = Position(self.model.0.len() as u64);
        let mut found = Vec::new();
        let mut at = Position(after);
        while at < head {
            let batch = self.reader.read(&filter, at, head, limit, Read::Facts).expect("a batch");
            assert!(batch.scanned_to > at, "reading comes forward");
            found.extend(batch.events.iter().map(|event| event.position.0));
            at = batch.scanned_to;
        }
        let rows = self.model.0.iter().enumerate().skip(usize::try_from(after).unwrap_or(usize::MAX));
        let fits = |row: &Given| kind.as_ref().is_none_or(|kind| *kind == row.kind);
        let expected: Vec<u64> = rows.filter(|(_, (_, row))| fits(row)).map(|(at, _)| at as u64 + 1).collect();
        assert_eq!(found, expected, "{kind:?} after {after}");
    }

    fn find(&self, choices: &mut Choices<'_>) {
        let id = (1 + choices.below(9)).to_string();
        let found = self.reader.find(&EventId::new(id.as_str()).expect("an id"), None).expect("a search");
        let mut found: Vec<u64> = found.iter().map(|event| event.position.0).collect();
        found.sort_unstable();
        let rows = self.model.0.iter().enumerate().filter(|(_, (_, row))| row.id.as_ref() == Some(&id));
        assert_eq!(found, rows.map(|(at, _)| at as u64 + 1).collect::<Vec<_>>(), "{id}");
    }

    /// Brings the read models to the head.
    fn project(&mut self) {
        let path = self.path;
        let projections = self.projections.get_or_insert_with(|| Projections::open(path).expect("read models"));
        let head = projections.catch_up().expect("every event can be folded");
        assert_eq!(head.0, self.model.0.len() as u64);
    }

    /// A fresh fold gives the same rows, and sessions are those that the model has.
    fn read_models_are_those_of_a_fresh_fold(&mut self) {
        self.project();
        let Some(projections) = &mut self.projections else {
            return;
        };
        for name in projections.names() {
            let verified = projections.verify(name, &mut |_| {}).expect("a fresh fold");
            assert_eq!(verified.different, 0, "{name}: {:?}", verified.differences);
        }
        let queries = Queries::open(self.path).expect("queries");
        let told: Vec<SessionId> =
            queries.sessions().expect("sessions").into_iter().map(|session| session.id).collect();
        for name in STREAMS.iter().filter(|name| self.model.version(name) > 0) {
            let session = stream(name).session_id();
            assert!(session.is_none_or(|session| told.contains(&session)), "{name} is no session of {told:?}");
        }
    }

    fn rebuild(&mut self, choices: &mut Choices<'_>) {
        let path = self.path;
        let projections = self.projections.get_or_insert_with(|| Projections::open(path).expect("read models"));
        projections.catch_up().expect("every event can be folded");
        let names = projections.names();
        let name = names[choices.below(names.len())];
        projections.rebuild(name, &mut |_| {}).expect("a rebuild");
        let verified = projections.verify(name, &mut |_| {}).expect("a fresh fold");
        assert_eq!(verified.different, 0, "{name}: {:?}", verified.differences);
        if choices.below(2) == 1 && self.model.version("run/r") > 0 {
            let run = RunId::new("r").expect("a name");
            projections.rebuild_run(&run, &["workflow_runs", "workflow_iterations"]).expect("a rebuild of a run");
        }
    }

    fn reopen(&mut self, choices: &mut Choices<'_>) {
        if choices.below(2) == 0 {
            self.projections = None;
        } else {
            self.log = open(self.path);
            self.reader = LogReader::open(self.path).expect("a log can be read");
        }
    }

    /// Every digest is right, and versions and positions are dense.
    fn log_is_sound(&self) {
        let report = self.reader.verify(|_| {}).expect("a log can be verified");
        assert!(report.findings.is_empty(), "{report:?}");
        let mut versions: HashMap<&str, u64> = HashMap::new();
        for (at, (name, row)) in self.model.0.iter().enumerate() {
            let version = versions.entry(name).or_default();
            *version += 1;
            let event =
                self.reader.read_stream(&stream(name), StreamVersion(*version - 1), Read::All).expect("a stream");
            let event = event.first().expect("the event");
            assert_eq!((event.position.0, event.stream_version.0), (at as u64 + 1, *version));
            assert_eq!(event.content.json(), Some(row.json.as_str()));
        }
    }
}
