//! The comparison of feeds: what is equal however it is numbered, and the reasons for what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use runledger_import::{Comparison, FeedRow, OldDatabase, compare_feed};
use runledger_testkit::shared;
use serde_json::{Value, json};

fn databases() -> Vec<OldDatabase> {
    let Some(folder) = shared("conformance/legacy-db") else {
        return Vec::new();
    };
    ["permissions-unicode", "many-runs", "repeated-ids", "schema-v2"]
        .map(|name| OldDatabase::read(folder.join(format!("{name}.db"))).unwrap())
        .into()
}

fn events(rows: &[FeedRow]) -> Vec<Value> {
    rows.iter().map(|row| row.event.clone()).collect()
}

fn equal(count: usize) -> Comparison {
    Comparison { equal: count as u64, ..Comparison::default() }
}

/// The events numbered anew, with their parents, as where other entries stand between them.
fn renumbered(events: &[Value], number: impl Fn(u64) -> u64) -> Vec<Value> {
    let id = |id: &Value| {
        let (run, seq) = id.as_str().unwrap().rsplit_once(":E").unwrap();
        json!(format!("{run}:E{}", number(seq.parse().unwrap())))
    };
    let event = |event: &Value| {
        let mut event = event.clone();
        event["seq"] = json!(number(event["seq"].as_u64().unwrap()));
        event["event_id"] = id(&event["event_id"]);
        if let Some(parent) = event.pointer_mut("/cause/parent_event_id") {
            *parent = id(parent);
        }
        event
    };
    events.iter().map(event).collect()
}

#[test]
fn a_feed_is_equal_to_itself_and_to_itself_among_entries_that_the_old_one_had_not() {
    for old in databases() {
        let stored = events(&old.feed_events);
        assert_eq!(compare_feed(&old.feed_events, stored.clone()), equal(stored.len()));
        let mut now = renumbered(&stored, |seq| seq * 2);
        now.insert(0, json!({"kind": "workflow.run.start", "seq": 1, "title": "began"}));
        now.insert(3, json!({"kind": "workflow.iteration", "seq": 5}));
        assert_eq!(compare_feed(&old.feed_events, now), equal(stored.len()));
    }
}

#[test]
fn each_difference_is_counted_with_its_reason() {
    for old in databases().into_iter().take(1) {
        let stored = events(&old.feed_events);
        let mut now = stored.clone();
        now[0]["title"] = json!("Another one");
        now[0]["data"]["source"] = Value::Null;
        now[2]["run_id"] = json!("adapter-ü:R9");
        now[3]["cause"]["parent_event_id"] = json!("adapter-ü:R1:E1");
        now[4]["data"]["reason"] = json!(1);
        now.swap(7, 8);
        now.remove(6);
        now.push(json!({"kind": "run.end", "ts": 1, "cause": {"hook_request_id": "req-0001"}}));
        let comparison = compare_feed(&old.feed_events, now);
        assert_eq!(comparison.equal + comparison.different, stored.len() as u64 + 1);
        insta::assert_json_snapshot!("reasons", comparison);
    }
}

#[test]
fn a_repeated_id_is_found_by_what_it_was() {
    for old in databases().into_iter().filter(|old| old.feed_events.len() == 8) {
        let mut now = events(&old.feed_events);
        now[4]["cause"]["hook_request_id"] = json!("req-0003~2");
        let comparison = compare_feed(&old.feed_events, now);
        assert_eq!((comparison.equal, comparison.different), (7, 1));
        assert_eq!(comparison.reasons.into_keys().collect::<Vec<_>>(), ["tool.post: cause.hook_request_id"]);
    }
}
