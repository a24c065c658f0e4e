//! The form that decides a request: what can be filled in, what was filled in, and the verdict that it comes to.

use std::collections::BTreeMap;

use maud::{Markup, html};
use runledger_events::{RelayQuestion, RequestStatus, TimestampMs, readable};
use runledger_projections::PermissionRequest;
use runledger_workflow::{GrantScope, RelayAnswer, RelayVerdict, UserQuestion, VerdictSource, current_user};

use crate::failure::Failure;
use crate::server::App;
use crate::show;

/// What somebody filled in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    is_sent: bool,
    verdict: String,
    reason: String,
    scope: String,
    pattern: String,
    /// The numbers of what was chosen, by the number of the question: `answer_1`, …
    chosen: BTreeMap<usize, Vec<usize>>,
    /// What was written beside it: `own_1`, …
    own: BTreeMap<usize, String>,
}

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Draft {
    /// What the fields of a form say.
    pub(crate) fn read(fields: Vec<(String, String)>) -> Self {
        let mut draft = Self { is_sent: true, ..Self::default() };
        for (name, value) in fields {
            let number = |prefix| name.strip_prefix(prefix).and_then(|number| number.parse().ok());
            match name.as_str() {
                "verdict" => draft.verdict = value,
                "reason" => draft.reason = value,
                "scope" => draft.scope = value,
                "pattern" => draft.pattern = value,
                _ => match (number("answer_"), number("own_")) {
                    // What is no number is none of the choices.
                    (Some(number), _) => {
                        draft.chosen.entry(number).or_default().push(value.parse().unwrap_or_default())
                    }
                    (None, Some(number)) => _ = draft.own.insert(number, value),
                    (None, None) => {}
                },
            }
        }
        draft
    }

    /// What it comes to for this request.
    pub(crate) fn verdict(&self, request: &PermissionRequest) -> Result<RelayVerdict, Failure> {
        let scope = match self.scope.as_str() {
            "" => GrantScope::Once,
            word => GrantScope::parse(word).ok_or_else(|| {
                Failure::bad_request(format!("there is no scope {word}"), "it is once, run or always")
            })?,
        };
        let answer = match self.verdict.as_str() {
            "allow" if request.question == RelayQuestion::Question => self.answers(&questions(request))?,
            "allow" => RelayAnswer::Allow,
            "deny" if given(&self.reason).is_none() => {
                let next = "the agent is told why: write it, and deny again";
                return Err(Failure::bad_request("a denial needs a reason", next));
            }
            "deny" => RelayAnswer::Deny,
            word => return Err(Failure::bad_request(format!("there is no verdict {word}"), "it is allow or deny")),
        };
        // The call's own pattern, which the form offers, is meant as it is, whatever of it a field can hold.
        let pattern = given(&self.pattern).filter(|text| *text != offered(request));
        if pattern.is_some() && scope == GrantScope::Once {
            let next = "say how far it reaches: for this run, or always";
            return Err(Failure::bad_request("a pattern says nothing of this call alone", next));
        }
        let by = Some(current_user());
        Ok(RelayVerdict { answer, reason: given(&self.reason), scope, pattern, source: VerdictSource::User, by })
    }

    fn answers(&self, questions: &[UserQuestion]) -> Result<RelayAnswer, Failure> {
        if questions.is_empty() {
            let next = "`runledger allow --answer` answers it";
            return Err(Failure::bad_request("what it asks cannot be told apart here", next));
        }
        let mut answers = BTreeMap::new();
        for (number, question) in (1..).zip(questions) {
            let own = self.own.get(&number).and_then(|words| given(words));
            let chosen = self.chosen.get(&number).into_iter().flatten().map(|choice| {
                let choice = choice.checked_sub(1).and_then(|index| question.options.get(index));
                choice.map(|choice| choice.label.as_str()).ok_or_else(|| {
                    let error = format!("“{}” has no such answer", question.question);
                    Failure::bad_request(error, "choose one of those that are there")
                })
            });
            let mut said: Vec<&str> = chosen.collect::<Result<_, _>>()?;
            // One answer: what somebody took the trouble to write.
            if own.is_some() && !question.is_multiple {
                said.clear();
            }
            said.extend(own.as_deref());
            if said.is_empty() {
                let next = "choose an answer, or write one";
                return Err(Failure::bad_request(format!("“{}” is not answered", question.question), next));
            }
            answers.insert(question.question.clone(), UserQuestion::joined(said));
        }
        Ok(RelayAnswer::Answers(answers))
    }

    fn has_chosen(&self, number: usize, choice: usize) -> bool {
        self.chosen.get(&number).is_some_and(|chosen| chosen.contains(&choice))
    }
}

/// What a request asks its user; nothing where it is no question, or one of another shape.
pub(super) fn questions(request: &PermissionRequest) -> Vec<UserQuestion> {
    match (&request.question, &request.tool_input) {
        (RelayQuestion::Question, Some(input)) => UserQuestion::of_input(&readable(input.get())),
        _ => Vec::new(),
    }
}

/// The form of a request that waits.
pub(super) fn form(app: &App, request: &PermissionRequest, draft: &Draft, now: TimestampMs) -> Markup {
    let is_open = can_be_decided(request, now);
    let questions = questions(request);
    let is_question = request.question == RelayQuestion::Question;
    html! {
        form .decide method="post" aria-label={ "Decide on " (request.tool_name.as_deref().unwrap_or("the question")) ", request " (request.position) } action={ "/permissions/" (request.position) }
            data-due=[request.due_at.map(|due_at| due_at.0)] data-draft[draft.is_sent] {
            // What the Enter key presses: nothing.
            button .hidden disabled aria-hidden="true" tabindex="-1" {}
            fieldset .fields disabled[!is_open] {
                input type="hidden" name="form_word" value=(app.guard.form_word());
                @for (number, question) in (1..).zip(&questions) { (asked(request, number, question, draft)) }
                label { "Reason " input name="reason" value=(draft.reason) autocomplete="off" placeholder="told to the agent when you deny"; }
                @if !is_question && request.run_id.is_some() { (reach(request, draft)) }
                @if is_question && questions.is_empty() {
                    p .quiet { "What it asks cannot be told apart here; " code { "runledger allow --answer" } " answers it." }
                } @else {
                    button .allow name="verdict" value="allow" { @if is_question { "Answer" } @else { "Allow" } }
                }
                button .danger name="verdict" value="deny" { "Deny" }
            }
            @if !is_open { p .quiet { "It expired; it can no longer be decided." } }
        }
    }
}

/// The call's own pattern, as a field of one line holds it and sends it back.
fn offered(request: &PermissionRequest) -> String {
    let pattern = request.pattern.as_deref().unwrap_or_default();
    show::harmless_text(pattern).replace(['\n', '\r'], "").trim().to_owned()
}

/// How far a decision reaches, and on which calls it is then.
fn reach(request: &PermissionRequest, draft: &Draft) -> Markup {
    let words = [("once", "once"), ("run", "for this run"), ("always", "always, in this workflow")];
    let pattern = if draft.is_sent { draft.pattern.clone() } else { offered(request) };
    html! {
        label { "Holds " select name="scope" {
            @for (value, words) in words { option value=(value) selected[draft.scope == value] { (words) } }
        } }
        label .pattern { "for calls like " input name="pattern" value=(pattern) size=(pattern.chars().count().clamp(14, 60)) autocomplete="off" spellcheck="false"; }
    }
}

/// One question with its answers.
fn asked(request: &PermissionRequest, number: usize, question: &UserQuestion, draft: &Draft) -> Markup {
    let id = |index: usize| format!("q{}-{number}-{index}", request.position);
    let own = draft.own.get(&number).map(String::as_str).unwrap_or_default();
    html! {
        fieldset .question {
            legend {
                @if let Some(header) = &question.header { span .mark.quiet { (header) } " " }
                (question.question)
                @if question.is_multiple { span .quiet { " several may be chosen" } }
            }
            @for (index, choice) in (1..).zip(&question.options) {
                div .choice {
                    input id=(id(index)) type=(if question.is_multiple { "checkbox" } else { "radio" })
                        name={ "answer_" (number) } value=(index) checked[draft.has_chosen(number, index)];
                    label for=(id(index)) {
                        (choice.label)
                        @if let Some(description) = &choice.description { span .quiet { (description) } }
                    }
                }
            }
            label .own {
                (if question.options.is_empty() { "Answer " } else { "In your words " })
                input name={ "own_" (number) } value=(own) autocomplete="off";
            }
        }
    }
}

/// Whether somebody waits for a decision that can still be made.
pub(crate) fn can_be_decided(request: &PermissionRequest, now: TimestampMs) -> bool {
    request.mode.is_some()
        && request.status == Some(RequestStatus::Pending)
        && request.due_at.is_none_or(|due_at| due_at > now)
}
