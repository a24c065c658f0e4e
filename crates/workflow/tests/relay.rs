//! Questions in the log: put once, decided once, ended by their time, withdrawn by their owner; and whatever does not
//! count leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod relay_support;

use std::collections::BTreeMap;

use relay_support::{BEGIN_MS, Place, ask, ask_user, run_id};
use runledger_events::{
    Fields, KindFacts, OnTimeout, ProcessId, RelayQuestion, RequestId, RequestStatus, StreamName, StreamVersion,
};
use runledger_workflow::{
    Ask, AskError, DecideError, GrantScope, RelayAnswer, RelayVerdict, RulesError, UnfitVerdict, VerdictSource,
    WithdrawError, Withdrawer, current_process,
};

fn user(name: &str, verdict: RelayVerdict) -> RelayVerdict {
    RelayVerdict { by: Some(name.to_owned()), ..verdict }
}

/// A process that has ended, as the log may name one.
fn gone() -> ProcessId {
    ProcessId { pid_started_at: Some(1), ..current_process() }
}

#[test]
fn a_question_has_a_stream_of_its_own_and_its_event_tells_who_asks_what() {
    let place = Place::new();
    let ask = Ask { agent_id: Some("sub1".to_owned()), agent_type: Some("explorer".to_owned()), ..ask("toolu_1") };

    let asked = place.commands.ask(&ask).unwrap();

    assert!(asked.is_new);
    assert_eq!(asked.state.status, RequestStatus::Pending);
    assert_eq!(asked.state.version, StreamVersion(1));
    assert_eq!(asked.state.request.due_at.unwrap().0, BEGIN_MS + 300_000);
    assert_eq!(asked.state.request.question, RelayQuestion::Permission);
    assert_eq!(asked.state.request.waiter, Some(current_process()));
    let events = place.request(&ask.request_id);
    assert_eq!(events[0].stream.as_str(), "request/a1:toolu_1");
    assert_eq!(events[0].facts.agent_type.as_deref(), Some("explorer"));
    let metadata = &events[0].metadata;
    assert_eq!(metadata.session_id.as_ref(), Some(&ask.session_id));
    assert_eq!(metadata.adapter_session_id, ask.adapter_session_id);
    assert_eq!(metadata.run_id.as_ref(), Some(&run_id()));
    assert_eq!(metadata.causation_id.as_ref(), Some(&ask.event_id));
    let data = Fields::parse(events[0].content.json().unwrap()).unwrap().object("data").unwrap();
    assert_eq!(data.raw("tool_input"), Some(ask.tool_input_json.as_str()));
    assert_eq!(data.text("cwd").as_deref(), Some("/srv/demo"));
}

#[test]
fn the_same_question_again_attaches_and_another_one_under_its_name_is_refused() {
    let place = Place::new();
    let first = place.commands.ask(&ask("toolu_1")).unwrap();
    let head = place.head();

    let spaced = Ask { tool_input_json: r#"{ "command" : "git push toolu_1" }"#.to_owned(), ..ask("toolu_1") };
    let again = place.others().ask(&spaced).unwrap();
    let other = Ask { tool_input_json: r#"{"command":"rm -r /"}"#.to_owned(), ..ask("toolu_1") };
    let refused = place.others().ask(&other).unwrap_err();

    assert!(!again.is_new);
    assert_eq!(again.state, first.state);
    assert!(matches!(refused, AskError::Different { tool, .. } if tool == "Bash"));
    assert_eq!(place.head(), head);
}

#[test]
fn who_attaches_to_a_settled_question_learns_what_it_came_to() {
    let place = Place::new();
    place.commands.ask(&ask("toolu_1")).unwrap();
    place.others().decide(&ask("toolu_1").request_id, &RelayVerdict::deny("not today")).unwrap();

    let again = place.commands.ask(&ask("toolu_1")).unwrap();

    assert_eq!(again.state.status, RequestStatus::Denied);
    let settled = place.commands.relay_settled(&ask("toolu_1").request_id).unwrap().unwrap();
    assert_eq!((settled.is_allowed(), settled.reason.as_deref()), (Some(false), Some("not today")));
}

#[test]
fn the_first_decision_counts_and_the_second_learns_who_was_first() {
    let place = Place::new();
    let id = place.commands.ask(&ask("toolu_1")).unwrap().state.request.request_id;

    let decided = place.others().decide(&id, &user("ada@host", RelayVerdict::deny("no pushes"))).unwrap();
    let head = place.head();
    let second = place.others().decide(&id, &user("bob@host", RelayVerdict::allow())).unwrap_err();

    assert_eq!(decided.state.status, RequestStatus::Denied);
    assert_eq!(decided.settled.by.as_deref(), Some("ada@host"));
    let DecideError::AlreadyDecided { settled, .. } = second else { panic!("{second}") };
    assert_eq!(*settled, decided.settled);
    assert_eq!(settled.at.0, BEGIN_MS);
    assert_eq!(place.head(), head);
    let events = place.request(&id);
    let KindFacts::Decision(facts) = &events[1].facts.data else { panic!() };
    assert_eq!(facts.event_id, ask("toolu_1").event_id);
    assert_eq!(facts.scope.as_deref(), Some("once"));
    assert_eq!(events[1].metadata.run_id.as_ref(), Some(&run_id()));
    assert_eq!(events[1].metadata.causation_id.as_ref(), Some(&events[0].id));
}

#[test]
fn what_is_not_there_can_be_neither_decided_nor_withdrawn_nor_expire() {
    let place = Place::new();
    let id = RequestId::new("a1:nothing").unwrap();

    let decided = place.commands.decide(&id, &RelayVerdict::allow());
    let withdrawn = place.commands.withdraw(&id, "gone", &Withdrawer::Process(current_process()));

    assert!(matches!(decided, Err(DecideError::Unknown { .. })));
    assert!(matches!(withdrawn, Err(WithdrawError::Unknown { .. })));
    assert!(place.commands.expire(&id).is_err());
    assert_eq!(place.commands.relay_state(&id).unwrap(), None);
    assert_eq!(place.head().0, 0);
}

#[test]
fn a_decision_that_comes_too_late_is_recorded_as_expired_and_changes_nothing() {
    let place = Place::new();
    let id = place.commands.ask(&ask("toolu_1")).unwrap().state.request.request_id;
    place.pass(300_000);

    for round in 0..2 {
        let late = place.others().decide(&id, &user("ada@host", RelayVerdict::allow())).unwrap_err();
        let DecideError::Expired { due_at, settled, .. } = late else { panic!("{late}") };
        assert_eq!(due_at.unwrap().0, BEGIN_MS + 300_000);
        assert_eq!((settled.status, settled.is_allowed()), (RequestStatus::Expired, Some(false)));
        let types: Vec<_> = place.request(&id)[1..]
            .iter()
            .map(|event| match &event.facts.data {
                KindFacts::Decision(facts) => format!(
                    "{} {} {}",
                    facts.decision_type.as_deref().unwrap(),
                    facts.source.as_deref().unwrap(),
                    facts.intent.as_deref().unwrap()
                ),
                other => panic!("{other:?}"),
            })
            .collect();
        let mut expected = vec!["json timeout permission_deny"];
        expected.extend(vec!["expired user permission_allow"; round + 1]);
        assert_eq!(types, expected);
    }
}

#[test]
fn a_question_whose_time_is_up_comes_to_what_was_said_for_it_and_says_so_once() {
    for (on_timeout, is_allowed) in
        [(OnTimeout::Allow, Some(true)), (OnTimeout::Deny, Some(false)), (OnTimeout::NoOpinion, None)]
    {
        let place = Place::new();
        let id = place.commands.ask(&Ask { on_timeout, ..ask("toolu_1") }).unwrap().state.request.request_id;
        place.pass(299_999);
        assert_eq!(place.commands.expire(&id).unwrap().status, RequestStatus::Pending);
        place.pass(1);

        assert_eq!(place.commands.expire(&id).unwrap().status, RequestStatus::Expired);
        assert_eq!(place.others().expire(&id).unwrap().status, RequestStatus::Expired);

        let settled = place.commands.relay_settled(&id).unwrap().unwrap();
        assert_eq!(settled.is_allowed(), is_allowed);
        assert_eq!(settled.source.as_deref(), Some("timeout"));
        assert_eq!(place.head().0, 2);
    }
}

#[test]
fn a_question_without_a_time_waits_as_long_as_it_takes() {
    let place = Place::new();
    let id = place.commands.ask(&Ask { timeout_ms: None, ..ask("toolu_1") }).unwrap().state.request.request_id;
    place.set_clock(i64::MAX);

    assert_eq!(place.commands.expire(&id).unwrap().status, RequestStatus::Pending);
    assert_eq!(place.commands.decide(&id, &RelayVerdict::allow()).unwrap().state.status, RequestStatus::Allowed);
}

#[test]
fn only_who_waits_withdraws_and_anybody_once_that_process_is_gone() {
    let place = Place::new();
    let stranger = ProcessId { pid: 1, pid_started_at: Some(2), ..current_process() };
    let id = place.commands.ask(&ask("toolu_1")).unwrap().state.request.request_id;
    let of_the_gone = Ask { waiter: Some(gone()), ..ask("toolu_2") };
    place.commands.ask(&of_the_gone).unwrap();
    let head = place.head();

    let refused = place.others().withdraw(&id, "mine now", &Withdrawer::Process(stranger.clone())).unwrap_err();
    assert!(matches!(refused, WithdrawError::NotYours { waiter: Some(_), .. }));
    assert_eq!(place.head(), head);

    let withdrawn = place.others().withdraw(&id, "the harness ended", &Withdrawer::Process(current_process())).unwrap();
    assert_eq!(withdrawn.status, RequestStatus::Withdrawn);
    let taken = place.others().withdraw(&of_the_gone.request_id, "nobody waits", &Withdrawer::Process(stranger));
    assert_eq!(taken.unwrap().status, RequestStatus::Withdrawn);

    let head = place.head();
    let late = place.commands.decide(&id, &RelayVerdict::allow()).unwrap_err();
    let DecideError::Withdrawn { settled, .. } = late else { panic!("{late}") };
    assert_eq!(settled.reason.as_deref(), Some("the harness ended"));
    let twice = place.commands.withdraw(&id, "again", &Withdrawer::Process(current_process())).unwrap_err();
    assert!(matches!(twice, WithdrawError::Settled { .. }));
    assert_eq!(place.head(), head);
}

#[test]
fn a_runner_withdraws_what_its_own_run_asks_in_its_own_term_alone() {
    let place = Place::new();
    let run = run_id();
    let start = serde_json::json!({"kind": "workflow.start", "data": {
        "run_id": run, "session_id": "s1", "max_iterations": 5, "owner": {"term": 3, "log_id": "l", "host": "h", "pid": 1}}});
    place.ledger.append(StreamName::run(&run).as_str(), &start.to_string());
    let deferred = Ask { waiter: None, ..ask("toolu_1") };
    let id = place.commands.ask(&deferred).unwrap().state.request.request_id;
    let head = place.head();

    for by in [
        Withdrawer::Process(current_process()),
        Withdrawer::Runner { run_id: run.clone(), term: 2 },
        Withdrawer::Runner { run_id: "another".parse().unwrap(), term: 3 },
    ] {
        let refused = place.commands.withdraw(&id, "over", &by).unwrap_err();
        assert!(matches!(refused, WithdrawError::NotYours { waiter: None, .. }), "{by:?}");
    }
    assert_eq!(place.head(), head);
    let by = Withdrawer::Runner { run_id: run, term: 3 };
    assert_eq!(place.commands.withdraw(&id, "over", &by).unwrap().status, RequestStatus::Withdrawn);
}

#[test]
fn a_decision_for_the_run_stands_in_the_run_too_and_one_for_always_in_the_rules() {
    let place = Place::new();
    let (first, second) = (ask("toolu_1"), ask("toolu_2"));
    let start = format!(
        r#"{{"kind":"workflow.start","data":{{"run_id":"{}","session_id":"s1","max_iterations":5}}}}"#,
        run_id()
    );
    place.ledger.append(StreamName::run(&run_id()).as_str(), &start);
    place.commands.ask(&first).unwrap();
    place.commands.ask(&second).unwrap();

    let for_run = RelayVerdict { scope: GrantScope::Run, ..RelayVerdict::allow() };
    place.commands.decide(&first.request_id, &user("ada@host", for_run)).unwrap();
    let always = RelayVerdict {
        scope: GrantScope::Always,
        pattern: Some("Bash(git push:*)".to_owned()),
        ..RelayVerdict::deny("never")
    };
    place.commands.decide(&second.request_id, &user("ada@host", always)).unwrap();

    let in_run = place.stream(&StreamName::run(&run_id()));
    let KindFacts::Decision(facts) = &in_run[1].facts.data else { panic!() };
    assert_eq!(facts.pattern.as_deref(), Some("Bash(git push toolu_1)"));
    let decision = &place.request(&first.request_id)[1];
    assert_ne!(in_run[1].id, decision.id);
    assert_eq!(in_run[1].metadata.causation_id.as_ref(), Some(&decision.id));
    let standing = place.commands.standing_grants(Some("tidy")).unwrap();
    let standing: Vec<_> = standing.iter().collect();
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].grant.pattern, "Bash(git push:*)");
    assert!(!standing[0].grant.is_allowed);
    assert_eq!(place.commands.standing_grants(None).unwrap().iter().count(), 0);
}

#[test]
fn a_decision_for_a_run_that_this_ledger_does_not_know_is_refused_and_begins_no_stream() {
    let place = Place::new();
    let id = place.commands.ask(&ask("toolu_1")).unwrap().state.request.request_id;
    let head = place.head();

    let for_run = RelayVerdict { scope: GrantScope::Run, ..RelayVerdict::allow() };
    let refused = place.commands.decide(&id, &for_run).unwrap_err();

    let DecideError::Unfit { source, .. } = refused else { panic!("{refused}") };
    assert_eq!(source, UnfitVerdict::UnknownRun(run_id()));
    assert_eq!(place.head(), head);
    assert!(place.stream(&StreamName::run(&run_id())).is_empty());
    // For this call alone, or for good, it can be decided all the same.
    let always = RelayVerdict { scope: GrantScope::Always, ..RelayVerdict::allow() };
    assert_eq!(place.commands.decide(&id, &always).unwrap().state.status, RequestStatus::Allowed);
}

#[test]
fn a_standing_decision_is_taken_back_once() {
    let place = Place::new();
    let always = RelayVerdict { scope: GrantScope::Always, ..RelayVerdict::allow() };
    for call in ["toolu_1", "toolu_2"] {
        place.commands.ask(&ask(call)).unwrap();
        place.commands.decide(&ask(call).request_id, &always).unwrap();
    }
    let all = place.commands.all_standing_grants().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].workflow_name.as_deref(), Some("tidy"));
    let first = all[0].grants.iter().next().unwrap().clone();

    let (workflow, taken_back) = place.commands.withdraw_grant(first.position, Some("ada@host")).unwrap();

    assert_eq!((workflow.as_deref(), &taken_back), (Some("tidy"), &first));
    let left: Vec<_> = place.commands.standing_grants(Some("tidy")).unwrap().into_grants();
    assert_eq!(left.iter().map(|grant| grant.pattern.as_str()).collect::<Vec<_>>(), ["Bash(git push toolu_2)"]);
    let head = place.head();
    for position in [first.position.0, 0, 1, 1000] {
        let again = place.commands.withdraw_grant(runledger_events::Position(position), None);
        assert!(matches!(again, Err(RulesError::Unknown { .. })), "{position}");
    }
    assert_eq!(place.head(), head);
}

#[test]
fn a_decision_that_does_not_fit_its_question_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let without_run = Ask { context: None, ..ask("toolu_1") };
    let without_pattern = Ask { pattern: None, ..ask("toolu_2") };
    let question = ask_user("toolu_3");
    // Half a surrogate pair, which JSON may have, is no reason not to know what is asked.
    let half = ask_user("toolu_4");
    let half = Ask { tool_input_json: half.tool_input_json.replace("colour?", "colour\\ud83d?"), ..half };
    for ask in [&without_run, &without_pattern, &question, &half] {
        place.commands.ask(ask).unwrap();
    }
    let head = place.head();
    let answers = |name: &str| RelayVerdict::new(RelayAnswer::Answers(BTreeMap::from([(name.into(), "Red".into())])));
    let for_run = RelayVerdict { scope: GrantScope::Run, ..RelayVerdict::allow() };
    let broken = RelayVerdict { pattern: Some("Bash(git push".to_owned()), ..for_run.clone() };
    let elsewhere = RelayVerdict { pattern: Some("Bash(npm publish:*)".to_owned()), ..for_run.clone() };
    let once_only = RelayVerdict { scope: GrantScope::Run, ..answers("Colour") };

    let unfit = |ask: &Ask, verdict: &RelayVerdict| match place.commands.decide(&ask.request_id, verdict) {
        Err(DecideError::Unfit { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(unfit(&without_run, &for_run), UnfitVerdict::NoRun);
    assert_eq!(unfit(&without_run, &answers("Colour")), UnfitVerdict::NoQuestion);
    assert_eq!(unfit(&without_pattern, &for_run), UnfitVerdict::NoPattern);
    assert!(matches!(unfit(&without_pattern, &broken), UnfitVerdict::BadPattern(_)));
    let other_calls = unfit(&without_pattern, &elsewhere).to_string();
    assert!(other_calls.contains("Bash(npm publish:*) is on no part of this call"), "{other_calls}");
    assert_eq!(unfit(&half, &RelayVerdict::allow()), UnfitVerdict::NotAnswered("Which colour\u{fffd}?".to_owned()));
    assert_eq!(unfit(&question, &RelayVerdict::allow()), UnfitVerdict::NotAnswered("Which colour?".to_owned()));
    assert!(matches!(unfit(&question, &answers("Shape")), UnfitVerdict::NotAsked { .. }));
    assert_eq!(unfit(&question, &once_only), UnfitVerdict::OnceOnly);
    assert_eq!(place.head(), head);
}

#[test]
fn a_question_of_the_agent_is_answered_under_its_own_words() {
    let place = Place::new();
    let question = ask_user("toolu_1");
    place.commands.ask(&question).unwrap();
    let answers = RelayAnswer::Answers(BTreeMap::from([("Colour".to_owned(), "Red".to_owned())]));
    let verdict = RelayVerdict { source: VerdictSource::Terminal, ..RelayVerdict::new(answers) };

    let decided = place.commands.decide(&question.request_id, &verdict).unwrap();

    assert_eq!(decided.state.status, RequestStatus::Allowed);
    assert_eq!(decided.settled.intent.as_deref(), Some("question_answer"));
    let expected = BTreeMap::from([("Which colour?".to_owned(), "Red".to_owned())]);
    assert_eq!(decided.settled.answers, expected);
}

#[test]
fn a_question_out_of_another_log_is_waited_for_there() {
    let (place, other) = (Place::new(), Place::new());
    let ask = ask("toolu_1");
    other.commands.ask(&ask).unwrap();
    let copy = other.request(&ask.request_id);
    place.ledger.append(StreamName::request(&ask.request_id).as_str(), copy[0].content.json().unwrap());
    let head = place.head();
    place.pass(1_000_000);

    assert!(matches!(place.commands.ask(&ask), Err(AskError::Elsewhere { .. })));
    let decided = place.commands.decide(&ask.request_id, &RelayVerdict::allow());
    assert!(matches!(decided, Err(DecideError::Elsewhere { .. })));
    assert_eq!(place.commands.expire(&ask.request_id).unwrap().status, RequestStatus::Pending);
    assert_eq!(place.head(), head);
}

#[test]
fn a_stream_that_begins_with_something_else_takes_no_question() {
    let place = Place::new();
    let ask = ask("toolu_1");
    place.ledger.append(StreamName::request(&ask.request_id).as_str(), r#"{"kind":"notification"}"#);

    assert!(matches!(place.commands.ask(&ask), Err(AskError::NoQuestion { .. })));
    assert!(matches!(place.commands.decide(&ask.request_id, &RelayVerdict::allow()), Err(DecideError::Unknown { .. })));
    assert_eq!(place.head().0, 1);
}
