//! Rows as no recorded database has them: odd ones that are taken over, and bad ones that refuse the whole database.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use runledger_events::{KindFacts, RunId, StreamName, StreamVersion, WorkflowState};
use runledger_store::Read;
use serde_json::{Value, json};
use support::{Old, json_of};

#[test]
fn a_bad_row_refuses_the_whole_database_and_says_which_it_is() {
    let bad = [
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', '{\"id\":')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', '[1]')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', '{\"kind\":7}')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', '{\"kind\":\"workflow.end\",\"data\":{}}')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', '{\"kind\":\"workflow.end\",\"data\":
            {\"status\":\"failed\",\"iteration\":1}}')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 9, 'Hook', 'a1', x'00ff')",
        "INSERT INTO runtime_events VALUES (NULL, 9, 9, 'Hook', 'a1', '{}')",
        "INSERT INTO runtime_events VALUES ('', 9, 9, 'Hook', 'a1', '{\"kind\":\"setup\"}')",
        "INSERT INTO runtime_events VALUES ('e9', 9, 'soon', 'Hook', 'a1', '{\"kind\":\"setup\"}')",
        "INSERT INTO feed_events VALUES ('f9', NULL, 9, 'run.end', 'r', 'user', 9, 'torn')",
        "INSERT INTO workflow_runs (id, session_id, started_at, status) VALUES ('r9', 's1', 9, 'napping')",
        "INSERT INTO workflow_runs (id, session_id, started_at, iteration) VALUES ('r9', 's1', 9, 1000000000)",
        "INSERT INTO workflow_runs (id, session_id, started_at, max_iterations) VALUES ('r9', 's1', 9, -1)",
        "INSERT INTO workflow_runs (id, session_id, started_at) VALUES ('', 's1', 9)",
        "INSERT INTO adapter_sessions (session_id, started_at) VALUES ('', 9)",
        "DELETE FROM session",
        "INSERT INTO session VALUES ('s2', '/work', 1, 1, NULL, 0)",
        "UPDATE session SET id = ''",
        "DROP TABLE feed_events",
        "DROP TABLE schema_version",
        "DELETE FROM schema_version",
        "ALTER TABLE runtime_events DROP COLUMN payload",
    ];
    let mut lines = Vec::new();
    for sql in bad {
        let old = Old::new();
        old.told(1, 2000, "user.prompt", json!({"prompt": "before"}));
        old.sql(sql);
        if sql.contains("'e9'") || sql.contains("NULL, 9") {
            old.sql("INSERT INTO runtime_events VALUES ('e10', 10, 3000, 'Hook', 'a1', '{\"kind\":\"setup\"}')");
        } else if sql.contains("DROP COLUMN") {
            assert!(old.read().is_err());
        }
        lines.push(old.refused());
    }
    insta::assert_snapshot!("bad_rows", lines.join("\n"));
}

#[test]
fn what_is_not_in_the_file_yet_is_read_from_its_log_also_through_a_link() {
    let old = Old::new();
    let writing = rusqlite::Connection::open(old.file()).unwrap();
    writing.pragma_update(None, "journal_mode", "WAL").unwrap();
    writing.execute_batch("INSERT INTO runtime_events VALUES ('e1', 1, 5, 'Setup', 'a1', '{\"payload\":{}}')").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(old.file(), &link).unwrap();
    let read = runledger_import::OldDatabase::read(&link).unwrap();
    assert_eq!(read.runtime_events.len(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is made beside the link");
    drop(writing);
}

#[test]
fn what_an_event_lacks_is_added_behind_what_it_has() {
    let old = Old::new();
    old.runtime("e1", 1, 2000, r#"{ "kind":"user.prompt" , "data":{"prompt":"\ud83d 1.0"}, "x":1.0 }"#);
    old.runtime("e2", 2, 2000, r#"{"id":"e2","timestamp":1999,"kind":"user.prompt","sessionId":"a2"}"#);
    old.take().unwrap();
    let events = old.events();
    let of = |id: &str| events.iter().find(|event| event.id.as_str() == id).unwrap();
    let expected = concat!(
        r#"{ "kind":"user.prompt" , "data":{"prompt":"\ud83d 1.0"}, "x":1.0 "#,
        r#","id":"e1","timestamp":2000,"sessionId":"a1"}"#
    );
    assert_eq!(of("e1").content.json(), Some(expected));
    assert_eq!(of("e2").occurred_at.0, 1999, "its own words count");
    assert_eq!(of("e2").metadata.adapter_session_id.as_ref().map(|id| id.as_str()), Some("a2"));
}

#[test]
fn feed_events_find_their_place_by_their_number() {
    let old = Old::new();
    old.told(1, 2000, "permission.request", json!({"tool_name": "Bash"}));
    old.shown(1, 2000, "permission.request", Some("e1"), json!({}));
    // Deltas give no feed event; the wall clock of decisions and of channels is not that of harnesses.
    old.told(2, 2100, "message.delta", json!({}));
    old.told(3, 2200, "message.delta", json!({}));
    old.told(4, 2300, "tool.post", json!({}));
    old.shown(4, 2300, "tool.post", Some("e4"), json!({}));
    let cause = json!({"hook_request_id": "e1", "parent_event_id": "a1:R1:E1"});
    old.shown(2, 2150, "permission.decision", None, json!({"cause": cause, "data": {"decision_type": "allow"}}));
    old.shown(3, 9999, "channel.chat", None, json!({"data": {"text": "hello"}}));
    old.shown(5, 2400, "permission.decision", None, json!({"cause": cause, "data": {"decision_type": "ask"}}));
    old.take().unwrap();
    let expected = [
        "e1 permission.request",
        "e2 message.delta",
        "import:decision:a1:R1:E2 decision",
        "e3 message.delta",
        "import:feed:a1:R1:E3 channel.chat",
        "e4 tool.post",
        "import:feed:a1:R1:E5 permission.decision",
    ];
    assert_eq!(old.lines(), expected);
    let chat = old.events().into_iter().find(|event| event.kind.as_str() == "channel.chat").unwrap();
    assert_eq!(json_of(&chat)["data"], json!({"text": "hello"}));
    assert_eq!(json_of(&chat).pointer("/imported/feed_events/0/title"), Some(&json!("channel.chat")));
}

#[test]
fn a_decision_on_a_repeated_id_names_the_event_that_it_was_on() {
    let old = Old::new();
    old.told(1, 2000, "tool.pre", json!({"tool_name": "Bash"}));
    old.shown(1, 2000, "tool.pre", Some("e1"), json!({}));
    // Their rows were ignored, because the id was taken.
    old.shown(2, 3000, "permission.request", Some("e1"), json!({"data": {"tool_name": "Bash"}}));
    old.shown(3, 4000, "stop.request", Some("e1"), json!({"data": {"stop_hook_active": false}}));
    old.shown(4, 4000, "agent.message", Some("e1"), json!({"data": {"message": "end"}}));
    let cause = json!({"hook_request_id": "e1", "parent_event_id": "a1:R1:E2"});
    old.shown(5, 4500, "permission.decision", None, json!({"cause": cause, "data": {"decision_type": "allow"}}));
    old.take().unwrap();
    let expected = ["e1 tool.pre", "e1~2 permission.request", "e1~3 stop.request", "import:decision:a1:R1:E5 decision"];
    assert_eq!(old.lines(), expected);
    let events = old.events();
    let decision = events.iter().find_map(|event| match &event.facts.data {
        KindFacts::Decision(decision) => Some(decision),
        _ => None,
    });
    assert_eq!(decision.unwrap().event_id.as_str(), "e1~2");
    let stop = events.iter().find(|event| event.id.as_str() == "e1~3").unwrap();
    let kept = json_of(stop).pointer("/imported/feed_events").cloned().unwrap();
    assert_eq!(kept.as_array().map(Vec::len), Some(2), "the message that the stop gave is in it");
}

#[test]
fn rows_of_other_tables_are_kept() {
    let old = Old::new();
    old.sql("INSERT INTO channel_messages VALUES (1, 'telegram', NULL, 5000)");
    old.take().unwrap();
    let row = old.events().into_iter().find(|event| event.kind.as_str() == "import.row").unwrap();
    assert_eq!(row.occurred_at.0, 5000);
    let expected = json!({"table": "channel_messages", "row": {"id": 1, "channel_id": "telegram", "created_at": 5000}});
    assert_eq!(json_of(&row)["data"], expected);
}

fn run_state(old: &Old, id: &str) -> WorkflowState {
    let stream = StreamName::run(&RunId::new(id).unwrap());
    let events = old.ledger.log.reader().unwrap().read_stream(&stream, StreamVersion::EMPTY, Read::All).unwrap();
    let (state, illegal) = WorkflowState::fold(&events).unwrap();
    assert_eq!(illegal, []);
    state
}

#[test]
fn a_run_has_the_iterations_of_its_row_whatever_its_harness_told() {
    for (starts, iteration, status) in [
        (0, 3, "exhausted"),
        (1, 3, "failed"),
        (5, 2, "completed"),
        (3, 0, "failed"),
        (0, 0, "running"),
        (2, 2, "running"),
    ] {
        let old = Old::new();
        for start in 1..=starts {
            old.told(start, 1000 + 1000 * start, "session.start", json!({"source": "startup"}));
        }
        old.sql(&format!(
            "INSERT INTO workflow_runs (id, session_id, started_at, ended_at, iteration, max_iterations, status)
             VALUES ('r1', 's1', 1500, nullif(9000 * ('{status}' <> 'running'), 0), {iteration}, 9, '{status}')"
        ));
        old.take().unwrap();
        let state = run_state(&old, "r1");
        assert_eq!(state.iteration, iteration, "{starts} starts, {status}");
        let expected = if status == "running" { "interrupted" } else { status };
        assert_eq!(state.status.as_str(), expected, "{starts} starts");
        assert_eq!(old.take().unwrap().appended, 0, "{starts} starts, {status}");
    }
}

#[test]
fn what_a_harness_session_cost_counts_for_its_iteration_where_it_is_its_alone() {
    let old = Old::new();
    old.told(1, 2000, "session.start", json!({"source": "startup"}));
    old.told(2, 3000, "session.start", json!({"source": "resume"}));
    let of = |id: &str, input: &str| {
        format!("INSERT INTO adapter_sessions (session_id, started_at, tokens_input) VALUES ('{id}', 2000, {input});")
    };
    old.sql(&of("a1", "70"));
    old.sql(&of("a2", "5"));
    old.runtime("e3", 3, 6000, r#"{"id":"e3","timestamp":6000,"kind":"session.start","sessionId":"a2","data":{}}"#);
    old.sql(
        "INSERT INTO workflow_runs (id, session_id, started_at, ended_at, iteration, max_iterations, status) VALUES
         ('r1', 's1', 1500, 5000, 2, 9, 'completed'), ('r2', 's1', 5500, 9000, 1, 1, 'completed')",
    );
    old.take().unwrap();
    assert_eq!(run_state(&old, "r1").tokens.total, None, "two iterations used it");
    assert_eq!(run_state(&old, "r2").tokens.total, Some(5));
}

#[test]
fn a_session_that_went_on_adds_what_is_new_and_no_more() {
    let old = Old::new();
    old.told(1, 2000, "session.start", json!({"source": "startup"}));
    let run = |id: &str, at: i64, status: &str| {
        format!(
            "INSERT OR REPLACE INTO workflow_runs (id, session_id, started_at, ended_at, iteration, status)
             VALUES ('{id}', 's1', {at}, nullif({} * ('{status}' <> 'running'), 0), 1, '{status}');",
            at + 900
        )
    };
    old.sql(&run("r1", 1500, "completed"));
    old.sql("INSERT INTO adapter_sessions (session_id, started_at, tokens_input) VALUES ('a1', 2000, 70)");
    let first = old.take().unwrap();

    old.told(2, 12_000, "session.start", json!({"source": "resume"}));
    old.sql(&run("r2", 11_500, "running"));
    old.sql("UPDATE adapter_sessions SET tokens_input = 90; UPDATE session SET updated_at = 12000, label = 'on'");
    let second = old.take().unwrap();
    assert_eq!((first.session_id, second.duplicates), (second.session_id.clone(), first.events - 3));
    let last = old.events().into_iter().rfind(|event| event.kind.as_str() == "usage.update").unwrap();
    assert_eq!(json_of(&last)["data"]["usage"], json!({"input": 90, "total": 90}));

    // A run that was left goes on, is left again, and ends.
    let told = |seq: i64, at: i64| old.told(seq, at, "session.start", json!({"source": "startup"}));
    told(3, 13_000);
    old.sql("UPDATE workflow_runs SET iteration = 2 WHERE id = 'r2'");
    let appended = old.take().unwrap().appended;
    assert_eq!(appended, 2 + 3 + 1 + 2, "resumed, an iteration, interrupted; the event, and tokens as of then");
    assert_eq!(old.take().unwrap().appended, 0);
    told(4, 14_000);
    old.sql("UPDATE workflow_runs SET iteration = 3, status = 'completed', ended_at = 15000 WHERE id = 'r2'");
    assert_eq!(old.take().unwrap().appended, 2 + 3 + 2 + 2);
    assert_eq!(old.take().unwrap().appended, 0);
    let state = run_state(&old, "r2");
    assert_eq!((state.status.as_str(), state.iteration), ("completed", 3));

    // But what has ended never changes.
    old.sql("UPDATE workflow_runs SET status = 'failed' WHERE id = 'r2'");
    let expected = "DB: workflow_runs r2: the ledger has this run already, with another status; \
                    import into another ledger (--db), or leave it as it is";
    assert_eq!(old.refused(), expected);
}

#[test]
fn events_of_another_sort_under_the_same_ids_leave_the_session_its_own_place() {
    let old = Old::new();
    old.told(1, 2000, "user.prompt", json!({"prompt": "old"}));
    old.sql(
        "INSERT INTO workflow_runs (id, session_id, started_at, ended_at, iteration, status)
         VALUES ('r1', 's1', 1500, 2500, 1, 'completed')",
    );
    old.ledger.append("session/s1", r#"{"id":"e1","kind":"user.prompt","data":{"prompt":"new"}}"#);
    let taken = old.take().unwrap();
    assert!(taken.session_id.as_str().starts_with("s1~"), "{}", taken.session_id);
    let again = old.take().unwrap();
    assert_eq!((again.session_id, again.appended), (taken.session_id, 0));
}

#[test]
fn the_same_events_that_came_by_another_way_are_there_once() {
    let old = Old::new();
    old.told(1, 2000, "user.prompt", json!({"prompt": "hello"}));
    let payload: Value = json!({"id": "e1", "timestamp": 2000, "kind": "user.prompt", "sessionId": "a1",
        "data": {"prompt": "hello"}});
    old.ledger.append("session/s1", &payload.to_string());
    let taken = old.take().unwrap();
    assert_eq!((taken.session_id.as_str(), taken.duplicates), ("s1", 1));
}
