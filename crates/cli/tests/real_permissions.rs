//! The real clients under rules of a workflow: what they do with our answers, against a model server on loopback.
//!
//! Without the clients a test says that it was skipped, see `real_clients.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod stub_model;
mod support;

use std::process::Command;

use serde_json::{Value, json};
use stub_model::{Script, StubModel, claude_env, client};
use support::{Room, Running, run, text, wait_until};

/// A room in which the real Claude Code runs a workflow with these permissions; the model asks for one command.
struct Scene {
    room: Room,
    model: StubModel,
}

impl Scene {
    fn of_claude(command: &str, workflow: &Value) -> Option<Self> {
        let program = client("claude")?;
        let call = json!({"type": "tool_use", "name": "Bash", "input": {"command": command}});
        let script = Script { opening: "I look around.", calls: vec![call], ending: "That was all." };
        let scene = Self { room: Room::new(), model: StubModel::start(script) };
        scene.room.write("w.json", workflow.to_string());
        scene.room.program("claude", &format!("exec '{}' \"$@\"", program.display()));
        scene.room.ok(["hook", "install", "--project"]);
        Some(scene)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.room.command(arguments);
        command.envs(claude_env(&self.model));
        command
    }

    fn exec(&self) -> Command {
        let workflow = self.room.path("w.json").display().to_string();
        self.command(&["exec", "--workflow", &workflow, "Say hello"])
    }

    fn wait_for_question(&self) -> Value {
        let mut asked = Vec::new();
        wait_until("the question", || {
            let ran = self.room.run(["pending", "--json"]);
            asked = if ran.code == Some(0) { ran.json() } else { Vec::new() };
            !asked.is_empty()
        });
        asked.remove(0)
    }

    /// What the model was told of the call.
    fn told(&self) -> String {
        self.model.asked().last().unwrap().to_string()
    }

    fn made(&self) -> bool {
        self.room.path("project/made.txt").exists()
    }

    fn run(&self) -> Value {
        self.room.json(["runs", "--limit", "1"]).remove(0)
    }
}

fn permissions(more: &Value) -> Value {
    let mut permissions = json!({"rules": [
        {"tool": "Bash(touch made.txt)", "action": "ask", "reason": "files are looked at"},
        {"tool": "Bash(rm:*)", "action": "deny", "reason": "nothing is removed here"},
        {"tool": "Bash(mkdir:*)", "action": "allow"}]});
    permissions.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "greet", "permissions": permissions})
}

#[test]
fn claude_code_waits_in_its_hook_for_what_another_process_decides() {
    for (verdict, is_made) in [(vec!["allow"], true), (vec!["deny", "--reason", "not today"], false)] {
        let Some(scene) = Scene::of_claude("touch made.txt", &permissions(&json!({}))) else {
            return;
        };
        let running = Running::start(&mut scene.exec());
        let asked = scene.wait_for_question();
        assert!(!scene.made());
        let place = asked["position"].to_string();
        let arguments: Vec<&str> =
            verdict[..1].iter().copied().chain([place.as_str()]).chain(verdict[1..].iter().copied()).collect();
        scene.room.ok(arguments);
        let ran = running.wait();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(scene.made(), is_made);
        assert_eq!(scene.told().contains("not today"), !is_made, "{}", scene.told());
        scene.room.verify();
    }
}

#[test]
fn claude_code_obeys_rules_that_allow_and_deny_at_once() {
    for (command, words) in [("rm -f made.txt", "nothing is removed here"), ("mkdir made.txt", "")] {
        let Some(scene) = Scene::of_claude(command, &permissions(&json!({}))) else {
            return;
        };
        let ran = run(&mut scene.exec());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(scene.made(), words.is_empty(), "a folder that it would not make without the rule");
        assert!(scene.told().contains(words), "{}", scene.told());
    }
}

#[test]
fn claude_code_ends_with_a_deferred_call_and_makes_it_when_it_is_taken_up_with_the_answer() {
    for (verdict, is_made) in [(vec!["allow"], true), (vec!["deny", "--reason", "not today"], false)] {
        let more = json!({"on_ask": "defer", "ask_timeout_ms": null});
        let Some(scene) = Scene::of_claude("touch made.txt", &permissions(&more)) else {
            return;
        };
        let ran = run(&mut scene.exec());
        assert_eq!(ran.code, Some(10), "{ran:?}");
        let waiting = scene.run();
        assert_eq!(waiting["status"], "running");
        assert!(waiting["waiting_for"].is_string(), "{waiting}");
        assert!(!scene.made());

        let asked = scene.wait_for_question();
        let place = asked["position"].to_string();
        let arguments: Vec<&str> =
            verdict[..1].iter().copied().chain([place.as_str()]).chain(verdict[1..].iter().copied()).collect();
        scene.room.ok(arguments);
        let ran = run(&mut scene.command(&["resume", "--last"]));

        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(scene.made(), is_made);
        assert_eq!(scene.told().contains("not today"), !is_made, "{}", scene.told());
        let over = scene.run();
        assert_eq!(
            (&over["status"], &over["iteration"], &over["waiting_for"]),
            (&json!("completed"), &json!(1), &Value::Null)
        );
        assert_eq!(over["adapter_session_ids"].as_array().unwrap().len(), 1, "one harness session, taken up");
        assert_eq!(over["tokens"]["input"], 22, "each turn once: {}", over["tokens"]);
        assert_eq!(
            text(&scene.room.json(["pending", "--all"])[0], "/status"),
            if is_made { "allowed" } else { "denied" }
        );
        scene.room.verify();
    }
}
