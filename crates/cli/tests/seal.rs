//! Seals: a log that was cut or written anew, every digest computed again, does not fit a seal that was made before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use runledger_events::{Metadata, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, LogReader, NewEvent, SqliteLog};
use support::{Ran, Room, run, run_with_input};

fn ingest(room: &Room, numbers: std::ops::RangeInclusive<u64>) {
    let lines: Vec<String> = numbers
        .map(|number| {
            format!(
                r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"say {number}"}}}}"#
            )
        })
        .collect();
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), lines.join("\n"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// A ledger of seven events, a key, and a seal that somebody keeps elsewhere.
struct Sealed {
    room: Room,
    seals: PathBuf,
    key: String,
}

fn sealed() -> Sealed {
    let room = Room::new();
    ingest(&room, 1..=7);
    let key = room.path("keys/seal.key").display().to_string();
    let made = room.json(["seal", "--init", "--key", &key]);
    let public = made[0]["public_key"].as_str().unwrap().to_owned();
    let line = room.ok(["seal", "--key", &key, "--json"]);
    let seals = room.write("elsewhere/seals.jsonl", line);
    Sealed { room, seals, key: public }
}

impl Sealed {
    fn verify(&self, more: &[&str]) -> Ran {
        let seals = self.seals.to_str().unwrap();
        run(&mut self.room.command(["verify", "--seals", seals, "--key", self.key.as_str()].iter().chain(more)))
    }

    /// Puts another log in the ledger's place, with digests and chain of its own, under the same UUID.
    fn forge(&self) {
        let ledger = self.room.ledger();
        let log_id = LogReader::open(&ledger).unwrap().log_id().to_string();
        let forged = ledger.with_file_name("forged.db");
        drop(SqliteLog::open(&forged).unwrap());
        let sqlite = rusqlite::Connection::open(&forged).unwrap();
        sqlite.execute_batch("DROP TRIGGER ledger_never_changed").unwrap();
        sqlite.execute("UPDATE ledger SET log_id = ?1", [&log_id]).unwrap();
        let (_, trigger) = triggers().into_iter().find(|(name, _)| name == "ledger_never_changed").unwrap();
        sqlite.execute_batch(&trigger).unwrap();
        drop(sqlite);
        let log = SqliteLog::open(&forged).unwrap();
        for number in 1..=9 {
            let json = format!(
                r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"deny {number}"}}}}"#
            );
            let event = NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap();
            log.append(&StreamName::new("session/s1").unwrap(), ExpectedVersion::Any, vec![event]).unwrap();
        }
        drop(log);
        let sqlite = rusqlite::Connection::open(&forged).unwrap();
        sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(sqlite);
        replace(&forged, &ledger);
    }
}

fn replace(forged: &Path, ledger: &Path) {
    for suffix in ["-wal", "-shm", ".projections", ".projections-wal", ".projections-shm"] {
        let mut path = ledger.as_os_str().to_owned();
        path.push(suffix);
        let _ = std::fs::remove_file(path);
    }
    std::fs::rename(forged, ledger).unwrap();
}

#[test]
fn a_log_that_only_grew_fits_its_seals() {
    let sealed = sealed();
    ingest(&sealed.room, 8..=20);
    let ran = sealed.verify(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = ran.stdout();
    assert!(told.contains("seals held") && told.contains("1 fit, the last one of position 7"), "{told}");
    assert!(told.contains("log seals"), "{told}");
    // What was erased since is no change of what was signed.
    sealed.room.ok(["redact", "--session", "s1", "--reason", "asked for"]);
    assert_eq!(sealed.verify(&["--since", "3"]).code, Some(0));
    sealed.room.verify();
}

#[test]
fn a_tail_that_was_cut_with_all_that_tells_of_it_is_found() {
    let sealed = sealed();
    // Given: the last rows are gone, and so is what the table of streams says of them.
    let sqlite = sealed.room.sqlite();
    sqlite
        .execute_batch(
            "DROP TRIGGER runtime_events_never_deleted; DROP TRIGGER streams_only_grow; DROP TRIGGER streams_never_deleted;
             DELETE FROM runtime_events WHERE position > 5;
             DELETE FROM streams WHERE name = 'ledger/seals';
             UPDATE streams SET version = 5 WHERE name = 'session/s1'",
        )
        .unwrap();
    for (name, sql) in triggers() {
        if ["runtime_events_never_deleted", "streams_only_grow", "streams_never_deleted"].contains(&name.as_str()) {
            sqlite.execute_batch(&sql).unwrap();
        }
    }
    drop(sqlite);
    // The log by itself shows nothing of it.
    let alone = run(&mut sealed.room.command(["verify"]));
    assert_eq!(alone.code, Some(0), "{alone:?}");
    // When, then
    let ran = sealed.verify(&[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let words = "seal of position 7: what was signed up to here is gone: the log ends at 5";
    assert!(ran.stdout().contains(words), "{ran:?}");
}

/// The triggers of a new ledger, by name.
fn triggers() -> Vec<(String, String)> {
    let room = Room::new();
    ingest(&room, 1..=1);
    let sqlite = room.sqlite();
    let mut statement = sqlite.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_log_that_was_written_anew_is_found_though_its_digests_fit() {
    let sealed = sealed();
    sealed.forge();
    let alone = run(&mut sealed.room.command(["verify"]));
    assert_eq!(alone.code, Some(0), "by itself it is a whole log: {alone:?}");
    let ran = sealed.verify(&[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout().contains("seal of position 7: what stands up to here is not what was signed"), "{ran:?}");
}

#[test]
fn a_seal_in_the_log_itself_does_not_fit_what_was_changed_before_it() {
    let sealed = sealed();
    // Given: one row changed, and every chain behind it computed anew, but for what only the key could sign.
    let sqlite = sealed.room.sqlite();
    sqlite.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
    sqlite.execute("UPDATE runtime_events SET chain = zeroblob(32) WHERE position = 7", []).unwrap();
    drop(sqlite);
    let ran = run(&mut sealed.room.command(["verify", "--json"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let seals = ran.json().into_iter().find(|check| check["check"] == "log seals").unwrap();
    assert_eq!(seals["ok"], false);
    assert_eq!(seals["detail"], "seal of position 7: what stands up to here is not what was signed");
}

#[test]
fn a_seal_of_another_key_and_one_that_was_changed_are_refused() {
    let sealed = sealed();
    let other = sealed.room.path("keys/other.key").display().to_string();
    let other = sealed.room.json(["seal", "--init", "--key", &other])[0]["public_key"].to_string();
    let seals = sealed.seals.to_str().unwrap();
    let ran = run(&mut sealed.room.command(["verify", "--seals", seals, "--key", other.trim_matches('"')]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout().contains("it is signed by another key"), "{ran:?}");
    assert_eq!(
        sealed.verify(&["--key", other.trim_matches('"')]).code,
        Some(0),
        "either of two keys, as where one was changed"
    );
    let line = std::fs::read_to_string(&sealed.seals).unwrap().replace("\"position\":7", "\"position\":6");
    std::fs::write(&sealed.seals, line).unwrap();
    let ran = sealed.verify(&[]);
    assert!(ran.code == Some(1) && ran.stdout().contains("its signature does not fit"), "{ran:?}");
}

#[test]
fn keys_are_made_once_and_what_is_no_key_or_no_seal_is_said() {
    let sealed = sealed();
    let key = sealed.room.path("keys/seal.key").display().to_string();
    let ran = run(&mut sealed.room.command(["seal", "--init", "--key", &key]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr().contains("there is a key already"), "{ran:?}");
    assert_eq!(sealed.room.ok(["seal", "--public-key", "--key", &key]).trim(), sealed.key);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let nonsense = sealed.room.write("nonsense", "what\n").display().to_string();
    let missing = sealed.room.path("missing").display().to_string();
    for (arguments, code, words) in [
        (&["seal", "--key", &nonsense][..], 3, "this is no key"),
        (&["seal", "--key", &missing], 3, "`runledger seal --init` makes one"),
        (&["verify", "--seals", &nonsense], 2, "line 1: this is no seal"),
        (&["verify", "--seals", &missing], 3, "the seals cannot be read"),
        (&["verify", "--key", "zz"], 2, "this is no key"),
    ] {
        let ran = run(&mut sealed.room.command(arguments));
        assert_eq!(ran.code, Some(code), "{arguments:?} {ran:?}");
        assert!(ran.stderr().contains(words), "{arguments:?} {ran:?}");
    }
}

#[test]
fn with_a_key_a_log_without_seals_is_not_taken_for_one_that_fits() {
    let room = Room::new();
    ingest(&room, 1..=3);
    let key = room.path("seal.key").display().to_string();
    let public = room.json(["seal", "--init", "--key", &key])[0]["public_key"].as_str().unwrap().to_owned();
    let ran = run(&mut room.command(["verify", "--key", &public]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout().contains("there is none: what was sealed may be gone with its seal"), "{ran:?}");
    // A position that no log can have is no reason to end.
    room.ok(["seal", "--key", &key]);
    let line =
        room.ok(["seal", "--key", &key, "--json"]).replace("\"position\":4", "\"position\":18446744073709551615");
    let seals = room.write("seals.jsonl", line).display().to_string();
    let ran = run(&mut room.command(["verify", "--seals", &seals]));
    assert!(ran.code == Some(1) && ran.stdout().contains("its signature does not fit"), "{ran:?}");
}
