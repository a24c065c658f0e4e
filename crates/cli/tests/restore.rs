//! `restore` puts a backup in a ledger's place, and never where an event would be lost by it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::PathBuf;

use support::{Room, run, run_with_input};

fn ingest(room: &Room, numbers: std::ops::RangeInclusive<u64>) {
    let lines = numbers.map(|number| {
        format!(r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"say {number}"}}}}"#)
    });
    let input = lines.collect::<Vec<_>>().join("\n");
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), &input);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

fn backup(room: &Room, name: &str) -> PathBuf {
    let file = room.ledger().with_file_name(name);
    room.ok(["backup", file.to_str().unwrap()]);
    file
}

fn remove_ledger(room: &Room) {
    for suffix in
        ["", "-wal", "-shm", ".projections", ".projections-wal", ".projections-shm", ".projections.rebuild-lock"]
    {
        let mut path = room.ledger().into_os_string();
        path.push(suffix);
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_lost_ledger_comes_back_as_it_was_and_goes_on() {
    let room = Room::new();
    ingest(&room, 1..=5);
    let (export, file) = (room.ok(["export"]), backup(&room, "b.db"));
    remove_ledger(&room);
    let told = room.json(["restore", file.to_str().unwrap()]).remove(0);
    assert_eq!((told["before"].as_u64(), told["position"].as_u64()), (None, Some(5)));
    assert_eq!(room.ok(["export"]), export);
    ingest(&room, 6..=7);
    assert_eq!(room.events().len(), 7);
    room.verify();
}

#[test]
fn a_ledger_that_the_backup_has_all_of_is_brought_up_to_it_beside_others_that_have_it_open() {
    let room = Room::new();
    ingest(&room, 1..=3);
    let old = backup(&room, "old.db");
    ingest(&room, 4..=9);
    let new = backup(&room, "new.db");
    let export = room.ok(["export"]);
    remove_ledger(&room);
    room.ok(["restore", old.to_str().unwrap()]);
    room.ok(["feed", "--session", "s1"]);
    let reader = room.reader();
    assert_eq!(reader.head().unwrap().position.0, 3);
    let ran = run(&mut room.command(["restore", new.to_str().unwrap()]));
    assert!(ran.code == Some(0) && ran.stdout().contains("up to position 9, which ended at 3 before"), "{ran:?}");
    assert_eq!(reader.head().unwrap().position.0, 9);
    assert_eq!(room.ok(["export"]), export);
    assert!(room.ok(["feed", "--session", "s1"]).contains("say 9"));
    room.verify();
    // Once more changes nothing.
    let ran = run(&mut room.command(["restore", new.to_str().unwrap()]));
    assert!(ran.code == Some(0) && ran.stdout().contains("has all of the backup"), "{ran:?}");
}

#[test]
fn what_would_lose_events_is_refused_and_nothing_changes() {
    let room = Room::new();
    ingest(&room, 1..=3);
    let old = backup(&room, "old.db");
    ingest(&room, 4..=4);
    let export = room.ok(["export"]);
    let refuses = |file: &PathBuf, code: i32, words: &str| {
        let ran = run(&mut room.command(["restore", file.to_str().unwrap()]));
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr().contains(words) || ran.stdout().contains(words), "{ran:?}");
        assert_eq!(room.ok(["export"]), export);
    };
    refuses(&old, 1, "the log there goes on to position 4, the backup ends at 3: what is newer would be lost");
    // One that went on in another way.
    let apart = Room::new();
    let copy = apart.ledger();
    std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
    std::fs::copy(&old, &copy).unwrap();
    ingest(&apart, 14..=16);
    refuses(&backup(&apart, "apart.db"), 1, "is not what the backup has up to there");
    // Another log, a damaged backup, and none.
    let other = Room::new();
    ingest(&other, 1..=9);
    refuses(&backup(&other, "other.db"), 1, "this is another log");
    let sqlite = rusqlite::Connection::open(&old).unwrap();
    sqlite
        .execute_batch(
            "DROP TRIGGER runtime_events_only_erased; UPDATE runtime_events SET kind = 'x' WHERE position = 2",
        )
        .unwrap();
    drop(sqlite);
    refuses(&old, 1, "position 2: event e2");
    refuses(&room.path("none.db"), 3, "there is no ledger");
}

#[test]
fn beside_a_write_ahead_log_over_an_empty_file_and_through_a_link_to_nowhere_nothing_is_restored() {
    let room = Room::new();
    ingest(&room, 1..=3);
    let file = backup(&room, "b.db").display().to_string();
    ingest(&room, 4..=6);
    // The ledger is gone, its last events are not.
    std::fs::remove_file(room.ledger()).unwrap();
    let ran = run(&mut room.command(["restore", &file]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr().contains("-wal is there, with events"), "{ran:?}");
    assert!(!room.ledger().exists());

    remove_ledger(&room);
    std::fs::write(room.ledger(), "").unwrap();
    let ran = run(&mut room.command(["restore", &file]));
    assert!(ran.code == Some(1) && ran.stderr().contains("this is an empty file"), "{ran:?}");
    std::fs::remove_file(room.ledger()).unwrap();

    let away = room.path("away/ledger.db");
    std::os::unix::fs::symlink(&away, room.ledger()).unwrap();
    let ran = run(&mut room.command(["restore", &file]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(std::fs::symlink_metadata(room.ledger()).unwrap().is_symlink());
}
