//! Which question a word of the command line means, and how one looks.

use anyhow::Context;
use runledger_events::{
    AppliedRule, AskContext, EventKind, Fields, Position, RecordedEvent, RelayState, RequestId, RequestStatus,
    StreamName, StreamVersion, TimestampMs,
};
use runledger_store::{EventFilter, LogReader, Read, ReadError};
use runledger_workflow::Settled;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exit_code::{No, Usage};
use crate::render;

/// The requests named in a message, at the most.
const LISTED_MAX: usize = 5;
/// Questions read at once.
const BATCH: usize = 1024;

/// The one question that a word means: a position, of the question or of what it is about; the harness's own name of the
/// call; the question's whole name.
pub(crate) fn one_request(reader: &LogReader, word: &str) -> anyhow::Result<RequestId> {
    if let Ok(id) = RequestId::new(word)
        && reader.stream_version(&StreamName::request(&id))? > StreamVersion::EMPTY
    {
        return Ok(id);
    }
    let at_position = word.parse().ok().map(|position| event_at(reader, Position(position))).transpose()?.flatten();
    // What settled a question means it too.
    if let Some(id) = at_position.as_ref().and_then(|event| event.stream.request_id()) {
        return Ok(id);
    }
    let mut found = Vec::new();
    each_request(reader, |event, request| {
        let is_about = at_position.as_ref().is_some_and(|about| {
            request.event_id == about.id && event.metadata.session_id == about.metadata.session_id
        });
        let is_named = request.tool_use_id.as_deref() == Some(word) || request.event_id.as_str() == word;
        if is_about || is_named {
            found.push((request.request_id.clone(), event.position));
        }
    })?;
    match found.as_slice() {
        [(id, _)] => Ok(id.clone()),
        [] if at_position.is_some() => {
            Err(No(format!("nothing was asked about position {word}; `runledger pending` lists what waits")).into())
        }
        [] => Err(No(format!("there is no request {word}; `runledger pending` lists those that wait")).into()),
        several => {
            let shown = several.iter().take(LISTED_MAX);
            let shown: Vec<String> = shown.map(|(id, position)| format!("{id} (position {position})")).collect();
            let more = if several.len() > LISTED_MAX { ", …" } else { "" };
            Err(Usage(format!("{word} fits {} requests: {}{more}", several.len(), shown.join(", "))).into())
        }
    }
}

fn event_at(reader: &LogReader, position: Position) -> Result<Option<RecordedEvent>, ReadError> {
    let Some(before) = position.0.checked_sub(1) else {
        return Ok(None);
    };
    let batch = reader.read(&EventFilter::default(), Position(before), position, 1, Read::Facts)?;
    Ok(batch.events.into_iter().next())
}

fn each_request(
    reader: &LogReader,
    mut take: impl FnMut(&RecordedEvent, &runledger_events::RelayRequest),
) -> Result<(), ReadError> {
    let filter = EventFilter { kinds: Some(vec![EventKind::RelayRequest]), ..EventFilter::default() };
    let head = reader.head()?.position;
    let mut after = Position::START;
    while after < head {
        let batch = reader.read(&filter, after, head, BATCH, Read::Facts)?;
        for event in &batch.events {
            // One that stands elsewhere than at the head of its own stream is somebody's words.
            if let Some(state) = RelayState::initial(event) {
                take(event, &state.request);
            }
        }
        after = batch.scanned_to;
    }
    Ok(())
}

/// A question as JSON has it.
#[derive(Serialize)]
pub(crate) struct RequestView {
    request_id: String,
    position: Position,
    status: RequestStatus,
    question: &'static str,
    tool_name: Option<String>,
    tool_use_id: Option<String>,
    tool_input: Option<Box<RawValue>>,
    cwd: Option<String>,
    event_id: String,
    session_id: Option<String>,
    adapter_session_id: Option<String>,
    run_id: Option<String>,
    agent_id: Option<String>,
    agent_type: Option<String>,
    pattern: Option<String>,
    mode: &'static str,
    rule: Option<AppliedRule>,
    context: Option<AskContext>,
    asked_at: TimestampMs,
    due_at: Option<TimestampMs>,
    on_timeout: &'static str,
    decided_at: Option<TimestampMs>,
    decided_position: Option<Position>,
    decision: Option<String>,
    source: Option<String>,
    decided_by: Option<String>,
    reason: Option<String>,
    scope: Option<String>,
    granted_pattern: Option<String>,
    answers: Option<std::collections::BTreeMap<String, String>>,
}

impl RequestView {
    /// A question as the log has it now.
    pub(crate) fn read(reader: &LogReader, state: &RelayState, settled: Option<&Settled>) -> anyhow::Result<Self> {
        let first =
            event_at_with_content(reader, state.position)?.context("the question is not in the log any more")?;
        let data = first.content.json().and_then(|json| Fields::parse(json).ok()?.object("data"));
        let tool_input = data.as_ref().and_then(|data| data.raw("tool_input"));
        let request = &state.request;
        let decision = state.decision.as_ref();
        Ok(Self {
            request_id: request.request_id.to_string(),
            position: state.position,
            status: state.status,
            question: request.question.as_str(),
            tool_name: request.tool_name.clone(),
            tool_use_id: request.tool_use_id.clone(),
            tool_input: tool_input.map(|json| RawValue::from_string(json.to_owned())).transpose()?,
            cwd: data.as_ref().and_then(|data| data.text("cwd")),
            event_id: request.event_id.to_string(),
            session_id: first.metadata.session_id.as_ref().map(ToString::to_string),
            adapter_session_id: first.metadata.adapter_session_id.as_ref().map(ToString::to_string),
            run_id: first.metadata.run_id.as_ref().map(ToString::to_string),
            agent_id: first.facts.agent_id.clone(),
            agent_type: first.facts.agent_type.clone(),
            pattern: request.pattern.clone(),
            mode: request.mode.as_str(),
            rule: request.rule.clone(),
            context: request.context.clone(),
            asked_at: state.asked_at,
            due_at: request.due_at,
            on_timeout: request.on_timeout.as_str(),
            decided_at: state.settled_at,
            decided_position: state.settled_position,
            decision: decision.and_then(|decision| decision.intent.clone()),
            source: decision.and_then(|decision| decision.source.clone()),
            decided_by: decision.and_then(|decision| decision.by.clone()),
            reason: settled.and_then(|settled| settled.reason.clone()),
            scope: decision.and_then(|decision| decision.scope.clone()),
            granted_pattern: decision.and_then(|decision| decision.pattern.clone()),
            answers: settled.map(|settled| settled.answers.clone()).filter(|answers| !answers.is_empty()),
        })
    }
}

fn event_at_with_content(reader: &LogReader, position: Position) -> Result<Option<RecordedEvent>, ReadError> {
    let before = Position(position.0.saturating_sub(1));
    Ok(reader.read(&EventFilter::default(), before, position, 1, Read::All)?.events.into_iter().next())
}

/// Who settled a question, how and when, for a person.
pub(crate) fn settled_in_words(settled: &Settled) -> String {
    let who = match (&settled.by, settled.source.as_deref()) {
        (Some(by), Some("user") | None) => format!(" by {by}"),
        (Some(by), Some(source)) => format!(" by {by} ({source})"),
        (None, Some(source)) => format!(" by {source}"),
        (None, None) => String::new(),
    };
    let why = settled.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{who} at {} (position {}){why}", settled.status, render::time(settled.at), settled.position)
}
