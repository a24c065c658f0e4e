//! `verify`: a clean log passes, and each way of tampering with a copy is found, at its position.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeSet;

use runledger_events::{Digest, Metadata, Position, chain, event_digest};
use runledger_store::{Erase, EventLog, ExpectedVersion, LogReport, StreamAppend};
use support::{Place, all, append_one, assert_verifies, belonging, id, json, prompt_with, stream};

/// Ten events in three streams, closed into one file:
///
/// ```text
/// position  1 2 3 4 5 6 7 8 9 10
/// stream    a a r a b r a b r a
/// version   1 2 1 3 1 2 4 2 3 5
/// ```
fn ledger() -> Place {
    let place = Place::new();
    let log = place.log();
    for (index, name) in ["a", "a", "r", "a", "b", "r", "a", "b", "r", "a"].iter().enumerate() {
        let mut metadata = match *name {
            "r" => belonging(Some("a"), Some("r")),
            session => belonging(Some(session), None),
        };
        if index > 0 {
            metadata.causation_id = Some(id(&format!("e{index}")));
            metadata.correlation_id = Some("c".to_owned());
        }
        let name = if *name == "r" { "run/r".to_owned() } else { format!("session/{name}") };
        append_one(&log, &name, prompt_with(&format!("e{}", index + 1), "x", metadata));
    }
    drop(log);
    place
}

/// Lets nothing hinder a change, makes it, and puts the triggers back as they were.
fn tampered(sql: &str) -> Place {
    let place = ledger();
    let connection = place.sqlite();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (name, _) in &triggers {
        connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    for (_, sql) in &triggers {
        connection.execute_batch(sql).unwrap();
    }
    place
}

fn found(report: &LogReport) -> BTreeSet<(&'static str, u64)> {
    report.findings.iter().map(|finding| (finding.check, finding.position.map_or(0, |position| position.0))).collect()
}

/// Tampers, and asserts that exactly these findings are told, by check and position.
fn assert_found(sql: &str, findings: &[(&'static str, u64)]) {
    let report = tampered(sql).verify();
    assert_eq!(found(&report), findings.iter().copied().collect(), "{sql}: {report:#?}");
    for (check, count) in &report.counts {
        let told = report.findings.iter().filter(|finding| finding.check == *check).count();
        assert_eq!(told as u64, *count, "{check}");
        assert!(LogReport::CHECKS.contains(check));
    }
}

#[test]
fn a_clean_log_passes_and_every_position_is_reported_as_it_goes() {
    let place = ledger();
    let mut seen = Vec::new();
    let report = place.reader().verify(|position| seen.push(position.0)).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.counts.is_empty());
    assert_eq!((report.events, report.erased), (10, 0));
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}

#[test]
fn an_empty_log_passes() {
    let place = Place::new();
    drop(place.log());
    assert_eq!(assert_verifies(&place.reader()).events, 0);
}

#[test]
fn a_log_with_appends_to_several_streams_and_odd_json_passes() {
    let place = Place::new();
    let log = place.log();
    let event = |text: &str| json(text, Metadata::default());
    let append = |name: &str, text: &str| StreamAppend {
        stream: stream(name),
        expected: ExpectedVersion::NoStream,
        events: vec![event(text), event(text)],
    };
    log.append_all(vec![
        append("session/a", r#"{"kind":"x.y","n":1e400,"s":"\ud83d"}"#),
        append("request/1", r#"{"kind":"setup","a":1,"a":2}"#),
        append("any name at all", r#"{"kind":"cwd.changed"}"#),
    ])
    .unwrap();
    assert_eq!(assert_verifies(&place.reader()).events, 6);
}

#[test]
fn erased_content_passes_and_is_counted() {
    let place = ledger();
    let positions = [1, 5, 10].map(Position);
    place.log().redact(&Erase::Events(positions.to_vec()), "reason", "somebody").unwrap();
    assert_eq!(assert_verifies(&place.reader()).erased, 3);
}

#[test]
fn content_that_is_gone_without_a_word_is_found() {
    let gone = "UPDATE runtime_events SET content = NULL, salt = NULL WHERE position";
    assert_found(&format!("{gone} IN (4, 7)"), &[("contents", 4), ("contents", 7)]);
    // Nor does it help to take away what was told.
    let place = ledger();
    let log = place.log();
    log.redact(&Erase::Events(vec![Position(4)]), "reason", "somebody").unwrap();
    let at = place.reader().head().unwrap().position;
    place.sqlite().execute(&format!("{gone} = {at}"), []).unwrap();
    let found = place.reader().verify(|_| {}).unwrap().findings;
    let found: Vec<_> = found.into_iter().map(|finding| (finding.check, finding.position)).collect();
    assert_eq!(found, [("contents", Some(Position(4))), ("contents", Some(at))]);
}

#[test]
fn a_half_erased_event_is_found() {
    assert_found("UPDATE runtime_events SET salt = NULL WHERE position = 4", &[("contents", 4)]);
    assert_found("UPDATE runtime_events SET content = NULL WHERE position = 4", &[("contents", 4)]);
}

/// Changes row 4, and computes its digest and its chain anew, and those of what stands behind it up to `last`.
fn computed_anew(last: u64) -> Place {
    let place = tampered("UPDATE runtime_events SET occurred_at = occurred_at + 1 WHERE position = 4");
    let connection = place.sqlite();
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'runtime_events_only_erased'";
    let trigger: String = connection.query_row(trigger, [], |row| row.get(0)).unwrap();
    connection.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
    for event in all(&place.reader()).into_iter().filter(|event| (4..=last).contains(&event.position.0)) {
        let digest_of = |column: &str, condition: &str| -> Digest {
            let sql = format!("SELECT {column} FROM runtime_events WHERE {condition}");
            connection.query_row(&sql, [], |row| row.get(0)).map(Digest).unwrap_or(Digest::ZERO)
        };
        let (position, version) = (event.position.0, event.stream_version.0);
        let own_stream = format!("stream_key = (SELECT stream_key FROM runtime_events WHERE position = {position})");
        let predecessor = digest_of("digest", &format!("stream_version = {} AND {own_stream}", version - 1));
        let sealed = digest_of("commitment", &format!("position = {position}"));
        let facts: Vec<u8> = connection
            .query_row("SELECT facts FROM runtime_events WHERE position = ?1", [position], |row| row.get(0))
            .unwrap();
        let digest = event_digest(
            &predecessor,
            &event.stream,
            event.stream_version,
            &event.id,
            &event.kind,
            event.occurred_at,
            event.recorded_at,
            &event.metadata,
            &facts,
            &sealed,
        );
        let chained = chain(&digest_of("chain", &format!("position = {}", position - 1)), &digest);
        connection
            .execute(
                "UPDATE runtime_events SET digest = ?1, chain = ?2 WHERE position = ?3",
                (digest.0, chained.0, position),
            )
            .unwrap();
    }
    connection.execute_batch(&trigger).unwrap();
    place
}

#[test]
fn digests_that_were_computed_anew_for_a_part_are_found_where_the_part_ends() {
    // Row 7 is the next one of row 4's stream, row 5 the next one of the log.
    assert_eq!(found(&computed_anew(4).verify()), BTreeSet::from([("chain", 5), ("digests", 7)]));
    assert_eq!(found(&computed_anew(6).verify()), BTreeSet::from([("chain", 7), ("digests", 7)]));
    assert_eq!(found(&computed_anew(8).verify()), BTreeSet::from([("chain", 9), ("digests", 10)]));
    // Up to the head the log alone shows nothing: that is what seals and kept checkpoints are for.
    assert_eq!(found(&computed_anew(10).verify()), BTreeSet::new());
}

#[test]
fn an_edit_of_any_column_is_found_in_its_row_and_blames_no_other() {
    // Row 4 is in the middle: of its stream, of its session, of the log.
    let table = [
        ("event_id = 'other'", "digests"),
        ("kind = 'session.end'", "digests"),
        ("kind = 'x.other'", "digests"),
        ("occurred_at = occurred_at + 1", "digests"),
        ("recorded_at = recorded_at - 1", "digests"),
        ("session_key = NULL", "digests"),
        ("session_key = (SELECT stream_key FROM streams WHERE name = 'session/b')", "digests"),
        ("session_key = (SELECT stream_key FROM streams WHERE name = 'run/r')", "payloads"),
        ("run_key = (SELECT stream_key FROM streams WHERE name = 'run/r')", "digests"),
        ("adapter_session_id = NULL", "digests"),
        ("adapter_session_id = 'other'", "digests"),
        ("causation_id = NULL", "digests"),
        ("causation_id = 'e1'", "digests"),
        ("correlation_id = NULL", "digests"),
        ("correlation_id = ''", "digests"),
        ("content = (SELECT content FROM runtime_events WHERE position = 5)", "contents"),
        ("salt = zeroblob(16)", "contents"),
        ("facts = x'0100000001'", "payloads"),
    ];
    for (change, check) in table {
        let report = tampered(&format!("UPDATE runtime_events SET {change} WHERE position = 4")).verify();
        let findings = found(&report);
        assert!(findings.contains(&(check, 4)), "{change}: {report:#?}");
        assert!(findings.iter().all(|(_, position)| *position == 4), "{change}: {report:#?}");
    }
}

#[test]
fn a_key_that_points_to_a_stream_of_another_sort_is_found() {
    // Event 4 belongs to no run, and `session/b` is none: read back, its metadata look as before.
    let sql = "UPDATE runtime_events SET run_key = (SELECT stream_key FROM streams WHERE name = 'session/b') WHERE position = 4";
    let report = tampered(sql).verify();
    assert!(report.findings.iter().any(|finding| finding.position == Some(Position(4))), "{report:#?}");
}

#[test]
fn an_edit_of_facts_that_still_decode_is_found() {
    // The facts of a prompt are: header, agent (none), its type (none), expects no decision, variant, permission mode.
    let sql = "UPDATE runtime_events SET facts = x'010000000000010300' WHERE position = 4";
    assert_found(sql, &[("digests", 4)]);
}

#[test]
fn an_edit_of_a_proof_is_found_in_its_row() {
    for (change, check) in [
        ("digest = zeroblob(32)", "digests"),
        ("chain = zeroblob(32)", "chain"),
        ("commitment = zeroblob(32)", "contents"),
        ("commitment = zeroblob(32), content = NULL, salt = NULL", "digests"),
    ] {
        let report = tampered(&format!("UPDATE runtime_events SET {change} WHERE position = 4")).verify();
        let findings = found(&report);
        assert!(findings.contains(&(check, 4)), "{change}: {report:#?}");
        assert_eq!(report.findings[0].position, Some(Position(4)), "{change}: {report:#?}");
    }
}

#[test]
fn a_column_of_the_wrong_shape_is_found_in_its_row() {
    for change in [
        "digest = x'00'",
        "chain = zeroblob(33)",
        "commitment = x''",
        "salt = x'00'",
        "event_id = ''",
        "stream_key = 77",
    ] {
        let report = tampered(&format!("UPDATE runtime_events SET {change} WHERE position = 4")).verify();
        assert!(found(&report).contains(&("payloads", 4)), "{change}: {report:#?}");
        assert_eq!(report.findings[0].position, Some(Position(4)), "{change}: {report:#?}");
    }
}

#[test]
fn a_row_that_cannot_be_read_does_not_make_the_rows_behind_it_wrong() {
    let report = tampered("UPDATE runtime_events SET digest = x'00' WHERE position = 4").verify();
    assert_eq!(found(&report), BTreeSet::from([("payloads", 4)]), "{report:#?}");
}

#[test]
fn payloads_that_do_not_decode_are_found() {
    for (change, position) in [("facts = x''", 4), ("facts = x'01000000ff'", 4), ("facts = x'030000000000000300'", 4)] {
        let report = tampered(&format!("UPDATE runtime_events SET {change} WHERE position = {position}")).verify();
        assert_eq!(found(&report), BTreeSet::from([("digests", position), ("payloads", position)]), "{change}");
    }
    for change in [
        "content = x''",
        "content = x'0100000009'",
        "content = x'01010000027b7d'",
        "content = x'0201010028b52ffd'",
        "content = substr(content, 1, length(content) - 1)",
    ] {
        assert_found(&format!("UPDATE runtime_events SET {change} WHERE position = 4"), &[("payloads", 4)]);
    }
}

#[test]
fn a_dictionary_that_is_not_the_programs_is_found_and_the_log_is_read_all_the_same() {
    for change in ["UPDATE dictionaries SET bytes = x'00'", "DELETE FROM dictionaries"] {
        let place = tampered(change);
        let report = place.verify();
        assert!(report.findings.iter().all(|finding| finding.check == "schema"), "{change}: {report:#?}");
        let is_told = report.findings.iter().any(|finding| finding.detail.starts_with("dictionary 1 "));
        assert!(is_told, "{change}: {report:#?}");
        assert_eq!(all(&place.reader()).len(), 10);
    }
}

#[test]
fn a_deleted_row_is_found_first_middle_and_last() {
    // The stream goes on behind the gap, or ends before it; the table of streams knows how many there were.
    assert_found("DELETE FROM runtime_events WHERE position = 1", &[("positions", 1), ("versions", 2)]);
    assert_found("DELETE FROM runtime_events WHERE position = 4", &[("positions", 4), ("versions", 7)]);
    assert_found("DELETE FROM runtime_events WHERE position = 10", &[("versions", 10)]);
    assert_found(
        "DELETE FROM runtime_events WHERE position BETWEEN 3 AND 6",
        &[("positions", 3), ("versions", 7), ("versions", 8), ("versions", 9)],
    );
}

#[test]
fn a_deleted_log_is_found() {
    let report = tampered("DELETE FROM runtime_events").verify();
    assert_eq!(report.counts["versions"], 3, "one for each stream: {report:#?}");
    assert_eq!(report.events, 0);
}

#[test]
fn a_row_deleted_with_the_rows_behind_it_moved_up_is_found() {
    let sql = "DELETE FROM runtime_events WHERE position = 4;
        UPDATE runtime_events SET position = position - 1 WHERE position = 5;
        UPDATE runtime_events SET position = position - 1 WHERE position = 6;
        UPDATE runtime_events SET position = position - 1, stream_version = 3 WHERE position = 7;
        UPDATE runtime_events SET position = position - 1 WHERE position = 8;
        UPDATE runtime_events SET position = position - 1 WHERE position = 9;
        UPDATE runtime_events SET position = position - 1, stream_version = 4 WHERE position = 10;
        UPDATE streams SET version = 4 WHERE name = 'session/a'";
    let report = tampered(sql).verify();
    let findings = found(&report);
    assert!(findings.contains(&("chain", 4)), "{report:#?}");
    assert!(findings.contains(&("digests", 6)), "{report:#?}");
    assert_eq!(findings.iter().map(|(_, position)| *position).min(), Some(4), "{report:#?}");
}

/// Swaps columns between two rows.
fn swap(columns: &[&str], a: u64, b: u64) -> String {
    let sets = |from: u64| -> String {
        let sets: Vec<String> = columns
            .iter()
            .map(|column| format!("{column} = (SELECT {column} FROM temp.kept WHERE position = {from})"))
            .collect();
        sets.join(", ")
    };
    format!(
        "CREATE TEMP TABLE kept AS SELECT * FROM runtime_events WHERE position IN ({a}, {b});
         UPDATE runtime_events SET {} WHERE position = {a};
         UPDATE runtime_events SET {} WHERE position = {b};
         DROP TABLE temp.kept;",
        sets(b),
        sets(a),
    )
}

#[test]
fn swapped_contents_are_found_in_both_rows() {
    assert_found(&swap(&["content"], 2, 7), &[("contents", 2), ("contents", 7)]);
    assert_found(&swap(&["content", "salt"], 2, 7), &[("contents", 2), ("contents", 7)]);
    let with_proof = &swap(&["content", "salt", "commitment"], 2, 7);
    assert_found(with_proof, &[("digests", 2), ("digests", 7)]);
}

#[test]
fn swapped_positions_are_found() {
    // Rows of two streams change places; each stream is whole, the chain is not.
    let sql = "UPDATE runtime_events SET position = 99 WHERE position = 5;
        UPDATE runtime_events SET position = 5 WHERE position = 6;
        UPDATE runtime_events SET position = 6 WHERE position = 99";
    assert_found(sql, &[("chain", 5), ("chain", 6), ("chain", 7)]);
}

#[test]
fn an_inserted_row_is_found() {
    let copy = |position: i64, version: i64| {
        format!(
            "INSERT INTO runtime_events SELECT {position}, stream_key, {version}, 'new', kind, occurred_at, recorded_at,
             session_key, run_key, adapter_session_id, causation_id, correlation_id, facts, digest, chain, commitment, salt,
             content FROM runtime_events WHERE position = 10"
        )
    };
    let findings = [("chain", 11), ("digests", 11), ("versions", 0)];
    assert_found(&copy(11, 6), &findings);
    let counted = format!("{}; UPDATE streams SET version = 6 WHERE name = 'session/a'", copy(11, 6));
    assert_found(&counted, &findings[..2]);
    let report = tampered(&copy(15, 6)).verify();
    assert_eq!(report.findings[0].position, Some(Position(11)), "{report:#?}");
}

#[test]
fn a_row_before_the_first_position_is_found() {
    for position in [0, -7] {
        let sql = format!(
            "UPDATE runtime_events SET position = {position} WHERE position = 10; UPDATE streams SET version = 4 WHERE name = 'session/a'"
        );
        let report = tampered(&sql).verify();
        assert_ne!(report.findings, [], "a row at position {position}, which no reader sees");
    }
}

#[test]
fn renumbered_rows_are_found() {
    assert_found("UPDATE runtime_events SET position = 12 WHERE position = 10", &[("positions", 10)]);
    let report = tampered("UPDATE runtime_events SET stream_version = 33 WHERE position = 4").verify();
    assert_eq!((report.findings[0].check, report.findings[0].position), ("versions", Some(Position(4))), "{report:#?}");
    // Moved to the end of another stream.
    let sql = "UPDATE runtime_events SET stream_version = 3, stream_key = (SELECT stream_key FROM streams WHERE name = 'session/b')
        WHERE position = 4";
    let report = tampered(sql).verify();
    assert_eq!((report.findings[0].check, report.findings[0].position), ("versions", Some(Position(4))), "{report:#?}");
}

#[test]
fn edits_of_the_table_of_streams_are_found() {
    assert_found("UPDATE streams SET version = 4 WHERE name = 'session/a'", &[("versions", 0)]);
    assert_found("UPDATE streams SET version = 6 WHERE name = 'session/a'", &[("versions", 11)]);
    assert_found("INSERT INTO streams (name, version) VALUES ('session/more', 1)", &[("versions", 11)]);
    let report = tampered("UPDATE streams SET name = 'session/c' WHERE name = 'session/b'").verify();
    assert_eq!(found(&report), BTreeSet::from([("digests", 5), ("digests", 8)]), "{report:#?}");
    let report = tampered("DELETE FROM streams WHERE name = 'session/b'").verify();
    assert_eq!(report.findings[0].position, Some(Position(5)), "{report:#?}");
}

#[test]
fn dropped_triggers_and_added_tables_are_found() {
    let schema_findings = |sql: &str| -> Vec<String> {
        let place = ledger();
        place.sqlite().execute_batch(sql).unwrap();
        let report = place.verify();
        assert!(report.findings.iter().all(|finding| finding.check == "schema" && finding.position.is_none()));
        report.findings.into_iter().map(|finding| finding.detail).collect()
    };
    assert_eq!(
        schema_findings("DROP TRIGGER runtime_events_only_erased"),
        ["trigger runtime_events_only_erased is missing"]
    );
    assert_eq!(schema_findings("CREATE TABLE more (x)"), ["table more was added"]);
    assert_eq!(
        schema_findings(
            "DROP TRIGGER streams_never_deleted; CREATE TRIGGER streams_never_deleted BEFORE DELETE ON streams BEGIN SELECT 1; END"
        ),
        ["trigger streams_never_deleted was changed"]
    );
    assert_eq!(schema_findings("DROP INDEX runtime_events_by_run"), ["index runtime_events_by_run is missing"]);
}

#[test]
fn of_many_findings_twenty_are_told_and_all_are_counted() {
    let place = Place::new();
    let log = place.log();
    for n in 0..30 {
        append_one(&log, "session/a", prompt_with(&format!("e{n}"), "x", Metadata::default()));
    }
    drop(log);
    place
        .sqlite()
        .execute_batch("DROP TRIGGER runtime_events_only_erased; UPDATE runtime_events SET salt = NULL")
        .unwrap();
    let report = place.verify();
    assert_eq!(report.counts["contents"], 30);
    assert_eq!(report.findings.iter().filter(|finding| finding.check == "contents").count(), 20);
}

#[test]
fn a_damaged_page_is_found() {
    // Given
    let place = ledger();
    place.sqlite().pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
    let mut bytes = std::fs::read(place.path()).unwrap();
    let frame = [0x28, 0xB5, 0x2F, 0xFD];
    let at = bytes.windows(4).position(|window| window == frame).expect("a compressed content in the file");
    // When one byte of one content changes on the disk
    bytes[at + 12] ^= 1;
    std::fs::write(place.path(), bytes).unwrap();
    // Then
    let report = place.verify();
    assert_eq!(report.findings.len(), 1, "{report:#?}");
    assert!(["contents", "payloads"].contains(&report.findings[0].check), "{report:#?}");
}

#[test]
fn what_is_checked_from_a_position_on_is_what_the_whole_check_says_of_it() {
    let of_row = |change: &str| format!("UPDATE runtime_events SET {change} WHERE position = 6");
    let changes = [
        of_row("kind = 'x.other'"),
        of_row("occurred_at = occurred_at + 1"),
        of_row("content = (SELECT content FROM runtime_events WHERE position = 5)"),
        of_row("salt = NULL"),
        of_row("facts = x'0100000001'"),
        of_row("digest = zeroblob(32)"),
        of_row("chain = zeroblob(32)"),
        of_row("stream_version = 33"),
        of_row("session_key = (SELECT stream_key FROM streams WHERE name = 'run/r')"),
        "DELETE FROM runtime_events WHERE position = 6".to_owned(),
        "DELETE FROM runtime_events WHERE position = 10".to_owned(),
        "SELECT 1".to_owned(),
    ];
    for change in changes {
        let place = tampered(&change);
        let whole = found(&place.verify());
        for since in 1..=9 {
            // A row that is not there cannot be gone on from.
            if change.starts_with("DELETE") && change.ends_with(&format!("= {since}")) {
                continue;
            }
            let report = place.reader().verify_since(Position(since), |_| {}).unwrap();
            let of_rest = whole.iter().copied().filter(|(_, position)| *position > since).collect();
            // The table of streams is asked for those streams alone that were met.
            let is_of_tail = change.ends_with("= 10");
            let met = |(check, _): &(&str, u64)| !(is_of_tail && *check == "versions");
            let (found, of_rest): (BTreeSet<_>, BTreeSet<_>) = (found(&report), of_rest);
            let [found, of_rest] = [found, of_rest].map(|all| all.into_iter().filter(met).collect::<BTreeSet<_>>());
            assert_eq!(found, of_rest, "{change}, from {since}: {report:#?}");
        }
    }
}

#[test]
fn a_position_to_go_on_from_has_to_be_there() {
    let place = ledger();
    for (since, is_there) in [(1, true), (10, true), (11, false), (u64::MAX, false)] {
        let report = place.reader().verify_since(Position(since), |_| {}).unwrap();
        assert_eq!(report.findings.is_empty(), is_there, "{since}: {report:#?}");
        assert_eq!(report.events, if since == 1 { 9 } else { 0 });
    }
    let report = tampered("DELETE FROM runtime_events WHERE position = 6");
    let report = report.reader().verify_since(Position(6), |_| {}).unwrap();
    assert_eq!(found(&report).first(), Some(&("positions", 6)), "{report:#?}");
}
