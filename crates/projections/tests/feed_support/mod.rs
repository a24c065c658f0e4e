//! What the tests of the feed need: events as each source tells them, a ledger to tell them to, and entries to look at.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use runledger_events::{Metadata, RunId, RuntimeEvent, SessionId, Source, StreamName};
use runledger_projections::{FeedEvent, FeedFilter, FeedPage, Projections, Queries, SessionFeed};
use runledger_store::{ExpectedVersion, NewEvent, Receipt};
use runledger_testkit::TempLedger;
use serde_json::{Value, json};

/// The harness's session in most of these tests.
pub(crate) const ADAPTER: &str = "a";
/// The ledger session that it is of.
pub(crate) const SESSION: &str = "s";

/// What `source` tells, with `name` in its id; it happened `at` this time.
pub(crate) fn told(source: Source, name: &str, at: i64, kind: &str, data: Value) -> Value {
    let payload = json!({ "words_of": source.prefix(), "name": name });
    json!({"id": source.event_id(name).unwrap().as_str(), "timestamp": at, "kind": kind, "sessionId": ADAPTER,
        "data": data, "payload": payload})
}

pub(crate) fn hook(name: &str, at: i64, kind: &str, data: Value) -> Value {
    told(Source::Hook, name, at, kind, data)
}

pub(crate) fn stream(name: &str, at: i64, kind: &str, data: Value) -> Value {
    told(Source::Stream, name, at, kind, data)
}

pub(crate) fn transcript(name: &str, at: i64, kind: &str, data: Value) -> Value {
    told(Source::Transcript, name, at, kind, data)
}

/// The same with a field beside `data`.
pub(crate) fn with(mut event: Value, field: &str, value: impl Into<Value>) -> Value {
    event[field] = value.into();
    event
}

/// A call of a tool, as `data` tells it.
pub(crate) fn call(id: &str, input: &str) -> Value {
    json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": input}, "prompt_id": "p1"})
}

/// The call's result.
pub(crate) fn result(id: &str, response: &str) -> Value {
    let mut data = call(id, "ls");
    data["tool_response"] = response.into();
    data
}

/// A hook's word of a batch of calls: their ids, and what came of each.
pub(crate) fn batch(name: &str, at: i64, calls: &[(&str, &str)]) -> Value {
    let calls: Vec<Value> = calls
        .iter()
        .map(|(id, response)| {
            let mut call = call(id, "ls");
            call["tool_response"] = (*response).into();
            call
        })
        .collect();
    hook(name, at, "unknown", json!({"hook_event_name": "PostToolBatch", "tool_calls": calls}))
}

/// A ledger whose feed is looked at.
pub(crate) struct Scene {
    pub(crate) ledger: TempLedger,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { ledger: TempLedger::new() }
    }

    /// A ledger that was told all this, in this order.
    pub(crate) fn of(events: impl IntoIterator<Item = Value>) -> Self {
        let scene = Self::new();
        events.into_iter().for_each(|event| drop(scene.tell(&event)));
        scene.catch_up();
        scene
    }

    pub(crate) fn tell(&self, event: &Value) -> Receipt {
        self.tell_in(SESSION, event)
    }

    pub(crate) fn tell_in(&self, session: &str, event: &Value) -> Receipt {
        self.ledger.append(&format!("session/{session}"), &event.to_string())
    }

    /// Tells an event within a workflow run, as its runner or a hook with its id in the environment does.
    pub(crate) fn tell_within(&self, session: &str, run: &str, event: &Value) -> Receipt {
        let session = SessionId::new(session).unwrap();
        let metadata = Metadata {
            session_id: Some(session.clone()),
            run_id: Some(RunId::new(run).unwrap()),
            ..Metadata::default()
        };
        let event = NewEvent::new(RuntimeEvent::from_json(event.to_string().as_str()).unwrap(), metadata).unwrap();
        let stream = StreamName::session(&session);
        self.ledger.log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap().remove(0)
    }

    pub(crate) fn catch_up(&self) {
        Projections::open(&self.ledger.path).unwrap().catch_up().unwrap();
    }

    pub(crate) fn queries(&self) -> Queries {
        Queries::open(&self.ledger.path).unwrap()
    }

    /// A page of the feed, as it is now.
    pub(crate) fn page(&self, filter: &FeedFilter, page: &FeedPage, limit: usize) -> Vec<FeedEvent> {
        self.queries().feed(filter, page, limit).unwrap()
    }

    /// All entries of the session.
    pub(crate) fn feed(&self) -> Vec<FeedEvent> {
        self.page(&of_session(SESSION), &FeedPage::First, usize::MAX / 2)
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<FeedEvent> {
        self.feed().into_iter().filter(|event| event.kind == kind).collect()
    }

    /// The one entry of this kind.
    pub(crate) fn one(&self, kind: &str) -> FeedEvent {
        let mut found = self.of_kind(kind);
        assert_eq!(found.len(), 1, "{kind}: {:#?}", shown(&self.feed()));
        found.remove(0)
    }

    pub(crate) fn session(&self) -> SessionFeed {
        self.queries().session_feed(&SessionId::new(SESSION).unwrap()).unwrap()
    }

    /// The kinds of all entries, in order.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.feed().into_iter().map(|event| event.kind).collect()
    }
}

pub(crate) fn of_session(session: &str) -> FeedFilter {
    FeedFilter { session: Some(SessionId::new(session).unwrap()), ..FeedFilter::default() }
}

pub(crate) fn of_search(text: &str) -> FeedFilter {
    FeedFilter { search: Some(text.to_owned()), ..FeedFilter::default() }
}

pub(crate) fn data(event: &FeedEvent) -> Value {
    serde_json::from_str(event.data.get()).unwrap()
}

/// What entries say, without their numbers: kind, who, and what belongs to the kind.
pub(crate) fn shown(events: &[FeedEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{} {} {} {}", event.kind, event.actor_id, event.level, event.data)).collect()
}
