//! `allow`, `deny` and `rules` as programs: the first decision counts, the other learns who was first, and what does not
//! count leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use runledger_events::{AdapterSessionId, AskContext, EventId, RequestId, RunId, RunState, SessionId, TimestampMs};
use runledger_workflow::{Ask, Clock, Commands};
use serde_json::Value;
use support::{Ran, Room, Running, text};

fn commands(room: &Room) -> Commands {
    Commands::open(Arc::new(room.log())).unwrap()
}

/// A question about a call of this name, of this harness session.
fn ask_of(adapter: &str, call: &str) -> Ask {
    let adapter = AdapterSessionId::new(adapter).unwrap();
    let id = RequestId::of_call(&adapter, call).unwrap();
    let session = SessionId::new(adapter.as_str()).unwrap();
    Ask {
        adapter_session_id: Some(adapter),
        tool_use_id: Some(call.to_owned()),
        pattern: Some("Bash(git push)".to_owned()),
        context: Some(AskContext {
            run_id: RunId::new("0199aaaa-0000-7000-8000-000000000001").unwrap(),
            workflow_name: Some("tidy".to_owned()),
            state: RunState::Running,
            iteration: 1,
            max_iterations: 5,
        }),
        ..Ask::new(id, EventId::new(format!("event-{call}")).unwrap(), session, "Bash", r#"{"command":"git push"}"#)
    }
}

fn ask(call: &str) -> Ask {
    ask_of("a1", call)
}

fn head(room: &Room) -> u64 {
    room.reader().head().unwrap().position.0
}

fn start(room: &Room, user: &str, arguments: &[&str]) -> Running {
    Running::start(room.command(arguments).env("USER", user))
}

#[test]
fn of_two_processes_that_decide_at_once_one_wins_and_the_other_learns_who_did() {
    let room = Room::new();
    let commands = commands(&room);
    for round in 0..100 {
        let call = format!("toolu_{round}");
        commands.ask(&ask(&call)).unwrap();

        let ada = start(&room, "ada", &["allow", &call]);
        let bob = start(&room, "bob", &["deny", &call, "--reason", "not on a Friday"]);
        let ran: [(&str, &str, Ran); 2] = [("ada", "allowed", ada.wait()), ("bob", "denied", bob.wait())];

        let won: Vec<_> = ran.iter().filter(|(_, _, ran)| ran.code == Some(0)).collect();
        let lost: Vec<_> = ran.iter().filter(|(_, _, ran)| ran.code != Some(0)).collect();
        let ([(winner, how, _)], [(_, _, loser)]) = (won.as_slice(), lost.as_slice()) else {
            panic!("round {round}: {ran:?}");
        };
        let complaint = loser.is_refused_with(1);
        assert!(complaint.contains(&format!("decided already: {how} by {winner}@")), "{complaint}");
        let state = commands.relay_state(&ask(&call).request_id).unwrap().unwrap();
        assert_eq!((state.status.as_str(), state.version.0), (*how, 2));
    }
    room.verify();
}

#[test]
fn a_request_goes_by_position_by_the_harness_s_id_and_by_its_name() {
    let room = Room::new();
    let commands = commands(&room);
    let about = r#"{"id":"event-toolu_0","kind":"tool.pre","sessionId":"a1","data":{"tool_name":"Bash","tool_use_id":"toolu_0"}}"#;
    let about = support::append(&room.log(), "session/a1", about).position.to_string();
    for call in ["toolu_0", "toolu_1", "toolu_2", "toolu_3", "toolu_4"] {
        commands.ask(&ask(call)).unwrap();
    }
    let position = commands.relay_state(&ask("toolu_1").request_id).unwrap().unwrap().position.to_string();

    for (word, call) in [
        (about.as_str(), "toolu_0"),
        (position.as_str(), "toolu_1"),
        ("toolu_2", "toolu_2"),
        ("event-toolu_3", "toolu_3"),
        ("a1:toolu_4", "toolu_4"),
    ] {
        let told = room.json(["allow", word, "--reason", "fine"]).remove(0);
        assert_eq!(text(&told, "/tool_use_id"), call);
        assert_eq!(text(&told, "/status"), "allowed");
        assert_eq!(text(&told, "/reason"), "fine");
        assert_eq!(text(&told, "/decided_via"), "user");
        assert!(told["decided_position"].as_u64().is_some());
    }
    let line = room.ok([
        "deny",
        &{
            commands.ask(&ask("toolu_5")).unwrap();
            "toolu_5".to_owned()
        },
        "--reason",
        "no",
    ]);
    assert_eq!(line, "a1:toolu_5 denied Bash\n");
}

#[test]
fn what_cannot_be_decided_is_refused_and_nothing_is_appended() {
    let room = Room::new();
    let missing = room.run(["allow", "1"]).is_refused_with(3);
    assert!(missing.contains("there is no ledger"), "{missing}");
    assert!(room.has_no_ledger());
    let commands = commands(&room);
    for adapter in ["a1", "a2"] {
        commands.ask(&ask_of(adapter, "toolu_1")).unwrap();
    }
    commands.ask(&ask("toolu_2")).unwrap();
    room.ok(["allow", "toolu_2"]);
    let harness = r#"{"id":"h1","kind":"permission.request","sessionId":"a3","data":{"tool_name":"Bash"}}"#;
    support::append(&room.log(), "session/a3", harness);
    let before = head(&room);

    let several = room.run(["allow", "toolu_1"]).is_refused_with(2);
    assert!(several.contains("fits 2 requests") && several.contains("a1:toolu_1") && several.contains("a2:toolu_1"));
    for unknown in ["nothing", "a1:nothing", "9999", "0"] {
        let unknown = room.run(["deny", unknown, "--reason", "no"]).is_refused_with(1);
        assert!(unknown.contains("there is no request"), "{unknown}");
    }
    let decided = room.run(["deny", "toolu_2", "--reason", "no"]).is_refused_with(1);
    assert!(decided.contains("decided already: allowed by "), "{decided}");
    let harness_alone = room.run(["allow", "h1"]).is_refused_with(1);
    assert!(harness_alone.contains("by the harness alone"), "{harness_alone}");
    let pattern = room.run(["allow", "a1:toolu_1", "--for-run", "--pattern", "Bash(git"]).is_refused_with(2);
    assert!(pattern.contains("Bash(git"), "{pattern}");
    let answered = room.run(["allow", "a1:toolu_1", "--answer", "1=Red"]).is_refused_with(2);
    assert!(answered.contains("asks for permission"), "{answered}");
    for usage in [
        vec!["allow", "a1:toolu_1", "--pattern", "Bash"],
        vec!["allow", "a1:toolu_1", "--answer", "Red"],
        vec!["allow", "a1:toolu_1", "--for-run", "--always"],
        vec!["deny", "a1:toolu_1"],
        vec!["deny", "a1:toolu_1", "--reason", " "],
        vec!["allow"],
    ] {
        assert_eq!(room.run(&usage).code, Some(2), "{usage:?}");
    }
    assert_eq!(head(&room), before);
}

#[test]
fn a_decision_that_comes_too_late_is_refused_and_recorded_as_such() {
    let room = Room::new();
    let long_ago = Arc::new(AtomicI64::new(1_761_000_000_000));
    let clock = Clock::new(move || TimestampMs(long_ago.load(Ordering::SeqCst)));
    let id = commands(&room).with_clock(clock).ask(&ask("toolu_1")).unwrap().state.request.request_id;
    let before = head(&room);

    let late = room.run(["allow", "toolu_1"]).is_refused_with(1);

    assert!(late.contains("expired") && late.contains("2025-10-20"), "{late}");
    assert_eq!(head(&room), before + 2);
    let events = room.json(["events", "--after", &before.to_string()]);
    assert_eq!(text(&events[0], "/event/data/decision/source"), "timeout");
    assert_eq!(text(&events[1], "/event/data/decision/type"), "expired");
    assert_eq!(text(&events[1], "/event/data/decision/intent/kind"), "permission_allow");
    let state = commands(&room).relay_state(&id).unwrap().unwrap();
    assert_eq!(state.status.as_str(), "expired");
    room.verify();
}

#[test]
fn a_question_of_the_agent_is_answered_by_number_or_words() {
    let room = Room::new();
    let input = r#"{"questions":[{"question":"Which colour?","header":"Colour","options":[{"label":"Red"}]},
        {"question":"a=b?","header":"Sum","options":[]}]}"#;
    let asked = ask("toolu_1");
    let question = Ask {
        context: asked.context.clone(),
        ..Ask::new(asked.request_id, asked.event_id, asked.session_id, "AskUserQuestion", input)
    };
    commands(&room).ask(&question).unwrap();

    let open = room.run(["allow", "a1:toolu_1"]).is_refused_with(2);
    assert!(open.contains("Which colour? / a=b?") && open.contains("--answer"), "{open}");
    let told = room.json(["allow", "a1:toolu_1", "--answer", "Which colour?=Red", "--answer", "2=x = y"]).remove(0);

    assert_eq!(text(&told, "/intent"), "question_answer");
    assert_eq!(told["answers"], serde_json::json!({"Which colour?": "Red", "a=b?": "x = y"}));
}

#[test]
fn standing_decisions_are_listed_and_taken_back() {
    let room = Room::new();
    let commands = commands(&room);
    commands.ask(&ask("toolu_1")).unwrap();
    commands.ask(&ask("toolu_2")).unwrap();
    assert_eq!(room.run(["rules"]).stdout(), "");
    room.ok(["allow", "toolu_1", "--always"]);
    let line = room.ok(["deny", "toolu_2", "--reason", "no", "--always", "--pattern", "Bash(git push:*)"]);
    assert!(line.contains("Bash(git push:*) in every run of the workflow"), "{line}");

    let rules: Vec<Value> = room.json(["rules"]);
    let shown =
        |rule: &Value| format!("{} {} {}", text(rule, "/workflow_name"), text(rule, "/action"), text(rule, "/pattern"));
    let shown: Vec<String> = rules.iter().map(shown).collect();
    assert_eq!(shown, ["tidy allow Bash(git push)", "tidy deny Bash(git push:*)"]);
    assert_eq!(room.json(["rules", "--workflow", "other"]), Vec::<Value>::new());
    let first = rules[0]["position"].to_string();

    assert_eq!(room.ok(["rules", "--withdraw", &first]), "allow Bash(git push) holds no more\n");

    let before = head(&room);
    room.run(["rules", "--withdraw", &first]).is_refused_with(1);
    room.run(["rules", "--withdraw", "1"]).is_refused_with(1);
    assert_eq!(head(&room), before);
    let table = room.ok(["rules", "--workflow", "tidy"]);
    assert_eq!(table.lines().count(), 2);
    assert!(table.contains("tidy\tdeny\t"), "{table}");
    room.verify();
}
