//! A whole story: an agent asks for permission through its hook, one process approves, another one denies, the retry is
//! told why, and the log alone tells all of it. Nobody is there in the other one: the machine may as well have been off.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use support::{Room, Running, is_running, run, text, wait_for_line, wait_for_run, wait_until};

/// What an agent needs to ask: `ask CALL COMMAND` gives the hook the payload that Claude Code would, and keeps its answer.
fn asking() -> String {
    let program = env!("CARGO_BIN_EXE_runledger");
    format!(
        r#"n=$RUNLEDGER_ITERATION
cat > prompt-$n
ask() {{
    printf '{{"session_id":"agent-1","transcript_path":"/t","cwd":"%s","hook_event_name":"PreToolUse","prompt_id":"p-%s","permission_mode":"default","tool_name":"Bash","tool_input":{{"command":"%s"}},"tool_use_id":"%s"}}' "$PWD" "$n" "$2" "$1" \
        | '{program}' hook > "answer-$1" 2>> hook-errors
    grep -q '"permissionDecision":"allow"' "answer-$1"
}}
plan() {{ printf '# Plan\n%s\n' "$1" > "$RUNLEDGER_TRACKER"; }}
"#
    )
}

fn workflow(room: &Room, permissions: Value) -> String {
    let json = json!({"name": "ship", "promptTemplate": "Do: {input}",
        "loop": {"maxIterations": 5, "trackerPath": "tracker.md"}, "permissions": permissions});
    room.write("project/ship.json", json.to_string()).display().to_string()
}

/// What waits; nothing while there is no ledger yet.
fn pending(room: &Room) -> Vec<Value> {
    let ran = room.run(["pending", "--json"]);
    if ran.code == Some(0) { ran.json() } else { Vec::new() }
}

fn wait_for_question(room: &Room, call: &str) -> Value {
    let mut found = None;
    wait_until(call, || {
        found = pending(room).into_iter().find(|request| request["tool_use_id"] == call);
        found.is_some()
    });
    found.unwrap()
}

fn answer(room: &Room, call: &str) -> Value {
    let text = std::fs::read_to_string(room.path("project").join(format!("answer-{call}"))).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn one_process_approves_another_denies_the_retry_is_told_why_and_the_feed_tells_it_all() {
    let room = Room::new();
    let agent = asking()
        + r#"case $n in
1) ask toolu_1 'git push origin main' && echo pushed; ask toolu_2 'rm -r archive' || echo kept; ask toolu_3 'ls' && echo listed
   plan 'it is done'; echo '<!-- WORKFLOW_COMPLETE -->' >> "$RUNLEDGER_TRACKER" ;;
*) echo 'I found another way'; plan '<!-- WORKFLOW_COMPLETE -->' ;;
esac"#;
    let workflow = workflow(
        &room,
        json!({"rules": [
            {"tool": "Bash(ls:*)", "action": "allow"},
            {"tool": "Bash(git push:*)", "action": "ask", "reason": "pushes are looked at"},
            {"tool": "Bash", "action": "ask"}],
            "on_deny": {"retry": {"max": 2}}}),
    );
    let running = Running::start(&mut room.exec_json(&["--workflow", &workflow], &agent));

    // The context of the question, from another process, while it waits.
    let asked = wait_for_question(&room, "toolu_1");
    let run_id = wait_for_run(&room).to_string();
    assert_eq!((&asked["status"], &asked["tool_name"]), (&json!("pending"), &json!("Bash")));
    for name in ["toolu_1".to_owned(), asked["position"].to_string()] {
        let context = room.json(["context", &name]).pop().unwrap();
        let place = [&context["run_id"], &context["workflow_name"], &context["state"], &context["iteration"]];
        assert_eq!(place, [&json!(run_id), &json!("ship"), &json!("running"), &json!(1)], "{context}");
        assert_eq!(context["max_iterations"], 5);
        assert_eq!(context["tool_input"]["command"], "git push origin main");
        assert_eq!(context["rule"]["tool"], "Bash(git push:*)");
    }
    let allowed = room.run(["allow", "toolu_1"]);
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    wait_for_question(&room, "toolu_2");
    assert_eq!(pending(&room).len(), 1);
    let denied = room.run(["deny", "toolu_2", "--reason", "the archive is still needed"]);
    assert_eq!(denied.code, Some(0), "{denied:?}");
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");

    let output = |call: &str| answer(&room, call)["hookSpecificOutput"].clone();
    assert_eq!(output("toolu_1")["permissionDecision"], "allow");
    assert_eq!(output("toolu_2")["permissionDecision"], "deny");
    assert!(text(&output("toolu_2"), "/permissionDecisionReason").contains("the archive is still needed"));
    assert_eq!(output("toolu_3")["permissionDecision"], "allow", "a rule allows it");
    let prompt = std::fs::read_to_string(room.path("project/prompt-2")).unwrap();
    assert!(prompt.contains("Bash(rm -r archive): the archive is still needed"), "{prompt}");
    assert!(!prompt.contains("git push"), "{prompt}");

    let shown = room.json(["show", &run_id]).pop().unwrap();
    assert_eq!((&shown["status"], &shown["iteration"], &shown["retries"]), (&json!("completed"), &json!(2), &json!(1)));
    assert_eq!(shown["iterations"][1]["retry"]["why"], "denied");
    let deciding = room
        .events()
        .into_iter()
        .find(|event| event["event"]["data"]["decision"]["intent"]["kind"] == "permission_deny");
    assert_eq!(shown["iterations"][1]["retry"]["cause"], deciding.unwrap()["event"]["id"]);
    let stood: Vec<Value> = room.json(["pending", "--all"]);
    let of = |call: &str| stood.iter().find(|request| request["tool_use_id"] == call).unwrap().clone();
    assert_eq!((&of("toolu_1")["status"], &of("toolu_2")["status"]), (&json!("allowed"), &json!("denied")));
    assert_eq!(of("toolu_2")["reason"], "the archive is still needed");
    let before = room.json(["context", "toolu_2"]).pop().unwrap();
    assert!(before["before"].as_array().unwrap().iter().any(|request| request["tool_use_id"] == "toolu_1"), "{before}");

    // The log alone tells the story, in order.
    let story: Vec<String> = room
        .json(["feed", "--run", &run_id])
        .iter()
        .map(|entry| format!("{} {}", text(entry, "/kind"), text(entry, "/title")))
        .collect();
    let told = ["permission.request", "permission.decision", "workflow.iteration", "workflow.end"];
    let places: Vec<usize> = told
        .iter()
        .map(|kind| {
            story.iter().position(|entry| entry.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}: {story:#?}"))
        })
        .collect();
    assert!(places[0] < places[1] && places[1] < places[3], "{story:#?}");
    assert!(story.iter().any(|entry| entry.contains("the archive is still needed")), "{story:#?}");
    room.verify();
    assert_eq!(room.run(["rebuild-projections", "--verify"]).code, Some(0));
}

#[test]
fn what_is_decided_already_unknown_or_ambiguous_is_refused_and_nothing_is_appended() {
    let room = Room::new();
    let agent = asking() + "ask toolu_1 'make' ; plan '<!-- WORKFLOW_COMPLETE -->'";
    let workflow = workflow(&room, json!({"rules": [{"tool": "Bash", "action": "ask"}]}));
    let running = Running::start(&mut room.exec_json(&["--workflow", &workflow], &agent));
    wait_for_question(&room, "toolu_1");
    room.ok(["allow", "toolu_1"]);
    assert_eq!(running.wait().code, Some(0));
    let head = room.events().len();
    for (arguments, code, words) in [
        (vec!["allow", "toolu_1"], 1, "allowed"),
        (vec!["deny", "toolu_1", "--reason", "no"], 1, "allowed"),
        (vec!["allow", "toolu_9"], 1, "no request"),
        (vec!["context", "toolu_9"], 1, "no request"),
        (vec!["deny", "4711", "--reason", "no"], 1, "no request"),
    ] {
        let ran = room.run(&arguments);
        let told = ran.is_refused_with(code);
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    assert_eq!(room.run(["deny", "toolu_1"]).code, Some(2), "a denial has a reason");
    // What an ingest says answers nothing.
    let line = json!({"eventId": "toolu_1", "decision": {"type": "json", "source": "user", "intent": {"kind": "permission_allow"}}});
    let file = room.write("line.jsonl", format!("{line}\n"));
    let ran = run(room.command(["ingest", "--format", "runtime"]).arg(file));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(room.events().len(), head, "nothing was appended");
}

/// A client that makes one call: its hook defers it, it ends, and is taken up by `--resume` without a prompt.
fn deferring_client(room: &Room) {
    let program = env!("CARGO_BIN_EXE_runledger");
    let session = "11111111-2222-4333-8444-555555555555";
    let script = format!(
        r#"cat > input-$$; for argument; do printf '%s\n' "$argument"; done > arguments-$$; echo $$ >> turns
payload='{{"session_id":"{session}","transcript_path":"/t","cwd":"/p","hook_event_name":"PreToolUse","permission_mode":"default","tool_name":"Bash","tool_input":{{"command":"make release"}},"tool_use_id":"toolu_1"}}'
result='{{"type":"result","is_error":false,"subtype":"success","session_id":"{session}","usage":{{"input_tokens":10,"output_tokens":2,"cache_read_input_tokens":0,"cache_creation_input_tokens":0}}'
if ! grep -q -- --resume arguments-$$; then echo '{{"type":"system","subtype":"init","session_id":"{session}","uuid":"u1"}}'; fi
answer=$(printf '%s' "$payload" | CLAUDE_CODE_SESSION_ATTENDED=0 CLAUDE_PID=$$ '{program}' hook)
echo "$answer" >> answers
case $answer in
*'"defer"'*) echo "$result,\"stop_reason\":\"tool_deferred\",\"deferred_tool_use\":{{\"id\":\"toolu_1\",\"name\":\"Bash\",\"input\":{{}}}}}}" ;;
*'"allow"'*) echo released > released; echo "$result,\"uuid\":\"u3\",\"terminal_reason\":\"completed\",\"result\":\"Released.\"}}" ;;
*) echo "$result,\"uuid\":\"u4\",\"terminal_reason\":\"completed\",\"result\":\"Not released.\"}}" ;;
esac"#
    );
    room.program("claude", &script);
    room.ok(["hook", "install"]);
}

fn deferred(room: &Room) -> String {
    deferring_client(room);
    let permissions = json!({"rules": [{"tool": "Bash(make release)", "action": "ask"}], "on_ask": "defer",
        "ask_timeout_ms": null});
    let json = json!({"name": "release", "permissions": permissions});
    let workflow = room.write("project/release.json", json.to_string()).display().to_string();
    let ran = run(&mut room.command(["exec", "--workflow", &workflow, "Release it"]));
    assert_eq!(ran.code, Some(10), "{ran:?}");
    assert!(ran.stderr().contains("waits for an answer"), "{ran:?}");
    let run_id = wait_for_run(room).to_string();
    let shown = room.json(["show", &run_id]).pop().unwrap();
    assert_eq!((&shown["status"], &shown["state"]), (&json!("running"), &json!("running")));
    assert!(text(&shown, "/waiting_for").ends_with("toolu_1"), "{shown}");
    run_id
}

#[test]
fn a_deferred_call_is_made_when_somebody_has_approved_it_though_nobody_waited() {
    let room = Room::new();
    let run_id = deferred(&room);
    assert_eq!(room.json(["sweep"]).len(), 0, "it waits, and is not mistaken for interrupted");
    assert_eq!(room.json(["pending"]).len(), 1);
    let still = room.run(["resume", &run_id]);
    assert_eq!(still.code, Some(10), "{still:?}");
    assert_eq!(std::fs::read_to_string(room.path("project/turns")).unwrap().lines().count(), 1, "no turn was made");

    room.ok(["allow", "toolu_1"]);
    let ran = room.run(["resume", "--last"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(room.path("project/released").exists());
    let turns = std::fs::read_to_string(room.path("project/turns")).unwrap();
    let second = turns.lines().nth(1).unwrap();
    let read = |name: &str| std::fs::read_to_string(room.path("project").join(format!("{name}-{second}"))).unwrap();
    assert!(read("arguments").contains("--resume\n11111111-2222-4333-8444-555555555555"));
    assert_eq!(read("input"), "", "no prompt of ours is put in");
    let shown = room.json(["show", &run_id]).pop().unwrap();
    assert_eq!(
        (&shown["status"], &shown["iteration"], &shown["waiting_for"]),
        (&json!("completed"), &json!(1), &Value::Null)
    );
    assert_eq!(shown["tokens"]["input"], 20, "both turns are counted, once each: {}", shown["tokens"]);
    room.verify();
    assert_eq!(room.run(["rebuild-projections", "--verify"]).code, Some(0));
}

#[test]
fn a_deferred_call_that_is_denied_is_told_to_the_harness_and_a_watching_runner_goes_on_by_itself() {
    let room = Room::new();
    let run_id = deferred(&room);
    let watching = Running::start(&mut room.command(["resume", &run_id, "--watch", "--json"]));
    wait_until("the new owner", || room.json(["show", &run_id])[0]["owner"]["term"] == 2);

    room.ok(["deny", "toolu_1", "--reason", "not on a Friday"]);

    let ran = watching.wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answers = std::fs::read_to_string(room.path("project/answers")).unwrap();
    assert!(answers.lines().last().unwrap().contains("not on a Friday"), "{answers}");
    assert!(!room.path("project/released").exists());
}

#[test]
fn a_run_that_waits_is_cancelled_and_its_question_is_withdrawn() {
    let room = Room::new();
    let run_id = deferred(&room);
    room.ok(["cancel", &run_id]);
    let shown = room.json(["show", &run_id]).pop().unwrap();
    assert_eq!((&shown["status"], &shown["waiting_for"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(room.json(["pending"]).len(), 0);
    let ran = room.run(["allow", "toolu_1"]);
    assert!(ran.is_refused_with(1).contains("withdrawn"), "{ran:?}");
}

#[test]
fn a_question_outlives_the_runner_and_its_hook_and_the_answer_counts_when_it_is_asked_again() {
    let room = Room::new();
    let agent = asking()
        + r#"echo $$ > agent; ask "toolu_$(date +%s%N)" 'make release' && touch released
plan '<!-- WORKFLOW_COMPLETE -->'"#;
    let workflow = workflow(&room, json!({"rules": [{"tool": "Bash", "action": "ask"}], "ask_timeout_ms": null}));
    let running = Running::start(&mut room.exec_json(&["--workflow", &workflow], &agent));
    wait_until("the question", || pending(&room).len() == 1);
    let asked = pending(&room).pop().unwrap();
    let agent = wait_for_line(&room.path("project/agent"));
    // Everything dies at once, as with the machine: the runner, the agent, its hook.
    running.signal(Signal::KILL);
    drop(running.wait());
    let group = Pid::from_raw(agent.parse().unwrap()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    wait_until("the agent's end", || !is_running(&agent));
    assert_eq!(pending(&room).len(), 1, "the question stands");
    let run_id = wait_for_run(&room).to_string();

    let ran = room.run(["allow", text(&asked, "/request_id")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let resumed = room.run(["resume", &run_id]);

    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(!is_running(&agent));
    assert!(room.path("project/released").exists(), "what was approved meanwhile is not asked again");
    assert_eq!(pending(&room).len(), 0);
}
