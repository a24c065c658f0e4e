//! The feed: the timeline of every ledger session, a pure fold of the log; with its runs, its actors and its plan.
//!
//! | part | what it knows |
//! | --- | --- |
//! | `run_lifecycle` | RunLifecycle: session and run identity, `seq`, counters, how a run ended |
//! | `tool_correlation` | ToolCorrelation: which entry began a tool call |
//! | `decision_correlation` | DecisionCorrelation: which entry a decision is on |
//! | `agent_messages` | AgentMessageStream: messages in pieces, and messages said twice |
//! | `root_plan` | RootPlanTracker: the main agent's plan |
//! | `subagents` | SubagentTracker: which subagents are at work |
//! | `workflow_lifecycle` | WorkflowLifecycle: workflow run, iteration and state of an event |
//! | `retelling` | which facts were told by whom: one fact is one entry |
//! | `call_names` | CallNames: which call of Codex's output is which call of its hooks and rollout |
//! | `mapper` and `sessions`, `messages`, `tools`, `web_search`, `harness`, `notifications`, `decisions`, `relays`, `workflow` | events of each kind into entries |
//! | `words` | titles to search by |
//! | `memory`, `rows`, `tables` | where it is kept |
//!
//! Where the entries differ from the reference's on purpose: docs/decisions/0014-feed.md.

mod agent_messages;
mod call_names;
mod decision_correlation;
mod decisions;
mod event;
mod harness;
mod incoming;
mod mapper;
mod memory;
mod messages;
mod notifications;
mod relays;
mod retelling;
mod root_plan;
pub(crate) mod rows;
mod run_lifecycle;
mod sessions;
mod subagents;
pub(crate) mod tables;
mod text;
mod titles;
mod tool_correlation;
mod tools;
mod web_search;
mod words;
mod workflow;
mod workflow_lifecycle;

use std::collections::BTreeMap;

use runledger_events::{RecordedEvent, SessionId, readable};

pub use event::{FeedCause, FeedEvent, FeedLevel, FeedUi, WorkflowContext};
pub use run_lifecycle::RunCounters;
pub use tables::{AgentRun, FeedActor};
pub(crate) use words::title;

use runledger_store::Read;

use crate::error::ProjectionError;
use crate::projection::{Kinds, Projection, Table, Target};
use mapper::Mapper;
use memory::Memory;

/// The read model.
pub(crate) struct Feed;

pub(crate) const NAME: &str = "feed_events";
const RUNS: &str = "runs";
const ACTORS: &str = "actors";
const PLAN_ITEMS: &str = "plan_items";
const RETELLINGS: &str = "feed_retellings";

/// What all sessions know of workflow runs is in the memory of no session: a session's id is never empty.
const ALL_SESSIONS: &str = "";

impl Projection for Feed {
    fn name(&self) -> &'static str {
        NAME
    }

    /// 2: questions, rules, timers, retries, forks, signals by name.
    fn version(&self) -> u32 {
        2
    }

    fn kinds(&self) -> Kinds {
        Kinds::All
    }

    fn reads(&self) -> Read {
        Read::All
    }

    fn tables(&self) -> &'static [Table] {
        &[
            Table { name: NAME, key: &["session_id", "seq"] },
            Table { name: RUNS, key: &["session_id", "number"] },
            Table { name: ACTORS, key: &["session_id", "actor_id"] },
            Table { name: PLAN_ITEMS, key: &["session_id", "item"] },
            Table { name: RETELLINGS, key: &["position"] },
            Table { name: memory::SESSIONS, key: &["session_id"] },
            Table { name: memory::TABLE, key: &["session_id", "seam", "key"] },
        ]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../../migrations/projections/feed.sql")
    }

    fn apply(&self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let sessions: Vec<&SessionId> = events.iter().filter_map(|event| event.metadata.session_id.as_ref()).collect();
        let mut workflows = Memory::new(*target, ALL_SESSIONS);
        let mut mappers: BTreeMap<&SessionId, Mapper<'_>> = BTreeMap::new();
        for session in sessions {
            if !mappers.contains_key(session) {
                let state = memory::load_state(target, session.as_str())?;
                mappers.insert(session, Mapper::new(*target, session, state)?);
            }
        }
        for event in events {
            let mapper = event.metadata.session_id.as_ref().and_then(|session| mappers.get_mut(session));
            if let Some(mapper) = mapper {
                // Of an event whose text was erased its facts are left.
                let json = readable(event.content.json().unwrap_or("{}"));
                mapper.take(event, &json, &mut workflows)?;
            }
        }
        for mapper in mappers.into_values() {
            mapper.flush()?;
        }
        workflows.flush()
    }

    fn reset_run(&self, _target: &Target<'_>, _run_id: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}
