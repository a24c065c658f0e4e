//! What is erased is gone from whoever reads, what is left verifies, and the log goes on behind it.

use runledger_events::{Content, Position, SessionId, StreamVersion};
use runledger_store::{Erase, ExpectedVersion, RedactError, SealKey};

use crate::support::{Place, all, append_one, assert_verifies, belonging, prompt, prompt_with, stream};

const SECRET: &str = "correct-horse-battery-staple";

/// Two sessions, one with a run; every event says the secret.
fn place() -> Place {
    let place = Place::new();
    let log = place.shared();
    for (name, session, run) in [
        ("session/a", "a", None),
        ("run/r", "a", Some("r")),
        ("session/b", "b", None),
        ("session/a", "a", None),
        ("session/b", "b", None),
    ] {
        let at = place.reader().head().unwrap().position;
        append_one(&*log, name, prompt_with(&format!("e{at}"), SECRET, belonging(Some(session), run)));
    }
    place
}

/// Positions of events that say the secret.
fn telling(place: &Place) -> Vec<u64> {
    let events = all(&place.reader());
    let tells = events.iter().filter(|event| event.content.json().is_some_and(|json| json.contains(SECRET)));
    tells.map(|event| event.position.0).collect()
}

fn session(id: &str) -> Erase {
    Erase::Sessions(vec![SessionId::new(id).unwrap()])
}

#[test]
fn an_event_that_is_erased_says_nothing_any_more_and_everything_else_stays() {
    let place = place();
    let log = place.shared();
    let before = all(&place.reader());
    let erased = log.redact(&Erase::Events(vec![Position(2), Position(4)]), "why", "who").unwrap();
    assert_eq!((erased.events, erased.untold, erased.is_settled), (2, 0, true));
    assert_eq!(erased.positions, [Position(2), Position(4)]);
    assert_eq!(telling(&place), [1, 3, 5]);
    let after = all(&place.reader());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.id, &before.facts, before.stream_version), (&after.id, &after.facts, after.stream_version));
        assert_eq!(after.content == Content::Erased, [2, 4].contains(&after.position.0));
    }
    let told = &after[usize::try_from(erased.receipt.unwrap().position.0).unwrap() - 1];
    let json = told.content.json().unwrap();
    assert!(json.contains(r#""reason":"why""#) && json.contains(r#""ranges":[[2,2],[4,4]]"#), "{json}");
    assert_eq!(assert_verifies(&place.reader()).erased, 2);
    // It is done once.
    let again = log.redact(&Erase::Events(vec![Position(2)]), "why", "who").unwrap();
    assert_eq!((again.receipt, again.events, again.positions), (None, 0, vec![]));
}

#[test]
fn a_session_goes_with_its_runs_and_goes_on_behind_that() {
    let place = place();
    let log = place.shared();
    let erased = log.redact(&session("a"), "why", "who").unwrap();
    assert_eq!((erased.events, erased.positions.as_slice()), (3, &[1, 2, 4].map(Position)[..]));
    assert_eq!(telling(&place), [3, 5]);
    assert_eq!(log.redact(&session("a"), "why", "who").unwrap().receipt, None);
    // What is appended behind what was erased stands there once, at the next version, on whatever machine.
    let reader = place.reader();
    let last = |name: &str| reader.stream_version(&stream(name)).unwrap();
    let (of_session, of_run) = (last("session/a"), last("run/r"));
    let next = append_one(&*log, "session/a", prompt_with("e9", "other words", belonging(Some("a"), None)));
    assert_eq!(next.stream_version, of_session.next());
    let other = place.shared();
    let expected = ExpectedVersion::Exact(of_run);
    let receipt = other.append(&stream("run/r"), expected, vec![prompt("r9", "other words")]).unwrap().remove(0);
    assert_eq!(receipt.stream_version, of_run.next());
    // What was erased is known when it comes again, by its facts.
    let again = append_one(&*other, "session/a", prompt_with("e0", SECRET, belonging(Some("a"), None)));
    assert_eq!((again.is_duplicate, again.position, again.stream_version), (true, Position(1), StreamVersion(1)));
    assert_eq!(telling(&place), [3, 5]);
    assert_verifies(&place.reader());
}

#[test]
fn what_is_not_there_and_what_was_done_to_the_ledger_is_not_erased() {
    let place = place();
    let log = place.shared();
    let beyond = log.redact(&Erase::Events(vec![Position(6)]), "why", "who");
    assert!(matches!(beyond, Err(RedactError::NoEvent { head: Position(5), .. })), "{beyond:?}");
    let told = log.redact(&Erase::Events(vec![Position(3)]), "why", "who").unwrap().receipt.unwrap().position;
    let of_ledger = log.redact(&Erase::Events(vec![Position(1), told]), "why", "who");
    assert!(matches!(of_ledger, Err(RedactError::OfLedger { position }) if position == told), "{of_ledger:?}");
    assert_eq!(telling(&place), [1, 2, 4, 5]);
    assert_eq!(log.redact(&session("nobody"), "why", "who").unwrap().receipt, None);
}

#[test]
fn the_head_is_sealed_and_the_seal_fits_until_what_it_signs_is_another() {
    let place = place();
    let log = place.shared();
    let key = SealKey::new().unwrap();
    let (seal, receipt) = log.seal(&key).unwrap();
    assert_eq!((seal.position, receipt.position), (Position(5), Position(6)));
    // What is erased leaves the chain as it is.
    log.redact(&session("b"), "why", "who").unwrap();
    let reader = place.reader();
    assert_eq!(reader.seals().unwrap(), [Ok(seal.clone())]);
    assert_eq!(reader.check_seal(&seal, &[key.public()]).unwrap(), None);
    assert_verifies(&reader);
}
