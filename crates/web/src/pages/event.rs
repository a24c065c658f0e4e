//! One event of the log, raw: its place, what it belongs to, and its own text.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use runledger_events::{Content, Position, RecordedEvent, readable};
use runledger_store::{EventFilter, LogReader, Read};

use super::failure::words;
use crate::failure::Failure;
use crate::server::App;
use crate::show;

/// Bytes of an event's text on a page, at the most.
const TEXT_BYTES_MAX: usize = 1 << 20;

pub(crate) async fn serve(
    State(app): State<Arc<App>>,
    Path(position): Path<String>,
) -> Result<(StatusCode, Markup), Failure> {
    let position = position_of(&position)?;
    let (event, head) = app
        .ledger
        .ask(move |opened| {
            opened.read(|reader| {
                let head = reader.head()?.position;
                match one_event(reader, position) {
                    // The events around one that cannot be read are there all the same.
                    Err(failure) if failure.status == StatusCode::SERVICE_UNAVAILABLE => Ok((Err(failure), head)),
                    found => Ok((Ok(found?), head)),
                }
            })
        })
        .await?;
    let main = html! {
        @match &event { Ok(event) => { (draw(event)) } Err(failure) => { (words(failure)) } }
        (neighbours(position, head))
    };
    let status = event.as_ref().map_or_else(|failure| failure.status, |_| StatusCode::OK);
    Ok((status, super::page(&app, &format!("Event {position}"), "", &main)))
}

fn neighbours(position: Position, head: Position) -> Markup {
    html! {
        nav .pages {
            @if position.0 > 1 { a rel="prev" href={ "/events/" (position.0 - 1) } { "Event before" } }
            @if position < head { a rel="next" href={ "/events/" (position.next()) } { "Event after" } }
        }
    }
}

/// The event at a position, whole.
pub(crate) fn one_event(reader: &LogReader, position: Position) -> Result<RecordedEvent, Failure> {
    let head = reader.head()?.position;
    let before = Position(position.0.saturating_sub(1));
    let batch = reader.read_readable(&EventFilter::default(), before, position, 1, Read::All)?;
    if let Some(unreadable) = batch.unreadable.first() {
        let next = "`runledger verify` says what is wrong with it";
        return Err(Failure::unavailable(format!("the event at {position}: {}", unreadable.source)).with_next(next));
    }
    batch.events.into_iter().next().ok_or_else(|| outside(position, head))
}

/// A position, as an address has it.
pub(crate) fn position_of(text: &str) -> Result<Position, Failure> {
    let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
    number.map(Position).ok_or_else(|| {
        Failure::bad_request(format!("{text} is no position"), "positions are whole numbers, from 1 to the log's head")
    })
}

/// There is no such position.
pub(crate) fn outside(position: Position, head: Position) -> Failure {
    Failure::not_found(
        format!("position {position} is outside the log"),
        format!("the log has the positions 1 to {head}"),
    )
}

fn draw(event: &RecordedEvent) -> Markup {
    let run = event.metadata.run_id.clone().or_else(|| event.stream.run_id());
    let facts = [
        ("stream", Some(format!("{}, version {}", event.stream, event.stream_version))),
        ("id", Some(event.id.to_string())),
        ("occurred", Some(show::time_text(event.occurred_at))),
        ("recorded", Some(show::time_text(event.recorded_at))),
        ("session", event.metadata.session_id.as_ref().map(ToString::to_string)),
        ("harness session", event.metadata.adapter_session_id.as_ref().map(ToString::to_string)),
        ("caused by", event.metadata.causation_id.as_ref().map(ToString::to_string)),
        ("belongs with", event.metadata.correlation_id.clone()),
    ];
    html! {
        h1 { "Event " (event.position) ": " (event.kind) }
        dl .facts {
            @for (name, value) in facts { @if let Some(value) = value { div { dt { (name) } dd { (value) } } } }
            @if let Some(run) = &run {
                div { dt { "run" }
                dd { a href={ "/runs/" (show::encoded(run.as_str())) "?at=" (event.position) } { (run) } } }
            }
        }
        @match &event.content {
            Content::Json(json) => { pre .raw tabindex="0" { (pretty(json)) } }
            Content::Erased => { p .nothing { "What it said was erased." } }
            Content::NotRead => {}
        }
    }
}

/// JSON in lines of its own; as it is where it does not read.
pub(crate) fn pretty(json: &str) -> String {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&readable(json));
    let text = parsed.ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
    let mut text = text.unwrap_or_else(|| json.to_owned());
    if text.len() > TEXT_BYTES_MAX {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str(&format!("\n… {whole} bytes in all; `runledger events` prints them"));
    }
    text
}
