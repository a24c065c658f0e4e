//! Erasing where many machines have copies: what is told comes first, the servers delete, and every copy, new or old, is the same log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runledger_events::{LogId, Metadata, Position, RunId, RuntimeEvent, SessionId, StreamName};
use runledger_store::{
    AppendError, CopiedLog, Erase, EventFilter, EventLog, ExpectedVersion, LogReader, NewEvent, Read, Receipt,
    RedactError, Redacted, StreamAppend,
};
use runledger_store_jetstream::{Address, Erasures, JetStreamLog, Options};
use runledger_testkit::{Cutter, NatsServers, files_with, new_address};
use tempfile::TempDir;

/// What no compression shortens.
const SECRET: &str = "qX7vB2mK9pL4wZ8tR3nY6cJ1hF5gD0sA";

/// A machine: a folder for its copy, and a user's connection.
struct Machine {
    folder: TempDir,
    log: JetStreamLog,
}

impl Machine {
    fn new(address: &Address) -> Self {
        Self::with(tempfile::tempdir().unwrap(), address, None)
    }

    fn with(folder: TempDir, address: &Address, user: Option<&str>) -> Self {
        let user = user.map(str::to_owned);
        let options = Options { password: user.clone(), user, ..Options::default() };
        let log = JetStreamLog::open(address, folder.path(), &options).unwrap();
        Self { folder, log }
    }

    /// A machine that was copied from this one as it is, and is away.
    fn copied(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        assert!(self.log.settle().unwrap());
        std::fs::copy(self.log.path(), folder.path().join("ledger.db")).unwrap();
        folder
    }

    /// Appends events of a session to a stream.
    fn append(&self, name: &str, session: &str, ids: &[String]) -> Vec<Receipt> {
        let metadata = || Metadata { session_id: Some(SessionId::new(session).unwrap()), ..Metadata::default() };
        let events = ids.iter().map(|id| event(id, metadata())).collect();
        self.log.append(&stream(name), ExpectedVersion::Any, events).unwrap()
    }

    /// The chain at the end, and where the secret still stands; the log verifies.
    fn state(&self) -> (String, Vec<u64>) {
        self.log.catch_up(Duration::from_secs(60)).unwrap();
        let reader = self.log.reader().unwrap();
        assert_eq!(reader.verify(|_| {}).unwrap().findings, []);
        let head = reader.head().unwrap();
        let (mut telling, mut after) = (Vec::new(), Position::START);
        while after < head.position {
            let batch = reader.read(&EventFilter::default(), after, head.position, 1000, Read::All).unwrap();
            let tells = batch.events.iter().filter(|event| event.content.json().unwrap_or_default().contains(SECRET));
            telling.extend(tells.map(|event| event.position.0));
            after = batch.scanned_to;
        }
        (format!("{} {}", head.position, head.chain), telling)
    }
}

fn event(id: &str, metadata: Metadata) -> NewEvent {
    let json = format!(r#"{{"id":"{id}","timestamp":1,"kind":"user.prompt","data":{{"prompt":"{SECRET} {id}"}}}}"#);
    NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), metadata).unwrap()
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

fn session(id: &str) -> Erase {
    Erase::Sessions(vec![SessionId::new(id).unwrap()])
}

/// Parts of the payloads as copies store them: what is compressed is in no file as it is read.
fn stored(machine: &Machine, session: &str) -> Vec<Vec<u8>> {
    let sqlite = rusqlite::Connection::open(machine.log.path()).unwrap();
    let sql = "SELECT content FROM runtime_events JOIN streams ON streams.stream_key = session_key
               WHERE name = ?1 AND content IS NOT NULL";
    let mut statement = sqlite.prepare(sql).unwrap();
    let payloads = statement.query_map([format!("session/{session}")], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let middle = |payload: Vec<u8>| payload[payload.len() / 2..(payload.len() / 2 + 24).min(payload.len())].to_vec();
    payloads.map(|payload| middle(payload.unwrap())).collect()
}

/// A session of some hundred events and questions, beside another one; told of in several parts.
fn fill(machine: &Machine) {
    for number in 0..7 {
        machine.append("session/gone", "gone", &ids(&format!("a{number}-"), 100));
        machine.append("session/stays", "stays", &ids(&format!("b{number}-"), 3));
    }
    for number in 0..20 {
        machine.append(&format!("request/q{number}"), "gone", &ids("q", 2));
    }
    let run = stream("run/r");
    let run_id = Some(RunId::new("r").unwrap());
    let session_id = Some(SessionId::new("gone").unwrap());
    let of_run = Metadata { session_id, run_id, ..Metadata::default() };
    machine.log.append(&run, ExpectedVersion::NoStream, vec![event("r1", of_run)]).unwrap();
}

#[test]
fn what_one_machine_erases_is_gone_from_the_servers_and_from_every_copy_old_and_new() {
    let Some(servers) = NatsServers::start(3, false) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let (one, other) = (Machine::new(&address), Machine::new(&address));
    fill(&one);
    other.state();
    let away = one.copied();
    let half = {
        // A machine that has a part of it.
        let early = Machine::new(&address);
        early.state();
        early.folder
    };
    let stored = [stored(&one, "gone"), stored(&one, "stays")].concat();
    assert_eq!(stored.len(), 762);
    let stored: Vec<&[u8]> = stored.iter().step_by(30).map(Vec::as_slice).collect();
    assert!(
        !files_with(away.path(), &stored).is_empty() && !files_with(servers.folder(), &[SECRET.as_bytes()]).is_empty()
    );

    let erased = one.log.redact(&session("gone"), "asked for", "dev@host").unwrap();
    assert_eq!((erased.events, erased.untold, erased.is_settled), (741, 0, true));
    assert_eq!(one.log.erasures().unwrap(), Erasures::default());
    let state = one.state();
    assert_eq!(state.1.len(), 21);
    // Who has followed, who was away, and who never was there have the same log, chain and all.
    let away = Machine::with(away, &address, None);
    let half = Machine::with(half, &address, None);
    let new = Machine::new(&address);
    for machine in [&other, &away, &half, &new] {
        assert_eq!(machine.state(), state);
        assert!(machine.log.settle().unwrap());
    }
    // And all go on, also behind what is gone.
    for (number, machine) in [&one, &other, &away, &new].into_iter().enumerate() {
        for name in ["session/gone", "request/q3", "run/r"] {
            machine.append(name, "gone", &ids(&format!("later{number}-"), 2));
        }
    }
    let state = one.state();
    for machine in [&other, &away, &half, &new, &Machine::new(&address)] {
        assert_eq!(machine.state(), state);
    }
    // What came since goes too, and then there is nothing left.
    assert_eq!(other.log.redact(&session("gone"), "asked for", "dev@host").unwrap().events, 24);
    assert_eq!(one.log.redact(&session("gone"), "asked for", "dev@host").unwrap().receipt, None);
    let state = one.state();
    assert_eq!(Machine::new(&address).state(), state);
    let rest = Erase::Sessions(vec![SessionId::new("stays").unwrap()]);
    one.log.redact(&rest, "asked for", "dev@host").unwrap();
    assert_eq!(files_with(&streams_of(&servers), &[SECRET.as_bytes()]), Vec::<PathBuf>::new());
    for machine in [&one, &other, &away, &half, &new] {
        machine.state();
        assert!(machine.log.settle().unwrap());
        assert_eq!(files_with(machine.folder.path(), &stored), Vec::<PathBuf>::new());
    }
}

/// A machine that was away while the last event of a stream came and was erased must not take the place of that one.
#[test]
fn a_copy_that_is_behind_an_erasure_appends_behind_it_all_the_same() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 2));
    let behind = one.copied();
    one.append("session/s", "s", &ids("b", 2));
    one.log.redact(&session("s"), "asked for", "dev@host").unwrap();
    let behind = Machine::with(behind, &address, None);
    // Drafted by a copy that may not have heard of any of it yet.
    let receipt = behind.append("session/s", "s", &ids("c", 1)).remove(0);
    assert_eq!((receipt.position, receipt.stream_version.0), (Position(7), 6));
    assert_eq!(behind.append("session/s", "s", &ids("c", 1)).remove(0).position, Position(7));
    assert_eq!(one.state(), behind.state());
    assert_eq!(one.state(), Machine::new(&address).state());
}

/// Whoever may not delete tells of it, and every copy obeys; an administrator has the servers delete it.
#[test]
fn who_may_not_delete_erases_the_copies_and_an_administrator_the_servers() {
    let Some(servers) = NatsServers::start_guarded(1) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let runner = Machine::with(tempfile::tempdir().unwrap(), &address, Some("runner"));
    runner.append("session/s", "s", &ids("a", 3));
    let erased = runner.log.redact(&session("s"), "asked for", "dev@host").unwrap();
    let left: Vec<u64> = runner.log.erasures().unwrap().left.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!((erased.events, left), (3, vec![1, 2, 3]));
    let error = runner.log.delete_erased(|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("may not delete"), "{error}");
    // The servers have them, and whoever copies them obeys what is told behind them.
    assert!(!files_with(servers.folder(), &[SECRET.as_bytes()]).is_empty());
    let new = Machine::with(tempfile::tempdir().unwrap(), &address, Some("runner"));
    assert_eq!((new.state().1, new.state()), (vec![], runner.state()));
    let admin = Machine::with(tempfile::tempdir().unwrap(), &address, Some("admin"));
    admin.log.catch_up(Duration::from_secs(60)).unwrap();
    admin.log.delete_erased(|_, _| {}).unwrap();
    assert_eq!(runner.log.erasures().unwrap(), Erasures::default());
    assert!(files_with(servers.folder(), &[SECRET.as_bytes()]).is_empty());
    let late = Machine::with(tempfile::tempdir().unwrap(), &address, Some("runner"));
    assert_eq!(late.state(), runner.state());
}

/// What nobody told of and is deleted by hand stops a new copy, by name; a copy that has it tells of it, and it goes on.
#[test]
fn what_was_deleted_by_hand_stops_a_new_copy_until_one_that_has_it_tells_of_it() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 4));
    delete_by_hand(&servers, address.name(), 2);
    assert_eq!((one.log.state().unwrap().deleted, one.log.erasures().unwrap().untold), (1, vec![2]));
    let new = Machine::new(&address);
    let error = new.log.catch_up(Duration::from_secs(10)).unwrap_err().to_string();
    assert!(error.contains("position 2") && error.contains("redact --event 2 "), "{error}");
    // It cannot write past it either.
    let refused = new.log.append(
        &stream("run/r"),
        ExpectedVersion::Exact(runledger_events::StreamVersion(3)),
        vec![event("r", Metadata::default())],
    );
    assert!(matches!(refused, Err(AppendError::Storage(_))), "{refused:?}");
    one.log.redact(&Erase::Events(vec![Position(2)]), "deleted by hand", "dev@host").unwrap();
    // It need not be opened again.
    let began = Instant::now();
    while new.log.catch_up(Duration::from_secs(1)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not go on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(new.state(), one.state());
    assert_eq!(new.state().1, [1, 3, 4]);
    assert_eq!(new.log.erasures().unwrap(), Erasures::default());
}

/// Two that have the same erased at once, and connections that are cut all the while: it is told, and what is left verifies.
#[test]
fn an_erasure_is_whole_whoever_else_is_at_it_and_whatever_breaks() {
    for count in [1, 3] {
        let Some(servers) = NatsServers::start(count, false) else { return };
        let cutters: Vec<Cutter> = (0..count).map(|index| Cutter::before(servers.port(index))).collect();
        let ports: Vec<String> = cutters.iter().map(|cutter| format!("127.0.0.1:{}", cutter.port())).collect();
        let address: Address = format!("nats://{}/cut?replicas={count}", ports.join(",")).parse().unwrap();
        let machines: Vec<Machine> = (0..3).map(|_| Machine::new(&address)).collect();
        for number in 0..6 {
            machines[0].append("session/s", "s", &ids(&format!("a{number}-"), 50));
            machines[0].append(&format!("request/{number}"), "s", &ids("q", 2));
        }
        machines.iter().for_each(|machine| drop(machine.state()));
        let is_over = AtomicBool::new(false);
        let erased: Vec<u64> = std::thread::scope(|scope| {
            let eraser = |machine| {
                move || -> u64 {
                    let began = Instant::now();
                    let mut events = 0;
                    // Until nothing is left to tell, nor to delete.
                    loop {
                        let erased = machine_redact(machine);
                        match erased {
                            Ok(erased) => {
                                events += erased.events;
                                if erased.receipt.is_none()
                                    && machine.log.erasures().is_ok_and(|now| now.left.is_empty())
                                {
                                    return events;
                                }
                            }
                            Err(error) => assert!(began.elapsed() < Duration::from_secs(300), "{error}"),
                        }
                    }
                }
            };
            let erasers: Vec<_> = machines[..2].iter().map(|machine| scope.spawn(eraser(machine))).collect();
            let cutting = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(30));
                    cutters.iter().for_each(Cutter::cut);
                }
            });
            // From here on nothing is cut, so that all come to an end.
            std::thread::sleep(Duration::from_millis(700));
            is_over.store(true, Ordering::Release);
            cutting.join().unwrap();
            erasers.into_iter().map(|eraser| eraser.join().unwrap()).collect()
        });
        // What both told at once counts for both.
        assert!(erased.iter().sum::<u64>() >= 312, "{erased:?}");
        let state = machines[2].state();
        assert_eq!(state.1, [0; 0]);
        for machine in [&machines[0], &machines[1], &Machine::new(&address)] {
            assert_eq!(machine.state(), state);
            assert_eq!(machine.log.erasures().unwrap(), Erasures::default());
        }
        assert!(files_with(&streams_of(&servers), &[SECRET.as_bytes()]).is_empty());
    }
}

fn machine_redact(machine: &Machine) -> Result<Redacted, RedactError> {
    machine.log.redact(&session("s"), "asked for", "dev@host")
}

/// A copy that has gone apart from the stream has nothing deleted by what it knows.
#[test]
fn nothing_is_deleted_for_a_copy_that_is_of_another_story() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 3));
    // What this copy has at position 4 and behind the stream never had; it tells that position 2 is erased.
    let apart = one.copied();
    drop(one);
    {
        let copy = CopiedLog::open(apart.path().join("ledger.db"), &log_id_of(apart.path())).unwrap();
        let erase = Erase::Events(vec![Position(2)]);
        let mut plan = copy.plan_erasure(&erase, Position(3)).unwrap();
        let part = copy.next_erasure(&mut plan, &erase, "why", "who", 1 << 20).unwrap().unwrap();
        let lines: Vec<String> =
            copy.draft_own(part.appends).unwrap().events.into_iter().map(|event| event.line).collect();
        let lines: Vec<_> = (4..).map(Position).zip(lines.iter().map(String::as_str)).collect();
        copy.take(&lines).unwrap();
    }
    let other = Machine::new(&address);
    other.append("session/s", "s", &ids("b", 3));
    let apart = Machine::with(apart, &address, None);
    let error = apart.log.delete_erased(|_, _| {}).unwrap_err().to_string();
    assert!(error.contains("move the copy away"), "{error}");
    assert_eq!(other.state().1, [1, 2, 3, 4, 5, 6]);
    assert_eq!(Machine::new(&address).state(), other.state());
}

fn log_id_of(folder: &Path) -> LogId {
    LogReader::open(folder.join("ledger.db")).unwrap().log_id().clone()
}

/// Where the streams' messages are, without the logs of the servers' own groups, which have what was deleted for some minutes longer.
fn streams_of(servers: &NatsServers) -> PathBuf {
    let folder = servers.folder().join("streams");
    std::fs::create_dir_all(&folder).unwrap();
    for index in 0..servers.count() {
        let from = servers.folder().join(format!("node-{index}/jetstream/$G/streams"));
        assert!(from.is_dir(), "{}", from.display());
        let to = folder.join(index.to_string());
        assert!(std::process::Command::new("cp").arg("-r").args([&from, &to]).status().unwrap().success());
    }
    folder
}

/// The last message of a subject is what the next append goes by; a redaction goes on from what is left.
#[test]
fn a_last_message_that_was_deleted_by_hand_is_told_of_too() {
    let Some(servers) = NatsServers::start(3, false) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 4));
    one.append("session/t", "t", &ids("b", 1));
    for sequence in [4, 5] {
        delete_by_hand(&servers, address.name(), sequence);
    }
    let new = Machine::with(tempfile::tempdir().unwrap(), &address, None);
    one.log.redact(&Erase::Events(vec![Position(4), Position(5)]), "deleted by hand", "dev@host").unwrap();
    for name in ["session/s", "session/t"] {
        one.append(name, "s", &ids("later", 2));
    }
    assert_eq!(new.state(), one.state());
    assert_eq!(Machine::new(&address).state(), one.state());
    new.append("session/t", "t", &ids("last", 1));
    assert_eq!(new.state(), one.state());
}

/// What somebody else publishes among the events is no event: every copy tells of it alike, and all go on.
#[test]
fn a_message_that_is_no_event_stops_nobody() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 2));
    for payload in ["hello", "{}", ""] {
        publish_by_hand(&servers, &format!("{}.session.s", address.name()), payload, false);
    }
    publish_by_hand(&servers, &format!("{}.whatever", address.name()), "\u{0}", false);
    let new = Machine::new(&address);
    assert_eq!(new.state(), one.state());
    // A stream goes on behind it, on both.
    assert_eq!(one.append("session/s", "s", &ids("b", 2))[1].stream_version.0, 4);
    assert_eq!(new.append("session/s", "s", &ids("c", 1))[0].stream_version.0, 5);
    assert_eq!(new.state(), one.state());
    assert_eq!(one.state().1, [1, 2, 7, 8, 9]);
}

/// Who may publish can say what is not so: it erases nothing, and what is told truly later counts.
#[test]
fn a_false_stand_in_erases_nothing_and_keeps_no_new_machine_away() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let one = Machine::new(&address);
    one.append("session/s", "s", &ids("a", 4));
    let line = {
        let folder = one.copied();
        let copy = CopiedLog::open(folder.path().join("ledger.db"), &log_id_of(folder.path())).unwrap();
        let erase = Erase::Events(vec![Position(2)]);
        let mut plan = copy.plan_erasure(&erase, Position(4)).unwrap();
        let part = copy.next_erasure(&mut plan, &erase, "why", "who", 1 << 20).unwrap().unwrap();
        let told = copy.draft_own(part.appends).unwrap().events.remove(0);
        let told: serde_json::Value = serde_json::from_str(&told.line).unwrap();
        // The true digest, and another kind.
        let forged = told["event"].to_string().replace("user.prompt", "user.doubts");
        let event = NewEvent::new(RuntimeEvent::from_json(&forged).unwrap(), Metadata::default()).unwrap();
        let append =
            StreamAppend { stream: StreamName::redactions(), expected: ExpectedVersion::Any, events: vec![event] };
        copy.draft_own(vec![append]).unwrap().events.remove(0).line
    };
    publish_by_hand(&servers, &format!("{}.ledger.redactions", address.name()), &line, true);
    assert_eq!(one.state().1, [1, 2, 3, 4]);
    one.log.delete_erased(|_, _| {}).unwrap();
    assert_eq!(Machine::new(&address).state(), one.state());
    one.log.redact(&Erase::Events(vec![Position(2)]), "asked for", "dev@host").unwrap();
    assert_eq!(one.state().1, [1, 3, 4]);
    assert_eq!(Machine::new(&address).state(), one.state());
}

/// As anybody who may publish does.
fn publish_by_hand(servers: &NatsServers, subject: &str, payload: &str, as_event: bool) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(servers.url_of(0)).await.unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(if as_event { "Runledger-Event" } else { "Other" }, "1");
        let context = async_nats::jetstream::new(client);
        let sent = context.publish_with_headers(subject.to_owned(), headers, payload.to_owned().into()).await.unwrap();
        sent.await.unwrap();
    });
}

/// As an administrator does with the engine's own tools.
fn delete_by_hand(servers: &NatsServers, name: &str, sequence: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(servers.url_of(0)).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream(name).await.unwrap();
        assert!(stream.delete_message(sequence).await.unwrap());
    });
}
