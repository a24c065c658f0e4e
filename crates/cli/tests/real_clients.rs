//! The real clients against a model server on loopback: what `exec`, hooks and the client's own record tell of one run
//! is shown and counted once.
//!
//! The clients are looked for in `RUNLEDGER_CLIENTS` (a folder that npm installed them into), then in `PATH`. Without them
//! a test says that it was skipped; with `RUNLEDGER_REQUIRE_CLIENTS` that is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod stub_model;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stub_model::{Script, StubModel, claude_env, client};
use support::{Room, run, text};

/// A room in which a client runs a workflow with instructions, and our hooks are installed.
struct Scene {
    room: Room,
    model: StubModel,
    harness: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Scene {
    fn new(harness: &'static str, script: Script) -> Self {
        let (room, model) = (Room::new(), StubModel::start(script));
        room.write("project/rules.md", "Be kind to {sessionId}.");
        room.write("w.json", json!({"name": "greet", "workflowFile": "rules.md"}).to_string());
        Self { room, model, harness, env: Vec::new() }
    }

    fn with_env(&self, mut command: Command) -> Command {
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the client through `exec`, which has to complete.
    fn exec(&self) {
        let workflow = self.room.path("w.json");
        let mut command = self.with_env(self.room.command(["exec", "--harness", self.harness, "--session", "s1"]));
        let ran = run(command.arg("--workflow").arg(workflow).arg("Say hello"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let asked = self.model.asked();
        let is_told = |words: &str| asked.iter().any(|body| body.to_string().contains(words));
        assert!(is_told("Be kind to s1.") && is_told("Say hello"), "the model was asked {asked:?}");
    }

    /// What the feed, the sessions and the runs are now.
    fn seen(&self) -> Seen {
        let counters = self.of_kind("run.end").iter().map(|end| end["data"]["counters"].clone()).collect();
        let facts = ["user.prompt", "agent.message", "tool.pre", "tool.post", "tool.failure"];
        let words = |event: Value| {
            let data = &event["data"];
            let result = &data["tool_response"];
            let input = &data["tool_input"]["command"];
            let said = [&data["message"], &data["prompt"], &data["error"], input, result].map(Value::to_string);
            (text(&event, "/kind").to_owned(), said.join(" "))
        };
        Seen {
            facts: facts.iter().flat_map(|kind| self.of_kind(kind)).map(words).collect(),
            counters,
            tokens: self.room.json(["sessions"]).iter().map(|session| session["tokens"].clone()).collect(),
            runs: self.room.json(["runs"]),
        }
    }

    fn of_kind(&self, kind: &str) -> Vec<Value> {
        let feed = self.room.json(["feed", "--session", "s1"]);
        feed.into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// Takes in the record that the client kept of the session.
    fn ingest(&self, format: &str, folder: &str, id: &str) {
        let file = find(&self.room.path("home").join(folder), id).expect("the client's own record");
        let mut command = self.room.command(["--json", "ingest", "--format", format]);
        let report = run(command.arg(file)).json().remove(0);
        assert!(report["appended"].as_u64() > Some(5) && report["rejected"] == json!([]), "{report}");
    }

    /// Runs, takes in the record, and wants each fact once, before and after.
    fn plays(&self, format: &str, folder: &str, expected: &[(&str, &str)]) {
        self.exec();
        let before = self.seen();
        let shown: Vec<&str> = before.facts.iter().map(|(kind, _)| kind.as_str()).collect();
        let wanted: Vec<&str> = expected.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(shown, wanted, "{:#?}", before.facts);
        for ((_, words), (kind, part)) in before.facts.iter().zip(expected) {
            assert!(words.contains(part), "{kind}: {words}");
        }
        let calls = expected.iter().filter(|(kind, _)| *kind == "tool.pre").count();
        assert_eq!(
            before.counters.iter().map(|counters| counters["tool_uses"].as_u64().unwrap()).sum::<u64>(),
            calls as u64
        );

        let adapter_session = text(&before.runs[0], "/adapter_session_ids/0").to_owned();
        self.ingest(format, folder, &adapter_session);
        let after = self.seen();
        assert_eq!(after, before);
        assert_eq!(self.room.json(["sessions"]).len(), 1, "the record belongs to the session of the run");
        let feed = self.room.json(["feed"]);
        for event in &feed {
            assert_eq!(event["workflow"]["run_id"], before.runs[0]["id"], "{event}");
            assert_eq!(event["workflow"]["workflow_name"], "greet", "{event}");
        }
        for source in ["hook:", "stream:", "transcript:"] {
            let calls = self.room.events().into_iter().filter(|event| event["kind"] == "tool.pre");
            assert!(calls.into_iter().any(|event| text(&event, "/id").starts_with(source)), "{source} told no call");
        }
        self.room.verify();
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    /// Kind and words of each prompt, message, call and result.
    facts: Vec<(String, String)>,
    counters: Vec<Value>,
    tokens: Vec<Value>,
    runs: Vec<Value>,
}

/// The file of JSON lines in or below a folder with this in its name.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            let file = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if file.contains(name) && file.ends_with(".jsonl") {
                return Some(path);
            }
        }
    }
    None
}

#[test]
fn a_run_of_the_real_claude_code_is_told_three_times_and_shown_once() {
    let Some(program) = client("claude") else {
        return;
    };
    let call = |command: &str| json!({"type": "tool_use", "name": "Bash", "input": {"command": command}});
    // The second one needs a permission that nobody gives.
    let calls = vec![call("echo hello"), call("touch made.txt")];
    let script = Script { opening: "I look around.", calls, ending: "No file was made." };
    let mut scene = Scene::new("claude", script);
    scene.env = claude_env(&scene.model);
    scene.room.program("claude", &format!("exec '{}' \"$@\"", program.display()));
    scene.room.ok(["hook", "install", "--project"]);
    scene.plays(
        "claude-transcript",
        ".claude/projects",
        &[
            ("user.prompt", "Say hello"),
            ("agent.message", "I look around."),
            ("agent.message", "No file was made."),
            ("tool.pre", "echo hello"),
            ("tool.pre", "touch made.txt"),
            ("tool.post", "hello"),
            ("tool.failure", "needs approval"),
        ],
    );
}

#[test]
fn a_run_of_the_real_codex_is_told_three_times_and_shown_once() {
    let Some(program) = client("codex") else {
        return;
    };
    let patch = "*** Begin Patch\n*** Add File: notes/made.txt\n+hello\n*** End Patch\n";
    let calls = vec![
        json!({"type": "custom_tool_call", "name": "apply_patch", "input": patch}),
        json!({"type": "function_call", "name": "exec_command",
            "arguments": json!({"cmd": "cat notes/made.txt && echo \"it's $RUNLEDGER_SESSION\""}).to_string()}),
    ];
    let script = Script { opening: "I make a file.", calls, ending: "The file says hello." };
    let mut scene = Scene::new("codex", script);
    scene.env = vec![("STUB_API_KEY", "dummy".to_owned())];
    let config = format!(
        "model = \"gpt-5.5\"\nmodel_provider = \"stub\"\nsandbox_mode = \"danger-full-access\"\n\
        [model_providers.stub]\nname = \"Stub\"\nbase_url = \"{}/v1\"\nenv_key = \"STUB_API_KEY\"\n\
        wire_api = \"responses\"\nrequest_max_retries = 1\nstream_max_retries = 1\n",
        scene.model.url()
    );
    scene.room.write("home/.codex/config.toml", config);
    // Nobody can trust the hooks in a terminal here.
    let wrapper = "[ \"$1\" = exec ] && shift\nexec '{}' exec --dangerously-bypass-hook-trust \"$@\"";
    scene.room.program("codex", &wrapper.replace("{}", &program.display().to_string()));
    scene.room.ok(["hook", "install", "--harness", "codex"]);
    scene.plays(
        "codex-rollout",
        ".codex/sessions",
        &[
            ("user.prompt", "Say hello"),
            ("agent.message", "I make a file."),
            ("agent.message", "The file says hello."),
            ("tool.pre", "*** Add File: notes/made.txt"),
            ("tool.pre", "cat notes/made.txt"),
            ("tool.post", "Success"),
            ("tool.post", "it's s1"),
        ],
    );
}
