//! What was asked and denied while a turn ran, and what somebody signalled: read from the log, for what follows.

use std::collections::HashSet;

use runledger_events::{
    EventKind, Fields, KindFacts, Metadata, Position, RecordedEvent, RelayState, RequestId, RequestStatus, StreamName,
    StreamVersion, readable,
};
use runledger_store::{AppendError, EventFilter, ExpectedVersion, ReadError};

use crate::decide::Denial;
use crate::desk::{RunWriter, now};
use crate::error::RunError;
use crate::relay::RelayLogError;
use crate::relay::decision_event::withdrawn_event;

/// How much of a tool's input the next prompt says, in characters.
const INPUT_CHARS_MAX: usize = 400;
/// Denials that the next prompt lists, at the most.
const DENIALS_MAX: usize = 20;

/// What the run's events of these kinds tell since a position, in the order of the log.
fn since(writer: &RunWriter, after: Position, kinds: &[EventKind]) -> Result<Vec<RecordedEvent>, ReadError> {
    let filter =
        EventFilter { run: Some(writer.run_id().clone()), kinds: Some(kinds.to_vec()), ..EventFilter::default() };
    writer.journal().read(&filter, after)
}

/// What was denied in the open iteration: by a rule, by somebody, for want of an answer, or by the harness itself.
pub(crate) fn denied(writer: &RunWriter) -> Result<Vec<Denial>, ReadError> {
    let events = since(
        writer,
        writer.asked_since(),
        &[EventKind::Decision, EventKind::PermissionDenied, EventKind::RelayRequest],
    )?;
    let mut denials = Vec::new();
    let mut calls = HashSet::new();
    for event in &events {
        let denial = match &event.facts.data {
            // A decision that holds for the run, or for the workflow, is told in the question's own stream too.
            KindFacts::Decision(_) if event.stream.run_id().is_some() || event.stream.is_rules() => continue,
            KindFacts::Decision(decision) => {
                let is_denial = decision.intent.as_deref() == Some("permission_deny")
                    && decision.decision_type.as_deref() != Some(runledger_events::EXPIRED);
                if !is_denial {
                    continue;
                }
                let asked = match event.stream.request_id() {
                    Some(_) => first_of(writer, &event.stream)?,
                    None => Some(event.clone()),
                };
                let by = decision.by.as_deref().or(decision.source.as_deref());
                (asked.as_ref().map(Call::of).unwrap_or_default(), reason_of(event), by.map(str::to_owned))
            }
            KindFacts::Permission { .. } if event.kind == EventKind::PermissionDenied => {
                (Call::of(event), reason_of(event), Some("the harness".to_owned()))
            }
            _ => continue,
        };
        let (call, reason, by) = denial;
        // The harness may tell of what a hook denied.
        let is_new = call.tool_use_id.as_ref().is_none_or(|id| calls.insert(id.clone()));
        if is_new && denials.len() < DENIALS_MAX {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let by = by.map(|by| format!(" (by {by})")).unwrap_or_default();
            denials.push(Denial { event_id: event.id.clone(), words: format!("{}{reason}{by}", call.words()) });
        }
    }
    Ok(denials)
}

/// The call that an event is about.
#[derive(Default)]
struct Call {
    tool_name: Option<String>,
    tool_use_id: Option<String>,
    input: Option<String>,
}

impl Call {
    fn of(event: &RecordedEvent) -> Self {
        let text = readable(event.content.json().unwrap_or("{}"));
        let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data")).unwrap_or_default();
        let input = data.object("tool_input").and_then(|input| {
            ["command", "file_path", "path", "url", "pattern"].iter().find_map(|name| input.text(name))
        });
        Self {
            tool_name: data.text("tool_name"),
            tool_use_id: data.text("tool_use_id"),
            input: input.or_else(|| data.raw("tool_input").map(str::to_owned)),
        }
    }

    fn words(&self) -> String {
        let name = self.tool_name.as_deref().unwrap_or("a call");
        match &self.input {
            Some(input) => {
                let cut: String = input.chars().take(INPUT_CHARS_MAX).collect();
                let more = if cut.len() < input.len() { "…" } else { "" };
                format!("{name}({cut}{more})")
            }
            None => name.to_owned(),
        }
    }
}

fn reason_of(event: &RecordedEvent) -> Option<String> {
    let text = readable(event.content.json()?);
    let data = Fields::parse(&text).ok()?.object("data")?;
    let decision = data.object("decision");
    let of_intent = decision.as_ref().and_then(|decision| decision.object("intent")?.text("reason"));
    let of_rule = decision.as_ref().and_then(|decision| decision.object("rule")?.text("reason"));
    of_intent.or(of_rule).or_else(|| data.text("reason")).filter(|reason| !reason.trim().is_empty())
}

fn first_of(writer: &RunWriter, stream: &StreamName) -> Result<Option<RecordedEvent>, ReadError> {
    let filter = EventFilter { stream: Some(stream.clone()), ..EventFilter::default() };
    Ok(writer.journal().read(&filter, Position::START)?.into_iter().next())
}

/// The named signals that no turn was told of, in words for the next prompt, and how far they were looked for.
pub(crate) fn signals(writer: &RunWriter) -> Result<(Vec<String>, Position), ReadError> {
    let after = writer.untold_since();
    let events = since(writer, after, &[EventKind::Decision])?;
    let told_to = events.last().map_or(after, |event| event.position);
    let told = events.iter().filter(|event| event.stream.run_id().is_some()).filter_map(|event| {
        let text = readable(event.content.json()?);
        let intent = Fields::parse(&text).ok()?.object("data")?.object("decision")?.object("intent")?;
        if intent.text("kind").as_deref() != Some("workflow_signal") {
            return None;
        }
        let name = intent.text("name")?;
        Some(match intent.raw("data") {
            Some(data) => format!("{name}: {data}"),
            None => name,
        })
    });
    Ok((told.collect(), told_to))
}

/// What the last iteration's end says of denials, for the prompt of the next one.
pub(crate) fn denied_before(writer: &RunWriter, end: Position) -> Result<Vec<String>, ReadError> {
    let before = Position(end.0.saturating_sub(1));
    let events = since(writer, before, &[EventKind::WorkflowIteration])?;
    let end = events.first().filter(|event| event.position == end);
    let text = readable(end.and_then(|event| event.content.json()).unwrap_or("{}"));
    let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data")).unwrap_or_default();
    Ok(data.list("denied").unwrap_or_default().into_iter().filter_map(runledger_events::as_text).collect())
}

/// How a question stands.
pub(crate) fn question(writer: &RunWriter, request_id: &RequestId) -> Result<Option<RelayState>, ReadError> {
    let events = writer.journal().read_stream(&StreamName::request(request_id), StreamVersion::EMPTY)?;
    Ok(RelayState::fold(&events))
}

/// Which questions of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which<'a> {
    /// Those of the open iteration, whose turn is over: all but the one that it ended for.
    OfTurn(Option<&'a RequestId>),
    /// All of the run.
    All,
}

/// Withdraws questions of a run that are still open. A run without rules asks nothing.
pub(crate) fn withdraw(writer: &mut RunWriter, which: Which<'_>, reason: &str) -> Result<(), RunError> {
    // A newer owner's questions are not ours to withdraw.
    writer.look()?;
    let policy = writer.state().and_then(|state| state.policy.as_deref());
    if policy.is_none_or(|policy| policy.permissions.is_none()) {
        return Ok(());
    }
    let read = |source| RunError::Read { run_id: writer.run_id().clone(), source };
    let after = if which == Which::All { Position::START } else { writer.asked_since() };
    for event in since(writer, after, &[EventKind::RelayRequest]).map_err(read)? {
        let Some(request_id) = event.stream.request_id() else {
            continue;
        };
        let Some(state) = question(writer, &request_id).map_err(read)? else {
            continue;
        };
        let is_kept = matches!(which, Which::OfTurn(Some(kept)) if *kept == request_id);
        if state.status != RequestStatus::Pending || is_kept {
            continue;
        }
        let metadata = Metadata { causation_id: Some(event.id.clone()), ..event.metadata.clone() };
        let stream = StreamName::request(&request_id);
        let withdrawn = withdrawn_event(&request_id, reason, now(), metadata).and_then(|event| {
            Ok(writer.journal().append(&stream, ExpectedVersion::Exact(state.version), vec![event])?)
        });
        match withdrawn {
            // Somebody has answered in between, or the log takes nothing now: it is answered by its time limit.
            Ok(_) | Err(RelayLogError::Append(AppendError::WrongExpectedVersion(_))) => {}
            Err(error) => tracing::warn!(%request_id, %error, "a question could not be withdrawn"),
        }
    }
    Ok(())
}
