//! What the appending processes append: the same in every run, so that whoever starts again repeats it, and the parent
//! knows it too.

use runledger_events::{Metadata, RunStatus, RuntimeEvent, SessionId, StreamName, StreamVersion};
use runledger_store::{ExpectedVersion, NewEvent, StreamAppend};

use crate::acknowledged::Key;
use crate::support::{Random, Story, Told};

/// Processes that append.
pub(crate) const PROCESSES: u64 = 3;
/// Threads of each.
pub(crate) const THREADS: u64 = 2;

/// Events of one stream.
pub(crate) struct Part {
    pub(crate) stream: StreamName,
    /// Whether the stream has to be as its client has seen it.
    is_exact: bool,
    told: Vec<Told>,
}

/// What one append consists of: all of it is there, or nothing.
pub(crate) struct Request(pub(crate) Vec<Part>);

impl Request {
    /// For the log; `version` looks up what the client has seen of a stream.
    pub(crate) fn appends(&self, version: impl Fn(&StreamName) -> StreamVersion) -> Vec<StreamAppend> {
        let append = |part: &Part| {
            let expected = match part.is_exact {
                true => ExpectedVersion::Exact(version(&part.stream)),
                false => ExpectedVersion::Any,
            };
            let events = part.told.iter().map(event).collect();
            StreamAppend { stream: part.stream.clone(), expected, events }
        };
        self.0.iter().map(append).collect()
    }

    /// Its events, in order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let key = |told: &Told| (told.stream.clone(), event(told).id().unwrap().clone());
        self.0.iter().flat_map(|part| &part.told).map(key).collect()
    }
}

fn event(told: &Told) -> NewEvent {
    NewEvent::new(RuntimeEvent::from_json(told.json.as_str()).unwrap(), told.metadata.clone()).unwrap()
}

/// Everything that one thread appends in a round: a workflow run of its own, and words in sessions that all share.
pub(crate) fn requests(round: u64, process: u64, thread: u64) -> Vec<Request> {
    let name = format!("{round}-{process}-{thread}");
    let session = format!("s{}", (process + thread) % 2);
    let mut run = Story::default().whole_run(&name, &session, 2, RunStatus::Completed).into_iter();
    let mut requests = Vec::new();
    let mut n = 0;
    while run.len() > 0 {
        let id = |part: &str| format!("{name}-{n}{part}");
        let steps: Vec<Told> = run.by_ref().take(1 + n % 2).collect();
        let own = Part { stream: steps[0].stream.clone(), is_exact: true, told: steps };
        requests.push(match n % 3 {
            0 => Request(vec![own]),
            // Two streams at once.
            _ => Request(vec![own, words("shared", false, &[&id("c")], 10)]),
        });
        requests.push(match n % 4 {
            // Several clients want the same version of this one; all but one have to try again.
            0 => Request(vec![words("contended", true, &[&id("d"), &id("e")], 10)]),
            // More than fits in a page.
            1 => Request(vec![words(&session, false, &[&id("f"), &id("g")], 9_000)]),
            _ => Request(vec![words(&session, false, &[&id("h")], 10)]),
        });
        n += 1;
    }
    requests
}

/// What all threads append in a round.
pub(crate) fn of_round(round: u64) -> Vec<Request> {
    let threads = (0..PROCESSES).flat_map(|process| (0..THREADS).map(move |thread| (process, thread)));
    threads.flat_map(|(process, thread)| requests(round, process, thread)).collect()
}

/// A few words, under this id.
pub(crate) fn small(id: &str) -> Request {
    Request(vec![words("small", false, &[id], 10)])
}

/// Events of a story, several streams in one request.
pub(crate) fn of_story(told: Vec<Told>) -> Request {
    let part = |told: Told| Part { stream: told.stream.clone(), is_exact: false, told: vec![told] };
    Request(told.into_iter().map(part).collect())
}

/// Prompts of this many bytes, which do not compress well.
fn words(session: &str, is_exact: bool, ids: &[&str], bytes: usize) -> Part {
    let session = SessionId::new(session).unwrap();
    let stream = StreamName::session(&session);
    let metadata = Metadata { session_id: Some(session), ..Metadata::default() };
    let told = |id: &&str| {
        let mut random = Random(id.bytes().map(u64::from).sum());
        // Words of 16 digits: half as long when compressed.
        let words = (0..bytes.div_ceil(17)).map(|_| format!("{:016x} ", random.below(u64::MAX)));
        let prompt: String = words.collect();
        let json =
            format!(r#"{{"id":"{id}","timestamp":1761000000000,"kind":"user.prompt","data":{{"prompt":"{prompt}"}}}}"#);
        Told { stream: stream.clone(), metadata: metadata.clone(), json }
    };
    Part { told: ids.iter().map(told).collect(), is_exact, stream }
}
