//! `/api/v1` of `serve`: the same objects as `--json`, and the same acts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use permission_support::{answered, hook_of_run, pre, room_with_run, start, wait_for_question};
use serde_json::{Value, json};
use support::{Room, text};

const TOKEN: &str = "a-token-of-the-tests";

/// A running `serve`, ended with its test.
struct Serve {
    child: Child,
    address: String,
}

impl Serve {
    fn of(room: &Room, options: &[&str]) -> Self {
        let mut command = room.command(["--json", "serve", "--port", "0"]);
        command.args(options).env("RUNLEDGER_TOKEN", TOKEN).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { child, address: text(&said, "/address").to_owned() }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, &body.to_string());
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

const AGENT: &str = r#"if [ $RUNLEDGER_ITERATION -ge 2 ]; then last='<!-- WORKFLOW_COMPLETE -->'; else last='more to do'; fi
{ echo '# Plan'; echo "$last"; } > "$RUNLEDGER_TRACKER""#;

/// A room with a run that is complete, one that failed, and a session that was told.
fn room() -> Room {
    let room = Room::new();
    let workflow = json!({"name": "tidy", "loop": {"enabled": true, "maxIterations": 3,
        "trackerPath": ".runledger/{sessionId}/tracker.md"}});
    let workflow = room.write("project/tidy.json", workflow.to_string()).display().to_string();
    let (ran, _) = room.exec_to_end(&["--workflow", &workflow, "--session", "demo"], AGENT);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    room.exec_to_end(&["--session", "demo"], "exit 3");
    let told = r#"{"id":"t1","timestamp":1761000000100,"kind":"user.prompt","sessionId":"a1","data":{"prompt":"tidy the flaky test"}}
{"id":"t2","timestamp":1761000000300,"kind":"permission.request","sessionId":"a1","data":{"tool_name":"Bash","tool_use_id":"toolu_1","tool_input":{"command":"ls"}}}
"#;
    let told = room.write("told.jsonl", told).display().to_string();
    room.ok(["ingest", "--format", "runtime", "--session", "told", &told]);
    room
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer[name].as_array().unwrap_or_else(|| panic!("{name}: {answer}"))
}

#[test]
fn every_object_is_the_one_that_the_command_prints() {
    let room = room();
    let serve = Serve::of(&room, &[]);
    assert_eq!(list(&serve.get("/runs"), "runs"), &room.json(["runs"]));
    assert_eq!(list(&serve.get("/runs?tree=true"), "runs"), &room.json(["runs", "--tree"]));
    let failed = serve.get("/runs?status=failed&session=demo&limit=1");
    assert_eq!(list(&failed, "runs"), &room.json(["runs", "--status", "failed"]));
    let first = serve.get("/runs?limit=1");
    let second = serve.get(&format!("/runs?limit=1&before={}", first["before"]));
    let both: Vec<Value> = [first, second].iter().flat_map(|page| list(page, "runs").clone()).collect();
    assert_eq!(both, room.json(["runs"]));

    let id = text(&both[1], "/id").to_owned();
    assert_eq!(serve.get(&format!("/runs/{id}")), room.json(["show", &id])[0]);
    let at = both[1]["first_position"].as_u64().unwrap() + 2;
    let then = room.json(["show", &id, "--at", &at.to_string()]);
    assert_eq!(serve.get(&format!("/runs/{id}?at={at}")), then[0]);

    assert_eq!(list(&serve.get("/sessions"), "sessions"), &room.json(["sessions"]));
    assert_eq!(serve.get("/sessions/told"), room.json(["sessions"])[0]);
    assert_eq!(list(&serve.get("/feed?after=0.0.0.0&limit=1000"), "entries"), &room.json(["feed"]));
    assert_eq!(list(&serve.get("/feed?limit=2"), "entries"), &room.json(["feed", "--last", "2"]));
    assert_eq!(list(&serve.get("/feed?q=flaky&session=told"), "entries"), &room.json(["feed", "--search", "flaky"]));
    assert_eq!(list(&serve.get(&format!("/runs/{id}/feed")), "entries"), &room.json(["feed", "--run", &id]));

    let events = room.events();
    assert_eq!(list(&serve.get("/events?limit=1000"), "events"), &events);
    assert_eq!(list(&serve.get(&format!("/events?run={id}")), "events"), &room.json(["events", "--run", &id]));
    assert_eq!(list(&serve.get("/events?session=told"), "events"), &room.json(["events", "--session", "told"]));
    assert_eq!(serve.get("/events/3"), events[2]);

    assert_eq!(list(&serve.get("/permissions?all=true"), "requests"), &room.json(["pending", "--all"]));
    assert_eq!(serve.get("/permissions/toolu_1"), room.json(["context", "toolu_1"])[0]);

    let mut status = [serve.get("/status"), room.json(["status"]).remove(0)];
    let checkpoints = serve.get("/projections")["projections"].clone();
    assert_eq!(checkpoints, status[0]["checkpoints"]);
    // Sizes change while it is looked at.
    status.iter_mut().for_each(|status| status["sizes"] = Value::Null);
    assert_eq!(status[0], status[1]);
}

#[test]
fn pages_of_the_feed_and_of_events_meet_without_a_gap() {
    let room = room();
    let serve = Serve::of(&room, &["--read-only"]);
    let all = room.json(["feed"]);
    let (mut onward, mut cursor) = (Vec::new(), "0.0.0.0".to_owned());
    let mut page = serve.get("/feed?limit=3&after=0.0.0.0");
    while !list(&page, "entries").is_empty() {
        onward.extend(list(&page, "entries").clone());
        cursor = text(&page, "/after").to_owned();
        page = serve.get(&format!("/feed?limit=3&after={cursor}"));
    }
    assert_eq!((onward, text(&page, "/after")), (all.clone(), cursor.as_str()));
    let mut back = Vec::new();
    let mut page = serve.get("/feed?limit=3");
    while !list(&page, "entries").is_empty() {
        back.splice(0..0, list(&page, "entries").clone());
        page = serve.get(&format!("/feed?limit=3&before={}", text(&page, "/before")));
    }
    assert_eq!(back, all);
    let (mut events, mut after) = (Vec::new(), json!(0));
    loop {
        let page = serve.get(&format!("/events?limit=4&after={after}"));
        events.extend(list(&page, "events").clone());
        after = page["scanned_to"].clone();
        if after == page["head"] {
            break;
        }
    }
    assert_eq!(events, room.events());
}

#[test]
fn acts_are_those_of_the_commands_and_refused_where_they_are() {
    let room = room();
    let serve = Serve::of(&room, &[]);
    let run = room.json(["runs", "--status", "completed"]).remove(0);
    let id = text(&run, "/id").to_owned();
    // A fork is a run that nobody drives: it can be told, and cancelled.
    let forked = serve.post(&format!("/runs/{id}/fork"), &json!({"iteration": 1}));
    let fork = text(&forked, "/run_id").to_owned();
    let shown = room.json(["show", &fork]).remove(0);
    assert_eq!((&shown["forked_from"], &shown["forked_at"]), (&run["id"], &forked["forked_at"]));
    let told = serve.post(&format!("/runs/{fork}/signal"), &json!({"name": "reviewed", "data": {"by": "jo"}}));
    let position = told["events"][0]["position"].as_u64().unwrap();
    assert_eq!(serve.get(&format!("/events/{position}")), told["events"][0]);
    let ended = serve.post(&format!("/runs/{fork}/cancel"), &json!({}));
    assert!(list(&ended, "events").len() > 1, "{ended}");
    assert_eq!(room.json(["show", &fork])[0]["status"], "cancelled");

    let refusals = [
        (409, format!("/runs/{fork}/cancel"), json!({})),
        (404, "/runs/0000/cancel".to_owned(), json!({})),
        (400, format!("/runs/{fork}/cancel"), json!({"why": "?"})),
        (409, format!("/runs/{fork}/signal"), json!({"name": "pause"})),
        (400, format!("/runs/{fork}/signal"), json!({"name": "pause", "data": 1})),
        (400, format!("/runs/{fork}/signal"), json!({"name": " "})),
        (400, format!("/runs/{fork}/signal"), json!({"name": "cancel"})),
        (400, format!("/runs/{id}/fork"), json!({})),
        (400, format!("/runs/{id}/fork"), json!({"at": 1, "iteration": 1})),
        (409, format!("/runs/{id}/fork"), json!({"at": 999_999})),
        (404, "/permissions/nothing/decision".to_owned(), json!({"verdict": "allow"})),
        (409, "/permissions/toolu_1/decision".to_owned(), json!({"verdict": "allow"})),
        (400, "/permissions/toolu_1/decision".to_owned(), json!({"verdict": "perhaps"})),
    ];
    for (status, path, body) in refusals {
        let (found, answer) = serve.ask("POST", &path, &body.to_string());
        assert_eq!(found, status, "{path} {body}: {answer}");
        assert!(!text(&answer, "/error").is_empty() && !text(&answer, "/next").is_empty(), "{answer}");
    }
    let read_only = Serve::of(&room, &["--read-only"]);
    let (status, answer) = read_only.ask("POST", &format!("/runs/{id}/fork"), r#"{"iteration":1}"#);
    assert_eq!((status, text(&answer, "/error")), (403, "this server only reads"));
}

#[test]
fn a_rebuild_is_a_job_that_tells_how_far_it_is_and_what_the_command_tells() {
    let room = room();
    let serve = Serve::of(&room, &[]);
    let begun = serve.post("/projections/rebuild", &json!({"projections": ["workflow_runs", "sessions"]}));
    assert_eq!((&begun["id"], &begun["kind"]), (&json!(1), &json!("rebuild")));
    let mut job = begun;
    support::wait_until("the job", || {
        job = serve.get("/jobs/1");
        !job["ended_at"].is_null()
    });
    assert_eq!((&job["position"], &job["error"]), (&job["head"], &Value::Null), "{job}");
    let mut told = room.json(["rebuild-projections", "--projection", "workflow_runs", "sessions"]);
    let mut rebuilt = list(&job, "rebuilt").clone();
    for one in told.iter_mut().chain(&mut rebuilt) {
        one["seconds"] = Value::Null;
    }
    assert_eq!(rebuilt, told);
    assert_eq!(list(&serve.get("/jobs"), "jobs").len(), 1);
    let (status, answer) = serve.ask("POST", "/projections/rebuild", r#"{"projections":["nothing"]}"#);
    assert_eq!(status, 400, "{answer}");
    assert_eq!(serve.ask("GET", "/jobs/7", "").0, 404);
    room.verify();
}

#[test]
fn a_check_is_a_job_that_tells_what_the_command_tells_of_a_changed_log_too() {
    let room = room();
    let serve = Serve::of(&room, &[]);
    for id in [1, 2] {
        assert_eq!(serve.post("/verify", &json!({}))["kind"], json!("verify"));
        let mut job = Value::Null;
        support::wait_until("the job", || {
            job = serve.get(&format!("/jobs/{id}"));
            !job["ended_at"].is_null()
        });
        let told = support::run(&mut room.command(["verify", "--json"]));
        assert_eq!(list(&job, "checks"), &told.json(), "{job}");
        let wrong = list(&job, "checks").iter().filter(|check| check["ok"] == json!(false)).count();
        assert_eq!((wrong > 0, told.code), (id == 2, Some(id - 1)), "{job}");
        let erased = "UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 1";
        room.sqlite().execute(erased, []).unwrap();
    }
    let (status, answer) = Serve::of(&room, &["--read-only"]).ask("POST", "/verify", "{}");
    assert_eq!(status, 403, "{answer}");
}

#[test]
fn a_decision_over_http_answers_the_hook_that_waits_and_the_first_one_counts() {
    let room = room_with_run(json!({"rules": [{"tool": "Bash(git push:*)", "action": "ask"}]}));
    let serve = Serve::of(&room, &[]);
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let question = wait_for_question(&room, "t1");
    let position = question["position"].as_u64().unwrap();
    let listed = serve.get("/permissions?run=r");
    assert_eq!(list(&listed, "requests").len(), 1);
    let path = format!("/permissions/{position}/decision");
    let refusals = [
        json!({"verdict": "deny"}),
        json!({"verdict": "deny", "reason": " "}),
        json!({"verdict": "allow", "pattern": "Bash(git:*)"}),
        json!({"verdict": "allow", "answers": {"Which?": "This"}}),
        json!({"verdict": "allow", "scope": "run", "pattern": "(("}),
    ];
    for body in refusals {
        let (status, answer) = serve.ask("POST", &path, &body.to_string());
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let decided = serve.post(&path, &json!({"verdict": "deny", "reason": "not today"}));
    assert_eq!((&decided["status"], &decided["reason"]), (&json!("denied"), &json!("not today")));
    assert_eq!(decided, room.json(["pending", "--all"])[0]);
    let (told, _) = answered(waiting);
    assert_eq!((&told["permissionDecision"], &told["permissionDecisionReason"]), (&json!("deny"), &json!("not today")));
    let (status, answer) = serve.ask("POST", &path, r#"{"verdict":"allow"}"#);
    assert_eq!(status, 409, "{answer}");
}
