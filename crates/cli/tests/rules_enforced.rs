//! A workflow with permissions begins only where the hook that holds its harness to them is installed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, Running, kinds, run, wait_for_line, wait_for_run, wait_until};

/// A workflow with one rule, and what else its permissions say.
fn workflow(room: &Room, more: &Value) -> String {
    let mut permissions = json!({"rules": [{"tool": "Bash", "action": "ask"}]});
    permissions.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let workflow = json!({"name": "careful", "permissions": permissions});
    room.write("careful.json", workflow.to_string()).display().to_string()
}

/// Clients that say the least; where there is a file `hold` they say their process and wait to be ended, once.
fn clients(room: &Room) {
    let hold = "if [ -e hold ]; then rm hold; echo $$ > held; exec sleep 600; fi";
    let said = [
        ("claude", json!({"type": "result", "subtype": "success", "is_error": false, "session_id": "c1"})),
        ("codex", json!({"type": "turn.completed", "usage": {"input_tokens": 1, "output_tokens": 1}})),
    ];
    for (name, line) in said {
        room.program(name, &format!("{hold}\necho '{line}'"));
    }
}

fn exec(room: &Room, harness: &str, workflow: &str) -> support::Ran {
    run(&mut room.command(["exec", "--harness", harness, "--workflow", workflow, "go on"]))
}

#[test]
fn exec_refuses_rules_that_nothing_would_enforce_and_writes_nothing() {
    for (harness, file, command) in [
        ("claude", "home/.claude/settings.json", "runledger hook install`"),
        ("codex", "home/.codex/hooks.json", "runledger hook install --harness codex`"),
    ] {
        let room = Room::new();
        clients(&room);
        let workflow = workflow(&room, &json!({}));
        let said = exec(&room, harness, &workflow).is_refused_with(3);
        assert!(said.contains(&room.path(file).display().to_string()) && said.contains(command), "{said}");
        assert!(room.has_no_ledger());

        room.ok(["hook", "install", "--harness", harness]);
        let short = std::fs::read_to_string(room.path(file)).unwrap().replace("86400", "10");
        room.write(file, short);
        let said = exec(&room, harness, &workflow).is_refused_with(3);
        assert!(said.contains("after 10 s") && said.contains("up to 310 s") && said.contains(command), "{said}");
        assert!(!room.ledger().exists());

        // What the message says is what helps.
        room.ok(["hook", "install", "--harness", harness]);
        let ran = exec(&room, harness, &workflow);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(room.json(["runs"])[0]["status"], "completed");
    }
}

#[test]
fn without_permissions_and_for_a_program_of_ones_own_no_hook_is_needed() {
    let room = Room::new();
    clients(&room);
    let plain = room.write("plain.json", json!({"name": "plain", "retry": {"max": 1}}).to_string());
    assert_eq!(exec(&room, "claude", plain.to_str().unwrap()).code, Some(0));
    let workflow = workflow(&room, &json!({}));
    let ran = run(&mut room.exec(&["--workflow", &workflow], "true"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn the_projects_own_settings_count_wherever_exec_is_called() {
    let room = Room::new();
    clients(&room);
    let workflow = workflow(&room, &json!({"ask_timeout_ms": null}));
    room.ok(["hook", "install", "--project", "--fail-closed"]);
    let mut command =
        room.command(["exec", "--harness", "claude", "--workflow", &workflow, "--project-dir", "../project"]);
    let ran = run(command.arg("go on").current_dir(room.path("bin")));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    std::fs::create_dir(room.path("other")).unwrap();
    let mut command = room.command(["exec", "--harness", "claude", "--workflow", &workflow, "--project-dir"]);
    let said = run(command.arg(room.path("other")).arg("go on")).is_refused_with(3);
    assert!(said.contains("other/.claude/settings.json"), "{said}");
    assert_eq!(room.json(["runs"]).len(), 1);
}

#[test]
fn resume_refuses_a_run_whose_hook_was_taken_out() {
    let room = Room::new();
    clients(&room);
    room.ok(["hook", "install"]);
    room.write("project/hold", "");
    let workflow = workflow(&room, &json!({}));
    let mut command = room.command(["exec", "--harness", "claude", "--workflow", &workflow, "go on"]);
    let running = Running::start(&mut command);
    wait_for_line(&room.path("project/held"));
    let run_id = wait_for_run(&room).to_string();
    // Once the log knows the client's process, whoever takes the run up ends it.
    let iteration_facts = || kinds(&room).iter().filter(|kind| *kind == "workflow.iteration").count();
    wait_until("the client's process in the log", || iteration_facts() >= 2);
    running.signal(Signal::KILL);
    drop(running.wait());
    room.json(["sweep"]);
    room.ok(["hook", "uninstall"]);

    let before = room.events().len();
    let said = room.run(["resume", &run_id]).is_refused_with(3);
    assert!(said.contains("run `runledger hook install`"), "{said}");
    assert_eq!(room.events().len(), before);

    room.ok(["hook", "install"]);
    let ran = room.run(["resume", &run_id]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    room.verify();
}
