//! `import`: every database of the conformance data, what is refused, and what a person reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use runledger_testkit::shared;
use serde_json::{Value, json};
use support::{Room, text};

/// The databases with what is expected of each.
fn cases() -> Vec<(String, PathBuf, Value)> {
    let Some(folder) = shared("conformance/legacy-db") else {
        return Vec::new();
    };
    let index: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let case = |entry: &Value| {
        let name = text(entry, "/name").to_owned();
        let expected = std::fs::read(folder.join(format!("{name}.expected.json"))).unwrap();
        (name.clone(), folder.join(format!("{name}.db")), serde_json::from_slice(&expected).unwrap())
    };
    index.iter().map(case).collect()
}

fn case(name: &str) -> Option<PathBuf> {
    cases().into_iter().find(|(case, ..)| case == name).map(|(_, file, _)| file)
}

/// The report with the file's name alone.
fn report(mut report: Value) -> Value {
    let folder = shared("conformance/legacy-db").unwrap();
    let folder = format!("{}/", folder.display());
    for field in ["file", "error"] {
        if let Some(text) = report[field].as_str() {
            report[field] = json!(text.replace(&folder, ""));
        }
    }
    report
}

/// How many events of each kind the log has.
fn kinds(room: &Room) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for event in room.events() {
        *kinds.entry(text(&event, "/kind").to_owned()).or_default() += 1;
    }
    kinds
}

#[test]
fn every_database_is_taken_over_or_refused() {
    for (name, file, expected) in cases() {
        let room = Room::new();
        let ran = support::run(room.command(["import"]).arg(&file).arg("--json"));
        let reports = ran.json();
        assert_eq!(reports.len(), 1, "{name}");
        if expected["opened"].get("openError").is_some() {
            assert_eq!(ran.code, Some(1), "{name}");
            assert!(room.has_no_ledger(), "{name}: nothing is made for a database that is refused");
            insta::assert_json_snapshot!(name, report(reports[0].clone()));
            continue;
        }
        assert_eq!((ran.code, ran.stderr().as_str()), (Some(0), ""), "{name}");
        insta::assert_json_snapshot!(
            name.clone(),
            json!({"report": report(reports[0].clone()), "kinds": kinds(&room)})
        );

        let again = support::run(room.command(["import"]).arg(&file).arg("--json"));
        assert_eq!(again.json()[0]["appended"], 0, "{name}");
        let comparisons = ["runs", "sessions", "adapter_sessions", "tokens", "feed"];
        assert!(comparisons.iter().all(|field| again.json()[0][field] == reports[0][field]), "{name}");
        room.verify();
    }
}

#[test]
fn what_the_read_models_show_is_what_the_old_store_gave() {
    for (name, file, expected) in cases() {
        let Some(opened) = expected["opened"].as_object().filter(|opened| !opened.contains_key("openError")) else {
            continue;
        };
        let room = Room::new();
        assert_eq!(support::run(room.command(["import"]).arg(&file)).code, Some(0), "{name}");
        let sessions = room.json(["sessions"]);
        let session = sessions.iter().find(|session| session["id"] == expected["sessionId"]).unwrap();
        assert_eq!(session["first_at"], opened["athenaSession"]["createdAt"], "{name}");
        let adapters: Value =
            session["adapter_sessions"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
        assert_eq!(adapters, opened["athenaSession"]["adapterSessionIds"], "{name}");
        let restored = &opened["restoredTokens"];
        for (ours, theirs) in
            [("input", "input"), ("output", "output"), ("cache_read", "cacheRead"), ("cache_write", "cacheWrite")]
        {
            let restored = if restored.is_null() { &Value::Null } else { &restored[theirs] };
            assert_eq!(&session["tokens"][ours], restored, "{name}: {ours}");
        }
        let latest = &opened["latestRun"];
        let runs = room.json(["runs", "--limit", "1"]);
        assert_eq!(runs.len(), usize::from(!latest.is_null()), "{name}");
        for run in runs {
            let fields = [
                ("id", "id"),
                ("session_id", "sessionId"),
                ("workflow_name", "workflowName"),
                ("started_at", "startedAt"),
                ("ended_at", "endedAt"),
                ("iteration", "iteration"),
                ("max_iterations", "maxIterations"),
                ("stop_reason", "stopReason"),
                ("tracker_path", "trackerPath"),
            ];
            for (ours, theirs) in fields {
                assert_eq!(run[ours], latest.get(theirs).cloned().unwrap_or_default(), "{name}: {ours}");
            }
            let status = text(latest, "/status");
            assert_eq!(run["status"], if status == "running" { "interrupted" } else { status }, "{name}");
        }
    }
}

#[test]
fn one_that_is_refused_does_not_keep_the_others_out() {
    let (Some(one), Some(two), Some(seven)) = (case("simple-run"), case("many-runs"), case("schema-v7-rejected"))
    else {
        return;
    };
    let room = Room::new();
    let bytes = std::fs::read(&one).unwrap();
    let torn = room.write("torn.db", &bytes[..60_000]);
    let text_file = room.write("notes.db", "no database at all");
    let empty = room.write("empty.db", "");
    let missing = room.path("missing.db");
    let mut command = room.command(["import"]);
    let ran = support::run(command.args([&torn, &one, &text_file, &seven, &two, &empty, &missing]));
    assert_eq!(ran.code, Some(1));
    let normal = |text: String| {
        let text = text.replace(&room.path("").display().to_string(), "[room]/").replace("[room]//", "[room]/");
        text.replace(&format!("{}/", one.parent().unwrap().display()), "")
    };
    insta::assert_snapshot!("refused", normal(ran.stderr()));
    insta::assert_snapshot!("text", normal(ran.stdout()));
    let ids: Vec<Value> = room.json(["sessions"]).iter().map(|session| session["id"].clone()).collect();
    assert_eq!(ids, ["many-0001", "session-1"]);
    room.verify();

    let again = support::run(room.command(["import", "--json"]).args([&torn, &one]));
    assert_eq!(again.code, Some(1));
    let fields = again.json().iter().map(|report| report["error"].is_null()).collect::<Vec<_>>();
    assert_eq!(fields, [false, true], "one object a database, refused ones too");
}

#[test]
fn a_ledger_that_cannot_be_opened_is_no_fault_of_the_database() {
    let Some(one) = case("simple-run") else {
        return;
    };
    let room = Room::new();
    let foreign = room.write("foreign.db", "no ledger");
    let ran = support::run(room.command_on(&foreign, ["import"]).arg(&one));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(support::run(&mut room.command(["import"])).code, Some(2), "a database has to be named");
}

#[test]
fn an_imported_session_is_exported_and_taken_in_again_as_it_is() {
    let Some(one) = case("permissions-unicode") else {
        return;
    };
    let room = Room::new();
    assert_eq!(support::run(room.command(["import"]).arg(&one)).code, Some(0));
    let exported = room.ok(["export"]);
    let other = Room::new();
    let ran = support::run_with_input(&mut other.command(["ingest", "--format", "runtime", "--json"]), &exported);
    assert_eq!((ran.code, &ran.json()[0]["rejected"]), (Some(0), &json!([])));
    assert_eq!(other.ok(["export"]).lines().count(), exported.lines().count());
    let again = support::run(other.command(["import", "--json"]).arg(&one));
    assert_eq!(again.json()[0]["appended"], 0, "the same events, whichever way they came");
}
