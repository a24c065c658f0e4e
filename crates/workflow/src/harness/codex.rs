//! The `codex` harness: Codex without a terminal, its lines of JSON turned into events as they come.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use runledger_adapters::CodexJson;
use runledger_events::{AdapterSessionId, Continuation, Tokens};
use uuid::Uuid;

use super::{Harness, Turn, TurnDesk, TurnResult, lines, process};
use crate::error::HarnessError;

/// Bytes of instructions that go into an argument. Linux takes no argument of 128 KiB or more.
const ARGUMENT_BYTES_MAX: usize = 100 << 10;

/// Codex, run as `codex exec --json`, with the prompt on standard input.
///
/// Sandbox, approvals and the trust in hooks are what the user's own configuration says. The project need not be a git
/// repository.
///
/// Instructions are Codex's `developer_instructions`, a message of their own at the head of a new thread; those of the
/// user's configuration, if there are any, give way, while its AGENTS.md stays in force. A thread that is taken up keeps
/// what it began with and takes no others, so there they stand before the prompt, and so do those that are too long for
/// an argument.
#[derive(Debug, Clone)]
pub struct CodexHarness {
    program: PathBuf,
    /// What each thread that this harness saw had cost in all.
    costs: HashMap<AdapterSessionId, Tokens>,
}

impl CodexHarness {
    /// Looks `codex` up in `PATH`.
    ///
    /// # Errors
    /// [`HarnessError::NotFound`].
    pub fn new(project_dir: &Path) -> Result<Self, HarnessError> {
        Ok(Self { program: process::find_program("codex", "codex", project_dir)?, costs: HashMap::new() })
    }
}

impl Harness for CodexHarness {
    fn name(&self) -> &str {
        "codex"
    }

    fn resumes_sessions(&self) -> bool {
        true
    }

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        // Two processes of one thread may write the same lines, and each tells facts of its own.
        let mut output = CodexJson::of_process(&Uuid::now_v7().to_string());
        let program = self.program.display().to_string();
        let (command, turn) = self.command(turn);
        let session_of = CodexJson::adapter_session_id;
        let ended = lines::run(command, &program, &turn, desk, &mut output, session_of)?;
        let outcome = output.outcome();
        let failed = outcome.filter(|outcome| outcome.is_error).map(|outcome| {
            let error = outcome.error.as_deref().filter(|error| !error.is_empty());
            error.unwrap_or("the turn failed").to_owned()
        });
        let error = failed.or_else(|| lines::failure("codex", &ended, outcome.is_some(), "the end of its turn"));
        Ok(TurnResult {
            exit_code: ended.exit_code,
            error,
            last_stderr: ended.last_stderr,
            tokens: self.cost(&turn, &output),
            transport: None,
            deferred_tool_use_id: None,
        })
    }
}

impl CodexHarness {
    /// The command of a turn, and the turn with the prompt that the command is to get.
    fn command<'a>(&self, turn: &'a Turn) -> (Command, Cow<'a, Turn>) {
        let mut command = Command::new(&self.program);
        command.arg("exec");
        if turn.continuation != Continuation::Fresh {
            command.arg("resume");
        }
        command.args(["--json", "--skip-git-repo-check"]);
        if let Some(model) = &turn.model {
            command.args(["-m", model]);
        }
        let mut turn = Cow::Borrowed(turn);
        if let Some(instructions) = turn.instructions.as_ref().map(|instructions| instructions.text.clone()) {
            let setting = format!("developer_instructions={}", toml_text(&instructions));
            if turn.continuation == Continuation::Fresh && setting.len() <= ARGUMENT_BYTES_MAX {
                command.args(["-c", &setting]);
            } else {
                turn.to_mut().prompt = format!("{instructions}\n\n{}", turn.prompt);
            }
        }
        match &turn.continuation {
            Continuation::Fresh => {}
            Continuation::Resume { handle } => {
                command.arg(handle);
            }
            Continuation::ReuseCurrent => {
                command.arg("--last");
            }
        }
        command.arg("-");
        (command, turn)
    }

    /// What the turn cost. Codex tells what the thread has cost in all; of a thread that was taken up and that this
    /// harness does not know, that says nothing of the turn.
    fn cost(&mut self, turn: &Turn, output: &CodexJson) -> Tokens {
        let in_all = output.tokens();
        let Some(thread) = output.adapter_session_id().filter(|_| in_all.has_sums()) else {
            return Tokens::default();
        };
        let before = self.costs.insert(thread.clone(), in_all);
        match (before, &turn.continuation) {
            (Some(before), _) => output.tokens_beyond(&before),
            (None, Continuation::Fresh) => in_all,
            (None, _) => Tokens::default(),
        }
    }
}

/// A text as TOML writes it: as JSON does, but for the one character that JSON leaves bare.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::harness::Instructions;

    fn harness() -> CodexHarness {
        CodexHarness { program: "codex".into(), costs: HashMap::new() }
    }

    fn turn(continuation: Continuation, instructions: &str) -> Turn {
        let instructions = Instructions { file: "rules.md".into(), text: instructions.to_owned() };
        Turn {
            iteration: 1,
            prompt: "Go on".to_owned(),
            continuation,
            instructions: Some(instructions).filter(|instructions| !instructions.text.is_empty()),
            model: None,
            env: Default::default(),
            project_dir: ".".into(),
            makes_deferred_call: false,
        }
    }

    /// The arguments behind `exec`, and the prompt.
    fn asked(turn: &Turn) -> (Vec<String>, String) {
        let (command, turn) = harness().command(turn);
        let arguments = command.get_args().map(|argument| argument.to_str().unwrap().to_owned()).skip(1).collect();
        (arguments, turn.prompt.clone())
    }

    #[test]
    fn a_thread_is_taken_up_by_its_id_or_as_the_last_one() {
        let resume = Continuation::Resume { handle: "t1".to_owned() };
        let (arguments, prompt) = asked(&turn(resume, ""));
        assert_eq!(arguments, ["resume", "--json", "--skip-git-repo-check", "t1", "-"]);
        assert_eq!(prompt, "Go on");
        let (arguments, _) = asked(&turn(Continuation::ReuseCurrent, ""));
        assert_eq!(arguments, ["resume", "--json", "--skip-git-repo-check", "--last", "-"]);
    }

    #[test]
    fn instructions_are_a_setting_of_a_new_thread_and_stand_before_the_prompt_elsewhere() {
        let (arguments, prompt) = asked(&turn(Continuation::Fresh, "Be \"kind\".\nAlways\u{7f}."));
        let setting = r#"developer_instructions="Be \"kind\".\nAlways\u007f.""#;
        assert_eq!(arguments, ["--json", "--skip-git-repo-check", "-c", setting, "-"]);
        assert_eq!(prompt, "Go on");

        let (arguments, prompt) = asked(&turn(Continuation::ReuseCurrent, "Be kind."));
        assert!(!arguments.contains(&"-c".to_owned()), "{arguments:?}");
        assert_eq!(prompt, "Be kind.\n\nGo on");

        let (arguments, prompt) = asked(&turn(Continuation::Fresh, &"long ".repeat(30_000)));
        assert_eq!(arguments, ["--json", "--skip-git-repo-check", "-"]);
        assert!(prompt.ends_with("long \n\nGo on"));
    }

    #[test]
    fn a_turn_costs_what_its_thread_costs_more_than_before() {
        let mut harness = harness();
        let mut cost = |thread: &str, continuation: Continuation, input: u64| {
            let mut output = CodexJson::of_process("p");
            let begins = format!(r#"{{"type":"thread.started","thread_id":"{thread}"}}"#);
            let ends = format!(r#"{{"type":"turn.completed","usage":{{"input_tokens":{input},"output_tokens":1}}}}"#);
            for line in [begins, ends] {
                runledger_adapters::LineAdapter::line(&mut output, &line, None).unwrap();
            }
            harness.cost(&turn(continuation, ""), &output).input
        };
        assert_eq!(cost("t1", Continuation::Fresh, 100), Some(100));
        assert_eq!(cost("t1", Continuation::ReuseCurrent, 130), Some(30));
        assert_eq!(cost("t1", Continuation::Resume { handle: "t1".to_owned() }, 150), Some(20));
        // Nobody said what another thread had cost before.
        assert_eq!(cost("t2", Continuation::ReuseCurrent, 500), None);
        assert_eq!(cost("t2", Continuation::ReuseCurrent, 510), Some(10));
    }
}
