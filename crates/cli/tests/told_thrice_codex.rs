//! Recorded threads of Codex, told by hooks, `codex exec --json` and rollouts in any order: each fact is shown once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use runledger_adapters::{CodexJson, CodexRollout, HookLines, LineAdapter};
use runledger_events::{AdapterSessionId, EventKind, Metadata, RuntimeEvent, SessionId, StreamName, TimestampMs};
use runledger_projections::{FeedEvent, FeedFilter, FeedPage, Projections, Queries};
use runledger_store::{ExpectedVersion, NewEvent, StreamAppend};
use runledger_testkit::{TempLedger, shared};
use serde_json::Value;

const SESSION: &str = "s1";
/// Events of a source that are told, at the most; `stop-block` has thousands of them that are alike.
const EVENTS_MAX: usize = 400;

/// What one source tells of a case.
#[derive(Clone)]
struct Teller {
    name: &'static str,
    events: Vec<RuntimeEvent>,
}

struct Case {
    name: String,
    tellers: Vec<Teller>,
}

fn cases() -> Vec<Case> {
    let Some(folder) = shared("real/codex-0.169.0") else {
        return Vec::new();
    };
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = files
        .filter_map(|file| Some(file.split_once(".hooks.jsonl").or(file.split_once(".exec.jsonl"))?.0.to_owned()))
        .collect();
    assert!(names.len() >= 28, "{names:?}");
    names.into_iter().map(|name| Case::read(&folder, name)).collect()
}

impl Case {
    fn read(folder: &Path, name: String) -> Self {
        let file = |kind: &str| folder.join(format!("{name}.{kind}.jsonl"));
        let mut rollout = read(&file("rollout"), &mut CodexRollout::new());
        rollout.extend(read(&file("child-rollout"), &mut CodexRollout::new()));
        let tellers = [
            ("hooks", read(&file("hooks"), &mut HookLines::new())),
            ("exec", read(&file("exec"), &mut CodexJson::new())),
            ("rollout", rollout),
        ];
        let tellers = tellers.into_iter().filter(|(_, events)| !events.is_empty());
        Self { name, tellers: tellers.map(|(name, events)| Teller { name, events }).collect() }
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for teller in &self.tellers {
            facts.take(teller);
        }
        facts
    }
}

fn read(path: &PathBuf, adapter: &mut dyn LineAdapter) -> Vec<RuntimeEvent> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Vec::new();
    };
    let now = Some(TimestampMs(1_795_348_000_000));
    text.split_terminator('\n').flat_map(|line| adapter.line(line, now).unwrap()).take(EVENTS_MAX).collect()
}

/// What all tellers of a case together know, each fact once.
#[derive(Debug, Default)]
struct Facts {
    /// The ids that hooks and the rollout give to calls, and to calls that ended.
    calls: BTreeSet<String>,
    results: BTreeSet<String>,
    /// How many `codex exec --json` tells, under ids of its own.
    exec_calls: usize,
    exec_results: usize,
    /// How often a text was told by the source that told it most often.
    messages: BTreeMap<String, usize>,
    prompts: BTreeMap<String, usize>,
    /// How often a source told a plan that it had not told just before, at the most.
    plans: usize,
}

impl Facts {
    fn take(&mut self, teller: &Teller) {
        let (mut messages, mut prompts) = (BTreeMap::new(), BTreeMap::new());
        let mut last_message = None;
        let mut plans: Vec<String> = Vec::new();
        for event in &teller.events {
            let told: Value = serde_json::from_str(event.json()).unwrap();
            let data = &told["data"];
            let text = |name: &str| data[name].as_str().map(|text| text.trim_end().to_owned());
            let count = |of: &mut BTreeMap<String, usize>, text: Option<String>| {
                let text = text.filter(|text| !text.is_empty());
                text.into_iter().for_each(|text| *of.entry(text).or_default() += 1);
            };
            match event.kind() {
                EventKind::ToolPre if teller.name == "exec" => self.exec_calls += 1,
                EventKind::ToolPost | EventKind::ToolFailure if teller.name == "exec" => self.exec_results += 1,
                EventKind::ToolPre => self.calls.extend(text("tool_use_id")),
                EventKind::ToolPost | EventKind::ToolFailure => self.results.extend(text("tool_use_id")),
                EventKind::MessageComplete | EventKind::StopRequest | EventKind::SubagentStop => {
                    let message = text("message").or_else(|| text("last_assistant_message"));
                    // What is said twice in a row is shown once, as in the reference.
                    count(&mut messages, message.clone().filter(|_| message != last_message));
                    last_message = message.or(last_message);
                }
                EventKind::PlanDelta => plans.push(data["plan"].to_string()),
                EventKind::UserPrompt => {
                    count(&mut prompts, text("prompt"));
                    last_message = None;
                }
                _ => {}
            }
        }
        plans.dedup();
        self.plans = self.plans.max(plans.len());
        for (of, told) in [(&mut self.messages, messages), (&mut self.prompts, prompts)] {
            for (text, times) in told {
                let known = of.entry(text).or_default();
                *known = times.max(*known);
            }
        }
    }

    /// Calls, and results, that the feed is to show.
    fn counts(&self) -> (usize, usize) {
        (self.calls.len().max(self.exec_calls), self.results.len().max(self.exec_results))
    }
}

/// Tells events in this order to a new ledger, and gives its feed.
fn feed(events: &[&RuntimeEvent]) -> (TempLedger, Vec<FeedEvent>) {
    let ledger = TempLedger::new();
    let session = SessionId::new(SESSION).unwrap();
    let stream = StreamName::session(&session);
    let mut adapter_session: Option<AdapterSessionId> = None;
    let append = |event: &&RuntimeEvent| {
        adapter_session = event.adapter_session_id().cloned().or(adapter_session.take());
        let metadata = Metadata {
            session_id: Some(session.clone()),
            adapter_session_id: adapter_session.clone(),
            ..Metadata::default()
        };
        let events = vec![NewEvent::new((*event).clone(), metadata).unwrap()];
        StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events }
    };
    ledger.log.append_all(events.iter().map(append).collect()).unwrap();
    Projections::open(&ledger.path).unwrap().catch_up().unwrap();
    let filter = FeedFilter { session: Some(session.clone()), ..FeedFilter::default() };
    let events = Queries::open(&ledger.path).unwrap().feed(&filter, &FeedPage::First, usize::MAX / 2).unwrap();
    (ledger, events)
}

/// What is wrong with a feed of a case; nothing where each fact is shown once.
fn faults(facts: &Facts, feed: &[FeedEvent]) -> Vec<String> {
    let data = |event: &FeedEvent| -> Value { serde_json::from_str(event.data.get()).unwrap() };
    let of_kind = |kinds: &[&str]| feed.iter().filter(|event| kinds.contains(&event.kind.as_str())).collect::<Vec<_>>();
    let shown = |kind: &str, field: &str| {
        let mut shown: BTreeMap<String, usize> = BTreeMap::new();
        for event in of_kind(&[kind]) {
            *shown.entry(data(event)[field].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        shown
    };
    let mut faults = Vec::new();
    let plans = (of_kind(&["plan.update"]).len(), of_kind(&["todo.update"]).len());
    if plans.0 != facts.plans || plans.1 > facts.plans {
        faults.push(format!("plans: {plans:?} for {}", facts.plans));
    }
    let (calls, results) = facts.counts();
    let counts = (of_kind(&["tool.pre"]).len(), of_kind(&["tool.post", "tool.failure"]).len());
    if counts != (calls, results) {
        let told: Vec<String> = of_kind(&["tool.pre", "tool.post", "tool.failure"])
            .iter()
            .map(|e| format!("{} {}", e.kind, e.data))
            .collect();
        faults.push(format!("calls and results: {counts:?} for {:?}\n    {}", (calls, results), told.join("\n    ")));
    }
    for (kind, field, facts) in
        [("agent.message", "message", &facts.messages), ("user.prompt", "prompt", &facts.prompts)]
    {
        let shown = shown(kind, field);
        if shown != *facts {
            faults.push(format!("{kind}: {shown:?} for {facts:?}"));
        }
    }
    let begun: BTreeSet<&str> = of_kind(&["tool.pre"]).into_iter().map(|event| event.event_id.as_str()).collect();
    for event in of_kind(&["tool.post", "tool.failure"]) {
        if event.cause.parent_event_id.as_deref().is_some_and(|parent| !begun.contains(parent)) {
            faults.push(format!("{} follows on what is no call: {}", event.event_id, event.data));
        }
    }
    faults
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let orders: &[&[usize]] = match count {
        1 => &[&[0]],
        2 => &[&[0, 1], &[1, 0]],
        _ => &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]],
    };
    orders.iter().map(|order| order.to_vec()).collect()
}

/// What is wrong with the feed of a case that is told in this order.
fn faults_of(case: &Case, events: &[&RuntimeEvent], order: &str) -> Vec<String> {
    let (_ledger, feed) = feed(events);
    faults(&case.facts(), &feed).into_iter().map(|fault| format!("{} ({order}): {fault}", case.name)).collect()
}

#[test]
fn each_fact_is_shown_once_whoever_tells_it_first() {
    let mut wrong = Vec::new();
    for case in cases() {
        for order in permutations(case.tellers.len()) {
            let events: Vec<&RuntimeEvent> = order.iter().flat_map(|at| &case.tellers[*at].events).collect();
            let order: Vec<&str> = order.iter().map(|at| case.tellers[*at].name).collect();
            // A hook changed the command, which only its end tells: what was asked for and what ran are two calls as long as
            // nobody has said that they are one.
            let is_untold = case.name == "pre-input" && order.iter().rposition(|name| *name == "hooks") != Some(0);
            let is_untold = is_untold
                && order.iter().position(|name| *name == "exec") < order.iter().position(|name| *name == "hooks");
            let found = faults_of(&case, &events, &order.join(", "));
            assert!(!is_untold || !found.is_empty(), "{} is told well: {order:?}", case.name);
            wrong.extend(found.into_iter().filter(|_| !is_untold));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_fact_is_shown_once_when_all_tell_it_as_it_happens() {
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| case.tellers.len() > 1 && case.name != "pre-input") {
        for seed in 1..=6 {
            let events = mixed(case, seed);
            wrong.extend(faults_of(case, &events, &format!("seed {seed}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The events of all tellers, each one's in its order, in an order among them that the seed decides.
fn mixed(case: &Case, seed: u64) -> Vec<&RuntimeEvent> {
    let mut random = seed;
    let mut rest: Vec<&[RuntimeEvent]> = case.tellers.iter().map(|teller| teller.events.as_slice()).collect();
    let mut mixed = Vec::new();
    while !rest.is_empty() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(random >> 33).unwrap() % rest.len();
        match rest[at].split_first() {
            Some((event, others)) => {
                mixed.push(event);
                rest[at] = others;
            }
            None => drop(rest.remove(at)),
        }
    }
    mixed
}
