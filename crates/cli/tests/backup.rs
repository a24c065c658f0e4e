//! `backup` makes a ledger of its own, checked where that is asked, and says why it cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Room, run, run_with_input, text};

fn room_with_events() -> Room {
    let room = Room::new();
    let lines = (1..=7).map(|number| {
        format!(r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"say {number}"}}}}"#)
    });
    let input = lines.collect::<Vec<_>>().join("\n");
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), &input);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    room
}

#[test]
fn a_copy_is_checked_and_answers_as_the_ledger_does() {
    let room = room_with_events();
    let file = room.ledger().with_file_name("copy.db");
    let name = file.to_str().unwrap();
    let ran = run(&mut room.command(["backup", name, "--verify", "--json"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = ran.json().pop().unwrap();
    assert_eq!((told["position"].as_u64(), told["verified"].as_bool()), (Some(7), Some(true)), "{told}");
    assert_eq!((text(&told, "/file"), told["findings"].as_array().map(Vec::len)), (name, Some(0)));
    assert_eq!(told["bytes"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    for question in [&["export"][..], &["sessions", "--json"], &["feed", "--session", "s1", "--json"]] {
        let of_ledger = run(&mut room.command(question.iter().copied()));
        let of_copy = run(&mut room.command_on(&file, question.iter().copied()));
        assert_eq!((of_copy.code, of_copy.stdout()), (Some(0), of_ledger.stdout()));
    }
    let again = run(&mut room.command(["backup", name]));
    assert_eq!(again.code, Some(3), "{again:?}");
    assert!(again.stderr().contains("copy.db: there is something already; name a new file"), "{again:?}");
}

#[test]
fn a_person_reads_what_was_copied_and_what_is_wrong_with_it() {
    let room = room_with_events();
    let sqlite = rusqlite::Connection::open(room.ledger()).unwrap();
    sqlite
        .execute_batch(
            "DROP TRIGGER runtime_events_only_erased; UPDATE runtime_events SET kind = 'x' WHERE position = 3",
        )
        .unwrap();
    drop(sqlite);
    let file = room.ledger().with_file_name("copy.db");
    let ran = run(&mut room.command(["backup", file.to_str().unwrap(), "--verify"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = ran.stdout();
    assert!(told.contains("copy.db: the log up to position 7, "), "{told}");
    assert!(told.contains("WRONG  log digests") && told.contains("position 3: event e3"), "{told}");
    assert!(told.contains("WRONG  log schema"), "{told}");
}

#[test]
fn without_a_ledger_or_a_folder_nothing_is_made() {
    let room = Room::new();
    let file = room.ledger().with_file_name("copy.db");
    let ran = run(&mut room.command(["backup", file.to_str().unwrap()]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(!file.exists());
    let room = room_with_events();
    let ran = run(&mut room.command(["backup", "no/such/folder/copy.db"]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr().contains("the backup cannot be written"), "{ran:?}");
}
