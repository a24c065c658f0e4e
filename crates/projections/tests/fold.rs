//! Whatever is told, and however it is cut into batches: the live models, a rebuild and a naive fold say the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use runledger_events::{
    AdapterSessionId, EventKind, IterationState, KindFacts, Position, RecordedEvent, RunId, SessionId, Tokens,
    WorkflowIteration, WorkflowState,
};
use runledger_projections::{Iteration, Projections, Run, RunFilter, RunMatch, Session, run_at};
use runledger_testkit::TempLedger;
use support::{NAMES, Story, Told, all, dump, fresh_dump, is_of_run, open, queries, tell};

/// What is told next.
#[derive(Debug, Clone)]
enum Next {
    /// What may follow on the run.
    Legal { run: u8, choice: u8 },
    /// What hardly ever may.
    Stray { run: u8, choice: u8, more: u8 },
    /// A signal to the run, or a decision that holds for it.
    Decision { run: u8, choice: u8 },
    /// A harness event, of a run or not.
    Harness { session: u8, adapter: Option<u8>, run: Option<u8>, choice: u8 },
    /// The end of a batch: what was told so far is projected.
    Cut,
}

fn next() -> impl Strategy<Value = Next> {
    let run = 0_u8..4;
    prop_oneof![
        6 => (run.clone(), any::<u8>()).prop_map(|(run, choice)| Next::Legal { run, choice }),
        2 => (run.clone(), any::<u8>(), any::<u8>()).prop_map(|(run, choice, more)| Next::Stray { run, choice, more }),
        1 => (run.clone(), any::<u8>()).prop_map(|(run, choice)| Next::Decision { run, choice }),
        3 => (0_u8..3, proptest::option::weighted(0.8, 0_u8..4), proptest::option::weighted(0.3, run), any::<u8>())
            .prop_map(|(session, adapter, run, choice)| Next::Harness { session, adapter, run, choice }),
        2 => Just(Next::Cut),
    ]
}

/// Tells all of it, and projects at each cut.
fn tell_all(ledger: &TempLedger, projections: &mut Projections, nexts: &[Next]) {
    let mut story = Story::default();
    let mut batch: Vec<Told> = Vec::new();
    let name = |run: u8| format!("run-{run}");
    for next in nexts {
        batch.push(match next {
            Next::Legal { run, choice } => story.next_of_run(&name(*run), *choice),
            Next::Stray { run, choice, more } => story.stray_of_run(&name(*run), *choice, *more),
            Next::Decision { run, choice } => story.decision_of_run_or_start(&name(*run), *choice),
            Next::Harness { session, adapter, run, choice } => story.harness(
                &format!("s{session}"),
                adapter.map(|adapter| format!("a{adapter}")).as_deref(),
                run.map(name).as_deref(),
                *choice,
            ),
            Next::Cut => {
                if !batch.is_empty() {
                    tell(&*ledger.log, &batch);
                }
                batch.clear();
                projections.catch_up().unwrap();
                continue;
            }
        });
    }
    if !batch.is_empty() {
        tell(&*ledger.log, &batch);
    }
    projections.catch_up().unwrap();
}

/// Runs with their iterations, by id: each stream folded by itself.
fn naive_runs(events: &[RecordedEvent]) -> BTreeMap<RunId, (Run, Vec<Iteration>)> {
    let mut streams: BTreeMap<RunId, Vec<&RecordedEvent>> = BTreeMap::new();
    for event in events.iter().filter(|event| is_of_run(event)) {
        streams.entry(event.stream.run_id().unwrap()).or_default().push(event);
    }
    streams
        .into_iter()
        .map(|(id, events)| {
            let (state, _) = WorkflowState::fold(events.iter().copied()).unwrap();
            let mut iterations: BTreeMap<u32, IterationState> = BTreeMap::new();
            for event in &events {
                for known in iterations.values_mut() {
                    known.evolve(event);
                }
                if let Some(first) = IterationState::initial(event) {
                    iterations.entry(first.iteration).or_insert(first);
                }
            }
            let iterations = iterations.into_values().map(Iteration::from).collect();
            (id, (Run::new(state, events[0].position), iterations))
        })
        .collect()
}

/// What is simply counted of a session: its events, the runs that begin in it, its span, and its harness sessions.
#[derive(Debug, PartialEq)]
struct Counted {
    events: usize,
    starts: usize,
    span: (i64, i64, u64, u64),
    adapters: BTreeMap<AdapterSessionId, CountedAdapter>,
}

/// Of a harness session: its events, where it begins and ends in the log, when it began and ended, its run, its cost.
type CountedAdapter = (usize, u64, u64, Option<i64>, Option<i64>, Option<RunId>, Tokens);

/// The harness session that an event tells of.
fn adapter_of(event: &RecordedEvent) -> Option<AdapterSessionId> {
    match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.clone(),
        KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(session.adapter_session_id.clone()),
        _ => event.metadata.adapter_session_id.clone(),
    }
}

fn naive_sessions(events: &[RecordedEvent]) -> BTreeMap<SessionId, Counted> {
    let mut ids: Vec<SessionId> = events.iter().filter_map(|event| event.metadata.session_id.clone()).collect();
    ids.sort();
    ids.dedup();
    ids.into_iter()
        .map(|id| {
            let own: Vec<&RecordedEvent> =
                events.iter().filter(|event| event.metadata.session_id.as_ref() == Some(&id)).collect();
            let mut adapters: Vec<AdapterSessionId> = own.iter().filter_map(|event| adapter_of(event)).collect();
            adapters.sort();
            adapters.dedup();
            let times = || own.iter().map(|event| event.occurred_at.0);
            let positions = |own: &[&RecordedEvent]| (own[0].position.0, own[own.len() - 1].position.0);
            let (first, last) = positions(&own);
            let adapters = adapters
                .into_iter()
                .map(|adapter| {
                    let of: Vec<&RecordedEvent> =
                        own.iter().filter(|event| adapter_of(event).as_ref() == Some(&adapter)).copied().collect();
                    let (first, last) = positions(&of);
                    let started = of.iter().find(|event| event.kind == EventKind::SessionStart);
                    let ended = of
                        .iter()
                        .rfind(|event| matches!(event.kind, EventKind::SessionStart | EventKind::SessionEnd))
                        .filter(|event| event.kind == EventKind::SessionEnd);
                    let run = of.iter().rev().find_map(|event| event.metadata.run_id.clone());
                    let at = |event: &&RecordedEvent| event.occurred_at.0;
                    (adapter, (of.len(), first, last, started.map(at), ended.map(at), run, cost(&of)))
                })
                .collect();
            let counted = Counted {
                events: own.len(),
                starts: own.iter().filter(|event| WorkflowState::initial(event).is_some()).count(),
                span: (times().min().unwrap(), times().max().unwrap(), first, last),
                adapters,
            };
            (id, counted)
        })
        .collect()
}

/// What a harness session cost: ends of iterations add up; its own sums, told outside of runs, take their place.
fn cost(events: &[&RecordedEvent]) -> Tokens {
    let mut cost = Tokens::default();
    for event in events {
        match &event.facts.data {
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => cost = cost.followed_by(end.tokens),
            KindFacts::Usage { usage, delta, .. } if event.metadata.run_id.is_none() => {
                if usage.has_sums() {
                    let context_size = usage.context_size.or(cost.context_size);
                    let context_window_size = usage.context_window_size.or(cost.context_window_size);
                    cost = Tokens { context_size, context_window_size, ..*usage };
                } else {
                    cost = cost.followed_by(*delta);
                }
            }
            _ => {}
        }
    }
    cost
}

fn counted(session: &Session) -> Counted {
    let adapters = session.adapter_sessions.iter().map(|adapter| {
        let events = usize::try_from(adapter.events).unwrap();
        let (first, last) = (adapter.first_position.0, adapter.last_position.0);
        let (started, ended) = (adapter.started_at.map(|at| at.0), adapter.ended_at.map(|at| at.0));
        (adapter.id.clone(), (events, first, last, started, ended, adapter.run_id.clone(), adapter.tokens))
    });
    Counted {
        events: usize::try_from(session.events).unwrap(),
        starts: usize::try_from(session.runs).unwrap(),
        span: (session.first_at.0, session.last_at.0, session.first_position.0, session.last_position.0),
        adapters: adapters.collect(),
    }
}

#[test]
fn a_run_as_of_a_position_is_what_the_read_model_had_there() {
    for seed in 0..6 {
        // Given a log that is projected event by event
        let ledger = TempLedger::new();
        let mut projections = open(&ledger.path);
        projections.catch_up().unwrap();
        let queries = queries(&ledger.path);
        let mut seen = Vec::new();
        for told in Story::default().mixed(120, 3, seed) {
            let position = tell(&*ledger.log, &[told]);
            projections.catch_up().unwrap();
            for run in queries.runs(&RunFilter::default()).unwrap() {
                let RunMatch::One(run, iterations) = queries.run(run.id.as_str()).unwrap() else { panic!("no run") };
                seen.push((position, *run, iterations));
            }
        }
        // When, then
        for (position, run, iterations) in &seen {
            let then = run_at(projections.reader(), &run.id, *position).unwrap().unwrap();
            assert_eq!((&then.0, &then.1), (run, iterations), "at {position}, seed {seed}");
        }
        let has = |what: fn(&(Position, Run, Vec<Iteration>)) -> bool| seen.iter().any(what);
        assert!(seed > 0 || has(|(_, run, _)| run.retries > 0 && run.paused), "the story has what it is about");
        assert!(seed > 0 || has(|(.., iterations)| iterations.iter().any(|iteration| iteration.attempt > 1)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_read_models_are_a_fold_of_the_log_and_of_nothing_else(nexts in proptest::collection::vec(next(), 1..120)) {
        // Given
        let ledger = TempLedger::new();
        let mut projections = open(&ledger.path);
        // When
        tell_all(&ledger, &mut projections, &nexts);
        // Then a rebuild gives the same rows, as does a file of its own,
        let live = dump(&ledger.path);
        prop_assert_eq!(&fresh_dump(&ledger.path), &live);
        for name in NAMES {
            prop_assert_eq!(projections.rebuild(name, &mut |_| {}).unwrap().changed, Some(0));
            prop_assert_eq!(projections.verify(name, &mut |_| {}).unwrap().different, 0);
        }
        prop_assert_eq!(&dump(&ledger.path), &live);
        // and the naive models agree.
        let events = all(projections.reader());
        let queries = queries(&ledger.path);
        let runs = queries.runs(&RunFilter::default()).unwrap().into_iter().map(|run| {
            let RunMatch::One(same, iterations) = queries.run(run.id.as_str()).unwrap() else { panic!("no run") };
            assert_eq!(*same, run);
            (run.id.clone(), (run, iterations))
        });
        prop_assert_eq!(runs.collect::<BTreeMap<_, _>>(), naive_runs(&events));
        let sessions = queries.sessions().unwrap();
        prop_assert!(sessions.is_sorted_by_key(|session| std::cmp::Reverse(session.last_position)));
        let sessions = sessions.iter().map(|session| (session.id.clone(), counted(session)));
        prop_assert_eq!(sessions.collect::<BTreeMap<_, _>>(), naive_sessions(&events));
    }
}
