//! The mapper: takes the events of one ledger session in order, and gives its timeline.
//!
//! Pure: what it gives depends on the events before alone, never on where a batch ends. What it knows is in the state and
//! the memory of the session, in the projection's own tables. Each `impl Mapper` beside this file maps some of the kinds.

use std::collections::BTreeMap;

use runledger_events::{EventKind, NOTE_PREFIX, ObjectText, Position, RecordedEvent, SessionId, Source};
use serde::{Deserialize, Serialize};

use super::agent_messages;
use super::event::{FeedCause, FeedLevel, WorkflowContext};
use super::incoming::Incoming;
use super::memory::{Memory, Remembered};
use super::retelling::{self, Telling};
use super::rows::{self, FeedRow};
use super::run_lifecycle::{AdapterIdentity, Ending, Opening, RunLifecycle, RunRecord, Teller, Trigger};
use super::subagents::{ROOT, SubagentTracker, actor_of};
use super::{decision_correlation, text, titles, tool_correlation, workflow_lifecycle};
use crate::error::ProjectionError;
use crate::projection::Target;

/// What is known of a session, beside its memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct SessionState {
    pub(super) lifecycle: RunLifecycle,
    pub(super) subagents: SubagentTracker,
    /// Messages that began to stream: the order in which they did.
    pub(super) messages_begun: u64,
    /// Actors told of so far.
    pub(super) actors: u64,
}

/// An actor that a session has.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub(super) order: u64,
    pub(super) actor_id: String,
    pub(super) kind: &'static str,
    pub(super) display_name: String,
    pub(super) agent_type: Option<String>,
    pub(super) parent_actor_id: Option<&'static str>,
}

/// What is not written yet of the tables, beside state and memory.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) rows: BTreeMap<u64, FeedRow>,
    pub(super) runs: BTreeMap<u64, RunRecord>,
    /// Failures that runs before the last one have more, or less, than was written of them, by the run's id.
    pub(super) failures: Vec<(String, i64)>,
    pub(super) actors: Vec<Actor>,
    /// The plan's items, JSON text each; none where it did not change.
    pub(super) plan: Option<Vec<String>>,
    /// Events that are shown by a feed event of another one.
    pub(super) retellings: Vec<(Position, u64)>,
    /// Bytes of the rows, about.
    pub(super) bytes: usize,
}

impl Changes {
    pub(super) fn put(&mut self, row: FeedRow) {
        self.bytes += row.bytes();
        self.rows.insert(row.seq, row);
    }

    /// Keeps the last run for writing: when another one takes its place, and before everything is written.
    pub(super) fn keep_last_run(&mut self, lifecycle: &RunLifecycle) {
        if let Some(run) = lifecycle.last() {
            self.runs.insert(run.number, run.clone());
        }
    }

    fn tell_again(&mut self, position: Position, seq: u64) {
        self.bytes += size_of::<(Position, u64)>();
        self.retellings.push((position, seq));
    }
}

/// One entry before it has its place.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) level: FeedLevel,
    pub(super) actor_id: String,
    pub(super) title: String,
    pub(super) data: ObjectText,
    pub(super) tool_use_id: Option<String>,
    pub(super) parent_event_id: Option<String>,
    pub(super) is_collapsed: bool,
}

impl Draft {
    /// Of the harness itself.
    pub(super) fn new(kind: &'static str, title: impl Into<String>, data: ObjectText) -> Self {
        Self {
            kind,
            level: FeedLevel::Info,
            actor_id: "system".to_owned(),
            title: title.into(),
            data,
            tool_use_id: None,
            parent_event_id: None,
            is_collapsed: false,
        }
    }

    pub(super) fn by(mut self, actor_id: impl Into<String>) -> Self {
        self.actor_id = actor_id.into();
        self
    }

    pub(super) fn level(mut self, level: FeedLevel) -> Self {
        self.level = level;
        self
    }

    pub(super) fn of_tool(mut self, tool_use_id: Option<String>) -> Self {
        self.tool_use_id = tool_use_id;
        self
    }

    pub(super) fn after(mut self, event_id: Option<String>) -> Self {
        self.parent_event_id = event_id;
        self
    }

    pub(super) fn collapsed(mut self) -> Self {
        self.is_collapsed = true;
        self
    }
}

/// What the fold keeps of one session.
pub(super) struct Session {
    pub(super) key: i64,
    pub(super) state: SessionState,
    pub(super) remembered: Remembered,
    pub(super) changes: Changes,
    /// Whether anything of it may have to be written.
    pub(super) is_touched: bool,
}

impl Session {
    /// One that had this state, or a new one.
    pub(super) fn new(key: i64, state: Option<SessionState>) -> Self {
        let remembered = Remembered::new(key, state.is_none());
        let mut changes = Changes::default();
        let is_new = state.is_none();
        let mut state = state.unwrap_or_default();
        if is_new {
            for (actor_id, kind, display_name) in
                [("user", "user", "You"), (ROOT, "agent", "Claude"), ("system", "system", "System")]
            {
                state.actors += 1;
                changes.actors.push(Actor {
                    order: state.actors,
                    actor_id: actor_id.to_owned(),
                    kind,
                    display_name: display_name.to_owned(),
                    agent_type: None,
                    parent_actor_id: None,
                });
            }
        }
        Self { key, state, remembered, changes, is_touched: false }
    }
}

/// Maps one event of a session.
pub(super) struct Mapper<'a> {
    pub(super) target: Target<'a>,
    pub(super) session_id: &'a SessionId,
    pub(super) state: &'a mut SessionState,
    pub(super) memory: Memory<'a>,
    pub(super) changes: &'a mut Changes,
    /// The number of the feed's last entry.
    last_entry: &'a mut u64,
    /// The workflow context of the event that is being taken.
    context: Option<WorkflowContext>,
}

impl<'a> Mapper<'a> {
    pub(super) fn new(
        target: Target<'a>,
        session_id: &'a SessionId,
        session: &'a mut Session,
        last_entry: &'a mut u64,
    ) -> Self {
        let memory = Memory::new(target, &mut session.remembered);
        let (state, changes) = (&mut session.state, &mut session.changes);
        Self { target, session_id, state, memory, changes, last_entry, context: None }
    }

    pub(super) fn add_actor(
        &mut self,
        actor_id: String,
        kind: &'static str,
        display_name: String,
        agent_type: Option<String>,
        parent_actor_id: Option<&'static str>,
    ) {
        self.state.actors += 1;
        let order = self.state.actors;
        self.changes.actors.push(Actor { order, actor_id, kind, display_name, agent_type, parent_actor_id });
    }

    /// Takes one event. `workflows` is what all sessions know of workflow runs.
    pub(super) fn take(
        &mut self,
        event: &RecordedEvent,
        json: &str,
        workflows: &mut Memory<'_>,
    ) -> Result<(), ProjectionError> {
        if event.id.as_str().starts_with(NOTE_PREFIX) {
            return Ok(());
        }
        let incoming = Incoming::new(event, json);
        if event.kind.is_workflow() {
            workflow_lifecycle::take(workflows, event)?;
        }
        self.context = workflow_lifecycle::context(workflows, event)?;
        self.meet(&incoming);
        self.map(&incoming)
    }

    /// Takes an adapter session for the current one where none was started: not every source tells of starts, nor tells of
    /// them first.
    fn meet(&mut self, event: &Incoming<'_>) {
        if event.source != Source::Runtime
            && event.adapter_session_id().is_some()
            && self.state.lifecycle.adapter.is_none()
        {
            self.state.lifecycle.adapter = Some(AdapterIdentity::met(event.session_id(), event.event.occurred_at));
        }
    }

    fn map(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        use EventKind as K;
        match &event.event.kind {
            K::SessionStart => self.session_start(event),
            K::SessionEnd => self.session_end(event),
            K::UserPrompt => self.user_prompt(event),
            K::TurnStart => self.turn_start(event),
            K::TurnComplete => self.turn_complete(event),
            K::MessageDelta => self.message_delta(event),
            K::MessageComplete => self.message_complete(event),
            K::PlanDelta => self.plan_delta(event),
            K::ReasoningDelta => self.reasoning_delta(event),
            K::UsageUpdate => self.usage_update(event),
            K::ToolPre => self.tool_pre(event),
            K::ToolDelta => self.tool_delta(event),
            K::ToolPost | K::ToolFailure => self.tool_result(event),
            K::PermissionRequest => self.permission_request(event),
            K::PermissionDenied => self.permission_denied(event),
            K::StopRequest => self.stop_request(event),
            K::SubagentStart => self.subagent_start(event),
            K::SubagentStop => self.subagent_stop(event),
            K::Notification => self.notification(event),
            K::Decision => self.decision(event),
            K::WorkflowStart | K::WorkflowTransition | K::WorkflowIteration | K::WorkflowEnd => self.workflow(event),
            K::RelayRequest => self.relay_request(event),
            K::RelayWithdrawn => self.relay_withdrawn(event),
            // The answer's entry is there already; that the harness got it is for the next call to know.
            K::RelayDelivered => Ok(()),
            K::TimerScheduled | K::TimerFired => self.timer(event),
            K::Unknown | K::Other(_) => self.unknown(event),
            _ => self.harness(event),
        }
    }

    /// Gives an entry its place, and says which: its `seq` and its id.
    pub(super) fn emit(&mut self, event: &Incoming<'_>, draft: Draft) -> Result<(u64, String), ProjectionError> {
        let open = self.state.lifecycle.open().filter(|_| event.source != Source::Runtime);
        let run_id = open.map_or_else(|| self.state.lifecycle.run_id(), |run| run.run_id.clone());
        self.emit_of_run(event, draft, run_id)
    }

    /// Gives an entry its place in a run of its own.
    pub(super) fn emit_of_run(
        &mut self,
        event: &Incoming<'_>,
        draft: Draft,
        run_id: String,
    ) -> Result<(u64, String), ProjectionError> {
        let seq = self.state.lifecycle.next_seq();
        let event_id = format!("{run_id}:E{seq}");
        if event.event.facts.expects_decision || matches!(draft.kind, "permission.request" | "stop.request") {
            decision_correlation::requested(&mut self.memory, event.id(), &event_id, draft.kind)?;
        }
        *self.last_entry += 1;
        let row = FeedRow {
            entry: *self.last_entry,
            is_written: false,
            seq,
            first_position: event.event.position,
            position: event.event.position,
            ts: event.event.occurred_at,
            adapter_session_id: event.session_id().to_owned(),
            run_id,
            kind: draft.kind.to_owned(),
            level: draft.level,
            actor_id: draft.actor_id,
            cause: FeedCause {
                hook_request_id: Some(event.id().to_owned()),
                transcript_path: event.transcript_path(),
                tool_use_id: draft.tool_use_id,
                parent_event_id: draft.parent_event_id,
            },
            title: shown_title(event, draft.title),
            data: draft.data.finish(),
            display: event.display_json().map(str::to_owned),
            is_collapsed: draft.is_collapsed,
            output: None,
            workflow: self.context.clone(),
        };
        self.changes.put(row);
        Ok((seq, event_id))
    }

    /// Whether a fact was told before, by this adapter session.
    pub(super) fn tell(
        &mut self,
        event: &Incoming<'_>,
        fact: &str,
        teller: Teller,
    ) -> Result<Telling, ProjectionError> {
        retelling::tell(&mut self.memory, event.session_id(), fact, teller)
    }

    /// Notes which entry shows a fact.
    pub(super) fn shown(
        &mut self,
        event: &Incoming<'_>,
        fact: &str,
        teller: Teller,
        seq: u64,
    ) -> Result<(), ProjectionError> {
        retelling::shown(&mut self.memory, event.session_id(), fact, teller, seq)
    }

    /// Shows an entry, but only once for all who tell of its fact; says where, if it is new.
    pub(super) fn emit_once(
        &mut self,
        event: &Incoming<'_>,
        fact: &str,
        draft: Draft,
    ) -> Result<Option<(u64, String)>, ProjectionError> {
        let teller = Teller::from(event.source);
        match self.tell(event, fact, teller)? {
            Telling::Again { seq, is_better } => {
                self.retell(event, seq, is_better.then_some(draft))?;
                Ok(None)
            }
            Telling::New => {
                let place = self.emit(event, draft)?;
                self.shown(event, fact, teller, place.0)?;
                Ok(Some(place))
            }
        }
    }

    /// Notes that an event tells again what an entry shows; in better words, where there are some.
    pub(super) fn retell(
        &mut self,
        event: &Incoming<'_>,
        seq: u64,
        better: Option<Draft>,
    ) -> Result<(), ProjectionError> {
        let Some(draft) = better else {
            self.changes.tell_again(event.event.position, seq);
            return Ok(());
        };
        let row = match self.changes.rows.remove(&seq) {
            Some(row) => Some(row),
            None => rows::load(&self.target, self.session_id.as_str(), seq)?,
        };
        let Some(mut row) = row else {
            return Ok(());
        };
        self.changes.tell_again(row.position, seq);
        self.recount(&row, draft.kind);
        row.position = event.event.position;
        row.kind = draft.kind.to_owned();
        row.level = draft.level;
        row.actor_id = draft.actor_id;
        row.title = shown_title(event, draft.title);
        row.data = draft.data.finish();
        row.display = event.display_json().map(str::to_owned);
        row.cause.hook_request_id = Some(event.id().to_owned());
        row.cause.transcript_path = event.transcript_path().or(row.cause.transcript_path);
        row.cause.tool_use_id = draft.tool_use_id.or(row.cause.tool_use_id);
        row.workflow = self.context.clone().or(row.workflow);
        self.changes.put(row);
        Ok(())
    }

    /// A result that turns out to be no failure, or to be one, changes its run's counters.
    fn recount(&mut self, row: &FeedRow, kind: &str) {
        let failures = i64::from(kind == "tool.failure") - i64::from(row.kind == "tool.failure");
        match self.state.lifecycle.last_mut().filter(|run| run.run_id == row.run_id) {
            Some(run) => run.counters.tool_failures = run.counters.tool_failures.saturating_add_signed(failures),
            None if failures != 0 => self.changes.failures.push((row.run_id.clone(), failures)),
            None => {}
        }
    }

    /// Sees to it that a run is open; a trigger other than `Other` always opens a new one.
    pub(super) fn ensure_run(
        &mut self,
        event: &Incoming<'_>,
        trigger: Trigger,
        prompt_preview: Option<&str>,
    ) -> Result<(), ProjectionError> {
        if trigger == Trigger::Other && (self.state.lifecycle.open().is_some() || !self.may_open(event)) {
            return Ok(());
        }
        if let Some(run) = self.state.lifecycle.open() {
            let ending = run.ending_when_overtaken(trigger);
            self.close_run(event, ending)?;
        }
        tool_correlation::reset(&mut self.memory);
        decision_correlation::reset(&mut self.memory);
        agent_messages::reset(&mut self.memory);
        self.state.subagents.reset();
        self.changes.keep_last_run(&self.state.lifecycle);
        self.state.lifecycle.start(&Opening {
            session_id: event.session_id(),
            at: event.event.occurred_at,
            trigger,
            prompt_preview,
            opened_by: Teller::from(event.source),
            workflow_run_id: self.context.as_ref().map(|context| context.run_id.to_string()),
        });
        let told = ObjectText::new().text("type", trigger.as_str()).text("prompt_preview", prompt_preview).finish();
        let data = ObjectText::new().raw("trigger", told.as_str());
        self.emit(event, Draft::new("run.start", titles::run_started(prompt_preview), data))?;
        Ok(())
    }

    /// Whether an event that is no prompt may open a run.
    ///
    /// To the reference any may. Of what our adapters tell, those may that are work, and that are no late news.
    fn may_open(&self, event: &Incoming<'_>) -> bool {
        use EventKind as K;
        if event.source == Source::Runtime {
            return true;
        }
        let is_work = matches!(
            event.event.kind,
            K::ToolPre
                | K::ToolDelta
                | K::ToolPost
                | K::ToolFailure
                | K::MessageComplete
                | K::PermissionRequest
                | K::SubagentStart
                | K::TurnStart
        );
        is_work && !self.is_late(event)
    }

    /// Whether an event is late news of what another source has told already: of a run that is over, of a session that has
    /// ended, or out of a record that is read afterwards.
    pub(super) fn is_late(&self, event: &Incoming<'_>) -> bool {
        let teller = Teller::from(event.source);
        let lifecycle = &self.state.lifecycle;
        let has_ended = lifecycle
            .adapter
            .as_ref()
            .is_some_and(|adapter| adapter.session_id == event.session_id() && adapter.ended_at.is_some());
        let is_told_by_others = |by: Teller| by != Teller::Runtime && by != teller;
        lifecycle.last().is_some_and(|run| {
            let is_over = run.ended_at.is_some_and(|ended_at| event.event.occurred_at <= ended_at);
            is_told_by_others(run.opened_by) && (has_ended || is_over || teller == Teller::Transcript)
        })
    }

    /// The run that an event counts for: the open one, or the last one where the event is late news of it.
    pub(super) fn counting_run(&mut self, event: &Incoming<'_>) -> Option<&mut RunRecord> {
        let is_late = event.source != Source::Runtime && self.is_late(event);
        self.state.lifecycle.last_mut().filter(|run| run.ended_at.is_none() || is_late)
    }

    /// Closes the open run, if there is one.
    pub(super) fn close_run(&mut self, event: &Incoming<'_>, ending: Ending) -> Result<(), ProjectionError> {
        let Some(run) = self.state.lifecycle.close(event.event.occurred_at, ending.clone()) else {
            return Ok(());
        };
        let counters = ObjectText::new()
            .raw("tool_uses", run.counters.tool_uses.to_string().as_str())
            .raw("tool_failures", run.counters.tool_failures.to_string().as_str())
            .raw("permission_requests", run.counters.permission_requests.to_string().as_str())
            .raw("blocks", run.counters.blocks.to_string().as_str())
            .finish();
        let data = ObjectText::new()
            .text("status", ending.status.as_str())
            .text("reason", ending.reason.as_deref())
            .raw("counters", counters.as_str());
        let title = match &ending.reason {
            Some(reason) => text::title(&format!("Run {} ({reason})", ending.status.as_str())),
            None => format!("Run {}", ending.status.as_str()),
        };
        self.emit_of_run(event, Draft::new("run.end", title, data), run.run_id)?;
        Ok(())
    }

    /// Who acts. Our adapters say it; to the reference it is the subagent that began last.
    pub(super) fn actor(&self, event: &Incoming<'_>) -> String {
        if event.source == Source::Runtime {
            return self.state.subagents.actor();
        }
        event.envelope("agentId").map_or_else(|| ROOT.to_owned(), |id| actor_of(&id))
    }

    /// Notes that the main agent works, or has stopped.
    pub(super) fn set_working(&mut self, actor_id: &str, is_working: bool) {
        if actor_id == ROOT
            && let Some(run) = self.state.lifecycle.open_mut()
        {
            run.is_working = is_working;
        }
    }
}

/// The harness's own title, where it gives one, else ours.
fn shown_title(event: &Incoming<'_>, ours: String) -> String {
    let display = event.display_json().and_then(|json| runledger_events::Fields::parse(json).ok());
    let told = display.and_then(|display| display.text("title"));
    let told = told.as_deref().map(|title| title.trim_matches(text::is_js_space)).filter(|title| !title.is_empty());
    told.map_or(ours, text::title)
}
