//! Entries of the feed in a list: time, who, what, and the words that matter.

use maud::{Markup, html};
use runledger_events::Fields;
use runledger_events::words::{call_parts, response_words};
use runledger_projections::FeedEvent;

use crate::show;

/// Characters of an entry's words; the event itself has all of them.
const WORDS_MAX: usize = 600;

/// The entries, in order.
pub(crate) fn list(entries: &[FeedEvent], empty: &str) -> Markup {
    let day = |at| show::time_text(at).get(..10).map(str::to_owned);
    let mut before = None;
    html! {
        @if entries.is_empty() { p .nothing { (empty) } }
        ol .feed { @for entry in entries {
            @let today = day(entry.ts);
            @if let Some(words) = today.as_ref().filter(|_| before != today) { li .day { (words) } }
            ({ before = today; "" })
            (item(entry))
        } }
    }
}

fn item(entry: &FeedEvent) -> Markup {
    let words = words(entry);
    let is_subagent = entry.actor_id.starts_with("subagent:");
    html! {
        li id={ "e" (entry.seq) } .(entry.level.as_str()) .subagent[is_subagent] {
            (show::time(entry.ts, Some(entry.ts)))
            span .kind title=(entry.actor_id) { (entry.kind) }
            span .title { (title(entry)) }
            a .position href={ "/events/" (entry.position) } title="The event itself, raw" { (entry.position) }
            @if !words.is_empty() { span .words { (words) } }
            @if let Some(cause) = entry.cause.parent_event_id.as_deref().and_then(seq_of) {
                a .cause href={ "#e" (cause) } title="What it follows on" { "↰ " (cause) }
            }
        }
    }
}

/// An entry's title. Its signs are the reference's, of which few fonts have all.
fn title(entry: &FeedEvent) -> String {
    entry.title.replace('⏺', "●").replace('⎿', "↳")
}

/// The number in `SESSION:Rn:Em`, as an entry's id has it: that of the entry in its session.
fn seq_of(event_id: &str) -> Option<u64> {
    event_id.rsplit_once(":E").and_then(|(_, number)| number.parse().ok())
}

/// The words of an entry that its title does not say.
pub(crate) fn words(entry: &FeedEvent) -> String {
    let data = Fields::parse(entry.data.get()).unwrap_or_default();
    let said = match entry.kind.as_str() {
        "agent.message" => data.text("message"),
        "user.prompt" => data.text("prompt"),
        "tool.pre" | "permission.request" | "permission.denied" => {
            data.raw("tool_input").map(|input| call_parts(input).join(" · "))
        }
        "tool.post" => data.raw("tool_response").map(response_words),
        "tool.failure" => data.text("error"),
        "tool.delta" => data.text("delta"),
        "subagent.start" => data.text("description"),
        "stop.failure" => data.text("error_message"),
        _ => None,
    };
    let said = said.unwrap_or_default();
    let said = said.trim();
    match said.char_indices().nth(WORDS_MAX) {
        None => said.to_owned(),
        Some((end, _)) => format!("{}…", &said[..end]),
    }
}
