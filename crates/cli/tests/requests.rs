//! What `pending`, `context`, `runs --tree` and `show` print of permissions, sub-runs, forks and runs that wait.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use runledger_events::{Metadata, RuntimeEvent};
use runledger_store::{EventLog, ExpectedVersion, NewEvent};
use serde_json::{Value, json};
use support::{Normalizer, Room, text};

fn put(log: &dyn EventLog, stream: &str, (session, run): (&str, Option<&str>), event: &Value) {
    let metadata = Metadata {
        session_id: session.parse().ok(),
        adapter_session_id: "a".parse().ok(),
        run_id: run.map(|id| id.parse().unwrap()),
        ..Metadata::default()
    };
    let event = NewEvent::new(RuntimeEvent::from_json(event.to_string().as_str()).unwrap(), metadata).unwrap();
    log.append(&stream.parse().unwrap(), ExpectedVersion::Any, vec![event]).unwrap();
}

/// A run of a workflow, a sub-run and a fork of it; the first waits for a question, behind a rule's decision.
fn scenario() -> Room {
    let room = Room::new();
    let log = room.log();
    let log_id = log.log_id().to_string();
    let mut at = 1_700_000_000_000_i64;
    let mut tell = |stream: &str, of: (&str, Option<&str>), kind: &str, data: Value| {
        at += 1000;
        let event = json!({"id": format!("e{at}"), "timestamp": at, "kind": kind, "data": data});
        put(&log, stream, of, &event);
        format!("e{at}")
    };
    let begin = |run: &str, session: &str, more: Value| {
        let mut data = json!({"run_id": run, "session_id": session, "workflow_name": "tidy", "harness": "claude",
            "max_iterations": 5});
        more.as_object().unwrap().iter().for_each(|(name, value)| data[name] = value.clone());
        data
    };
    let (main, sub, fork) = ("run-main", "run-sub", "run-fork");
    let of_main = ("s1", Some(main));
    let run = "run/run-main";
    tell(run, of_main, "workflow.start", begin(main, "s1", json!({})));
    tell(run, of_main, "workflow.transition", json!({"from": "starting", "to": "running", "status": "running"}));
    let iteration = |n: u32, more: Value| {
        let mut data = json!({"phase": "start", "iteration": n, "continuation": {"mode": "fresh"}});
        more.as_object().unwrap().iter().for_each(|(name, value)| data[name] = value.clone());
        data
    };
    tell(run, of_main, "workflow.iteration", iteration(1, json!({})));
    let call =
        |id: &str, command: &str| json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": command}});
    let rule =
        |number: u32, tool: &str| json!({"origin": "workflow", "number": number, "tool": tool, "reason": "house rule"});
    let pre = tell("session/s1", of_main, "tool.pre", call("t1", "rm -rf build"));
    let mut decided = call("t1", "rm -rf build");
    decided["eventId"] = pre.into();
    decided["decision"] = json!({"type": "json", "source": "rule", "rule": rule(1, "Bash(rm:*)"),
        "intent": {"kind": "permission_deny", "reason": "nothing is removed"}});
    tell("session/s1", of_main, "decision", decided);
    let tokens = json!({"input": 1000, "output": 200, "total": 1200});
    tell(
        run,
        of_main,
        "workflow.iteration",
        json!({"phase": "end", "iteration": 1, "outcome": "continue", "tokens": tokens}),
    );
    let retry = json!({"retry": {"why": "denied", "cause": "x"}, "carried": {"retries": 1, "retries_in_a_row": 1, "grants": []}});
    tell(run, of_main, "workflow.iteration", iteration(2, retry));
    let pre = tell("session/s1", of_main, "tool.pre", call("t2", "git push origin main"));
    let mut question = call("t2", "git push origin main");
    for (name, value) in json!({"request_id": "a:t2", "log_id": log_id, "event_id": pre, "question": "permission",
        "fingerprint": "f", "pattern": "Bash(git push origin main)", "mode": "defer", "due_at": 1_700_000_500_000_i64,
        "on_timeout": "deny", "cwd": "/work", "rule": rule(2, "Bash(git push:*)"), "context": {"run_id": main,
        "workflow_name": "tidy", "state": "running", "iteration": 2, "max_iterations": 5}})
    .as_object()
    .unwrap()
    {
        question[name] = value.clone();
    }
    tell("request/a:t2", of_main, "relay.request", question);
    tell(run, of_main, "workflow.iteration", json!({"phase": "deferred", "iteration": 2, "request_id": "a:t2"}));
    for (run, session, more) in [
        (sub, "s2", json!({"parent_run_id": main})),
        (fork, "s3", json!({"forked_from": main, "forked_at": 6, "iteration": 1})),
    ] {
        let (stream, of) = (format!("run/{run}"), (session, Some(run)));
        let n = if run == fork { 2 } else { 1 };
        tell(&stream, of, "workflow.start", begin(run, session, more));
        tell(&stream, of, "workflow.transition", json!({"from": "starting", "to": "running", "status": "running"}));
        tell(&stream, of, "workflow.iteration", iteration(n, json!({})));
        let tokens = json!({"input": 30, "output": 4, "total": 34});
        tell(
            &stream,
            of,
            "workflow.iteration",
            json!({"phase": "end", "iteration": n, "outcome": "continue", "tokens": tokens}),
        );
    }
    let pause =
        json!({"eventId": sub, "decision": {"type": "json", "source": "user", "intent": {"kind": "workflow_pause"}}});
    tell("run/run-sub", ("s2", Some(sub)), "decision", pause);
    tell(
        "run/run-sub",
        ("s2", Some(sub)),
        "timer.scheduled",
        json!({"timer": "delay", "due_at": 1_700_000_600_000_i64, "iteration": 1}),
    );
    // Asked by a harness of which nobody knows a run; the same name of a call as before.
    tell("session/s9", ("s9", None), "permission.request", call("t2", "ls # all of it\nstatus"));
    room
}

#[test]
fn what_a_person_reads() {
    let room = scenario();
    let normalizer = Normalizer::new(&room);
    let looks: [(&str, &[&str]); 9] = [
        ("pending", &["pending"]),
        ("pending_all", &["pending", "--all"]),
        ("pending_denied_in_a_run", &["pending", "--status", "denied", "--run", "run-main"]),
        ("context", &["context", "a:t2"]),
        ("context_without_a_run", &["context", "21"]),
        ("runs", &["runs"]),
        ("runs_tree", &["runs", "--tree"]),
        ("show_a_run_that_waits", &["show", "run-main"]),
        ("show_a_fork", &["show", "run-fork"]),
    ];
    for (name, arguments) in looks {
        insta::assert_snapshot!(name, normalizer.text(&room.ok(arguments)));
    }
    insta::assert_snapshot!("show_a_paused_sub_run", normalizer.text(&room.ok(["show", "run-sub"])));
    room.verify();
    room.ok(["rebuild-projections", "--verify"]);
}

#[test]
fn the_context_of_a_request_as_json_has_all_of_it() {
    let room = scenario();
    let context = room.json(["context", "a:t2"]).remove(0);
    assert_eq!((text(&context, "/status"), text(&context, "/mode")), ("pending", "defer"));
    assert_eq!(
        (text(&context, "/workflow_name"), &context["iteration"], &context["max_iterations"]),
        ("tidy", &json!(2), &json!(5))
    );
    assert_eq!(
        (text(&context, "/actor_id"), text(&context, "/tool_input/command")),
        ("agent:root", "git push origin main")
    );
    assert_eq!((text(&context, "/rule/tool"), &context["before_count"]), ("Bash(git push:*)", &json!(1)));
    assert_eq!(text(&context, "/before/0/status"), "denied");
    assert_eq!(room.json(["context", &context["position"].to_string()])[0], context);
    assert_eq!(room.json(["pending"])[0]["request_id"], context["request_id"]);
}

#[test]
fn several_requests_are_listed_with_status_2_and_none_is_a_no() {
    let room = scenario();
    let several = room.run(["context", "t2"]);
    assert_eq!(several.code, Some(2), "{several:?}");
    assert!(several.stderr().contains("t2 fits 2 requests"), "{several:?}");
    assert_eq!(several.stdout().lines().count(), 3, "{several:?}");
    let none = room.run(["context", "nothing"]);
    assert_eq!((none.code, none.stdout().as_str()), (Some(1), ""), "{none:?}");
    let ran = room.run(["pending", "--session", "nobody"]);
    assert_eq!((ran.code, ran.stdout().as_str(), ran.stderr().trim()), (Some(0), "", "nothing waits for an answer"));
    assert_eq!(room.run(["pending", "--status", "odd"]).code, Some(2));
    assert_eq!(room.run(["pending", "--run", "nobody"]).code, Some(1));
}

#[test]
fn a_tree_as_json_has_depth_children_and_sums() {
    let room = scenario();
    let tree = room.json(["runs", "--tree"]);
    let line = |run: &Value| {
        (
            text(run, "/id").to_owned(),
            run["depth"].as_u64().unwrap(),
            run["tokens_with_children"]["total"].as_u64().unwrap(),
        )
    };
    assert_eq!(
        tree.iter().map(line).collect::<Vec<_>>(),
        [("run-main".to_owned(), 0, 1234), ("run-sub".to_owned(), 1, 34), ("run-fork".to_owned(), 1, 34)]
    );
    assert_eq!(tree[0]["children"], json!(["run-sub", "run-fork"]));
    let shown = room.json(["show", "run-fork"]).remove(0);
    assert_eq!(shown["lineage"], json!([{"run_id": "run-main", "forked_at": 6}]));
    let shown = room.json(["show", "run-main"]).remove(0);
    assert_eq!((&shown["retries"], text(&shown, "/waiting_for")), (&json!(1), "a:t2"));
    assert_eq!((&shown["iterations"][1]["attempt"], text(&shown, "/iterations/1/retry/why")), (&json!(1), "denied"));
    let paused = room.json(["show", "run-sub"]).remove(0);
    assert_eq!((&paused["paused"], text(&paused, "/timer/timer")), (&json!(true), "delay"));
}
