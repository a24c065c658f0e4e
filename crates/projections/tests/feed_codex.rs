//! The feed of Codex: calls that its output, its hooks and its rollout tell under ids of their own are one call.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use runledger_events::SessionId;
use runledger_projections::{FeedFilter, FeedPage, Projections, Queries};
use runledger_testkit::TempLedger;
use serde_json::{Value, json};

/// What one of them tells of a call.
#[derive(Clone, Copy)]
enum Told<'a> {
    /// `codex exec --json`: an item begins; it ends with this output and exit code.
    Item(&'a str, &'a str),
    ItemEnds(&'a str, &'a str, i64),
    /// A hook: a call begins; it ends, having run this command.
    Hook(&'a str, &'a str),
    HookEnds(&'a str, &'a str, &'a str),
    /// The same of a subagent.
    HookOfAgent(&'a str, &'a str),
    /// The rollout.
    Rollout(&'a str, &'a str),
    RolloutEnds(&'a str, &'a str),
    RolloutRefuses(&'a str, &'a str),
    /// A hook says that the turn is over, the output that one begins.
    Stop,
    TurnBegins,
}

impl Told<'_> {
    fn event(self, number: usize) -> String {
        let call = |id: &str, more: Value| {
            let mut data = json!({"tool_name": "Bash", "tool_use_id": id});
            data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            data
        };
        let of_hook = |id: &str, command: &str, more: Value| {
            let mut data = call(id, more);
            data["tool_input"] = json!({"command": command});
            data["turn_id"] = json!("t1");
            data
        };
        let begins = |id, command: &str| call(id, json!({"tool_input": {"command": command}}));
        let (source, name, kind, data) = match self {
            Self::Item(id, command) => {
                ("stream", "exec:item.started/command_execution", "tool.pre", begins(id, command))
            }
            Self::ItemEnds(id, output, code) => {
                let data = call(id, json!({"tool_response": output, "exit_code": code}));
                ("stream", "exec:item.completed/command_execution", "tool.post", data)
            }
            Self::Hook(id, command) | Self::HookOfAgent(id, command) => {
                ("hook", "PreToolUse", "tool.pre", of_hook(id, command, json!({})))
            }
            Self::HookEnds(id, command, output) => {
                ("hook", "PostToolUse", "tool.post", of_hook(id, command, json!({"tool_response": output})))
            }
            Self::Rollout(id, command) => {
                ("transcript", "rollout:response_item/function_call", "tool.pre", begins(id, command))
            }
            Self::RolloutEnds(id, output) => {
                let data = call(id, json!({"tool_response": output}));
                ("transcript", "rollout:response_item/function_call_output", "tool.post", data)
            }
            Self::RolloutRefuses(id, error) => {
                let data = call(id, json!({"error": error, "is_interrupt": false}));
                ("transcript", "rollout:response_item/function_call_output", "tool.failure", data)
            }
            Self::Stop => ("hook", "Stop", "stop.request", json!({"turn_id": "t1"})),
            Self::TurnBegins => ("stream", "exec:turn.started", "turn.start", json!({})),
        };
        let mut event = json!({"id": format!("{source}:{number}"), "timestamp": 1_000 + number, "kind": kind,
            "data": data, "hookName": name, "sessionId": "thread", "context": {"cwd": "/p"}});
        if let Self::HookOfAgent(..) = self {
            event["agentId"] = json!("child");
        }
        event.to_string()
    }
}

/// Each entry of a call: what it is, the call's id, the command or what came of it; and the calls counted.
fn shown(events: &[String]) -> (Vec<String>, u64) {
    let ledger = TempLedger::new();
    for event in events {
        ledger.append("session/s1", event);
        // Whatever is remembered goes through the tables.
        Projections::open(&ledger.path).unwrap().catch_up().unwrap();
    }
    let session = SessionId::new("s1").unwrap();
    let queries = Queries::open(&ledger.path).unwrap();
    let filter = FeedFilter { session: Some(session.clone()), ..FeedFilter::default() };
    let feed = queries.feed(&filter, &FeedPage::First, 1_000).unwrap();
    let entries = feed.iter().filter(|event| event.kind.starts_with("tool.")).map(|event| {
        let data: Value = serde_json::from_str(event.data.get()).unwrap();
        let input = &data["tool_input"]["command"];
        let what = [&data["tool_response"], &data["error"], input].into_iter().find_map(Value::as_str);
        assert_eq!(event.cause.tool_use_id.as_deref(), data["tool_use_id"].as_str());
        format!("{} {}: {}", event.kind, data["tool_use_id"].as_str().unwrap(), what.unwrap_or("?"))
    });
    let calls = queries.session_feed(&session).unwrap().runs.iter().map(|run| run.counters.tool_uses).sum();
    (entries.collect(), calls)
}

fn told(told: &[Told<'_>]) -> (Vec<String>, u64) {
    shown(&told.iter().enumerate().map(|(number, told)| told.event(number)).collect::<Vec<_>>())
}

#[test]
fn a_command_is_one_call_whoever_tells_it_first_and_has_the_words_of_the_hook() {
    use Told::*;
    let tellers: [&[Told<'_>]; 3] = [
        &[Item("i0", "ls"), ItemEnds("i0", "by output", 0)],
        &[Hook("c1", "ls"), HookEnds("c1", "ls", "by hook")],
        &[Rollout("c1", "ls"), RolloutEnds("c1", "by rollout")],
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (entries, calls) = told(&order.map(|teller| tellers[teller]).concat());
        assert_eq!(entries, ["tool.pre c1: ls", "tool.post c1: by hook"], "{order:?}");
        assert_eq!(calls, 1, "{order:?}");
    }
}

#[test]
fn a_command_that_runs_several_times_is_as_many_calls_each_with_its_own_output() {
    use Told::*;
    let rollout = ["c1", "c2", "c3"].map(|call| [Rollout(call, "date"), RolloutEnds(call, "?")]).concat();
    let output = [("i1", "one"), ("i2", "two"), ("i3", "three")];
    let output = output.map(|(item, said)| [Item(item, "date"), ItemEnds(item, said, 0)]).concat();
    let expected = |ids: [&str; 3]| -> Vec<String> {
        let each = ids.into_iter().zip(["one", "two", "three"]);
        each.flat_map(|(id, said)| [format!("tool.pre {id}: date"), format!("tool.post {id}: {said}")]).collect()
    };
    // The output's words come before the rollout's, so they have to come to the right call.
    let (entries, calls) = told(&[rollout.as_slice(), &output].concat());
    assert_eq!((entries, calls), (expected(["c1", "c2", "c3"]), 3));
    let (entries, calls) = told(&[output.as_slice(), &rollout].concat());
    assert_eq!((entries, calls), (expected(["i1", "i2", "i3"]), 3));
    let (entries, calls) = told(&output);
    assert_eq!((entries, calls), (expected(["i1", "i2", "i3"]), 3));
}

#[test]
fn two_calls_at_once_with_one_command_are_two_calls() {
    use Told::*;
    let (entries, calls) = told(&[
        Hook("c1", "ls"),
        Hook("c2", "ls"),
        Item("i1", "ls"),
        Item("i2", "ls"),
        HookEnds("c1", "ls", "a"),
        ItemEnds("i1", "a", 0),
        ItemEnds("i2", "b", 0),
        HookEnds("c2", "ls", "b"),
    ]);
    let pre = entries.iter().filter(|entry| entry.starts_with("tool.pre")).count();
    assert_eq!((pre, entries.len(), calls), (2, 4, 2), "{entries:?}");
    assert!(entries.contains(&"tool.post c1: a".to_owned()) && entries.contains(&"tool.post c2: b".to_owned()));
}

#[test]
fn a_refused_call_is_not_the_one_that_ran_the_same_command_later() {
    use Told::*;
    let refused = "Command blocked by PreToolUse hook: no.";
    let live =
        [Hook("c1", "ls"), Hook("c2", "ls"), Item("i1", "ls"), ItemEnds("i1", "x", 0), HookEnds("c2", "ls", "x")];
    let rollout = [Rollout("c1", "ls"), RolloutRefuses("c1", refused), Rollout("c2", "ls"), RolloutEnds("c2", "x")];
    let failure = format!("tool.failure c1: {refused}");
    let (entries, calls) = told(&[live.as_slice(), &rollout].concat());
    assert_eq!(entries, ["tool.pre c1: ls", "tool.pre c2: ls", "tool.post c2: x", failure.as_str()]);
    assert_eq!(calls, 2);
    // Without hooks the output alone is heard first, and the rollout says what it was.
    let output = [Item("i1", "ls"), ItemEnds("i1", "x", 0)];
    let (entries, calls) = told(&[output.as_slice(), &rollout].concat());
    assert_eq!(entries, ["tool.pre i1: ls", "tool.post i1: x", failure.as_str(), "tool.pre c2: ls"]);
    assert_eq!(calls, 2);
    let (entries, _) = told(&[rollout.as_slice(), &output].concat());
    assert_eq!(entries, ["tool.pre c1: ls", failure.as_str(), "tool.pre c2: ls", "tool.post c2: x"]);
}

#[test]
fn a_command_that_a_hook_changed_is_one_call() {
    use Told::*;
    let expected = ["tool.pre c1: rm x", "tool.post c1: done"];
    // While it runs.
    let (entries, calls) = told(&[
        Hook("c1", "rm x"),
        Item("i1", "ls x"),
        ItemEnds("i1", "done", 0),
        HookEnds("c1", "ls x", "done"),
        Rollout("c1", "rm x"),
        RolloutEnds("c1", "done"),
    ]);
    assert_eq!((entries.as_slice(), calls), (expected.map(str::to_owned).as_slice(), 1));
    // When the hook has told its end.
    let (entries, calls) = told(&[
        Hook("c1", "rm x"),
        HookEnds("c1", "ls x", "done"),
        Stop,
        Item("i1", "ls x"),
        ItemEnds("i1", "done", 0),
    ]);
    assert_eq!((entries.as_slice(), calls), (expected.map(str::to_owned).as_slice(), 1));
}

#[test]
fn a_call_of_a_turn_that_was_cut_off_is_none_of_the_next() {
    use Told::*;
    let (entries, calls) = told(&[
        Hook("c1", "sleep 9"),
        Item("i1", "sleep 9"),
        TurnBegins,
        Item("i2", "ls"),
        ItemEnds("i2", "x", 0),
        Item("i3", "sleep 9"),
        Hook("c3", "sleep 9"),
        ItemEnds("i3", "", 0),
    ]);
    let expected =
        ["tool.pre c1: sleep 9", "tool.pre i2: ls", "tool.post i2: x", "tool.pre c3: sleep 9", "tool.post c3: "];
    assert_eq!((entries.as_slice(), calls), (expected.map(str::to_owned).as_slice(), 3));
}

#[test]
fn what_a_subagent_runs_is_no_item_of_the_output() {
    use Told::*;
    let (entries, calls) =
        told(&[HookOfAgent("c1", "ls"), Item("i1", "ls"), Hook("c2", "ls"), ItemEnds("i1", "root's", 0)]);
    assert_eq!(entries, ["tool.pre c1: ls", "tool.pre c2: ls", "tool.post c2: root's"]);
    assert_eq!(calls, 2);
}

#[test]
fn a_patch_is_known_by_its_files() {
    let patch = "*** Begin Patch\n*** Add File: a.txt\n+x\n*** Update File: b/c.txt\n@@\n-y\n+z\n*** End Patch";
    let event = |source: &str, name: &str, id: &str, input: Value| {
        json!({"id": format!("{source}:1"), "timestamp": 1_000, "kind": "tool.pre", "hookName": name,
            "sessionId": "thread", "context": {"cwd": "/p"},
            "data": {"tool_name": "apply_patch", "tool_use_id": id, "tool_input": input, "turn_id": "t1"}})
        .to_string()
    };
    let changes = json!({"changes": [{"path": "/p/b/c.txt", "kind": "update"}, {"path": "/p/a.txt", "kind": "add"}]});
    let item = event("stream", "exec:item.started/file_change", "i1", changes);
    let hook = event("hook", "PreToolUse", "c1", json!({"command": patch}));
    let rollout = event("transcript", "rollout:response_item/custom_tool_call", "c1", json!({"command": patch}));
    for events in
        [[&item, &hook, &rollout], [&hook, &item, &rollout], [&rollout, &item, &hook], [&item, &rollout, &hook]]
    {
        let (entries, calls) = shown(&events.map(String::clone));
        assert_eq!((entries, calls), (vec![format!("tool.pre c1: {patch}")], 1));
    }
}
