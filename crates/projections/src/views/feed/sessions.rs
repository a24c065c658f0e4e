//! Sessions, prompts, turns and stops: what opens and closes runs.

use runledger_events::{ObjectText, Source};

use super::agent_messages;
use super::call_names::CallNames;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::retelling::Telling;
use super::run_lifecycle::{AdapterIdentity, Ending, RunEnd, RunRecord, Teller, Trigger};
use super::subagents::ROOT;
use super::{text, titles};
use crate::error::ProjectionError;

impl Mapper<'_> {
    pub(super) fn session_start(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let source = event.text("source").unwrap_or_else(|| "startup".to_owned());
        let agent_type = event.text("agent_type");
        let data = ObjectText::new()
            .text("source", source.as_str())
            .text("agent_type", agent_type.as_deref())
            .text("model", event.text("model").as_deref());
        let draft = Draft::new("session.start", format!("Session started ({source})"), data);
        let teller = Teller::from(event.source);
        if let Telling::Again { seq, is_better } = self.tell(event, "session.start", teller)? {
            return self.retell(event, seq, is_better.then_some(draft));
        }
        agent_messages::forget_pieces(&mut self.memory);
        self.state.lifecycle.adapter = Some(AdapterIdentity {
            session_id: event.session_id().to_owned(),
            started_at: event.event.occurred_at,
            source: source.clone(),
            agent_type,
            ended_at: None,
        });
        let trigger = match source.as_str() {
            "resume" => Some(Trigger::Resume),
            "clear" => Some(Trigger::Clear),
            "compact" => Some(Trigger::Compact),
            _ => None,
        };
        if let Some(trigger) = trigger {
            self.ensure_run(event, trigger, None)?;
        }
        let (seq, _) = self.emit(event, draft)?;
        self.shown(event, "session.start", teller, seq)
    }

    pub(super) fn session_end(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let reason = event.text("reason").unwrap_or_else(|| "unknown".to_owned());
        let data = ObjectText::new().text("reason", reason.as_str());
        let draft = Draft::new("session.end", format!("Session ended ({reason})"), data);
        let teller = Teller::from(event.source);
        if let Telling::Again { seq, is_better } = self.tell(event, "session.end", teller)? {
            return self.retell(event, seq, is_better.then_some(draft));
        }
        agent_messages::forget_pieces(&mut self.memory);
        if let Some(run) = self.open_run_of(event) {
            let ending = run.ending_with_session();
            self.close_run(event, ending)?;
        }
        let (seq, _) = self.emit(event, draft)?;
        if let Some(adapter) = &mut self.state.lifecycle.adapter
            && (event.source == Source::Runtime || adapter.session_id == event.session_id())
        {
            adapter.ended_at = Some(event.event.occurred_at);
        }
        self.shown(event, "session.end", teller, seq)
    }

    pub(super) fn user_prompt(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let prompt = event.text("prompt").unwrap_or_default();
        let mode = event.permission_mode().or_else(|| event.text("permission_mode"));
        self.prompt(event, &prompt, mode)
    }

    /// A prompt opens a run; unless it is that of the run that another source's telling had to open without it.
    fn prompt(&mut self, event: &Incoming<'_>, prompt: &str, mode: Option<String>) -> Result<(), ProjectionError> {
        let fact = match event.text("prompt_id") {
            Some(id) => format!("prompt {id}"),
            None => format!("prompt text {}", runledger_events::content_digest(prompt.as_bytes())),
        };
        let data = ObjectText::new()
            .text("prompt", prompt)
            .text("cwd", event.cwd().as_deref())
            .text("permission_mode", mode.as_deref());
        let draft = Draft::new("user.prompt", text::title(prompt), data).by("user");
        let teller = Teller::from(event.source);
        if let Telling::Again { seq, is_better } = self.tell(event, &fact, teller)? {
            return self.retell(event, seq, is_better.then_some(draft));
        }
        let preview = text::preview(prompt);
        if !self.adopt_prompt(event, preview) {
            self.ensure_run(event, Trigger::UserPromptSubmit, Some(preview))?;
        }
        let (seq, _) = self.emit(event, draft)?;
        self.shown(event, &fact, teller, seq)
    }

    /// Gives the prompt to the last run, where another source told of that run and could not know what it was asked.
    fn adopt_prompt(&mut self, event: &Incoming<'_>, preview: &str) -> bool {
        let at = event.event.occurred_at;
        let Some(run) = self.state.lifecycle.last_mut() else {
            return false;
        };
        let is_told_by_others = event.source != Source::Runtime
            && run.opened_by != Teller::Runtime
            && run.opened_by != Teller::from(event.source);
        let is_its_time = run.ended_at.is_none_or(|ended_at| at <= ended_at);
        if !is_told_by_others || run.has_prompt || !is_its_time || run.session_id != event.session_id() {
            return false;
        }
        run.has_prompt = true;
        run.trigger = Trigger::UserPromptSubmit;
        run.prompt_preview = Some(preview.to_owned());
        true
    }

    pub(super) fn turn_start(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        CallNames::new(&mut self.memory, event.session_id()).turn_changes()?;
        let prompt = event.text("prompt").filter(|prompt| !prompt.is_empty());
        if event.source == Source::Runtime || prompt.is_some() {
            agent_messages::forget_pieces(&mut self.memory);
        }
        match prompt {
            Some(prompt) => self.prompt(event, &prompt, event.permission_mode()),
            // A harness with hooks tells of its turns by their prompts.
            None if event.source != Source::Runtime
                && self.state.lifecycle.last().is_some_and(|run| run.opened_by == Teller::Hook) =>
            {
                Ok(())
            }
            // A record tells next what the turn was asked, if it was asked anything: that opens its run.
            None if event.source == Source::Transcript => Ok(()),
            None => self.ensure_run(event, Trigger::Other, None),
        }
    }

    pub(super) fn turn_complete(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        CallNames::new(&mut self.memory, event.session_id()).turn_changes()?;
        // Late news of a turn before the open run says nothing of that one.
        let is_of_before = self.is_of_before(event);
        let verdict = verdict_of_turn(event).filter(|_| !is_of_before);
        let teller = Teller::from(event.source);
        if let Telling::Again { seq, .. } = self.tell(event, "stop", teller)? {
            if self.open_run_of(event).is_some() {
                self.judge(verdict);
            }
            return self.retell(event, seq, None);
        }
        if self.open_run_of(event).is_none() {
            agent_messages::forget_pieces(&mut self.memory);
            return Ok(());
        }
        let data = ObjectText::new().raw("stop_hook_active", "false");
        let draft = Draft::new("stop.request", titles::STOP_REQUESTED, data).by(ROOT);
        let (seq, stop_id) = self.emit(event, draft)?;
        self.shown(event, "stop", teller, seq)?;
        for pending in agent_messages::take_all(&mut self.memory)? {
            self.say(event, &pending.speaker, &pending.text, teller, Some(stop_id.clone()))?;
        }
        if is_of_before {
            return Ok(());
        }
        let ending = verdict.unwrap_or_else(|| {
            let verdict = self.state.lifecycle.open().and_then(|run| run.verdict.clone());
            verdict.unwrap_or_else(Ending::completed)
        });
        self.close_run(event, ending)
    }

    /// The open run, where the event's end of a turn or session can end it: a session of the ledger may have several
    /// harness sessions, and the news of one of them can come when another is at work.
    fn open_run_of(&self, event: &Incoming<'_>) -> Option<&RunRecord> {
        let is_its = |run: &&RunRecord| event.source == Source::Runtime || run.session_id == event.session_id();
        self.state.lifecycle.open().filter(is_its)
    }

    /// Whether an event is of a time before the open run, which another source told of.
    fn is_of_before(&self, event: &Incoming<'_>) -> bool {
        let teller = Teller::from(event.source);
        event.source != Source::Runtime
            && self
                .state
                .lifecycle
                .open()
                .is_some_and(|run| run.opened_by != teller && event.event.occurred_at < run.started_at)
    }

    /// Notes how the open run will have ended.
    pub(super) fn judge(&mut self, verdict: Option<Ending>) {
        if let Some(run) = self.state.lifecycle.open_mut()
            && verdict.is_some()
        {
            run.verdict = verdict;
        }
    }

    pub(super) fn stop_request(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        CallNames::new(&mut self.memory, event.session_id()).turn_changes()?;
        let last_message = event.text("last_assistant_message");
        let is_active = event.data.bool("stop_hook_active").unwrap_or(false);
        let data = ObjectText::new()
            .raw("stop_hook_active", if is_active { "true" } else { "false" })
            .text("last_assistant_message", last_message.as_deref());
        let draft = Draft::new("stop.request", titles::STOP_REQUESTED, data).by(ROOT);
        let teller = Teller::from(event.source);
        let stop_id = match self.tell(event, "stop", teller)? {
            Telling::Again { seq, is_better } => {
                self.retell(event, seq, is_better.then_some(draft))?;
                // What is shown already may be another turn's, told late.
                if !self.is_of_before(event) {
                    self.set_working(ROOT, false);
                }
                None
            }
            Telling::New => {
                self.ensure_run(event, Trigger::Other, None)?;
                let (seq, stop_id) = self.emit(event, draft)?;
                self.shown(event, "stop", teller, seq)?;
                self.set_working(ROOT, false);
                Some(stop_id)
            }
        };
        let Some(message) = last_message.filter(|message| !message.is_empty()) else {
            return Ok(());
        };
        let teller = Teller::with_a_stop(event.source);
        self.say(event, &super::subagents::speaker(ROOT.to_owned()), &message, teller, stop_id)
    }
}

/// How a run ends whose turn ended so; `None` where it simply completed.
fn verdict_of_turn(event: &Incoming<'_>) -> Option<Ending> {
    let reason = || event.text("error").or_else(|| event.text("error_message"));
    let status = event.text("status").unwrap_or_default();
    let terminal = event.text("terminal_reason").unwrap_or_default();
    if matches!(status.as_str(), "interrupted" | "cancelled" | "canceled" | "aborted")
        || terminal.starts_with("aborted")
    {
        return Some(Ending { status: RunEnd::Aborted, reason: Some("cancelled".to_owned()) });
    }
    if status == "failed" || event.data.bool("is_error") == Some(true) {
        return Some(Ending::failed(reason().unwrap_or_else(|| "the turn failed".to_owned())));
    }
    None
}
