//! Permission requests: whoever asked and whoever decided, one row for each, with the workflow context of its moment.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use runledger_events::{Continuation, Metadata, Position, RelayState, RequestStatus, RunStatus, StreamName};
use runledger_projections::{PermissionRequest, RequestFilter};
use runledger_store::{LogReader, Read};
use runledger_testkit::TempLedger;
use serde_json::{Value, json};
use support::{
    Story, Told, assert_verifies, caught_up, dump, fresh_dump, into_running, iteration_end, iteration_session,
    iteration_start, open, queries, sqlite_of_log, start, tell,
};

/// An event as somebody tells it.
fn event(stream: &str, metadata: Metadata, id: &str, at: i64, kind: &str, data: Value) -> Told {
    let json = json!({"id": id, "timestamp": at, "kind": kind, "data": data}).to_string();
    Told { stream: StreamName::new(stream).unwrap(), metadata, json }
}

fn of(session: &str, adapter: Option<&str>, run: Option<&str>) -> Metadata {
    Metadata {
        session_id: session.parse().ok(),
        adapter_session_id: adapter.map(|id| id.parse().unwrap()),
        run_id: run.map(|id| id.parse().unwrap()),
        ..Metadata::default()
    }
}

/// What a hook of the adapter session `a` tells, in the session `s`.
fn hook(id: &str, at: i64, kind: &str, data: Value) -> Told {
    event("session/s", of("s", Some("a"), None), &format!("hook:{id}"), at, kind, data)
}

fn call(id: &str) -> Value {
    json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": "git push"}, "prompt_id": "p"})
}

/// The same as a permission request tells it: without the call's id.
fn asked() -> Value {
    json!({"tool_name": "Bash", "tool_input": {"command": "git push"}, "prompt_id": "p"})
}

/// A question about an event, put in the log `log`.
fn question(log: &str, id: &str, about: &str, at: i64) -> Told {
    let data = json!({"request_id": id, "log_id": log, "event_id": about, "question": "permission", "tool_name": "Bash",
        "tool_use_id": "t1", "fingerprint": "f", "pattern": "Bash(git push)", "mode": "wait", "due_at": at + 100,
        "on_timeout": "deny", "tool_input": {"command": "git push"}, "cwd": "/work",
        "rule": {"origin": "workflow", "number": 2, "tool": "Bash(git push:*)", "reason": "it is public"},
        "context": {"run_id": "r", "workflow_name": "w", "state": "running", "iteration": 2, "max_iterations": 5}});
    event(&format!("request/{id}"), of("s", Some("a"), Some("r")), &format!("q-{id}"), at, "relay.request", data)
}

fn decision(stream: &str, id: &str, about: &str, at: i64, decision: Value) -> Told {
    event(stream, of("s", Some("a"), None), id, at, "decision", json!({"eventId": about, "decision": decision}))
}

fn by_user(intent: &str) -> Value {
    json!({"type": "json", "source": "user", "by": "dev@host", "intent": {"kind": intent, "reason": "because"},
        "scope": "once"})
}

fn projected(told: &[Told]) -> TempLedger {
    let ledger = TempLedger::new();
    tell(&*ledger.log, told);
    let mut projections = caught_up(&ledger.path);
    assert_verifies(&mut projections);
    ledger
}

fn rows(ledger: &TempLedger) -> Vec<PermissionRequest> {
    let mut rows = queries(&ledger.path).permission_requests(&RequestFilter::default()).unwrap();
    rows.reverse();
    rows
}

fn row(ledger: &TempLedger) -> PermissionRequest {
    let mut rows = rows(ledger);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.remove(0)
}

/// How each stands, and who says so.
fn standing(ledger: &TempLedger) -> Vec<String> {
    let words = |row: &PermissionRequest| {
        let status = row.status.map_or("–", RequestStatus::as_str);
        format!("{} {status} {}", row.event_id, row.decided_via.as_deref().unwrap_or("–"))
    };
    rows(ledger).iter().map(words).collect()
}

fn log_of(ledger: &TempLedger) -> String {
    ledger.log.log_id().to_string()
}

#[test]
fn what_the_harness_asks_is_joined_to_the_latest_call_like_it_and_stands_open_until_something_tells() {
    // Given two calls alike, of which the first is over, and a request without a call's id
    let before = [
        hook("pre-1", 1, "tool.pre", call("t1")),
        hook("post-1", 2, "tool.post", call("t1")),
        hook("pre-2", 3, "tool.pre", call("t2")),
        hook("ask", 4, "permission.request", asked()),
    ];
    let open = row(&projected(&before));
    assert_eq!((open.status, open.tool_use_id.as_deref(), open.request_id.as_str()), (None, Some("t2"), "a:t2"));
    assert_eq!((open.position, open.event_position), (Position(4), Some(Position(4))));
    assert_eq!(open.tool_input.unwrap().get(), r#"{"command":"git push"}"#);
    // When, then
    let came_to = |more: &[Told]| standing(&projected(&[&before[..], more].concat())).remove(0);
    let line = json!({"eventId": "hook:ask", "decision": by_user("permission_deny"), "now": 5}).to_string();
    let line = Told { stream: "session/s".parse().unwrap(), metadata: of("s", Some("a"), None), json: line };
    let on_it = |word: &str| decision("session/s", "d", "hook:ask", 5, by_user(word));
    let other = |kind: &str, data: Value| event("session/s", of("s", Some("b"), None), kind, 6, kind, data);
    let cases: [(&[Told], &str); 12] = [
        (&[hook("post", 5, "tool.post", call("t2"))], "allowed harness"),
        (&[hook("post", 5, "tool.failure", call("t2"))], "allowed harness"),
        (&[hook("no", 5, "permission.denied", call("t2"))], "denied harness"),
        (&[on_it("permission_allow")], "allowed user"),
        (&[on_it("permission_deny"), hook("post", 6, "tool.post", call("t2"))], "denied user"),
        (&[line], "denied user"),
        (&[hook("end", 5, "session.end", json!({}))], "withdrawn harness"),
        (&[hook("next", 5, "user.prompt", json!({}))], "withdrawn harness"),
        (&[hook("stop", 5, "stop.request", json!({})), hook("post", 6, "tool.post", call("t2"))], "allowed harness"),
        (&[hook("sub", 5, "subagent.stop", json!({"agent_id": "x"}))], "– –"),
        (&[other("user.prompt", json!({})), other("tool.post", call("t2"))], "– –"),
        (&[hook("post", 5, "tool.post", call("t9"))], "– –"),
    ];
    for (more, expected) in cases {
        assert_eq!(came_to(more), format!("hook:ask {expected}"), "{more:?}");
    }
}

#[test]
fn output_and_record_prove_no_more_than_they_can() {
    let told = |id: &str, kind: &str, data: Value| event("session/s", of("s", Some("a"), None), id, 9, kind, data);
    let with = |more: Told| {
        standing(&projected(&[
            hook("pre", 1, "tool.pre", call("t1")),
            hook("ask", 2, "permission.request", asked()),
            more,
        ]))
    };
    // A denied call fails in the output too, and a record tells of prompts of long ago.
    assert_eq!(with(told("stream:f", "tool.failure", call("t1"))), ["hook:ask – –"]);
    assert_eq!(with(told("transcript:p", "user.prompt", json!({}))), ["hook:ask – –"]);
    assert_eq!(with(told("transcript:t", "tool.post", call("t1"))), ["hook:ask allowed harness"]);
}

#[test]
fn a_question_is_one_row_with_what_the_harness_asked_and_its_own_stream_alone_answers_it() {
    // Given
    let ledger = TempLedger::new();
    let log = log_of(&ledger);
    let told = [
        hook("pre", 1, "tool.pre", call("t1")),
        hook("ask", 2, "permission.request", asked()),
        question(&log, "a:t1", "hook:ask", 3),
        // None of these is an answer to it.
        decision("session/s", "d1", "hook:ask", 4, by_user("permission_allow")),
        hook("post", 5, "tool.post", call("t1")),
        hook("end", 6, "session.end", json!({})),
        decision("request/a:t1", "d2", "hook:ask", 7, json!({"type": "passthrough", "source": "user"})),
    ];
    tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    let pending = row(&ledger);
    assert_eq!((pending.status, pending.position), (Some(RequestStatus::Pending), Position(3)));
    assert_eq!((pending.event_position, pending.due_at.unwrap().0), (Some(Position(2)), 103));
    assert_eq!((pending.workflow_name.as_deref(), pending.iteration), (Some("w"), Some(2)));
    assert_eq!((pending.rule.as_ref().unwrap().number, pending.decided_via.as_deref()), (2, None));
    // When two decide, and a third one too late
    let expired = json!({"type": "expired", "source": "user", "intent": {"kind": "permission_allow"}});
    tell(
        &*ledger.log,
        &[
            decision("request/a:t1", "d3", "hook:ask", 8, by_user("permission_deny")),
            decision("request/a:t1", "d4", "hook:ask", 9, by_user("permission_allow")),
            decision("request/a:t1", "d5", "hook:ask", 10, expired),
        ],
    );
    assert_verifies(&mut caught_up(&ledger.path));
    // Then the first counts.
    let settled = row(&ledger);
    assert_eq!((settled.status, settled.decided_position), (Some(RequestStatus::Denied), Some(Position(8))));
    assert_eq!((settled.decided_by.as_deref(), settled.reason.as_deref()), (Some("dev@host"), Some("because")));
    assert_eq!((settled.scope.as_deref(), settled.late_decisions), (Some("once"), 1));
    let found = queries(&ledger.path)
        .permission_requests(&RequestFilter { status: Some(RequestStatus::Pending), ..RequestFilter::default() });
    assert!(found.unwrap().is_empty());
}

#[test]
fn a_question_that_nobody_answers_is_expired_whatever_that_comes_to_and_one_may_be_withdrawn() {
    let log = "0199f000-0000-7000-8000-000000000001";
    let settled = |more: Told| row(&projected(&[question(log, "a:t1", "hook:pre", 1), more]));
    let over = |intent: Value| {
        let mut over = json!({"type": "json", "source": "timeout"});
        over["intent"] = intent;
        settled(decision("request/a:t1", "d", "hook:pre", 2, over))
    };
    let allowed = over(json!({"kind": "permission_allow"}));
    assert_eq!((allowed.status, allowed.intent.as_deref()), (Some(RequestStatus::Expired), Some("permission_allow")));
    let open =
        settled(decision("request/a:t1", "d", "hook:pre", 2, json!({"type": "passthrough", "source": "timeout"})));
    assert_eq!((open.status, open.intent), (Some(RequestStatus::Expired), None));
    let reason = json!({"request_id": "a:t1", "reason": "the client was closed"});
    let gone = settled(event("request/a:t1", of("s", Some("a"), None), "w", 2, "relay.withdrawn", reason));
    assert_eq!((gone.status, gone.reason.as_deref()), (Some(RequestStatus::Withdrawn), Some("the client was closed")));
}

#[test]
fn a_copy_of_a_question_waits_for_nobody_in_another_log() {
    let ledger = projected(&[question("another-log", "a:t1", "hook:pre", 1)]);
    let pending = RequestFilter { status: Some(RequestStatus::Pending), ..RequestFilter::default() };
    assert!(queries(&ledger.path).permission_requests(&pending).unwrap().is_empty());
    assert_eq!(row(&ledger).log_id.unwrap().as_str(), "another-log");
}

#[test]
fn a_rule_that_decides_is_a_row_without_a_question() {
    // Given
    let by_rule = |id: &str, about: &str, at: i64| {
        let rule = json!({"origin": "run", "number": 1, "tool": "Bash(git push)", "reason": null});
        let mut data = call("t1");
        data["eventId"] = about.into();
        data["decision"] = json!({"type": "json", "source": "rule", "rule": rule,
            "intent": {"kind": "permission_deny", "reason": "not on a Friday"}});
        data["context"] = json!({"run_id": "r", "workflow_name": "w", "state": "running", "iteration": 1,
            "max_iterations": 3});
        event("session/s", of("s", Some("a"), Some("r")), id, at, "decision", data)
    };
    let mut pre = hook("pre", 1, "tool.pre", call("t1"));
    pre.json = pre.json.replacen('{', r#"{"agentId":"x","agentType":"explorer","#, 1);
    // When
    let ledger = projected(&[pre, by_rule("d1", "hook:pre", 2), by_rule("d2", "hook:pre", 3)]);
    // Then
    let row = row(&ledger);
    assert_eq!((row.status, row.decided_via.as_deref()), (Some(RequestStatus::Denied), Some("rule")));
    assert_eq!(
        (row.position, row.event_position, row.decided_at),
        (Position(2), Some(Position(1)), Some(row.asked_at))
    );
    assert_eq!((row.actor_id.as_str(), row.agent_type.as_deref()), ("subagent:x", Some("explorer")));
    assert_eq!((row.run_id.unwrap().as_str(), row.iteration, row.mode), ("r", Some(1), None));
    assert_eq!((row.rule.unwrap().tool.as_str(), row.reason.as_deref()), ("Bash(git push)", Some("not on a Friday")));
}

#[test]
fn the_workflow_context_is_that_of_the_moment_however_the_run_is_known() {
    // Given a run whose second iteration uses the adapter session `a`
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let mut workflow = |facts| story.workflow_in("r", "other", &facts);
    let mut told = vec![
        workflow(start("r", "other", 5)),
        workflow(into_running()),
        workflow(iteration_start(1, Continuation::Fresh)),
        workflow(iteration_session(1, "first")),
        workflow(iteration_end(1, 0, Some("first"))),
    ];
    // by its metadata, between two iterations; before anybody told whose adapter session it is; and long before
    told.insert(0, hook("old", 1, "permission.request", asked()));
    told.push(event("session/s", of("s", Some("b"), Some("r")), "named", 2, "permission.request", call("t1")));
    told.push(workflow(iteration_start(2, Continuation::Fresh)));
    told.push(hook("early", 3, "permission.request", asked()));
    told.push(workflow(iteration_session(2, "a")));
    told.push(hook("linked", 4, "permission.request", asked()));
    told.push(event("session/s", of("s", Some("c"), Some("elsewhere")), "unknown", 5, "permission.request", asked()));
    let half = told.split_off(7);
    tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    tell(&*ledger.log, &half);
    assert_verifies(&mut caught_up(&ledger.path));
    // When
    let seen: Vec<_> = rows(&ledger)
        .into_iter()
        .map(|row| {
            let run = row.run_id.map_or_else(|| "–".to_owned(), |id| id.to_string());
            let state = row.state.map_or("–", |state| state.as_str());
            format!("{} {run} {state} {:?} of {:?}", row.event_id, row.iteration, row.max_iterations)
        })
        .collect();
    // Then
    assert_eq!(
        seen,
        [
            "hook:old – – None of None",
            "named r running Some(1) of Some(5)",
            "hook:early r running Some(2) of Some(5)",
            "hook:linked r running Some(2) of Some(5)",
            "unknown elsewhere – None of None",
        ]
    );
}

#[test]
fn what_the_harness_asks_in_a_run_with_rules_names_the_rule_that_it_falls_under() {
    // Given a run whose rules have pushes asked about, but for those of subagents
    let mut story = Story::default();
    let mut told =
        vec![story.workflow_in("r", "s", &start("r", "s", 128)), story.workflow_in("r", "s", &into_running())];
    let asks = |id: &str, command: &str, agent: Option<&str>| {
        let data = json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": command}});
        let mut told = event("session/s", of("s", Some("a"), Some("r")), id, 9, "permission.request", data);
        let agent = agent.map(|id| format!(r#""agentId":"{id}","#)).unwrap_or_default();
        told.json = told.json.replacen('{', &format!(r#"{{{agent}"context":{{"cwd":"/work"}},"#), 1);
        told
    };
    told.push(asks("root", "git push", None));
    told.push(asks("sub", "git push origin", Some("x")));
    told.push(asks("other", "ls", Some("x")));
    // When, then: the rule of the story is on subagents.
    let named: Vec<_> = rows(&projected(&told)).into_iter().map(|row| row.rule.map(|rule| rule.tool)).collect();
    assert_eq!(named, [None, Some("Bash(git push:*)".to_owned()), None]);
}

#[test]
fn a_request_is_found_by_position_call_event_or_name_and_told_with_what_was_before_it_in_its_run() {
    // Given 60 requests of a run, and one elsewhere
    let mut told = vec![event("session/s", of("s", None, None), "loose", 1, "permission.request", call("t1"))];
    for n in 1..=60 {
        let data = call(&format!("t{n}"));
        told.push(event("session/s", of("s", Some("a"), Some("r")), &format!("e{n}"), n, "permission.request", data));
    }
    told.push(decision("session/s", "d", "e60", 99, by_user("permission_allow")));
    let ledger = projected(&told);
    let queries = queries(&ledger.path);
    let named = |text: &str| -> Vec<String> {
        queries.requests_named(text).unwrap().iter().map(|row| row.event_id.to_string()).collect()
    };
    // When, then
    assert_eq!(named("t7"), ["e7"]);
    assert_eq!(named("e7"), ["e7"]);
    assert_eq!(named("a:t7"), ["e7"]);
    assert_eq!(named("8"), ["e7"], "a position");
    assert_eq!(named("62"), ["e60"], "the position of what decided it");
    assert_eq!(named("t1"), ["e1", "loose"], "the newest first");
    assert_eq!((named("t"), named("999"), named("-1"), named("")), (vec![], vec![], vec![], vec![]));
    let context = queries.context(Position(61)).unwrap().unwrap();
    assert_eq!((context.request.event_id.as_str(), context.before_count, context.before.len()), ("e60", 59, 50));
    assert_eq!(context.before[0].event_id.as_str(), "e59");
    let first = queries.context(Position(1)).unwrap().unwrap();
    assert_eq!((first.before_count, first.before.len()), (0, 0), "no run, nothing before");
    assert!(queries.context(Position(62)).unwrap().is_none());
    let of_run = RequestFilter { run: "r".parse().ok(), limit: Some(2), ..RequestFilter::default() };
    let found = queries.permission_requests(&of_run).unwrap();
    assert_eq!(found.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), ["e60", "e59"]);
    let nobody = RequestFilter { session: "nobody".parse().ok(), ..RequestFilter::default() };
    assert!(queries.permission_requests(&nobody).unwrap().is_empty());
}

#[test]
fn erased_words_are_gone_from_a_rebuilt_row_and_what_was_decided_stays() {
    let log = "0199f000-0000-7000-8000-000000000001";
    let ledger = projected(&[
        question(log, "a:t1", "hook:pre", 1),
        decision("request/a:t1", "d", "hook:pre", 2, by_user("permission_deny")),
    ]);
    sqlite_of_log(&ledger.path).execute("UPDATE runtime_events SET content = NULL, salt = NULL", []).unwrap();
    open(&ledger.path).rebuild("permission_requests", &mut |_| {}).unwrap();
    let row = row(&ledger);
    assert_eq!((row.tool_input.map(|input| input.to_string()), row.reason, row.cwd), (None, None, None));
    assert_eq!((row.status, row.decided_by.as_deref()), (Some(RequestStatus::Denied), Some("dev@host")));
    assert_eq!((row.tool_name.as_deref(), row.iteration), (Some("Bash"), Some(2)));
}

#[test]
fn a_whole_run_with_requests_survives_being_cut_into_batches() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let mut projections = open(&ledger.path);
    for (n, told) in story.whole_run("r", "s", 3, RunStatus::Completed).into_iter().enumerate() {
        let n = i64::try_from(n).unwrap();
        tell(&*ledger.log, &[told, hook(&format!("ask-{n}"), n, "permission.request", asked())]);
        if n % 3 == 0 {
            projections.catch_up().unwrap();
        }
    }
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

/// What may happen to three calls, in any order.
#[derive(Debug, Clone)]
enum Next {
    Ask(u8),
    Question(u8),
    InSession { call: u8, word: u8 },
    InStream { call: u8, word: u8 },
    Evidence { call: u8, word: u8 },
    Passed(u8),
    Cut,
}

fn next() -> impl Strategy<Value = Next> {
    let call = 0_u8..3;
    prop_oneof![
        call.clone().prop_map(Next::Ask),
        call.clone().prop_map(Next::Question),
        (call.clone(), 0_u8..5).prop_map(|(call, word)| Next::InSession { call, word }),
        (call.clone(), 0_u8..6).prop_map(|(call, word)| Next::InStream { call, word }),
        (call, 0_u8..3).prop_map(|(call, word)| Next::Evidence { call, word }),
        (0_u8..3).prop_map(Next::Passed),
        Just(Next::Cut),
    ]
}

fn told_of(next: &Next, at: i64) -> Option<Told> {
    let said = |word: u8| match word {
        0 => by_user("permission_allow"),
        1 => by_user("permission_deny"),
        2 => json!({"type": "passthrough", "source": "timeout"}),
        3 => json!({"type": "expired", "source": "user", "intent": {"kind": "permission_allow"}}),
        _ => json!({"type": "passthrough", "source": "user"}),
    };
    let metadata = of("s", Some("a"), None);
    let id = format!("n{at}");
    Some(match next {
        Next::Cut => return None,
        Next::Ask(n) => hook(&format!("ask-{n}"), at, "permission.request", call(&format!("t{n}"))),
        Next::Question(n) => question("log", &format!("a:t{n}"), &format!("hook:ask-{n}"), at),
        Next::InSession { call, word } => decision("session/s", &id, &format!("hook:ask-{call}"), at, said(*word)),
        Next::InStream { call, word: 5 } => {
            let data = json!({"request_id": format!("a:t{call}"), "reason": null});
            event(&format!("request/a:t{call}"), metadata, &id, at, "relay.withdrawn", data)
        }
        Next::InStream { call, word } => {
            decision(&format!("request/a:t{call}"), &id, &format!("hook:ask-{call}"), at, said(*word))
        }
        Next::Evidence { call: n, word } => {
            let kind = ["tool.post", "tool.failure", "permission.denied"][usize::from(*word)];
            hook(&id, at, kind, call(&format!("t{n}")))
        }
        Next::Passed(word) => {
            let kind = ["user.prompt", "stop.request", "session.end"][usize::from(*word)];
            hook(&id, at, kind, json!({}))
        }
    })
}

/// How each request stands, as its own events tell it: a question's stream folded by itself, else the first word that
/// settles it.
fn naive(reader: &LogReader) -> BTreeMap<String, Option<RequestStatus>> {
    let head = reader.head().unwrap().position;
    let events = reader.read(&Default::default(), Position::START, head, usize::MAX, Read::All).unwrap().events;
    let mut found = BTreeMap::new();
    for n in 0..3 {
        let (asked, tool) = (format!("hook:ask-{n}"), format!("t{n}"));
        let stream: StreamName = format!("request/a:t{n}").parse().unwrap();
        if let Some(state) = RelayState::fold(events.iter().filter(|event| event.stream == stream)) {
            found.insert(asked, Some(state.status));
            continue;
        }
        let mut status: Option<Option<(RequestStatus, bool)>> = None;
        for event in events.iter().filter(|event| event.stream.as_str() == "session/s") {
            let json: Value = serde_json::from_str(event.content.json().unwrap()).unwrap();
            if event.id.as_str() == asked {
                status = status.or(Some(None));
            }
            let Some(known) = status else { continue };
            let is_sure = known.is_some_and(|(_, is_sure)| is_sure);
            let of_call = json["data"]["tool_use_id"] == tool.as_str();
            let now = match event.kind.as_str() {
                "decision" if json["data"]["eventId"] == asked.as_str() => match &event.facts.data {
                    runledger_events::KindFacts::Decision(facts) => RequestStatus::of_decision(facts),
                    _ => None,
                },
                "tool.post" | "tool.failure" if of_call => Some(RequestStatus::Allowed),
                "permission.denied" if of_call => Some(RequestStatus::Denied),
                _ => None,
            };
            match (event.kind.as_str(), now) {
                (_, Some(now)) if !is_sure => status = Some(Some((now, true))),
                ("user.prompt" | "stop.request" | "session.end", _) if known.is_none() => {
                    status = Some(Some((RequestStatus::Withdrawn, false)));
                }
                _ => {}
            }
        }
        if let Some(status) = status {
            found.insert(asked, status.map(|(status, _)| status));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_stands_as_a_naive_fold_says_however_it_is_cut(nexts in proptest::collection::vec(next(), 1..40)) {
        let ledger = TempLedger::new();
        let mut projections = open(&ledger.path);
        let mut seen = Vec::new();
        for (at, next) in (1..).zip(&nexts) {
            match told_of(next, at) {
                // The same event again is no other one; a question is put under no version.
                Some(told) if !seen.contains(&told.json) => {
                    let id = serde_json::from_str::<Value>(&told.json).unwrap()["id"].to_string();
                    if !seen.contains(&id) {
                        tell(&*ledger.log, std::slice::from_ref(&told));
                        seen.push(id);
                    }
                }
                Some(_) => {}
                None => { projections.catch_up().unwrap(); }
            }
        }
        projections.catch_up().unwrap();
        let rows = rows(&ledger).into_iter().map(|row| (row.event_id.to_string(), row.status));
        prop_assert_eq!(rows.collect::<BTreeMap<_, _>>(), naive(projections.reader()));
        prop_assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    }
}
