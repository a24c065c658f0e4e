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
//! | `memory`, `tellings`, `rows`, `tables` | where it is kept |
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
mod tellings;
mod text;
mod titles;
mod tool_correlation;
mod tools;
mod web_search;
mod words;
mod workflow;
mod workflow_lifecycle;

use std::collections::HashMap;

use runledger_events::{RecordedEvent, SessionId, readable};

pub use event::{FeedCause, FeedEvent, FeedLevel, FeedUi, WorkflowContext};
pub use run_lifecycle::RunCounters;
pub use tables::{AgentRun, FeedActor};
pub(crate) use words::title;

use runledger_store::Read;

use crate::error::ProjectionError;
use crate::projection::{Fold, Kinds, Projection, Table, Target};
use mapper::{Mapper, Session};
use memory::{Memory, Remembered};
use rows::FeedRow;

/// The read model.
pub(crate) struct Feed;

pub(crate) const NAME: &str = "feed_events";
const RUNS: &str = "runs";
const ACTORS: &str = "actors";
const PLAN_ITEMS: &str = "plan_items";
const RETELLINGS: &str = "feed_retellings";

impl Projection for Feed {
    fn name(&self) -> &'static str {
        NAME
    }

    /// - 2: questions, rules, timers, retries, forks, signals by name.
    /// - 3: entries are counted over all sessions, and stand in that order.
    /// - 4: which facts were told stands in tables of its own, in the order of their telling.
    fn version(&self) -> u32 {
        4
    }

    fn kinds(&self) -> Kinds {
        Kinds::All
    }

    fn reads(&self) -> Read<'static> {
        Read::All
    }

    fn tables(&self) -> &'static [Table] {
        &[
            Table { name: NAME, key: &["entry"] },
            Table { name: RUNS, key: &["session_id", "number"] },
            Table { name: ACTORS, key: &["session_id", "actor_id"] },
            Table { name: PLAN_ITEMS, key: &["session_id", "item"] },
            Table { name: RETELLINGS, key: &["position"] },
            Table { name: memory::SESSIONS, key: &["session_key"] },
            Table { name: memory::TABLE, key: &["session_key", "seam", "key"] },
            Table { name: tellings::TABLE, key: &["session_key", "fact"] },
            Table { name: tellings::CHUNKS, key: &["session_key", "chunk"] },
        ]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../../migrations/projections/feed.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(FeedFold::default())
    }

    fn reset_run(&self, _target: &Target<'_>, _run_id: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// The timelines under way.
#[derive(Default)]
struct FeedFold {
    sessions: HashMap<SessionId, Session>,
    /// What all sessions know of workflow runs; none before the first event.
    workflows: Option<Remembered>,
    last_session_key: i64,
    last_entry: u64,
    /// Sessions that may have something to be written.
    touched: Vec<SessionId>,
    /// While it is being written: the rows that are not, the first one last, each with the place of its session among the
    /// touched ones.
    unwritten: Vec<(usize, FeedRow)>,
}

/// What all sessions know of workflow runs is in the memory of no session: their keys count from 1.
const ALL_SESSIONS: i64 = 0;

/// Bytes of a session in memory beside what it remembers, about.
const SESSION_BYTES: usize = 4096;

impl FeedFold {
    /// The session, which is read or made where it is not known yet.
    fn load(&mut self, target: &Target<'_>, id: &SessionId) -> Result<(), ProjectionError> {
        if self.sessions.contains_key(id) {
            return Ok(());
        }
        let session = match memory::load_state(target, id.as_str())? {
            Some((key, state)) => Session::new(key, Some(state)),
            None => {
                self.last_session_key += 1;
                Session::new(self.last_session_key, None)
            }
        };
        self.sessions.insert(id.clone(), session);
        Ok(())
    }
}

impl Fold for FeedFold {
    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        if self.workflows.is_none() {
            self.last_session_key = memory::last_session_key(target)?;
            self.last_entry = rows::last_entry(target)?;
            self.workflows = Some(Remembered::new(ALL_SESSIONS, self.last_session_key == 0));
        }
        for event in events {
            let Some(id) = &event.metadata.session_id else {
                continue;
            };
            self.load(target, id)?;
            let (Some(session), Some(workflows)) = (self.sessions.get_mut(id), &mut self.workflows) else {
                continue;
            };
            if !std::mem::replace(&mut session.is_touched, true) {
                self.touched.push(id.clone());
            }
            // Of an event whose text was erased its facts are left.
            let json = readable(event.content.json().unwrap_or("{}"));
            let mut mapper = Mapper::new(*target, id, session, &mut self.last_entry);
            mapper.take(event, &json, &mut Memory::new(*target, workflows))?;
        }
        Ok(())
    }

    fn flush(&mut self, target: &Target<'_>, mut left: usize) -> Result<bool, ProjectionError> {
        if self.unwritten.is_empty() {
            for (at, id) in self.touched.iter().enumerate() {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.changes.bytes = 0;
                    let rows = std::mem::take(&mut session.changes.rows);
                    self.unwritten.extend(rows.into_values().map(|row| (at, row)));
                }
            }
            self.unwritten.sort_unstable_by_key(|(_, row)| std::cmp::Reverse(row.entry));
        }
        let rest = self.unwritten.len().saturating_sub(left);
        left -= self.unwritten.len() - rest;
        let rows = self.unwritten.drain(rest..).rev().collect::<Vec<_>>();
        rows::store(target, rows.iter().map(|(at, row)| (self.touched[*at].as_str(), row)))?;
        while let Some(id) = self.touched.last().filter(|_| left > 0 && rest == 0) {
            if let Some(session) = self.sessions.get_mut(id) {
                let retellings = &mut session.changes.retellings;
                let count = retellings.len().min(left);
                tables::store_retellings(target, id, retellings.drain(..count))?;
                left -= count;
                if left == 0 {
                    return Ok(false);
                }
                session.changes.keep_last_run(&session.state.lifecycle);
                let changes = std::mem::take(&mut session.changes);
                let rows = tables::store(target, id, session.key, &session.state, &changes)?;
                // However little may be written: each time something of its memory is.
                left = left.saturating_sub(rows).max(1);
                if !session.remembered.flush(target, &mut left)? {
                    return Ok(false);
                }
                session.is_touched = false;
            }
            self.touched.pop();
        }
        let workflows = match &mut self.workflows {
            Some(workflows) => workflows.flush(target, &mut left)?,
            None => true,
        };
        Ok(workflows && self.touched.is_empty() && self.unwritten.is_empty())
    }

    fn kept_bytes(&self) -> usize {
        let session = |session: &Session| SESSION_BYTES + session.remembered.bytes() + session.changes.bytes;
        let workflows = self.workflows.as_ref().map_or(0, Remembered::bytes);
        self.sessions.values().map(session).sum::<usize>() + workflows
    }
}
