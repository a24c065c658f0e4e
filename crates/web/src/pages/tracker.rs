//! The tracker as each iteration left it, and what that iteration changed.

use maud::{Markup, html};
use runledger_events::words::bytes;
use runledger_projections::Iteration;
use similar::{ChangeTag, TextDiff};

/// Lines of a difference, at the most.
const LINES_MAX: usize = 400;

/// The tracker after an iteration.
pub(crate) struct Reading {
    pub(crate) iteration: u32,
    /// None where it was erased.
    pub(crate) text: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) is_whole: bool,
}

impl Reading {
    /// That of an iteration, where it has one; `text` is what its end tells.
    pub(crate) fn new(iteration: &Iteration, text: Option<String>) -> Option<Self> {
        let facts = iteration.tracker.as_ref()?;
        Some(Self { iteration: iteration.iteration, text, bytes: facts.bytes, is_whole: facts.is_whole })
    }
}

/// Each reading, the newest first and open.
pub(crate) fn draw(readings: &[Reading]) -> Markup {
    html! {
        @if readings.is_empty() { p .nothing { "This run has left no tracker yet." } }
        @for (index, reading) in readings.iter().enumerate().rev() {
            @let before = index.checked_sub(1).and_then(|before| readings[before].text.as_deref());
            details open[index + 1 == readings.len()] {
                summary {
                    "After iteration " (reading.iteration)
                    span .quiet { ", " (bytes(reading.bytes)) @if !reading.is_whole { ", its end left out" } }
                    @if let Some(text) = &reading.text { (changed(before.unwrap_or(""), text)) }
                }
                @match &reading.text {
                    Some(text) => { (difference(before.unwrap_or(""), text)) }
                    None => { p .nothing { "What it said was erased." } }
                }
            }
        }
    }
}

/// How many lines came and went.
fn changed(before: &str, after: &str) -> Markup {
    let diff = TextDiff::from_lines(before, after);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    html! { span .added { " +" (count(ChangeTag::Insert)) } span .removed { " −" (count(ChangeTag::Delete)) } }
}

fn difference(before: &str, after: &str) -> Markup {
    let diff = TextDiff::from_lines(before, after);
    let count = diff.iter_all_changes().count();
    html! {
        pre .difference tabindex="0" {
            @for change in diff.iter_all_changes().take(LINES_MAX) {
                @let (class, sign) = match change.tag() {
                    ChangeTag::Insert => ("added", "+ "), ChangeTag::Delete => ("removed", "− "), ChangeTag::Equal => ("same", "  "),
                };
                span class=(class) { (sign) (change.value().trim_end_matches('\n')) "\n" }
            }
            @if count > LINES_MAX { span .quiet { "… and " (count - LINES_MAX) " lines more\n" } }
        }
    }
}
