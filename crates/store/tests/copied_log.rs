//! The copy of a log that another engine keeps: a naive engine that numbers lines stands for the engine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{
    Content, Digest, EventKind, LogId, Metadata, Position, StreamName, StreamVersion, TimestampMs, commitment,
    event_digest,
};
use runledger_store::{
    AppendError, CopiedLog, CopyError, DraftedEvent, Erase, Erasure, EventLog, ExpectedVersion, OpenError, SqliteLog,
    StreamAppend, new_event_from_exported, stand_ins,
};
use support::{Place, all, append_one, assert_verifies, json, prompt, prompt_with, stream};

fn log_id(last: u8) -> LogId {
    LogId::new(format!("0199aaaa-0000-7000-8000-00000000000{last}")).unwrap()
}

fn copy(place: &Place) -> CopiedLog {
    CopiedLog::open(place.path(), &log_id(1)).unwrap()
}

fn to(name: &str, ids: &[&str]) -> StreamAppend {
    let events = ids.iter().map(|id| prompt(id, "words")).collect();
    StreamAppend { stream: stream(name), expected: ExpectedVersion::Any, events }
}

/// What the engine has: lines, of which the number is the position.
#[derive(Default)]
struct Engine(Vec<String>);

impl Engine {
    /// Keeps what was drafted; gives the positions.
    fn keep(&mut self, events: &[DraftedEvent]) -> Vec<Position> {
        let first = self.0.len() as u64 + 1;
        self.0.extend(events.iter().map(|event| event.line.clone()));
        (first..=self.0.len() as u64).map(Position).collect()
    }

    fn lines(&self, from: usize) -> Vec<(Position, &str)> {
        (from..).zip(&self.0[from - 1..]).map(|(at, line)| (Position(at as u64), line.as_str())).collect()
    }
}

#[test]
fn what_a_draft_says_is_what_stands_there_once_it_is_taken_in() {
    let (place, mut engine) = (Place::new(), Engine::default());
    let copy = copy(&place);
    let draft =
        copy.draft(vec![to("session/a", &["a1", "a2"]), to("run/r", &["r1"]), to("session/a", &["a2"])]).unwrap();
    // It writes nothing.
    assert_eq!((copy.head().unwrap(), all(&place.reader()).len()), (Position::START, 0));
    let after: Vec<_> =
        draft.events.iter().map(|event| (event.stream.as_str(), event.version.0, event.after)).collect();
    let first = Some(Position::START);
    assert_eq!(after, [("session/a", 1, first), ("session/a", 2, None), ("run/r", 1, first)]);
    // Somebody else's event comes first.
    let other = copy.draft(vec![to("session/b", &["b1"])]).unwrap();
    engine.keep(&other.events);
    let positions = engine.keep(&draft.events);
    assert_eq!(copy.take(&engine.lines(1)).unwrap(), Position(4));
    let receipts: Vec<_> =
        draft.receipts(&positions).into_iter().map(|receipt| (receipt.position.0, receipt.is_duplicate)).collect();
    assert_eq!(receipts, [(2, false), (3, false), (4, false), (3, true)]);
    let events = all(&place.reader());
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["b1", "a1", "a2", "r1"]);
    assert_verifies(&place.reader());
    // The next draft goes on from there, and knows what is there.
    let again = copy.draft(vec![to("session/a", &["a2", "a3"])]).unwrap();
    assert_eq!(again.events.len(), 1);
    assert_eq!((again.events[0].after, again.events[0].version.0), (Some(Position(3)), 3));
    let known = copy.draft(vec![to("session/a", &["a1"])]).unwrap();
    assert!(known.events.is_empty() && known.receipts(&[])[0].position == Position(2));
    let taken = vec![prompt_with("a1", "other words", Metadata::default())];
    let taken = StreamAppend { stream: stream("session/a"), expected: ExpectedVersion::Any, events: taken };
    assert!(matches!(copy.draft(vec![taken]), Err(AppendError::IdTaken { .. })));
}

#[test]
fn two_copies_of_one_log_are_the_same_log() {
    let (one, other, mut engine) = (Place::new(), Place::new(), Engine::default());
    let (a, b) = (copy(&one), copy(&other));
    for number in 0..20 {
        let draft = a.draft(vec![to(["session/a", "run/r"][number % 2], &[&format!("e{number}")])]).unwrap();
        engine.keep(&draft.events);
        a.take(&engine.lines(number + 1)).unwrap();
    }
    // The other one takes in pieces, some of them twice.
    for from in [1, 1, 4, 9, 2] {
        let lines = engine.lines(from);
        b.take(&lines[..lines.len().min(7)]).unwrap();
    }
    b.take(&engine.lines(1)).unwrap();
    assert_eq!(one.reader().head().unwrap(), other.reader().head().unwrap(), "and so is the chain");
    assert_eq!(all(&one.reader()), all(&other.reader()));
    assert_verifies(&other.reader());
}

#[test]
fn what_does_not_follow_is_refused_and_leaves_the_copy_as_it_was() {
    let (place, mut engine) = (Place::new(), Engine::default());
    let copy = copy(&place);
    for number in 0..4 {
        let draft = copy.draft(vec![to("session/a", &[&format!("e{number}")])]).unwrap();
        engine.keep(&draft.events);
        if number < 2 {
            copy.take(&engine.lines(number + 1)).unwrap();
        }
    }
    let head = place.reader().head().unwrap();
    let gap = copy.take(&[(Position(4), engine.0[2].as_str())]).unwrap_err();
    assert!(matches!(gap, CopyError::Missing { missing: Position(3), next: Position(4), .. }), "{gap}");
    let none = copy.take(&[(Position(3), "{}")]).unwrap_err();
    assert!(matches!(none, CopyError::NoEvent { position: Position(3), .. }), "{none}");
    // Another text under the digest of the one that was appended; another version; an event of another log.
    let changed = engine.0[2].replace("words", "words!");
    assert!(matches!(copy.take(&[(Position(3), &changed)]), Err(CopyError::NoEvent { .. } | CopyError::Storage(_))));
    let moved = engine.0[2].replace("\"stream_version\":3", "\"stream_version\":4");
    assert!(copy.take(&[(Position(3), &moved)]).is_err());
    let foreign = Place::new();
    append_one(&foreign.log(), "session/a", prompt("x", "y"));
    append_one(&foreign.log(), "session/a", prompt("x2", "y"));
    append_one(&foreign.log(), "session/a", prompt("x3", "y"));
    let mut lines = Vec::new();
    foreign
        .reader()
        .export::<runledger_store::ReadError>(None, true, |line| {
            lines.push(line.to_owned());
            Ok(())
        })
        .unwrap();
    let parted = copy.take(&[(Position(3), &lines[2])]).unwrap_err();
    assert!(parted.to_string().contains("its digest is another"), "{parted}");
    assert_eq!(place.reader().head().unwrap(), head);
    assert_verifies(&place.reader());
    // What follows is taken in all the same.
    assert_eq!(copy.take(&engine.lines(3)[..1]).unwrap(), Position(3));
}

#[test]
fn a_copy_is_no_log_of_its_own_and_no_copy_of_another() {
    let place = Place::new();
    drop(copy(&place));
    assert!(matches!(SqliteLog::open(place.path()), Err(OpenError::Copy { .. })));
    assert!(matches!(CopiedLog::open(place.path(), &log_id(2)), Err(OpenError::CopyOfAnother { .. })));
    assert_eq!(place.reader().log_id(), &log_id(1));
    let own = Place::new();
    let id = own.log().log_id().clone();
    assert!(matches!(CopiedLog::open(own.path(), &id), Err(OpenError::NoCopy { .. })));
    append_one(&own.log(), "session/a", prompt("e1", "it is as it was"));
}

#[test]
fn an_engine_that_lost_what_was_copied_and_went_on_is_told_apart() {
    let (place, mut engine) = (Place::new(), Engine::default());
    let copy = copy(&place);
    engine.keep(&copy.draft(vec![to("session/a", &["e1", "e2"])]).unwrap().events);
    copy.take(&engine.lines(1)).unwrap();
    // It has less than the copy.
    assert!(copy.is_beyond(Position(2)).unwrap().is_none());
    let beyond = copy.is_beyond(Position(1)).unwrap().unwrap();
    assert!(matches!(beyond, CopyError::Apart { position: Position(2), .. }), "{beyond}");
    // It has another event where the copy ends, and more behind it.
    let elsewhere = Place::new();
    let other = CopiedLog::open(elsewhere.path(), &log_id(1)).unwrap();
    engine.0.truncate(1);
    other.take(&engine.lines(1)).unwrap();
    engine.keep(&other.draft(vec![to("session/a", &["e3", "e4"])]).unwrap().events);
    let head = place.reader().head().unwrap();
    let parted = copy.take(&engine.lines(2)).unwrap_err();
    assert!(matches!(parted, CopyError::Apart { position: Position(2), .. }), "{parted}");
    assert_eq!(place.reader().head().unwrap(), head);
    // What the copy has already comes again without harm.
    assert_eq!(other.take(&engine.lines(1)).unwrap(), Position(3));
    assert_eq!(other.take(&engine.lines(3)).unwrap(), Position(3));
}

fn next_erasure(copy: &CopiedLog, erase: &Erase) -> Option<Erasure> {
    let mut plan = copy.plan_erasure(erase, Position(9)).unwrap();
    copy.next_erasure(&mut plan, erase, "why", "who", 1 << 20).unwrap()
}

/// Has a part of an erasure told, as the engine does before it deletes anything.
fn erase(copy: &CopiedLog, engine: &mut Engine, position: u64) {
    let erase = Erase::Events(vec![Position(position)]);
    let part = next_erasure(copy, &erase).unwrap();
    engine.keep(&copy.draft_own(part.appends).unwrap().events);
}

/// Where content is gone.
fn erased(place: &Place) -> Vec<u64> {
    let events = all(&place.reader());
    events.iter().filter(|event| event.content == Content::Erased).map(|event| event.position.0).collect()
}

#[test]
fn what_is_told_to_be_erased_goes_from_copies_that_have_it_and_something_stands_in_for_it_in_others() {
    let (one, other, new, mut engine) = (Place::new(), Place::new(), Place::new(), Engine::default());
    let (a, b, c) = (copy(&one), copy(&other), copy(&new));
    engine.keep(&a.draft(vec![to("session/a", &["a1", "a2"]), to("run/r", &["r1"])]).unwrap().events);
    a.take(&engine.lines(1)).unwrap();
    b.take(&engine.lines(1)).unwrap();
    // A mark comes behind the last event of a stream, and behind no other one.
    erase(&a, &mut engine, 1);
    a.take(&engine.lines(1)).unwrap();
    erase(&a, &mut engine, 3);
    for copy in [&a, &b] {
        assert_eq!(copy.take(&engine.lines(1)).unwrap(), Position(6));
    }
    assert_eq!((erased(&one), erased(&other)), (vec![1, 3], vec![1, 3]));
    let streams: Vec<_> = all(&one.reader()).iter().map(|event| event.stream.to_string()).collect();
    assert_eq!(streams[3..], ["ledger/redactions", "ledger/redactions", "run/r"]);
    assert_eq!(a.redactions().unwrap(), [(1, 1), (3, 3)]);
    let deletable = a.deletable([0, 1, 2, 3, 6, 7]).unwrap();
    assert_eq!(deletable.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 3]);
    // What is there is told once.
    assert!(next_erasure(&a, &Erase::Events(vec![Position(1)])).is_none());

    // Whoever comes when the engine has deleted them takes what stands in for them.
    let mut left: Vec<_> = engine.lines(1).into_iter().filter(|(position, _)| ![1, 3].contains(&position.0)).collect();
    let missing = c.take(&left);
    assert!(matches!(missing, Err(CopyError::Missing { missing: Position(1), next: Position(2), .. })), "{missing:?}");
    let stand_ins: Vec<_> = engine.0.iter().flat_map(|line| stand_ins(line, &log_id(1))).collect();
    assert_eq!(stand_ins.iter().map(|(position, _)| position.0).collect::<Vec<_>>(), [1, 3]);
    let forged = stand_ins[0].1.replace("user.prompt", "user.doubts");
    let taken = c.take(&[(Position(1), forged.as_str())]);
    assert!(matches!(taken, Err(CopyError::Apart { position: Position(1), .. })), "{taken:?}");
    left.extend(stand_ins.iter().map(|(position, line)| (*position, line.as_str())));
    left.sort_unstable();
    // As long as the event that tells is not copied, nobody can know, and that is said.
    assert_eq!(c.take(&left[..2]).unwrap(), Position(2));
    let [found] = &new.reader().verify(|_| {}).unwrap().findings[..] else { panic!("one finding") };
    assert!(
        found.position == Some(Position(1)) && found.detail.contains("has yet to take the event that tells"),
        "{found:?}"
    );
    assert_eq!(c.take(&left[2..]).unwrap(), Position(6));
    assert_eq!((one.reader().head().unwrap(), erased(&new)), (new.reader().head().unwrap(), vec![1, 3]));
    for place in [&one, &other, &new] {
        assert_verifies(&place.reader());
    }
}

#[test]
fn what_is_told_of_another_log_of_what_comes_later_or_of_another_event_erases_nothing() {
    let (place, mut engine) = (Place::new(), Engine::default());
    let copy = copy(&place);
    engine.keep(&copy.draft(vec![to("session/a", &["a1", "a2"])]).unwrap().events);
    copy.take(&engine.lines(1)).unwrap();
    let digest = |at: usize| {
        let line: serde_json::Value = serde_json::from_str(&engine.0[at - 1]).unwrap();
        line["digest"].as_str().unwrap().to_owned()
    };
    let forged = [
        (log_id(2), 1, digest(1)),
        (log_id(1), 1, digest(2)),
        (log_id(1), 1, "00".to_owned()),
        (log_id(1), 900, digest(1)),
        (log_id(1), u64::MAX, digest(1)),
    ];
    for (log_id, position, digest) in forged {
        let data = format!(
            r#"{{"log_id":"{log_id}","ranges":[[0,1]],"stand_ins":[{{"position":{position},"digest":"{digest}"}}]}}"#
        );
        for data in [data.as_str(), r#"{"log_id":5}"#, r#"{"log_id":"l","stand_ins":5}"#] {
            let event = json(&format!(r#"{{"kind":"ledger.redacted","data":{data}}}"#), Metadata::default());
            let stream = StreamName::redactions();
            let append = StreamAppend { stream, expected: ExpectedVersion::Any, events: vec![event] };
            engine.keep(&copy.draft_own(vec![append]).unwrap().events);
            copy.take(&engine.lines(1)).unwrap();
        }
    }
    assert_eq!(erased(&place), [0; 0]);
    assert_eq!((copy.redactions().unwrap().len(), copy.deletable(0..9).unwrap()), (1, vec![]));
    assert_verifies(&place.reader());
}

/// A line as a newer release would write it, whose facts and words this one does not know.
fn by_a_newer_release(line: &str, predecessor: Digest) -> String {
    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
    let salt = field(&line, "salt");
    let salt: Vec<u8> =
        (0..salt.len()).step_by(2).map(|at| u8::from_str_radix(&salt[at..at + 2], 16).unwrap()).collect();
    let content = r#"{"kind":"workflow.transition","data":{"from":"orbiting","to":"landed","status":"well"}}"#;
    let commitment = commitment(&salt.try_into().unwrap(), content.as_bytes());
    let kind = EventKind::parse("workflow.transition");
    let at = |name: &str| TimestampMs(line[name].as_i64().unwrap());
    let digest = event_digest(
        &predecessor,
        &stream(&field(&line, "stream")),
        StreamVersion(line["stream_version"].as_u64().unwrap()),
        &support::id(&field(&line, "id")),
        &kind,
        at("occurred_at"),
        at("recorded_at"),
        &Metadata::default(),
        &[200, 0, 0, 0, 77],
        &commitment,
    );
    line["kind"] = kind.as_str().into();
    line["event"] = serde_json::Value::Null;
    line["facts"] = "c80000004d".into();
    line["commitment"] = commitment.to_string().into();
    line["digest"] = digest.to_string().into();
    line.to_string().replace(r#""event":null"#, &format!(r#""event":{content}"#))
}

#[test]
fn what_a_newer_release_has_written_is_copied_as_it_is_and_nothing_behind_it_waits() {
    let (place, mut engine) = (Place::new(), Engine::default());
    let copy = copy(&place);
    engine.keep(&copy.draft(vec![to("run/r", &["r1"]), to("session/a", &["a1"])]).unwrap().events);
    engine.0[0] = by_a_newer_release(&engine.0[0], Digest::ZERO);
    assert_eq!(copy.take(&engine.lines(1)).unwrap(), Position(2));
    let report = place.verify();
    let told: Vec<_> = report.findings.iter().map(|found| (found.check, found.position)).collect();
    assert_eq!(told, [("payloads", Some(Position(1)))], "{report:?}");
    assert!(report.findings[0].detail.contains("newer"), "{report:?}");
    // Another log takes it over as it is, and nobody else's words pass for it.
    let other = Place::new();
    place.reader().copy_into(&other.log(), |_| {}).unwrap();
    let at = |place: &Place| place.reader().digest_at(&stream("run/r"), StreamVersion(1)).unwrap();
    assert!(at(&place).is_some() && at(&place) == at(&other));
    assert!(new_event_from_exported(&engine.0[0]).is_err());
    // And what an older one has, version 1 of the codec.
    let lines = include_str!("fixtures/log-v1.export.jsonl");
    let older = Place::new();
    self::copy(&older).take(&(1..).map(Position).zip(lines.lines()).collect::<Vec<_>>()).unwrap();
    assert!(lines.contains(r#""facts":"01"#));
    // In that release contents were erased by hand, without a word.
    assert!(older.verify().findings.iter().all(|found| found.check == "contents"));
    let undigested = engine.0[1].replace("digest", "digested");
    assert!(matches!(copy.take(&[(Position(3), undigested.as_str())]), Err(CopyError::NoEvent { .. })));
    let forged = engine.0[0].replace("landed", "lost!!");
    let taken = self::copy(&Place::new()).take(&[(Position(1), forged.as_str())]);
    assert!(taken.is_err(), "{taken:?}");
}
