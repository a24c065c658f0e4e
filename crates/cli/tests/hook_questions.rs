//! `hook` where a rule has somebody asked: it waits for a decision from anywhere, answers once, and ends with its time, its
//! client or its kill.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;

use permission_support::{
    answer, answered, begin_run, begin_run_of, decisions, hook_of_run, of_codex, of_kind, pre, quiet_answer, requests,
    room_with_run, start, stream_of, wait_for_question,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, Running, append, run, text, wait_until};

fn asking(more: Value) -> Value {
    let mut permissions = json!({"rules": [
        {"tool": "Bash(git push:*)", "action": "ask", "reason": "pushes are looked at"},
        {"tool": "Bash(make:*)", "action": "ask"},
    ]});
    permissions.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    permissions
}

fn allow(room: &Room, arguments: &[&str]) {
    let ran = room.run([&["allow"], arguments].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn it_waits_for_what_another_process_decides_and_answers_that() {
    let room = room_with_run(asking(json!({})));
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let asked = wait_for_question(&room, "t1");
    let data = &asked["event"]["data"];
    assert_eq!(asked["stream"], stream_of("t1"));
    assert_eq!((&data["mode"], &data["pattern"]), (&json!("wait"), &json!("Bash(git push)")));
    assert_eq!((&data["rule"]["number"], &data["context"]["iteration"]), (&json!(1), &json!(1)));
    assert_eq!((&data["tool_input"]["command"], &data["cwd"]), (&json!("git push"), &json!("/elsewhere")));
    allow(&room, &["t1"]);
    let (opinion, ran) = answered(waiting);
    assert_eq!(opinion["permissionDecision"], "allow", "{ran:?}");
    assert_eq!(ran.stderr(), "");

    // Codex takes the same.
    let waiting = start(&mut hook_of_run(&room), &of_codex(&pre("t2", "git push -f")));
    wait_for_question(&room, "t2");
    assert_eq!(room.run(["deny", "t2", "--reason", "not with force"]).code, Some(0));
    let (opinion, _) = answered(waiting);
    assert_eq!(
        opinion,
        json!({"hookEventName": "PreToolUse", "permissionDecision": "deny",
        "permissionDecisionReason": "not with force"})
    );
    assert_eq!(of_kind(&room, "relay.delivered").len(), 2);
    room.verify();
}

#[test]
fn an_unanswered_question_comes_to_what_the_rule_says_when_its_time_is_up() {
    for (on_timeout, expected) in [("deny", json!("deny")), ("allow", json!("allow")), ("no_opinion", Value::Null)] {
        let room = room_with_run(asking(json!({"ask_timeout_ms": 1, "on_timeout": on_timeout})));
        let opinion = quiet_answer(&mut hook_of_run(&room), &pre("t1", "git push"));
        assert_eq!(opinion["permissionDecision"], expected, "{on_timeout}");
        assert_eq!(room.json(["pending", "--all"])[0]["status"], "expired");
        // What comes later is refused, and recorded as such.
        let late = room.run(["allow", "t1"]);
        assert_eq!(late.code, Some(1), "{late:?}");
        assert_eq!(decisions(&room, &stream_of("t1")).len(), 2);
        // The same call again comes to the same.
        assert_eq!(quiet_answer(&mut hook_of_run(&room), &pre("t1", "git push"))["permissionDecision"], expected);
    }
}

#[test]
fn a_decision_for_the_run_or_for_good_is_a_rule_from_then_on() {
    let room = room_with_run(asking(json!({})));
    let ask = |tool_use_id: &str, command: &str, options: &[&str]| {
        let waiting = start(&mut hook_of_run(&room), &pre(tool_use_id, command));
        wait_for_question(&room, tool_use_id);
        allow(&room, &[&[tool_use_id], options].concat());
        assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    };
    ask("t1", "git push origin", &["--for-run"]);
    ask("t2", "make test", &["--always", "--pattern", "Bash(make test:*)"]);
    for (tool_use_id, command) in [("t3", "git push origin"), ("t4", "make test --all")] {
        let opinion = quiet_answer(&mut hook_of_run(&room), &pre(tool_use_id, command));
        assert_eq!(opinion["permissionDecision"], "allow", "{command}");
    }
    let by_rules: Vec<Value> =
        of_kind(&room, "decision").into_iter().filter(|event| event["stream"] == "session/s").collect();
    let origins: Vec<&str> =
        by_rules.iter().map(|event| text(&event["event"]["data"]["decision"], "/rule/origin")).collect();
    assert_eq!(origins, ["run", "always"]);

    begin_run(&room, "later", asking(json!({"ask_timeout_ms": 1})));
    let in_later_run = |tool_use_id: &str, command: &str| {
        let mut command_of_hook = hook_of_run(&room);
        let opinion = quiet_answer(command_of_hook.env("RUNLEDGER_RUN_ID", "later"), &pre(tool_use_id, command));
        opinion["permissionDecision"].clone()
    };
    assert_eq!(
        (in_later_run("t5", "make test -q"), in_later_run("t6", "git push origin")),
        (json!("allow"), json!("deny"))
    );
}

#[test]
fn an_answer_that_never_reached_its_call_is_taken_up_by_the_same_call_once() {
    let room = room_with_run(asking(json!({})));
    let kill = |tool_use_id: &str| {
        let waiting = start(&mut hook_of_run(&room), &pre(tool_use_id, "git push"));
        wait_for_question(&room, tool_use_id);
        waiting.signal(Signal::KILL);
        drop(waiting.wait());
    };
    // Decided while nobody waits; the next call of the same has the answer at once.
    kill("t1");
    allow(&room, &["t1"]);
    assert_eq!(quiet_answer(&mut hook_of_run(&room), &pre("t2", "git push"))["permissionDecision"], "allow");
    assert_eq!(requests(&room).len(), 1);
    let delivered = of_kind(&room, "relay.delivered").pop().unwrap();
    assert_eq!(delivered["stream"], stream_of("t1"));

    // It is used: the next call is a question of its own, which is taken up while it is pending.
    kill("t3");
    assert_eq!(requests(&room).len(), 2);
    let waiting = start(&mut hook_of_run(&room), &pre("t4", "git push"));
    let told = || of_kind(&room, "tool.pre").iter().any(|event| event["event"]["data"]["tool_use_id"] == "t4");
    wait_until("the hook", told);
    assert_eq!(room.run(["deny", "t3", "--reason", "no"]).code, Some(0));
    assert_eq!(answered(waiting).0["permissionDecision"], "deny");
    assert_eq!(requests(&room).len(), 2);

    // A call that is made again under its own name attaches to its own question.
    kill("t5");
    let waiting = start(&mut hook_of_run(&room), &pre("t5", "git push"));
    allow(&room, &["t5"]);
    assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    assert_eq!(requests(&room).len(), 3);
    // Another call under that name is refused, and the client decides.
    let (opinion, ran) = answer(&mut hook_of_run(&room), &pre("t5", "git push --force"));
    assert_eq!(opinion, Value::Null);
    assert!(ran.stderr().contains("nobody could be asked"), "{ran:?}");
    room.verify();
}

#[test]
fn a_name_that_is_given_again_brings_no_old_answer() {
    let room = room_with_run(asking(json!({"ask_timeout_ms": null})));
    let again = |count: usize| {
        let waiting = start(&mut hook_of_run(&room), &pre("one", "git push"));
        wait_until("a question of its own", || requests(&room).len() == count);
        waiting
    };
    let told = |waiting: Running| answered(waiting).0["permissionDecision"].clone();
    let newest = || requests(&room).pop().unwrap()["position"].to_string();

    let waiting = again(1);
    allow(&room, &["one"]);
    assert_eq!(told(waiting), "allow");
    // The same turn makes the call again, under the same name.
    let waiting = again(2);
    assert_eq!(room.run(["deny", &newest(), "--reason", "once is enough"]).code, Some(0));
    assert_eq!(told(waiting), "deny");
    // Another iteration does, then another run, whose first question is still open.
    let add = |data: Value| {
        let json = json!({"id": data.to_string(), "timestamp": 2, "kind": "workflow.iteration", "data": data});
        append(&room.log(), "run/r", &json.to_string());
    };
    add(json!({"phase": "end", "iteration": 1, "outcome": "continue"}));
    add(json!({"phase": "start", "iteration": 2, "continuation": {"mode": "fresh"}, "prompt": "go"}));
    let waiting = again(3);
    begin_run(&room, "q", asking(json!({})));
    let mut other = hook_of_run(&room);
    let other = start(other.env("RUNLEDGER_RUN_ID", "q"), &pre("one", "git push"));
    wait_until("a question of the other run", || requests(&room).len() == 4);
    allow(&room, &[&newest()]);
    assert_eq!(told(other), "allow");
    assert_eq!(room.json(["pending"]).len(), 1);
    let named = room.run(["allow", "one"]);
    assert_eq!(named.code, Some(2), "the name fits several: {named:?}");
    let pending = room.json(["pending"]).remove(0);
    allow(&room, &[&pending["position"].to_string()]);
    assert_eq!(told(waiting), "allow");
    room.verify();
}

#[test]
fn a_harness_that_cannot_put_a_call_off_has_it_waited_for() {
    let room = Room::new();
    let permissions = json!({"rules": [{"tool": "Bash(git push:*)", "action": "ask"}], "on_ask": "defer"});
    begin_run_of(&room, "r", "command", permissions);
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let asked = wait_for_question(&room, "t1");
    assert_eq!(asked["event"]["data"]["mode"], "wait");
    allow(&room, &["t1"]);
    let (answer, ran) = answered(waiting);
    assert_eq!(answer["permissionDecision"], "allow");
    assert!(ran.stderr().contains("the run's harness cannot put a call off: `on_ask: defer` waits instead"), "{ran:?}");
}

#[test]
fn two_that_wait_at_once_do_not_take_each_others_answer() {
    let room = room_with_run(asking(json!({})));
    let one = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    wait_for_question(&room, "t1");
    let other = start(&mut hook_of_run(&room), &pre("t2", "git push"));
    wait_for_question(&room, "t2");
    allow(&room, &["t1"]);
    assert_eq!(answered(one).0["permissionDecision"], "allow");
    assert_eq!(room.run(["deny", "t2", "--reason", "once is enough"]).code, Some(0));
    assert_eq!(answered(other).0["permissionDecision"], "deny");
}

#[test]
fn a_signal_or_the_end_of_the_client_ends_the_wait_and_the_question_stands() {
    let room = room_with_run(asking(json!({})));
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    wait_for_question(&room, "t1");
    waiting.signal(Signal::TERM);
    assert_eq!(answered(waiting).0, Value::Null);

    let mut client = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mut hook = hook_of_run(&room);
    let waiting = start(hook.env("CLAUDE_PID", client.id().to_string()), &pre("t2", "make all"));
    wait_for_question(&room, "t2");
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(answered(waiting).0, Value::Null);
    let pending = room.json(["pending"]);
    assert_eq!(pending.len(), 2);
    assert_eq!(of_kind(&room, "decision").len(), 0);
}

#[test]
fn a_program_that_is_asked_too_decides_for_the_waiting_hook() {
    let room = room_with_run(asking(json!({"channels": [{"name": "guard", "command": ["./guard"]}]})));
    room.write("project/guard", "#!/bin/sh\ncat > asked\necho '{\"decision\": \"deny\", \"reason\": \"guarded\"}'\n");
    let made = std::process::Command::new("chmod").arg("755").arg(room.path("project/guard")).status().unwrap();
    assert!(made.success());
    let opinion = quiet_answer(&mut hook_of_run(&room), &pre("t1", "git push"));
    assert_eq!(opinion["permissionDecisionReason"], "guarded");
    assert_eq!(decisions(&room, &stream_of("t1")), ["channel permission_deny"]);
    let asked: Value = serde_json::from_str(&std::fs::read_to_string(room.path("project/asked")).unwrap()).unwrap();
    assert_eq!(asked["tool_input"]["command"], "git push");
}

#[test]
fn a_question_that_cannot_be_put_is_no_opinion_or_a_denial() {
    let room = room_with_run(asking(json!({})));
    let holder = room.sqlite();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (opinion, ran) = answer(&mut hook_of_run(&room), &pre("t1", "git push"));
    assert_eq!(opinion, Value::Null);
    assert!(ran.stderr().contains("nobody could be asked"), "{ran:?}");
    let (opinion, _) = answer(hook_of_run(&room).arg("--fail-closed"), &pre("t2", "git push"));
    assert_eq!(opinion["permissionDecision"], "deny");
    holder.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_run_that_is_cancelled_denies_what_waits() {
    let room = room_with_run(asking(json!({})));
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let asked = wait_for_question(&room, "t1");
    let id = text(&asked, "/event/data/request_id");
    support::append(
        &room.log(),
        &stream_of("t1"),
        &json!({"id": "w", "timestamp": 2, "kind": "relay.withdrawn",
            "data": {"request_id": id, "reason": "the run was cancelled"}})
        .to_string(),
    );
    let (opinion, _) = answered(waiting);
    assert_eq!(opinion["permissionDecisionReason"], "the run was cancelled");
    assert_eq!(run(&mut room.command(["allow", "t1"])).code, Some(1));
}
