//! Following: what is there first, then what comes, in order and once, within a process and from another handle.

use std::time::Duration;

use crate::support::{Place, append_one, belonging, json, prompt, prompt_with};
use runledger_events::{Content, EventKind, Metadata, Position};
use runledger_store::{EventFilter, Follower, Read};

/// Longer than any machine needs: a test that waits it out has failed.
const LONG: Duration = Duration::from_secs(60);
/// For asking whether something is there already.
const NOW: Duration = Duration::ZERO;

/// The next `count` events, however they are cut into batches.
fn take(follower: &mut Follower, count: usize) -> Vec<u64> {
    let mut positions = Vec::new();
    while positions.len() < count {
        let batch = follower.next(100, LONG).unwrap();
        assert!(!batch.events.is_empty(), "nothing came within {LONG:?}; so far {positions:?}");
        positions.extend(batch.events.iter().map(|event| event.position.0));
        assert!(batch.scanned_to.0 >= *positions.last().unwrap());
    }
    positions
}

#[test]
fn a_follower_catches_up_and_then_hears_what_comes() {
    // Given
    let place = Place::new();
    let log = place.shared();
    for n in 1..=5 {
        append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
    }
    let mut follower = log.follow(Position(2)).unwrap();
    // When it catches up
    assert_eq!(take(&mut follower, 3), [3, 4, 5]);
    // Then each new event comes, and comes once.
    for n in 6..=15 {
        append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
        assert_eq!(take(&mut follower, 1), [n]);
    }
    assert!(follower.next(100, NOW).unwrap().events.is_empty());
}

#[test]
fn a_waiting_follower_is_woken_by_an_append_of_its_process() {
    let place = Place::new();
    let log = place.shared();
    let mut follower = log.follow(Position::START).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || take(&mut follower, 50));
        for n in 0..50 {
            append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
        }
        assert_eq!(waiting.join().unwrap(), (1..=50).collect::<Vec<_>>());
    });
}

#[test]
fn a_follower_hears_what_another_handle_appends() {
    // Given a follower of a reader, and one of a log that does not write itself
    let place = Place::new();
    let (writing, silent) = (place.shared(), place.shared());
    let of_reader = place.reader().follow(Position::START).unwrap();
    let of_log = silent.follow(Position::START).unwrap();
    std::thread::scope(|scope| {
        // When
        let threads = [of_reader, of_log].map(|mut follower| scope.spawn(move || take(&mut follower, 30)));
        for n in 0..30 {
            append_one(&*writing, "session/a", prompt(&format!("e{n}"), "x"));
        }
        // Then
        for thread in threads {
            assert_eq!(thread.join().unwrap(), (1..=30).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_follower_outlives_the_log_that_made_it() {
    let place = Place::new();
    let log = place.shared();
    let mut follower = log.follow(Position::START).unwrap();
    append_one(&*log, "session/a", prompt("e1", "x"));
    drop(log);
    assert_eq!(take(&mut follower, 1), [1]);
    append_one(&*place.shared(), "session/a", prompt("e2", "x"));
    assert_eq!(take(&mut follower, 1), [2]);
}

#[test]
fn followers_of_two_writers_at_once_see_one_order_without_gaps() {
    let place = Place::new();
    let logs = [place.shared(), place.shared()];
    let followers = [logs[0].follow(Position::START).unwrap(), logs[1].follow(Position::START).unwrap()];
    std::thread::scope(|scope| {
        let reading = followers.map(|mut follower| scope.spawn(move || take(&mut follower, 200)));
        for (writer, log) in logs.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..100 {
                    append_one(&**log, "session/a", prompt(&format!("{writer}-{n}"), "x"));
                }
            });
        }
        for thread in reading {
            assert_eq!(thread.join().unwrap(), (1..=200).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_follower_takes_only_what_its_filter_takes_and_gets_past_the_rest() {
    // Given
    let place = Place::new();
    let log = place.shared();
    let filter = EventFilter { kinds: Some(vec![EventKind::SessionEnd]), ..EventFilter::default() };
    let mut follower = log.follow(Position::START).unwrap().with_filter(filter);
    for n in 0..10 {
        append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
    }
    // When nothing fits
    let batch = follower.next(100, NOW).unwrap();
    // Then it has searched all the same.
    assert!(batch.events.is_empty());
    assert_eq!(batch.scanned_to, Position(10));
    // When something does
    append_one(&*log, "session/a", json(r#"{"kind":"session.end"}"#, Metadata::default()));
    append_one(&*log, "session/a", prompt("after", "x"));
    assert_eq!(take(&mut follower, 1), [11]);
    assert_eq!(follower.next(100, NOW).unwrap().scanned_to, Position(12));
}

#[test]
fn a_follower_of_a_session_hears_its_runs_too() {
    let place = Place::new();
    let log = place.shared();
    let filter = EventFilter { session: Some("a".parse().unwrap()), ..EventFilter::default() };
    let mut follower = place.reader().follow(Position::START).unwrap().with_filter(filter);
    append_one(&*log, "session/a", prompt_with("e1", "x", belonging(Some("a"), None)));
    append_one(&*log, "session/b", prompt_with("e2", "x", belonging(Some("b"), None)));
    append_one(&*log, "run/r", prompt_with("e3", "x", belonging(Some("a"), Some("r"))));
    assert_eq!(take(&mut follower, 2), [1, 3]);
}

#[test]
fn a_follower_reads_facts_alone_unless_it_is_asked_for_all() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "hello"));
    let mut facts = log.follow(Position::START).unwrap();
    assert_eq!(facts.next(1, NOW).unwrap().events[0].content, Content::NotRead);
    let mut everything = log.follow(Position::START).unwrap().with_read(Read::All);
    assert!(everything.next(1, NOW).unwrap().events[0].content.json().unwrap().contains("hello"));
}

#[test]
fn a_limit_cuts_what_is_there_into_batches() {
    let place = Place::new();
    let log = place.shared();
    for n in 0..7 {
        append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
    }
    let mut follower = log.follow(Position::START).unwrap();
    let mut sizes = Vec::new();
    loop {
        let batch = follower.next(3, NOW).unwrap();
        if batch.events.is_empty() {
            break;
        }
        sizes.push((batch.events.len(), batch.scanned_to.0));
    }
    assert_eq!(sizes, [(3, 3), (3, 6), (1, 7)]);
}

#[test]
fn an_empty_batch_comes_when_the_time_is_up() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "x"));
    for timeout in [NOW, Duration::from_millis(1), Duration::from_millis(50)] {
        for mut follower in [log.follow(Position(1)).unwrap(), place.reader().follow(Position(1)).unwrap()] {
            let batch = follower.next(10, timeout).unwrap();
            assert!(batch.events.is_empty());
            assert_eq!(batch.scanned_to, Position(1));
        }
    }
}

#[test]
fn waiting_for_the_head_moves_nothing() {
    let place = Place::new();
    let log = place.shared();
    let mut follower = log.follow(Position::START).unwrap();
    assert_eq!(follower.wait_beyond(Position::START, NOW).unwrap(), Position::START);
    append_one(&*log, "session/a", prompt("e1", "x"));
    append_one(&*log, "session/a", prompt("e2", "x"));
    assert_eq!(follower.wait_beyond(Position(1), LONG).unwrap(), Position(2));
    assert_eq!(follower.wait_beyond(Position(2), NOW).unwrap(), Position(2));
    assert_eq!(take(&mut follower, 2), [1, 2]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || follower.wait_beyond(Position(2), LONG).unwrap());
        append_one(&*log, "session/a", prompt("e3", "x"));
        assert_eq!(waiting.join().unwrap(), Position(3));
    });
}
