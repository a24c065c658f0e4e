//! RootPlanTracker: the main agent's plan, as its own tool or the harness's plan updates tell it.

use runledger_events::{Fields, ObjectText, as_text, content_digest};

/// The items of a TodoWrite call, as they came.
pub(super) fn todos(input: &Fields<'_>) -> Vec<String> {
    input.list("todos").unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// The steps of a plan as items; none where it has no steps.
pub(super) fn steps(plan: Option<Vec<&str>>) -> Option<Vec<String>> {
    let steps = plan.filter(|steps| !steps.is_empty())?;
    let item = |step: &str| {
        let step = Fields::parse(step).unwrap_or_default();
        let status = match step.text("status").as_deref() {
            Some("inProgress" | "in_progress") => "in_progress",
            Some("completed") => "completed",
            _ => "pending",
        };
        let content = step.text("step").unwrap_or_default();
        ObjectText::new().text("content", content.as_str()).text("status", status).finish()
    };
    Some(steps.into_iter().map(item).collect())
}

/// Whether two plans say the same.
pub(super) fn is_same(before: &[String], after: &[String]) -> bool {
    let said = |item: &String| {
        let item = Fields::parse(item).unwrap_or_default();
        (item.raw("content").and_then(as_text), item.raw("status").and_then(as_text))
    };
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| said(before) == said(after))
}

/// A name for what a plan says of its steps: which they are, and which are done. Not all who tell it know which is at work.
pub(super) fn progress(items: &[String]) -> String {
    let mut said = String::new();
    for item in items {
        let item = Fields::parse(item).unwrap_or_default();
        let is_done = item.text("status").as_deref() == Some("completed");
        said.push_str(if is_done { "x " } else { "- " });
        said.push_str(&item.text("content").unwrap_or_default());
        said.push('\n');
    }
    content_digest(said.as_bytes()).to_string()
}
