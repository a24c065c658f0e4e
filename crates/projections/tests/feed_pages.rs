//! Finding entries of the feed by their words, and leafing through them both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod feed_support;

use feed_support::{SESSION, Scene, batch, call, hook, of_search, of_session, result, shown, stream, transcript, with};
use runledger_events::RunId;
use runledger_projections::{FeedEvent, FeedFilter, FeedLevel, FeedPage, ProjectionError, Projections};
use serde_json::{Value, json};

/// A session in which several sources use different words.
fn scene() -> Scene {
    let read = json!({"tool_name": "Read", "tool_use_id": "t2", "tool_input": {"file_path": "/src/marmalade.rs"}});
    let plan = json!({"plan": [{"step": "Peel the quince"}], "explanation": "Fruit first"});
    Scene::of([
        hook("prompt", 10, "user.prompt", json!({"prompt": "Find the flaky übertest", "prompt_id": "p1"})),
        hook("d1", 11, "message.delta", json!({"item_id": "m1", "delta": "It is in the ca"})),
        hook("d2", 12, "message.delta", json!({"item_id": "m1", "delta": "ravanserai, "})),
        hook("d3", 13, "message.complete", json!({"item_id": "m1", "delta": "I think."})),
        hook("pre", 20, "tool.pre", call("t1", "grep -rn 'can\\'t \"find\"' zanzibar")),
        hook("post", 21, "tool.post", result("t1", "an answer of the tool")),
        stream("read", 22, "tool.pre", read),
        transcript("said", 14, "message.complete", json!({"message": "It is in the caravanserai, I think."})),
        transcript(
            "read",
            22,
            "tool.pre",
            json!({"tool_name": "Read", "tool_use_id": "t2",
            "tool_input": {"file_path": "/src/marmalade.rs", "reason": "periwinkle"}}),
        ),
        hook("plan", 23, "plan.delta", plan),
        hook("stop", 30, "stop.request", json!({"last_assistant_message": "Mended. 100% of it (a_b)."})),
    ])
}

/// The kinds of what is found, in order.
fn found(scene: &Scene, text: &str) -> Vec<String> {
    scene.page(&of_search(text), &FeedPage::First, 100).into_iter().map(|event| event.kind).collect()
}

#[test]
fn entries_are_narrowed_down_to_a_kind_a_family_of_kinds_or_a_level() {
    let scene = scene();
    let shown = |kind: Option<&str>, level| -> Vec<String> {
        let filter = FeedFilter { kind: kind.map(str::to_owned), level, ..FeedFilter::default() };
        scene.page(&filter, &FeedPage::First, 100).into_iter().map(|event| event.kind).collect()
    };
    assert_eq!(shown(Some("tool"), None), ["tool.pre", "tool.post", "tool.pre"]);
    assert_eq!(shown(Some("tool.post"), None), ["tool.post"]);
    assert_eq!(shown(Some("too"), None), [""; 0]);
    assert_eq!(shown(Some("tool.p%"), None), [""; 0]);
    assert_eq!(shown(None, Some(FeedLevel::Error)), [""; 0]);
    assert_eq!(shown(Some("user"), Some(FeedLevel::Info)), ["user.prompt"]);
}

#[test]
fn entries_are_found_by_words_of_prompts_messages_and_tools() {
    let scene = scene();
    for (text, kinds) in [
        ("flaky", &["user.prompt"][..]),
        // As a person types: neither case nor accents matter
        ("UBERTEST", &["user.prompt"]),
        // A message that came in pieces, of which a word is in two
        ("caravanserai", &["agent.message"]),
        ("zanzibar", &["tool.pre"]),
        ("marmalade", &["tool.pre"]),
        ("quince", &["plan.update"]),
        ("mended", &["agent.message"]),
        // What only another telling of the same call says
        ("periwinkle", &["tool.pre"]),
        // The beginning of a word, several words, in any order
        ("carav", &["agent.message"]),
        ("think carav", &["agent.message"]),
        ("think flaky", &[]),
        ("nowhere", &[]),
        ("aravanserai", &[]),
    ] {
        assert_eq!(found(&scene, text), kinds, "{text}");
    }
    // And in the words of the better teller, of which there is one
    let page = scene.page(&of_search("periwinkle"), &FeedPage::First, 10);
    assert_eq!(page[0].cause.hook_request_id.as_deref(), Some("stream:read"));
}

#[test]
fn a_query_is_words_and_no_syntax() {
    let scene = scene();
    for (text, kinds) in [
        ("\"find\"", &["user.prompt", "tool.pre"][..]),
        ("can't", &["tool.pre"]),
        ("100% (a_b).", &["agent.message"]),
        ("flaky OR zanzibar", &[]),
        ("flaky NOT zanzibar", &[]),
        ("flaky NEAR zanzibar", &[]),
        ("text:flaky", &[]),
        ("^flaky", &["user.prompt"]),
        ("fla* ky", &[]),
        ("flaky AND", &[]),
        ("\"", &[]),
        ("\"\"\"", &[]),
        ("*", &[]),
        ("-", &[]),
        ("(", &[]),
        ("'; DROP TABLE feed_events --", &[]),
        ("flaky\u{0}zanzibar", &[]),
        ("😀", &[]),
        ("", &[]),
        ("  \n ", &[]),
    ] {
        assert_eq!(found(&scene, text), kinds, "{text:?}");
    }
    let long = "flaky ".repeat(2000);
    assert_eq!(found(&scene, &long), ["user.prompt"]);
}

#[test]
fn a_search_within_a_session_finds_nothing_of_others() {
    let scene = scene();
    scene.tell_in("other", &hook("p", 50, "user.prompt", json!({"prompt": "A flaky one too"})));
    scene.catch_up();
    let count = |session: &str| {
        let filter = FeedFilter { search: Some("flaky".to_owned()), ..of_session(session) };
        scene.page(&filter, &FeedPage::First, 10).len()
    };
    assert_eq!((count(SESSION), count("other"), count("third")), (1, 1, 0));
    assert_eq!(found(&scene, "flaky").len(), 2);
}

#[test]
fn without_its_read_model_a_search_says_what_is_missing() {
    let scene = Scene::new();
    scene.tell(&hook("p", 1, "user.prompt", json!({"prompt": "flaky"})));
    let mut projections = Projections::open(&scene.ledger.path).unwrap();
    projections.rebuild("feed_events", &mut |_| {}).unwrap();
    assert_eq!(scene.page(&of_session(SESSION), &FeedPage::First, 10).len(), 2);
    let error = scene.queries().feed(&of_search("flaky"), &FeedPage::First, 10).unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { projection: "feed_search", .. }), "{error}");
}

/// Several sessions told of in turns, some of it within a workflow run.
fn several() -> Scene {
    let scene = Scene::new();
    for n in 0..40_i64 {
        let session = format!("s{}", n % 3);
        let adapter = format!("a{}", n % 3);
        let event = |event: Value| with(event, "sessionId", adapter.as_str());
        let id = format!("t{n}");
        let told = [
            event(hook(&format!("p{n}"), n, "user.prompt", json!({"prompt": format!("Prompt {n}, pear")}))),
            event(hook(&format!("pre{n}"), n, "tool.pre", call(&id, if n % 4 == 0 { "eat pear" } else { "ls" }))),
            event(batch(&format!("b{n}"), n, &[(id.as_str(), "no")])),
        ];
        for (at, told) in told.iter().enumerate() {
            if (n + at as i64) % 2 == 0 {
                scene.tell_within(&session, "run-1", told);
            } else {
                scene.tell_in(&session, told);
            }
        }
        if n % 10 == 0 {
            scene.catch_up();
        }
    }
    // What is told again moves nothing, and what is found by it stays where it is.
    for n in (0..40_i64).rev() {
        let mut call = call(&format!("t{n}"), "ls");
        call["tool_input"]["more"] = "pear".into();
        let event = with(transcript(&format!("t{n}"), n, "tool.pre", call), "sessionId", format!("a{}", n % 3));
        scene.tell_in(&format!("s{}", n % 3), &event);
    }
    scene.catch_up();
    scene
}

fn places(events: &[FeedEvent]) -> Vec<(String, u64)> {
    events.iter().map(|event| (event.ledger_session_id.to_string(), event.seq)).collect()
}

#[test]
fn pages_both_ways_give_the_same_entries_as_one_page() {
    let scene = several();
    let of_run = FeedFilter { run: Some(RunId::new("run-1").unwrap()), ..FeedFilter::default() };
    let filters = [
        ("all", FeedFilter::default()),
        ("a session", of_session("s1")),
        ("a workflow run", of_run.clone()),
        ("a search", of_search("pear")),
        ("a search in a session", FeedFilter { search: Some("pear".to_owned()), ..of_session("s2") }),
        ("a run in a session", FeedFilter { run: of_run.run, ..of_session("s0") }),
        ("nothing", of_session("nobody")),
    ];
    let queries = scene.queries();
    for (what, filter) in filters {
        let all = queries.feed(&filter, &FeedPage::First, usize::MAX).unwrap();
        let expected = places(&all);
        assert_eq!(expected.is_empty(), what == "nothing", "{what}");
        assert_eq!(places(&queries.feed(&filter, &FeedPage::Last, usize::MAX).unwrap()), expected, "{what}");
        for limit in [1, 2, 7, expected.len().max(1), expected.len() + 1] {
            // Forwards
            let (mut seen, mut page) = (Vec::new(), FeedPage::First);
            loop {
                let events = queries.feed(&filter, &page, limit).unwrap();
                assert!(events.len() <= limit);
                let Some(last) = events.last() else {
                    break;
                };
                page = FeedPage::After(last.cursor());
                seen.extend(places(&events));
            }
            assert_eq!(seen, expected, "{what}, forwards by {limit}");
            // Backwards
            let (mut seen, mut page) = (Vec::new(), FeedPage::Last);
            loop {
                let events = queries.feed(&filter, &page, limit).unwrap();
                let Some(first) = events.first() else {
                    break;
                };
                page = FeedPage::Before(first.cursor());
                let mut places = places(&events);
                places.extend(seen);
                seen = places;
            }
            assert_eq!(seen, expected, "{what}, backwards by {limit}");
        }
        // And the order is that of the log, each entry once
        let mut sorted = all.iter().map(|event| (event.first_position, event.seq)).collect::<Vec<_>>();
        sorted.sort_unstable();
        assert_eq!(all.iter().map(|event| (event.first_position, event.seq)).collect::<Vec<_>>(), sorted, "{what}");
        let mut once = expected.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), expected.len(), "{what}");
    }
}

#[test]
fn what_comes_while_one_leafs_through_is_behind_and_is_found_from_the_cursor_on() {
    let scene = Scene::of([hook("p", 1, "user.prompt", json!({"prompt": "One", "prompt_id": "p1"}))]);
    let queries = scene.queries();
    let cursor = queries.feed(&FeedFilter::default(), &FeedPage::Last, 1).unwrap()[0].cursor();
    assert_eq!(queries.feed(&FeedFilter::default(), &FeedPage::After(cursor.clone()), 10).unwrap().len(), 0);
    // When one is told again, and a new one is told
    scene.tell(&transcript("p", 1, "user.prompt", json!({"prompt": "One", "prompt_id": "p1"})));
    scene.tell(&hook("pre", 2, "tool.pre", call("t1", "ls")));
    scene.catch_up();
    // Then
    let next = queries.feed(&FeedFilter::default(), &FeedPage::After(cursor), 10).unwrap();
    assert_eq!(next.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["tool.pre"], "{:#?}", shown(&next));
}
