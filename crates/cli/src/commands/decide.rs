//! `allow` and `deny`: decide a question that waits, from any process.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use runledger_events::RequestId;
use runledger_workflow::{
    Commands, DecideError, DecidedRequest, GrantScope, RelayAnswer, RelayVerdict, UnfitVerdict, VerdictSource,
    current_user,
};

use crate::exit_code::{Exit, No, Usage};
use crate::ledger::LedgerArg;
use crate::output::Output;
use crate::render;
use crate::requests::{one_question, settled_in_words};

/// Allow what a request asks for, or answer it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger allow 120
  runledger allow toolu_01 --for-run --pattern 'Bash(cargo test:*)'
  runledger allow 130 --answer 'Which colour?=Red' --answer 2=Large")]
pub(crate) struct Allow {
    #[command(flatten)]
    request: RequestArg,
    /// Why, in words
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// The answer to a question of the agent, by the question's text, header or number
    #[arg(long = "answer", value_name = "QUESTION=ANSWER", conflicts_with_all = ["for_run", "always"])]
    answers: Vec<String>,
}

/// Deny what a request asks for
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger deny 120 --reason 'push only after review'
  runledger deny toolu_01 --reason 'never' --always --pattern 'Bash(git push:*)'")]
pub(crate) struct Deny {
    #[command(flatten)]
    request: RequestArg,
    /// Why, in words: the agent is told
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    reach: Reach,
}

/// The question that is decided.
#[derive(Debug, Args)]
struct RequestArg {
    /// A position, of the request or of the call, or the harness's own id of the call
    #[arg(value_name = "REQUEST")]
    request: String,
}

/// How far a decision reaches.
#[derive(Debug, Args)]
struct Reach {
    /// It holds for such calls in this run
    #[arg(long, conflicts_with = "always")]
    for_run: bool,
    /// It holds for such calls in every run of this workflow; `runledger rules` lists it
    #[arg(long)]
    always: bool,
    /// The calls that it holds for; this one alone if not given
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
}

impl Allow {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let answer = if self.answers.is_empty() { RelayAnswer::Allow } else { RelayAnswer::Answers(self.answers()?) };
        decide(&self.request, answer, self.reason.as_deref(), &self.reach, ledger, output)
    }

    fn answers(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let answer = |text: &String| {
            // A question that has one in it goes by its number.
            let (question, answer) = text
                .split_once('=')
                .filter(|(question, answer)| !question.trim().is_empty() && !answer.trim().is_empty())
                .ok_or_else(|| Usage(format!("--answer {text}: give it as QUESTION=ANSWER")))?;
            Ok((question.trim().to_owned(), answer.trim().to_owned()))
        };
        self.answers.iter().map(answer).collect()
    }
}

impl Deny {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        if self.reason.trim().is_empty() {
            return Err(Usage("--reason is empty; the agent is told why".to_owned()).into());
        }
        decide(&self.request, RelayAnswer::Deny, Some(&self.reason), &self.reach, ledger, output)
    }
}

impl Reach {
    fn scope(&self) -> anyhow::Result<GrantScope> {
        let scope = match (self.for_run, self.always) {
            (true, _) => GrantScope::Run,
            (_, true) => GrantScope::Always,
            _ => GrantScope::Once,
        };
        if self.pattern.is_some() && scope == GrantScope::Once {
            return Err(Usage(
                "--pattern says what a decision is on beyond this call: add --for-run or --always".to_owned(),
            )
            .into());
        }
        Ok(scope)
    }
}

fn decide(
    request: &RequestArg,
    answer: RelayAnswer,
    reason: Option<&str>,
    reach: &Reach,
    ledger: &LedgerArg,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let verdict = RelayVerdict {
        answer,
        reason: reason.map(str::to_owned),
        scope: reach.scope()?,
        pattern: reach.pattern.clone(),
        source: VerdictSource::User,
        by: Some(current_user()),
    };
    let id = one_question(&ledger.queries()?, &request.request)?.request_id;
    let commands = Commands::open(Arc::new(ledger.open_for_writing()?))?;
    let decided = commands.decide(&id, &verdict).map_err(|error| in_words(&id, error))?;
    if output.is_json() {
        output.json(&one_question(&ledger.queries()?, id.as_str())?)?;
    } else {
        tell(&decided, output)?;
    }
    Ok(Exit::Done)
}

/// Why a decision does not count, with the exit status that it has.
fn in_words(id: &RequestId, error: DecideError) -> anyhow::Error {
    match error {
        DecideError::AlreadyDecided { settled, .. } => {
            No(format!("request {id} is decided already: {}", settled_in_words(&settled))).into()
        }
        DecideError::Withdrawn { settled, .. } => {
            No(format!("request {id} needs no answer any more: {}", settled_in_words(&settled))).into()
        }
        DecideError::Expired { due_at, settled, .. } => {
            let due = due_at.map(|due_at| format!("; it could be decided until {}", render::time(due_at)));
            No(format!(
                "request {id} is expired{}; your decision was recorded as such, and changes nothing (position {})",
                due.unwrap_or_default(),
                settled.position
            ))
            .into()
        }
        DecideError::Unknown { .. } | DecideError::Elsewhere { .. } => No(error.to_string()).into(),
        DecideError::Unfit { source, .. } => Usage(unfit_in_words(id, &source)).into(),
        DecideError::Log { .. } => error.into(),
    }
}

fn unfit_in_words(id: &RequestId, unfit: &UnfitVerdict) -> String {
    let help = match unfit {
        UnfitVerdict::NotAnswered(_) => " (--answer QUESTION=ANSWER)",
        UnfitVerdict::NoPattern => " (--pattern)",
        _ => "",
    };
    format!("request {id}: {unfit}{help}")
}

fn tell(decided: &DecidedRequest, output: &mut Output) -> anyhow::Result<()> {
    let request = &decided.state.request;
    let tool = request.tool_name.as_deref().unwrap_or("the call");
    let decision = decided.state.decision.as_ref();
    let pattern = decision.and_then(|decision| decision.pattern.as_deref()).unwrap_or_default();
    let reach = match decision.and_then(|decision| decision.scope.as_deref()) {
        Some("run") => format!(", and {pattern} for the whole run"),
        Some("always") => format!(", and {pattern} in every run of the workflow (`runledger rules` lists it)"),
        _ => String::new(),
    };
    let line = format!("{} {} {tool}{reach}", request.request_id, decided.settled.status);
    output.line(&render::plain(&line))
}
