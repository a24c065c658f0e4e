//! Messages, reasoning, plans and token figures.

use runledger_events::{Fields, ObjectText, Source, content_digest};

use super::agent_messages::{self, Speaker};
use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::retelling::{self, Telling};
use super::root_plan;
use super::run_lifecycle::{Teller, Trigger};
use super::subagents::{ROOT, speaker};
use super::{tables, text, titles};
use crate::error::ProjectionError;

impl Mapper<'_> {
    pub(super) fn message_delta(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let speaker = speaker(self.actor(event));
        let piece = event.text("delta").unwrap_or_default();
        self.add_piece(event, &piece, &speaker)
    }

    fn add_piece(&mut self, event: &Incoming<'_>, piece: &str, speaker: &Speaker) -> Result<(), ProjectionError> {
        self.state.messages_begun += 1;
        let order = self.state.messages_begun;
        agent_messages::add_piece(&mut self.memory, event.text("item_id").as_deref(), piece, speaker, order)
    }

    pub(super) fn message_complete(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        if event.source == Source::Runtime {
            self.ensure_run(event, Trigger::Other, None)?;
        }
        let fallback = speaker(self.actor(event));
        let whole = event.text("message");
        if let (None, Some(last_piece)) = (&whole, event.text("delta")) {
            self.add_piece(event, &last_piece, &fallback)?;
        }
        let pending = agent_messages::take(&mut self.memory, event.text("item_id").as_deref())?;
        let (message, speaker) = match (whole, pending) {
            (Some(whole), Some(pending)) => (whole, pending.speaker),
            (Some(whole), None) => (whole, fallback),
            (None, Some(pending)) => (pending.text, pending.speaker),
            (None, None) => return Ok(()),
        };
        self.say(event, &speaker, &message, Teller::from(event.source), None)
    }

    /// Shows a message, unless it is one that is shown already.
    pub(super) fn say(
        &mut self,
        event: &Incoming<'_>,
        speaker: &Speaker,
        message: &str,
        teller: Teller,
        parent_event_id: Option<String>,
    ) -> Result<(), ProjectionError> {
        let message = text::message(message);
        if message.is_empty() {
            return Ok(());
        }
        let source = if event.source == Source::Transcript { "transcript" } else { "hook" };
        let data = ObjectText::new()
            .text("message", message.as_str())
            .text("source", source)
            .text("scope", speaker.scope.as_str())
            .text("model", event.text("model").as_deref());
        let who = if speaker.scope == "root" { "Agent" } else { "Subagent" };
        let title = format!("{} {who} response", titles::MESSAGE);
        let draft = Draft::new("agent.message", title, data).by(speaker.actor_id.as_str()).after(parent_event_id);

        let digest = content_digest(message.as_bytes()).to_string();
        let fact = format!("message of {} {digest}", speaker.actor_id);
        if let Telling::Again { seq, is_better } = self.tell(event, &fact, teller)? {
            return self.retell(event, seq, is_better.then_some(draft));
        }
        if agent_messages::said_last(&mut self.memory, speaker, &digest)? {
            // A stop tells the last message over again.
            return retelling::unsay(&mut self.memory, event.session_id(), &fact, teller);
        }
        self.ensure_run(event, Trigger::Other, None)?;
        let (seq, _) = self.emit(event, draft)?;
        agent_messages::say(&mut self.memory, speaker, &digest)?;
        self.shown(event, &fact, teller, seq)
    }

    pub(super) fn reasoning_delta(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let piece = event.text("delta").filter(|piece| !piece.is_empty());
        let Some(piece) = piece.filter(|_| event.text("phase").as_deref() == Some("summary")) else {
            return Ok(());
        };
        let number = |name| event.data.raw(name).filter(|json| is_number(json));
        let content_index = number("content_index");
        let summary_index = event.data.raw("summary_index").or_else(|| event.data.raw("content_index"));
        let summary_index = summary_index.filter(|json| is_number(json));
        let item_id = event.text("item_id");
        let index = summary_index.unwrap_or("0");
        let message = agent_messages::reason(&mut self.memory, item_id.as_deref(), index, &piece)?;
        let data = ObjectText::new()
            .text("message", message.as_str())
            .text("item_id", item_id.as_deref())
            .raw("content_index", content_index)
            .raw("summary_index", number("summary_index").or(summary_index))
            .text("thread_id", event.text("thread_id").as_deref())
            .text("turn_id", event.text("turn_id").as_deref());
        let draft = Draft::new("reasoning.summary", text::title(&message), data).by(ROOT);
        if event.source == Source::Runtime {
            // Pieces of one summary: each shows it as it has grown.
            self.emit(event, draft)?;
            return Ok(());
        }
        let fact = format!("reasoning {}", content_digest(message.as_bytes()));
        self.emit_once(event, &fact, draft)?;
        Ok(())
    }

    pub(super) fn plan_delta(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let plan = event.data.list("plan");
        let steps = root_plan::steps(plan);
        let fact = steps.as_deref().filter(|_| event.source != Source::Runtime).map(root_plan::progress);
        let news = self.plan_changed(event, steps)?;
        let (explanation, delta) = (event.text("explanation"), event.text("delta"));
        let data = ObjectText::new()
            .raw("explanation", explanation.as_deref().map(runledger_events::quoted).as_deref().or(Some("null")))
            .text("delta", delta.as_deref())
            .text("item_id", event.text("item_id").as_deref())
            .text("thread_id", event.text("thread_id").as_deref())
            .text("turn_id", event.text("turn_id").as_deref())
            .raw("plan", event.data.raw("plan").filter(|json| json.starts_with('[')));
        let said = [explanation, delta].into_iter().flatten().find(|text| !text.is_empty());
        let title = said.unwrap_or_else(|| "Plan updated".to_owned());
        let draft = Draft::new("plan.update", text::title(&title), data);
        match fact {
            // A harness that says the same again has no news.
            Some(_) if !news => {}
            Some(progress) => {
                self.emit_once(event, &format!("plan update {progress}"), draft)?;
            }
            None => {
                self.emit(event, draft)?;
            }
        }
        Ok(())
    }

    /// Takes new steps of the plan, where they say something new; says whether this teller said them just before.
    pub(super) fn plan_changed(
        &mut self,
        event: &Incoming<'_>,
        steps: Option<Vec<String>>,
    ) -> Result<bool, ProjectionError> {
        let Some(steps) = steps else {
            return Ok(true);
        };
        let fact = format!("plan {}", root_plan::progress(&steps));
        let teller = Teller::from(event.source);
        if event.source != Source::Runtime {
            if !self.is_news_of_plan(event, &steps)? {
                return Ok(false);
            }
            if let Telling::Again { seq, is_better } = self.tell(event, &fact, teller)? {
                if is_better {
                    self.changes.plan = Some(steps);
                }
                return self.retell(event, seq, None).map(|()| true);
            }
        }
        let before = match self.changes.plan.take() {
            Some(before) => before,
            None => tables::load_plan(&self.target, self.session_id)?,
        };
        if root_plan::is_same(&before, &steps) {
            self.changes.plan = Some(before);
            return Ok(true);
        }
        self.changes.plan = Some(steps);
        let data = ObjectText::new().text("todo_id", "plan").raw("patch", r#"{"status":"doing"}"#);
        let draft = Draft::new("todo.update", format!("{} Todo updated: plan", titles::OPEN_ITEM), data);
        let (seq, _) = self.emit(event, draft)?;
        if event.source != Source::Runtime {
            self.shown(event, &fact, teller, seq)?;
        }
        Ok(true)
    }

    /// Whether a source has not told these very steps just before.
    fn is_news_of_plan(&mut self, event: &Incoming<'_>, steps: &[String]) -> Result<bool, ProjectionError> {
        let key = format!("{}\n{:?}", event.session_id(), event.source);
        let said = content_digest(steps.join("\n").as_bytes()).to_string();
        let last: Option<String> = self.memory.get(super::memory::Seam::LastTold, &key)?;
        self.memory.put(super::memory::Seam::LastTold, &key, &said)?;
        Ok(last.is_none_or(|last| last != said))
    }

    pub(super) fn usage_update(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let object = |name| event.data.raw(name).filter(|json: &&str| json.starts_with(['{', '[']));
        let data = ObjectText::new()
            .text("thread_id", event.text("thread_id").as_deref())
            .text("turn_id", event.text("turn_id").as_deref())
            .raw("usage", object("usage"))
            .raw("delta", object("delta"));
        let draft = Draft::new("usage.update", "Usage updated", data);
        if event.source == Source::Runtime {
            self.emit(event, draft)?;
            return Ok(());
        }
        // Figures are told by each source in steps of its own: whoever told them first goes on.
        let key = format!("{}\nusage", event.session_id());
        let teller = Teller::from(event.source);
        let first: Option<Teller> = self.memory.get(super::memory::Seam::LastTold, &key)?;
        if first.is_none() {
            self.memory.put(super::memory::Seam::LastTold, &key, &teller)?;
        }
        if first.is_none_or(|first| first == teller) {
            self.emit(event, draft.level(FeedLevel::Debug))?;
        }
        Ok(())
    }

    /// The plan of a tool that holds one, used by the main agent.
    pub(super) fn plan_of_tool(
        &mut self,
        event: &Incoming<'_>,
        tool_name: &str,
        actor_id: &str,
    ) -> Result<(), ProjectionError> {
        if actor_id != ROOT {
            return Ok(());
        }
        let input = Fields::parse(event.object_json("tool_input")).unwrap_or_default();
        match tool_name {
            "TodoWrite" => self.changes.plan = Some(root_plan::todos(&input)),
            // A record tells the plan of such a call beside it.
            "update_plan" if event.source == Source::Hook => {
                self.plan_changed(event, root_plan::steps(input.list("plan")))?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}
