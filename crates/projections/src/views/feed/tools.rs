//! Tool calls: their beginnings, output, results; batches of them; permissions asked and denied for them.

use runledger_events::{EventKind, Fields, ObjectText, Source, as_text};

use super::call_names::{self, CallEnd, CallNames, Namer};
use super::event::FeedLevel;
use super::incoming::{Incoming, object_json};
use super::mapper::{Draft, Mapper};
use super::retelling::{self, Telling};
use super::run_lifecycle::{Teller, Trigger};
use super::subagents::starts_subagent;
use super::tool_correlation::{self, Ask};
use super::{text, titles, web_search};
use crate::error::ProjectionError;

/// The name of the fact that a call began.
fn call_fact(tool_use_id: &str) -> String {
    format!("tool {tool_use_id}")
}

/// The name of the fact that a call ended.
fn result_fact(tool_use_id: &str) -> String {
    format!("result {tool_use_id}")
}

/// A tool call as one event tells it.
struct Call<'a> {
    name: String,
    input_json: &'a str,
    id: Option<String>,
}

impl<'a> Call<'a> {
    fn of(event: &Incoming<'a>) -> Self {
        Self { name: event.tool_name(), input_json: event.object_json("tool_input"), id: event.tool_use_id() }
    }

    /// What every entry of a call says of it.
    fn data(&self) -> ObjectText {
        ObjectText::new()
            .text("tool_name", self.name.as_str())
            .raw("tool_input", self.input_json)
            .text("tool_use_id", self.id.as_deref())
    }

    fn begin(&self, actor: &str) -> Draft {
        Draft::new("tool.pre", format!("{} {}", titles::TOOL, self.name), self.data())
            .by(actor)
            .of_tool(self.id.clone())
    }

    fn failure(&self, actor: &str, error: &str, is_interrupt: Option<bool>) -> Draft {
        let is_interrupt = is_interrupt.map(|is_interrupt| if is_interrupt { "true" } else { "false" });
        let data = self.data().text("error", error).raw("is_interrupt", is_interrupt);
        let title = text::title(&format!("{} {} failed: {error}", titles::FAILED, self.name));
        Draft::new("tool.failure", title, data).level(FeedLevel::Error).by(actor).of_tool(self.id.clone())
    }
}

impl Mapper<'_> {
    pub(super) fn tool_pre(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let mut call = Call::of(event);
        self.name_call(event, &mut call)?;
        let Some((_, begin_id)) = self.begin_call(event, &call, Teller::from(event.source))? else {
            return Ok(());
        };
        let actor = self.actor(event);
        if call.name == "WebSearch" {
            let draft = web_search::started(event, call.id.as_deref());
            self.emit(event, draft.of_tool(call.id.clone()).after(Some(begin_id)))?;
        }
        self.plan_of_tool(event, &call.name, &actor)?;
        if starts_subagent(&call.name) {
            let input = Fields::parse(call.input_json).unwrap_or_default();
            self.state.subagents.ask(input.text("description"));
        }
        Ok(())
    }

    /// Gives a call the id that it has with all who tell of it, as far as they have found each other.
    fn name_call(&mut self, event: &Incoming<'_>, call: &mut Call<'_>) -> Result<(), ProjectionError> {
        let (Some(namer), Some(id)) = (Namer::of(event), call.id.clone()) else {
            return Ok(());
        };
        let session_id = event.session_id();
        let mut names = CallNames::new(&mut self.memory, session_id);
        let has_input = call.input_json != "{}";
        let likeness = || call_names::likeness(&call.name, call.input_json, event.cwd().as_deref());
        let end = match &event.event.kind {
            EventKind::ToolPost => Some(CallEnd::Ran),
            // One that was interrupted did run.
            EventKind::ToolFailure if event.data.bool("is_interrupt") == Some(true) => Some(CallEnd::Ran),
            EventKind::ToolFailure => Some(CallEnd::Refused),
            _ => None,
        };
        match (namer, end) {
            (Namer::Output, None) => call.id = Some(names.item_begins(&id, &call.name, &likeness())?),
            (Namer::Output, Some(_)) => call.id = Some(names.item_ends(&id, call_names::has_succeeded(event))?),
            (Namer::Others { is_hook }, end) => {
                let item = match end {
                    Some(_) if !has_input => None,
                    _ => names.call_begins(&id, &call.name, &likeness(), is_hook)?,
                };
                let parted = end.map(|end| names.call_ends(&id, end)).transpose()?.flatten();
                if let Some(item) = item {
                    retelling::rename(&mut self.memory, session_id, &call_fact(&item), &call_fact(&id))?;
                    retelling::rename(&mut self.memory, session_id, &result_fact(&item), &result_fact(&id))?;
                    tool_correlation::rename(&mut self.memory, &item, &id)?;
                }
                if let Some(item) = parted {
                    retelling::rename(&mut self.memory, session_id, &result_fact(&id), &result_fact(&item))?;
                }
            }
        }
        Ok(())
    }

    /// Shows a call's beginning, unless it is shown; says where, if it is new.
    fn begin_call(
        &mut self,
        event: &Incoming<'_>,
        call: &Call<'_>,
        teller: Teller,
    ) -> Result<Option<(u64, String)>, ProjectionError> {
        let fact = call.id.as_deref().map(call_fact);
        let telling = match &fact {
            Some(fact) => self.tell(event, fact, teller)?,
            None => Telling::New,
        };
        let place = match telling {
            Telling::Again { seq, is_better } => {
                let better = is_better.then(|| call.begin(&self.actor(event)));
                self.retell(event, seq, better)?;
                None
            }
            Telling::New => {
                self.ensure_run(event, Trigger::Other, None)?;
                if let Some(run) = self.counting_run(event) {
                    run.counters.tool_uses += 1;
                }
                // A new run has no subagents at work.
                let actor = self.actor(event);
                self.set_working(&actor, true);
                let place = self.emit(event, call.begin(&actor))?;
                if let Some(id) = &call.id {
                    tool_correlation::begun(&mut self.memory, id, &place.1)?;
                }
                if let Some(fact) = &fact {
                    self.shown(event, fact, teller, place.0)?;
                }
                Some(place)
            }
        };
        if let (Some(id), Some(turn)) = (&call.id, event.turn()) {
            let ask = Ask { turn: &turn, tool_name: &call.name, input_json: call.input_json };
            tool_correlation::may_ask(&mut self.memory, &ask, id)?;
        }
        Ok(place)
    }

    pub(super) fn tool_delta(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        self.ensure_run(event, Trigger::Other, None)?;
        let call = Call::of(event);
        let parent = tool_correlation::parent(&mut self.memory, call.id.as_deref())?;
        let data = call.data().text("delta", event.text("delta").unwrap_or_default().as_str());
        let actor = self.actor(event);
        let draft = Draft::new("tool.delta", format!("{} {} output", titles::RESULT, call.name), data);
        let (seq, _) = self.emit(event, draft.by(actor).of_tool(call.id.clone()).after(parent))?;
        if let Some(id) = call.id {
            let from = tool_correlation::output_from(&mut self.memory, &id, seq)?;
            if let Some(row) = self.changes.rows.get_mut(&seq) {
                row.output = Some((id, from));
            }
        }
        Ok(())
    }

    /// `tool.post` and `tool.failure`.
    pub(super) fn tool_result(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let mut call = Call::of(event);
        self.name_call(event, &mut call)?;
        let actor = self.actor(event);
        let is_failure = event.event.kind == EventKind::ToolFailure;
        let draft = if is_failure {
            let error = event.text("error").unwrap_or_else(|| "Unknown error".to_owned());
            call.failure(&actor, &error, event.data.bool("is_interrupt"))
        } else {
            let data = call.data().raw("tool_response", event.data.raw_or_null("tool_response"));
            let title = format!("{} {} result", titles::RESULT, call.name);
            Draft::new("tool.post", title, data).by(actor.as_str()).of_tool(call.id.clone())
        };
        let Some((_, result_id)) = self.end_call(event, call.id.as_deref(), draft, Teller::from(event.source))? else {
            return Ok(());
        };
        if call.name == "WebSearch" && !is_failure {
            let draft = web_search::completed(event, call.id.as_deref());
            self.emit(event, draft.of_tool(call.id.clone()).after(Some(result_id)))?;
        }
        Ok(())
    }

    /// Shows a call's end, unless it is shown; says where, if it is new.
    fn end_call(
        &mut self,
        event: &Incoming<'_>,
        id: Option<&str>,
        draft: Draft,
        teller: Teller,
    ) -> Result<Option<(u64, String)>, ProjectionError> {
        let fact = id.map(result_fact);
        if let Some(fact) = &fact
            && let Telling::Again { seq, is_better } = self.tell(event, fact, teller)?
        {
            self.retell(event, seq, is_better.then_some(draft))?;
            return Ok(None);
        }
        self.ensure_run(event, Trigger::Other, None)?;
        if draft.kind == "tool.failure"
            && let Some(run) = self.counting_run(event)
        {
            run.counters.tool_failures += 1;
        }
        if let Some(id) = id {
            tool_correlation::ended(&mut self.memory, id)?;
        }
        let parent = tool_correlation::parent(&mut self.memory, id)?;
        let actor = self.actor(event);
        let place = self.emit(event, draft.by(actor).after(parent))?;
        if let Some(fact) = &fact {
            self.shown(event, fact, teller, place.0)?;
        }
        Ok(Some(place))
    }

    /// The end of a batch of calls: tells of those that had no hooks of their own, because they were denied or unknown.
    pub(super) fn tool_batch(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let actor = self.actor(event);
        for told in event.data.list("tool_calls").unwrap_or_default() {
            let fields = Fields::parse(told).unwrap_or_default();
            let Some(id) = fields.text("tool_use_id").filter(|id| !id.is_empty()) else {
                continue;
            };
            if retelling::is_shown(&mut self.memory, event.session_id(), &result_fact(&id))? {
                continue;
            }
            let call = Call {
                name: fields.text("tool_name").unwrap_or_else(|| "Unknown".to_owned()),
                input_json: object_json(&fields, "tool_input"),
                id: Some(id.clone()),
            };
            if !retelling::is_shown(&mut self.memory, event.session_id(), &call_fact(&id))? {
                self.begin_call(event, &call, Teller::HookBatch)?;
            }
            let response = fields.raw("tool_response").unwrap_or("\"no result\"");
            let error = as_text(response).unwrap_or_else(|| response.to_owned());
            self.end_call(event, Some(&id), call.failure(&actor, &error, None), Teller::HookBatch)?;
        }
        Ok(())
    }

    pub(super) fn permission_request(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        if self.is_shown_by_question(event)? {
            return Ok(());
        }
        self.ensure_run(event, Trigger::Other, None)?;
        if let Some(run) = self.counting_run(event) {
            run.counters.permission_requests += 1;
        }
        self.set_working(&self.actor(event), true);
        let mut call = Call::of(event);
        let joined = if call.id.is_none() { self.call_asked_for(event, &call)? } else { None };
        let parent = tool_correlation::parent(&mut self.memory, joined.as_deref())?;
        call.id = call.id.or_else(|| joined.clone());
        let network = event.data.object("network_context").map(|network| {
            let network = ObjectText::new()
                .text("host", network.text("host").as_deref())
                .text("protocol", network.text("protocol").as_deref());
            network.finish()
        });
        let suggestions = event.data.raw("permission_suggestions").filter(|json| json.starts_with('['));
        let data = call.data().raw("permission_suggestions", suggestions).raw("network_context", network.as_deref());
        let draft = Draft::new("permission.request", format!("{} Permission: {}", titles::WARNING, call.name), data);
        self.emit(event, draft.of_tool(joined).after(parent))?;
        Ok(())
    }

    /// The call that a request without its id is for.
    fn call_asked_for(&mut self, event: &Incoming<'_>, call: &Call<'_>) -> Result<Option<String>, ProjectionError> {
        let Some(turn) = event.turn() else {
            return Ok(None);
        };
        let ask = Ask { turn: &turn, tool_name: &call.name, input_json: call.input_json };
        let session_id = event.session_id().to_owned();
        tool_correlation::asked_for(&mut self.memory, &ask, |memory, id| {
            retelling::is_shown(memory, &session_id, &result_fact(id))
        })
    }

    pub(super) fn permission_denied(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let name = event.tool_name();
        let id = event.text("tool_use_id");
        let data = ObjectText::new()
            .text("tool_name", name.as_str())
            .raw("tool_input", event.object_json("tool_input"))
            .text("tool_use_id", id.as_deref())
            .text("reason", event.text("reason").as_deref());
        let draft = Draft::new("permission.denied", format!("{} Denied: {name}", titles::FAILED), data);
        let draft = draft.level(FeedLevel::Warn);
        match id.filter(|_| event.source != Source::Runtime) {
            Some(id) => {
                self.emit_once(event, &format!("denied {id}"), draft)?;
            }
            None => {
                self.ensure_run(event, Trigger::Other, None)?;
                self.emit(event, draft)?;
            }
        }
        Ok(())
    }
}
