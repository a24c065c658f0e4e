//! What the `workflow.*` facts of a run mean: every transition, random histories, and token figures of the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;
use runledger_events::{
    AdapterSessionId, Carried, Content, Continuation, DecisionFacts, EventId, EventKind, Facts, IterationEnd,
    IterationOutcome, IterationSession, IterationStart, IterationState, KindFacts, LogId, Metadata, Owner, Position,
    RecordedEvent, RunId, RunState, RunStatus, SessionId, StreamName, StreamVersion, TimestampMs, Tokens, WorkflowEnd,
    WorkflowIteration, WorkflowStart, WorkflowState, WorkflowTransition, transition_is_legal,
};

fn recorded(position: u64, data: KindFacts) -> RecordedEvent {
    let kind = match &data {
        KindFacts::WorkflowStart(_) => EventKind::WorkflowStart,
        KindFacts::WorkflowTransition(_) => EventKind::WorkflowTransition,
        KindFacts::WorkflowIteration(_) => EventKind::WorkflowIteration,
        KindFacts::WorkflowEnd(_) => EventKind::WorkflowEnd,
        KindFacts::Decision(_) => EventKind::Decision,
        _ => EventKind::UserPrompt,
    };
    RecordedEvent {
        position: Position(position),
        stream: StreamName::run(&RunId::new("r1").unwrap()),
        stream_version: StreamVersion(position),
        id: EventId::new(format!("e{position}")).unwrap(),
        kind,
        occurred_at: TimestampMs(1_761_000_000_000 + i64::try_from(position).unwrap()),
        recorded_at: TimestampMs(1_761_000_000_000),
        metadata: Metadata::default(),
        facts: Facts { data, ..Facts::default() },
        content: Content::NotRead,
    }
}

fn owner(term: u64) -> Owner {
    Owner {
        term,
        log_id: LogId::new("log").unwrap(),
        host: "host".to_owned(),
        boot_id: None,
        pid: 1,
        pid_started_at: None,
    }
}

fn start(owner: Option<Owner>) -> KindFacts {
    KindFacts::WorkflowStart(Box::new(WorkflowStart {
        run_id: RunId::new("r1").unwrap(),
        session_id: SessionId::new("s1").unwrap(),
        workflow_name: None,
        harness: None,
        max_iterations: 5,
        tracker_path: None,
        parent_run_id: None,
        forked_at: None,
        attempt: 1,
        deadline_at: None,
        owner,
        forked_from: None,
        iteration: 0,
        policy: None,
    }))
}

fn transition(from: RunState, to: RunState, status: RunStatus, owner: Option<Owner>) -> KindFacts {
    KindFacts::WorkflowTransition(WorkflowTransition { from, to, status, reason: None, owner })
}

/// The status that a transition to this state has to carry.
fn fitting(to: RunState) -> RunStatus {
    match to {
        RunState::Idle => RunStatus::Interrupted,
        RunState::Done => RunStatus::Completed,
        RunState::Starting | RunState::Running | RunState::Completing => RunStatus::Running,
    }
}

fn end(status: RunStatus) -> KindFacts {
    KindFacts::WorkflowEnd(WorkflowEnd { status, stop_reason: Some("why".to_owned()), iteration: 0 })
}

fn iteration_start(iteration: u32) -> KindFacts {
    let continuation = Continuation::Fresh;
    KindFacts::WorkflowIteration(WorkflowIteration::Start(IterationStart {
        iteration,
        continuation,
        retry: None,
        carried: Carried::default(),
    }))
}

fn iteration_session(iteration: u32, id: &str) -> KindFacts {
    let adapter_session_id = AdapterSessionId::new(id).unwrap();
    KindFacts::WorkflowIteration(WorkflowIteration::Session(IterationSession { iteration, adapter_session_id }))
}

fn iteration_end(iteration: u32, tokens: Tokens) -> KindFacts {
    KindFacts::WorkflowIteration(WorkflowIteration::End(IterationEnd {
        iteration,
        outcome: IterationOutcome::Continue,
        exit_code: Some(0),
        error: None,
        tokens,
        tracker: None,
        adapter_session_id: None,
        retry: None,
    }))
}

/// A run that has just come into `state`, by legal steps alone.
fn run_in(state: RunState) -> (WorkflowState, u64) {
    use RunState::{Completing, Done, Idle, Running, Starting};
    let path: &[RunState] = match state {
        Starting => &[],
        Idle => &[Idle],
        Running => &[Running],
        Completing | Done => &[Running, Completing],
    };
    let mut run = WorkflowState::initial(&recorded(1, start(None))).unwrap();
    let mut position = 1;
    for to in path {
        position += 1;
        run.evolve(&recorded(position, transition(run.state, *to, fitting(*to), None))).unwrap();
    }
    if state == Done {
        position += 1;
        run.evolve(&recorded(position, end(RunStatus::Completed))).unwrap();
    }
    assert_eq!(run.state, state);
    (run, position)
}

/// The state but for the last position, which every event moves.
fn but_for_position(run: &WorkflowState) -> WorkflowState {
    WorkflowState { last_position: Position::START, ..run.clone() }
}

#[test]
fn the_table_has_these_eight_transitions_and_no_others() {
    use RunState::{Completing, Done, Idle, Running, Starting};
    let legal = [
        (Idle, Starting),
        (Starting, Running),
        (Starting, Completing),
        (Starting, Idle),
        (Running, Completing),
        (Running, Idle),
        (Completing, Done),
        (Completing, Idle),
    ];
    for from in RunState::ALL {
        for to in RunState::ALL {
            assert_eq!(transition_is_legal(*from, *to), legal.contains(&(*from, *to)), "{from} to {to}");
        }
    }
}

#[test]
fn each_of_the_25_transitions_is_taken_or_leaves_the_state_and_is_reported() {
    for from in RunState::ALL {
        for to in RunState::ALL {
            // Given
            let (mut run, position) = run_in(*from);
            let before = run.clone();
            // When
            let result = run.evolve(&recorded(position + 1, transition(*from, *to, fitting(*to), None)));
            // Then: `done` is reached by workflow.end alone, though the table has the step.
            if transition_is_legal(*from, *to) && *to != RunState::Done {
                assert_eq!(result, Ok(()), "{from} to {to}");
                assert_eq!((run.state, run.status), (*to, fitting(*to)));
            } else {
                let illegal = result.unwrap_err();
                assert_eq!((illegal.position, illegal.state), (Position(position + 1), *from));
                assert_eq!(illegal.what, format!("the transition {from} to {to}"));
                assert_eq!(but_for_position(&run), but_for_position(&before), "{from} to {to}");
            }
            assert_eq!(run.last_position, Position(position + 1));
        }
    }
}

#[test]
fn workflow_end_leads_from_completing_to_done_with_a_final_status_and_from_nowhere_else() {
    for from in RunState::ALL {
        for status in RunStatus::ALL {
            let (mut run, position) = run_in(*from);
            let before = run.clone();
            let result = run.evolve(&recorded(position + 1, end(*status)));
            if *from == RunState::Completing && status.is_final() {
                assert_eq!(result, Ok(()));
                assert_eq!((run.state, run.status), (RunState::Done, *status));
                assert_eq!(run.stop_reason.as_deref(), Some("why"));
                assert_eq!(run.ended_at, Some(TimestampMs(1_761_000_000_000 + i64::try_from(position).unwrap() + 1)));
            } else {
                assert!(result.is_err(), "{from}, {status}");
                assert_eq!(but_for_position(&run), but_for_position(&before));
            }
        }
    }
}

#[test]
fn a_transition_from_another_state_or_with_another_status_is_refused() {
    for from in RunState::ALL {
        for told in RunState::ALL {
            for to in RunState::ALL {
                for status in RunStatus::ALL {
                    if told == from && *status == fitting(*to) {
                        continue;
                    }
                    let (mut run, position) = run_in(*from);
                    let before = run.clone();
                    let result = run.evolve(&recorded(position + 1, transition(*told, *to, *status, None)));
                    assert!(result.is_err(), "{from}: told {told} to {to} with {status}");
                    assert_eq!(but_for_position(&run), but_for_position(&before));
                }
            }
        }
    }
}

#[test]
fn a_takeover_needs_a_newer_term_and_may_leave_the_state_where_it_is() {
    for state in RunState::ALL {
        for (first, next, is_newer) in [(0, 1, true), (1, 1, false), (2, 1, false), (1, 5, true)] {
            // Given
            let (mut run, position) = run_in(*state);
            run.owner = (first > 0).then(|| owner(first));
            // When
            let stays = transition(*state, *state, fitting(*state), Some(owner(next)));
            let result = run.evolve(&recorded(position + 1, stays));
            // Then
            assert_eq!(result.is_ok(), is_newer && *state != RunState::Done, "{state}: {first} to {next}");
            assert_eq!(run.term(), if result.is_ok() { next } else { first });
            assert_eq!(run.state, *state);
        }
    }
}

#[test]
fn iterations_count_up_one_by_one_while_the_run_runs() {
    // Given
    let (mut run, mut position) = run_in(RunState::Running);
    let mut take = |run: &mut WorkflowState, data: KindFacts| {
        position += 1;
        run.evolve(&recorded(position, data))
    };
    // When, then
    assert!(take(&mut run, iteration_end(0, Tokens::default())).is_err(), "none has begun");
    assert!(take(&mut run, iteration_start(2)).is_err(), "the first is 1");
    assert!(take(&mut run, iteration_start(1)).is_ok());
    assert!(take(&mut run, iteration_start(2)).is_err(), "1 is open");
    assert!(take(&mut run, iteration_session(1, "a")).is_ok());
    assert!(take(&mut run, iteration_session(1, "b")).is_ok());
    assert!(take(&mut run, iteration_session(1, "a")).is_ok());
    assert!(take(&mut run, iteration_session(2, "c")).is_err());
    assert!(take(&mut run, iteration_end(2, Tokens::default())).is_err());
    assert!(take(&mut run, iteration_end(1, Tokens { input: Some(3), ..Tokens::default() })).is_ok());
    assert!(take(&mut run, iteration_end(1, Tokens { input: Some(3), ..Tokens::default() })).is_err(), "it ended");
    assert!(take(&mut run, iteration_start(1)).is_err());
    assert!(take(&mut run, iteration_start(2)).is_ok());
    let sessions: Vec<&str> = run.adapter_session_ids.iter().map(AdapterSessionId::as_str).collect();
    assert_eq!(sessions, ["a", "b"], "in order of first use");
    assert_eq!((run.iteration, run.iteration_is_open, run.tokens.total), (2, true, Some(3)));
}

#[test]
fn an_interruption_closes_the_open_iteration_and_the_next_one_follows_it() {
    let (mut run, position) = run_in(RunState::Running);
    let steps = [
        iteration_start(1),
        transition(RunState::Running, RunState::Idle, RunStatus::Interrupted, None),
        transition(RunState::Idle, RunState::Starting, RunStatus::Running, Some(owner(1))),
        transition(RunState::Starting, RunState::Running, RunStatus::Running, None),
        iteration_start(2),
    ];
    for (at, step) in (position + 1..).zip(steps) {
        run.evolve(&recorded(at, step)).unwrap();
    }
    assert_eq!((run.iteration, run.iteration_is_open, run.term()), (2, true, 1));
}

#[test]
fn an_iteration_that_was_cut_off_is_begun_again_under_its_number() {
    let (mut run, position) = run_in(RunState::Running);
    let steps = [
        iteration_start(1),
        iteration_end(1, Tokens::default()),
        iteration_start(2),
        transition(RunState::Running, RunState::Idle, RunStatus::Interrupted, None),
        transition(RunState::Idle, RunState::Starting, RunStatus::Running, Some(owner(1))),
        transition(RunState::Starting, RunState::Running, RunStatus::Running, None),
        iteration_start(2),
        iteration_end(2, Tokens::default()),
    ];
    for (at, step) in (position + 1..).zip(steps) {
        run.evolve(&recorded(at, step)).unwrap();
    }
    assert_eq!((run.iteration, run.iteration_is_open, run.iteration_was_cut), (2, false, false));
    assert!(run.evolve(&recorded(position + 9, iteration_start(2))).is_err(), "it has ended");
}

#[test]
fn only_workflow_start_begins_a_run_and_a_second_one_is_refused() {
    for data in [end(RunStatus::Failed), iteration_start(1), KindFacts::None] {
        assert!(WorkflowState::initial(&recorded(1, data)).is_none());
    }
    let (mut run, position) = run_in(RunState::Running);
    assert!(run.evolve(&recorded(position + 1, start(None))).is_err());
    assert!(WorkflowState::fold(&[recorded(1, end(RunStatus::Failed)), recorded(2, start(None))]).is_none());
    assert!(WorkflowState::fold(&[]).is_none());
}

#[test]
fn a_cancelling_decision_is_remembered_and_other_decisions_are_not() {
    let decision = |intent: Option<&str>| {
        KindFacts::Decision(DecisionFacts {
            event_id: EventId::new("e1").unwrap(),
            decision_type: None,
            source: None,
            intent: intent.map(str::to_owned),
            scope: None,
            pattern: None,
            by: None,
            rule: None,
        })
    };
    let (mut run, position) = run_in(RunState::Running);
    for other in [None, Some("permission_allow"), Some("workflow_cancelled")] {
        run.evolve(&recorded(position + 1, decision(other))).unwrap();
        assert!(!run.cancel_requested);
    }
    run.evolve(&recorded(position + 1, decision(Some("workflow_cancel")))).unwrap();
    assert!(run.cancel_requested);
}

#[test]
fn an_iteration_takes_its_own_session_and_its_first_end_alone() {
    // Given
    let mut iteration = IterationState::initial(&recorded(7, iteration_start(2))).unwrap();
    let tokens = Tokens { output: Some(5), ..Tokens::default() };
    // When
    for (at, data) in [
        (8, iteration_session(1, "other")),
        (9, iteration_session(2, "a")),
        (10, iteration_session(2, "b")),
        (11, iteration_end(1, Tokens::default())),
        (12, iteration_end(2, tokens)),
        (13, iteration_end(2, Tokens::default())),
    ] {
        iteration.evolve(&recorded(at, data));
    }
    // Then
    assert_eq!(iteration.adapter_session_id.as_ref().map(AdapterSessionId::as_str), Some("b"));
    assert_eq!((iteration.start_position, iteration.end_position), (Position(7), Some(Position(12))));
    assert_eq!((iteration.tokens, iteration.outcome), (tokens, Some(IterationOutcome::Continue)));
    assert!(IterationState::initial(&recorded(1, iteration_end(1, tokens))).is_none());
}

fn any_tokens() -> impl Strategy<Value = Tokens> {
    let figure = || prop::option::of(prop_oneof![0..1_000_000_u64, Just(u64::MAX)]);
    (figure(), figure(), figure(), figure(), figure(), figure(), figure()).prop_map(
        |(input, output, cache_read, cache_write, total, context_size, context_window_size)| Tokens {
            input,
            output,
            cache_read,
            cache_write,
            total,
            context_size,
            context_window_size,
        },
    )
}

/// Any fact of a run, likely or not.
fn any_fact() -> impl Strategy<Value = KindFacts> {
    let state = || prop::sample::select(RunState::ALL);
    let status = || prop::sample::select(RunStatus::ALL);
    let iteration = || prop_oneof![8 => 0..6_u32, 1 => Just(u32::MAX)];
    let new_owner = || prop::option::weighted(0.3, prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX)].prop_map(owner));
    prop_oneof![
        1 => new_owner().prop_map(start),
        4 => (state(), state(), new_owner()).prop_map(|(from, to, owner)| transition(from, to, fitting(to), owner)),
        1 => (state(), state(), status(), new_owner())
            .prop_map(|(from, to, status, owner)| transition(from, to, status, owner)),
        3 => iteration().prop_map(iteration_start),
        1 => (iteration(), "[ab]").prop_map(|(iteration, id)| iteration_session(iteration, &id)),
        3 => (iteration(), any_tokens()).prop_map(|(iteration, tokens)| iteration_end(iteration, tokens)),
        1 => status().prop_map(end),
        1 => Just(KindFacts::None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_folds_and_keeps_the_invariants(facts in prop::collection::vec(any_fact(), 0..60)) {
        let mut run = WorkflowState::initial(&recorded(1, start(None))).unwrap();
        for (position, data) in (2..).zip(facts) {
            let before = run.clone();
            let result = run.evolve(&recorded(position, data));
            prop_assert_eq!(run.last_position, Position(position));
            if let Err(illegal) = result {
                prop_assert_eq!(illegal.state, before.state);
                prop_assert_eq!(but_for_position(&run), but_for_position(&before));
            }
            if before.state == RunState::Done {
                let end = |run: &WorkflowState| (run.state, run.status, run.ended_at, run.stop_reason.clone(), run.iteration);
                prop_assert_eq!(end(&run), end(&before), "done is final");
            }
            prop_assert!(run.term() >= before.term(), "the term fell");
            prop_assert!(run.iteration >= before.iteration && run.iteration <= before.iteration + 1);
            let is_legal = run.state == before.state || transition_is_legal(before.state, run.state);
            prop_assert!(is_legal, "{} to {}", before.state, run.state);
            prop_assert_eq!(run.state == RunState::Done, run.status.is_final());
            prop_assert_eq!(run.state == RunState::Idle, run.status == RunStatus::Interrupted);
            prop_assert_eq!(run.state == RunState::Done, run.ended_at.is_some());
        }
    }

    #[test]
    fn token_figures_add_up_the_same_however_they_are_grouped(a in any_tokens(), b in any_tokens(), c in any_tokens()) {
        // A sum, once known, stays known.
        let sum = a.followed_by(b);
        prop_assert_eq!(sum.has_sums(), a.has_sums() || b.has_sums());
        if a.has_sums() && b.has_sums() && c.has_sums() {
            prop_assert_eq!(a.followed_by(b).followed_by(c), a.followed_by(b.followed_by(c)));
        }
    }
}

/// Figures as the reference writes them.
fn reference_tokens(value: &serde_json::Value) -> Tokens {
    let figure = |name: &str| value[name].as_u64();
    Tokens {
        input: figure("input"),
        output: figure("output"),
        cache_read: figure("cacheRead"),
        cache_write: figure("cacheWrite"),
        total: figure("total"),
        context_size: figure("contextSize"),
        context_window_size: figure("contextWindowSize"),
    }
}

#[test]
fn token_figures_of_the_turns_add_up_to_those_of_the_reference() {
    // Given
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/workflow");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
        let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        return;
    };
    let (mut compared, mut with_figures) = (0, 0);
    for path in entries.map(|entry| entry.unwrap().path()) {
        let case: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let Some(turns) = case["input"]["turns"].as_array() else {
            continue;
        };
        let is_plain = case["input"]["beforeStart"].is_null()
            && !case["expected"]["result"].is_null()
            && turns.iter().all(|turn| ["during", "afterIteration", "rejects"].iter().all(|key| turn[key].is_null()));
        if !is_plain {
            continue;
        }
        // When
        let asked = case["expected"]["turns"].as_array().unwrap().len();
        let folded = turns
            .iter()
            .take(asked)
            .map(|turn| reference_tokens(&turn["result"]["tokens"]))
            .fold(Tokens::default(), Tokens::followed_by);
        // Then
        let expected = reference_tokens(&case["expected"]["result"]["tokens"]);
        assert_eq!(folded, expected, "{}", path.display());
        compared += 1;
        with_figures += usize::from(!expected.is_unknown());
    }
    assert!(compared > 30 && with_figures > 1, "{compared} cases, {with_figures} with figures");
}
