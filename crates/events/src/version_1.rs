//! Facts of codec version 1 as version 2 has them: what was written before there were forks, retries and permissions.
//!
//! Version 2 has more fields in a decision, a run's start and two phases of an iteration. What stands before and behind
//! them is the same in both, so it is copied as it is.

use bincode::config;
use bincode::error::{DecodeError, EncodeError};

use crate::codec::{CodecError, FACTS_BYTES_MAX, PayloadPart};
use crate::ids::{AdapterSessionId, EventId, RunId, SessionId};
use crate::iteration_state::IterationOutcome;
use crate::position::{Position, TimestampMs};
use crate::tokens::Tokens;
use crate::workflow_event::{
    Carried, Continuation, IterationEnd, IterationSession, IterationStart, Owner, TrackerFacts, WorkflowIteration,
    WorkflowStart,
};
use crate::{DecisionFacts, KindFacts};

/// What stands before the kind's own facts: `agent_id`, `agent_type`, `expects_decision`.
type Head = (Option<String>, Option<String>, bool);

/// The places in `KindFacts` of the kinds that have more fields now; those of the others are the same.
const DECISION: u32 = 20;
const WORKFLOW_START: u32 = 21;
const WORKFLOW_ITERATION: u32 = 23;

#[derive(bincode::Decode)]
struct Decision {
    event_id: EventId,
    decision_type: Option<String>,
    source: Option<String>,
    intent: Option<String>,
}

#[derive(bincode::Decode)]
struct Start {
    run_id: RunId,
    session_id: SessionId,
    workflow_name: Option<String>,
    harness: Option<String>,
    max_iterations: u32,
    tracker_path: Option<String>,
    parent_run_id: Option<RunId>,
    forked_at: Option<Position>,
    attempt: u32,
    deadline_at: Option<TimestampMs>,
    owner: Option<Owner>,
}

#[derive(bincode::Decode)]
enum Iteration {
    Start { iteration: u32, continuation: Continuation },
    Session(IterationSession),
    End(End),
}

#[derive(bincode::Decode)]
struct End {
    iteration: u32,
    outcome: IterationOutcome,
    exit_code: Option<i32>,
    error: Option<String>,
    tokens: Tokens,
    tracker: Option<TrackerFacts>,
    adapter_session_id: Option<AdapterSessionId>,
}

/// Brings a payload body of version 1 to version 2. Content is the same in both.
pub(crate) fn upcast(part: PayloadPart, body: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    if part == PayloadPart::Content {
        return Ok(body);
    }
    let damaged = |error: DecodeError| CodecError::Damaged { part, detail: error.to_string() };
    let (_, head): (Head, usize) = bincode::decode_from_slice(&body, limited()).map_err(damaged)?;
    let (kind, kind_bytes): (u32, usize) = bincode::decode_from_slice(&body[head..], limited()).map_err(damaged)?;
    let rest = &body[head + kind_bytes..];
    let (facts, read) = match kind {
        DECISION => decode(rest, |old: Decision| KindFacts::Decision(old.into())).map_err(damaged)?,
        WORKFLOW_START => decode(rest, |old: Start| KindFacts::WorkflowStart(Box::new(old.into()))).map_err(damaged)?,
        WORKFLOW_ITERATION => {
            decode(rest, |old: Iteration| KindFacts::WorkflowIteration(old.into())).map_err(damaged)?
        }
        _ => return Ok(body),
    };
    let mut new = body[..head].to_vec();
    bincode::encode_into_std_write(&facts, &mut new, config::standard())
        .map_err(|source: EncodeError| CodecError::Encode { part, source })?;
    // What stands behind is for the reader to refuse.
    new.extend_from_slice(&rest[read..]);
    Ok(new)
}

/// A damaged length must not make us take that memory.
fn limited() -> impl config::Config {
    config::standard().with_limit::<FACTS_BYTES_MAX>()
}

fn decode<T: bincode::Decode<()>>(
    bytes: &[u8],
    into: impl FnOnce(T) -> KindFacts,
) -> Result<(KindFacts, usize), DecodeError> {
    let (old, read) = bincode::decode_from_slice(bytes, limited())?;
    Ok((into(old), read))
}

impl From<Decision> for DecisionFacts {
    fn from(old: Decision) -> Self {
        let Decision { event_id, decision_type, source, intent } = old;
        Self { event_id, decision_type, source, intent, scope: None, pattern: None, by: None, rule: None }
    }
}

impl From<Start> for WorkflowStart {
    fn from(old: Start) -> Self {
        Self {
            run_id: old.run_id,
            session_id: old.session_id,
            workflow_name: old.workflow_name,
            harness: old.harness,
            max_iterations: old.max_iterations,
            tracker_path: old.tracker_path,
            parent_run_id: old.parent_run_id,
            forked_at: old.forked_at,
            attempt: old.attempt,
            deadline_at: old.deadline_at,
            owner: old.owner,
            forked_from: None,
            iteration: 0,
            policy: None,
        }
    }
}

impl From<Iteration> for WorkflowIteration {
    fn from(old: Iteration) -> Self {
        match old {
            Iteration::Start { iteration, continuation } => {
                Self::Start(IterationStart { iteration, continuation, retry: None, carried: Carried::default() })
            }
            Iteration::Session(session) => Self::Session(session),
            Iteration::End(End { iteration, outcome, exit_code, error, tokens, tracker, adapter_session_id }) => {
                Self::End(IterationEnd {
                    iteration,
                    outcome,
                    exit_code,
                    error,
                    tokens,
                    tracker,
                    adapter_session_id,
                    retry: None,
                })
            }
        }
    }
}
