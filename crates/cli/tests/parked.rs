//! What a person sees of an event that cannot be read: `status` and every command that reads say so, a rebuild stops at it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Room, run, run_with_input};

#[test]
fn an_unreadable_event_is_told_by_every_command_and_a_rebuild_stops_at_it() {
    // Given
    let room = Room::new();
    for session in ["s1", "s2"] {
        let lines = (1..=4).map(|number| {
            format!(r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","data":{{"prompt":"{session} {number}"}}}}"#)
        });
        let input = lines.collect::<Vec<_>>().join("\n");
        let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", session]), &input);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let sqlite = room.sqlite();
    sqlite.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
    sqlite.execute("UPDATE runtime_events SET facts = x'63000000' WHERE position = 3", []).unwrap();
    drop(sqlite);

    // When, then: what can be read is read, and what is missing is said.
    let told = "something is missing here: session/s1 cannot be read from position 3 on; see `runledger status`";
    for _ in 0..2 {
        let ran = run(&mut room.command(["feed", "--session", "s1"]));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout().contains("s1 2") && !ran.stdout().contains("s1 3"), "{ran:?}");
        assert!(ran.stderr().contains(told), "{ran:?}");
    }
    assert!(room.ok(["feed", "--session", "s2"]).contains("s2 4"));
    let status = room.ok(["status"]);
    let line = "PARKED  feed_events leaves session/s1 out from position 3 on, which cannot be read: ";
    assert!(status.contains(line), "{status}");
    let parked = room.json(["status"]).remove(0)["parked"].clone();
    assert_eq!(parked[0]["position"], 3);
    assert_eq!(parked[0]["stream"], "session/s1");
    assert!(parked[0]["cause"].as_str().is_some_and(|cause| cause.contains("99")), "{parked}");

    let ran = run(&mut room.command(["rebuild-projections"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr().contains("needs position 3 of stream session/s1, which cannot be read"), "{ran:?}");
    let ran = run(&mut room.command(["rebuild-projections", "--park", "--verify"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = run(&mut room.command(["verify"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout().contains("position 3"), "{ran:?}");
}
