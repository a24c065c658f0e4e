//! A ledger on NATS, as people use it: from several machines, each with a copy of its own, cut off and back again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod permission_support;
mod support;
mod web_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use permission_support::{answered, pre, start};
use runledger_testkit::{NatsServers, files_with, new_address, shared_nats};
use serde_json::{Value, json};
use support::{Ran, Room, run, run_with_input, wait_until};
use web_support::Serving;

/// A machine: a room whose program uses the ledger at this address.
struct Machine {
    room: Room,
    address: PathBuf,
}

impl Machine {
    fn new(address: &str) -> Self {
        Self { room: Room::new(), address: address.into() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.room.command_on(&self.address, arguments)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout()
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.json()
    }

    /// Runs an agent that ends after its first turn.
    fn exec(&self, options: &[&str], script: &str) -> Ran {
        let fixed = ["exec", "--json"];
        let harness = ["go", "--", "sh", "-c", script];
        let mut command = self.command(&[&fixed[..], options, &harness[..]].concat());
        run(command.current_dir(self.room.project()))
    }
}

/// A process that ends with this value.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What two logs have to have in common: everything of an event but its position.
fn story(lines: Vec<Value>) -> Vec<Value> {
    let mut story: Vec<Value> = lines
        .into_iter()
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("position");
            line
        })
        .collect();
    story.sort_by_key(|line| (line["stream"].to_string(), line["stream_version"].as_u64()));
    story
}

fn exported(place: &Machine) -> Vec<Value> {
    place.ok(&["export"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_one_machine_does_every_other_one_has() {
    let Some(servers) = shared_nats() else { return };
    let address = new_address(servers, 1);
    let (one, other) = (Machine::new(&address), Machine::new(&address));
    assert_eq!(other.run(&["runs"]).code, Some(3), "there is no ledger yet, and looking makes none");
    let ran = one.exec(&["--session", "s"], "echo done");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for command in [&["runs"][..], &["sessions"], &["feed"], &["events"]] {
        let found = other.json(command);
        assert!(!found.is_empty() && found == one.json(command), "{command:?}: {found:?}");
    }
    let fork = other.ok(&["fork", other.json(&["runs"])[0]["id"].as_str().unwrap(), "--at", "3"]);
    assert_eq!(one.json(&["runs"]).len(), 2, "{fork}");
    other.ok(&["verify"]);
    other.ok(&["rebuild-projections"]);
    assert_eq!(other.json(&["runs"]), one.json(&["runs"]));
    // What a file can do and this cannot says how it is done here, and does nothing.
    for (command, words) in
        [(&["backup", "x.db"][..], "nats stream backup"), (&["restore", "x.db"], "nats stream restore")]
    {
        let refused = other.run(command).is_refused_with(3);
        assert!(refused.contains(words) && refused.contains("nats://"), "{command:?}: {refused}");
    }
    // Nor is the copy written to past the servers.
    let copy = copy_of(&other);
    let refused = run(&mut other.room.command_on(&copy, ["sweep"])).is_refused_with(3);
    assert!(refused.contains("a copy of a log that is kept elsewhere"), "{refused}");
    for (wrong, words) in [("nats://a:b@c/d", "NATS_PASSWORD"), ("nats://a", "name is missing")] {
        let refused = run(&mut one.room.command_on(Path::new(wrong), ["runs"])).is_refused_with(2);
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn what_one_machine_erases_is_in_no_file_of_another_one_once_somebody_reads_there() {
    let Some(servers) = shared_nats() else { return };
    let address = new_address(servers, 1);
    let (one, other) = (Machine::new(&address), Machine::new(&address));
    assert_eq!(one.exec(&["--session", "s"], "echo word-$((77*91))").code, Some(0));
    assert_eq!(one.exec(&["--session", "t"], "echo stays").code, Some(0));
    let told = other.json(&["export", "--session", "s"]);
    let copy = copy_of(&other);
    let stored: Vec<Vec<u8>> = {
        let sqlite = rusqlite::Connection::open(&copy).unwrap();
        let sql = "SELECT content FROM runtime_events WHERE session_key = (SELECT stream_key FROM streams WHERE name = 'session/s')";
        let mut statement = sqlite.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    // The first bytes say how it is stored.
    let parts: Vec<&[u8]> =
        stored.iter().map(|stored| &stored[stored.len() / 2..]).filter(|part| part.len() > 12).collect();
    assert!(parts.len() > 3 && !files_with(copy.parent().unwrap(), &parts).is_empty());

    let erased = one.json(&["redact", "--session", "s", "--reason", "asked for"]);
    assert_eq!(
        [&erased[0]["log_cleared"], &erased[0]["projections_cleared"], &erased[0]["left_on_servers"]],
        [&json!(true), &json!(true), &json!(0)],
        "{erased:?}"
    );
    assert_eq!(other.json(&["feed", "--session", "s"]), one.json(&["feed", "--session", "s"]));
    assert_eq!(files_with(copy.parent().unwrap(), &parts), Vec::<PathBuf>::new());
    // A machine that never had it has the same log, and the seal that one makes fits on all.
    let keys = one.room.path("seal.key").display().to_string();
    one.ok(&["seal", "--init", "--key", &keys]);
    let seal = one.ok(&["seal", "--key", &keys, "--json"]);
    let new = Machine::new(&address);
    let seals = new.room.write("seals", seal).display().to_string();
    for machine in [&one, &other, &new] {
        machine.ok(&["verify", "--seals", &seals]);
        let lines = machine.json(&["export", "--session", "s"]);
        assert!(lines.iter().all(|line| line["event"].is_null()));
        let digests = |lines: &[Value]| lines.iter().map(|line| line["digest"].clone()).collect::<Vec<_>>();
        assert_eq!(digests(&lines), digests(&told));
        let doctor = machine.json(&["doctor"]);
        let found = doctor.iter().find(|finding| finding["check"] == "erased on the servers").unwrap();
        assert_eq!(found["state"], "ok", "{found}");
    }
    // What is archived is in the other ledger, and erased here.
    let to = one.room.path("archive.db").display().to_string();
    let archived = one.json(&["archive", "--before", "2999-01-01", "--to", &to, "--apply"]);
    assert_eq!(archived[0]["session_id"], "t", "{archived:?}");
    assert!(other.json(&["export", "--session", "t"]).iter().all(|line| line["event"].is_null()));
}

#[test]
fn who_may_not_delete_is_told_what_is_left_on_the_servers_until_an_administrator_has_it_deleted() {
    let Some(servers) = NatsServers::start_guarded(1) else { return };
    let machine = Machine::new(&new_address(&servers, 1));
    let run_as = |user: &str, arguments: &[&str]| {
        run(machine
            .command(arguments)
            .env("NATS_USER", user)
            .env("NATS_PASSWORD", user)
            .current_dir(machine.room.project()))
    };
    for session in ["s", "t"] {
        let ran = run_as("runner", &["exec", "--json", "--session", session, "go", "--", "sh", "-c", "echo done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let ran = run_as("runner", &["redact", "--session", "s", "--reason", "asked for", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.json()[0]["left_on_servers"].as_u64().unwrap() > 3, "{ran:?}");
    let to = machine.room.path("archive.db").display().to_string();
    let archive = ["archive", "--before", "2999-01-01", "--to", &to, "--apply"];
    for _ in 0..2 {
        let ran = run_as("runner", &archive);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr().contains("still on the servers") && ran.stderr().contains("NATS_USER"), "{ran:?}");
    }
    let finding = |user: &str| {
        let ran = run_as(user, &["doctor", "--json"]);
        ran.json().into_iter().find(|finding| finding["check"] == "erased on the servers").unwrap()
    };
    assert_eq!(finding("runner")["state"], "wrong");
    assert_eq!(finding("admin")["state"], "ok");
    assert_eq!(finding("runner")["state"], "ok");
    assert_eq!(run_as("runner", &archive).code, Some(0));
}

#[test]
fn a_new_machine_goes_on_from_another_ones_copied_file() {
    let Some(servers) = shared_nats() else { return };
    let address = new_address(servers, 1);
    let one = Machine::new(&address);
    assert_eq!(one.exec(&["--session", "s"], "echo done").code, Some(0));
    let new = Machine::new(&address);
    // The copy is where its folder is: below the home of each.
    let from = copy_of(&one).parent().unwrap().to_owned();
    let below = from.strip_prefix(one.room.path("home")).unwrap();
    let to = new.room.path("home").join(below);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-r").arg(&from).arg(&to).status().unwrap().success());
    // What comes after is copied behind it.
    assert_eq!(one.exec(&["--session", "t"], "echo more").code, Some(0));
    assert_eq!(new.json(&["runs"]), one.json(&["runs"]));
    assert_eq!(exported(&new), exported(&one), "positions and all");
    new.ok(&["verify"]);
}

/// The file that a machine reads.
fn copy_of(machine: &Machine) -> PathBuf {
    machine.json(&["status"])[0]["path"].as_str().unwrap().into()
}

#[test]
fn a_ledger_moves_into_a_stream_and_back_with_every_digest() {
    let Some(servers) = shared_nats() else { return };
    let file = Room::new();
    let local = |arguments: &[&str]| file.ok(arguments);
    let (ran, _) = file.exec_to_end(&["--session", "s"], "echo one");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    local(&["redact", "--session", "s", "--reason", "asked for"]);
    let (ran, _) = file.exec_to_end(&["--session", "t"], "echo two");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let address = new_address(servers, 1);
    let machine = Machine::new(&address);
    // Others have written there before.
    assert_eq!(machine.exec(&["--session", "u"], "echo three").code, Some(0));
    let pushed = file.json(["push", &address]).remove(0);
    let count = file.events().len() as u64;
    assert_eq!((&pushed["appended"], &pushed["known"]), (&json!(count), &json!(0)));
    let again = file.json(["push", &address]).remove(0);
    assert_eq!((&again["appended"], &again["known"]), (&json!(0), &json!(count)));
    // It goes on where it ended.
    file.exec_to_end(&["--session", "t"], "echo four");
    let more = file.json(["push", &address]).remove(0);
    assert_eq!(more["appended"], json!(file.events().len() as u64 - count));
    machine.ok(&["verify"]);
    let of = |lines: Vec<Value>| -> Vec<Value> {
        let own = |line: &Value| !line["stream"].as_str().unwrap().starts_with("ledger/") && line["session_id"] != "u";
        story(lines.into_iter().filter(own).collect())
    };
    let original: Vec<Value> = file.ok(["export"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(of(exported(&machine)), of(original.clone()));
    // And the other way, into a new file.
    let back = Room::new();
    back.ok(["pull", &address]);
    let lines: Vec<Value> = back.ok(["export"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(of(lines), of(original));
    back.ok(["verify"]);
    // A stream that is another one is not written to.
    let same = Room::new();
    support::append(&same.log(), "session/t", r#"{"id":"x","kind":"user.prompt","timestamp":1,"data":{"prompt":"x"}}"#);
    let refused = same.run(["push", &address]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr().contains("stream session/t is another one there"), "{refused:?}");
}

#[test]
fn who_is_cut_off_reads_what_was_copied_writes_nothing_and_keeps_what_hooks_tell() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let machine = Machine::new(&new_address(&servers, 1));
    assert_eq!(machine.exec(&["--session", "s"], "echo done").code, Some(0));
    let runs = machine.json(&["runs"]);
    let prompt = |name: &str| {
        json!({"session_id": "c1", "transcript_path": "/t", "cwd": "/x", "hook_event_name": "UserPromptSubmit",
            "prompt_id": name, "prompt": name})
        .to_string()
    };
    servers.kill(0);
    let reading = machine.run(&["runs", "--json"]);
    assert_eq!((reading.code, reading.json()), (Some(0), runs.clone()));
    let words = reading.stderr();
    assert!(
        words.contains("NATS is not reachable") && words.contains("this machine's copy is read as of position "),
        "{words}"
    );
    let refused = machine.exec(&[], "echo never");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr().contains("NATS is not reachable"), "{refused:?}");
    // A hook ends well, and what it was told waits.
    let hook = run_with_input(&mut machine.command(&["hook"]), prompt("while cut off"));
    assert_eq!((hook.code, hook.stdout().as_str()), (Some(0), ""), "{hook:?}");
    assert!(hook.stderr().contains("waits in"), "{hook:?}");
    // Who follows and who serves begins cut off.
    let lines = machine.room.path("followed");
    let mut command = machine.command(&["feed", "--follow", "--json"]);
    let following = Ended(command.stdout(std::fs::File::create(&lines).unwrap()).spawn().unwrap());
    let followed = |text: &str| std::fs::read_to_string(&lines).unwrap().contains(text);
    wait_until("what was copied", || followed("position"));
    let serving = Serving::by(machine.command(&["serve", "--port", "0"]), &machine.room.path("address"));
    let bearer = format!("Bearer {}", serving.token);
    let ask = |method: &str, path: &str, body: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        serving.ask(method, &format!("/api/v1{path}"), &headers, body)
    };
    assert_eq!(ask("GET", "/runs", "").status, 200);
    let fork = format!("/runs/{}/fork", runs[0]["id"].as_str().unwrap());
    let refused = ask("POST", &fork, r#"{"at": 3}"#);
    assert!(refused.status == 503 && refused.body.contains("NATS is not reachable"), "{refused:?}");
    servers.restart(0);
    wait_until("who serves can write", || ask("POST", &fork, r#"{"at": 3}"#).status == 200);
    assert_eq!(ask("GET", "/runs", "").body.matches("\"forked_at\":3").count(), 1);
    let other = Machine::new(machine.address.to_str().unwrap());
    run_with_input(&mut other.command(&["hook"]), prompt("told elsewhere"));
    wait_until("what is told elsewhere", || followed("told elsewhere"));
    drop(following);
    let feed = machine.ok(&["feed"]);
    assert!(feed.contains("while cut off"), "{feed}");
    let hook = run_with_input(&mut machine.command(&["hook"]), prompt("healed"));
    assert_eq!((hook.code, hook.stderr().as_str()), (Some(0), ""), "{hook:?}");
    assert!(machine.ok(&["feed"]).contains("healed"));
    machine.ok(&["verify"]);
}

#[test]
fn a_question_that_one_machine_asks_another_one_answers() {
    let Some(servers) = shared_nats() else { return };
    let address = new_address(servers, 1);
    let (asks, answers) = (Machine::new(&address), Machine::new(&address));
    // A run with rules, as its runner would have begun it.
    let log = runledger_store_jetstream::JetStreamLog::open(
        &address.parse().unwrap(),
        asks.room.path("elsewhere").as_path(),
        &runledger_store_jetstream::Options::default(),
    )
    .unwrap();
    permission_support::begin_run_in(
        &log,
        &asks.room,
        "r",
        "claude",
        json!({"rules": [{"tool": "Bash(git push:*)", "action": "ask"}]}),
    );
    asks.ok(&["runs"]);
    let mut hook = asks.command(&["hook"]);
    hook.env("RUNLEDGER_RUN_ID", "r").env("RUNLEDGER_SESSION", "s");
    let waiting = start(&mut hook, &pre("t1", "git push"));
    wait_until("the question", || !answers.json(&["pending"]).is_empty());
    answers.ok(&["allow", "t1", "--reason", "from afar"]);
    assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    assert_eq!(asks.json(&["pending", "--all"])[0]["status"], "allowed");
    answers.ok(&["verify"]);
}

#[test]
fn with_the_variables_of_nats_the_program_speaks_tls_and_who_trusts_nobody_there_reads_the_copy() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let machine = Machine::new(&new_address(&servers, 1).replace("nats://", "tls://"));
    let file = |name: &str| servers.folder().join(name);
    let run_with = |ca: &str, arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command.env("NATS_CA", file(ca)).env("NATS_CERT", file("client.pem")).env("NATS_KEY", file("client-key.pem"));
        command.env("RUNLEDGER_PASS_ENV", "NATS_CA,NATS_CERT,NATS_KEY");
        run(command.current_dir(machine.room.project()))
    };
    let rules = json!({"rules": [{"tool": "Bash(rm:*)", "action": "deny", "reason": "nothing is removed"}]});
    let workflow = machine.room.write("project/ship.json", json!({"name": "ship", "permissions": rules}).to_string());
    let payload = machine.room.write("call.json", pre("t1", "rm -rf build").to_string());
    let answer = machine.room.path("answer.json");
    // The agent's hook finds the ledger by what the run says of it, and the files by what is passed on.
    let script = format!("{} hook < {} > {}", env!("CARGO_BIN_EXE_runledger"), payload.display(), answer.display());
    let workflow = workflow.display().to_string();
    let arguments = ["exec", "--json", "--session", "s", "--workflow", &workflow, "go", "--", "sh", "-c", &script];
    let ran = run_with("ca.pem", &arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer: Value = serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap();
    assert_eq!(answer["hookSpecificOutput"]["permissionDecision"], "deny", "{answer}");
    let told = run_with("ca.pem", &["events", "--json"]).json();
    assert!(told.iter().any(|event| event["kind"] == "tool.pre"), "{told:?}");
    let installed = run_with("ca.pem", &["hook", "install", "--dry-run"]);
    assert!(installed.stdout().contains(&format!("--db '{}' hook", machine.address.display())), "{installed:?}");
    let runs = run_with("ca.pem", &["runs", "--json"]);
    assert!(runs.json().len() == 1 && runs.stderr().is_empty(), "{runs:?}");
    // Another signer.
    let alone = run_with("server.pem", &["runs", "--json"]);
    assert_eq!(alone.json(), runs.json());
    assert!(alone.stderr().contains("NATS_CA") && alone.stderr().contains("this machine's copy is read"), "{alone:?}");
    let refused = run_with("server.pem", &["sweep"]);
    assert!(refused.code == Some(3) && refused.stderr().contains("NATS_CA"), "{refused:?}");
    // What this machine alone has wrong is no server's absence.
    let refused = run_with("none.pem", &["runs"]);
    assert!(refused.code == Some(3) && refused.stderr().contains("none.pem"), "{refused:?}");
}
