//! The kinds that a harness tells about itself and its surroundings, and subagents: one entry each.

use runledger_events::{EventKind, ObjectText, Source};

use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::run_lifecycle::{Ending, Teller, Trigger};
use super::subagents::{ROOT, actor_of, speaker};
use super::{text, titles};
use crate::error::ProjectionError;

impl Mapper<'_> {
    pub(super) fn harness(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        self.ensure_run(event, Trigger::Other, None)?;
        let Some(draft) = draft(event) else {
            return Ok(());
        };
        if event.event.kind == EventKind::StopFailure {
            let error = event.text("error_type").unwrap_or_else(|| "unknown".to_owned());
            self.judge(Some(Ending::failed(error)));
        }
        if event.source != Source::Runtime && event.event.kind == EventKind::CompactPost {
            self.emit_once(event, "compact.post", draft)?;
        } else {
            self.emit(event, draft)?;
        }
        Ok(())
    }

    pub(super) fn subagent_start(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        self.ensure_run(event, Trigger::Other, None)?;
        let (id, agent_type) = (event.agent_id(), event.agent_type());
        let fact = id.as_deref().filter(|_| event.source != Source::Runtime).map(|id| format!("subagent {id}"));
        // The main agent starts it; what is told of it again must not start it twice.
        let is_again = match &fact {
            Some(fact) => super::retelling::is_shown(&mut self.memory, event.session_id(), fact)?,
            None => false,
        };
        let description = if let (true, Some(id)) = (is_again, &id) {
            self.memory.get(super::memory::Seam::Subagent, id)?
        } else {
            self.state.subagents.begin(&mut self.memory, id.as_deref(), event.text("prompt"))?
        };
        let threads = threads(event);
        let data = ObjectText::new()
            .text("agent_id", id.as_deref().unwrap_or_default())
            .text("agent_type", agent_type.as_deref().unwrap_or_default())
            .text("description", description.as_deref())
            .text("tool", event.text("tool").as_deref());
        let title = format!("{} Subagent: {}", titles::SUBAGENT, agent_type.as_deref().unwrap_or_default());
        let draft = Draft::new("subagent.start", title, with(data, &threads)).by(ROOT);
        if let Some(id) = &id
            && !is_again
        {
            self.add_subagent(id, agent_type.as_deref());
        }
        match fact {
            Some(fact) => {
                self.emit_once(event, &fact, draft)?;
            }
            None => {
                self.emit(event, draft)?;
            }
        }
        Ok(())
    }

    /// Notes a subagent as an actor, and as one of the run's.
    fn add_subagent(&mut self, id: &str, agent_type: Option<&str>) {
        if let Some(run) = self.state.lifecycle.open_mut() {
            run.subagent_ids.push(id.to_owned());
        }
        let agent_type = agent_type.unwrap_or("unknown");
        let name = if agent_type.is_empty() { id } else { agent_type };
        self.add_actor(actor_of(id), "subagent", name.to_owned(), Some(agent_type.to_owned()), Some(ROOT));
    }

    pub(super) fn subagent_stop(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        self.ensure_run(event, Trigger::Other, None)?;
        let (id, agent_type) = (event.agent_id(), event.agent_type());
        let description = self.state.subagents.end(&mut self.memory, id.as_deref())?;
        let actor = actor_of(id.as_deref().unwrap_or("unknown"));
        let message = event.text("last_assistant_message");
        let is_active = event.data.bool("stop_hook_active").unwrap_or(false);
        let data = ObjectText::new()
            .text("agent_id", id.as_deref().unwrap_or_default())
            .text("agent_type", agent_type.as_deref().unwrap_or_default())
            .raw("stop_hook_active", if is_active { "true" } else { "false" })
            .text("agent_transcript_path", event.text("agent_transcript_path").as_deref())
            .text("last_assistant_message", message.as_deref())
            .text("description", description.as_deref())
            .text("tool", event.text("tool").as_deref())
            .text("status", event.text("status").as_deref());
        let title = format!("{} Subagent done: {}", titles::SUBAGENT_DONE, agent_type.as_deref().unwrap_or_default());
        let draft = Draft::new("subagent.stop", title, with(data, &threads(event))).by(actor.as_str());
        let stop_id = match id.filter(|_| event.source != Source::Runtime) {
            Some(id) => self.emit_once(event, &format!("subagent stop {id}"), draft)?.map(|(_, id)| id),
            None => Some(self.emit(event, draft)?.1),
        };
        let Some(message) = message.filter(|message| !message.is_empty()) else {
            return Ok(());
        };
        self.say(event, &speaker(actor), &message, Teller::with_a_stop(event.source), stop_id)
    }

    /// A harness event without a kind of its own: kept, and shown by its name.
    ///
    /// Lines of an output or a record that tell of nothing but themselves are in the log alone.
    pub(super) fn unknown(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        if matches!(event.source, Source::Stream | Source::Transcript) {
            return Ok(());
        }
        self.ensure_run(event, Trigger::Other, None)?;
        let told = event.text("source_event_name").or_else(|| event.text("hook_event_name"));
        let name = match &event.event.kind {
            EventKind::Other(kind) => kind.to_string(),
            _ => told.or_else(|| event.envelope("hookName")).unwrap_or_else(|| "unknown".to_owned()),
        };
        let data = ObjectText::new()
            .text("hook_event_name", name.as_str())
            .raw("payload", event.data.raw("payload").unwrap_or("null"));
        let draft = Draft::new("unknown.hook", format!("? {name}"), data).level(FeedLevel::Debug).collapsed();
        self.emit(event, draft)?;
        if event.source == Source::Hook && name == "PostToolBatch" {
            self.tool_batch(event)?;
        }
        Ok(())
    }
}

/// The threads that Codex names where it tells of subagents.
fn threads(event: &Incoming<'_>) -> [(&'static str, Option<String>); 4] {
    ["sender_thread_id", "receiver_thread_id", "new_thread_id", "agent_status"].map(|name| (name, event.text(name)))
}

fn with(data: ObjectText, fields: &[(&'static str, Option<String>)]) -> ObjectText {
    fields.iter().fold(data, |data, (name, value)| data.text(name, value.as_deref()))
}

/// The title of the entry for an event of one of the plain kinds.
pub(super) fn title(event: &Incoming<'_>) -> Option<String> {
    draft(event).map(|draft| draft.title)
}

/// The entry for an event of one of the plain kinds.
fn draft(event: &Incoming<'_>) -> Option<Draft> {
    use EventKind as K;
    let said = |name: &str| event.text(name);
    let or = |name: &str, default: &str| event.text(name).unwrap_or_else(|| default.to_owned());
    let object = ObjectText::new;
    Some(match &event.event.kind {
        K::CompactPre => {
            let trigger = or("trigger", "auto");
            let data = object().text("trigger", trigger.as_str());
            let data = data.text("custom_instructions", said("custom_instructions").as_deref());
            Draft::new("compact.pre", format!("Compacting context ({trigger})"), data).collapsed()
        }
        K::CompactPost => {
            let trigger = or("trigger", "auto");
            let data = object().text("trigger", trigger.as_str());
            Draft::new("compact.post", format!("Context compacted ({trigger})"), data).collapsed()
        }
        K::Setup => {
            let trigger = or("trigger", "init");
            Draft::new("setup", format!("Setup ({trigger})"), object().text("trigger", trigger.as_str())).collapsed()
        }
        K::TeammateIdle => {
            let (name, team) = (or("teammate_name", ""), or("team_name", ""));
            let data = object().text("teammate_name", name.as_str()).text("team_name", team.as_str());
            Draft::new("teammate.idle", format!("{} Teammate idle: {name}", titles::IDLE), data).collapsed()
        }
        K::TaskCreated | K::TaskCompleted => task(event),
        K::ConfigChange => {
            let source = or("source", "unknown");
            let data = object().text("source", source.as_str()).text("file_path", said("file_path").as_deref());
            Draft::new("config.change", format!("{} Config changed: {source}", titles::SETTING), data)
        }
        K::CwdChanged => {
            let cwd = or("cwd", "");
            let title = text::title(&format!("{} cwd → {cwd}", titles::SETTING));
            Draft::new("cwd.changed", title, object().text("cwd", cwd.as_str())).collapsed()
        }
        K::FileChanged => {
            let path = or("file_path", "");
            let title = text::title(&format!("File changed: {path}"));
            Draft::new("file.changed", title, object().text("file_path", path.as_str())).collapsed()
        }
        K::StopFailure => {
            let error = or("error_type", "unknown");
            let data = object().text("error_type", error.as_str());
            let data = data.text("error_message", said("error_message").as_deref());
            let title = format!("{} Stop failure: {error}", titles::FAILED);
            Draft::new("stop.failure", title, data).level(FeedLevel::Error)
        }
        K::ElicitationRequest => {
            let server = or("mcp_server", "unknown");
            let data = object().text("mcp_server", server.as_str()).raw("form", event.data.raw_or_null("form"));
            Draft::new("elicitation.request", format!("Elicitation: {server}"), data).level(FeedLevel::Warn)
        }
        K::ElicitationResult => {
            let server = or("mcp_server", "unknown");
            let action = said("action").filter(|action| !action.is_empty());
            let data = object().text("mcp_server", server.as_str()).text("action", action.as_deref());
            let data = data.raw("content", event.object_json("content"));
            let title = format!("Elicitation {}: {server}", action.as_deref().unwrap_or("undefined"));
            Draft::new("elicitation.result", title, data).collapsed()
        }
        _ => return None,
    })
}

fn task(event: &Incoming<'_>) -> Draft {
    let subject = event.text("task_subject").unwrap_or_default();
    let data = ObjectText::new()
        .text("task_id", event.text("task_id").unwrap_or_default().as_str())
        .text("task_subject", subject.as_str())
        .text("task_description", event.text("task_description").as_deref())
        .text("teammate_name", event.text("teammate_name").as_deref())
        .text("team_name", event.text("team_name").as_deref());
    if event.event.kind == EventKind::TaskCreated {
        return Draft::new("task.created", text::title(&format!("Task created: {subject}")), data);
    }
    Draft::new("task.completed", text::title(&format!("{} Task completed: {subject}", titles::DONE)), data)
}
