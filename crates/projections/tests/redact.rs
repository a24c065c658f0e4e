//! What was erased in the log leaves the read models, whoever projects, and whenever it is erased.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Metadata, Position, StreamName};
use runledger_store::Erase;
use runledger_testkit::TempLedger;
use support::{NAMES, Told, assert_verifies, caught_up, dump, open, tell};

const SECRET: &str = "quetzalcoatl";

fn prompt(number: u64) -> Told {
    let json = format!(
        r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","sessionId":"a","data":{{"prompt":"{SECRET} {number}"}}}}"#
    );
    let metadata = Metadata { session_id: Some("s".parse().unwrap()), ..Metadata::default() };
    Told { stream: StreamName::new("session/s").unwrap(), metadata, json }
}

fn prompts(numbers: std::ops::RangeInclusive<u64>) -> Vec<Told> {
    numbers.map(prompt).collect()
}

fn session() -> Erase {
    Erase::Sessions(vec!["s".parse().unwrap()])
}

#[test]
fn whoever_projects_next_builds_the_read_models_without_it_and_others_do_not_bring_it_back() {
    // Given: two that project, of which one knows the words from before.
    let ledger = TempLedger::new();
    tell(&ledger.log, &prompts(1..=50));
    let mut first = caught_up(&ledger.path);
    assert!(dump(&ledger.path).contains(SECRET));
    // When
    ledger.log.redact(&session(), "asked for", "dev@host").unwrap();
    let mut second = open(&ledger.path);
    second.catch_up().unwrap();
    // Then
    assert!(!dump(&ledger.path).contains(SECRET));
    assert!(second.clear_erased().unwrap());
    tell(&ledger.log, &[prompt(51)]);
    ledger.log.redact(&session(), "again", "dev@host").unwrap();
    first.catch_up().unwrap();
    assert!(!dump(&ledger.path).contains(SECRET));
    assert_verifies(&mut first);
}

#[test]
fn what_is_erased_while_a_rebuild_goes_on_is_in_none_of_its_rows() {
    let ledger = TempLedger::new();
    tell(&ledger.log, &prompts(1..=50));
    let mut projections = caught_up(&ledger.path);
    for names in [&NAMES[..], &["feed_events"], &["feed_search"]] {
        tell(&ledger.log, &[prompt(u64::from(projections.reader().head().unwrap().position.0 as u32) + 100)]);
        projections.catch_up().unwrap();
        let mut erased = 0;
        projections
            .rebuild_together(names, &mut |progress| {
                // Once it has read everything.
                if progress.position == progress.head && erased == 0 {
                    erased = ledger.log.redact(&session(), "asked for", "dev@host").unwrap().events;
                }
            })
            .unwrap();
        assert!(erased > 0);
        projections.catch_up().unwrap();
        assert!(!dump(&ledger.path).contains(SECRET), "{names:?}");
        assert_verifies(&mut projections);
    }
}

#[test]
fn a_first_build_of_a_log_with_erased_events_goes_through_once() {
    let ledger = TempLedger::new();
    tell(&ledger.log, &prompts(1..=5));
    ledger.log.redact(&Erase::Events(vec![Position(2), Position(4)]), "asked for", "dev@host").unwrap();
    let mut projections = caught_up(&ledger.path);
    let dumped = dump(&ledger.path);
    assert!(dumped.contains("quetzalcoatl 1") && !dumped.contains("quetzalcoatl 2"));
    assert!(projections.clear_erased().unwrap());
    let generation = projections.checkpoint("feed_events").unwrap().unwrap().generation;
    tell(&ledger.log, &[prompt(9)]);
    projections.catch_up().unwrap();
    assert_eq!(projections.checkpoint("feed_events").unwrap().unwrap().generation, generation);
    assert_verifies(&mut projections);
}
