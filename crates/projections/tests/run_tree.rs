//! Runs as a tree: who stands under whom, what is summed up, and that no circle of names keeps a run from being seen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Continuation, KindFacts, WorkflowStart};
use runledger_projections::{RunFilter, RunMatch, RunNode};
use runledger_testkit::TempLedger;
use support::{Story, caught_up, into_running, iteration_end, iteration_start, queries, start, tell};

/// Tells of a run that is a part of one, or a fork of one, and cost 8.
fn begin(ledger: &TempLedger, story: &mut Story, run: &str, session: &str, parent: Option<&str>, origin: Option<&str>) {
    let KindFacts::WorkflowStart(begun) = start(run, session, 0) else { panic!("a start") };
    let begun = WorkflowStart {
        parent_run_id: parent.map(|id| id.parse().unwrap()),
        forked_from: origin.map(|id| id.parse().unwrap()),
        ..*begun
    };
    let facts = [
        KindFacts::WorkflowStart(Box::new(begun)),
        into_running(),
        iteration_start(1, Continuation::Fresh),
        iteration_end(1, 8, None),
    ];
    let told: Vec<_> = facts.iter().map(|facts| story.workflow_in(run, session, facts)).collect();
    tell(&*ledger.log, &told);
}

fn shown(nodes: &[RunNode]) -> Vec<String> {
    let line = |node: &RunNode| {
        let sum = node.tokens_with_children.input.unwrap_or_default();
        format!("{}{} {sum}", "  ".repeat(node.depth), node.run.id)
    };
    nodes.iter().map(line).collect()
}

#[test]
fn sub_runs_are_summed_up_and_forks_stand_under_their_origin_by_themselves() {
    // Given a run with two sub-runs, one of which has its own, and a fork of which one was forked again
    let ledger = TempLedger::new();
    let mut story = Story::default();
    for (run, session, parent, origin) in [
        ("old", "s1", None, None),
        ("a", "s1", None, None),
        ("b", "s2", Some("a"), None),
        ("fork", "s3", None, Some("a")),
        ("c", "s2", Some("b"), None),
        ("d", "s1", Some("a"), None),
        ("fork-2", "s4", None, Some("fork")),
        ("lost", "s5", Some("nobody"), None),
    ] {
        begin(&ledger, &mut story, run, session, parent, origin);
    }
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let tree = |filter: &RunFilter| shown(&queries.run_tree(filter).unwrap());
    // When, then
    assert_eq!(
        tree(&RunFilter::default()),
        ["lost 8", "a 32", "  b 16", "    c 8", "  fork 8", "    fork-2 8", "  d 8", "old 8"]
    );
    assert_eq!(tree(&RunFilter { limit: Some(1), ..RunFilter::default() }), ["lost 8"]);
    let of = |session: &str| RunFilter { session: session.parse().ok(), ..RunFilter::default() };
    assert_eq!(tree(&of("s2")), ["b 16", "  c 8"], "sub-runs of other sessions count too");
    assert_eq!(tree(&of("s1")).len(), 7);
    assert_eq!(tree(&of("nobody")), [""; 0]);
    let RunMatch::One(run, _) = queries.run("fork-2").unwrap() else { panic!("no run") };
    let lineage: Vec<String> = queries.lineage(&run).unwrap().iter().map(|run| run.id.to_string()).collect();
    assert_eq!(lineage, ["fork", "a"]);
}

#[test]
fn a_circle_of_names_hides_no_run() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    for (run, parent, origin) in
        [("a", Some("b"), None), ("b", Some("a"), None), ("c", Some("c"), None), ("d", None, Some("d"))]
    {
        begin(&ledger, &mut story, run, "s", parent, origin);
    }
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let mut seen: Vec<String> =
        queries.run_tree(&RunFilter::default()).unwrap().iter().map(|node| node.run.id.to_string()).collect();
    seen.sort();
    assert_eq!(seen, ["a", "b", "c", "d"]);
    let RunMatch::One(run, _) = queries.run("d").unwrap() else { panic!("no run") };
    assert!(queries.lineage(&run).unwrap().is_empty());
}
