//! `redact` erases what events say from every file of the ledger, says so in the log, and leaves what verifies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::PathBuf;

use runledger_events::{Metadata, RunId, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent};
use runledger_testkit::files_with;
use support::{Room, run, run_with_input, text};

/// Words that stand in the session `s1` alone, in a prompt, a call, its result, a message that streams, and a request.
const SECRET: &str = "quetzalcoatl-7731";

fn events() -> String {
    let mut lines = vec![
        format!(
            r#"{{"id":"e1","timestamp":1,"kind":"user.prompt","sessionId":"a1","data":{{"prompt":"use {SECRET}"}}}}"#
        ),
        format!(
            r#"{{"id":"e2","timestamp":2,"kind":"tool.pre","sessionId":"a1","data":{{"tool_name":"Bash","tool_use_id":"t1","tool_input":{{"command":"echo {SECRET}"}}}}}}"#
        ),
        format!(
            r#"{{"id":"e3","timestamp":3,"kind":"permission.request","sessionId":"a1","data":{{"tool_name":"Bash","tool_use_id":"t1","tool_input":{{"command":"echo {SECRET}"}}}}}}"#
        ),
        format!(
            r#"{{"id":"e4","timestamp":4,"kind":"message.delta","sessionId":"a1","data":{{"item_id":"m1","delta":"half of {SECRET}"}}}}"#
        ),
        // Larger than a page, and no two parts of it alike.
        format!(
            r#"{{"id":"e5","timestamp":5,"kind":"tool.post","sessionId":"a1","data":{{"tool_name":"Bash","tool_use_id":"t1","tool_response":{{"stdout":"{}"}}}}}}"#,
            (0..3000).map(|number| format!("{SECRET}-{:x} ", number * 7919)).collect::<String>()
        ),
    ];
    lines.extend((6..200).map(|number| {
        format!(
            r#"{{"id":"e{number}","timestamp":{number},"kind":"message.complete","sessionId":"a1","data":{{"message":"{number} {SECRET}"}}}}"#
        )
    }));
    lines.join("\n")
}

fn room() -> Room {
    let room = Room::new();
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), events());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let other = r#"{"id":"o1","timestamp":9,"kind":"user.prompt","sessionId":"b","data":{"prompt":"what stays"}}"#;
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s2"]), other);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    room
}

/// The stored payloads of a session's events, which are compressed: their text is in no file as it is read.
fn payloads(room: &Room, session: &str) -> Vec<Vec<u8>> {
    let sqlite = room.sqlite();
    let mut statement = sqlite
        .prepare(
            "SELECT content FROM runtime_events JOIN streams USING (stream_key)
             WHERE name = ?1 AND content IS NOT NULL",
        )
        .unwrap();
    statement.query_map([format!("session/{session}")], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn traces(room: &Room, payloads: &[Vec<u8>]) -> Vec<PathBuf> {
    // A part of each payload, from its middle: a page's border may go through the whole.
    let parts = payloads.iter().map(|payload| &payload[payload.len() / 2..(payload.len() / 2 + 24).min(payload.len())]);
    let mut wanted: Vec<&[u8]> = parts.collect();
    wanted.push(SECRET.as_bytes());
    files_with(room.ledger().parent().unwrap(), &wanted)
}

#[test]
fn a_redacted_session_is_gone_from_every_file_and_everything_verifies() {
    let room = room();
    // Given: its words are in the log, the feed, the search index, a message that has not come to its end.
    let feed = room.ok(["feed", "--session", "s1"]);
    assert!(feed.contains(SECRET));
    let payloads = payloads(&room, "s1");
    assert_eq!(payloads.len(), 199);
    assert!(traces(&room, &payloads).len() >= 2, "the check finds what is there");

    // When
    let told = room.json(["redact", "--session", "s1", "--reason", "the customer asked for it"]);

    // Then
    assert_eq!(told.len(), 1);
    assert_eq!((told[0]["events"].as_u64(), told[0]["position"].as_u64()), (Some(199), Some(201)), "{told:?}");
    assert_eq!(traces(&room, &payloads), Vec::<String>::new());
    room.verify();
    let last = room.events().pop().unwrap();
    assert_eq!(last["stream"], "ledger/redactions");
    assert_eq!(last["event"]["kind"], "ledger.redacted");
    assert_eq!(last["event"]["data"]["reason"], "the customer asked for it");
    assert_eq!(last["event"]["data"]["session_ids"][0], "s1");
    assert!(last["event"]["data"]["by"].as_str().is_some_and(|by| !by.is_empty()));
    // The model is the one that a rebuild gives, and others' words are still there.
    for rebuilt in room.json(["rebuild-projections"]) {
        assert_eq!(rebuilt["changed"], 0, "{rebuilt}");
    }
    assert!(!room.ok(["feed", "--session", "s1", "--json"]).contains(SECRET));
    assert!(room.ok(["feed", "--session", "s2", "--json"]).contains("what stays"));

    // When it is done again
    let again = room.json(["redact", "--session", "s1", "--reason", "once more"]);
    // Then
    assert_eq!((again[0]["events"].as_u64(), again[0]["position"].as_u64()), (Some(0), None));
    assert_eq!(room.events().len(), 201);
}

#[test]
fn single_events_are_named_by_position_or_id_and_a_person_reads_what_came_of_it() {
    let room = room();
    let ran = run(&mut room.command(["redact", "--event", "e1", "--event", "2", "--reason", "a password"]));
    assert_eq!(
        (ran.code, ran.stdout().as_str()),
        (Some(0), "erased what 2 events said; position 201 tells who and why\n")
    );
    let positions: Vec<bool> = room.events()[..4].iter().map(|event| event["event"].is_null()).collect();
    assert_eq!(positions, [true, true, false, false]);
    // What hooks bring again later is the same event, and stays erased.
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), events());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(room.events()[0]["event"].is_null());
    room.verify();
}

#[test]
fn what_is_not_there_is_refused_and_nothing_is_erased() {
    let room = room();
    for (arguments, code, words) in [
        (&["--event", "999", "--reason", "r"][..], 1, "there is no event at position 999; the log ends at 200"),
        (&["--event", "0", "--reason", "r"], 1, "there is no event at position 0"),
        (&["--event", "nobody", "--reason", "r"], 1, "there is no event nobody"),
        (&["--session", "s9", "--reason", "r"], 1, "there is no session s9"),
        (&["--event", "1", "--reason", "  "], 2, "the reason is empty"),
        (&["--event", "1"], 2, "--reason"),
        (&["--reason", "r"], 2, "--event"),
    ] {
        let ran = run(&mut room.command(["redact"].iter().chain(arguments)));
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr().contains(words), "{ran:?}");
    }
    assert_eq!(room.events().len(), 200);
    let empty = Room::new();
    let ran = run(&mut empty.command(["redact", "--event", "1", "--reason", "r"]));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(empty.has_no_ledger());
}

#[test]
fn while_somebody_reads_it_says_that_something_is_left_and_clears_it_the_next_time() {
    let room = room();
    room.ok(["feed", "--session", "s1"]);
    let payloads = payloads(&room, "s1");
    let reader = rusqlite::Connection::open(room.ledger()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM runtime_events").unwrap();

    let ran = run(&mut room.command(["redact", "--session", "s1", "--reason", "r"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr().contains("somebody reads the log, or there is no room: its files still have the text"),
        "{ran:?}"
    );

    drop(reader);
    let ran = run(&mut room.command(["redact", "--session", "s1", "--reason", "r"]));
    assert_eq!((ran.code, ran.stdout().as_str()), (Some(0), "nothing is left to erase\n"));
    assert_eq!(traces(&room, &payloads), Vec::<String>::new());
}

#[test]
fn a_run_that_may_go_on_keeps_its_rules_and_what_was_done_to_the_ledger_is_not_erased() {
    let room = room();
    let started = r#"{"id":"w1","timestamp":5,"kind":"workflow.start","data":{"run_id":"r1","session_id":"s2","harness":"command","max_iterations":3,"prompt":"go"}}"#;
    let run_id: RunId = "r1".parse().unwrap();
    let metadata = Metadata { session_id: "s2".parse().ok(), run_id: Some(run_id.clone()), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(started).unwrap(), metadata).unwrap();
    room.log().append(&StreamName::run(&run_id), ExpectedVersion::NoStream, vec![event]).unwrap();
    for what in [["--session", "s2"], ["--event", "201"]] {
        let ran = run(&mut room.command(["redact", what[0], what[1], "--reason", "r"]));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr().contains("run r1 is not over") && ran.stderr().contains("`runledger cancel r1`"),
            "{ran:?}"
        );
    }
    room.ok(["redact", "--event", "1", "--reason", "a password"]);
    let ran = run(&mut room.command(["redact", "--event", "202", "--reason", "r"]));
    assert!(ran.code == Some(1) && ran.stderr().contains("tells what was done to the ledger itself"), "{ran:?}");
}

#[test]
fn a_redacted_and_sealed_ledger_is_copied_whole_by_export_and_ingest() {
    let room = room();
    room.ok(["redact", "--event", "1", "--reason", "a password"]);
    let key = room.path("seal.key").display().to_string();
    room.ok(["seal", "--init", "--key", &key]);
    room.ok(["seal", "--key", &key]);
    let other = Room::new();
    let ran = run_with_input(&mut other.command(["ingest", "--format", "runtime"]), room.ok(["export"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = other.events();
    assert_eq!(told.len(), room.events().len() + 1, "and what tells of the event that came without its content");
    assert_eq!(told.iter().filter(|event| text(event, "/stream") == "ledger/arrivals").count(), 1);
    other.verify();
}

#[test]
fn the_doctor_clears_what_was_left_because_somebody_read() {
    let room = room();
    room.ok(["feed", "--session", "s1"]);
    let payloads = payloads(&room, "s1");
    let reader = rusqlite::Connection::open(room.ledger()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM runtime_events").unwrap();
    assert_eq!(run(&mut room.command(["redact", "--session", "s1", "--reason", "r"])).code, Some(1));
    drop(reader);
    let ran = run(&mut room.command(["doctor"]));
    assert!(ran.stdout().contains("nothing of them is left in the ledger's files"), "{ran:?}");
    assert_eq!(traces(&room, &payloads), Vec::<String>::new());
}

#[test]
fn a_backup_beside_an_erasure_that_is_not_through_says_so() {
    let room = room();
    room.ok(["feed", "--session", "s1"]);
    let reader = rusqlite::Connection::open(room.ledger()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM runtime_events").unwrap();
    assert_eq!(run(&mut room.command(["redact", "--session", "s1", "--reason", "r"])).code, Some(1));
    let backup = |name: &str| {
        let ran = run(&mut room.command(["backup", room.path(name).to_str().unwrap()]));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stderr()
    };
    assert!(backup("one.db").contains("an erasure is not through"));
    drop(reader);
    room.ok(["doctor"]);
    assert_eq!(backup("two.db"), "");
}

#[test]
fn an_erasure_that_no_event_tells_of_is_found_until_one_does() {
    let room = room();
    room.ok(["redact", "--event", "1", "--event", "3", "--reason", "a password"]);
    let told = room.ok(["verify"]);
    assert!(told.contains("201 events, the content of 2 erased\n"), "{told}");
    room.sqlite()
        .execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position IN (2, 150)", [])
        .unwrap();
    let ran = run(&mut room.command(["verify"]));
    assert_eq!(ran.code, Some(1));
    let words = "WRONG  log contents                      position 2: the content of event ";
    assert!(ran.stdout().contains(words) && ran.stdout().contains("position 150: "), "{ran:?}");
    assert_eq!(ran.stdout().matches("WRONG  log").count(), 2, "{ran:?}");
    assert!(room.ok(["redact", "--event", "1", "--reason", "once more"]).contains("nothing is left to erase"));
    let told = room.ok(["redact", "--event", "2", "--event", "150", "--event", "5", "--reason", "by hand"]);
    assert!(told.contains("erased what 1 event said; of 2 events more it was gone already, untold"), "{told}");
    room.ok(["verify"]);
}
