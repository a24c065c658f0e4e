//! However events are cut into batches, and a fold's rows are written in part or it is forgotten: the rows are those of one
//! event at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::HashSet;

use runledger_events::{Metadata, Position, RecordedEvent, StreamName};
use runledger_projections::{Projection, Target, registered};
use runledger_store::{EventFilter, LogReader, Read};
use runledger_testkit::TempLedger;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Random, Story, Told, assert_verifies, caught_up, dump_of_table, tell};

fn pick<'a, T: ?Sized>(r: &mut Random, of: &[&'a T]) -> &'a T {
    of[usize::try_from(r.below(of.len() as u64)).unwrap()]
}
fn chance(r: &mut Random, of: u64) -> bool {
    r.below(of) == 0
}

/// Kinds of harness events, the frequent ones more than once.
const KINDS: &[&str] = &[
    "session.start",
    "session.end",
    "user.prompt",
    "user.prompt",
    "turn.start",
    "turn.complete",
    "message.delta",
    "message.delta",
    "message.delta",
    "message.complete",
    "plan.delta",
    "reasoning.delta",
    "usage.update",
    "tool.pre",
    "tool.pre",
    "tool.pre",
    "tool.pre",
    "tool.delta",
    "tool.post",
    "tool.post",
    "tool.failure",
    "tool.failure",
    "permission.request",
    "permission.request",
    "permission.denied",
    "stop.request",
    "subagent.start",
    "subagent.stop",
    "notification",
    "unknown",
    "unknown",
    "decision",
    "decision",
    "task.created",
];

/// Fields that any kind may have, out of few values, so that events are about the same things.
fn data(r: &mut Random, n: u64) -> Value {
    let mut d = serde_json::Map::new();
    let command = format!("c{}", r.below(2));
    let tool = pick(r, &["Bash", "Bash", "Bash", "TodoWrite", "Task", "WebSearch", "AskUserQuestion"]);
    d.insert("tool_name".into(), tool.into());
    if !chance(r, 4) {
        d.insert("tool_use_id".into(), format!("t{}", r.below(3)).into());
    }
    d.insert(
        "tool_input".into(),
        json!({"command": command, "description": command, "query": "q",
        "todos": [{"content": format!("x{}", r.below(2)), "status": pick(r, &["pending", "completed"])}]}),
    );
    if chance(r, 2) {
        d.insert("prompt_id".into(), format!("p{}", r.below(2)).into());
    }
    if chance(r, 3) {
        d.insert("turn_id".into(), format!("u{}", r.below(2)).into());
    }
    d.insert("source".into(), pick(r, &["startup", "resume", "clear", "compact"]).into());
    if chance(r, 2) {
        d.insert("prompt".into(), format!("prompt {}", r.below(3)).into());
    }
    if chance(r, 2) {
        d.insert("item_id".into(), format!("i{}", r.below(2)).into());
    }
    d.insert("delta".into(), format!("d{n} ").into());
    if chance(r, 3) {
        d.insert("message".into(), format!("said {}", r.below(2)).into());
    }
    if chance(r, 2) {
        d.insert("last_assistant_message".into(), format!("said {}", r.below(2)).into());
    }
    d.insert("phase".into(), "summary".into());
    d.insert(
        "plan".into(),
        json!([{"step": format!("x{}", r.below(2)), "status": pick(r, &["pending", "completed"])}]),
    );
    d.insert("usage".into(), json!({"input": n, "output": 7}));
    d.insert("status".into(), pick(r, &["success", "failed", "interrupted"]).into());
    if chance(r, 4) {
        d.insert("agent_id".into(), format!("g{}", r.below(2)).into());
    }
    d.insert("error".into(), "broken".into());
    d.insert("is_interrupt".into(), chance(r, 2).into());
    d.insert("tool_response".into(), pick(r, &["fine", "well"]).into());
    if chance(r, 2) {
        d.insert("hook_event_name".into(), "PostToolBatch".into());
        d.insert("tool_calls".into(), json!([
            {"tool_name": "Bash", "tool_use_id": format!("t{}", r.below(3)), "tool_input": {"command": "c0"}, "tool_response": "late"}]));
    }
    Value::Object(d)
}

/// A log of random events, and all that is in it.
fn events(seed: u64, count: u64) -> (TempLedger, Vec<RecordedEvent>) {
    let ledger = TempLedger::new();
    let log_id = ledger.log.log_id().to_string();
    let mut r = Random(seed.wrapping_mul(7919) + 1);
    let mut story = Story::default();
    let mut ids: HashSet<(String, String)> = HashSet::new();
    let mut known: Vec<String> = vec!["x".into()];
    let mut questions: Vec<String> = Vec::new();
    let mut told: Vec<Told> = Vec::new();
    for n in 0..count {
        match r.below(12) {
            0 | 1 => {
                let run = format!("run-{}", r.below(2));
                let (choice, more) = (r.byte(), r.byte());
                told.push(match r.below(5) {
                    0 => story.stray_of_run(&run, choice, more),
                    1 => story.decision_of_run_or_start(&run, choice),
                    _ => story.next_of_run(&run, choice),
                });
                continue;
            }
            _ => {}
        }
        let session = format!("s{}", r.below(2));
        let adapter = (!chance(&mut r, 12)).then(|| format!("a{}", r.below(2)));
        let run = chance(&mut r, 8).then(|| format!("run-{}", r.below(2)));
        let metadata = Metadata {
            session_id: if chance(&mut r, 30) { None } else { session.parse().ok() },
            adapter_session_id: adapter.as_ref().map(|id| id.parse().unwrap()),
            run_id: run.map(|id| id.parse().unwrap()),
            ..Metadata::default()
        };
        let at = 1000 + i64::try_from(r.below(40) + n).unwrap();
        if chance(&mut r, 12) {
            let about = known[usize::try_from(r.below(known.len() as u64)).unwrap()].clone();
            let id = format!("q{n}");
            let mut d = json!({"request_id": id, "log_id": log_id, "event_id": about, "question": "permission",
                "tool_name": "Bash", "tool_use_id": format!("t{}", r.below(3)), "fingerprint": "f", "pattern": "Bash(c0)",
                "mode": "wait", "due_at": at + 100, "on_timeout": "deny", "tool_input": {"command": "c0"}, "cwd": "/work"});
            if chance(&mut r, 2) {
                d["context"] = json!({"run_id": "run-0", "workflow_name": "w", "state": "running", "iteration": 2, "max_iterations": 5});
            }
            let j = json!({"id": format!("ask-{id}"), "timestamp": at, "kind": "relay.request", "data": d});
            told.push(Told { stream: format!("request/{id}").parse().unwrap(), metadata, json: j.to_string() });
            questions.push(id);
            continue;
        }
        let source = pick(&mut r, &["hook:", "hook:", "hook:", "stream:", "transcript:", "", "import:note:"]);
        let id = format!("{source}{}", r.below(40));
        let mut stream = if chance(&mut r, 3) { "other/x".to_owned() } else { format!("session/{session}") };
        let kind = pick(&mut r, KINDS);
        let mut d = data(&mut r, n);
        let mut j = json!({"id": id, "timestamp": at, "kind": kind, "data": {}});
        if kind == "decision" {
            let about = known[usize::try_from(r.below(known.len() as u64)).unwrap()].clone();
            let intent = pick(&mut r, &["permission_allow", "permission_deny", "stop_block", "question_answer"]);
            d = json!({"eventId": about, "decision": {"type": "json", "source": "user", "by": "x",
                "intent": {"kind": intent, "reason": "r"}, "scope": "once"}});
            if chance(&mut r, 2) {
                d["decision"]["rule"] = json!({"origin": "workflow", "number": 1, "tool": "Bash", "reason": null});
            }
            if !questions.is_empty() && chance(&mut r, 2) {
                stream = format!("request/{}", questions[usize::try_from(r.below(questions.len() as u64)).unwrap()]);
            }
        }
        j["data"] = d;
        if !ids.insert((stream.clone(), id.clone())) {
            continue;
        }
        match r.below(4) {
            0 => j["hookName"] = "exec:x".into(),
            1 => j["hookName"] = "rollout:x".into(),
            _ => {}
        }
        if chance(&mut r, 6) {
            j["agentId"] = format!("g{}", r.below(2)).into();
        }
        if matches!(kind, "tool.pre" | "permission.request" | "stop.request") && chance(&mut r, 3) {
            j["interaction"] = json!({"expectsDecision": true});
        }
        known.push(id);
        told.push(Told { stream: stream.parse::<StreamName>().unwrap(), metadata, json: j.to_string() });
    }
    for one in &told {
        tell(&*ledger.log, std::slice::from_ref(one));
    }
    let events = whole(&ledger);
    (ledger, events)
}

/// All events of a log, with their content.
fn whole(ledger: &TempLedger) -> Vec<RecordedEvent> {
    let reader = LogReader::open(&ledger.path).unwrap();
    let head = reader.head().unwrap().position;
    let (mut all, mut after) = (Vec::new(), Position::START);
    while after < head {
        let batch = reader.read(&EventFilter::default(), after, head, 100_000, Read::All).unwrap();
        after = batch.scanned_to;
        all.extend(batch.events);
    }
    all
}

/// How the events are folded.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Each by a fold that knows nothing yet.
    OneByOne,
    /// All of them, then everything is written.
    AtOnce,
    /// Each by the same fold, which is written after it.
    Live,
    /// In batches, after some of which everything is written in small steps; the fold goes on, or is forgotten.
    Cut(u64),
}

/// The rows that come of it.
fn folded(projection: &dyn Projection, events: &[RecordedEvent], way: Way) -> String {
    let memory = Connection::open_in_memory().unwrap();
    memory.set_prepared_statement_cache_capacity(64);
    memory.execute_batch(&projection.schema().replace("{generation}", "0")).unwrap();
    let target = Target { connection: &memory, generation: 0 };
    let events: Vec<&RecordedEvent> = events.iter().filter(|event| projection.kinds().takes(&event.kind)).collect();
    let mut fold = projection.fold();
    match way {
        Way::OneByOne => {
            for event in &events {
                let mut fold = projection.fold();
                fold.take(&target, &[*event]).unwrap();
                assert!(fold.flush(&target, usize::MAX).unwrap());
            }
        }
        Way::AtOnce => {
            fold.take(&target, &events).unwrap();
            assert!(fold.flush(&target, usize::MAX).unwrap());
        }
        Way::Live => {
            for event in &events {
                fold.take(&target, &[*event]).unwrap();
                assert!(fold.flush(&target, usize::MAX).unwrap());
            }
        }
        Way::Cut(seed) => {
            let mut r = Random(seed);
            let mut rest = &events[..];
            while !rest.is_empty() {
                let n = usize::try_from(1 + r.below(8)).unwrap().min(rest.len());
                let (now, later) = rest.split_at(n);
                fold.take(&target, now).unwrap();
                rest = later;
                if r.below(2) == 0 {
                    flush(&mut r, fold.as_mut(), &target);
                    if r.below(3) == 0 {
                        fold = projection.fold();
                    }
                }
            }
            flush(&mut r, fold.as_mut(), &target);
        }
    }
    projection.tables().iter().map(|table| dump_of_table(&memory, table.name)).collect()
}

fn flush(r: &mut Random, fold: &mut dyn runledger_projections::Fold, target: &Target<'_>) {
    let mut tries = 0;
    while !fold.flush(target, usize::try_from(1 + r.below(4)).unwrap()).unwrap() {
        tries += 1;
        assert!(tries < 100_000, "flush never ends");
    }
}

#[test]
fn however_a_fold_is_cut_written_and_forgotten_the_rows_are_those_of_one_event_at_a_time() {
    for seed in 0..60 {
        // Given
        let (_ledger, events) = events(seed, 90);
        for projection in registered() {
            let expected = folded(projection.as_ref(), &events, Way::OneByOne);
            // When, then
            for way in [Way::AtOnce, Way::Live, Way::Cut(seed), Way::Cut(seed + 1000), Way::Cut(seed + 2000)] {
                let found = folded(projection.as_ref(), &events, way);
                assert!(found == expected, "{} differs, seed {seed}, {way:?}:\n{expected}\n{found}", projection.name());
            }
        }
    }
}

/// An event of session `s` and adapter session `a`.
fn one(stream: &str, id: &str, at: i64, kind: &str, data: Value) -> Told {
    let metadata = Metadata {
        session_id: Some("s".parse().unwrap()),
        adapter_session_id: Some("a".parse().unwrap()),
        ..Metadata::default()
    };
    let json = json!({"id": id, "timestamp": at, "kind": kind, "data": data});
    Told { stream: stream.parse::<StreamName>().unwrap(), metadata, json: json.to_string() }
}

#[test]
fn a_call_of_the_same_name_in_another_stream_takes_the_place_of_one_that_is_written() {
    // Given
    let call =
        |id: &str| json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": "x"}, "prompt_id": "p"});
    let ledger = TempLedger::new();
    let mut projections = caught_up(&ledger.path);
    tell(&*ledger.log, &[one("session/s", "hook:pre", 1, "tool.pre", call("t0"))]);
    projections.catch_up().unwrap();
    // When it begins and ends in one batch
    let begin = one("other/x", "hook:pre", 2, "tool.pre", call("t1"));
    tell(&*ledger.log, &[begin, one("session/s", "hook:post", 3, "tool.post", call("t1"))]);
    projections.catch_up().unwrap();
    // Then
    assert_verifies(&mut projections);
}

#[test]
fn failures_of_a_run_that_is_over_are_counted_in_their_order() {
    // Given a run with a result, a failure that no run counts, and a second run
    let call = |id: &str| json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {}, "tool_response": "fine"});
    let failed = json!({"tool_name": "Bash", "tool_use_id": "t2", "tool_input": {}, "error": "broken"});
    let batch = json!({"hook_event_name": "PostToolBatch", "tool_calls": [
        {"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {}, "tool_response": "late"}]});
    let prompt = |id: &str| json!({"prompt": format!("prompt {id}"), "prompt_id": id});
    let ledger = TempLedger::new();
    let told = [
        one("session/s", "hook:1", 1, "user.prompt", prompt("p1")),
        one("session/s", "transcript:2", 2, "tool.post", call("t2")),
        one("session/s", "stream:3", 3, "turn.complete", json!({"status": "completed"})),
        one("session/s", "hook:4", 4, "unknown", batch),
        one("session/s", "hook:5", 5, "user.prompt", prompt("p2")),
        // When the one turns out to be none, and the other to be one
        one("session/s", "stream:6", 6, "tool.post", call("t1")),
        one("session/s", "hook:7", 7, "tool.failure", failed),
    ];
    tell(&*ledger.log, &told);
    let mut projections = caught_up(&ledger.path);
    // Then the order counts, in one batch as one by one.
    let events = whole(&ledger);
    let feed = registered().into_iter().find(|projection| projection.name() == "feed_events").unwrap();
    let one_by_one = folded(feed.as_ref(), &events, Way::OneByOne);
    assert_eq!(folded(feed.as_ref(), &events, Way::AtOnce), one_by_one);
    assert_verifies(&mut projections);
}
