//! No line that is taken in answers what waits in this ledger; a copy of a ledger with questions is an equal one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use runledger_events::{Metadata, RuntimeEvent};
use runledger_store::{EventLog, ExpectedVersion, NewEvent};
use serde_json::{Value, json};
use support::{Ran, Room, run, run_with_input, text};

fn ingest(room: &Room, ledger: &std::path::Path, lines: &[String]) -> Ran {
    run_with_input(&mut room.command_on(ledger, ["ingest", "--format", "runtime", "--json"]), lines.join("\n"))
}

/// Appended, duplicates, and the reasons of what was rejected.
fn report(ran: &Ran) -> (u64, u64, Vec<String>) {
    let report = ran.json().pop().unwrap_or_else(|| panic!("a report: {ran:?}"));
    let rejected = report["rejected"].as_array().unwrap().iter().map(|one| text(one, "/reason").to_owned());
    (report["appended"].as_u64().unwrap(), report["duplicates"].as_u64().unwrap(), rejected.collect())
}

fn question(log_id: &str, id: &str) -> Value {
    json!({"id": format!("q-{id}"), "timestamp": 2, "kind": "relay.request", "data": {"request_id": id, "log_id": log_id,
        "event_id": "ask", "question": "permission", "tool_name": "Bash", "tool_use_id": "t1", "fingerprint": "f",
        "pattern": null, "mode": "wait", "due_at": null, "on_timeout": "deny"}})
}

fn decision(id: &str) -> Value {
    json!({"id": id, "timestamp": 3, "kind": "decision", "data": {"eventId": "ask", "decision": {"type": "json",
        "source": "user", "intent": {"kind": "permission_allow"}, "scope": "always", "pattern": "Bash"}}})
}

/// Appends past the program, as its hooks and `allow` do.
fn put(log: &dyn EventLog, stream: &str, event: &Value) {
    let metadata =
        Metadata { session_id: "s1".parse().ok(), adapter_session_id: "s1".parse().ok(), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(event.to_string().as_str()).unwrap(), metadata).unwrap();
    log.append(&stream.parse().unwrap(), ExpectedVersion::Any, vec![event]).unwrap();
}

/// A line as `export` writes it, as somebody may write one too.
fn exported(stream: &str, version: u64, event: &Value) -> String {
    json!({"position": 1, "stream": stream, "stream_version": version, "recorded_at": 1, "id": event["id"],
        "kind": event["kind"], "occurred_at": event["timestamp"], "session_id": "s1", "event": event})
    .to_string()
}

/// A ledger with a question that waits.
fn asked() -> Room {
    let room = Room::new();
    let log = room.log();
    let ask = json!({"id": "ask", "timestamp": 1, "kind": "permission.request", "sessionId": "s1",
        "data": {"tool_name": "Bash", "tool_use_id": "t1"}});
    put(&log, "session/s1", &ask);
    put(&log, "request/s1:t1", &question(log.log_id().as_str(), "s1:t1"));
    room
}

fn pending(room: &Room) -> Vec<Value> {
    room.json(["pending"])
}

#[test]
fn no_line_answers_a_question_that_waits_here() {
    // Given
    let room = asked();
    let own = room.reader().log_id().to_string();
    let line = json!({"eventId": "ask", "decision": decision("x")["data"]["decision"], "now": 5}).to_string();
    let mut loose = question(&own, "s1:t2");
    loose["sessionId"] = "s1".into();
    let refused = [
        (line, "ask waits for an answer as request s1:t1"),
        (decision("d1").to_string(), "ask waits for an answer"),
        (exported("session/s1", 2, &decision("d2")), "ask waits for an answer"),
        (exported("request/s1:t1", 2, &decision("d3")), "request s1:t1 was put in this ledger"),
        // Nor does one put a question in its name, or begin the stream of one that comes.
        (exported("request/s1:t2", 1, &question(&own, "s1:t2")), "request s1:t2 was put in this ledger"),
        (exported("request/s1:t3", 1, &decision("d4")), "has to begin with the question"),
        (exported("request/s1:t4", 2, &decision("d5")), "expected"),
        (loose.to_string(), "belongs to a question's own stream"),
    ];
    let before = room.ok(["export"]);
    for (line, reason) in refused {
        // When
        let ran = ingest(&room, &room.ledger(), std::slice::from_ref(&line));
        // Then
        let (appended, duplicates, rejected) = report(&ran);
        assert_eq!((ran.code, appended, duplicates), (Some(1), 0, 0), "{line}: {ran:?}");
        assert!(rejected[0].contains(reason), "{line}: {rejected:?}");
    }
    assert_eq!(room.ok(["export"]), before);
    assert_eq!(pending(&room).len(), 1);
}

#[test]
fn a_decision_on_what_is_decided_already_is_taken_in_and_changes_nothing() {
    let room = asked();
    put(&room.log(), "request/s1:t1", &decision("d"));
    let (appended, ..) = report(&ingest(&room, &room.ledger(), &[decision("late").to_string()]));
    assert_eq!(appended, 1);
    let request = room.json(["context", "s1:t1"]).remove(0);
    assert_eq!((text(&request, "/status"), &request["decided_position"]), ("allowed", &json!(3)));
}

#[test]
fn no_line_decides_for_all_runs_of_a_workflow_where_runs_are_driven() {
    // Given a ledger without runs, into which one of another is copied
    let line = exported("rules/tidy", 1, &decision("g"));
    let room = asked();
    assert_eq!(report(&ingest(&room, &room.ledger(), std::slice::from_ref(&line))).0, 1);
    // and one that drives some
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "echo done")).code, Some(0));
    // When, then
    let (appended, _, rejected) = report(&ingest(&room, &room.ledger(), std::slice::from_ref(&line)));
    assert_eq!(appended, 0);
    assert!(rejected[0].contains("rules/tidy holds for runs of this ledger"), "{rejected:?}");
    // What is there already is.
    put(&room.log(), "rules/tidy", &decision("g"));
    assert_eq!(report(&ingest(&room, &room.ledger(), &[line])).1, 1);
}

#[test]
fn a_copy_of_a_ledger_with_questions_and_decisions_is_an_equal_one() {
    // Given
    let room = asked();
    let log = room.log();
    put(&log, "request/s1:t1", &decision("d"));
    put(&log, "rules/tidy", &decision("g"));
    put(&log, "request/s1:t9", &question(log.log_id().as_str(), "s1:t9"));
    drop(log);
    let lines: Vec<String> = room.ok(["export"]).lines().map(str::to_owned).collect();
    let copy = room.path("copy/ledger.db");
    // When
    let (appended, _, rejected) = report(&ingest(&room, &copy, &lines));
    // Then
    assert_eq!((appended, rejected), (5, vec![]));
    let again: Vec<String> = String::from_utf8(room.command_on(&copy, ["export"]).output().unwrap().stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(again, lines);
    // And nobody waits there for the answer.
    let waits = room.command_on(&copy, ["pending", "--json"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(waits).unwrap(), "");
    assert_eq!(pending(&room).len(), 1);
    assert_eq!(report(&ingest(&room, &copy, &lines)).1, 5);
    assert_eq!(report(&ingest(&room, &room.ledger(), &lines)).1, 5);
}
