//! The file's schema: each step of it, the data that this release wrote, what is refused, and what the triggers hold.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use runledger_events::{CONTENT_DICTIONARY, Content, Metadata, Position};
use runledger_store::{
    AppendError, Erase, EventLog, ExpectedVersion, LogReader, OpenError, ReadError, SqliteLog, StorageError,
    new_event_from_exported,
};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use support::{
    Place, all, append_one, assert_dense, assert_verifies, belonging, json, prompt, prompt_with, sqlite, stream,
};

/// Tables, indexes and triggers as they were made, and the numbers in the file's header.
fn schema_of(connection: &Connection) -> String {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let mut text = format!("user_version {}\napplication_id {}\n", pragma("user_version"), pragma("application_id"));
    let mut statement = connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let column = |index| row.get::<_, Option<String>>(index).unwrap();
        write!(text, "\n-- {} {}\n", column(0).unwrap(), column(1).unwrap()).unwrap();
        writeln!(text, "{}", column(2).as_deref().unwrap_or("(made by SQLite)")).unwrap();
    }
    text
}

/// The numbered migrations, in order.
fn migrations() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/log");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_schema_after_each_step_is_as_it_was_shipped() {
    // Given
    let connection = Connection::open_in_memory().unwrap();
    let mut last = String::new();
    for (number, path) in (1..).zip(migrations()) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("{number:04}_")), "{name} is not number {number}");
        // When
        connection.execute_batch(&std::fs::read_to_string(&path).unwrap()).unwrap();
        connection.pragma_update(None, "user_version", number).unwrap();
        // Then
        last = schema_of(&connection);
        insta::assert_snapshot!(format!("schema_after_{name}"), last);
    }
    // And a new ledger has the schema of the last step.
    let place = Place::new();
    drop(place.log());
    assert_eq!(schema_of(&place.sqlite()), last);
    assert_eq!(place.reader().schema_version().unwrap(), i64::try_from(migrations().len()).unwrap());
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A small log with everything in it: sessions, a run, a decision, odd JSON, an unknown kind, and erased content.
///
/// Each line is an exported event, so that ids, times and salts are the same whenever it is made.
fn sample_lines() -> Vec<String> {
    let events = [
        (
            "session/s1",
            "session.start",
            r#"{"id":"req-1","timestamp":1761000000250,"kind":"session.start","sessionId":"a1","data":{"source":"startup","model":"model-large"}}"#,
        ),
        (
            "run/r1",
            "workflow.start",
            r#"{"id":"w-1","timestamp":1761000000300,"kind":"workflow.start","data":{"run_id":"r1","session_id":"s1","max_iterations":3,"owner":{"term":1,"log_id":"0199f000-0000-7000-8000-000000000001","host":"h","pid":7}}}"#,
        ),
        (
            "run/r1",
            "workflow.transition",
            r#"{"id":"w-2","timestamp":1761000000310,"kind":"workflow.transition","data":{"from":"starting","to":"running","status":"running"}}"#,
        ),
        (
            "session/s1",
            "user.prompt",
            r#"{"id":"req-2","timestamp":1761000000400,"kind":"user.prompt","sessionId":"a1","data":{"prompt":"secret"}}"#,
        ),
        (
            "session/s1",
            "permission.request",
            r#"{"id":"req-3","timestamp":1761000000500,"kind":"permission.request","sessionId":"a1","data":{"tool_name":"Bash","tool_use_id":"t1","tool_input":{"n":[1e400,-0,1.0,12345678901234567890123],"half":"\ud83d"}},"interaction":{"expectsDecision":true}}"#,
        ),
        (
            "session/s1",
            "decision",
            r#"{"eventId":"req-3","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}},"now":1761000000600}"#,
        ),
        (
            "session/s2",
            "x.not-yet-known",
            r#"{"id":"req-1","kind":"x.not-yet-known","timestamp":1761000000700,"b":1,"a":2,"b":3}"#,
        ),
        (
            "run/r1",
            "workflow.transition",
            r#"{"id":"w-3","timestamp":1761000000800,"kind":"workflow.transition","data":{"from":"running","to":"completing","status":"running"}}"#,
        ),
        (
            "run/r1",
            "workflow.end",
            r#"{"id":"w-4","timestamp":1761000000900,"kind":"workflow.end","data":{"status":"completed","iteration":0}}"#,
        ),
    ];
    events
        .iter()
        .zip(1_u64..)
        .map(|((stream, kind, event), n)| {
            let value: serde_json::Value = serde_json::from_str(&event.replace("1e400", "1").replace("\\ud83d", "")).unwrap();
            let id = value["id"].as_str().unwrap_or("dec-1").to_owned();
            let occurred_at = value["timestamp"].as_i64().or(value["now"].as_i64()).unwrap();
            let session = if *stream == "session/s2" { "s2" } else { "s1" };
            let run = if n > 1 && n < 7 || n > 7 { r#","run_id":"r1""# } else { "" };
            let adapter = if stream.starts_with("session/s1") { r#","adapter_session_id":"a1","correlation_id":"c1""# } else { "" };
            let cause = if *kind == "decision" { r#","causation_id":"req-3""# } else { "" };
            format!(
                r#"{{"position":{n},"stream":"{stream}","stream_version":1,"recorded_at":{},"id":"{id}","kind":"{kind}","occurred_at":{occurred_at},"session_id":"{session}"{run}{adapter}{cause},"event":{event},"salt":"{n:032x}"}}"#,
                occurred_at + 5,
            )
        })
        .collect()
}

/// Every row of every table as INSERT statements, then what the schema has, in an order that can be run again.
fn dump(connection: &Connection) -> String {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let mut text =
        "-- A log of schema version 1 as release 0.1 wrote it. Frozen: a later release has to read it.\n".to_owned();
    writeln!(text, "PRAGMA application_id = {};", pragma("application_id")).unwrap();
    writeln!(text, "PRAGMA user_version = {};", pragma("user_version")).unwrap();
    let objects = |of: &str| -> Vec<(String, String)> {
        connection
            .prepare(&format!("SELECT name, sql FROM sqlite_schema WHERE type {of} AND sql IS NOT NULL ORDER BY rowid"))
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap()
    };
    for (table, sql) in objects("= 'table'") {
        writeln!(text, "{sql};").unwrap();
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY rowid")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns).map(|index| literal(row.get_ref(index).unwrap())).collect();
            writeln!(text, "INSERT INTO {table} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    for (_, sql) in objects("<> 'table'") {
        writeln!(text, "{sql};").unwrap();
    }
    text
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Text(text) => format!("'{}'", std::str::from_utf8(text).unwrap().replace('\'', "''")),
        ValueRef::Blob(bytes) => {
            format!("x'{}'", bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
        }
        ValueRef::Real(_) => panic!("the log has no such column"),
    }
}

fn exported(reader: &LogReader) -> String {
    let mut lines = String::new();
    let take = |line: &str| -> Result<(), ReadError> {
        lines.push_str(line);
        lines.push('\n');
        Ok(())
    };
    reader.export(None, true, take).unwrap();
    lines
}

/// Gives a new, empty log an identity that does not depend on when it is made; its chain begins with it.
fn fix_identity(connection: &Connection) {
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'ledger_never_changed'";
    let trigger: String = connection.query_row(trigger, [], |row| row.get(0)).unwrap();
    connection.execute_batch("DROP TRIGGER ledger_never_changed").unwrap();
    let identity = "UPDATE ledger SET log_id = '0199f000-0000-7000-8000-000000000001', created_at = 1761000000000";
    connection.execute_batch(identity).unwrap();
    connection.execute_batch(&trigger).unwrap();
}

/// The committed fixture; made first, where it is missing and RUNLEDGER_WRITE_FIXTURE=1 asks for it.
fn frozen() -> (String, String) {
    let (sql, lines) = (fixture("log-v1.sql"), fixture("log-v1.export.jsonl"));
    if !sql.exists() && std::env::var_os("RUNLEDGER_WRITE_FIXTURE").is_some_and(|value| value == "1") {
        let place = Place::new();
        drop(place.log());
        fix_identity(&place.sqlite());
        let log = place.log();
        for line in sample_lines() {
            let (stream, _, event) = new_event_from_exported(&line).unwrap();
            log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap();
        }
        drop(log);
        place.sqlite().execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 4", []).unwrap();
        let text = dump(&place.sqlite());
        std::fs::write(&sql, text).unwrap();
        std::fs::write(&lines, exported(&place.reader())).unwrap();
    }
    (std::fs::read_to_string(sql).unwrap(), std::fs::read_to_string(lines).unwrap())
}

#[test]
fn a_log_that_release_0_1_wrote_opens_reads_and_verifies() {
    // Given
    let (sql, lines) = frozen();
    let place = Place::new();
    sqlite(&place.path()).execute_batch(&sql).unwrap();
    // When it is only read, it is left as it is
    let reader = place.reader();
    assert_eq!(reader.schema_version().unwrap(), 1);
    assert_eq!(exported(&reader), lines);
    assert_eq!(untold(&reader), [4], "erased by hand, as was the way then");
    assert_eq!(reader.run_of_adapter_session(&"a1".parse().unwrap()).unwrap(), None, "without its index too");
    drop(reader);
    assert_eq!(place.reader().schema_version().unwrap(), 1);
    // When it is opened for writing
    let log = place.log();
    assert_eq!(place.reader().schema_version().unwrap(), 4);
    // Then
    assert_eq!(log.log_id().as_str(), "0199f000-0000-7000-8000-000000000001");
    let reader = place.reader();
    assert_eq!(exported(&reader), lines, "every row was carried over");
    let events = all(&reader);
    assert_dense(&events);
    assert_eq!(events[3].content, Content::Erased);
    assert!(events[4].content.json().unwrap().contains(r#"[1e400,-0,1.0,12345678901234567890123],"half":"\ud83d""#));
    // And it goes on: what is there is known again, though it would be compressed today.
    for line in sample_lines() {
        let (stream, _, event) = new_event_from_exported(&line).unwrap();
        assert!(log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap()[0].is_duplicate, "{line}");
    }
    assert_eq!(append_one(&log, "session/s1", prompt("new", "x")).position, Position(10));
    assert_eq!(untold(&place.reader()), [4]);
    let told =
        log.redact(&Erase::Events(vec![Position(4)]), "erased by hand, before there was a word for it", "somebody");
    assert_eq!(told.map(|told| (told.events, told.untold)).unwrap(), (0, 1));
    let report = assert_verifies(&place.reader());
    assert_eq!((report.events, report.erased), (11, 1));
    assert_eq!(content_headers(&place.sqlite()), ["01000000", "02010100"]);
    assert!(has_the_dictionary(&place.sqlite()));
}

/// Where content is gone without a word; all else of the log is right.
fn untold(reader: &LogReader) -> Vec<u64> {
    let findings = reader.verify(|_| {}).unwrap().findings;
    assert!(findings.iter().all(|finding| finding.detail.contains("no event of this log tells")), "{findings:?}");
    findings.iter().filter_map(|finding| finding.position).map(|position| position.0).collect()
}

/// The headers that stand before contents.
fn content_headers(connection: &Connection) -> Vec<String> {
    connection
        .prepare("SELECT DISTINCT hex(substr(content, 1, 4)) FROM runtime_events WHERE content IS NOT NULL ORDER BY 1")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn has_the_dictionary(connection: &Connection) -> bool {
    let rows: Vec<(u16, Vec<u8>)> = connection
        .prepare("SELECT dictionary_id, bytes FROM dictionaries")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    rows == [(CONTENT_DICTIONARY.id, CONTENT_DICTIONARY.bytes.to_vec())]
}

#[test]
fn a_new_log_holds_the_dictionary_that_its_content_is_compressed_with() {
    let place = closed_ledger();
    assert!(has_the_dictionary(&place.sqlite()));
    assert_eq!(content_headers(&place.sqlite()), ["02010100"]);
    // A log of the version before has none, and is read and verified as it is.
    let connection = place.sqlite();
    connection.execute_batch("UPDATE runtime_events SET content = NULL, salt = NULL").unwrap();
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'dictionaries_never_deleted'";
    let trigger: String = connection.query_row(trigger, [], |row| row.get(0)).unwrap();
    connection.execute_batch("DROP TRIGGER dictionaries_never_deleted; DELETE FROM dictionaries").unwrap();
    connection.execute_batch(&format!("{trigger}; PRAGMA user_version = 3")).unwrap();
    assert_eq!(untold(&place.reader()), [1, 2, 3]);
    append_one(&place.log(), "session/a", prompt("e4", "x"));
    assert!(has_the_dictionary(&place.sqlite()));
    assert_eq!(untold(&place.reader()), [1, 2, 3]);
}

#[test]
fn an_export_makes_an_equal_log_of_it_but_for_the_identity() {
    // Given
    let (_, lines) = frozen();
    let place = Place::new();
    let log = place.log();
    // When
    for line in lines.lines() {
        let (stream, version, event) = new_event_from_exported(line).unwrap();
        let receipts = log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap();
        assert_eq!(receipts[0].stream_version, version);
    }
    // Then digests, salts and commitments are those of the first log; the fourth came without its content, as the fifth tells.
    let copied = exported(&place.reader());
    let (fifth, copied): (Vec<_>, Vec<_>) = copied.lines().partition(|line| line.starts_with(r#"{"position":5,"#));
    assert!(fifth[0].contains("ledger/arrivals") && fifth[0].contains("[[4,4]]"), "{fifth:?}");
    let without_position = |line: &str| line.split_once(',').map(|(_, rest)| rest.to_owned());
    let copied: Vec<_> = copied.into_iter().map(without_position).collect();
    assert_eq!(copied, lines.lines().map(without_position).collect::<Vec<_>>());
    assert_verifies(&place.reader());
}

/// A ledger with a few events, closed, in one file.
fn closed_ledger() -> Place {
    let place = Place::new();
    let log = place.log();
    append_one(&log, "session/a", prompt_with("e1", "x", belonging(Some("a"), Some("r"))));
    append_one(&log, "session/a", prompt("e2", "y"));
    append_one(&log, "run/r", prompt("e3", "z"));
    drop(log);
    place.sqlite().pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    place
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Opens for writing and for reading, and asserts that the file stayed as it was.
fn refused(place: &Place) -> [OpenError; 2] {
    let (bytes, before) = (std::fs::read(place.path()).unwrap(), files(place.folder()));
    let errors = [SqliteLog::open(place.path()).unwrap_err(), LogReader::open(place.path()).unwrap_err()];
    assert_eq!(std::fs::read(place.path()).unwrap(), bytes, "the file was written to");
    // A look into a file in WAL mode makes SQLite's own two files beside it; nothing stands in them.
    for name in files(place.folder()).into_iter().filter(|name| !before.contains(name)) {
        let path = place.folder().join(&name);
        assert!(name == "ledger.db-shm" || name == "ledger.db-wal", "{name} was left beside it");
        assert!(name.ends_with("-shm") || std::fs::metadata(path).unwrap().len() == 0, "{name} was written to");
    }
    errors
}

#[test]
fn a_newer_schema_is_refused_by_its_own_error_and_the_file_is_not_touched() {
    let place = closed_ledger();
    let newer = i64::try_from(migrations().len()).unwrap() + 1;
    place.sqlite().pragma_update(None, "user_version", newer).unwrap();
    for error in refused(&place) {
        assert!(
            matches!(error, OpenError::Newer { found, newest, .. } if found == newer && newest == newer - 1),
            "{error}"
        );
        assert!(error.to_string().ends_with("upgrade it"), "{error}");
    }
}

#[test]
fn a_newer_schema_that_stands_in_the_wal_alone_is_refused_too() {
    // Given a newer program that is at work on the file
    let place = closed_ledger();
    let newer = i64::try_from(migrations().len()).unwrap() + 1;
    let at_work = place.sqlite();
    at_work.pragma_update(None, "user_version", newer).unwrap();
    let wal = std::fs::read(place.folder().join("ledger.db-wal")).unwrap();
    assert!(!wal.is_empty());
    // When, then
    for error in refused(&place) {
        assert!(matches!(error, OpenError::Newer { found, .. } if found == newer), "{error}");
    }
    assert_eq!(std::fs::read(place.folder().join("ledger.db-wal")).unwrap(), wal, "its WAL was written to");
    drop(at_work);
}

#[test]
fn another_programs_database_is_refused_and_not_touched() {
    for (application_id, has_table) in [(0, true), (0x1234_5678, true), (0x1234_5678, false)] {
        let place = Place::new();
        let connection = place.sqlite();
        connection.pragma_update(None, "application_id", application_id).unwrap();
        if has_table {
            connection.execute_batch("CREATE TABLE runtime_events (x)").unwrap();
        }
        drop(connection);
        for error in refused(&place) {
            assert!(
                matches!(error, OpenError::Foreign { application_id: found, .. } if found == application_id),
                "{error}"
            );
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_not_touched() {
    for text in ["one line\n".to_owned(), "a longer text\n".repeat(1000)] {
        let place = Place::new();
        std::fs::write(place.path(), &text).unwrap();
        for error in refused(&place) {
            assert!(matches!(error, OpenError::NoDatabase { .. }), "{error}");
        }
    }
}

#[test]
fn a_reader_of_a_missing_file_says_so_and_makes_nothing() {
    let place = Place::new();
    let path = place.folder().join("deeper").join("ledger.db");
    for path in [&place.path(), &path] {
        assert!(matches!(LogReader::open(path).unwrap_err(), OpenError::Missing { .. }));
    }
    assert_eq!(files(place.folder()), [""; 0]);
    // An empty file is no ledger yet, and stays one.
    std::fs::write(place.path(), "").unwrap();
    assert!(matches!(LogReader::open(place.path()).unwrap_err(), OpenError::Missing { .. }));
    assert_eq!(std::fs::metadata(place.path()).unwrap().len(), 0);
    assert_eq!(append_one(&place.log(), "session/a", prompt("e1", "x")).position, Position(1));
}

#[cfg(unix)]
#[test]
fn a_new_ledger_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let path = place.folder().join("state").join("runledger").join("ledger.db");
    let log = SqliteLog::open(&path).unwrap();
    append_one(&log, "session/a", prompt("e1", "x"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    let names = files(path.parent().unwrap());
    assert!(names.contains(&"ledger.db".to_owned()) && names.len() > 1, "{names:?}");
    for name in names {
        assert_eq!(mode(&path.parent().unwrap().join(&name)), 0o600, "{name}");
    }
}

#[test]
fn a_short_lived_writer_leaves_the_wal_as_it_is() {
    let place = Place::new();
    append_one(&place.log(), "session/a", prompt("e1", "x"));
    let wal = place.folder().join("ledger.db-wal");
    assert!(std::fs::metadata(&wal).unwrap().len() > 0, "the WAL was checkpointed and deleted on close");
    assert_eq!(all(&place.reader()).len(), 1);
}

#[test]
fn the_log_runs_in_wal_mode() {
    let place = closed_ledger();
    let mode: String = place.sqlite().pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

/// Runs a statement that a trigger has to refuse, and asserts that nothing changed.
fn assert_refused(connection: &Connection, sql: &str) {
    let before = dump(connection);
    match connection.execute_batch(sql) {
        Ok(()) => panic!("taken: {sql}"),
        Err(error) => assert!(error.to_string().contains("runledger: "), "{sql}: {error}"),
    }
    assert!(dump(connection) == before, "{sql} changed something");
}

#[test]
fn an_event_is_never_deleted_nor_changed_in_any_column() {
    // Given
    let place = closed_ledger();
    let connection = place.sqlite();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    // When, then
    assert_refused(&connection, "DELETE FROM runtime_events");
    assert_refused(&connection, "DELETE FROM runtime_events WHERE position = 3");
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info('runtime_events')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(columns.len(), 18);
    for column in &columns {
        let other = match column.as_str() {
            "position" | "stream_key" | "stream_version" | "session_key" | "run_key" | "occurred_at"
            | "recorded_at" => "77",
            "facts" | "digest" | "chain" | "commitment" | "salt" | "content" => "x'00112233'",
            _ => "'other'",
        };
        assert_refused(&connection, &format!("UPDATE runtime_events SET {column} = {other} WHERE position = 1"));
        assert_refused(
            &connection,
            &format!("UPDATE OR REPLACE runtime_events SET {column} = {other} WHERE position = 3"),
        );
        // Not even while the content is erased.
        if column != "salt" && column != "content" {
            let sql =
                format!("UPDATE runtime_events SET content = NULL, salt = NULL, {column} = {other} WHERE position = 1");
            assert_refused(&connection, &sql);
        }
    }
    for column in ["session_key", "run_key", "adapter_session_id"] {
        assert_refused(&connection, &format!("UPDATE runtime_events SET {column} = NULL WHERE position = 1"));
    }
}

#[test]
fn content_is_erased_together_with_its_salt_and_never_put_back() {
    let place = closed_ledger();
    let connection = place.sqlite();
    assert_refused(&connection, "UPDATE runtime_events SET content = NULL WHERE position = 1");
    assert_refused(&connection, "UPDATE runtime_events SET salt = NULL WHERE position = 1");
    connection.execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 1", []).unwrap();
    connection.execute("UPDATE runtime_events SET content = NULL, salt = NULL", []).unwrap();
    assert_refused(
        &connection,
        "UPDATE runtime_events SET content = x'01000000027b7d', salt = x'00' WHERE position = 1",
    );
    let report = place.verify();
    assert_eq!((report.events, report.erased, untold(&place.reader())), (3, 3, vec![1, 2, 3]));
}

#[test]
fn an_event_is_inserted_at_the_head_alone_and_replaces_no_other() {
    let place = closed_ledger();
    let connection = place.sqlite();
    let columns = "stream_key, event_id, kind, occurred_at, recorded_at, facts, digest, chain, commitment";
    let copy = |verb: &str, position: i64, version: i64, id: &str, from: i64| {
        format!(
            "{verb} INTO runtime_events (position, stream_version, {columns}) SELECT {position}, {version}, stream_key, {id}, \
             kind, 0, 0, facts, digest, chain, commitment FROM runtime_events WHERE position = {from}"
        )
    };
    for verb in ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"] {
        // In place of another, by each of the three keys.
        assert_refused(&connection, &copy(verb, 1, 3, "'new'", 1));
        assert_refused(&connection, &copy(verb, 4, 1, "'new'", 1));
        assert_refused(&connection, &copy(verb, 4, 3, "event_id", 1));
        // Behind a gap, or before the first.
        assert_refused(&connection, &copy(verb, 5, 3, "'new'", 1));
        assert_refused(&connection, &copy(verb, 0, 3, "'new'", 1));
        assert_refused(&connection, &copy(verb, -1, 3, "'new'", 1));
        assert_refused(&connection, &copy(verb, 4, 4, "'new'", 1));
        assert_refused(&connection, &copy(verb, 4, 0, "'new'", 1));
    }
    connection.execute_batch(&copy("INSERT", 4, 3, "'new'", 1)).unwrap();
}

#[test]
fn streams_keep_their_names_and_never_shrink_or_go() {
    let place = closed_ledger();
    let connection = place.sqlite();
    for sql in [
        "DELETE FROM streams",
        "UPDATE streams SET name = 'session/other' WHERE name = 'session/a'",
        "UPDATE streams SET stream_key = 99 WHERE name = 'session/a'",
        "UPDATE streams SET version = version - 1 WHERE name = 'session/a'",
    ] {
        assert_refused(&connection, sql);
    }
    connection.execute("UPDATE streams SET version = version WHERE name = 'session/a'", []).unwrap();
}

#[test]
fn the_logs_identity_and_its_dictionaries_never_change() {
    let place = closed_ledger();
    let connection = place.sqlite();
    for sql in [
        "DELETE FROM ledger",
        "UPDATE ledger SET log_id = 'other'",
        "UPDATE ledger SET created_at = 0",
        "DELETE FROM dictionaries",
        "UPDATE dictionaries SET bytes = x'01'",
    ] {
        assert_refused(&connection, sql);
    }
    assert!(connection.execute("INSERT INTO ledger VALUES (2, 'other', 0)", []).is_err(), "a second identity");
}

#[test]
fn a_replacing_insert_does_not_get_past_the_triggers_of_the_small_tables() {
    // REPLACE deletes the row in its way without firing a delete trigger.
    let place = closed_ledger();
    let connection = place.sqlite();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    for sql in [
        "INSERT OR REPLACE INTO ledger VALUES (1, 'other', 0)",
        "REPLACE INTO streams VALUES (1, 'session/other', 0)",
        "REPLACE INTO streams SELECT 99, name, 0 FROM streams WHERE name = 'session/a'",
        "REPLACE INTO dictionaries VALUES (1, 0, x'01')",
    ] {
        assert_refused(&connection, sql);
    }
}

#[test]
fn many_openers_at_once_make_one_log() {
    // Given
    let place = Place::new();
    // When
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let path = place.path();
                scope.spawn(move || {
                    let log = SqliteLog::open(path).unwrap();
                    append_one(
                        &log,
                        "session/a",
                        json(&format!(r#"{{"id":"{n}","kind":"setup"}}"#), Metadata::default()),
                    );
                    log.log_id().to_string()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Then
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let events = all(&place.reader());
    assert_eq!(events.len(), 8);
    assert_dense(&events);
    assert_verifies(&place.reader());
}

#[test]
fn who_has_the_ledger_open_when_a_newer_program_takes_it_over_writes_nothing_more() {
    // Given
    let place = Place::new();
    let log = place.log();
    append_one(&log, "session/a", prompt("e1", "x"));
    // When
    place.sqlite().pragma_update(None, "user_version", 99).unwrap();
    for id in ["e2", "e3"] {
        let error = log.append(&stream("session/a"), ExpectedVersion::Any, vec![prompt(id, "x")]).unwrap_err();
        // Then it says what is newer, each time,
        assert!(matches!(error, AppendError::Storage(StorageError::Newer { found: 99, .. })), "{error}");
    }
    // and nothing was written.
    let events: i64 = place.sqlite().query_row("SELECT count(*) FROM runtime_events", [], |row| row.get(0)).unwrap();
    assert_eq!(events, 1);
}
