//! `ingest` of what harnesses write: each format goes in once, whatever is torn, and joins the session it is of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Ran, Room, run, run_with_input, text};

const ADAPTER: &str = "11111111-2222-4333-8444-555555555555";

/// What a format's lines are in these tests, and what they tell.
struct Fixture {
    format: &'static str,
    source: &'static str,
    lines: Vec<String>,
    /// The kinds of the events of all lines together.
    kinds: &'static [&'static str],
    /// One more line, as the file grows, and its kinds.
    more: (String, &'static [&'static str]),
}

fn lines(lines: impl IntoIterator<Item = Value>) -> Vec<String> {
    lines.into_iter().map(|line| line.to_string()).collect()
}

fn claude_hooks() -> Fixture {
    let bare = |name: &str, more: Value| {
        let mut payload = json!({"hook_event_name": name, "session_id": ADAPTER, "transcript_path": "/t", "cwd": "/p"});
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        payload
    };
    let wrapped = |at: i64, payload: Value| json!({"ts": at, "type": payload["hook_event_name"], "data": payload});
    let call = json!({"tool_name": "Bash", "tool_use_id": "t1", "tool_input": {"command": "ls"}, "prompt_id": "p1"});
    let stop = bare("Stop", json!({"last_assistant_message": "Done."}));
    Fixture {
        format: "claude-hooks",
        source: "hook:",
        lines: lines([
            wrapped(1000, bare("SessionStart", json!({"source": "startup"}))),
            wrapped(2000, bare("UserPromptSubmit", json!({"prompt": "Go", "prompt_id": "p1"}))),
            bare("PreToolUse", call),
            wrapped(3000, stop.clone()),
            // The same again, to the letter, is another call of the hook
            wrapped(3000, stop),
        ]),
        kinds: &["session.start", "user.prompt", "tool.pre", "stop.request", "stop.request"],
        more: (wrapped(4000, bare("SessionEnd", json!({"reason": "other"}))).to_string(), &["session.end"]),
    }
}

fn claude_stream() -> Fixture {
    let line = |uuid: &str, more: Value| {
        let mut line = json!({"uuid": uuid, "session_id": ADAPTER, "timestamp": "2026-01-02T03:04:05.678Z"});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let content = json!([{"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}]);
    let result = json!([{"type": "tool_result", "tool_use_id": "t1", "content": "files"}]);
    Fixture {
        format: "claude-stream",
        source: "stream:",
        lines: lines([
            // What the hooks of a start say comes before the session is named
            line("u0", json!({"type": "system", "subtype": "hook_started", "session_id": "passing"})),
            line("u1", json!({"type": "system", "subtype": "init", "cwd": "/p", "model": "opus"})),
            line("u2", json!({"type": "assistant", "message": {"id": "m1", "model": "opus", "content": content}})),
            line("u3", json!({"type": "user", "message": {"role": "user", "content": result}})),
        ]),
        kinds: &["unknown", "session.start", "message.complete", "tool.pre", "tool.post"],
        more: (
            line("u4", json!({"type": "result", "subtype": "success", "is_error": false, "result": "Done."}))
                .to_string(),
            &["usage.update", "turn.complete"],
        ),
    }
}

fn claude_transcript() -> Fixture {
    let line = |uuid: &str, more: Value| {
        let mut line =
            json!({"uuid": uuid, "sessionId": ADAPTER, "timestamp": "2026-01-02T03:04:05.678Z", "cwd": "/p"});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let said = |text: &str| json!({"id": "m1", "model": "opus", "content": [{"type": "text", "text": text}]});
    Fixture {
        format: "claude-transcript",
        source: "transcript:",
        lines: lines([
            json!({"type": "summary", "summary": "Nobody's", "leafUuid": "x"}),
            line("u1", json!({"type": "user", "promptId": "p1", "message": {"role": "user", "content": "Go"}})),
            line("u2", json!({"type": "assistant", "message": said("I look.")})),
        ]),
        kinds: &["unknown", "user.prompt", "message.complete"],
        more: (line("u3", json!({"type": "assistant", "message": said("Done.")})).to_string(), &["message.complete"]),
    }
}

fn codex_rollout() -> Fixture {
    let line =
        |kind: &str, payload: Value| json!({"timestamp": "2026-01-02T03:04:05.678Z", "type": kind, "payload": payload});
    let call =
        json!({"type": "function_call", "name": "exec_command", "call_id": "c1", "arguments": "{\"cmd\":\"ls\"}"});
    Fixture {
        format: "codex-rollout",
        source: "transcript:",
        lines: lines([
            line("world_state", json!({"early": true})),
            line("session_meta", json!({"id": ADAPTER, "cwd": "/p"})),
            line("event_msg", json!({"type": "task_started", "turn_id": "turn-1"})),
            line("event_msg", json!({"type": "user_message", "message": "Go"})),
            line("response_item", call),
            line("response_item", json!({"type": "function_call_output", "call_id": "c1", "output": "files"})),
        ]),
        kinds: &["unknown", "session.start", "turn.start", "user.prompt", "tool.pre", "tool.post"],
        more: (
            line("event_msg", json!({"type": "task_complete", "turn_id": "turn-1"})).to_string(),
            &["turn.complete"],
        ),
    }
}

fn codex_json() -> Fixture {
    let item = |kind: &str, text: &str| json!({"id": "item_0", "type": kind, "text": text});
    Fixture {
        format: "codex-json",
        source: "stream:",
        lines: lines([
            json!({"type": "warning", "message": "early"}),
            json!({"type": "thread.started", "thread_id": ADAPTER}),
            json!({"type": "turn.started"}),
            json!({"type": "item.completed", "item": item("agent_message", "Done.")}),
            json!({"type": "item.completed", "item": item("agent_message", "Done.")}),
        ]),
        kinds: &["unknown", "session.start", "turn.start", "message.complete", "message.complete"],
        more: (json!({"type": "turn.failed", "error": {"message": "no"}}).to_string(), &["turn.complete"]),
    }
}

fn fixtures() -> [Fixture; 5] {
    [claude_hooks(), claude_stream(), claude_transcript(), codex_rollout(), codex_json()]
}

impl Fixture {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// With one more line.
    fn grown(&self) -> String {
        format!("{}{}\n", self.text(), self.more.0)
    }

    fn ingest(&self, room: &Room, options: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut command = room.command(["--json", "ingest", "--format", self.format]);
        run_with_input(command.args(options), input)
    }
}

/// Lines, appended and duplicates; and the lines that were rejected, with the reason.
fn report(ran: &Ran) -> ([u64; 3], Vec<(u64, String)>) {
    let report = ran.json().pop().unwrap_or_else(|| panic!("a report: {ran:?}"));
    let rejected: Vec<(u64, String)> = report["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["line"].as_u64().unwrap(), text(one, "/reason").to_owned()))
        .collect();
    assert_eq!(ran.code, Some(i32::from(!rejected.is_empty())), "{ran:?}");
    (["lines", "appended", "duplicates"].map(|name| report[name].as_u64().unwrap()), rejected)
}

fn counted(lines: usize, appended: usize, duplicates: usize) -> ([u64; 3], Vec<(u64, String)>) {
    ([lines as u64, appended as u64, duplicates as u64], Vec::new())
}

fn kinds(room: &Room) -> Vec<String> {
    room.events().iter().map(|event| text(event, "/kind").to_owned()).collect()
}

/// The session of each event, once where it does not change.
fn sessions(room: &Room) -> Vec<String> {
    let mut sessions: Vec<String> = room.events().iter().map(|event| text(event, "/session_id").to_owned()).collect();
    sessions.dedup();
    sessions
}

#[test]
fn each_format_goes_in_and_the_same_file_again_appends_nothing() {
    for fixture in fixtures() {
        let room = Room::new();
        let (count, events) = (fixture.lines.len(), fixture.kinds.len());
        assert_eq!(
            report(&fixture.ingest(&room, &[], fixture.text())),
            counted(count, events, 0),
            "{}",
            fixture.format
        );
        assert_eq!(kinds(&room), fixture.kinds, "{}", fixture.format);
        // Then its source and its own words are in every event
        let before = room.events();
        for event in &before {
            assert!(text(event, "/id").starts_with(fixture.source), "{event}");
        }
        let told: String = room.ok(["events", "--json"]);
        for line in &fixture.lines {
            let payload = serde_json::from_str::<Value>(line).unwrap();
            let payload = if payload.get("ts").is_some() { payload["data"].to_string() } else { line.clone() };
            assert!(told.contains(&payload), "{}: {payload}", fixture.format);
        }
        // When it comes again, by whichever way
        assert_eq!(
            report(&fixture.ingest(&room, &[], fixture.text())),
            counted(count, 0, events),
            "{}",
            fixture.format
        );
        let file = room.write("recorded.jsonl", fixture.text());
        let ran = run(room.command(["--json", "ingest", "--format", fixture.format]).arg(&file).arg(&file));
        assert_eq!(report(&ran), counted(2 * count, 0, 2 * events), "{}", fixture.format);
        assert_eq!(room.events(), before, "{}", fixture.format);
        room.verify();
    }
}

#[test]
fn a_file_that_grew_appends_only_what_is_new() {
    for fixture in fixtures() {
        let room = Room::new();
        // Given a file whose last line was being written
        let (begun, rest) = fixture.more.0.split_at(fixture.more.0.len() / 2);
        assert!(!rest.is_empty());
        let torn = format!("{}{begun}", fixture.text());
        let (figures, rejected) = report(&fixture.ingest(&room, &[], torn));
        assert_eq!(figures[1], fixture.kinds.len() as u64, "{}", fixture.format);
        assert_eq!(rejected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [fixture.lines.len() as u64 + 1]);
        // When it is whole
        let grown = report(&fixture.ingest(&room, &[], fixture.grown()));
        let (count, old, new) = (fixture.lines.len() + 1, fixture.kinds.len(), fixture.more.1.len());
        assert_eq!(grown, counted(count, new, old), "{}", fixture.format);
        assert_eq!(kinds(&room)[old..], *fixture.more.1, "{}", fixture.format);
    }
}

#[test]
fn a_torn_line_is_reported_and_everything_around_it_is_kept() {
    for fixture in fixtures() {
        let room = Room::new();
        let at = fixture.lines.len() - 1;
        let mut lines = fixture.lines.clone();
        lines.insert(at, "{\"torn\": \"in the mid".to_owned());
        lines.insert(0, "[1, 2]".to_owned());
        lines.insert(0, String::new());
        let mut bytes = lines.join("\n").into_bytes();
        bytes.extend(b"\n\xff\xfe\n");
        let ran = fixture.ingest(&room, &[], bytes);
        let (figures, rejected) = report(&ran);
        assert_eq!(figures, [fixture.lines.len() as u64 + 3, fixture.kinds.len() as u64, 0], "{}", fixture.format);
        let numbers: Vec<u64> = rejected.iter().map(|(line, _)| *line).collect();
        let torn = at as u64 + 3;
        assert_eq!(numbers, [2, torn, fixture.lines.len() as u64 + 4], "{}: {rejected:?}", fixture.format);
        assert_eq!(kinds(&room), fixture.kinds, "{}", fixture.format);
        for (number, _) in &rejected {
            assert!(ran.stderr().contains(&format!("-:{number}: ")), "{}: {ran:?}", fixture.format);
        }
        // And nothing of it moved what is there: whole, it appends nothing
        let again = report(&fixture.ingest(&room, &[], fixture.text()));
        assert_eq!(again, counted(fixture.lines.len(), 0, fixture.kinds.len()), "{}", fixture.format);
    }
}

#[test]
fn each_line_is_acknowledged_with_the_position_of_its_last_event_once_it_is_durable() {
    for fixture in fixtures() {
        let room = Room::new();
        let mut command = room.command(["--json", "ingest", "--ack", "--format", fixture.format]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answer = || serde_json::from_str::<Value>(&answers.next().unwrap().unwrap()).unwrap();
        let mut say = |line: &str| {
            writeln!(stdin, "{line}").unwrap();
            stdin.flush().unwrap();
        };
        // A line that waits for its session is acknowledged with the one that names it; each other one by itself.
        let waits = fixture.format != "claude-hooks";
        let mut number = 0;
        for (index, line) in fixture.lines.iter().enumerate() {
            say(line);
            if waits && index == 0 {
                continue;
            }
            while number <= index {
                number += 1;
                let told = answer();
                assert_eq!(told["line"], number, "{}", fixture.format);
                // What is acknowledged can be read by another process.
                let position = told["position"].as_u64().unwrap();
                let events = room.events();
                assert!(events.len() as u64 >= position, "{}: {told}", fixture.format);
                let next = events.get(usize::try_from(position).unwrap());
                assert!(next.is_none_or(|event| event["event"].get("payload").is_some()), "{}: {told}", fixture.format);
            }
        }
        assert_eq!(room.events().len(), fixture.kinds.len(), "{}", fixture.format);
        // A line that was there is acknowledged where it was; one that is not taken is not.
        say("torn");
        say(&fixture.more.0);
        assert_eq!(answer()["line"], number + 2, "{}", fixture.format);
        drop(stdin);
        assert_eq!(answer()["rejected"][0]["line"], number + 1, "{}", fixture.format);
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn lines_that_name_no_session_are_of_the_one_before_and_the_first_wait_for_one() {
    for fixture in fixtures() {
        let room = Room::new();
        // Given lines before and behind all others that name none
        let nameless = match fixture.format {
            "claude-hooks" => r#"{"hook_event_name":"Notification","message":"N"}"#,
            "claude-stream" => r#"{"type":"system","subtype":"status","n":"N"}"#,
            _ => r#"{"type":"new-thing","n":"N"}"#,
        };
        let begin = nameless.replace("\"N\"", "\"before\"");
        let end = nameless.replace("\"N\"", "\"behind\"");
        let ran = fixture.ingest(&room, &[], format!("{begin}\n{}{end}\n", fixture.text()));
        assert_eq!(report(&ran).1, [], "{}", fixture.format);
        // Then they are in its session, in their order
        assert_eq!(sessions(&room), [ADAPTER], "{}", fixture.format);
        let told: Vec<String> = room.events().iter().map(Value::to_string).collect();
        assert_eq!(told.len(), fixture.kinds.len() + 2);
        assert!(told[0].contains("before") && told[told.len() - 1].contains("behind"), "{}", fixture.format);
    }
}

#[test]
fn a_file_that_names_no_session_is_not_taken_without_a_word() {
    for fixture in fixtures().into_iter().filter(|fixture| fixture.format != "claude-hooks") {
        let room = Room::new();
        let nameless = format!("{}\n", fixture.lines[0]);
        let (figures, rejected) = report(&fixture.ingest(&room, &[], &nameless));
        assert_eq!(figures, [1, 0, 0], "{}", fixture.format);
        assert!(rejected[0].1.contains("--session"), "{rejected:?}");
        // The next file's session is not this one's
        let (one, two) = (room.write("one.jsonl", &nameless), room.write("two.jsonl", fixture.text()));
        let mut command = room.command(["--json", "ingest", "--format", fixture.format]);
        let (figures, rejected) = report(&run(command.arg(&two).arg(&one)));
        assert_eq!((figures[1], rejected.len()), (fixture.kinds.len() as u64, 1), "{}", fixture.format);
        // With a session it is
        let named = report(&fixture.ingest(&room, &["--session", "s1"], &nameless));
        assert_eq!(named, counted(1, 1, 0), "{}", fixture.format);
    }
}

#[test]
fn a_session_that_is_named_is_taken_at_its_word() {
    for fixture in fixtures() {
        let room = Room::new();
        let whole = counted(fixture.lines.len(), fixture.kinds.len(), 0);
        assert_eq!(report(&fixture.ingest(&room, &["--session", "s1"], fixture.text())), whole, "{}", fixture.format);
        assert_eq!(sessions(&room), ["s1"]);
        // Though the ledger knows the harness session by now, another name is another session
        assert_eq!(report(&fixture.ingest(&room, &["--session", "s2"], fixture.text())), whole, "{}", fixture.format);
        assert_eq!(sessions(&room), ["s1", "s2"]);
        // And so is one of the environment
        let mut command = room.command(["--json", "ingest", "--format", fixture.format]);
        let ran = run_with_input(command.env("RUNLEDGER_SESSION", "s3"), fixture.text());
        assert_eq!(report(&ran), whole, "{}", fixture.format);
        // Without a name it goes where it was known first
        let again = report(&fixture.ingest(&room, &[], fixture.grown()));
        let (count, old, new) = (fixture.lines.len() + 1, fixture.kinds.len(), fixture.more.1.len());
        assert_eq!(again, counted(count, new, old), "{}", fixture.format);
        assert_eq!(sessions(&room), ["s1", "s2", "s3", "s1"]);
        let adapter = &room.events()[1]["adapter_session_id"];
        assert_eq!(adapter, ADAPTER, "{}", fixture.format);
    }
}

#[test]
fn what_a_harness_session_tells_later_joins_the_run_that_started_it() {
    // Given a run of Claude Code, in a session with a name
    let room = Room::new();
    let stream = claude_stream();
    let file = room.write("stream.jsonl", stream.grown());
    room.program("claude", &format!("cat > /dev/null; cat '{}'", file.display()));
    let ran = run(&mut room.command(["exec", "--session", "demo", "Go"]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let uses = |room: &Room| {
        let feed = room.json(["feed"]);
        feed.iter().filter(|entry| entry["kind"] == "tool.pre").count()
    };
    assert_eq!(uses(&room), 1);
    // When its transcript and its hooks are taken in, and nobody says where they belong
    for fixture in [claude_transcript(), claude_hooks()] {
        let whole = counted(fixture.lines.len(), fixture.kinds.len(), 0);
        assert_eq!(report(&fixture.ingest(&room, &[], fixture.text())), whole, "{}", fixture.format);
    }
    // Then it is one session, whose entries know their run
    assert_eq!(sessions(&room), ["demo"]);
    let run_id = room.json(["runs"])[0]["id"].clone();
    let feed = room.json(["feed"]);
    assert!(feed.iter().all(|entry| entry["workflow"]["run_id"] == run_id), "{feed:#?}");
    // And what was told three times is there once
    assert_eq!(uses(&room), 1);
    let messages: Vec<&str> = feed
        .iter()
        .filter(|entry| entry["kind"] == "agent.message")
        .map(|entry| text(entry, "/data/message"))
        .collect();
    assert_eq!(messages, ["I look.", "Done."]);
    assert_eq!(room.json(["sessions"]).len(), 1);
    room.verify();
}

#[test]
fn a_session_that_is_known_only_from_its_own_record_keeps_its_own_id() {
    let room = Room::new();
    let (transcript, hooks) = (claude_transcript(), claude_hooks());
    transcript.ingest(&room, &[], transcript.text());
    hooks.ingest(&room, &[], hooks.text());
    assert_eq!(sessions(&room), [ADAPTER]);
    let prompts = room.json(["feed"]).into_iter().filter(|entry| entry["kind"] == "user.prompt").count();
    assert_eq!(prompts, 1);
}
