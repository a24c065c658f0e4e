//! `allow` and `deny`: decide a question that waits, from any process.

use clap::Args;
use runledger_events::{RequestId, readable};
use runledger_projections::PermissionRequest;
use runledger_workflow::{
    Commands, DecideError, DecidedRequest, GrantScope, RelayAnswer, RelayVerdict, UnfitVerdict, UserQuestion,
    VerdictSource, current_user,
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
        let answer = |asked: &PermissionRequest| {
            if self.answers.is_empty() {
                return Ok(RelayAnswer::Allow);
            }
            let input = asked.tool_input.as_ref().map(|input| input.get().to_owned()).unwrap_or_default();
            let questions = UserQuestion::of_input(&readable(&input));
            Ok(RelayAnswer::Answers(
                self.answers.iter().map(|text| named_answer(text, &questions)).collect::<Result<_, _>>()?,
            ))
        };
        decide(&self.request, answer, self.reason.as_deref(), &self.reach, ledger, output)
    }
}

/// Which question an answer is to, and the answer. A question may have a `=` of its own, so the text is parted where what
/// stands before is one: by its whole text first, then by its header, then by its number.
fn named_answer(text: &str, questions: &[UserQuestion]) -> Result<(String, String), Usage> {
    let parts = text.match_indices('=').map(|(at, _)| (text[..at].trim(), text[at + 1..].trim()));
    let parts: Vec<_> = parts.filter(|(name, answer)| !name.is_empty() && !answer.is_empty()).collect();
    let by_text = |name: &str| questions.iter().any(|asked| asked.question.trim() == name);
    let by_header = |name: &str| questions.iter().any(|asked| asked.header.as_deref().map(str::trim) == Some(name));
    let found = parts.iter().find(|(name, _)| by_text(name));
    let found = found.or_else(|| parts.iter().find(|(name, _)| by_header(name))).or(parts.first());
    let (name, answer) = found.ok_or_else(|| Usage(format!("--answer {text}: give it as QUESTION=ANSWER")))?;
    // Under the words that it was asked in.
    let asked = questions.iter().find(|asked| asked.question.trim() == *name);
    Ok((asked.map_or_else(|| (*name).to_owned(), |asked| asked.question.clone()), (*answer).to_owned()))
}

impl Deny {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        if self.reason.trim().is_empty() {
            return Err(Usage("--reason is empty; the agent is told why".to_owned()).into());
        }
        decide(
            &self.request,
            |_: &PermissionRequest| Ok(RelayAnswer::Deny),
            Some(&self.reason),
            &self.reach,
            ledger,
            output,
        )
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
    answer: impl FnOnce(&PermissionRequest) -> anyhow::Result<RelayAnswer>,
    reason: Option<&str>,
    reach: &Reach,
    ledger: &LedgerArg,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let scope = reach.scope()?;
    let asked = one_question(&ledger.queries()?, &request.request)?;
    let verdict = RelayVerdict {
        answer: answer(&asked)?,
        reason: reason.map(str::to_owned),
        scope,
        pattern: reach.pattern.clone(),
        source: VerdictSource::User,
        by: Some(current_user()),
    };
    let id = asked.request_id;
    let commands = Commands::open(ledger.open_for_writing()?)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn an_answer_is_parted_where_a_question_ends() {
        let input = r#"{"questions":[{"question":"Size = ?","header":"Size"},{"question":"Set a=b?","header":"Set a"},
            {"question":"Is x = y?","header":"Eq"}]}"#;
        let questions = UserQuestion::of_input(input);
        let cases = [
            ("Size = ?=L", "Size = ?", "L"),
            ("Size=L", "Size", "L"),
            ("Set a=b?=Yes", "Set a=b?", "Yes"),
            ("Set a = b=c", "Set a", "b=c"),
            ("Is x = y? = Yes", "Is x = y?", "Yes"),
            ("3=Yes=No", "3", "Yes=No"),
            ("Colour=Red", "Colour", "Red"),
        ];
        for (text, question, answer) in cases {
            let expected = (question.to_owned(), answer.to_owned());
            assert_eq!(named_answer(text, &questions).unwrap(), expected, "{text}");
        }
        for text in ["", "=", "Size", "=L", "Size ="] {
            assert!(named_answer(text, &questions).is_err(), "{text}");
        }
    }
}
