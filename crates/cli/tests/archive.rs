//! `archive` copies closed sessions to another ledger and erases them here, and before that only says what would go.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use runledger_events::{Metadata, RunId, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent};
use support::{Room, run, run_with_input};

/// Noon of 2025-06-01, in milliseconds.
const JUNE: u64 = 1_748_779_200_000;

fn ingest(room: &Room, session: &str, at: u64) {
    let lines = (1..=5).map(|number| {
        format!(
            r#"{{"id":"{session}-{number}","timestamp":{},"kind":"user.prompt","sessionId":"a-{session}","data":{{"prompt":"{session} said {number}"}}}}"#,
            at + number
        )
    });
    let input = lines.collect::<Vec<_>>().join("\n");
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", session]), &input);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

fn room() -> Room {
    let room = Room::new();
    ingest(&room, "old", JUNE);
    ingest(&room, "older", JUNE - 1_000_000_000);
    ingest(&room, "new", JUNE + 31 * 86_400_000);
    room
}

#[test]
fn it_says_what_would_go_and_does_nothing_then_does_it_and_both_ledgers_verify() {
    let room = room();
    let to = room.path("archive.db").display().to_string();
    let archive = ["archive", "--before", "2025-06-15", "--to", &to];
    let before = room.ok(["export"]);
    // Given: it only says.
    let told = room.json(archive);
    let ids: Vec<&str> = told.iter().map(|one| one["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["older", "old"]);
    assert!(told.iter().all(|one| one["is_archived"] == false && one["events"] == 5));
    let ran = run(&mut room.command(archive));
    assert!(ran.stderr().contains("2 would go to") && ran.stdout().contains("would go"), "{ran:?}");
    assert!(!room.path("archive.db").exists());
    assert_eq!(room.ok(["export"]), before);

    // When
    let ran = run(&mut room.command(archive.iter().chain(&["--apply"])));
    assert_eq!(ran.code, Some(0), "{ran:?}");

    // Then: the words are there, and no longer here; rows, figures and what is new stay.
    room.verify();
    let here = room.ok(["export"]);
    assert!(!here.contains("old said") && here.contains("new said 5"), "{here}");
    assert_eq!(here.lines().count(), before.lines().count() + 1);
    let there = run(&mut room.command_on(&room.path("archive.db"), ["feed", "--session", "old"])).stdout();
    assert!(there.contains("old said 5"), "{there}");
    let verified = run(&mut room.command_on(&room.path("archive.db"), ["verify"]));
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let sessions = room.json(["sessions"]);
    assert!(sessions.iter().all(|session| session["events"] == 5), "{sessions:?}");
    let last = room.events().pop().unwrap();
    assert!(last["event"]["data"]["reason"].as_str().unwrap().starts_with("archived in log "), "{last}");

    // When it is done again, then nothing is left to do.
    let ran = run(&mut room.command(archive.iter().chain(&["--apply"])));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr().contains("has anything left to archive"), "{ran:?}");
    assert_eq!(room.events().len(), 16);
}

#[test]
fn a_session_with_a_run_that_may_go_on_stays() {
    let room = room();
    let started = r#"{"id":"w1","timestamp":5,"kind":"workflow.start","data":{"run_id":"r1","session_id":"older","harness":"command","max_iterations":3,"prompt":"go"}}"#;
    let run: RunId = "r1".parse().unwrap();
    let metadata = Metadata { session_id: "older".parse().ok(), run_id: Some(run.clone()), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(started).unwrap(), metadata).unwrap();
    room.log().append(&StreamName::run(&run), ExpectedVersion::NoStream, vec![event]).unwrap();
    let to = room.path("archive.db").display().to_string();
    let told = room.json(["archive", "--before", "2025-06-15", "--to", &to]);
    let ids: Vec<&str> = told.iter().map(|one| one["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["old"]);
}

#[test]
fn nothing_is_erased_where_the_copy_is_not_what_is_here_and_wrong_words_are_refused() {
    let room = room();
    let to = room.path("archive.db").display().to_string();
    // Given: another event stands in the archive under the id of one that would go.
    let other = r#"{"id":"old-3","timestamp":1,"kind":"user.prompt","data":{"prompt":"something else"}}"#;
    let ran = run_with_input(
        &mut room.command_on(&room.path("archive.db"), ["ingest", "--format", "runtime", "--session", "old"]),
        other,
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let before = room.ok(["export"]);
    let ran = run(&mut room.command(["archive", "--before", "2025-06-15", "--to", &to, "--apply"]));
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr().contains("old-3"), "{ran:?}");
    assert_eq!(room.ok(["export"]), before);
    let itself = room.ledger().display().to_string();
    for (day, to, words) in [("yesterday", &to, "this is no day"), ("2025-06-15", &itself, "this is the ledger itself")]
    {
        let ran = run(&mut room.command(["archive", "--before", day, "--to", to]));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr().contains(words), "{ran:?}");
    }
}

#[test]
fn the_ledger_under_another_name_is_no_archive() {
    let room = room();
    let before = room.ok(["export"]);
    room.sqlite().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let link = room.path("link.db");
    std::fs::hard_link(room.ledger(), &link).unwrap();
    let to = link.display().to_string();
    let ran = run(&mut room.command(["archive", "--before", "2025-06-15", "--to", &to, "--apply"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr().contains("this is the ledger itself"), "{ran:?}");
    assert_eq!(room.ok(["export"]), before);
}

#[test]
fn an_event_that_names_another_session_or_none_is_not_erased_with_a_session_that_is_copied() {
    let room = room();
    // Given: an event in the stream of the session that does not say that it is of it.
    let event = r#"{"id":"stray","timestamp":5,"kind":"user.prompt","data":{"prompt":"old said nothing"}}"#;
    let event = NewEvent::new(RuntimeEvent::from_json(event).unwrap(), Metadata::default()).unwrap();
    room.log().append(&StreamName::new("session/old").unwrap(), ExpectedVersion::Any, vec![event]).unwrap();
    let to = room.path("archive.db").display().to_string();
    let ran = run(&mut room.command(["archive", "--before", "2025-06-15", "--to", &to, "--apply"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // It is not in the archive, so it is still here.
    assert!(room.ok(["export"]).contains("old said nothing"));
    assert!(!room.ok(["export"]).contains("old said 3"));
}
