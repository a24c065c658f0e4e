//! How things look on every page: times, statuses, figures and texts of agents.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, PreEscaped, html};
use runledger_events::words::{count, duration, is_harmful, plain};
use runledger_events::{RequestStatus, RunStatus, TimestampMs, Tokens};
use runledger_projections::Run;
use runledger_workflow::is_alive;

/// The wall clock.
pub(crate) fn now() -> TimestampMs {
    TimestampMs(Timestamp::now().as_millisecond())
}

/// A moment in local time.
pub(crate) fn time_text(at: TimestampMs) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(moment) => moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{} ms", at.0),
    }
}

/// The same as an element; the day is left out where it is that of `beside`.
pub(crate) fn time(at: TimestampMs, beside: Option<TimestampMs>) -> Markup {
    let text = time_text(at);
    let iso = Timestamp::from_millisecond(at.0).map(|moment| moment.to_string()).unwrap_or_default();
    let is_same_day = beside.is_some_and(|other| time_text(other).get(..10) == text.get(..10));
    html! { time datetime=(iso) title=(text) { (if is_same_day { text.get(11..).unwrap_or(&text) } else { &text }) } }
}

/// How long ago, in words.
pub(crate) fn age(at: TimestampMs, now: TimestampMs) -> Markup {
    let ms = now.0.saturating_sub(at.0);
    html! { time datetime=(Timestamp::from_millisecond(at.0).map(|at| at.to_string()).unwrap_or_default()) title=(time_text(at)) {
        @if ms < 0 { "in " (duration(ms.saturating_neg())) } @else { (duration(ms)) " ago" }
    } }
}

/// Tokens in total, or a dash.
pub(crate) fn tokens(tokens: &Tokens) -> String {
    tokens.total.map_or_else(|| "–".to_owned(), count)
}

/// How long nobody has to tell anything of a run that waits for nothing before that stands out: 5 minutes.
const SILENCE_MS: i64 = 300_000;

/// What a run's mark is made of, beside the run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signs {
    /// Of a past, whether somebody drives it now says nothing.
    pub(crate) is_past: bool,
    /// It has asked somebody something.
    pub(crate) asks: bool,
    /// For how many milliseconds nothing was told of its session, where that is known.
    pub(crate) silent_ms: Option<i64>,
}

/// What a run's mark is called, and what it says: how it stands, what it waits for, or that it has stalled.
fn run_mark(run: &Run, signs: Signs) -> (&'static str, String) {
    let word = run.status.as_str();
    if run.status != RunStatus::Running {
        return (word, word.to_owned());
    }
    if run.waiting_for.is_some() || signs.asks {
        return ("waiting", "waits for a decision".to_owned());
    }
    if run.paused {
        return ("waiting", "paused".to_owned());
    }
    if !signs.is_past && run.owner.as_ref().and_then(is_alive) == Some(false) {
        return ("stalled", "owner gone".to_owned());
    }
    match signs.silent_ms.filter(|ms| *ms >= SILENCE_MS && run.timer.is_none()) {
        Some(ms) => ("stalled", format!("silent for {}", duration(ms))),
        None => (word, word.to_owned()),
    }
}

/// How a run stands.
pub(crate) fn run_status(run: &Run, signs: Signs) -> Markup {
    let (class, words) = run_mark(run, signs);
    html! { span class={ "mark " (class) } { (words) } }
}

/// How a request stands.
pub(crate) fn request_status(status: Option<RequestStatus>) -> Markup {
    let word = status.map_or("asked", RequestStatus::as_str);
    html! { span class={ "mark " (word) } { (word) } }
}

/// The first characters of an id, which are enough to tell it by.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// A page with pictures in the place of what would be obeyed instead of shown: control characters, and what turns the
/// direction of the text around it.
pub(crate) fn harmless(page: Markup) -> Markup {
    if !page.0.contains(is_harmful) {
        return page;
    }
    PreEscaped(page.0.split_inclusive(is_harmful).fold(String::with_capacity(page.0.len()), |mut told, part| {
        match part.char_indices().next_back().filter(|(_, last)| is_harmful(*last)) {
            Some((at, last)) => told.push_str(&(part[..at].to_owned() + &plain(last.encode_utf8(&mut [0; 4])))),
            None => told.push_str(part),
        }
        told
    }))
}

/// The same for a text.
pub(crate) fn harmless_text(text: &str) -> String {
    harmless(PreEscaped(text.to_owned())).0
}

/// What goes into an address.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An address with these parameters, those without a value left out.
pub(crate) fn address(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut address = path.to_owned();
    for (name, value) in parameters {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            address.push(if address.contains('?') { '&' } else { '?' });
            address.push_str(&format!("{name}={}", encoded(value)));
        }
    }
    address
}
