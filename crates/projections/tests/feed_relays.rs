//! The feed of what is asked through the ledger, decided by rules, and told to runs: one entry for each, whoever is first.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod feed_support;
mod support;

use feed_support::{Scene, call, hook, of_search};
use runledger_events::Metadata;
use runledger_projections::{FeedEvent, FeedFilter, FeedPage};
use serde_json::{Value, json};
use support::{Story, Told, into_running, start, tell};

const LOG: &str = "0199f000-0000-7000-8000-000000000001";

fn of_run() -> Metadata {
    Metadata {
        session_id: "s".parse().ok(),
        adapter_session_id: "a".parse().ok(),
        run_id: "r".parse().ok(),
        ..Metadata::default()
    }
}

fn told(stream: &str, id: &str, kind: &str, data: Value) -> Told {
    let json = json!({"id": id, "timestamp": 1000, "kind": kind, "data": data}).to_string();
    Told { stream: stream.parse().unwrap(), metadata: of_run(), json }
}

fn question(about: &str) -> Told {
    told(
        "request/a:t1",
        "q",
        "relay.request",
        json!({"request_id": "a:t1", "log_id": LOG, "event_id": about,
        "question": "permission", "tool_name": "Bash", "tool_use_id": "t1", "fingerprint": "f", "pattern": null,
        "mode": "wait", "due_at": 2000, "on_timeout": "deny", "tool_input": {"command": "git push"},
        "rule": {"origin": "workflow", "number": 1, "tool": "Bash(git push:*)", "reason": null}}),
    )
}

fn decision(stream: &str, id: &str, decision: Value) -> Told {
    told(stream, id, "decision", json!({"eventId": "hook:ask", "decision": decision}))
}

fn says(kind: &str, more: Value) -> Value {
    let mut decision = json!({"type": "json", "source": "user", "by": "dev@host",
        "intent": {"kind": kind, "reason": "not now"}});
    for (name, value) in more.as_object().unwrap() {
        decision[name] = value.clone();
    }
    decision
}

/// Kind, level, and title of what is told behind a tool's call.
fn shown(more: impl IntoIterator<Item = Told>) -> Vec<String> {
    let scene = scene(more);
    let words = |event: &FeedEvent| format!("{} {} {}", event.kind, event.level, event.title);
    scene.feed().iter().skip(2).map(words).collect()
}

fn scene(more: impl IntoIterator<Item = Told>) -> Scene {
    let scene = Scene::new();
    scene.tell(&hook("pre", 10, "tool.pre", call("t1", "git push")));
    for told in more {
        tell(&*scene.ledger.log, &[told]);
    }
    scene.catch_up();
    scene
}

fn harness_asks() -> Told {
    let mut data = call("t1", "git push");
    data.as_object_mut().unwrap().remove("tool_use_id");
    let event = hook("ask", 20, "permission.request", data);
    Told { stream: "session/s".parse().unwrap(), metadata: of_run(), json: event.to_string() }
}

#[test]
fn what_the_harness_and_the_ledger_ask_is_one_entry_whoever_comes_first() {
    for order in [[harness_asks(), question("hook:ask")], [question("hook:ask"), harness_asks()]] {
        let answer = decision("request/a:t1", "d", says("permission_deny", json!({"scope": "once"})));
        let scene = scene(order.into_iter().chain([answer]));
        let feed = scene.feed();
        let kinds: Vec<&str> = feed.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["run.start", "tool.pre", "permission.request", "permission.decision"]);
        let (asked, decided) = (&feed[2], &feed[3]);
        assert_eq!(decided.cause.parent_event_id.as_deref(), Some(asked.event_id.as_str()));
        assert_eq!((decided.title.as_str(), decided.actor_id.as_str()), ("✗ Denied by dev@host: not now", "user"));
        assert_eq!(asked.cause.parent_event_id.as_deref(), Some(feed[1].event_id.as_str()));
        assert_eq!(scene.session().runs[0].counters.permission_requests, 1);
    }
}

#[test]
fn each_way_a_question_ends_is_told_once() {
    let about = || question("hook:pre");
    let cases = [
        (says("permission_allow", json!({"scope": "run"})), "info ✓ Allowed for the run by dev@host: not now"),
        (
            json!({"type": "json", "source": "timeout", "intent": {"kind": "permission_deny"}}),
            "info ⧗ Nobody answered in time: denied",
        ),
        (json!({"type": "passthrough", "source": "timeout"}), "info ⧗ Nobody answered in time: no opinion"),
        (
            json!({"type": "json", "source": "channel", "by": "pager", "intent": {"kind": "question_answer"}}),
            "info ✓ Answered by pager",
        ),
    ];
    for (said, expected) in cases {
        let again = decision("request/a:t1", "d2", says("permission_deny", json!({})));
        let late = decision("request/a:t1", "d3", says("permission_allow", json!({"type": "expired"})));
        assert_eq!(
            shown([about(), decision("request/a:t1", "d", said), again, late]),
            [
                "permission.request info ⚠ Permission: Bash".to_owned(),
                format!("permission.decision {expected}"),
                "permission.decision warn ⧗ Too late: allowed by dev@host: not now".to_owned(),
            ]
        );
    }
    let gone = told("request/a:t1", "w", "relay.withdrawn", json!({"request_id": "a:t1", "reason": "it was closed"}));
    assert_eq!(shown([about(), gone])[1], "permission.decision info ⊘ Needs no answer any more: it was closed");
}

#[test]
fn a_rules_own_decision_is_told_quietly_where_it_allows() {
    let by_rule = |intent: &str| {
        let rule = json!({"origin": "workflow", "number": 2, "tool": "Bash(git:*)", "reason": null});
        told(
            "session/s",
            "d",
            "decision",
            json!({"eventId": "hook:pre", "tool_name": "Bash", "tool_use_id": "t1",
            "decision": {"type": "json", "source": "rule", "rule": rule, "intent": {"kind": intent, "reason": "public"}}}),
        )
    };
    let allowed = "permission.decision debug ✓ Allowed by rule Bash(git:*) (workflow): public";
    assert_eq!(shown([by_rule("permission_allow")]), [allowed]);
    let denied = scene([by_rule("permission_deny")]);
    let entry = denied.one("permission.decision");
    assert_eq!(entry.title, "✗ Denied by rule Bash(git:*) (workflow): public");
    assert_eq!(entry.cause.parent_event_id, Some(denied.one("tool.pre").event_id));
}

#[test]
fn standing_decisions_signals_timers_retries_and_forks_are_told_and_found() {
    let iteration = |phase: &str, more: Value| {
        let mut data = json!({"phase": phase, "iteration": 1});
        for (name, value) in more.as_object().unwrap() {
            data[name] = value.clone();
        }
        told("run/r", &format!("{phase}-{}", data["request_id"]), "workflow.iteration", data)
    };
    let mut story = Story::default();
    let (begun, running) =
        (story.workflow_in("r", "s", &start("r", "s", 64)), story.workflow_in("r", "s", &into_running()));
    let timer =
        |id: &str, kind: &str| told("run/r", id, kind, json!({"timer": "backoff", "due_at": 6000, "iteration": 2}));
    let retry = json!({"continuation": {"mode": "fresh"}, "retry": {"why": "denied", "cause": "d"}});
    let signal = json!({"type": "json", "source": "user",
        "intent": {"kind": "workflow_signal", "name": "hurry", "data": {"by": "noon"}}});
    let events = [
        begun,
        running,
        timer("t1", "timer.scheduled"),
        timer("t2", "timer.fired"),
        iteration("start", retry),
        iteration("deferred", json!({"request_id": "a:t1", "tokens": {}})),
        iteration("continued", json!({"request_id": "a:t1"})),
        decision("run/r", "g1", says("permission_allow", json!({"scope": "run", "pattern": "Bash(ls:*)"}))),
        decision("rules/tidy", "g2", says("permission_deny", json!({"scope": "always", "pattern": "Bash(rm:*)"}))),
        decision("run/r", "s1", says("workflow_pause", json!({}))),
        decision("run/r", "s2", signal),
    ];
    let scene = scene(events);
    let titles: Vec<String> = scene.feed().iter().skip(2).map(|e| format!("{} {}", e.kind, e.title)).collect();
    assert_eq!(
        titles,
        [
            "workflow.start ◆ Workflow forked from origin",
            "timer.scheduled ◆ Next try in 5000 ms",
            "timer.fired ◆ Next try is due",
            "workflow.iteration ◆ Iteration 1, a retry: something was denied",
            "workflow.iteration ◆ Iteration 1 waits for an answer: a:t1",
            "workflow.iteration ◆ Iteration 1 goes on with the answer: a:t1",
            "permission.grant ✓ Allowed for the run: Bash(ls:*)",
            "permission.grant ✗ Denied for every run of tidy: Bash(rm:*)",
            "workflow.signal ◆ Pause requested",
            "workflow.signal ◆ Signal: hurry",
        ]
    );
    let found = |words: &str| scene.page(&of_search(words), &FeedPage::First, 9).len();
    for words in ["forked from origin", "Next try in", "a retry", "waits for an answer", "Signal hurry", "run of tidy"]
    {
        assert_eq!(found(words), 1, "{words}");
    }
    let of_run = FeedFilter { run: "r".parse().ok(), ..FeedFilter::default() };
    assert!(scene.page(&of_run, &FeedPage::First, 99).len() >= 10);
}
