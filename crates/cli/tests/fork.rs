//! Forks: a new run from where another one stood, with the tracker as it was then; the other one stays untouched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{Room, text};

/// Writes a plan of its iteration, and what it found there; complete in iteration 4.
const AGENT: &str = r#"n=$RUNLEDGER_ITERATION
grep '^turn' "$RUNLEDGER_TRACKER" > before
if [ $n -ge 4 ]; then last='<!-- WORKFLOW_COMPLETE -->'; else last='more to do'; fi
{ echo '# Plan'; cat before; echo "turn $n of ${WHOSE:-the first}"; echo "$last"; } > "$RUNLEDGER_TRACKER""#;

fn room() -> (Room, Value) {
    let room = Room::new();
    let json =
        json!({"name": "tidy", "loop": {"maxIterations": 9, "trackerPath": ".runledger/{sessionId}/tracker.md"}});
    let workflow = room.write("project/tidy.json", json.to_string()).display().to_string();
    let (ran, run) = room.exec_to_end(&["--workflow", &workflow], AGENT);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    (room, run)
}

fn runs(room: &Room, run_id: &str) -> Value {
    room.json(["show", run_id]).pop().unwrap()
}

fn tracker(room: &Room, run: &Value) -> String {
    std::fs::read_to_string(room.project().join(text(run, "/tracker_path"))).unwrap()
}

fn turns(tracker: &str) -> Vec<&str> {
    tracker.lines().filter(|line| line.starts_with("turn")).collect()
}

#[test]
fn a_fork_begins_where_the_other_stood_and_leaves_it_as_it_was() {
    let (room, origin) = room();
    let before = (runs(&room, text(&origin, "/id")), tracker(&room, &origin));

    let ran = room.run(["fork", text(&origin, "/id"), "--iteration", "2"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr().contains("no other file was restored"), "{ran:?}");
    let fork_id = ran.stdout().trim().to_owned();
    let fork = runs(&room, &fork_id);
    assert_eq!(
        (&fork["status"], &fork["state"], &fork["iteration"]),
        (&json!("interrupted"), &json!("idle"), &json!(2))
    );
    assert_eq!(fork["forked_from"], origin["id"]);
    let second = runs(&room, text(&origin, "/id"))["iterations"][1].clone();
    assert_eq!(fork["forked_at"], second["end_position"]);
    assert_ne!(fork["session_id"], origin["session_id"]);
    assert_eq!(turns(&tracker(&room, &fork)), ["turn 1 of the first", "turn 2 of the first"]);

    let resumed =
        support::run(room.command(["resume", &fork_id]).envs([("WHOSE", "the fork"), ("RUNLEDGER_PASS_ENV", "WHOSE")]));
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    let fork = runs(&room, &fork_id);
    assert_eq!((&fork["status"], &fork["iteration"]), (&json!("completed"), &json!(4)));
    let told = tracker(&room, &fork);
    assert_eq!(turns(&told)[2..], ["turn 3 of the fork", "turn 4 of the fork"]);
    assert_eq!((runs(&room, text(&origin, "/id")), tracker(&room, &origin)), before, "the other one is untouched");

    // A fork of the fork, from a point of its own, and from where it began.
    let again = room.ok(["fork", &fork_id, "--iteration", "3"]).trim().to_owned();
    assert_eq!(turns(&tracker(&room, &runs(&room, &again))).last(), Some(&"turn 3 of the fork"));
    let begin = fork["first_position"].to_string();
    let at_begin = room.ok(["fork", &fork_id, "--at", &begin]).trim().to_owned();
    let at_begin = runs(&room, &at_begin);
    assert_eq!((&at_begin["iteration"], &at_begin["forked_from"]), (&json!(2), &json!(fork_id)));
    assert_eq!(turns(&tracker(&room, &at_begin)), ["turn 1 of the first", "turn 2 of the first"]);
    assert_eq!(room.run(["resume", text(&at_begin, "/id")]).code, Some(0));
    room.verify();
}

#[test]
fn a_fork_in_the_middle_of_an_iteration_begins_it_anew() {
    let (room, origin) = room();
    let third = runs(&room, text(&origin, "/id"))["iterations"][2].clone();

    let events = room.json(["fork", text(&origin, "/id"), "--at", &third["start_position"].to_string()]);

    let kinds: Vec<&str> = events.iter().map(|event| text(event, "/event/kind")).collect();
    assert_eq!(kinds, ["workflow.start", "workflow.transition"]);
    let fork = runs(&room, text(&events[0], "/event/data/run_id"));
    assert_eq!(fork["iteration"], 2);
    assert_eq!(turns(&tracker(&room, &fork)).len(), 2);
    // Before its first iteration it had no tracker but the skeleton.
    let first = origin["first_position"].to_string();
    let fork = room.ok(["fork", text(&origin, "/id"), "--at", &first]).trim().to_owned();
    assert_eq!(runs(&room, &fork)["iteration"], 0);
    assert_eq!(room.run(["resume", &fork]).code, Some(0));
    assert_eq!(turns(&tracker(&room, &runs(&room, &fork))).len(), 4);
}

#[test]
fn a_point_outside_a_shared_tracker_and_one_too_long_are_refused_and_leave_nothing() {
    let (room, origin) = room();
    let id = text(&origin, "/id").to_owned();
    let fork = room.ok(["fork", &id, "--iteration", "2"]).trim().to_owned();
    let last = origin["last_position"].as_u64().unwrap();
    let shared = json!({"name": "tidy", "loop": {"maxIterations": 9, "trackerPath": "tracker.md"}});
    let shared = room.write("project/shared.json", shared.to_string()).display().to_string();
    let shared = room.exec_to_end(&["--workflow", &shared], AGENT).1;
    let long = r#"yes 0123456789 | head -n 9000 > "$RUNLEDGER_TRACKER"
        [ $RUNLEDGER_ITERATION -lt 2 ] || echo '<!-- WORKFLOW_COMPLETE -->' > "$RUNLEDGER_TRACKER""#;
    let tidy = room.path("project/tidy.json").display().to_string();
    let long = room.exec_to_end(&["--workflow", &tidy], long).1;
    let files = || std::fs::read_dir(room.project().join(".runledger")).unwrap().count();
    let (head, before) = (room.events().len(), files());
    for (arguments, code, words) in [
        (vec!["fork", &id, "--iteration", "9"], 1, "has no iteration 9 that has ended"),
        (vec!["fork", &id, "--iteration", "0"], 1, "has no iteration 0"),
        (vec!["fork", &id, "--at", "0"], 1, "is not one of run"),
        (vec!["fork", &id, "--at", &(last + 1).to_string()], 1, "is not one of run"),
        (vec!["fork", &fork, "--at", "1"], 1, "is not one of run"),
        (vec!["fork", &fork, "--iteration", "1"], 1, "which it was forked from"),
        (vec!["fork", text(&shared, "/id"), "--iteration", "1"], 1, "put {sessionId} into the workflow's trackerPath"),
        (vec!["fork", text(&long, "/id"), "--iteration", "1"], 1, "keep trackers shorter"),
        (vec!["fork", "no-such-run", "--iteration", "1"], 1, "there is no run"),
    ] {
        let ran = room.run(&arguments);
        assert!(ran.is_refused_with(code).contains(words), "{arguments:?}: {ran:?}");
    }
    let ran = room.run(["fork", &id]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!((room.events().len(), files()), (head, before), "nothing is left of what was refused");
    let later = room.ok(["fork", text(&long, "/id"), "--iteration", "2"]);
    assert!(!later.is_empty(), "the shorter tracker of a later iteration is restored");
}
