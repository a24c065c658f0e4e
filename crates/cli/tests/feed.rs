//! `feed`: the timeline as a person, a pipe and a program read it, what is looked for in it, and what comes while one looks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::{Normalizer, Ran, Room, run, run_with_input, text, wait_until};

const ADAPTER: &str = "11111111-2222-4333-8444-555555555555";

/// A hook's payload as a recorder wrote it.
fn hook(at: i64, name: &str, fields: &Value) -> String {
    let mut data = json!({"hook_event_name": name, "session_id": ADAPTER, "cwd": "/p", "prompt_id": "p1",
        "transcript_path": "/t.jsonl"});
    data.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    format!("{}\n", json!({"ts": 1_700_000_000_000_i64 + at, "type": name, "data": data}))
}

/// A turn of Claude Code's as its hooks tell it.
fn turn() -> String {
    let call = |id: &str, more: Value| {
        let mut call = json!({"tool_name": "Bash", "tool_use_id": id, "tool_input": {"command": "ls -la\n/"}});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call
    };
    [
        hook(0, "SessionStart", &json!({"source": "startup", "model": "opus"})),
        hook(10, "UserPromptSubmit", &json!({"prompt": "Find the flaky test\tand \u{1b}[31m mend it"})),
        hook(20, "PreToolUse", &call("t1", json!({}))),
        hook(25, "PermissionRequest", &json!({"tool_name": "Bash", "tool_input": {"command": "ls -la\n/"}})),
        hook(30, "PostToolUse", &call("t1", json!({"tool_response": {"stdout": "bin\netc"}}))),
        hook(40, "PreToolUse", &call("t2", json!({}))),
        hook(50, "PostToolUseFailure", &call("t2", json!({"error": "it broke", "is_interrupt": false}))),
        hook(55, "SubagentStart", &json!({"agent_id": "x1", "agent_type": "explore"})),
        hook(
            60,
            "SubagentStop",
            &json!({"agent_id": "x1", "agent_type": "explore", "last_assistant_message": "Seen."}),
        ),
        hook(70, "Stop", &json!({"stop_hook_active": false, "last_assistant_message": "Mended.\nAll of it."})),
        hook(80, "SessionEnd", &json!({"reason": "other"})),
    ]
    .concat()
}

/// Takes hooks in.
fn ingest(room: &Room, options: &[&str], lines: impl AsRef<[u8]>) {
    let ran = run_with_input(room.command(["ingest", "--format", "claude-hooks"]).args(options), lines);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

fn scene() -> Room {
    let room = Room::new();
    ingest(&room, &["--session", "s1"], turn());
    room
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| text(entry, "/kind")).collect()
}

fn feed(room: &Room, options: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["feed"];
    arguments.extend(options);
    room.json(arguments)
}

/// Nothing to show is no failure: a word on standard error, and nothing on standard output.
fn is_nothing(ran: &Ran) -> String {
    assert_eq!((ran.code, ran.stdout().as_str()), (Some(0), ""), "{ran:?}");
    let stderr = ran.stderr();
    assert_eq!(stderr.lines().count(), 1, "{ran:?}");
    stderr.trim_end().to_owned()
}

#[test]
fn without_a_terminal_each_entry_is_a_line_with_tabs() {
    let room = scene();
    let told = room.ok(["feed"]);
    insta::assert_snapshot!("feed", Normalizer::new(&room).text(&told));
    assert!(told.lines().all(|line| line.split('\t').count() >= 6), "{told}");
    assert!(told.lines().all(|line| line.starts_with("s1\t")), "{told}");
    assert!(!told.contains('\u{1b}'), "{told}");
    assert_eq!(told.lines().count(), feed(&room, &[]).len());
}

#[test]
fn json_has_the_references_names_and_the_place_in_the_log() {
    let room = scene();
    let told = feed(&room, &[]);
    let prompt = told.iter().find(|entry| entry["kind"] == "user.prompt").unwrap();
    let names: Vec<&str> = prompt.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "event_id",
        "seq",
        "ts",
        "session_id",
        "run_id",
        "kind",
        "level",
        "actor_id",
        "cause",
        "title",
        "data",
        "ledger_session_id",
        "first_position",
        "position",
        "workflow",
    ];
    expected.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(prompt["ts"], 1_700_000_000_010_i64);
    assert_eq!((text(prompt, "/session_id"), text(prompt, "/ledger_session_id")), (ADAPTER, "s1"));
    assert_eq!(text(prompt, "/run_id"), format!("{ADAPTER}:R1"));
    assert_eq!(prompt["workflow"], Value::Null);
    assert_eq!(prompt["data"]["prompt"], "Find the flaky test\tand \u{1b}[31m mend it");
    let seqs: Vec<u64> = told.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=told.len() as u64).collect::<Vec<_>>());
}

#[test]
fn raw_adds_the_harnesss_own_words_out_of_the_log() {
    let room = scene();
    let told = feed(&room, &["--raw"]);
    for entry in &told {
        let position = &entry["position"];
        let event = room.events().into_iter().find(|event| &event["position"] == position).unwrap();
        assert_eq!(entry["raw"], event["event"]["payload"], "{entry}");
    }
    let call = told.iter().find(|entry| entry["kind"] == "tool.pre").unwrap();
    assert_eq!(call["raw"]["hook_event_name"], "PreToolUse");
    // And no row of the read model has them
    let plain = feed(&room, &[]);
    assert!(plain.iter().all(|entry| entry.get("raw").is_none()));
}

#[test]
fn a_session_and_a_search_narrow_it_down() {
    let room = scene();
    let other = hook(500, "UserPromptSubmit", &json!({"prompt": "Another flaky one", "session_id": "other"}));
    ingest(&room, &["--session", "s2"], other);
    assert_eq!(kinds(&feed(&room, &["--session", "s2"])), ["run.start", "user.prompt"]);
    assert!(feed(&room, &["--session", "s1"]).iter().all(|entry| entry["ledger_session_id"] == "s1"));
    assert_eq!(kinds(&feed(&room, &["--search", "flaky"])), ["user.prompt", "user.prompt"]);
    assert_eq!(kinds(&feed(&room, &["--search", "mend flaky"])), ["user.prompt"]);
    assert_eq!(kinds(&feed(&room, &["--search", "\"all of\" mended"])), ["agent.message"]);
    let narrow = feed(&room, &["--search", "flaky", "--session", "s2"]);
    assert_eq!((narrow.len(), text(&narrow[0], "/title")), (1, "Another flaky one"));
}

#[test]
fn the_last_ones_are_told_in_their_order() {
    let room = scene();
    let all = feed(&room, &[]);
    for last in [1, 3, all.len(), all.len() + 5] {
        let told = feed(&room, &["--last", &last.to_string()]);
        assert_eq!(told, all[all.len().saturating_sub(last)..], "{last}");
    }
    let of_search = feed(&room, &["--search", "bash", "--last", "1"]);
    let all_of_search = feed(&room, &["--search", "bash"]);
    assert!(all_of_search.len() > 1);
    assert_eq!(of_search, all_of_search[all_of_search.len() - 1..]);
    let none = room.run(["feed", "--last", "0"]);
    assert_eq!((none.code, none.stdout(), none.stderr()), (Some(0), String::new(), String::new()));
}

#[test]
fn a_workflow_run_is_found_by_its_prefix_with_all_that_belongs_to_it() {
    let room = scene();
    let workflow = room.workflow(2);
    let (ran, shown) =
        room.exec_to_end(&["--session", "s3", "--workflow", &workflow], "echo said > \"$RUNLEDGER_TRACKER\"");
    assert_eq!(ran.code, Some(9), "{ran:?}");
    let id = text(&shown, "/id");
    let told = feed(&room, &["--run", id]);
    assert_eq!(kinds(&told)[0], "workflow.start");
    assert_eq!(kinds(&told).last(), Some(&"workflow.end"));
    assert_eq!(kinds(&told).iter().filter(|kind| **kind == "workflow.iteration").count(), 4);
    for entry in &told {
        assert_eq!((&entry["workflow"]["run_id"], &entry["workflow"]["workflow_name"]), (&json!(id), &json!("tidy")));
    }
    assert_eq!(told.last().unwrap()["workflow"]["state"], "done");
    assert_eq!(told.last().unwrap()["workflow"]["iteration"], 2);
    assert_eq!(feed(&room, &["--run", &id[..id.len() - 1]]), told);
    assert_eq!(feed(&room, &["--session", "s3"]), told);
    // A person reads the same
    assert_eq!(room.ok(["feed", "--run", id]).lines().count(), told.len());
}

#[test]
fn nothing_to_show_is_said_and_no_failure() {
    let room = Room::new();
    drop(room.log());
    assert_eq!(is_nothing(&room.run(["feed"])), "the feed is empty");
    ingest(&room, &["--session", "s1"], turn());
    assert_eq!(is_nothing(&room.run(["feed", "--search", "nowhere"])), "nothing in the feed fits nowhere");
    let told = is_nothing(&room.run(["feed", "--session", "nobody"]));
    assert_eq!(told, "session nobody has no entries; `runledger sessions` lists the sessions there are");
    // For a program nothing is nothing
    for options in [&["--search", "nowhere"][..], &["--session", "nobody"], &["--search", ""], &["--search", "\"*("]] {
        let mut command = room.command(["--json", "feed"]);
        let ran = run(command.args(options));
        assert_eq!((ran.code, ran.stdout().as_str(), ran.stderr().as_str()), (Some(0), "", ""), "{options:?}");
    }
}

#[test]
fn an_empty_search_within_a_run_or_session_says_what_was_looked_for() {
    let room = scene();
    let told = is_nothing(&room.run(["feed", "--session", "s1", "--search", "nowhere\u{1b}[31m"]));
    assert!(told.starts_with("nothing in the feed fits nowhere"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let room = scene();
    let told = room.run(["feed", "--run", "0123"]).is_refused_with(1);
    assert!(told.contains("there is no run 0123"), "{told}");
    assert_eq!(room.run(["feed", "--last", "x"]).code, Some(2));
    assert_eq!(room.run(["feed", "--session", ""]).code, Some(2));
    let empty = Room::new();
    empty.run(["feed"]).is_refused_with(3);
    empty.run(["feed", "--follow"]).is_refused_with(3);
    assert!(empty.has_no_ledger());
}

/// A `feed --follow` whose lines come as they are written.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Following {
    fn start(room: &Room, options: &[&str]) -> Self {
        let mut command = room.command(["--json", "feed", "--follow"]);
        let mut child = command.args(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next entry, whenever it comes.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("another line").unwrap()).unwrap()
    }

    fn kinds(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| text(&self.next(), "/kind").to_owned()).collect()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_another_process_takes_in_appears_while_one_follows() {
    let room = scene();
    let there = feed(&room, &[]).len();
    let mut following = Following::start(&room, &[]);
    assert_eq!(following.kinds(there).len(), there);
    // When
    ingest(&room, &["--session", "s1"], hook(500, "UserPromptSubmit", &json!({"prompt": "More", "prompt_id": "p2"})));
    // Then
    assert_eq!(following.kinds(2), ["run.start", "user.prompt"]);
    ingest(&room, &["--session", "s2"], hook(600, "Notification", &json!({"message": "Look"})));
    assert_eq!(following.kinds(1), ["notification"]);
    assert!(following.child.try_wait().unwrap().is_none(), "it goes on");
}

#[test]
fn following_narrowed_down_tells_only_what_fits() {
    let room = scene();
    let mut of_session = Following::start(&room, &["--session", "s2"]);
    let mut of_search = Following::start(&room, &["--search", "pear"]);
    let mut of_last = Following::start(&room, &["--last", "1"]);
    assert_eq!(of_last.kinds(1), ["session.end"]);
    let prompt = |prompt: &str, id: &str| json!({"prompt": prompt, "prompt_id": id, "session_id": "other"});
    ingest(&room, &["--session", "s1"], hook(500, "UserPromptSubmit", &prompt("An apple", "p2")));
    ingest(&room, &["--session", "s2"], hook(600, "UserPromptSubmit", &prompt("A pear", "p3")));
    assert_eq!(of_session.next()["ledger_session_id"], "s2");
    assert_eq!(of_session.next()["title"], "A pear");
    assert_eq!(of_search.next()["title"], "A pear");
    assert_eq!(of_last.kinds(4), ["run.start", "user.prompt", "run.start", "user.prompt"]);
}

#[test]
fn following_after_none_of_the_last_ones_tells_only_what_comes() {
    let room = scene();
    let there = feed(&room, &[]).len() as u64;
    let mut following = Following::start(&room, &["--last", "0"]);
    let is_told = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It says nothing when it begins, so more comes until it says something.
        scope.spawn(|| {
            for n in 0.. {
                if is_told.load(Ordering::Acquire) {
                    break;
                }
                let told = json!({"message": format!("Look {n}")});
                ingest(&room, &["--session", "s1"], hook(1000 + n, "Notification", &told));
            }
        });
        let first = following.next();
        is_told.store(true, Ordering::Release);
        assert!(first["seq"].as_u64() > Some(there), "{first}");
    });
}

#[test]
fn following_begins_before_there_is_anything() {
    let room = Room::new();
    drop(room.log());
    let mut following = Following::start(&room, &["--last", "5"]);
    ingest(&room, &[], hook(0, "SessionStart", &json!({"source": "startup"})));
    assert_eq!(following.next()["ledger_session_id"], ADAPTER);
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let room = scene();
    let mut following = Following::start(&room, &[]);
    following.next();
    // When nobody reads any more, and more comes
    drop(std::mem::replace(&mut following.lines, closed()));
    let mut n = 0;
    wait_until("the end of what follows for nobody", || {
        n += 1;
        ingest(&room, &["--session", "s1"], hook(1000 + n, "Notification", &json!({"message": format!("Look {n}")})));
        following.child.try_wait().unwrap().is_some()
    });
}

/// The lines of a program that is over.
fn closed() -> std::io::Lines<BufReader<std::process::ChildStdout>> {
    let mut child = std::process::Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    child.wait().unwrap();
    lines
}
