//! The feed against the reference's: every recorded case, at once, with a restart after each line, and after a rebuild.
//!
//! A fold has no restarts: cases with restarts are compared with what the reference gives without them. Where ours differs
//! on purpose, the difference stands in the snapshot, and its reason in docs/decisions/0014-feed.md.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use runledger_events::{Position, SessionId, Source, readable};
use runledger_projections::{FeedEvent, FeedFilter, FeedPage, Projections, Queries};
use runledger_testkit::{TempLedger, shared};
use serde_json::{Map, Value};

/// How often the read models are brought up to date, and opened anew.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    AtOnce,
    RestartedAfterEachLine,
}

struct Case {
    name: String,
    input: Vec<String>,
    /// By line, from 1.
    expected: BTreeMap<usize, Vec<Value>>,
}

fn cases() -> Option<Vec<Case>> {
    let folder = shared("conformance/feed")?;
    let index: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(folder.join("index.json")).unwrap()).unwrap();
    Some(index.iter().map(|case| Case::read(&folder, case["name"].as_str().unwrap())).collect())
}

impl Case {
    fn read(folder: &Path, name: &str) -> Self {
        let lines = |kind: &str| -> Option<Vec<String>> {
            let text = std::fs::read_to_string(folder.join(format!("{name}.{kind}.jsonl"))).ok()?;
            Some(text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect())
        };
        let expected = lines("unbroken").or_else(|| lines("expected")).unwrap();
        let expected = expected.iter().map(|line| {
            let line: Value = serde_json::from_str(&readable(line)).unwrap();
            let number = usize::try_from(line["line"].as_u64().unwrap()).unwrap();
            (number, line["events"].as_array().unwrap().clone())
        });
        Self { name: name.to_owned(), input: lines("input").unwrap(), expected: expected.collect() }
    }

    fn session(&self) -> SessionId {
        SessionId::new(self.name.as_str()).unwrap()
    }

    /// Tells the input to a ledger; gives the line of each position.
    fn tell(&self, ledger: &TempLedger, pace: Pace) -> BTreeMap<Position, usize> {
        let stream = format!("session/{}", self.name);
        let mut lines = BTreeMap::new();
        let mut transcripts: HashMap<String, Transcript> = HashMap::new();
        for (number, line) in (1..).zip(&self.input) {
            let value: Value = serde_json::from_str(&readable(line)).unwrap();
            if let Some(told) = value.get("transcript") {
                let path = told["path"].as_str().unwrap().to_owned();
                transcripts.entry(path).or_default().text += told["append"].as_str().unwrap();
                continue;
            }
            if value.get("kind").is_none() && value.get("eventId").is_none() {
                continue; // a restart, or a number taken for somebody else: a fold knows neither
            }
            let path = value["context"]["transcriptPath"].as_str().unwrap_or_default();
            if let Some(transcript) = transcripts.get_mut(path) {
                for message in transcript.new_messages(path, &value) {
                    lines.insert(ledger.append(&stream, &message).position, number);
                }
            }
            lines.insert(ledger.append(&stream, line).position, number);
            if pace == Pace::RestartedAfterEachLine {
                Projections::open(&ledger.path).unwrap().catch_up().unwrap();
            }
        }
        Projections::open(&ledger.path).unwrap().catch_up().unwrap();
        lines
    }
}

/// A transcript that grows, as ingestion reads it.
#[derive(Default)]
struct Transcript {
    text: String,
    read: usize,
}

impl Transcript {
    /// What the main agent said in the whole lines that came since, as events of their own source.
    fn new_messages(&mut self, path: &str, before: &Value) -> Vec<String> {
        let mut messages = Vec::new();
        while let Some(end) = self.text[self.read..].find('\n') {
            let start = self.read;
            self.read += end + 1;
            let Ok(line) = serde_json::from_str::<Value>(&self.text[start..start + end]) else {
                continue;
            };
            if line["type"] != "assistant" {
                continue;
            }
            let content = &line["message"]["content"];
            let parts = content.as_array().into_iter().flatten().filter(|part| part["type"] == "text");
            let said: Vec<&str> = match content.as_str() {
                Some(text) => vec![text],
                None => parts.filter_map(|part| part["text"].as_str()).filter(|text| !text.trim().is_empty()).collect(),
            };
            let mut data = Map::new();
            data.insert("message".to_owned(), said.join("\n").into());
            if let Some(model) = line["message"]["model"].as_str() {
                data.insert("model".to_owned(), model.into());
            }
            let event = serde_json::json!({
                "id": Source::Transcript.event_id(&format!("{path}-{start}")).unwrap().as_str(),
                "timestamp": before["timestamp"], "kind": "message.complete", "data": data,
                "sessionId": before["sessionId"], "context": {"transcriptPath": path},
            });
            messages.push(event.to_string());
        }
        messages
    }
}

fn feed(ledger: &TempLedger, session: &SessionId) -> Vec<FeedEvent> {
    let filter = FeedFilter { session: Some(session.clone()), ..FeedFilter::default() };
    let mut events = Queries::open(&ledger.path).unwrap().feed(&filter, &FeedPage::First, usize::MAX / 2).unwrap();
    let log = ledger.log.reader().unwrap();
    for event in &mut events {
        event.read_raw(&log).unwrap();
    }
    events
}

/// What the reference's events have, by line.
fn by_line(events: &[FeedEvent], lines: &BTreeMap<Position, usize>) -> BTreeMap<usize, Vec<Value>> {
    let mut told: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for event in events {
        let mut value = serde_json::to_value(event).unwrap();
        for ours in ["ledger_session_id", "first_position", "position", "workflow"] {
            value.as_object_mut().unwrap().remove(ours);
        }
        told.entry(lines[&event.first_position]).or_default().push(value);
    }
    told
}

/// How the two differ, line by line; numbers that only moved are no difference.
fn differences(case: &Case, ours: &BTreeMap<usize, Vec<Value>>) -> String {
    let mut told = String::new();
    let mut moved: HashMap<u64, u64> = HashMap::new();
    for line in 1..=case.input.len() {
        let none = Vec::new();
        let (expected, ours) = (case.expected.get(&line).unwrap_or(&none), ours.get(&line).unwrap_or(&none));
        let mut rest = expected.iter();
        let mut left = expected.len();
        for event in ours {
            // The next of the same kind; what is passed over is missing.
            let found = rest.clone().position(|other| other["kind"] == event["kind"]);
            let Some(at) = found else {
                writeln!(told, "  line {line}: + {} {}", event["kind"], event["data"]).unwrap();
                continue;
            };
            for missing in rest.by_ref().take(at) {
                left -= 1;
                writeln!(told, "  line {line}: - {} {}", missing["kind"], missing["data"]).unwrap();
            }
            let other = rest.next().unwrap();
            left -= 1;
            moved.insert(event["seq"].as_u64().unwrap(), other["seq"].as_u64().unwrap());
            compare(&mut told, &format!("line {line}: {}", event["kind"].as_str().unwrap()), other, event, &moved);
        }
        for missing in rest.take(left) {
            writeln!(told, "  line {line}: - {} {}", missing["kind"], missing["data"]).unwrap();
        }
    }
    told
}

fn compare(told: &mut String, place: &str, expected: &Value, ours: &Value, moved: &HashMap<u64, u64>) {
    match (expected, ours) {
        (Value::Object(expected), Value::Object(ours)) => {
            let mut names: Vec<&String> = expected.keys().chain(ours.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let (expected, ours) = (expected.get(name), ours.get(name));
                match (expected, ours) {
                    (Some(expected), Some(ours)) => compare(told, &format!("{place}.{name}"), expected, ours, moved),
                    (Some(expected), None) => writeln!(told, "  {place}.{name}: {expected} → nothing").unwrap(),
                    (None, Some(ours)) => writeln!(told, "  {place}.{name}: nothing → {ours}").unwrap(),
                    (None, None) => {}
                }
            }
        }
        (Value::Number(_), Value::Number(number)) if place.ends_with(".seq") => {
            let renumbered = number.as_u64().and_then(|seq| moved.get(&seq)).copied().map(Value::from);
            if renumbered.as_ref() != Some(expected) {
                writeln!(told, "  {place}: {expected} → {ours}").unwrap();
            }
        }
        (Value::String(expected_text), Value::String(text)) if place.ends_with("event_id") => {
            let renumbered = renumber(text, moved);
            if *expected_text != renumbered {
                writeln!(told, "  {place}: {expected} → {renumbered:?}").unwrap();
            }
        }
        (expected, ours) if !is_same(expected, ours) => writeln!(told, "  {place}: {expected} → {ours}").unwrap(),
        _ => {}
    }
}

/// An event's id as it were if no number had moved.
fn renumber(event_id: &str, moved: &HashMap<u64, u64>) -> String {
    let Some((run, seq)) = event_id.rsplit_once(":E") else {
        return event_id.to_owned();
    };
    match seq.parse().ok().and_then(|seq: u64| moved.get(&seq)) {
        Some(seq) => format!("{run}:E{seq}"),
        None => event_id.to_owned(),
    }
}

/// Text of which half a character was cut off by the reference is cut before that character by us.
fn is_same(expected: &Value, ours: &Value) -> bool {
    let whole = |value: &Value| value.as_str().map(|text| text.replace('\u{fffd}', ""));
    expected == ours || (whole(expected).is_some() && whole(expected) == whole(ours))
}

#[test]
fn every_case_gives_the_references_feed_or_a_documented_difference() {
    let Some(cases) = cases() else {
        return;
    };
    assert_eq!(cases.len(), 42);
    let mut told = String::new();
    for case in &cases {
        let ledger = TempLedger::new();
        let lines = case.tell(&ledger, Pace::AtOnce);
        let differences = differences(case, &by_line(&feed(&ledger, &case.session()), &lines));
        if !differences.is_empty() {
            write!(told, "{}\n{differences}", case.name).unwrap();
        }
    }
    insta::assert_snapshot!("differences", told);
}

#[test]
fn a_restart_after_each_line_and_a_rebuild_change_nothing() {
    let Some(cases) = cases() else {
        return;
    };
    for case in &cases {
        let (at_once, restarted) = (TempLedger::new(), TempLedger::new());
        case.tell(&at_once, Pace::AtOnce);
        case.tell(&restarted, Pace::RestartedAfterEachLine);
        let told = |ledger: &TempLedger| -> Vec<Value> {
            feed(ledger, &case.session()).iter().map(|event| serde_json::to_value(event).unwrap()).collect()
        };
        let before = told(&at_once);
        assert_eq!(before, told(&restarted), "{}", case.name);
        let mut projections = Projections::open(&restarted.path).unwrap();
        for name in ["feed_events", "feed_search"] {
            let rebuilt = projections.rebuild(name, &mut |_| {}).unwrap();
            assert_eq!(rebuilt.changed, Some(0), "{} {name}", case.name);
        }
        assert_eq!(before, told(&restarted), "{}", case.name);
    }
}

#[test]
fn actors_and_plan_are_the_references() {
    let Some(folder) = shared("conformance/feed") else {
        return;
    };
    for case in cases().unwrap().iter().filter(|case| !folder.join(format!("{}.unbroken.jsonl", case.name)).exists()) {
        let ledger = TempLedger::new();
        case.tell(&ledger, Pace::AtOnce);
        let state = std::fs::read_to_string(folder.join(format!("{}.state.json", case.name))).unwrap();
        let state: Value = serde_json::from_str(&readable(&state)).unwrap();
        let session = Queries::open(&ledger.path).unwrap().session_feed(&case.session()).unwrap();
        assert_eq!(serde_json::to_value(&session.actors).unwrap(), state["actors"], "{}", case.name);
        let plan: Vec<Value> = session.plan.iter().map(|item| serde_json::from_str(item.get()).unwrap()).collect();
        assert_eq!(Value::from(plan), state["tasks"], "{}", case.name);
        let open = session.runs.last().filter(|run| run.ended_at.is_none());
        match (open, state["currentRun"].as_object()) {
            (None, None) => {}
            (Some(run), Some(expected)) => {
                assert_eq!(run.run_id, expected["run_id"], "{}", case.name);
                assert_eq!(run.trigger, expected["trigger"]["type"], "{}", case.name);
                assert_eq!(serde_json::to_value(run.counters.tool_uses).unwrap(), expected["counters"]["tool_uses"]);
                assert_eq!(
                    run.subagent_ids,
                    serde_json::from_value::<Vec<String>>(expected["actors"]["subagent_ids"].clone()).unwrap()
                );
            }
            (ours, theirs) => panic!("{}: {ours:?} where the reference has {theirs:?}", case.name),
        }
    }
}
