//! Loss of power at any moment: whatever was acknowledged is there, once, where it was said to stand, and the log is whole.
//!
//! A workload runs over a VFS that writes down every write and every sync. Then crash images are built: all that was
//! synced up to some entry, and any part of the rest, in any order, torn ([`Image`] has the model). Each is opened as any
//! ledger is. Assumed: the ledger's own name is on the disk, as its folder is synced when it is made.
//!
//! `RUNLEDGER_IMAGES` says how many images there are of each workload, `RUNLEDGER_SEED` which ones. The same journal and
//! seed give the same images. Whoever appends from two threads, with a third that writes back, gets another journal each
//! time: where a check fails, its image is kept and named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use runledger_events::{LogId, Position, RecordedEvent};
use runledger_faultfs::{Change, Entry, Fault, Image, Operation, Random, Watch};
use runledger_store::{
    EventFilter, EventLog, ExpectedVersion, LogReader, OpenOptions, Read, ReadError, Receipt, SqliteLog, StreamAppend,
    SyncMode,
};
use support::{Place, prompt, stream};

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// Images of one workload.
fn images(unless_told: usize) -> usize {
    number_from("RUNLEDGER_IMAGES").map_or(unless_told, |images| usize::try_from(images).unwrap())
}

fn seed() -> u64 {
    number_from("RUNLEDGER_SEED").unwrap_or(0x5eed)
}

/// How a workload differs from another one.
struct Plan {
    /// Threads that append, each to a stream of its own and to one that they share.
    threads: usize,
    /// Appends of each thread.
    appends: usize,
    /// Pages of the write-ahead log from which on a commit writes it back.
    wal_pages: u32,
    sync: SyncMode,
    /// Which syncs fail now and then; what was refused is appended again.
    syncs_fail: SyncsFail,
}

/// Which syncs fail now and then.
#[derive(Clone, Copy, PartialEq)]
enum SyncsFail {
    None,
    All,
    /// Those of the write-ahead log. Of the file itself SQLite counts what is written back in parts, as beside a thread that does so,
    /// before it is synced: after a sync that failed it writes no such part again (docs/reliability.md).
    OfLog,
}

/// Checkpoints and new beginnings of the write-ahead log, made by the commits themselves, many times over.
const SMALL: Plan = Plan { threads: 1, appends: 150, wal_pages: 40, sync: SyncMode::Full, syncs_fail: SyncsFail::None };
/// A log that is long enough to be written back by a thread of its own meanwhile.
const WRITTEN_BACK: Plan =
    Plan { threads: 2, appends: 100, wal_pages: 700, sync: SyncMode::Full, syncs_fail: SyncsFail::None };

/// An event as it was to be appended.
struct Sent {
    id: String,
    text: String,
}

/// What a thread appends as one: two events to its own stream, one to the shared one.
struct Request {
    thread: usize,
    own: [Sent; 2],
    shared: Sent,
}

impl Request {
    fn new(thread: usize, n: usize, random: &mut Random) -> Self {
        let mut sent = |part: &str, characters: usize| {
            // Text that hardly shrinks, so that an append has as many pages as it seems.
            let letter = |_| char::from(b'A' + u8::try_from(random.below(26)).unwrap());
            Sent { id: format!("{thread}-{n}-{part}"), text: (0..characters).map(letter).collect() }
        };
        let large = [10, 3_000, 10, 40_000, 10, 12_000, 700][n % 7];
        Self { thread, own: [sent("a", large), sent("b", 10)], shared: sent("c", 50) }
    }

    fn events(&self) -> impl Iterator<Item = &Sent> {
        self.own.iter().chain([&self.shared])
    }

    fn append(&self, log: &dyn EventLog) -> Result<Vec<Receipt>, runledger_store::AppendError> {
        let to = |name: &str, events: &[Sent]| StreamAppend {
            stream: stream(name),
            expected: ExpectedVersion::Any,
            events: events.iter().map(|event| prompt(&event.id, &event.text)).collect(),
        };
        let shared = to("session/shared", std::slice::from_ref(&self.shared));
        log.append_all(vec![to(&format!("run/{}", self.thread), &self.own), shared])
    }
}

/// A request that was answered, and how long the journal was by then.
struct Acknowledged {
    journal_length: usize,
    request: Request,
    receipts: Vec<Receipt>,
}

/// An image that is not as it has to be.
#[derive(Debug)]
struct Failed {
    problem: String,
    image: Image,
}

/// What came of a plan.
struct History {
    journal: Vec<Entry>,
    /// How long the journal was when the new ledger had been opened.
    opened: usize,
    log_id: LogId,
    acknowledged: Vec<Acknowledged>,
    /// The text of every event by its id.
    texts: HashMap<String, String>,
}

impl History {
    /// Carries a plan out.
    fn of(plan: &Plan) -> Self {
        let place = Place::new();
        let watch = Watch::new(&place.path()).unwrap();
        let options = OpenOptions { wal_pages: plan.wal_pages, sync: plan.sync, ..OpenOptions::default() };
        let log = SqliteLog::open_with(place.path(), &options).unwrap();
        let opened = watch.len();
        let acknowledged = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..plan.threads {
                let (log, watch, acknowledged) = (&log, &watch, &acknowledged);
                scope.spawn(move || {
                    let mut random = Random::new(seed() + thread as u64);
                    for n in 0..plan.appends {
                        let request = Request::new(thread, n, &mut random);
                        if plan.syncs_fail != SyncsFail::None && random.once_in(3) {
                            let nth = 1 + random.below(3) as u64;
                            let fault = Fault { operation: Operation::Sync, nth, lasts: false };
                            match plan.syncs_fail {
                                SyncsFail::OfLog => watch.fail_in("-wal", fault),
                                _ => watch.fail(fault),
                            }
                        }
                        // Each fault strikes once, but the other thread may have set one too.
                        let mut tries = (0..100).map(|_| request.append(log));
                        let receipts = tries.find_map(Result::ok).expect("an append that is not refused");
                        let journal_length = watch.len();
                        acknowledged.lock().unwrap().push(Acknowledged { journal_length, request, receipts });
                    }
                });
            }
        });
        let log_id = log.log_id().clone();
        drop(log);
        let acknowledged = acknowledged.into_inner().unwrap();
        let texts = acknowledged
            .iter()
            .flat_map(|one| one.request.events())
            .map(|event| (event.id.clone(), event.text.clone()))
            .collect();
        Self { journal: watch.journal(), opened, log_id, acknowledged, texts }
    }

    fn count(&self, suffix: &str, is_counted: impl Fn(&Change) -> bool) -> usize {
        self.journal.iter().filter(|entry| &*entry.suffix == suffix && is_counted(&entry.change)).count()
    }

    /// Loses the power that often, at moments and in ways that the seed gives; stops at the first image that fails.
    fn lose_power(&self, images: usize, seed: u64) -> Result<(), Failed> {
        let mut random = Random::new(seed);
        for number in 0..images {
            let cut = random.below(self.journal.len() + 1);
            let image = Image::after(&self.journal[..cut], &mut random);
            let reads_first = random.once_in(2);
            let place = Place::new();
            image.write(&place.path()).unwrap();
            self.check(&place.path(), cut, reads_first).map_err(|problem| {
                let entries = self.journal.len();
                let problem = format!("seed {seed}, image {number}, cut after entry {cut} of {entries}: {problem}");
                Failed { problem, image }
            })?;
        }
        Ok(())
    }

    /// Opens what a loss of power after `cut` entries has left, and looks whether it is as it has to be.
    fn check(&self, path: &Path, cut: usize, reads_first: bool) -> Result<(), String> {
        let was_opened = cut >= self.opened;
        if reads_first {
            match LogReader::open(path) {
                Ok(reader) => self.check_content(&reader, cut)?,
                Err(error) => ensure(!was_opened, || format!("a reader cannot open it: {error}"))?,
            }
        }
        let log = SqliteLog::open(path).map_err(|error| format!("a writer cannot open it: {error}"))?;
        let reader = log.reader().map_err(|error| error.to_string())?;
        ensure(!was_opened || *log.log_id() == self.log_id, || "it is another log".to_owned())?;
        self.check_content(&reader, cut)?;
        self.check_appends(&log, &reader, cut)?;
        let report = reader.verify(|_| {}).map_err(|error| error.to_string())?;
        ensure(report.findings.is_empty(), || format!("verify finds {:?}", report.findings))
    }

    fn acknowledged_before(&self, cut: usize) -> impl Iterator<Item = &Acknowledged> {
        self.acknowledged.iter().filter(move |one| one.journal_length <= cut)
    }

    fn check_content(&self, reader: &LogReader, cut: usize) -> Result<(), String> {
        let head = reader.head().map_err(|error| error.to_string())?.position;
        let events = everything(reader, head).map_err(|error| error.to_string())?;
        ensure(events.len() as u64 == head.0, || format!("{} events up to {head}", events.len()))?;
        let mut versions = HashMap::new();
        let mut at = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let id = event.id.as_str();
            let version: &mut u64 = versions.entry(event.stream.clone()).or_default();
            *version += 1;
            ensure(event.position.0 == index as u64 + 1, || format!("{id} stands at {}", event.position))?;
            ensure(event.stream_version.0 == *version, || format!("{id} has version {}", event.stream_version))?;
            ensure(at.insert(id, event).is_none(), || format!("{id} is there twice"))?;
            let text = self.texts.get(id).ok_or_else(|| format!("nobody sent {id}"))?;
            let has_text = event.content.json().is_some_and(|json| json.contains(&format!("\"{text}\"")));
            ensure(has_text, || format!("{id} has another content"))?;
        }
        for receipt in self.acknowledged_before(cut).flat_map(|one| &one.receipts) {
            let id = receipt.event_id.as_str();
            let event = at.get(id).ok_or_else(|| format!("{id} was acknowledged, and is lost"))?;
            let stands = (event.position, event.stream_version);
            let was_said = (receipt.position, receipt.stream_version);
            ensure(stands == was_said, || format!("{id} stands at {stands:?}, acknowledged {was_said:?}"))?;
        }
        // What was not acknowledged is there as a whole or not at all.
        for one in &self.acknowledged {
            let there = one.request.events().filter(|event| at.contains_key(event.id.as_str())).count();
            ensure(there == 0 || there == 3, || format!("{there} of 3 events like {}", one.request.shared.id))?;
        }
        Ok(())
    }

    /// It is appended to as ever, and what it has already is answered with the first receipts.
    fn check_appends(&self, log: &dyn EventLog, reader: &LogReader, cut: usize) -> Result<(), String> {
        let head = reader.head().map_err(|error| error.to_string())?.position;
        if let Some(last) = self.acknowledged_before(cut).last() {
            let again = last.request.append(log).map_err(|error| error.to_string())?;
            let places = |receipts: &[Receipt]| receipts.iter().map(|receipt| receipt.position).collect::<Vec<_>>();
            ensure(places(&again) == places(&last.receipts), || "the same ids again are appended again".to_owned())?;
        }
        let receipts = log.append(&stream("run/after"), ExpectedVersion::NoStream, vec![prompt("after", "x")]);
        let position = receipts.map_err(|error| format!("it cannot be appended to: {error}"))?[0].position;
        ensure(position == head.next(), || format!("the next event stands at {position}, behind {head}"))
    }
}

fn everything(reader: &LogReader, head: Position) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut events = Vec::new();
    let mut after = Position::START;
    while after < head {
        let batch = reader.read(&EventFilter::default(), after, head, 1000, Read::All)?;
        after = batch.scanned_to;
        events.extend(batch.events);
    }
    Ok(events)
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

/// Runs the plan and loses the power: so often, unless the environment says how often.
fn survives(plan: &Plan, unless_told: usize) -> History {
    let history = History::of(plan);
    assert_survives(&history, images(unless_told));
    history
}

fn assert_survives(history: &History, images: usize) {
    if let Err(Failed { problem, image }) = history.lose_power(images, seed()) {
        // As it was before it was opened.
        let kept = tempfile::tempdir().unwrap().keep().join("ledger.db");
        image.write(&kept).unwrap();
        panic!("{problem}; the image is kept as {}", kept.display());
    }
}

#[test]
fn a_loss_of_power_at_any_moment_loses_nothing_that_was_acknowledged() {
    let history = survives(&SMALL, 200);
    let is_sync = |change: &Change| *change == Change::Synced;
    let begins = |change: &Change| matches!(change, Change::Written { offset: 0, .. });
    assert!(history.count("", is_sync) >= 10, "it was written back many times");
    assert!(history.count("-wal", begins) >= 10, "and the write-ahead log was begun anew as often");
}

#[test]
fn nor_does_it_while_two_threads_append_and_a_third_writes_back() {
    let history = survives(&WRITTEN_BACK, 40);
    let is_sync = |change: &Change| *change == Change::Synced;
    assert!(history.count("", is_sync) >= 2);
}

#[test]
fn nor_does_it_after_syncs_that_failed_whose_data_the_system_dropped() {
    let history = survives(&Plan { syncs_fail: SyncsFail::All, ..SMALL }, 100);
    let failed = |suffix: &str| history.count(suffix, |change| *change == Change::SyncFailed);
    assert!(failed("-wal") >= 10 && failed("") >= 1, "{} and {}", failed("-wal"), failed(""));
    survives(&Plan { syncs_fail: SyncsFail::OfLog, ..WRITTEN_BACK }, 30);
}

#[test]
fn a_ledger_that_is_being_made_is_made_again_or_whole() {
    let mut history = History::of(&Plan { appends: 0, ..SMALL });
    history.journal.truncate(history.opened);
    assert_survives(&history, images(150));
}

#[test]
fn the_check_finds_what_an_append_that_does_not_wait_for_the_disk_loses() {
    let history = History::of(&Plan { sync: SyncMode::Normal, ..SMALL });
    let Failed { problem, .. } = history.lose_power(200, seed()).expect_err("a loss");
    assert!(problem.contains("was acknowledged, and is lost"), "{problem}");
}

#[test]
fn the_check_finds_what_a_disk_loses_that_lies_about_its_syncs() {
    let mut history = History::of(&SMALL);
    for entry in &mut history.journal[history.opened..] {
        if &*entry.suffix == "-wal" && entry.change == Change::Synced {
            entry.change = Change::SyncFailed;
        }
    }
    let Failed { problem, .. } = history.lose_power(200, seed()).expect_err("a loss");
    assert!(problem.contains("lost") || problem.contains("damaged"), "{problem}");
}
