//! `kill -9` of `exec` at any moment: what was acknowledged is there, the run's state is right, the read models catch up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Room, run, text};

/// Marsaglia's xorshift64: the moments are the same in each run of the tests, as far as moments can be.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Starts an endless run, kills it once it has told so many lines and a little later, and gives what it told.
fn exec_until_killed(room: &Room, workflow: &str, lines: u64, then: Duration) -> Vec<Value> {
    let script = r#"echo "turn $RUNLEDGER_ITERATION" > "$RUNLEDGER_TRACKER"; echo out; echo err >&2"#;
    let mut command = room.exec_json(&["--workflow", workflow], script);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut told = Vec::new();
    let mut next = |told: &mut Vec<Value>| {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        // The last line may be torn.
        let is_whole = line.ends_with('\n');
        if is_whole {
            told.push(serde_json::from_str(&line).unwrap());
        }
        is_whole
    };
    while (told.len() as u64) < lines && next(&mut told) {}
    std::thread::sleep(then);
    child.kill().unwrap();
    while next(&mut told) {}
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "it was killed before its end");
    told
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_at_any_moment() {
    let room = Room::new();
    let workflow = json!({"name": "endless", "loop": {"maxIterations": 1_000_000}});
    let workflow = room.write("w.json", workflow.to_string()).display().to_string();
    let mut random = Random(0x5eed_0001);
    let mut acknowledged = HashSet::new();
    let (mut killed, mut seen) = (HashSet::new(), HashSet::new());
    for round in 0..10 {
        let (lines, then) = (random.below(40), Duration::from_micros(random.below(15_000)));
        for line in exec_until_killed(&room, &workflow, lines, then) {
            if line["type"] == "runtime.event" {
                let event = &line["data"];
                acknowledged.insert((event["position"].as_u64().unwrap(), text(event, "/id").to_owned()));
                killed.insert(text(event, "/run_id").to_owned());
            }
        }
        if !room.ledger().exists() {
            assert!(acknowledged.is_empty());
            continue;
        }
        // Nobody sees an error, and the read models are at the head.
        room.verify();
        let runs = room.json(["runs"]);
        let there: HashSet<(u64, String)> = room
            .events()
            .iter()
            .map(|event| (event["position"].as_u64().unwrap(), text(event, "/id").to_owned()))
            .collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        for run in runs.iter().filter(|run| run["workflow_name"] == "endless") {
            // The command that comes next, in the round before, has said that its runner is gone. A runner may be killed
            // between its first append and the line that tells of it.
            let is_latest = seen.insert(text(run, "/id").to_owned());
            let (status, owner_alive) =
                if is_latest { ("running", json!(false)) } else { ("interrupted", Value::Null) };
            let state = (&run["status"], &run["ended_at"], &run["owner_alive"]);
            assert_eq!(state, (&json!(status), &Value::Null, &owner_alive), "round {round}: {run}");
            killed.remove(text(run, "/id"));
        }
        assert!(killed.is_empty(), "round {round}: no run {killed:?}");
        let checkpoints = room.json(["status"]).remove(0)["checkpoints"].clone();
        assert!(checkpoints.as_array().unwrap().iter().all(|one| one["lag"] == 0), "{checkpoints}");

        // Whoever comes next works as if nothing had been.
        let ran = run(&mut room.exec(&[], "echo fine"));
        assert_eq!(ran.code, Some(0), "round {round}: {ran:?}");
    }
    assert!(!acknowledged.is_empty());
    room.ok(["rebuild-projections", "--verify"]);
    let shown = room.ok(["runs"]);
    assert!(shown.contains("endless\tinterrupted"), "{shown}");
}

#[test]
fn a_run_that_goes_on_has_a_living_owner() {
    let room = Room::new();
    let mut running = support::Running::start(&mut room.exec_json(&[], "echo x > works; sleep 600"));
    support::wait_for_line(&room.path("project/works"));
    let run = room.json(["runs"]).remove(0);
    assert_eq!((&run["status"], &run["owner_alive"]), (&json!("running"), &json!(true)));
    assert!(!running.is_over());
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code, Some(130));
    assert_eq!(room.json(["runs"])[0]["owner_alive"], Value::Null, "of a run that is over there is no owner");
}

#[test]
fn ingest_that_is_killed_keeps_each_line_it_acknowledged() {
    use std::io::Write;
    let room = Room::new();
    let line = |number: u64| json!({"id": format!("e{number}"), "timestamp": number, "kind": "user.prompt", "data": {"prompt": "x"}});
    let mut random = Random(0x5eed_0002);
    let (mut acknowledged, mut next) = (HashSet::new(), 0);
    for _ in 0..5 {
        let mut command = room.command(["ingest", "--format", "runtime", "--session", "s1", "--ack"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let first = next;
        next += 2000;
        let writer = std::thread::spawn(move || {
            for number in first..first + 2000 {
                // It may be dead already.
                if writeln!(stdin, "{}", line(number)).is_err() {
                    return;
                }
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let enough = random.below(1500);
        let mut count = 0;
        loop {
            let mut answer = String::new();
            stdout.read_line(&mut answer).unwrap();
            let Some(answer) = answer.strip_suffix('\n') else {
                break;
            };
            if let Ok(answer) = serde_json::from_str::<Value>(answer) {
                acknowledged.insert(format!("e{}", first + answer["line"].as_u64().unwrap() - 1));
            }
            count += 1;
            if count == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        writer.join().unwrap();
        let there: HashSet<String> = room.events().iter().map(|event| text(event, "/id").to_owned()).collect();
        assert!(acknowledged.is_subset(&there), "{:?}", acknowledged.difference(&there));
        room.verify();
    }
    assert!(acknowledged.len() > 100);
}
