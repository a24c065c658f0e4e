//! What was erased in the log leaves the read models, whoever projects, and whenever it is erased.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Metadata, Position, StreamName};
use runledger_projections::{FeedCursor, FeedFilter, FeedPage, projections_path};
use runledger_store::Erase;
use runledger_testkit::TempLedger;
use support::{NAMES, Told, assert_verifies, caught_up, dump, open, queries, sqlite, tell};

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

fn session_of(id: &str) -> Erase {
    Erase::Sessions(vec![id.parse().unwrap()])
}

fn session() -> Erase {
    session_of("s")
}

#[test]
fn whoever_projects_next_builds_the_read_models_without_it_and_others_do_not_bring_it_back() {
    // Given: two that project, of which one knows the words from before.
    let ledger = TempLedger::new();
    tell(&*ledger.log, &prompts(1..=50));
    let mut first = caught_up(&ledger.path);
    assert!(dump(&ledger.path).contains(SECRET));
    // When
    ledger.log.redact(&session(), "asked for", "dev@host").unwrap();
    let mut second = open(&ledger.path);
    second.catch_up().unwrap();
    // Then
    assert!(!dump(&ledger.path).contains(SECRET));
    assert!(second.clear_erased().unwrap());
    tell(&*ledger.log, &[prompt(51)]);
    ledger.log.redact(&session(), "again", "dev@host").unwrap();
    first.catch_up().unwrap();
    assert!(!dump(&ledger.path).contains(SECRET));
    assert_verifies(&mut first);
}

#[test]
fn what_is_erased_while_a_rebuild_goes_on_is_in_none_of_its_rows() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &prompts(1..=50));
    let mut projections = caught_up(&ledger.path);
    for names in [&NAMES[..], &["feed_events"], &["feed_search"]] {
        tell(&*ledger.log, &[prompt(u64::from(projections.reader().head().unwrap().position.0 as u32) + 100)]);
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
    tell(&*ledger.log, &prompts(1..=5));
    ledger.log.redact(&Erase::Events(vec![Position(2), Position(4)]), "asked for", "dev@host").unwrap();
    let mut projections = caught_up(&ledger.path);
    let dumped = dump(&ledger.path);
    assert!(dumped.contains("quetzalcoatl 1") && !dumped.contains("quetzalcoatl 2"));
    assert!(projections.clear_erased().unwrap());
    let generation = projections.checkpoint("feed_events").unwrap().unwrap().generation;
    tell(&*ledger.log, &[prompt(9)]);
    projections.catch_up().unwrap();
    assert_eq!(projections.checkpoint("feed_events").unwrap().unwrap().generation, generation);
    assert_verifies(&mut projections);
}

/// Whether a file, or its write-ahead log, holds the words.
fn holds_the_secret(path: &std::path::Path) -> bool {
    ["", "-wal"].iter().any(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let bytes = std::fs::read(name).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    })
}

#[test]
fn tables_that_a_rebuild_left_behind_are_cleared_too_and_not_while_somebody_rebuilds() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &prompts(1..=50));
    let path = projections_path(&ledger.path);
    let mut projections = caught_up(&ledger.path);
    let generation = projections.checkpoint("feed_events").unwrap().unwrap().generation;
    sqlite(&ledger.path)
        .execute_batch(&format!("CREATE TABLE feed_events_999 AS SELECT * FROM feed_events_{generation}"))
        .unwrap();
    ledger.log.redact(&session(), "asked for", "dev@host").unwrap();
    // Given: the rows are built anew by somebody who came to an end before the leftovers were removed.
    let mut lock = path.clone().into_os_string();
    lock.push(".rebuild-lock");
    projections.catch_up().unwrap();
    sqlite(&ledger.path)
        .execute_batch(&format!(
            "CREATE TABLE feed_events_998 AS SELECT '{SECRET}' AS words;
             UPDATE cleared SET of_file = 0, of_wal = 0"
        ))
        .unwrap();
    assert!(holds_the_secret(&path));
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    assert!(!projections.clear_erased().unwrap(), "whoever rebuilds is to remove them");
    drop(held);
    assert!(projections.clear_erased().unwrap());
    assert!(!holds_the_secret(&path));
}

#[test]
fn what_was_cleared_of_another_log_says_nothing_of_this_one() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &prompts(1..=5));
    let mut projections = caught_up(&ledger.path);
    ledger.log.redact(&session(), "asked for", "dev@host").unwrap();
    projections.catch_up().unwrap();
    assert!(projections.clear_erased().unwrap() && !projections.log_is_cleared().unwrap());
    projections.note_log_cleared(Position(6)).unwrap();
    assert!(projections.log_is_cleared().unwrap());
    let cleared = "SELECT count(*) FROM cleared WHERE of_wal = 6 AND of_log = 6";
    let count = || sqlite(&ledger.path).query_row(cleared, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 1);
    sqlite(&ledger.path).execute("UPDATE cleared SET log_id = 'another', of_wal = 99, of_log = 99", []).unwrap();
    assert!(!projections.log_is_cleared().unwrap());
    projections.note_log_cleared(Position(6)).unwrap();
    assert!(projections.clear_erased().unwrap());
    assert_eq!(count(), 1);
}

#[test]
fn who_projects_tries_to_clear_an_erasure_once_and_the_next_one_again() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &prompts(1..=20));
    let mut projections = caught_up(&ledger.path);
    // Given: somebody reads the read models all the while.
    let reader = sqlite(&ledger.path);
    reader.execute_batch("BEGIN; SELECT count(*) FROM feed_events").unwrap();
    ledger.log.redact(&session(), "asked for", "dev@host").unwrap();
    projections.catch_up().unwrap();
    drop(reader);
    let of_wal =
        || sqlite(&ledger.path).query_row("SELECT of_wal FROM cleared", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(of_wal(), 0);
    // When it goes on, it does not stop for that again.
    tell(&*ledger.log, &[prompt(21)]);
    projections.catch_up().unwrap();
    assert_eq!(of_wal(), 0);
    // Then whoever projects next does.
    caught_up(&ledger.path);
    assert_eq!(of_wal(), 21);
}

#[test]
fn who_follows_the_feed_misses_nothing_of_what_comes_after_an_erasure() {
    for is_of_session in [false, true] {
        let ledger = TempLedger::new();
        let message = |number: u64| Told {
            json: format!(
                r#"{{"id":"m{number}","timestamp":{number},"kind":"message.complete","sessionId":"a","data":{{"message":"{SECRET}"}}}}"#
            ),
            ..prompt(number)
        };
        tell(&*ledger.log, &(1..=9).map(message).collect::<Vec<_>>());
        let mut projections = caught_up(&ledger.path);
        let queries = queries(&ledger.path);
        let session = is_of_session.then(|| "s".parse().unwrap());
        let filter = FeedFilter { session, ..FeedFilter::default() };
        let last = queries.feed(&filter, &FeedPage::Last, 1).unwrap().pop().unwrap();
        // When: messages without words make fewer entries, so those that come get smaller numbers than before.
        ledger.log.redact(&session_of("s"), "asked for", "dev@host").unwrap();
        tell(&*ledger.log, &(20..=22).map(prompt).collect::<Vec<_>>());
        projections.catch_up().unwrap();
        // Then
        let kept: FeedCursor = last.cursor().to_string().parse().unwrap();
        let came = queries.feed(&filter, &FeedPage::After(kept.clone()), 100).unwrap();
        let prompts = came.iter().filter(|entry| entry.kind == "user.prompt").count();
        assert_eq!((prompts, came.iter().all(|entry| entry.first_position > last.first_position)), (3, true));
        let before = queries.feed(&filter, &FeedPage::Before(kept), 100).unwrap();
        assert!(before.iter().all(|entry| entry.first_position < last.first_position));
    }
}
