//! Acting on a run from other processes: taking it up after its runner was killed, taking it from a slow owner, cancelling,
//! pausing, and the runs within it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, Running, fake_client, is_running, run, text, wait_for_line, wait_for_run, wait_until};

/// An agent of three iterations. In the one that a file `hold-N` names it says its process and waits to be ended, once.
const AGENT: &str = r#"n=$RUNLEDGER_ITERATION
if [ -e hold-$n ]; then rm hold-$n; echo $$ > held; exec sleep 600; fi
if [ $n -ge 3 ]; then last='<!-- WORKFLOW_COMPLETE -->'; else last='more to do'; fi
printf '# Plan\nturn %s\n%s\n' $n "$last" > "$RUNLEDGER_TRACKER"
echo "turn $n""#;

/// A run that another process drives and whose agent waits in this iteration; with the agent's process.
fn held_in(room: &Room, iteration: u32) -> (Running, String, String) {
    room.write(&format!("project/hold-{iteration}"), "");
    let workflow = room.workflow(9);
    let running = Running::start(&mut room.exec_json(&["--workflow", &workflow], AGENT));
    let pid = wait_for_line(&room.path("project/held"));
    std::fs::remove_file(room.path("project/held")).unwrap();
    let is_noted = |event: &Value| {
        let data = &event["event"]["data"];
        data["phase"] == "process" && data["iteration"] == iteration
    };
    wait_until("the agent's process in the log", || room.events().iter().any(is_noted));
    (running, wait_for_run(room).to_string(), pid)
}

fn shown(room: &Room, run_id: &str) -> Value {
    room.json(["show", run_id]).pop().unwrap()
}

/// What an undisturbed run and one that was taken up have in common.
fn story(run: &Value) -> Value {
    let of_each = run["iterations"].as_array().unwrap().iter();
    let iterations: Vec<Value> = of_each
        .map(|it| json!([it["iteration"], it["outcome"], it["exit_code"], it["tokens"], it["tracker"]["digest"]]))
        .collect();
    json!({"status": run["status"], "state": run["state"], "iteration": run["iteration"], "tokens": run["tokens"],
        "stop_reason": run["stop_reason"], "iterations": iterations})
}

#[test]
fn a_runner_killed_in_any_iteration_is_found_taken_up_and_ends_as_an_undisturbed_run() {
    let undisturbed = Room::new();
    let workflow = undisturbed.workflow(9);
    let (ran, run) = undisturbed.exec_to_end(&["--workflow", &workflow], AGENT);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let expected = story(&shown(&undisturbed, text(&run, "/id")));

    for iteration in 1..=3 {
        let room = Room::new();
        let (running, run_id, agent) = held_in(&room, iteration);
        running.signal(Signal::KILL);
        drop(running.wait());
        assert!(is_running(&agent), "the agent is left behind");
        assert_eq!(shown(&room, &run_id)["owner_alive"], false);

        let swept = room.json(["sweep"]);
        assert_eq!(swept.len(), 1);
        assert_eq!((&swept[0]["run_id"], &swept[0]["status"]), (&json!(run_id), &json!("interrupted")));
        assert_eq!(room.json(["sweep"]).len(), 0, "it is said once");
        let interrupted = shown(&room, &run_id);
        assert_eq!((&interrupted["status"], &interrupted["state"]), (&json!("interrupted"), &json!("idle")));

        let ran = room.run(["resume", &run_id[..13]]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(story(&shown(&room, &run_id)), expected, "killed in iteration {iteration}");
        wait_until("the end of the agent", || !is_running(&agent));
        room.verify();
        let rebuilt = room.run(["rebuild-projections", "--verify"]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    }
}

#[test]
fn a_run_is_taken_up_without_a_sweep_and_the_newest_by_last() {
    let room = Room::new();
    let (running, run_id, agent) = held_in(&room, 2);
    running.signal(Signal::KILL);
    drop(running.wait());

    let ran = room.run(["resume", "--last", "--json"]);

    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json().last().unwrap()["data"]["id"], json!(run_id));
    assert_eq!(shown(&room, &run_id)["iteration"], 3);
    assert!(!is_running(&agent), "what the dead runner left behind is ended before anything else");
    let ran = room.run(["resume", "--last"]);
    assert!(ran.is_refused_with(1).contains("no run can be taken up"), "{ran:?}");
    let ran = room.run(["resume", &run_id]);
    assert!(ran.is_refused_with(3).contains("is over: completed"), "{ran:?}");
}

#[test]
fn a_resume_says_which_other_runs_have_lost_their_owner() {
    let room = Room::new();
    let (running, other, _) = held_in(&room, 1);
    running.signal(Signal::KILL);
    drop(running.wait());
    let (running, run_id, _) = {
        room.write("project/hold-1", "");
        let workflow = room.workflow(9);
        let mut command = room.exec_json(&["--workflow", &workflow], AGENT);
        let running = Running::start(&mut command);
        let pid = wait_for_line(&room.path("project/held"));
        let run_id = text(&room.json(["runs", "--limit", "1"])[0], "/id").to_owned();
        (running, run_id, pid)
    };
    assert_eq!(shown(&room, &other)["status"], "interrupted", "the second exec has said so");
    running.signal(Signal::KILL);
    drop(running.wait());
    let refused = room.run(["resume", "--take-over", &other]);
    assert_eq!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr().contains(&format!("run {run_id} was interrupted")), "{refused:?}");
    assert!(!refused.stderr().contains(&format!("run {other} was interrupted")), "{refused:?}");
    room.ok(["cancel", &run_id]);
}

#[test]
fn the_next_exec_says_which_runs_have_lost_their_owner() {
    let room = Room::new();
    let (running, run_id, _) = held_in(&room, 1);
    running.signal(Signal::KILL);
    drop(running.wait());

    let ran = run(&mut room.exec(&[], "true"));

    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr().contains(&format!("run {run_id} was interrupted")), "{ran:?}");
    assert_eq!(shown(&room, &run_id)["status"], "interrupted");
    // It ends what the dead runner left behind.
    assert_eq!(room.run(["cancel", &run_id]).code, Some(0));
    assert_eq!(shown(&room, &run_id)["status"], "cancelled");
}

#[test]
fn a_run_whose_owner_is_at_work_is_refused_and_taken_away_only_by_force_which_shuts_the_owner_out() {
    let room = Room::new();
    let (running, run_id, agent) = held_in(&room, 2);
    let head = room.events().len();
    let refused = room.run(["resume", &run_id]);
    let words = refused.is_refused_with(3);
    assert!(words.contains("which is at work") && words.contains("--take-over"), "{words}");
    assert_eq!(room.events().len(), head, "nothing is appended");

    // It is alive, and does nothing for a while.
    running.signal(Signal::STOP);
    let ran = room.run(["resume", "--take-over", &run_id]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!is_running(&agent), "its agent was ended");
    let before = room.events().len();
    running.signal(Signal::CONT);
    let slow = running.wait();

    assert_eq!(slow.code, Some(5), "{slow:?}");
    assert!(slow.stderr().contains("another owner has taken it over (term 2)"), "{slow:?}");
    assert_eq!(room.events().len(), before, "the slow one wrote nothing");
    let shown = shown(&room, &run_id);
    assert_eq!((&shown["status"], &shown["iteration"]), (&json!("completed"), &json!(3)));
}

#[test]
fn a_run_is_cancelled_from_another_process_and_the_events_are_told() {
    let room = Room::new();
    let (running, run_id, agent) = held_in(&room, 1);

    let told = room.json(["cancel", &run_id]);

    assert_eq!(told.len(), 1);
    assert_eq!(text(&told[0], "/event/data/decision/intent/kind"), "workflow_cancel");
    let ran = running.wait();
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(!is_running(&agent));
    assert_eq!(shown(&room, &run_id)["status"], "cancelled");
    let again = room.run(["cancel", &run_id]);
    assert!(again.is_refused_with(1).contains("is over: cancelled"), "{again:?}");
    let signalled = room.run(["signal", &run_id, "pause"]);
    assert!(signalled.is_refused_with(1).contains("is over"), "{signalled:?}");
}

/// The state of a process, as the kernel has it: `T` is stopped.
fn process_state(pid: &str) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
}

#[test]
fn a_paused_run_rests_where_it_is_and_goes_on_when_it_is_told() {
    let room = Room::new();
    let (running, run_id, agent) = held_in(&room, 1);

    room.ok(["signal", &run_id, "pause"]);
    wait_until("the agent to rest", || process_state(&agent) == 'T');
    assert_eq!(shown(&room, &run_id)["paused"], true);
    room.ok(["signal", &run_id, "resume"]);
    wait_until("the agent to go on", || process_state(&agent) != 'T');
    assert_eq!(shown(&room, &run_id)["paused"], false);
    // One that rests is ended too.
    room.ok(["signal", &run_id, "pause"]);
    wait_until("the agent to rest", || process_state(&agent) == 'T');
    room.ok(["cancel", &run_id]);
    assert_eq!(running.wait().code, Some(130));
    assert!(!is_running(&agent));
}

#[test]
fn a_named_signal_reaches_the_next_turn_and_bad_ones_are_refused() {
    let room = Room::new();
    let agent = r#"n=$RUNLEDGER_ITERATION; cat > prompt-$n
        if [ $n = 1 ]; then echo > began; while [ ! -e go ]; do sleep 0.02; done; fi
        if [ $n -ge 2 ]; then last='<!-- WORKFLOW_COMPLETE -->'; else last='more'; fi
        printf 'plan\n%s\n' "$last" > "$RUNLEDGER_TRACKER""#;
    let workflow = room.workflow(9);
    let running = Running::start(&mut room.exec_json(&["--workflow", &workflow], agent));
    wait_until("the first turn", || room.path("project/began").exists());
    let run_id = wait_for_run(&room).to_string();

    let told = room.json(["signal", &run_id, "reviewed", "--data", r#"{ "by": "jo" }"#]);
    assert_eq!(
        told[0]["event"]["data"]["decision"]["intent"],
        json!({"kind": "workflow_signal", "name": "reviewed", "data": {"by": "jo"}})
    );
    for (arguments, code, words) in [
        (vec!["signal", &run_id, "reviewed", "--data", "{"], 2, "no JSON"),
        (vec!["signal", &run_id, " "], 2, "needs a name"),
        (vec!["signal", &run_id, "pause", "--data", "1"], 2, "takes no --data"),
        (vec!["signal", &run_id, "cancel"], 2, "runledger cancel"),
        (vec!["signal", "no-such-run", "pause"], 1, "there is no run"),
        (vec!["cancel", "no-such-run"], 1, "there is no run"),
        (vec!["resume", "no-such-run"], 1, "there is no run"),
    ] {
        let head = room.events().len();
        let ran = room.run(&arguments);
        assert!(ran.is_refused_with(code).contains(words), "{arguments:?}: {ran:?}");
        assert_eq!(room.events().len(), head, "nothing is appended: {arguments:?}");
    }
    room.write("project/go", "");
    assert_eq!(running.wait().code, Some(0));
    let prompt = std::fs::read_to_string(room.path("project/prompt-2")).unwrap();
    assert!(prompt.ends_with("Signals that came meanwhile:\n- reviewed: {\"by\":\"jo\"}"), "{prompt}");
}

#[test]
fn a_cancel_goes_down_to_the_runs_within() {
    let room = Room::new();
    let inner = room.write("project/inner.sh", "echo $$ > inner; exec sleep 600\n").display().to_string();
    let program = env!("CARGO_BIN_EXE_runledger");
    // The inner run is in a process group of its own, where no signal to the outer one's reaches it.
    let outer = format!("setsid {program} exec inner -- sh {inner} & echo > began; exec sleep 600");
    let running = Running::start(&mut room.exec(&[], &outer));
    let agent = wait_for_line(&room.path("project/inner"));
    wait_until("both runs", || room.json(["runs"]).len() == 2);
    let runs = room.json(["runs"]);
    let outer = runs.iter().find(|run| run["parent_run_id"].is_null()).unwrap();
    let inner = runs.iter().find(|run| run["parent_run_id"] == outer["id"]).expect("a run within");
    assert_ne!(inner["session_id"], outer["session_id"]);

    let told = room.json(["cancel", text(outer, "/id")]);

    assert_eq!(told.len(), 2, "both are asked to end");
    assert_eq!(running.wait().code, Some(130));
    wait_until("the end of the run within", || shown(&room, text(inner, "/id"))["status"] == "cancelled");
    wait_until("the end of its agent", || !is_running(&agent));
}

#[test]
fn a_parent_may_be_named_and_a_session_is_picked_up_where_its_harness_left_it() {
    let room = Room::new();
    let session = "11111111-2222-4333-8444-555555555555";
    let lines = [
        json!({"type": "system", "subtype": "init", "session_id": session, "model": "opus", "uuid": "u1"}),
        json!({"type": "result", "subtype": "success", "is_error": false, "uuid": "u5", "session_id": session}),
    ];
    let file = room.write("lines.jsonl", lines.map(|line| format!("{line}\n")).concat());
    fake_client(&room, "claude", &file, "");
    let exec = |options: &[&str]| {
        let ran = run(room.command(["exec"]).args(options).arg("Say hi"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    };

    exec(&["--session", "s1"]);
    let first = room.json(["runs"]).pop().unwrap();
    exec(&["--session", "s1", "--parent", &text(&first, "/id")[..23]]);
    exec(&["--session", "s1", "--fresh"]);
    exec(&["--session", "s2"]);

    let arguments = std::fs::read_to_string(room.path("project/arguments")).unwrap();
    let asked: Vec<bool> = arguments
        .split("==\n")
        .filter(|words| !words.is_empty())
        .map(|words| words.contains(&format!("--resume\n{session}")))
        .collect();
    assert_eq!(asked, [false, true, false, false]);
    let second = room.json(["runs"]).remove(2);
    assert_eq!(second["parent_run_id"], first["id"]);
}

#[test]
fn a_parent_that_is_not_there_is_refused_where_it_is_named_and_left_out_where_it_is_inherited() {
    let room = Room::new();
    let exec = |command: &mut Command| run(command.args(["Say hi", "--", "true"]));
    let refused = exec(room.command(["exec"]).args(["--parent", "0199"]));
    assert_eq!(refused.code, Some(3), "there is no ledger yet: {refused:?}");
    assert!(!room.ledger().exists());

    let inherited = exec(room.command(["exec"]).env("RUNLEDGER_RUN_ID", "elsewhere"));
    assert_eq!(inherited.code, Some(0), "{inherited:?}");
    let said = "runledger: RUNLEDGER_RUN_ID names run elsewhere, which is not in ";
    assert!(inherited.stderr().contains(said), "{inherited:?}");
    let runs = room.json(["runs"]);
    assert_eq!((runs.len(), &runs[0]["parent_run_id"]), (1, &Value::Null));

    let head = room.events().len();
    let refused = exec(room.command(["exec"]).args(["--parent", "nobody"]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr().contains("there is no run nobody; `runledger runs` lists them"), "{refused:?}");
    assert_eq!(room.events().len(), head);
}
