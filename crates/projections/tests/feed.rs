//! The feed of harnesses that are told of by hooks, output and record: one fact is one entry, in the best words there are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod feed_support;

use feed_support::{
    ADAPTER, SESSION, Scene, batch, call, data, hook, of_session, result, shown, stream, told, transcript, with,
};
use runledger_events::{Position, Source};
use runledger_projections::{AgentRun, FeedEvent, FeedPage, Projections};
use serde_json::{Value, json};

/// One session as its hooks tell it.
fn by_hooks() -> Vec<Value> {
    vec![
        hook("start", 0, "session.start", json!({"source": "startup", "model": "opus"})),
        hook("prompt", 10, "user.prompt", json!({"prompt": "Fix it", "prompt_id": "p1"})),
        hook("pre", 30, "tool.pre", call("t1", "ls")),
        hook("post", 40, "tool.post", result("t1", "as the hook has it")),
        hook("stop", 60, "stop.request", json!({"last_assistant_message": "It is fixed.", "prompt_id": "p1"})),
        hook("end", 70, "session.end", json!({"reason": "other"})),
    ]
}

/// The same as the harness's output tells it.
fn by_stream() -> Vec<Value> {
    let message = |text: &str, id: &str| json!({"message": text, "item_id": id, "model": "opus"});
    vec![
        stream("init", 1, "session.start", json!({"source": "startup", "model": "opus"})),
        stream("m1", 20, "message.complete", message("I look first.", "m1")),
        stream("pre", 30, "tool.pre", call("t1", "ls")),
        stream("post", 41, "tool.post", result("t1", "as the stream has it")),
        stream("m2", 50, "message.complete", message("It is fixed.", "m2")),
        stream("usage", 65, "usage.update", json!({"usage": {"input": 1}})),
        stream("result", 65, "turn.complete", json!({"status": "success", "is_error": false})),
    ]
}

/// The same as the record that the harness keeps tells it.
fn by_transcript() -> Vec<Value> {
    let message = |text: &str| json!({"message": text, "model": "opus"});
    vec![
        transcript("prompt", 11, "user.prompt", json!({"prompt": "Fix it", "prompt_id": "p1"})),
        transcript("m1", 20, "message.complete", message("I look first.")),
        transcript("pre", 30, "tool.pre", call("t1", "ls")),
        transcript("post", 42, "tool.post", result("t1", "as the record has it")),
        transcript("m2", 50, "message.complete", message("It is fixed.")),
    ]
}

/// The facts that more than one source tells, in no order.
fn facts(scene: &Scene) -> Vec<String> {
    let once =
        ["session.start", "user.prompt", "agent.message", "tool.pre", "tool.post", "stop.request", "session.end"];
    let mut facts = shown(&scene.feed());
    facts.retain(|fact| once.contains(&fact.split(' ').next().unwrap()));
    facts.sort();
    facts
}

fn last_run(scene: &Scene) -> AgentRun {
    scene.session().runs.pop().expect("a run")
}

fn ids(events: &[FeedEvent]) -> Vec<&str> {
    events.iter().filter_map(|event| event.cause.hook_request_id.as_deref()).collect()
}

#[test]
fn one_fact_told_by_hook_stream_and_transcript_is_one_entry_in_the_hooks_words_whatever_the_order() {
    let (h, s, t) = (by_hooks(), by_stream(), by_transcript());
    let orders = [[&h, &s, &t], [&h, &t, &s], [&s, &h, &t], [&s, &t, &h], [&t, &h, &s], [&t, &s, &h]]
        .map(|order| order.to_vec());
    let mut known: Option<Vec<String>> = None;
    for (number, order) in orders.into_iter().enumerate() {
        let scene = Scene::of(order.into_iter().flatten().cloned());
        let feed = scene.feed();
        // Then each fact is there once
        let facts = facts(&scene);
        let kinds: Vec<&str> = facts.iter().map(|fact| fact.split(' ').next().unwrap()).collect();
        let expected = [
            "agent.message",
            "agent.message",
            "session.end",
            "session.start",
            "stop.request",
            "tool.post",
            "tool.pre",
            "user.prompt",
        ];
        assert_eq!(kinds, expected, "order {number}: {:#?}", shown(&feed));
        // And whoever came first, the words are the same
        assert_eq!(known.get_or_insert_with(|| facts.clone()), &facts, "order {number}");
        assert_eq!(data(&scene.one("tool.post"))["tool_response"], "as the hook has it");
        for kind in ["session.start", "user.prompt", "tool.pre", "tool.post", "stop.request", "session.end"] {
            let one = scene.one(kind);
            let id = one.cause.hook_request_id.as_deref().unwrap();
            assert!(id.starts_with("hook:"), "order {number}: {kind} is told by {id}");
            let event = &scene.ledger.log.reader().unwrap();
            let mut one = one.clone();
            one.read_raw(event).unwrap();
            assert!(one.raw.unwrap().get().contains("\"words_of\":\"hook:\""), "order {number}: {kind}");
        }
        // What the hook does not tell, or only with the stop, is shown as the stream has it.
        assert_eq!(ids(&scene.of_kind("agent.message")).len(), 2);
        assert!(ids(&scene.of_kind("agent.message")).iter().all(|id| id.starts_with("stream:")), "order {number}");
        // And it was one run
        let runs = scene.session().runs;
        assert_eq!(runs.len(), 1, "order {number}: {runs:?}");
        assert_eq!((runs[0].status.as_str(), runs[0].trigger.as_str()), ("completed", "user_prompt_submit"));
        assert_eq!(runs[0].prompt_preview.as_deref(), Some("Fix it"), "order {number}");
        assert_eq!((runs[0].counters.tool_uses, runs[0].counters.tool_failures), (1, 0), "order {number}");
        // And every telling is found again
        let retold: Vec<Position> = feed.iter().flat_map(|event| scene.queries().retellings(event).unwrap()).collect();
        assert!(retold.len() >= 7, "order {number}: {retold:?}");
    }
}

#[test]
fn a_source_that_repeats_itself_is_believed() {
    // Given a source that says the same twice, and two others that say it as well
    let twice = |source: Source| {
        let prompt = json!({"prompt": "Again"});
        (0..2).flat_map(move |n| {
            let at = 10 * n;
            [
                told(source, &format!("{n}-prompt"), at, "user.prompt", prompt.clone()),
                told(source, &format!("{n}-pre"), at + 1, "tool.pre", call("t1", "ls")),
                told(source, &format!("{n}-post"), at + 2, "tool.post", result("t1", "files")),
                told(source, &format!("{n}-m1"), at + 3, "message.complete", json!({"message": "Once."})),
                told(source, &format!("{n}-m2"), at + 4, "message.complete", json!({"message": "More."})),
            ]
        })
    };
    let scene = Scene::of(twice(Source::Hook).chain(twice(Source::Stream)).chain(twice(Source::Transcript)));
    // Then it is shown twice, and not six times
    for kind in ["user.prompt", "tool.pre", "tool.post"] {
        assert_eq!(scene.of_kind(kind).len(), 2, "{kind}: {:#?}", shown(&scene.feed()));
    }
    assert_eq!(scene.of_kind("agent.message").len(), 4, "{:#?}", shown(&scene.feed()));
    assert_eq!(scene.session().runs.len(), 2);
}

#[test]
fn an_event_of_another_adapter_session_is_another_fact() {
    let one = hook("1", 1, "tool.pre", call("t1", "ls"));
    let other = with(stream("2", 2, "tool.pre", call("t1", "ls")), "sessionId", "b");
    let scene = Scene::of([one, other]);
    assert_eq!(scene.of_kind("tool.pre").len(), 2);
}

#[test]
fn a_batch_closes_only_the_calls_that_have_no_result() {
    // Given two calls of which one has its result, and one that no hook told of
    let scene = Scene::of([
        hook("prompt", 1, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"})),
        hook("pre-1", 2, "tool.pre", call("t1", "ls")),
        hook("pre-2", 3, "tool.pre", call("t2", "ls")),
        hook("post-1", 4, "tool.post", result("t1", "files")),
        batch("batch", 5, &[("t1", "files"), ("t2", "it was denied"), ("t3", "no such tool"), ("", "nameless")]),
    ]);
    // Then
    assert_eq!(data(&scene.one("tool.post"))["tool_response"], "files");
    let failures = scene.of_kind("tool.failure");
    let told: Vec<(Value, Value)> =
        failures.iter().map(|event| (data(event)["tool_use_id"].clone(), data(event)["error"].clone())).collect();
    assert_eq!(told, [(json!("t2"), json!("it was denied")), (json!("t3"), json!("no such tool"))]);
    let begun: Vec<Value> = scene.of_kind("tool.pre").iter().map(|event| data(event)["tool_use_id"].clone()).collect();
    assert_eq!(begun, ["t1", "t2", "t3"]);
    let begin_of_last = &scene.of_kind("tool.pre")[2];
    assert_eq!(failures[1].cause.parent_event_id.as_ref(), Some(&begin_of_last.event_id));
    let counters = last_run(&scene).counters;
    assert_eq!((counters.tool_uses, counters.tool_failures), (3, 2));
}

#[test]
fn a_result_that_comes_after_the_batch_takes_the_failure_back_and_the_counter_too() {
    // Given a hook that was overtaken by that of its batch
    let events = [
        hook("prompt", 1, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"})),
        hook("pre", 2, "tool.pre", call("t1", "ls")),
        batch("batch", 5, &[("t1", "files")]),
        hook("post", 4, "tool.post", result("t1", "the files")),
    ];
    let scene = Scene::new();
    for (number, event) in events.iter().enumerate() {
        scene.tell(event);
        scene.catch_up();
        if number == 2 {
            assert_eq!(data(&scene.one("tool.failure"))["error"], "files");
            assert_eq!(last_run(&scene).counters.tool_failures, 1);
        }
    }
    // Then
    let result = scene.one("tool.post");
    assert_eq!(data(&result)["tool_response"], "the files");
    assert_eq!((result.level.as_str(), result.title.as_str()), ("info", "⎿ Bash result"));
    assert_eq!(result.cause.hook_request_id.as_deref(), Some("hook:post"));
    assert_eq!(scene.of_kind("tool.failure").len(), 0);
    let counters = last_run(&scene).counters;
    assert_eq!((counters.tool_uses, counters.tool_failures), (1, 0));
    // And it is the same when all is told before anyone looks
    assert_eq!(shown(&Scene::of(events).feed()), shown(&scene.feed()));
}

#[test]
fn what_the_stream_says_of_a_call_outweighs_its_batch_and_not_its_hook() {
    let before = [
        hook("prompt", 1, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"})),
        hook("pre", 2, "tool.pre", call("t1", "ls")),
        batch("batch", 3, &[("t1", "files")]),
    ];
    let by_stream = stream("post", 4, "tool.post", result("t1", "by the stream"));
    let mut failure = call("t1", "ls");
    failure["error"] = "by the hook".into();
    let by_hook = hook("failure", 5, "tool.failure", failure);
    let of = |more: &[&Value]| Scene::of(before.iter().chain(more.iter().copied()).cloned());
    assert_eq!(data(&of(&[&by_stream]).one("tool.post"))["tool_response"], "by the stream");
    for more in [[&by_stream, &by_hook], [&by_hook, &by_stream]] {
        let scene = of(&more);
        assert_eq!(data(&scene.one("tool.failure"))["error"], "by the hook");
        assert_eq!((scene.of_kind("tool.post").len(), last_run(&scene).counters.tool_failures), (0, 1));
    }
}

#[test]
fn a_permission_without_its_call_is_joined_to_the_first_that_fits_and_is_not_over() {
    let ask = |name: &str, at: i64, prompt: &str, tool: &str, input: Value| {
        hook(name, at, "permission.request", json!({"tool_name": tool, "tool_input": input, "prompt_id": prompt}))
    };
    let ls = || json!({"command": "ls", "timeout": 5});
    let pre = |name: &str, at: i64, id: &str, input: Value| {
        let data = json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": input, "prompt_id": "p1"});
        hook(name, at, "tool.pre", data)
    };
    // Given four calls of one prompt, of which three are the same, and the first of these is over
    let scene = Scene::of([
        hook("prompt", 1, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"})),
        pre("pre-1", 2, "t1", ls()),
        pre("pre-2", 3, "t2", json!({"command": "rm"})),
        pre("pre-3", 4, "t3", ls()),
        pre("pre-4", 5, "t4", ls()),
        hook("post-1", 6, "tool.post", result("t1", "files")),
        // When: the order of an input's fields does not matter
        ask("ask-1", 7, "p1", "Bash", json!({"timeout": 5, "command": "ls"})),
        ask("ask-2", 8, "p1", "Bash", ls()),
        ask("ask-3", 9, "p1", "Bash", ls()),
        ask("ask-4", 10, "p2", "Bash", json!({"command": "rm"})),
        ask("ask-5", 11, "p1", "Read", json!({"command": "rm"})),
        ask("ask-6", 12, "p1", "Bash", json!({"command": "rm"})),
    ]);
    // Then
    let asked = scene.of_kind("permission.request");
    let calls: Vec<Option<&str>> = asked.iter().map(|event| event.cause.tool_use_id.as_deref()).collect();
    assert_eq!(calls, [Some("t3"), Some("t4"), None, None, None, Some("t2")]);
    let begun = scene.of_kind("tool.pre");
    assert_eq!(asked[0].cause.parent_event_id.as_ref(), Some(&begun[2].event_id));
    assert_eq!(data(&asked[0])["tool_use_id"], "t3");
    assert_eq!(data(&asked[2]).get("tool_use_id"), None);
    assert_eq!(last_run(&scene).counters.permission_requests, 6);
}

#[test]
fn a_prompt_told_after_its_run_had_to_open_without_it_is_that_runs() {
    // Given a stream, which tells no prompts
    let work = || stream("pre", 20, "tool.pre", call("t1", "ls"));
    let over = || stream("result", 30, "turn.complete", json!({"status": "success"}));
    let prompt = |at| hook("prompt", at, "user.prompt", json!({"prompt": "Go on", "prompt_id": "p1"}));
    let runs = |events: Vec<Value>| {
        let runs = Scene::of(events).session().runs.into_iter();
        runs.map(|run| (run.trigger, run.prompt_preview, run.counters.tool_uses)).collect::<Vec<_>>()
    };
    let is_the_runs = [("user_prompt_submit".to_owned(), Some("Go on".to_owned()), 1)];
    // Then a prompt of its time is its own, while it is open and when it is over
    assert_eq!(runs(vec![work(), prompt(10)]), is_the_runs);
    assert_eq!(runs(vec![work(), over(), prompt(10)]), is_the_runs);
    // And a later one is that of the next run
    let next = runs(vec![work(), over(), prompt(40)]);
    assert_eq!(next.len(), 2, "{next:?}");
    assert_eq!((next[0].0.as_str(), next[1].0.as_str()), ("other", "user_prompt_submit"));
    // And a run that has a prompt takes no other one
    let second = hook("prompt-2", 25, "user.prompt", json!({"prompt": "And then", "prompt_id": "p2"}));
    assert_eq!(runs(vec![work(), prompt(10), second]).len(), 2);
    // And what a source opened itself it would have told the prompt of
    assert_eq!(runs(vec![hook("pre", 5, "tool.pre", call("t1", "ls")), prompt(10)]).len(), 2);
}

#[test]
fn messages_of_a_record_that_is_read_late_open_no_run() {
    // Given a session whose hooks told of it to its end
    let mut events = by_hooks();
    events.push(transcript("late-1", 45, "message.complete", json!({"message": "What no hook told."})));
    events.push(transcript("late-2", 46, "tool.pre", call("t9", "pwd")));
    let scene = Scene::of(events);
    // Then they are shown, and of the run that was the last
    let runs = scene.session().runs;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].status, "completed");
    let messages = scene.of_kind("agent.message");
    assert_eq!(messages.len(), 2, "{:#?}", shown(&messages));
    assert!(messages.iter().all(|message| message.run_id == runs[0].run_id));
    // And where nobody else told of the session, they do
    let scene = Scene::of([transcript("m", 1, "message.complete", json!({"message": "Alone."}))]);
    assert_eq!(scene.session().runs.len(), 1);
}

#[test]
fn output_that_is_read_after_its_session_ended_opens_no_run() {
    // Given
    let scene = Scene::of(by_hooks().into_iter().chain(by_stream()));
    // Then
    let runs = scene.session().runs;
    assert_eq!(runs.len(), 1, "{:#?}", shown(&scene.feed()));
    assert_eq!((runs[0].status.as_str(), runs[0].ended_at.is_some()), ("completed", true));
    // And another session that has no hooks opens its own
    let other = with(stream("pre-b", 90, "tool.pre", call("t1", "ls")), "sessionId", "b");
    let scene = Scene::of(by_hooks().into_iter().chain([other]));
    assert_eq!(scene.session().runs.len(), 2);
}

#[test]
fn runs_and_entries_have_the_id_of_their_session_though_nobody_told_of_its_start_or_did_so_late() {
    let ids = |events: Vec<Value>| {
        let scene = Scene::of(events);
        let (feed, runs) = (scene.feed(), scene.session().runs);
        let mut ids: Vec<String> = feed.into_iter().map(|event| event.run_id).collect();
        ids.extend(runs.into_iter().map(|run| run.run_id));
        ids.dedup();
        ids
    };
    // A record tells no start
    assert_eq!(ids(by_transcript()), ["a:R1"]);
    // Hooks that overlap: the start arrives behind the prompt
    let mut overtaken = by_hooks();
    overtaken.swap(0, 1);
    assert_eq!(ids(overtaken), ["a:R1"]);
    // Another session that starts while a run goes on does not take its entries over
    let other = with(hook("other", 20, "session.start", json!({"source": "startup"})), "sessionId", "b");
    let mut crossed = by_hooks();
    crossed.truncate(4);
    crossed.insert(2, other);
    crossed.remove(0);
    assert_eq!(ids(crossed), ["a:R1"]);
}

#[test]
fn what_the_stream_says_late_of_an_earlier_turn_ends_no_other_run() {
    let result = |data: Value| stream("result", 15, "turn.complete", data);
    let failed = json!({"status": "error_during_execution", "is_error": true});
    let prompt =
        |n: i64| hook(&format!("p{n}"), n, "user.prompt", json!({"prompt": n.to_string(), "prompt_id": n.to_string()}));
    let stop = |at: i64| hook(&format!("stop{at}"), at, "stop.request", json!({}));
    let endings = |events: Vec<Value>| -> Vec<(String, Option<i64>)> {
        let runs = Scene::of(events).session().runs.into_iter();
        runs.map(|run| (run.status, run.ended_at.map(|at| at.0))).collect()
    };
    let completed = ("completed".to_owned(), Some(20));
    let open = ("running".to_owned(), None);
    // Whether a hook told that the turn stopped, or not
    let told = endings(vec![prompt(10), stop(14), prompt(20), result(failed.clone())]);
    assert_eq!(told, [completed, open.clone()]);
    let told = endings(vec![prompt(20), result(failed.clone())]);
    assert_eq!(told, std::slice::from_ref(&open));
    // And then the run ends as it did
    let told = endings(vec![prompt(20), result(failed), stop(24), hook("end", 30, "session.end", json!({}))]);
    assert_eq!(told, [("completed".to_owned(), Some(30))]);
}

#[test]
fn subagents_act_as_themselves_by_their_id_and_in_no_order() {
    let by = |event: Value, id: &str| with(with(event, "agentId", id), "agentType", "explore");
    let start =
        |name: &str, at, id: &str| hook(name, at, "subagent.start", json!({"agent_id": id, "agent_type": "explore"}));
    let stop = |name: &str, at, id: &str, message: &str| {
        let data = json!({"agent_id": id, "agent_type": "explore", "last_assistant_message": message});
        hook(name, at, "subagent.stop", data)
    };
    let ask = json!({"tool_name": "Agent", "tool_use_id": "t0", "tool_input": {"description": "Look around"}});
    let scene = Scene::of([
        hook("prompt", 1, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"})),
        hook("ask", 2, "tool.pre", ask),
        start("start-1", 3, "one"),
        start("start-2", 4, "two"),
        by(hook("pre-1", 5, "tool.pre", call("t1", "ls")), "one"),
        hook("pre-root", 6, "tool.pre", call("t2", "pwd")),
        by(stream("pre-2", 7, "tool.pre", call("t3", "ls")), "two"),
        by(transcript("said", 8, "message.complete", json!({"message": "From two."})), "two"),
        stop("stop-2", 9, "two", "From two."),
        stop("stop-1", 10, "one", "From one."),
        // And told again by the output
        stream("start-1", 11, "subagent.start", json!({"agent_id": "one", "agent_type": "explore"})),
        stream("stop-1", 12, "subagent.stop", json!({"agent_id": "one", "agent_type": "explore"})),
    ]);
    let actors = |kind: &str| -> Vec<String> { scene.of_kind(kind).into_iter().map(|event| event.actor_id).collect() };
    assert_eq!(actors("tool.pre"), ["agent:root", "subagent:one", "agent:root", "subagent:two"]);
    assert_eq!(actors("agent.message"), ["subagent:two", "subagent:one"]);
    assert_eq!(actors("subagent.start"), ["agent:root"; 2]);
    assert_eq!(actors("subagent.stop"), ["subagent:two", "subagent:one"]);
    let descriptions: Vec<Value> =
        scene.of_kind("subagent.start").iter().map(|event| data(event)["description"].clone()).collect();
    assert_eq!(descriptions, [json!("Look around"), Value::Null]);
    let said: Vec<Value> = scene.of_kind("agent.message").iter().map(|event| data(event)["scope"].clone()).collect();
    assert_eq!(said, ["subagent", "subagent"]);
    let session = scene.session();
    let actors: Vec<(&str, &str)> =
        session.actors.iter().map(|actor| (actor.actor_id.as_str(), actor.display_name.as_str())).collect();
    let expected = [
        ("user", "You"),
        ("agent:root", "Claude"),
        ("system", "System"),
        ("subagent:one", "explore"),
        ("subagent:two", "explore"),
    ];
    assert_eq!(actors, expected);
    assert_eq!(session.runs[0].subagent_ids, ["one", "two"]);
}

#[test]
fn the_plan_is_what_the_last_word_on_it_says() {
    let plan = |scene: &Scene| -> Vec<Value> {
        scene.session().plan.iter().map(|item| serde_json::from_str(item.get()).unwrap()).collect()
    };
    let todos = json!([{"content": "Look", "status": "completed", "activeForm": "Looking"}, {"content": "Mend"}]);
    let todo = |name: &str, id: &str, todos: &Value| {
        let data = json!({"tool_name": "TodoWrite", "tool_use_id": id, "tool_input": {"todos": todos}});
        hook(name, 2, "tool.pre", data)
    };
    // Given Claude's TodoWrite, items as they came
    let scene = Scene::of([todo("todo-1", "t1", &todos)]);
    assert_eq!(plan(&scene), todos.as_array().unwrap().clone());
    // When a subagent plans, that is its own
    scene.tell(&with(todo("todo-2", "t2", &json!([{"content": "Mine"}])), "agentId", "one"));
    scene.catch_up();
    assert_eq!(plan(&scene), todos.as_array().unwrap().clone());
    // When a harness tells of a plan of steps
    let steps = json!([{"step": "Look", "status": "completed"}, {"step": "Mend", "status": "inProgress"}]);
    let as_items =
        [json!({"content": "Look", "status": "completed"}), json!({"content": "Mend", "status": "in_progress"})];
    scene.tell(&stream("plan", 3, "plan.delta", json!({"plan": steps, "explanation": "In this order"})));
    scene.catch_up();
    assert_eq!(plan(&scene), as_items);
    assert_eq!(scene.one("plan.update").title, "In this order");
    assert_eq!(scene.of_kind("todo.update").len(), 1);
    // When Codex's own tool says the same, nothing is new; and then something is
    let update = |name: &str, id: &str, plan: &Value| {
        let data = json!({"tool_name": "update_plan", "tool_use_id": id, "tool_input": {"plan": plan}});
        hook(name, 4, "tool.pre", data)
    };
    scene.tell(&update("same", "t3", &steps));
    scene.catch_up();
    assert_eq!(scene.of_kind("todo.update").len(), 1);
    scene.tell(&update("new", "t4", &json!([{"step": "Rest", "status": "pending"}])));
    scene.tell(&update("none", "t5", &json!([])));
    scene.catch_up();
    assert_eq!(plan(&scene), [json!({"content": "Rest", "status": "pending"})]);
    assert_eq!(scene.of_kind("todo.update").len(), 2);
    // And in a plan of no items nothing is left
    scene.tell(&todo("todo-3", "t6", &json!([])));
    scene.catch_up();
    assert_eq!(plan(&scene), [Value::Null; 0]);
}

#[test]
fn a_tools_output_so_far_is_shown_up_to_a_bound_and_stored_once() {
    // Given output of about 90,000 UTF-16 units, which a character of two units is at the bound of
    let piece = |n: usize| format!("{n:04} {}😀\n", "x".repeat(92));
    let pieces = 900;
    let scene = Scene::of((0..pieces).map(|n| {
        let mut data = call("t1", "make");
        data["delta"] = piece(n).into();
        hook(&format!("delta-{n}"), n as i64, "tool.delta", data)
    }));
    // Then each piece shows all there was so far, or the end of it
    let shown = scene.of_kind("tool.delta");
    assert_eq!(shown.len(), pieces);
    let all: String = (0..pieces).map(piece).collect();
    let units = |text: &str| text.encode_utf16().count();
    let delta = |event: &FeedEvent| data(event)["delta"].as_str().unwrap().to_owned();
    assert_eq!(delta(&shown[0]), piece(0));
    assert_eq!(delta(&shown[99]), (0..100).map(piece).collect::<String>());
    let last = delta(&shown[pieces - 1]);
    let kept =
        last.strip_prefix("[streaming output truncated to recent content]\n").expect("a word on what is missing");
    assert!(all.ends_with(kept));
    assert!((63_999..=64_000).contains(&units(kept)), "{}", units(kept));
    // And what is stored grows with the output and not with its square
    let connection = rusqlite::Connection::open(runledger_projections::projections_path(&scene.ledger.path)).unwrap();
    let stored: usize =
        connection.query_row("SELECT sum(length(CAST(data AS BLOB))) FROM feed_events", [], |row| row.get(0)).unwrap();
    assert!(stored < all.len() + pieces * 200, "{stored} bytes for {}", all.len());
    // And what streams after the call's end is another output
    scene.tell(&hook("post", 1000, "tool.post", result("t1", "done")));
    let mut again = call("t1", "make");
    again["delta"] = "anew".into();
    scene.tell(&hook("anew", 1001, "tool.delta", again));
    scene.catch_up();
    assert_eq!(delta(scene.of_kind("tool.delta").last().unwrap()), "anew");
}

#[test]
fn erased_events_fold_without_error_into_what_their_facts_tell() {
    let scene = Scene::of(by_hooks().into_iter().chain(by_stream()).chain(by_transcript()));
    let before = scene.kinds();
    rusqlite::Connection::open(&scene.ledger.path)
        .unwrap()
        .execute_batch("UPDATE runtime_events SET content = NULL, salt = NULL")
        .unwrap();
    let mut projections = Projections::open(&scene.ledger.path).unwrap();
    for name in ["feed_events", "feed_search"] {
        projections.rebuild(name, &mut |_| {}).unwrap();
    }
    // Then what is a fact is shown, once, and its words are gone
    let feed = scene.feed();
    let kinds: Vec<&str> = feed.iter().map(|event| event.kind.as_str()).collect();
    for kind in ["session.start", "tool.pre", "tool.post", "stop.request", "session.end"] {
        assert_eq!(kinds.iter().filter(|known| **known == kind).count(), 1, "{kind}: {kinds:?}, before {before:?}");
    }
    assert!(!shown(&feed).concat().contains("Fix it"));
    assert_eq!(data(&scene.one("tool.pre"))["tool_use_id"], "t1");
    assert_eq!(scene.page(&feed_support::of_search("fix"), &FeedPage::First, 10).len(), 0);
    for event in feed {
        let mut event = event;
        event.read_raw(&scene.ledger.log.reader().unwrap()).unwrap();
        assert!(event.raw.is_none());
    }
}

#[test]
fn a_session_that_nobody_told_of_has_nothing() {
    let scene = Scene::of(by_hooks());
    assert_eq!(scene.page(&of_session("other"), &FeedPage::First, 10).len(), 0);
    assert_eq!(scene.page(&of_session(SESSION), &FeedPage::Last, 0).len(), 0);
    assert!(scene.feed().iter().all(|event| event.session_id == ADAPTER));
}
