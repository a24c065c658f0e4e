//! What a hook answers, in the words of the clients: Claude Code's, which Codex takes as well.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use runledger_events::{Fields, ObjectText, quoted};

use super::call::Asking;

/// Whether this process has answered.
static IS_PRINTED: AtomicBool = AtomicBool::new(false);

/// An answer on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow {
        reason: Option<String>,
        /// The tool's input with what was answered in it.
        updated_input: Option<String>,
    },
    Deny {
        reason: String,
    },
    /// The client asks the person before it.
    Ask {
        reason: String,
    },
    /// The client ends, and makes the call when it is resumed.
    Defer {
        reason: String,
    },
}

impl Answer {
    /// The answer as this hook of a client takes it; nothing where it takes none.
    fn json(&self, asking: Asking) -> Option<String> {
        let output = ObjectText::new().text("hookEventName", asking.as_str());
        let output = match (asking, self) {
            (Asking::PreToolUse, answer) => {
                let (word, reason, input) = match answer {
                    Self::Allow { reason, updated_input } => ("allow", reason.as_deref(), updated_input.as_deref()),
                    Self::Deny { reason } => ("deny", Some(reason.as_str()), None),
                    Self::Ask { reason } => ("ask", Some(reason.as_str()), None),
                    Self::Defer { reason } => ("defer", Some(reason.as_str()), None),
                };
                output
                    .text("permissionDecision", word)
                    .text("permissionDecisionReason", reason)
                    .raw("updatedInput", input)
            }
            (Asking::PermissionRequest, Self::Allow { updated_input, .. }) => {
                let decision =
                    ObjectText::new().text("behavior", "allow").raw("updatedInput", updated_input.as_deref());
                output.raw("decision", decision.finish().as_str())
            }
            (Asking::PermissionRequest, Self::Deny { reason }) => {
                let decision = ObjectText::new().text("behavior", "deny").text("message", reason.as_str());
                output.raw("decision", decision.finish().as_str())
            }
            (Asking::PermissionRequest, Self::Ask { .. } | Self::Defer { .. }) => return None,
        };
        Some(ObjectText::new().raw("hookSpecificOutput", output.finish().as_str()).finish())
    }

    /// Prints it, if nothing was printed before. That it cannot be printed changes nothing any more.
    pub(crate) fn print(&self, asking: Asking) {
        // Two answers are none to a client.
        if IS_PRINTED.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(json) = self.json(asking) {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(format!("{json}\n").as_bytes()).and_then(|()| stdout.flush());
        }
    }
}

/// The input of the tool that asks the user, with the answers in it.
pub(crate) fn answered_input<'a>(
    tool_input: &str,
    answers: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> String {
    let answers = answers
        .into_iter()
        .fold(ObjectText::new(), |object, (question, answer)| object.raw(question, quoted(answer).as_str()));
    let fields = Fields::parse(tool_input).unwrap_or_default();
    let others = fields.iter().filter(|(name, _)| *name != "answers");
    others
        .fold(ObjectText::new(), |input, (name, json)| input.raw(name, json))
        .raw("answers", answers.finish().as_str())
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_the_form_that_its_hook_takes() {
        let allow = Answer::Allow { reason: None, updated_input: None };
        let deny = Answer::Deny { reason: "no \"push\"".to_owned() };
        let answered = Answer::Allow { reason: Some("r".to_owned()), updated_input: Some(r#"{"a":1}"#.to_owned()) };
        let json = |answer: &Answer, asking| answer.json(asking).unwrap_or_default();
        for (answer, pre, request) in [
            (&allow, r#""permissionDecision":"allow"}"#, r#""decision":{"behavior":"allow"}}"#),
            (
                &deny,
                r#""permissionDecision":"deny","permissionDecisionReason":"no \"push\""}"#,
                r#""decision":{"behavior":"deny","message":"no \"push\""}}"#,
            ),
            (
                &answered,
                r#""permissionDecision":"allow","permissionDecisionReason":"r","updatedInput":{"a":1}}"#,
                r#""decision":{"behavior":"allow","updatedInput":{"a":1}}}"#,
            ),
        ] {
            let form =
                |hook: &str, rest: &str| format!(r#"{{"hookSpecificOutput":{{"hookEventName":"{hook}",{rest}}}"#);
            assert_eq!(json(answer, Asking::PreToolUse), form("PreToolUse", pre));
            assert_eq!(json(answer, Asking::PermissionRequest), form("PermissionRequest", request));
        }
        assert_eq!(Answer::Defer { reason: String::new() }.json(Asking::PermissionRequest), None);
    }

    #[test]
    fn a_question_is_answered_in_its_own_input() {
        let (question, answer) = ("Which \"one\"?".to_owned(), "Red, Blue".to_owned());
        assert_eq!(
            answered_input(r#"{"questions":[1],"answers":{}}"#, [(&question, &answer)]),
            r#"{"questions":[1],"answers":{"Which \"one\"?":"Red, Blue"}}"#
        );
    }
}
