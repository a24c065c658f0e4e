//! `doctor` looks at everything, says what is wrong, and what to do about it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use support::{Room, run, run_with_input};

fn room() -> Room {
    let room = Room::new();
    let lines = (1..=5).map(|number| {
        format!(r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"say {number}"}}}}"#)
    });
    let input = lines.collect::<Vec<_>>().join("\n");
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), &input);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    room
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn findings(room: &Room, code: i32) -> Vec<Value> {
    let ran = run(&mut room.command(["doctor", "--json"]));
    assert_eq!(ran.code, Some(code), "{ran:?}");
    ran.json()
}

fn of<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[test]
fn a_sealed_ledger_of_ones_own_needs_nothing() {
    let room = room();
    mode(room.ledger().parent().unwrap(), 0o700);
    let key = room.path("seal.key").display().to_string();
    room.ok(["seal", "--init", "--key", &key]);
    room.ok(["seal", "--key", &key]);
    let findings = findings(&room, 0);
    let not_ok: Vec<&Value> = findings.iter().filter(|finding| finding["state"] != "ok").collect();
    assert!(not_ok.is_empty(), "{not_ok:?}");
    for check in
        ["file modes", "file system", "room on the disk", "spool", "log chain", "projection feed_events", "runs"]
    {
        of(&findings, check);
    }
}

#[test]
fn what_should_be_done_is_said_and_is_no_failure() {
    let room = room();
    mode(room.ledger().parent().unwrap(), 0o700);
    mode(&room.ledger(), 0o644);
    let findings = findings(&room, 0);
    let modes = of(&findings, "file modes");
    assert_eq!(modes["state"], "advice");
    assert_eq!(modes["advice"], format!("chmod 0600 '{}'", room.ledger().display()));
    assert_eq!(of(&findings, "log seals")["state"], "advice");
    let status = room.json(["status"]).remove(0);
    assert_eq!(status["loose_modes"][0]["mode"], "0644");
    assert!(room.ok(["status"]).contains("ledger.db has 0644, others may look into it; 0600 would do"));
}

#[test]
fn what_is_wrong_is_said_with_what_to_do_next() {
    let room = room();
    room.ok(["feed", "--session", "s1"]);
    let sqlite = room.sqlite();
    sqlite.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
    sqlite.execute("UPDATE runtime_events SET facts = x'63000000' WHERE position = 4", []).unwrap();
    drop(sqlite);
    let ran = run(&mut room.command(["doctor"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = ran.stdout();
    for words in ["WRONG   log digests", "position 4: event e4", "WRONG   log schema", "→ keep a copy of the ledger"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    let empty = Room::new();
    assert_eq!(run(&mut empty.command(["doctor"])).code, Some(3));
    assert!(empty.has_no_ledger());
}

#[test]
fn read_models_that_have_seen_what_is_gone_stay_the_witness_of_it() {
    let room = room();
    room.ok(["feed", "--session", "s1"]);
    let sqlite = room.sqlite();
    sqlite
        .execute_batch(
            "DROP TRIGGER runtime_events_never_deleted; DROP TRIGGER streams_only_grow;
             DELETE FROM runtime_events WHERE position > 3; UPDATE streams SET version = 3 WHERE name = 'session/s1'",
        )
        .unwrap();
    drop(sqlite);
    for _ in 0..2 {
        let ran = run(&mut room.command(["doctor"]));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stdout().contains("has seen events up to position 5"), "{ran:?}");
        assert!(ran.stdout().contains("keep a copy of the ledger and its read models as they are"), "{ran:?}");
    }
}
