//! Whatever sources tell of a session, in whatever order and however it is cut into batches: no fact is shown twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod feed_support;
mod support;

use std::collections::BTreeMap;

use feed_support::{Scene, batch, call, data, hook, result, shown, stream, transcript, with};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};
use runledger_projections::Projections;
use serde_json::{Value as Json, json};
use support::{assert_verifies, dump};

/// One turn of a session: its prompt, what tools it calls, and what it says.
#[derive(Debug, Clone)]
struct Turn {
    tools: Vec<Tool>,
    /// Which of the sources tell of it: hooks 1, stream 2, record 4. Each may begin late, or be taken in later.
    tellers: u8,
    has_message: bool,
}

#[derive(Debug, Clone, Copy)]
enum Tool {
    Works,
    Fails,
    /// No hook tells of its end but the one of its batch.
    IsDenied,
}

fn turn() -> impl Strategy<Value = Turn> {
    let tool = prop_oneof![3 => Just(Tool::Works), 1 => Just(Tool::Fails), 1 => Just(Tool::IsDenied)];
    (proptest::collection::vec(tool, 0..3), 1_u8..8, any::<bool>()).prop_map(|(tools, tellers, has_message)| Turn {
        tools,
        tellers,
        has_message,
    })
}

/// The session as each source tells it, in that source's order.
fn tellings(turns: &[Turn]) -> [Vec<Json>; 3] {
    let (mut hooks, mut streams, mut records) = (Vec::new(), Vec::new(), Vec::new());
    hooks.push(hook("start", 0, "session.start", json!({"source": "startup"})));
    streams.push(stream("start", 0, "session.start", json!({"source": "startup"})));
    for (number, turn) in turns.iter().enumerate() {
        let at = 100 * (number as i64 + 1);
        let name = |what: &str| format!("{number}-{what}");
        let prompt = json!({"prompt": format!("Prompt {number}"), "prompt_id": name("prompt")});
        let (mut by_hook, mut by_stream, mut by_record) = (Vec::new(), Vec::new(), Vec::new());
        by_hook.push(hook(&name("prompt"), at, "user.prompt", prompt.clone()));
        by_record.push(transcript(&name("prompt"), at, "user.prompt", prompt));
        let mut calls = Vec::new();
        for (index, tool) in turn.tools.iter().enumerate() {
            let (id, at) = (format!("{number}-t{index}"), at + 10 * index as i64);
            let (pre, post) = (name(&format!("pre{index}")), name(&format!("post{index}")));
            let begin = call(&id, &format!("ls {index}"));
            by_hook.push(hook(&pre, at, "tool.pre", begin.clone()));
            by_stream.push(stream(&pre, at, "tool.pre", begin.clone()));
            by_record.push(transcript(&pre, at, "tool.pre", begin.clone()));
            let (kind, end) = match tool {
                Tool::Works => ("tool.post", result(&id, "fine")),
                Tool::Fails | Tool::IsDenied => ("tool.failure", {
                    let mut end = begin;
                    end["error"] = "broken".into();
                    end
                }),
            };
            if !matches!(tool, Tool::IsDenied) {
                by_hook.push(hook(&post, at + 5, kind, end.clone()));
            }
            by_stream.push(stream(&post, at + 5, kind, end.clone()));
            by_record.push(transcript(&post, at + 5, kind, end));
            calls.push((id, "told with the batch"));
        }
        if !calls.is_empty() {
            let calls: Vec<(&str, &str)> = calls.iter().map(|(id, response)| (id.as_str(), *response)).collect();
            by_hook.push(batch(&name("batch"), at + 50, &calls));
        }
        let said = json!({"message": format!("Answer {number}")});
        if turn.has_message {
            by_stream.push(stream(&name("said"), at + 60, "message.complete", said.clone()));
            by_record.push(transcript(&name("said"), at + 60, "message.complete", said));
        }
        let last = turn.has_message.then(|| format!("Answer {number}"));
        by_hook.push(hook(&name("stop"), at + 70, "stop.request", json!({"last_assistant_message": last})));
        by_stream.push(stream(&name("result"), at + 75, "turn.complete", json!({"status": "success"})));
        let of = |bit: u8, told: Vec<Json>| if turn.tellers & bit != 0 { told } else { Vec::new() };
        hooks.extend(of(1, by_hook));
        streams.extend(of(2, by_stream));
        records.extend(of(4, by_record));
    }
    [hooks, streams, records]
}

/// Who tells next, and whether what was told so far is projected first.
#[derive(Debug, Clone, Copy)]
struct Step {
    source: u8,
    /// Hooks overlap: one may arrive before the one before it.
    is_overtaken: bool,
    is_cut: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0_u8..3, proptest::bool::weighted(0.2), proptest::bool::weighted(0.3))
        .prop_map(|(source, is_overtaken, is_cut)| Step { source, is_overtaken, is_cut })
}

/// The tellings of the three in the order that the steps say, what is left in turn; and before which a batch ends.
fn interleaved(mut tellings: [Vec<Json>; 3], steps: &[Step]) -> (Vec<Json>, Vec<bool>) {
    let (mut told, mut cuts) = (Vec::new(), Vec::new());
    let rest = Step { source: 0, is_overtaken: false, is_cut: false };
    let mut steps = steps.iter().copied().chain(std::iter::repeat(rest));
    while tellings.iter().any(|events| !events.is_empty()) {
        let step = steps.next().unwrap();
        let first = usize::from(step.source);
        let source = (0..3).map(|next| (first + next) % 3).find(|at| !tellings[*at].is_empty()).unwrap();
        let at = usize::from(source == 0 && step.is_overtaken && tellings[0].len() > 1);
        told.push(tellings[source].remove(at));
        cuts.push(step.is_cut);
    }
    (told, cuts)
}

/// How often each fact is shown.
fn counts(scene: &Scene) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in scene.feed() {
        let told = data(&event);
        let fact = match event.kind.as_str() {
            "tool.pre" => format!("call {}", told["tool_use_id"]),
            "tool.post" | "tool.failure" => format!("result {}", told["tool_use_id"]),
            "user.prompt" => format!("prompt {}", told["prompt"]),
            "agent.message" => format!("message {}", told["message"]),
            "session.start" => "start".to_owned(),
            _ => continue,
        };
        *counts.entry(fact).or_default() += 1;
    }
    counts
}

/// How often each should be: once, where somebody tells it.
fn expected(turns: &[Turn]) -> BTreeMap<String, usize> {
    let mut facts = vec!["start".to_owned()];
    for (number, turn) in turns.iter().enumerate() {
        // The stream tells no prompts.
        if turn.tellers != 2 {
            facts.push(format!("prompt \"Prompt {number}\""));
        }
        if turn.has_message {
            facts.push(format!("message \"Answer {number}\""));
        }
        for index in 0..turn.tools.len() {
            facts.extend(["call", "result"].map(|what| format!("{what} \"{number}-t{index}\"")));
        }
    }
    facts.into_iter().map(|fact| (fact, 1)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(3),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_order_and_no_batch_shows_a_fact_twice(
        turns in proptest::collection::vec(turn(), 1..5),
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let (told, cuts) = interleaved(tellings(&turns), &steps);
        // When it is told in batches, one by one, and at once
        let in_batches = Scene::new();
        for (event, is_cut) in told.iter().zip(cuts) {
            if is_cut {
                in_batches.catch_up();
            }
            in_batches.tell(event);
        }
        in_batches.catch_up();
        // Then each fact is shown once
        prop_assert_eq!(counts(&in_batches), expected(&turns), "{:#?}", shown(&in_batches.feed()));
        // And counted once
        let runs = in_batches.session().runs;
        let uses: u64 = runs.iter().map(|run| run.counters.tool_uses).sum();
        let failures: u64 = runs.iter().map(|run| run.counters.tool_failures).sum();
        let tools = turns.iter().flat_map(|turn| &turn.tools);
        prop_assert_eq!(uses, tools.clone().count() as u64);
        let failed = in_batches.of_kind("tool.failure").len();
        prop_assert_eq!(failures, failed as u64, "{:#?}", runs);
        // And every row is the same however it was cut, and after a rebuild
        let rows = dump(&in_batches.ledger.path);
        let at_once = Scene::of(told.iter().cloned());
        prop_assert_eq!(shown(&at_once.feed()), shown(&in_batches.feed()));
        let one_by_one = Scene::new();
        for event in &told {
            one_by_one.tell(event);
            one_by_one.catch_up();
        }
        prop_assert_eq!(&dump(&one_by_one.ledger.path), &rows);
        prop_assert_eq!(&dump(&at_once.ledger.path), &rows);
        let mut projections = Projections::open(&in_batches.ledger.path).unwrap();
        for name in ["feed_events", "feed_search"] {
            prop_assert_eq!(projections.rebuild(name, &mut |_| {}).unwrap().changed, Some(0));
        }
        prop_assert_eq!(&dump(&in_batches.ledger.path), &rows);
    }
}

#[test]
fn two_sessions_whose_tellings_cross_in_one_batch_do_not_mix() {
    // Given two adapter sessions with the same ids, of two ledger sessions
    let turns = [Turn { tools: vec![Tool::Works, Tool::IsDenied], tellers: 7, has_message: true }];
    let scene = Scene::new();
    for events in tellings(&turns) {
        for event in events {
            let other = with(event.clone(), "sessionId", "b");
            scene.tell(&event);
            scene.tell_in("other", &with(other, "id", format!("{}-b", event["id"].as_str().unwrap())));
        }
    }
    scene.catch_up();
    assert_eq!(counts(&scene), expected(&turns));
    let other = scene.page(&feed_support::of_session("other"), &runledger_projections::FeedPage::First, 100);
    assert_eq!(shown(&other), shown(&scene.feed()));
    assert_verifies(&mut Projections::open(&scene.ledger.path).unwrap());
}
