//! `hook` beside a person at Claude Code's terminal, and where a workflow wants calls put off.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;

use permission_support::{
    answer, answered, decisions, hook_in_terminal, hook_of_run, of_codex, pre, quiet_answer, requests, room_with_run,
    start, stream_of, told_by, wait_for_question,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, Running, text};

fn asking() -> Value {
    json!({"rules": [{"tool": "Bash", "action": "ask", "reason": "commands are looked at"}]})
}

/// The client's dialog comes: our hook is called before it, and then waits beside it.
fn open_dialog(room: &Room, payload: &Value) -> Running {
    let opinion = quiet_answer(&mut hook_in_terminal(room), payload);
    if payload["tool_name"] == "Bash" {
        assert_eq!(
            opinion,
            json!({"hookEventName": "PreToolUse", "permissionDecision": "ask",
            "permissionDecisionReason": "commands are looked at"})
        );
    } else {
        assert_eq!(opinion, Value::Null);
    }
    assert_eq!(requests(room).len(), 0);
    let waiting = start(&mut hook_in_terminal(room), &told_by("PermissionRequest", payload));
    wait_for_question(room, text(payload, "/tool_use_id"));
    waiting
}

#[test]
fn a_decision_of_ours_that_comes_first_closes_the_dialog() {
    for (arguments, expected) in [
        (vec!["allow", "t1"], json!({"behavior": "allow"})),
        (vec!["deny", "t1", "--reason", "no"], json!({"behavior": "deny", "message": "no"})),
    ] {
        let room = room_with_run(asking());
        let waiting = open_dialog(&room, &pre("t1", "make"));
        assert_eq!(room.run(arguments).code, Some(0));
        let (opinion, _) = answered(waiting);
        assert_eq!(opinion, json!({"hookEventName": "PermissionRequest", "decision": expected}));
        // That the call runs then is no decision any more.
        quiet_answer(&mut hook_in_terminal(&room), &told_by("PostToolUse", &pre("t1", "make")));
        assert_eq!(decisions(&room, &stream_of("t1")).len(), 1);
    }
}

#[test]
fn a_person_who_was_quicker_is_who_decided() {
    let room = room_with_run(asking());
    let waiting = open_dialog(&room, &pre("t1", "make"));
    // Another call that runs meanwhile says nothing of this one.
    quiet_answer(&mut hook_in_terminal(&room), &told_by("PostToolUse", &pre("t0", "ls")));
    quiet_answer(&mut hook_in_terminal(&room), &told_by("PostToolUse", &pre("t1", "make")));
    assert_eq!(answered(waiting).0, Value::Null);
    assert_eq!(decisions(&room, &stream_of("t1")), ["terminal permission_allow"]);

    let room = room_with_run(asking());
    let waiting = open_dialog(&room, &pre("t1", "make"));
    waiting.signal(Signal::TERM);
    assert_eq!(answered(waiting).0, Value::Null);
    assert_eq!(decisions(&room, &stream_of("t1")), ["terminal permission_deny"]);
    let late = room.run(["allow", "t1"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr().contains("terminal"), "{late:?}");
    room.verify();
}

fn question(tool_use_id: &str) -> Value {
    let mut payload = pre(tool_use_id, "");
    payload["tool_name"] = json!("AskUserQuestion");
    payload["tool_input"] = json!({"questions": [{"question": "Which colour?", "header": "Colour", "multiSelect": false,
        "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]}]});
    payload
}

#[test]
fn what_an_agent_asks_its_user_is_answered_from_anywhere_or_at_the_terminal() {
    let room = room_with_run(asking());
    let waiting = open_dialog(&room, &question("t1"));
    let refused = room.run(["allow", "t1"]);
    assert_ne!(refused.code, Some(0), "a question wants an answer: {refused:?}");
    let ran = room.run(["allow", "t1", "--answer", "Colour=Red"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (opinion, _) = answered(waiting);
    let mut input = question("t1")["tool_input"].clone();
    input["answers"] = json!({"Which colour?": "Red"});
    assert_eq!(opinion["decision"], json!({"behavior": "allow", "updatedInput": input}));
    assert_eq!(decisions(&room, &stream_of("t1")), ["user question_answer"]);

    let room = room_with_run(asking());
    let waiting = open_dialog(&room, &question("t2"));
    let mut ran = told_by("PostToolUse", &question("t2"));
    ran["tool_input"]["answers"] = json!({"Which colour?": "Blue"});
    ran["tool_response"] = json!({"answers": {"Which colour?": "Blue"}});
    quiet_answer(&mut hook_in_terminal(&room), &ran);
    assert_eq!(answered(waiting).0, Value::Null);
    assert_eq!(decisions(&room, &stream_of("t2")), ["terminal question_answer"]);
}

fn deferring() -> Value {
    json!({"rules": [{"tool": "Bash", "action": "ask"}], "on_ask": "defer"})
}

#[test]
fn a_call_is_put_off_without_anybody_waiting_and_answered_when_it_is_made_again() {
    for (arguments, expected) in [(vec!["allow", "t1"], "allow"), (vec!["deny", "t1", "--reason", "not today"], "deny")]
    {
        let room = room_with_run(deferring());
        let opinion = quiet_answer(&mut hook_of_run(&room), &pre("t1", "make"));
        assert_eq!(opinion["permissionDecision"], "defer");
        let asked = requests(&room).pop().unwrap();
        let words = text(&opinion, "/permissionDecisionReason");
        assert!(words.contains(&format!("runledger allow {}", asked["position"])), "{words}");
        assert_eq!(
            (&asked["event"]["data"]["mode"], &asked["event"]["data"]["waiter"]),
            (&json!("defer"), &Value::Null)
        );

        // The client is resumed, and calls the hook again without a prompt's id.
        let mut again = pre("t1", "make");
        again.as_object_mut().unwrap().remove("prompt_id");
        let opinion = quiet_answer(&mut hook_of_run(&room), &again);
        assert_eq!(opinion["permissionDecision"], "defer", "nobody has decided yet");
        assert_eq!(room.run(arguments).code, Some(0));
        assert_eq!(quiet_answer(&mut hook_of_run(&room), &again)["permissionDecision"], expected);
        assert_eq!(requests(&room).len(), 1);
    }
}

#[test]
fn what_cannot_be_put_off_is_waited_for_and_says_so() {
    let room = room_with_run(deferring());
    let mut of_subagent = pre("t2", "make two");
    of_subagent["agent_id"] = json!("agent-1");
    of_subagent["agent_type"] = json!("Explore");
    for (payload, why) in [
        (of_subagent, "a subagent's call would be lost"),
        (of_codex(&pre("t3", "make three")), "Codex cannot put a call off"),
    ] {
        let tool_use_id = text(&payload, "/tool_use_id");
        let waiting = start(&mut hook_of_run(&room), &payload);
        let asked = wait_for_question(&room, tool_use_id);
        assert_eq!(asked["event"]["data"]["mode"], "wait");
        assert_eq!(room.run(["allow", tool_use_id]).code, Some(0));
        let (opinion, ran) = answered(waiting);
        assert_eq!(opinion["permissionDecision"], "allow");
        assert!(ran.stderr().contains(why), "{ran:?}");
    }
    // Of two calls of one turn the client would lose one.
    let (first, _) = answer(&mut hook_of_run(&room), &pre("t4", "make four"));
    assert_eq!(first["permissionDecision"], "defer");
    let waiting = start(&mut hook_of_run(&room), &pre("t5", "make five"));
    wait_for_question(&room, "t5");
    assert_eq!(room.run(["deny", "t5", "--reason", "one by one"]).code, Some(0));
    let (opinion, ran) = answered(waiting);
    assert_eq!(opinion["permissionDecision"], "deny");
    assert!(ran.stderr().contains("another call of this harness session is put off already"), "{ran:?}");
    room.verify();
}
