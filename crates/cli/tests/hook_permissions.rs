//! `hook` under a run's rules that allow and deny, and where rules cannot be known or nothing can be written.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;

use permission_support::{
    CLIENT_SESSION, answer, begin_run, decisions, end_run, hook_in_terminal, hook_of_run, of_codex, of_kind, pre,
    quiet_answer, requests, room_with_run, told_by,
};
use serde_json::{Value, json};
use support::{Room, append, kinds, run_with_input, text};

fn rules() -> Value {
    json!({"rules": [
        {"tool": "Bash(git push:*)", "action": "deny", "reason": "pushes wait for a review"},
        {"tool": "Bash(cargo test:*)", "action": "allow"},
        {"tool": "Edit(src/**)", "action": "allow", "reason": "sources are yours"},
        {"tool": "Bash(rm:*)", "action": "deny", "when": {"subagent": true}},
    ]})
}

#[test]
fn a_rule_answers_each_hook_in_its_own_form_and_the_decision_stands_behind_the_call() {
    let room = room_with_run(rules());
    let (denied, allowed) = (pre("t1", "git push origin"), pre("t2", "cargo test --all"));
    let in_words = "allowed by rule 2 of the workflow ship: Bash(cargo test:*)";
    for (payload, expected) in [
        (
            denied.clone(),
            json!({"hookEventName": "PreToolUse", "permissionDecision": "deny",
                "permissionDecisionReason": "pushes wait for a review"}),
        ),
        (
            allowed.clone(),
            json!({"hookEventName": "PreToolUse", "permissionDecision": "allow", "permissionDecisionReason": in_words}),
        ),
        (
            of_codex(&denied),
            json!({"hookEventName": "PreToolUse", "permissionDecision": "deny",
                "permissionDecisionReason": "pushes wait for a review"}),
        ),
        (
            told_by("PermissionRequest", &denied),
            json!({"hookEventName": "PermissionRequest",
                "decision": {"behavior": "deny", "message": "pushes wait for a review"}}),
        ),
        (
            told_by("PermissionRequest", &allowed),
            json!({"hookEventName": "PermissionRequest", "decision": {"behavior": "allow"}}),
        ),
    ] {
        assert_eq!(quiet_answer(&mut hook_of_run(&room), &payload), expected, "{payload}");
        let events = room.events();
        let [told, decided] = &events[events.len() - 2..] else { panic!("{events:?}") };
        assert_eq!((&decided["stream"], &decided["event"]["kind"]), (&json!("session/s"), &json!("decision")));
        let data = &decided["event"]["data"];
        assert_eq!(data["eventId"], told["event"]["id"]);
        assert_eq!((&data["tool_name"], &data["tool_input"]), (&payload["tool_name"], &payload["tool_input"]));
        assert_eq!(
            data["context"],
            json!({"run_id": "r", "workflow_name": "ship", "state": "running", "iteration": 1,
            "max_iterations": 5})
        );
        let decision = &data["decision"];
        assert_eq!((&decision["source"], &decision["rule"]["origin"]), (&json!("rule"), &json!("workflow")));
    }
    assert_eq!(requests(&room).len(), 0);
    let of_run = room.json(["events", "--run", "r"]);
    assert_eq!(of_run.iter().filter(|event| event["event"]["kind"] == "decision").count(), 5);
    room.verify();
}

#[test]
fn no_rule_no_run_and_another_hook_get_no_answer() {
    let room = room_with_run(rules());
    for payload in [pre("t1", "ls"), pre("t2", "git status && ls"), told_by("PostToolUse", &pre("t3", "git push"))] {
        assert_eq!(quiet_answer(&mut hook_of_run(&room), &payload), Value::Null, "{payload}");
    }
    let mut command = room.command(["hook"]);
    assert_eq!(quiet_answer(command.env("RUNLEDGER_SESSION", "s"), &pre("t4", "git push")), Value::Null);
    let without_rules = Room::new();
    begin_run(&without_rules, "r", Value::Null);
    assert_eq!(quiet_answer(&mut hook_of_run(&without_rules), &pre("t1", "git push")), Value::Null);
    assert_eq!(of_kind(&room, "decision").len() + of_kind(&without_rules, "decision").len(), 0);
}

#[test]
fn a_named_run_that_is_not_there_may_have_any_rules_and_that_is_said() {
    let room = room_with_run(rules());
    for ledger in [&room, &Room::new()] {
        let mut command = ledger.command(["hook"]);
        let (opinion, ran) = answer(command.env("RUNLEDGER_RUN_ID", "unheard-of"), &pre("t1", "git push"));
        assert_eq!(opinion, Value::Null);
        assert!(ran.stderr().contains("RUNLEDGER_RUN_ID names run unheard-of, which is not in"), "{ran:?}");
        let mut command = ledger.command(["hook", "--fail-closed"]);
        let (opinion, _) = answer(command.env("RUNLEDGER_RUN_ID", "unheard-of"), &pre("t2", "git push"));
        assert_eq!(opinion["permissionDecision"], "deny");
    }
}

#[test]
fn files_are_found_from_the_runs_project_and_subagents_are_told_apart() {
    let room = room_with_run(rules());
    let edit = |path: String| {
        let mut payload = pre("t1", "");
        payload["tool_name"] = json!("Write");
        payload["tool_input"] = json!({"file_path": path, "content": "x"});
        payload
    };
    let path = |name: &str| room.project().join(name).display().to_string();
    let word = |payload: &Value| quiet_answer(&mut hook_of_run(&room), payload)["permissionDecision"].clone();
    assert_eq!(word(&edit(path("src/a.rs"))), "allow");
    assert_eq!(word(&edit(path("src/../a.rs"))), Value::Null);
    assert_eq!(word(&edit("/elsewhere/src/a.rs".to_owned())), Value::Null);

    let mut of_subagent = pre("t2", "true; rm -r x");
    assert_eq!(word(&of_subagent), Value::Null);
    of_subagent["agent_id"] = json!("agent-1");
    of_subagent["agent_type"] = json!("Explore");
    assert_eq!(word(&of_subagent), "deny");
}

#[test]
fn a_harness_session_that_a_run_used_is_under_its_rules_until_the_run_ends() {
    let room = room_with_run(rules());
    let hook = |payload: &Value| quiet_answer(&mut room.command(["hook"]), payload)["permissionDecision"].clone();
    assert_eq!(hook(&pre("t1", "git push")), Value::Null);
    let add = |json: Value| append(&room.log(), "run/r", &json.to_string());
    add(json!({"id": "n", "timestamp": 2, "kind": "workflow.iteration", "sessionId": CLIENT_SESSION,
        "data": {"phase": "session", "iteration": 1, "adapter_session_id": CLIENT_SESSION}}));
    assert_eq!(hook(&pre("t2", "git push")), "deny");
    end_run(&room, "r");
    assert_eq!(hook(&pre("t3", "git push")), Value::Null);
}

#[test]
fn nobody_is_asked_for_a_run_that_is_over_and_that_is_in_the_log() {
    let room = room_with_run(json!({"rules": [{"tool": "Bash", "action": "ask"}]}));
    end_run(&room, "r");
    let question = json!({"session_id": CLIENT_SESSION, "cwd": "/elsewhere", "hook_event_name": "PreToolUse",
        "tool_name": "AskUserQuestion", "tool_use_id": "q1",
        "tool_input": {"questions": [{"question": "Which colour?", "options": [{"label": "Red"}]}]}});
    for payload in [pre("t1", "git push"), question.clone()] {
        let answer = quiet_answer(&mut hook_of_run(&room), &payload);
        assert_eq!(answer["permissionDecision"], "deny");
        let why = "run r is failed: nobody is asked for it any more";
        assert_eq!(answer["permissionDecisionReason"], why);
        let decided = of_kind(&room, "decision").pop().unwrap();
        assert_eq!(decided["event"]["data"]["decision"]["intent"], json!({"kind": "permission_deny", "reason": why}));
    }
    assert_eq!(decisions(&room, "session/s"), ["rule permission_deny", "run permission_deny"]);
    assert_eq!(requests(&room).len(), 0);
    // Whoever sits at the client's terminal is asked there.
    let answer = quiet_answer(&mut hook_in_terminal(&room), &pre("t2", "git push"));
    assert_eq!(answer["permissionDecision"], "ask");
    room.verify();
}

#[test]
fn a_denial_is_answered_while_the_ledger_takes_nothing_and_is_in_it_afterwards() {
    let room = room_with_run(rules());
    let holder = room.sqlite();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (denied, ran) = answer(&mut hook_of_run(&room), &pre("t1", "git push"));
    assert_eq!(denied["permissionDecision"], "deny", "{ran:?}");
    assert!(ran.stderr().contains("waits in"), "{ran:?}");
    assert_eq!(quiet_answer_behind(&room, "t2"), "deny");
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    assert_eq!(decisions(&room, "session/s"), ["rule permission_deny", "rule permission_deny"]);
    assert_eq!(kinds(&room)[3..], ["tool.pre", "decision", "tool.pre", "decision"]);
    room.verify();
}

fn quiet_answer_behind(room: &Room, tool_use_id: &str) -> Value {
    answer(&mut hook_of_run(room), &pre(tool_use_id, "git push")).0["permissionDecision"].clone()
}

#[test]
fn rules_that_cannot_be_read_are_no_opinion_and_a_denial_with_fail_closed() {
    let damaged = Room::new();
    damaged.write("state/ledger.db", "this is no ledger, whatever else it may be".repeat(200));
    let unreadable = room_with_run(json!({"rules": [{"tool": "Bash(git push", "action": "deny"}]}));
    for room in [&damaged, &unreadable] {
        let (opinion, ran) = answer(&mut hook_of_run(room), &pre("t1", "git push"));
        assert_eq!(opinion, Value::Null);
        assert!(ran.stderr().contains("the rules of its run cannot be read"), "{ran:?}");

        let mut closed = hook_of_run(room);
        let (opinion, ran) = answer(closed.arg("--fail-closed"), &pre("t2", "git push"));
        assert_eq!(opinion["permissionDecision"], "deny", "{ran:?}");
        assert!(text(&opinion, "/permissionDecisionReason").contains("cannot be read"), "{opinion}");
        let request = told_by("PermissionRequest", &pre("t3", "git push"));
        let (opinion, _) = answer(hook_of_run(room).arg("--fail-closed"), &request);
        assert_eq!(opinion["decision"]["behavior"], "deny");
    }
    // A session that names no run is left alone, unless failures are to deny.
    let (opinion, ran) = answer(&mut damaged.command(["hook"]), &pre("t4", "git push"));
    assert_eq!((opinion, ran.stderr().contains("rules")), (Value::Null, false), "{ran:?}");
    let (opinion, _) = answer(damaged.command(["hook"]).arg("--fail-closed"), &pre("t5", "git push"));
    assert_eq!(opinion["permissionDecision"], "deny");
    // Other hooks have nothing to answer.
    let (opinion, _) = answer(hook_of_run(&damaged).arg("--fail-closed"), &told_by("PostToolUse", &pre("t6", "x")));
    assert_eq!(opinion, Value::Null);
}

#[test]
fn what_is_no_payload_is_kept_as_ever_and_denied_only_with_fail_closed() {
    let room = room_with_run(rules());
    for (arguments, expected) in [(vec!["hook"], None), (vec!["hook", "--fail-closed"], Some("deny"))] {
        let ran = run_with_input(&mut room.command(&arguments), "[1, 2]");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.stderr().lines().count(), 1, "{ran:?}");
        let answered = ran.json().pop().map(|json| text(&json, "/hookSpecificOutput/permissionDecision").to_owned());
        assert_eq!(answered.as_deref(), expected, "{ran:?}");
    }
    // Where there never was a ledger, and no run is named, there are no rules.
    let (opinion, ran) = answer(&mut Room::new().command(["hook", "--fail-closed"]), &pre("t1", "git push"));
    assert_eq!((opinion, ran.stderr()), (Value::Null, String::new()));
}

#[test]
fn a_hook_that_was_installed_for_another_ledger_says_so() {
    let (room, other) = (room_with_run(rules()), room_with_run(rules()));
    begin_run(&other, "elsewhere", rules());
    let mut command = hook_of_run(&room);
    command.env("RUNLEDGER_RUN_ID", "elsewhere").env("RUNLEDGER_DB", other.ledger());
    let (opinion, ran) = answer(&mut command, &pre("t1", "git push"));
    assert_eq!(opinion, Value::Null);
    assert!(ran.stderr().contains("run elsewhere is in"), "{ran:?}");
}

#[test]
fn a_rule_decides_in_a_terminal_too_without_any_dialog() {
    let room = room_with_run(rules());
    let word =
        |command: &str| quiet_answer(&mut hook_in_terminal(&room), &pre("t1", command))["permissionDecision"].clone();
    assert_eq!((word("git push"), word("cargo test"), word("ls")), (json!("deny"), json!("allow"), Value::Null));
}
