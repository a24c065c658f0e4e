//! `exec`: how a run ends and with which exit status, what its agent gets, and what is told of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::process::{Command, Stdio};

use runledger_events::{
    EventId, KindFacts, Owner, Position, RunId, RunState, RunStatus, StreamName, StreamVersion, TimestampMs,
    WorkflowTransition, event_json,
};
use runledger_store::{EventLog, LogReader, Read};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    Ran, Room, Running, append, is_running, run, stream_version, text, wait_for_line, wait_for_run, wait_until,
};

/// Writes its own and its child's process id to `pids`, and then works for long.
const LONG_WORK: &str = "sleep 600 & echo $$ $! > pids; wait";

/// What `exec --json` said, each line checked for its shape, as (type, data).
fn told(ran: &Ran) -> Vec<(String, Value)> {
    let lines = ran.json();
    for line in &lines {
        let names: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(names, ["data", "ts", "type"], "{line}");
        assert!(line["ts"].as_i64().is_some_and(|ts| ts > 1_600_000_000_000), "{line}");
    }
    lines.iter().map(|line| (text(line, "/type").to_owned(), line["data"].clone())).collect()
}

/// The last line's run object.
fn completed(ran: &Ran) -> Value {
    let (kind, run) = told(ran).pop().expect("a last line");
    assert_eq!(kind, "exec.completed", "{ran:?}");
    run
}

/// The messages of a log, in order.
fn messages(room: &Room) -> Vec<String> {
    let events = room.events().into_iter().filter(|event| event["kind"] == "message.complete");
    events.map(|event| text(&event, "/event/data/message").to_owned()).collect()
}

/// Runs `exec` with a long-working agent, does something once it works, and waits for the end.
fn interrupted_by(room: &Room, command: &mut Command, act: impl FnOnce(&mut Running)) -> Ran {
    let mut running = Running::start(command);
    let pids = wait_for_line(&room.path("project/pids"));
    act(&mut running);
    let ran = running.wait();
    wait_until("the end of the harness's processes", || !pids.split(' ').any(is_running));
    ran
}

fn is_ignored_here(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let room = Room::new();
    let exec = room.exec_json(&[], "echo $$ > pids; while [ ! -e go ]; do sleep 0.02; done; echo went on");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(exec.get_program()).args(exec.get_args());
    for (name, value) in exec.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(exec.get_current_dir().unwrap_or(&room.project()));
    let running = Running::start(&mut command);
    wait_for_line(&room.path("project/pids"));
    running.signal(Signal::HUP);
    std::fs::write(room.path("project/go"), "").unwrap();
    let ran = running.wait();
    assert_eq!(completed(&ran)["status"], "completed", "{ran:?}");
}

#[test]
fn what_the_harness_said_before_its_time_was_up_is_kept() {
    let room = Room::new();
    let ran = run(&mut room.exec_json(&["--timeout-ms", "400"], "echo important; sleep 600"));
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert_eq!(messages(&room), ["important"]);
}

#[test]
fn a_child_that_writes_for_ever_does_not_hold_the_turn() {
    let room = Room::new();
    let ran = run(&mut room.exec_json(&[], "(while :; do echo more; done) & echo $! > pid; echo done; exit 0"));
    assert_eq!(completed(&ran)["status"], "completed", "{ran:?}");
    // The child closed nothing and lost its reader; the test ends it where it lives on.
    let pid = std::fs::read_to_string(room.path("project/pid")).unwrap();
    let _ = Command::new("kill").args(["-9", pid.trim()]).status();
}

#[test]
fn an_agent_within_a_script_is_given_its_moment_too() {
    let room = Room::new();
    let agent = room.program(
        "agent",
        "trap 'sleep 0.3; echo cleaned > cleaned; exit 0' TERM; echo $$ > pids; while :; do sleep 0.02; done",
    );
    let script = format!("'{}'; echo behind it", agent.display());
    let ran = interrupted_by(&room, &mut room.exec_json(&[], &script), |running| running.signal(Signal::INT));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(std::fs::read_to_string(room.path("project/cleaned")).unwrap(), "cleaned\n");
}

#[test]
fn a_tracker_that_became_a_pipe_or_a_link_out_of_the_project_fails_the_run() {
    for replace in ["mkfifo \"$RUNLEDGER_TRACKER\"", "ln -s /etc/hostname \"$RUNLEDGER_TRACKER\""] {
        let room = Room::new();
        let workflow = room.workflow(3);
        let script = format!("rm \"$RUNLEDGER_TRACKER\"; {replace}");
        let ran = run(&mut room.exec_json(&["--workflow", &workflow], &script));
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(text(&completed(&ran), "/stop_reason").contains("tracker"), "{ran:?}");
    }
}

#[test]
fn a_prompt_may_begin_with_a_hyphen() {
    let room = Room::new();
    let mut command = room.command(["exec", "--json", "--project-dir"]);
    command.arg(room.project()).args(["- tidy up", "--", "cat"]);
    assert_eq!(run(&mut command).code, Some(0));
    assert_eq!(messages(&room), ["- tidy up"]);
}

fn request_cancel(room: &Room, run_id: &RunId) {
    let stream = StreamName::run(run_id);
    let log = room.log();
    let start = log.reader().unwrap().read_stream(&stream, StreamVersion::EMPTY, Read::Facts).unwrap().remove(0).id;
    let decision = json!({"eventId": start, "decision":
        {"type": "json", "source": "user", "intent": {"kind": "workflow_cancel"}}});
    let event = json!({"kind": "decision", "data": decision});
    append(&log, stream.as_str(), &event.to_string());
}

#[test]
fn one_turn_that_succeeds_completes_the_run() {
    let room = Room::new();
    let ran = run(&mut room.exec(&[], "echo done"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let id = text(&room.json(["runs"])[0], "/id").to_owned();
    assert_eq!(ran.stdout(), format!("{id} completed\n"), "the run's id and final status, and nothing else");
    let shown = &room.json(["show", id.as_str()])[0];
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["state"], "done");
    assert_eq!(shown["stop_reason"], Value::Null);
    assert_eq!(shown["iterations"][0]["outcome"], "completed");
    assert_eq!(shown["iterations"][0]["exit_code"], 0);
    room.verify();
}

#[test]
fn a_turn_that_fails_fails_the_run_and_its_last_words_say_why() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "echo first >&2; echo 'the disk is on fire' >&2; exit 3");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(run["status"], "failed");
    assert_eq!(run["stop_reason"], "Process exited with code 3: the disk is on fire");
    let shown = &room.json(["show", text(&run, "/id")])[0];
    assert_eq!(shown["iterations"][0]["exit_code"], 3);
    assert_eq!(shown["iterations"][0]["outcome"], "failed");
}

#[test]
fn a_turn_that_fails_says_why_even_if_a_child_of_it_holds_its_standard_error() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "sleep 600 & echo $! > pid; echo 'the disk is on fire' >&2; exit 3");
    let kill = Command::new("kill").arg(wait_for_line(&room.path("project/pid"))).status().unwrap();
    assert!(kill.success());
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(run["stop_reason"], "Process exited with code 3: the disk is on fire");
}

#[test]
fn an_agent_that_a_signal_ended_fails_the_run() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "kill -9 $$");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(text(&run, "/stop_reason").contains("signal 9"), "{run}");
}

#[test]
fn a_loop_goes_on_until_the_tracker_says_complete() {
    let room = Room::new();
    let script = r#"cat; echo; echo "turn $RUNLEDGER_ITERATION" > "$RUNLEDGER_TRACKER"
        [ "$RUNLEDGER_ITERATION" -lt 3 ] || echo '<!-- WORKFLOW_COMPLETE -->' >> "$RUNLEDGER_TRACKER""#;
    let workflow = room.workflow(10);
    let (ran, run) = room.exec_to_end(&["--workflow", &workflow], script);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!((&run["iteration"], &run["status"]), (&json!(3), &json!("completed")));
    assert_eq!(run["tracker_path"], "tracker.md");
    assert_eq!(run["workflow_name"], "tidy");
    let prompts = messages(&room);
    assert_eq!(prompts[0], "Do: the prompt");
    assert!(prompts[1].contains("tracker.md"), "{prompts:?}");
    let kinds: Vec<String> = told(&ran).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "iteration.complete").count(), 3);
}

#[test]
fn a_tracker_that_says_blocked_blocks_the_run_with_its_reason() {
    let room = Room::new();
    let script = r#"echo '<!-- WORKFLOW_BLOCKED: no key for the door -->' > "$RUNLEDGER_TRACKER""#;
    let (ran, run) = room.exec_to_end(&["--workflow", &room.workflow(10)], script);
    assert_eq!(ran.code, Some(8), "{ran:?}");
    assert_eq!((&run["status"], &run["stop_reason"]), (&json!("blocked"), &json!("no key for the door")));
}

#[test]
fn the_iteration_limit_exhausts_the_run() {
    let room = Room::new();
    let script = r#"echo "still at it" > "$RUNLEDGER_TRACKER""#;
    let (ran, run) = room.exec_to_end(&["--workflow", &room.workflow(2)], script);
    assert_eq!(ran.code, Some(9), "{ran:?}");
    assert_eq!((&run["status"], &run["iteration"]), (&json!("exhausted"), &json!(2)));
}

#[test]
fn a_tracker_that_is_gone_or_untouched_fails_the_run() {
    for script in ["rm \"$RUNLEDGER_TRACKER\"", "true"] {
        let room = Room::new();
        let (ran, run) = room.exec_to_end(&["--workflow", &room.workflow(2)], script);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert_eq!(run["status"], "failed", "{run}");
    }
}

#[test]
fn a_run_whose_time_is_up_fails_with_the_reason_timeout_and_its_harness_is_ended() {
    let room = Room::new();
    let ran = interrupted_by(&room, &mut room.exec_json(&["--timeout-ms", "1500"], LONG_WORK), |_| {});
    assert_eq!(ran.code, Some(6), "{ran:?}");
    let run = completed(&ran);
    assert_eq!((&run["status"], &run["stop_reason"]), (&json!("failed"), &json!("timeout")));
    let shown = &room.json(["show", text(&run, "/id")])[0];
    assert_eq!(shown["iterations"][0]["outcome"], "timed_out");
    room.verify();
}

#[test]
fn an_interrupt_cancels_the_run_and_ends_the_harness_with_its_children() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Whoever runs the tests may ignore it, and then so does the program.
        if signal == Signal::HUP && is_ignored_here(signal) {
            continue;
        }
        let room = Room::new();
        let ran = interrupted_by(&room, &mut room.exec_json(&[], LONG_WORK), |running| running.signal(signal));
        assert_eq!(ran.code, Some(130), "{ran:?}");
        let run = completed(&ran);
        assert_eq!((&run["status"], &run["state"]), (&json!("cancelled"), &json!("done")));
        let shown = &room.json(["show", text(&run, "/id")])[0];
        assert_eq!(shown["iterations"][0]["outcome"], "cancelled");
        room.verify();
    }
}

#[test]
fn a_harness_that_wants_to_clean_up_is_given_a_moment() {
    let room = Room::new();
    let script = format!("trap 'echo cleaned > cleaned; exit 0' TERM; {LONG_WORK}");
    let ran = interrupted_by(&room, &mut room.exec_json(&[], &script), |running| running.signal(Signal::INT));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(completed(&ran)["status"], "cancelled", "though the harness exited with 0");
    assert_eq!(std::fs::read_to_string(room.path("project/cleaned")).unwrap(), "cleaned\n");
}

#[test]
fn a_second_interrupt_ends_a_harness_that_does_not_listen() {
    let room = Room::new();
    let script = "trap '' TERM; sleep 600 & echo $$ $! > pids; while :; do sleep 1; done";
    let ran = interrupted_by(&room, &mut room.exec_json(&[], script), |running| {
        running.signal(Signal::INT);
        // The two are told apart by the program's own word on the first.
        std::thread::sleep(std::time::Duration::from_millis(200));
        running.signal(Signal::INT);
    });
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(completed(&ran)["status"], "cancelled");
}

#[test]
fn a_second_interrupt_ends_the_harness_in_the_middle_of_its_cleaning_up() {
    let room = Room::new();
    let script = format!("trap 'echo told > told; sleep 1.8; echo cleaned > cleaned; exit 0' TERM; {LONG_WORK}");
    let ran = interrupted_by(&room, &mut room.exec_json(&[], &script), |running| {
        running.signal(Signal::INT);
        wait_for_line(&room.path("project/told"));
        running.signal(Signal::INT);
    });
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(!room.path("project/cleaned").exists(), "`once more to end the harness at once`");
}

#[test]
fn a_request_to_cancel_in_the_runs_stream_cancels_it() {
    let room = Room::new();
    let ran = interrupted_by(&room, &mut room.exec_json(&[], LONG_WORK), |_| {
        request_cancel(&room, &wait_for_run(&room));
    });
    assert_eq!(ran.code, Some(130), "{ran:?}");
    let run = completed(&ran);
    assert_eq!((&run["status"], &run["state"]), (&json!("cancelled"), &json!("done")));
    assert!(told(&ran).iter().any(|(kind, data)| kind == "runtime.decision" && data["kind"] == "decision"), "{ran:?}");
    let head = text(&run, "/id").to_owned();
    let at = run["last_position"].to_string();
    let then = room.json(["show", &head, "--at", &at]);
    assert_eq!(then[0]["last_position"], room.json(["show", &head])[0]["last_position"]);
    room.verify();
}

#[test]
fn a_newer_owner_fences_the_runner_off() {
    let room = Room::new();
    let mut at_takeover = StreamVersion::EMPTY;
    let mut run_id = None;
    let ran = interrupted_by(&room, &mut room.exec_json(&[], LONG_WORK), |_| {
        let id = wait_for_run(&room);
        let stream = StreamName::run(&id);
        let log = room.log();
        let facts = KindFacts::WorkflowTransition(WorkflowTransition {
            from: RunState::Running,
            to: RunState::Running,
            status: RunStatus::Running,
            reason: None,
            owner: Some(Owner {
                term: 2,
                log_id: log.log_id().clone(),
                host: "elsewhere".to_owned(),
                boot_id: None,
                pid: 1,
                pid_started_at: None,
            }),
        });
        let event_id = EventId::new("takeover").unwrap();
        let event = event_json(&event_id, TimestampMs(1_700_000_000_000), &facts, &json!({})).unwrap();
        append(&log, stream.as_str(), &event);
        at_takeover = stream_version(&room, &stream);
        run_id = Some(id);
    });
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let (kind, _) = told(&ran).pop().unwrap();
    assert_eq!(kind, "exec.error");
    let run_id = run_id.unwrap();
    let stream = StreamName::run(&run_id);
    assert_eq!(stream_version(&room, &stream), at_takeover, "nothing was written to the run since");
    let run = &room.json(["show", run_id.as_str()])[0];
    assert_eq!((&run["status"], &run["owner"]["term"]), (&json!("running"), &json!(2)));
    assert_eq!(run["owner_alive"], Value::Null, "of another host nothing is known");
    room.verify();
}

#[test]
fn a_run_that_was_ended_by_another_process_ends_here_too() {
    let room = Room::new();
    let ran = interrupted_by(&room, &mut room.exec_json(&[], LONG_WORK), |_| {
        let id = wait_for_run(&room);
        let log = room.log();
        let stream = StreamName::run(&id);
        let transition = r#"{"kind":"workflow.transition","timestamp":1,"data":{"from":"running","to":"completing","status":"running"}}"#;
        let iteration =
            r#"{"kind":"workflow.iteration","timestamp":1,"data":{"phase":"end","iteration":1,"outcome":"cancelled"}}"#;
        let end = r#"{"kind":"workflow.end","timestamp":1,"data":{"status":"cancelled","iteration":1}}"#;
        for event in [iteration, transition, end] {
            append(&log, stream.as_str(), event);
        }
    });
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert_eq!(completed(&ran)["status"], "cancelled");
    room.verify();
}

#[test]
fn the_agent_gets_prompt_folder_and_environment() {
    let room = Room::new();
    let script =
        r#"cat > stdin; pwd -P > cwd; env > environment; echo '<!-- WORKFLOW_COMPLETE -->' > "$RUNLEDGER_TRACKER""#;
    let json = json!({"name": "n", "env": {"GREETING": "hello there"}, "loop": {}});
    let workflow = room.write("n.json", json.to_string()).display().to_string();
    let ledger = "deep/relative.db";
    let mut command = room.bare_command();
    command.current_dir(room.path("")).env("RUNLEDGER_DB", ledger);
    command.args(["exec", "--session", "s1", "--project-dir", "project", "--workflow", &workflow]);
    let ran = run(command.args(["Tidy\nthe ü", "--", "sh", "-c", script]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let read = |name: &str| std::fs::read_to_string(room.path("project").join(name)).unwrap();
    assert_eq!(read("stdin"), "Tidy\nthe ü");
    let project = room.project().canonicalize().unwrap();
    assert_eq!(read("cwd").trim(), project.display().to_string());
    let environment = read("environment");
    let variable = |name: &str| {
        let line = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {environment}")).to_owned()
    };
    assert_eq!(variable("GREETING"), "hello there");
    assert_eq!(variable("RUNLEDGER_SESSION"), "s1");
    assert_eq!(variable("RUNLEDGER_TRACKER"), project.join(".runledger/s1/tracker.md").display().to_string());
    let db = variable("RUNLEDGER_DB");
    assert_eq!(db, room.path("").join(ledger).display().to_string(), "absolute");
    let reader = LogReader::open(&db).unwrap();
    let stream = StreamName::run(&RunId::new(variable("RUNLEDGER_RUN_ID")).unwrap());
    assert!(reader.stream_version(&stream).unwrap() > StreamVersion::EMPTY);
}

#[test]
fn a_ledger_and_its_folder_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let room = Room::new();
    let ran = run(room.bare_command().args(["exec", "p", "--", "true"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let folder = room.path("home/.local/state/runledger");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.contains(&folder.join("ledger.db")), "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn an_agent_that_runs_runledger_itself_writes_to_the_same_ledger_as_a_sub_run_with_a_session_of_its_own() {
    let room = Room::new();
    let inner = format!("{} exec inner -- true", env!("CARGO_BIN_EXE_runledger"));
    let (ran, _) = room.exec_to_end(&["--session", "outer"], &inner);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // The sub-run is the newer one.
    let runs = room.json(["runs"]);
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|run| run["status"] == "completed"), "{runs:?}");
    assert_eq!((&runs[1]["session_id"], &runs[1]["parent_run_id"]), (&json!("outer"), &Value::Null));
    assert_eq!(runs[0]["parent_run_id"], runs[1]["id"]);
    let own = text(&runs[0], "/session_id");
    assert_ne!(own, "outer");
    let sessions = room.json(["sessions"]);
    assert_eq!(sessions.len(), 2);
    for (id, runs) in [("outer", 1), (own, 1)] {
        assert!(sessions.iter().any(|session| session["id"] == id && session["runs"] == runs), "{id}: {sessions:?}");
    }
}

#[test]
fn a_sub_run_that_names_its_session_is_of_that_one() {
    let room = Room::new();
    let inner = format!(r#"{} exec --session "$RUNLEDGER_SESSION" inner -- true"#, env!("CARGO_BIN_EXE_runledger"));
    let (ran, _) = room.exec_to_end(&["--session", "outer"], &inner);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let runs = room.json(["runs"]);
    assert!(runs.iter().all(|run| run["session_id"] == "outer" && run["status"] == "completed"), "{runs:?}");
    assert_eq!(runs[0]["parent_run_id"], runs[1]["id"]);
    let sessions = room.json(["sessions"]);
    assert_eq!((sessions.len(), &sessions[0]["runs"]), (1, &json!(2)));
}

#[test]
fn a_run_within_a_run_does_not_take_the_outer_ones_tracker_for_its_own() {
    let room = Room::new();
    room.write("project/rules.md", "rules");
    let json = json!({"name": "outer", "workflowFile": "rules.md", "loop": {"maxIterations": 1}});
    let workflow = room.write("outer.json", json.to_string()).display().to_string();
    let inner = format!(
        r#"echo on > "$RUNLEDGER_TRACKER"; echo "$RUNLEDGER_INSTRUCTIONS" > outer
        {} exec inner -- sh -c 'echo "${{RUNLEDGER_TRACKER-none}} ${{RUNLEDGER_INSTRUCTIONS-none}}" > inner'"#,
        env!("CARGO_BIN_EXE_runledger")
    );
    let (ran, _) = room.exec_to_end(&["--workflow", &workflow], &inner);
    assert_eq!(ran.code, Some(9), "{ran:?}");
    assert!(wait_for_line(&room.path("project/outer")).ends_with(".composed-system-prompt.md"));
    assert_eq!(wait_for_line(&room.path("project/inner")), "none none");
}

#[test]
fn a_session_is_named_by_the_option_or_else_the_variable_or_else_made() {
    let room = Room::new();
    let exec = |options: &[&str], variable: Option<&str>| {
        let mut command = room.exec(options, "true");
        if let Some(variable) = variable {
            command.env("RUNLEDGER_SESSION", variable);
        }
        assert_eq!(run(&mut command).code, Some(0));
        text(&room.json(["runs", "--limit", "1"])[0], "/session_id").to_owned()
    };
    assert_eq!(exec(&["--session", "by-option"], Some("by-variable")), "by-option");
    assert_eq!(exec(&[], Some("by-variable")), "by-variable");
    let (made, other) = (exec(&[], Some("")), exec(&[], None));
    assert_ne!(made, other);
    assert_eq!(uuid_version(&made), Some('7'), "{made}");
}

fn uuid_version(text: &str) -> Option<char> {
    (text.len() == 36).then(|| text.chars().nth(14)).flatten()
}

#[test]
fn a_huge_prompt_that_nobody_reads_does_not_hold_the_turn() {
    let room = Room::new();
    let prompt = "p".repeat(100_000);
    // One argument holds 128 KiB; the workflow makes more of it.
    let json = json!({"name": "n", "promptTemplate": "{input}".repeat(40)});
    let workflow = room.write("n.json", json.to_string());
    let mut command = room.command(["--json", "exec", "--workflow"]);
    let ran = run(command.arg(workflow).args([&prompt, "--", "sh", "-c", "echo did not read"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(messages(&room), ["did not read"]);
}

#[test]
fn a_huge_prompt_arrives_whole() {
    let room = Room::new();
    let json = json!({"name": "n", "promptTemplate": "{input}".repeat(40)});
    let workflow = room.write("n.json", json.to_string());
    let mut command = room.command(["exec", "--workflow"]);
    let ran = run(command.arg(workflow).args(["p".repeat(100_000).as_str(), "--", "sh", "-c", "wc -c"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(messages(&room)[0].trim(), "4000000");
}

#[test]
fn an_agent_that_closes_its_output_early_still_ends_its_turn() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "echo said; exec >&- 2>&-; sleep 1; echo later > later; exit 7");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(run["stop_reason"], "Process exited with code 7");
    assert_eq!(std::fs::read_to_string(room.path("project/later")).unwrap(), "later\n");
    assert_eq!(messages(&room), ["said"]);
}

#[test]
fn a_child_left_behind_that_holds_the_output_open_does_not_hold_the_turn() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "sleep 600 & echo $! > pid; echo done");
    // The turn is over while the child lives.
    let pid = wait_for_line(&room.path("project/pid"));
    assert!(is_running(&pid));
    let kill = Command::new("kill").arg(&pid).status().unwrap();
    assert!(kill.success());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(run["status"], "completed");
    assert_eq!(messages(&room), ["done"]);
}

#[test]
fn a_child_left_behind_that_talks_without_end_does_not_hold_the_turn() {
    let room = Room::new();
    let script = "(timeout 100 yes | while read -r line; do echo $line; done) & echo $$ $! > pids; echo done";
    let ran = interrupted_by(&room, &mut room.exec_json(&["--timeout-ms", "60000"], script), |_| {});
    assert_eq!(ran.code, Some(0), "{:?}", ran.code);
}

#[test]
fn nothing_of_a_huge_output_is_lost() {
    let room = Room::new();
    let (ran, run) = room.exec_to_end(&[], "seq 1 400000");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(run["status"], "completed");
    let mut told = std::collections::BTreeSet::new();
    for event in room.events() {
        for field in ["/event/data/delta", "/event/data/message"] {
            if let Some(part) = event.pointer(field).and_then(Value::as_str) {
                // A number may be cut where a message begins; it then stands whole in a delta.
                told.extend(part.lines().filter_map(|line| line.parse::<u32>().ok()));
            }
        }
    }
    let missing = (1..=400_000).filter(|number| !told.contains(number)).count();
    assert_eq!(missing, 0, "of 400000 lines {missing} are neither in a delta nor in the message");
}

#[test]
fn a_huge_line_of_anything_becomes_events_that_the_log_can_take() {
    let room = Room::new();
    // As JSON, each of these bytes is six. In one piece, 45 MB of them would be more than one event may have.
    let ran = run(&mut room.exec(&[], "head -c 6000000 /dev/zero; sleep 1.5; echo; echo end"));
    assert_eq!(ran.code, Some(0), "{:?} {}", ran.code, ran.stderr());
    assert_eq!(room.json(["runs"])[0]["status"], "completed");
    let events = room.ok(["events", "--json"]);
    let longest = events.lines().map(str::len).max().unwrap();
    assert!(longest < 4 << 20, "{longest} bytes in one event");
    assert!(events.matches("\\u0000").count() >= 6_000_000);
}

#[test]
fn output_that_is_no_utf_8_is_kept_as_far_as_it_can_be_read() {
    let room = Room::new();
    let (ran, _) = room.exec_to_end(&[], r"printf 'caf\351 \377\376 na\303\257ve \033[31mred\033[0m\n'");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(messages(&room), ["caf\u{fffd} \u{fffd}\u{fffd} naïve \u{1b}[31mred\u{1b}[0m"]);
    let ran = run(&mut room.exec(&[], r"printf '\033[2Jgone'; printf '\033[2Jgone' >&2; exit 1"));
    assert!(!ran.stderr().contains('\u{1b}') && !ran.stdout().contains('\u{1b}'), "{ran:?}");
}

#[test]
fn json_lines_tell_of_the_run_from_its_start_to_its_end() {
    let room = Room::new();
    let script = r#"echo said; echo '<!-- WORKFLOW_COMPLETE -->' > "$RUNLEDGER_TRACKER""#;
    let (ran, _) = room.exec_to_end(&["--session", "s1", "--workflow", &room.workflow(3)], script);
    let lines = told(&ran);
    let (first, started) = &lines[0];
    assert_eq!(first, "exec.started");
    assert_eq!(started["session_id"], "s1");
    let run = completed(&ran);
    assert_eq!(started["run_id"], run["id"]);
    let fields = [
        "id",
        "session_id",
        "workflow_name",
        "status",
        "state",
        "iteration",
        "max_iterations",
        "started_at",
        "ended_at",
        "stop_reason",
        "tracker_path",
        "tokens",
        "adapter_session_ids",
        "parent_run_id",
        "forked_at",
        "attempt",
        "last_position",
    ];
    let run = run.as_object().unwrap();
    assert!(fields.iter().all(|field| run.contains_key(*field)), "{run:?}");
    let figures = ["input", "output", "cache_read", "cache_write", "total", "context_size", "context_window_size"];
    let tokens = run["tokens"].as_object().unwrap();
    assert!(figures.iter().all(|figure| tokens.contains_key(*figure)), "{tokens:?}");

    let kinds: Vec<&str> = lines.iter().map(|(kind, _)| kind.as_str()).collect();
    let known = ["exec.started", "runtime.event", "iteration.complete", "exec.completed"];
    assert!(kinds.iter().all(|kind| known.contains(kind)), "{kinds:?}");
    let events = lines.iter().filter(|(kind, _)| kind == "runtime.event").map(|(_, data)| data);
    let positions: Vec<u64> = events.clone().map(|event| event["position"].as_u64().unwrap()).collect();
    let all: Vec<Value> = room.events();
    assert_eq!(positions.len(), all.len(), "every event of the log is told, once and in order");
    assert!(events.eq(all.iter()), "and as `events --json` has it");
    assert_eq!(text(&all[0], "/kind"), "workflow.start");
    assert_eq!(text(all.last().unwrap(), "/kind"), "workflow.end");
    assert_eq!(run["last_position"], all.last().unwrap()["position"]);
}

#[test]
fn a_person_reads_the_progress_on_standard_error_and_the_result_on_standard_output() {
    let room = Room::new();
    let ran = run(&mut room.exec(&["--session", "s1"], "echo said"));
    let id = text(&room.json(["runs"])[0], "/id").to_owned();
    assert_eq!(ran.stdout(), format!("{id} completed\n"));
    let stderr = ran.stderr();
    assert!(stderr.contains(&id) && stderr.contains("said"), "{ran:?}");
    assert!(!stderr.contains('\u{1b}'), "no colours where no terminal is: {ran:?}");
}

#[test]
fn a_run_whose_output_cannot_be_written_completes_all_the_same() {
    for json in [false, true] {
        let room = Room::new();
        let mut command = if json { room.exec_json(&[], "echo said") } else { room.exec(&[], "echo said") };
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ran = Running::start_without_stdout(&mut command).wait();
        assert_eq!(ran.code, Some(7), "{ran:?}");
        assert!(ran.stderr().contains("error: "), "{ran:?}");
        let run = &room.json(["runs"])[0];
        assert_eq!(run["status"], "completed", "json: {json}");
        room.verify();
    }
}

#[test]
fn a_run_whose_reader_has_gone_completes_all_the_same() {
    let room = Room::new();
    let mut command = room.exec_json(&[], "for i in 1 2 3; do echo $i; done");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = Running::start_without_stdout(command.stdout(writer)).wait();
    drop(command);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert_eq!(room.json(["runs"])[0]["status"], "completed");
}

#[test]
fn a_run_whose_progress_nobody_can_hear_completes_all_the_same() {
    let room = Room::new();
    let mut command = room.exec(&[], "echo said");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = command.stdout(Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(room.json(["runs"])[0]["status"], "completed");
}

#[test]
fn a_program_is_found_by_name_by_path_and_in_the_project() {
    let room = Room::new();
    room.program("agent", "echo by name");
    let inside = room.program("inside", "echo inside");
    std::fs::rename(&inside, room.path("project/inside")).unwrap();
    let absolute = room.path("project/inside").display().to_string();
    for (folder, program) in [("project", "agent"), ("project", "./inside"), ("", "./inside"), ("", &absolute)] {
        let mut command = room.command(["exec", "--project-dir"]);
        command.arg(room.project()).args(["p", "--", program]).current_dir(room.path(folder));
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{program} from {folder}: {ran:?}");
    }
}

#[test]
fn a_program_that_is_gone_at_a_later_turn_fails_the_run() {
    let room = Room::new();
    let agent = room.program("agent", r#"echo on > "$RUNLEDGER_TRACKER"; rm "$0""#);
    let mut command = room.command(["--json", "exec", "--workflow", &room.workflow(5), "p", "--"]);
    let ran = run(command.arg(agent));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let run = completed(&ran);
    assert_eq!((&run["status"], &run["iteration"]), (&json!("failed"), &json!(2)));
}

#[test]
fn two_runs_at_once_share_one_ledger() {
    let room = Room::new();
    let script = r#"echo "turn" > "$RUNLEDGER_TRACKER""#;
    let json = json!({"name": "own", "loop": {"maxIterations": 4}});
    let workflow = room.write("own.json", json.to_string()).display().to_string();
    let start = || Running::start(&mut room.exec_json(&["--workflow", &workflow], script));
    let all: Vec<Running> = (0..3).map(|_| start()).collect();
    for running in all {
        let ran = running.wait();
        assert_eq!(ran.code, Some(9), "{ran:?}");
        assert_eq!(completed(&ran)["iteration"], 4);
    }
    let positions: Vec<Value> = room.events().iter().map(|event| event["position"].clone()).collect();
    assert_eq!(positions, (1..=positions.len()).map(|n| json!(n)).collect::<Vec<_>>());
    assert_ne!(room.reader().head().unwrap().position, Position::START);
    room.verify();
}
