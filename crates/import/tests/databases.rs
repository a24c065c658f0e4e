//! The databases of the conformance data, read in place: what is read, what is appended, what is refused, and that
//! nothing of them changes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runledger_events::{KindFacts, Position, RecordedEvent, RunStatus, StreamName, StreamVersion, WorkflowState};
use runledger_import::{ImportError, OldDatabase, take_over};
use runledger_store::{EventFilter, Read};
use runledger_testkit::{TempLedger, shared};
use serde_json::{Value, json};

struct Case {
    name: String,
    file: PathBuf,
    expected: Value,
}

impl Case {
    fn read(&self) -> OldDatabase {
        OldDatabase::read(&self.file).unwrap()
    }

    fn is_refused(&self) -> bool {
        self.expected["opened"].get("openError").is_some()
    }
}

fn cases() -> Vec<Case> {
    let Some(folder) = shared("conformance/legacy-db") else {
        return Vec::new();
    };
    let index: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let case = |entry: &Value| {
        let name = entry["name"].as_str().unwrap().to_owned();
        let expected = std::fs::read(folder.join(format!("{name}.expected.json"))).unwrap();
        let file = folder.join(format!("{name}.db"));
        Case { file, expected: serde_json::from_slice(&expected).unwrap(), name }
    };
    let cases: Vec<Case> = index.iter().map(case).collect();
    assert_eq!(cases.len(), 18);
    cases
}

fn case(name: &str) -> Option<Case> {
    cases().into_iter().find(|case| case.name == name)
}

/// The cases that are taken over, each into a ledger of its own.
fn taken() -> Vec<(Case, OldDatabase, TempLedger)> {
    let take = |case: Case| {
        let (old, ledger) = (case.read(), TempLedger::new());
        take_over(&*ledger.log, &old).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        (case, old, ledger)
    };
    cases().into_iter().filter(|case| !case.is_refused()).map(take).collect()
}

fn events(ledger: &TempLedger) -> Vec<RecordedEvent> {
    let reader = ledger.log.reader().unwrap();
    let head = reader.head().unwrap().position;
    let mut events: Vec<RecordedEvent> = Vec::new();
    while events.last().map_or(Position::START, |event| event.position) < head {
        let after = events.last().map_or(Position::START, |event| event.position);
        events.extend(reader.read(&EventFilter::default(), after, head, 4096, Read::All).unwrap().events);
    }
    events
}

fn json_of(event: &RecordedEvent) -> Value {
    serde_json::from_str(event.content.json().unwrap()).unwrap()
}

/// Every file of a folder with its digest.
fn digests(folder: &Path) -> BTreeMap<String, String> {
    let digest = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), runledger_events::content_digest(&bytes).to_string())
    };
    std::fs::read_dir(folder).unwrap().map(digest).collect()
}

#[test]
fn every_database_is_read_as_expected_or_refused() {
    for case in cases() {
        let read = OldDatabase::read(&case.file);
        if case.is_refused() {
            let version = &case.expected["stored"]["schemaVersion"];
            let error = read.unwrap_err();
            assert!(matches!(error, ImportError::Older { .. } | ImportError::Newer { .. }), "{error}");
            assert!(error.to_string().contains(&format!("schema version {version}")), "{error}");
            continue;
        }
        let (old, stored) = (read.unwrap(), &case.expected["stored"]);
        assert_eq!(json!(old.session.id), case.expected["sessionId"], "{}", case.name);
        assert_eq!(json!(old.schema_version), stored["schemaVersion"], "{}", case.name);
        assert_eq!(json!(old.runtime_events.len()), stored["counts"]["runtime_events"], "{}", case.name);
        assert_eq!(json!(old.feed_events.len()), stored["counts"]["feed_events"], "{}", case.name);
        assert_eq!(json!(old.runtime_events.last().map(|row| row.seq)), stored["maxRuntimeSeq"], "{}", case.name);
        let without_nulls = |rows: &Value| -> Value {
            let of_row = |row: &Value| -> Value {
                let fields = row.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
                Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
            };
            rows.as_array().map(|rows| rows.iter().map(of_row).collect()).unwrap_or_else(|| json!([]))
        };
        let read = |row: &String| -> Value { serde_json::from_str(row).unwrap() };
        let adapters: Value = old.adapter_sessions.iter().map(|row| read(&row.row)).collect();
        assert_eq!(adapters, without_nulls(&stored["adapterSessions"]), "{}", case.name);
        let runs: Value = old.workflow_runs.iter().map(|row| read(&row.row)).collect();
        assert_eq!(runs, without_nulls(&stored["workflowRuns"]), "{}", case.name);
    }
}

#[test]
fn neither_a_database_nor_what_stands_beside_it_changes() {
    let Some(shared) = shared("conformance/legacy-db") else {
        return;
    };
    let before = digests(&shared);
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        // Where nothing forbids writing, too.
        for suffix in ["", "-wal"] {
            let name = format!("{}{suffix}", case.file.file_name().unwrap().display());
            if let Ok(bytes) = std::fs::read(shared.join(&name)) {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
        }
    }
    let copies = digests(folder.path());

    for case in cases() {
        for file in [&case.file, &folder.path().join(case.file.file_name().unwrap())] {
            if let Ok(old) = OldDatabase::read(file) {
                take_over(&*TempLedger::new().log, &old).unwrap();
            }
        }
    }

    assert_eq!(digests(&shared), before);
    assert_eq!(digests(folder.path()), copies);
}

#[test]
fn every_runtime_event_keeps_its_id_its_time_and_its_text() {
    for (case, old, ledger) in taken() {
        let events = events(&ledger);
        let by_id: BTreeMap<&str, &RecordedEvent> =
            events.iter().filter(|event| event.stream.run_id().is_none()).map(|it| (it.id.as_str(), it)).collect();
        for row in &old.runtime_events {
            let event = by_id[row.id.as_str()];
            let text = event.content.json().unwrap();
            assert_eq!(event.occurred_at.0, row.timestamp, "{}: {}", case.name, row.id);
            match old.schema_version {
                // These have neither `kind` nor `data`: both stand behind what was there.
                2 | 3 => assert!(text.starts_with(row.payload.trim_end_matches('}')), "{}: {text}", case.name),
                _ => assert_eq!(text, row.payload, "{}", case.name),
            }
        }
        let order: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let places: Vec<Option<usize>> =
            old.runtime_events.iter().map(|row| order.iter().position(|id| *id == row.id)).collect();
        assert!(places.is_sorted(), "{}: runtime events in their order of arrival", case.name);
    }
}

#[test]
fn every_feed_event_without_a_runtime_event_is_in_the_log() {
    for (case, old, ledger) in taken() {
        let kept: Vec<Value> = events(&ledger)
            .iter()
            .filter_map(|event| json_of(event).pointer("/imported/feed_events").cloned())
            .flat_map(|feed_events| feed_events.as_array().unwrap().clone())
            .collect();
        let without = old.feed_events.iter().filter(|feed| feed.runtime_event_id.is_none());
        let without: Vec<&Value> = without.map(|feed| &feed.event).collect();
        assert_eq!(json!(without.len()), case.expected["stored"]["feedWithoutRuntimeEvent"], "{}", case.name);
        assert!(without.iter().all(|feed| kept.contains(feed)), "{}", case.name);
    }
}

#[test]
fn a_decision_names_its_event_and_says_what_the_mapper_made_of_it() {
    let Some(case) = case("permissions-unicode") else {
        return;
    };
    let ledger = TempLedger::new();
    take_over(&*ledger.log, &case.read()).unwrap();
    let events = events(&ledger);
    let decisions: Vec<String> = events
        .iter()
        .filter(|event| matches!(event.facts.data, KindFacts::Decision(_)))
        .map(|event| {
            let before = events.iter().rfind(|other| other.position < event.position && !other.kind.is_workflow());
            assert_eq!(event.metadata.causation_id.as_ref(), before.map(|decided| &decided.id));
            let data = &json_of(event)["data"];
            format!("{} {}", data["eventId"].as_str().unwrap(), data["decision"])
        })
        .collect();
    insta::assert_snapshot!("decisions", decisions.join("\n"));
}

#[test]
fn a_repeated_id_is_told_apart_and_its_event_made_again_of_the_feed() {
    let Some(case) = case("repeated-ids") else {
        return;
    };
    let ledger = TempLedger::new();
    take_over(&*ledger.log, &case.read()).unwrap();
    let repeated = events(&ledger).into_iter().find(|event| event.id.as_str() == "req-0003~2").unwrap();
    assert_eq!(repeated.kind.as_str(), "tool.post");
    insta::assert_json_snapshot!("repeated_id", json_of(&repeated));
}

#[test]
fn runs_fold_to_what_their_rows_say() {
    for (case, old, ledger) in taken() {
        let reader = ledger.log.reader().unwrap();
        for row in &old.workflow_runs {
            let stream = StreamName::new(format!("run/{}", row.id)).unwrap();
            let events = reader.read_stream(&stream, StreamVersion::EMPTY, Read::All).unwrap();
            let (state, illegal) = WorkflowState::fold(&events).unwrap();
            assert_eq!(illegal, [], "{}: {}", case.name, row.id);
            let status =
                if row.status == "running" { RunStatus::Interrupted } else { RunStatus::parse(&row.status).unwrap() };
            assert_eq!(state.status, status, "{}: {}", case.name, row.id);
            assert_eq!(i64::from(state.iteration), row.iteration, "{}: {}", case.name, row.id);
            assert_eq!(state.stop_reason, row.stop_reason, "{}: {}", case.name, row.id);
            assert_eq!(state.tracker_path, row.tracker_path, "{}: {}", case.name, row.id);
            assert_eq!(state.started_at.0, row.started_at, "{}: {}", case.name, row.id);
            assert_eq!(state.ended_at.map(|at| at.0), row.ended_at, "{}: {}", case.name, row.id);
            assert!(state.owner.is_none() && !state.iteration_is_open, "{}: {}", case.name, row.id);
            assert!(events.iter().all(|event| event.id.as_str().starts_with("import:")));
            assert!(events.iter().all(|event| json_of(event).pointer("/data/imported").is_some()));
            assert!(events.is_sorted_by_key(|event| event.occurred_at), "{}: {}", case.name, row.id);
        }
    }
}

#[test]
fn the_same_database_again_appends_nothing_wherever_it_lies() {
    for (case, old, ledger) in taken() {
        let before = ledger.log.reader().unwrap().head().unwrap();
        let elsewhere = OldDatabase { file: PathBuf::from("elsewhere.db"), ..old };
        let again = take_over(&*ledger.log, &elsewhere).unwrap();
        assert_eq!((again.appended, again.duplicates), (0, again.events), "{}", case.name);
        assert_eq!(ledger.log.reader().unwrap().head().unwrap(), before, "{}", case.name);
    }
}

#[test]
fn other_sessions_of_the_same_id_stay_apart_and_each_is_found_again() {
    let ledger = TempLedger::new();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..2 {
        for case in cases().into_iter().filter(|case| !case.is_refused()) {
            let taken = take_over(&*ledger.log, &case.read()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            places.entry(case.name).or_default().push(taken.session_id.to_string());
        }
    }
    assert!(places.values().all(|places| places[0] == places[1]), "{places:?}");
    if !places.is_empty() {
        assert_eq!(places["interrupted"], places["interrupted-wal"], "one session, once with its log folded in");
        let sessions: std::collections::BTreeSet<&String> = places.values().flatten().collect();
        assert_eq!(sessions.len(), 15);
        insta::assert_json_snapshot!("places", places);
    }
}

#[test]
fn the_whole_of_a_log_in_its_order() {
    let Some(case) = case("many-runs") else {
        return;
    };
    let ledger = TempLedger::new();
    take_over(&*ledger.log, &case.read()).unwrap();
    let start = case.expected["stored"]["session"][0]["created_at"].as_i64().unwrap();
    let line = |event: &RecordedEvent| {
        let stream = event.stream.as_str().chars().take(12).collect::<String>();
        let what = json_of(event).pointer("/data/phase").and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{stream:12} {:>9} {:36} {} {what}", event.occurred_at.0 - start, event.id, event.kind)
    };
    let lines: Vec<String> = events(&ledger).iter().map(|event| line(event).trim_end().to_owned()).collect();
    insta::assert_snapshot!("many_runs", lines.join("\n"));
}
