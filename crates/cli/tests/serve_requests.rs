//! `serve` and what waits for a decision: questions with their choices, forms that come back as they were sent, requests whose
//! time is up, and a list that goes on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;
mod web_support;

use std::sync::Arc;

use permission_support::room_with_run;
use runledger_events::{EventId, RequestId, RunId, SessionId, TimestampMs};
use runledger_workflow::{Ask, Clock, Commands};
use serde_json::{Value, json};
use support::{Room, wait_until};
use web_support::{Serving, form_word};

fn commands(room: &Room) -> Commands {
    Commands::open(Arc::new(room.log())).unwrap()
}

/// A question of the run `r` about a call of this tool.
fn ask(name: &str, tool: &str, input: &Value) -> Ask {
    let (request, event) = (RequestId::new(format!("client-1:{name}")), EventId::new(format!("event-{name}")));
    let session = SessionId::new("s").unwrap();
    Ask {
        run_id: Some(RunId::new("r").unwrap()),
        tool_use_id: Some(name.to_owned()),
        timeout_ms: None,
        ..Ask::new(request.unwrap(), event.unwrap(), session, tool, input.to_string())
    }
}

fn colours_and_sizes() -> Value {
    json!({"questions": [
        {"question": "Which colour?", "header": "Colour", "multiSelect": false,
            "options": [{"label": "Red", "description": "as the <roof>"}, {"label": "Blue"}]},
        {"question": "Which sizes?", "multiSelect": true, "options": [{"label": "S"}, {"label": "L"}]}]})
}

/// The position of the one request that waits.
fn position(room: &Room) -> u64 {
    room.json(["pending"])[0]["position"].as_u64().unwrap()
}

#[test]
fn a_question_is_answered_by_its_choices_and_in_words_of_ones_own() {
    let room = room_with_run(Value::Null);
    commands(&room).ask(&ask("t1", "AskUserQuestion", &colours_and_sizes())).unwrap();
    let serving = Serving::start(&room, &[]);
    let place = format!("/permissions/{}", position(&room));
    let page = serving.good_page(&place);
    for part in [
        "type=\"radio\" name=\"answer_1\" value=\"1\"",
        "type=\"checkbox\" name=\"answer_2\" value=\"2\"",
        "as the &lt;roof&gt;",
        "name=\"own_2\"",
        ">Answer</button>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("name=\"pattern\""), "answers hold once: {page}");

    let (word, cookie) = (form_word(&page), serving.cookie());
    let send = |form: &str| serving.form(&cookie, &place, &format!("{form}&form_word={word}"));
    // What was filled in stands there again.
    let refused = send("verdict=allow&answer_1=2&own_1=&own_2=&reason=so");
    let page = refused.is_refused(400, "“Which sizes?” is not answered");
    assert!(page.contains("name=\"answer_1\" value=\"2\" checked") && !page.contains("value=\"1\" checked"), "{page}");
    assert!(page.contains("name=\"reason\" value=\"so\"") && page.contains("data-draft"), "{page}");

    for nothing in ["0", "3", "Red", "18446744073709551616"] {
        send(&format!("verdict=allow&answer_1={nothing}&answer_2=1")).is_refused(400, "has no such answer");
    }
    // Programs are answered as everywhere.
    let origin = format!("http://{}", serving.address);
    let headers = [("Cookie", cookie.as_str()), ("Origin", &origin)];
    let refused = serving.ask("POST", &place, &headers, &format!("verdict=allow&form_word={word}"));
    let json: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status, &json["next"]), (400, &json!("choose an answer, or write one")));
    let answer = send("verdict=allow&answer_1=2&own_1=teal&answer_2=1&answer_2=2&own_2=XL");
    assert_eq!(answer.status, 303, "{answer:?}");
    let decided = room.json(["context", "t1"]).remove(0);
    assert_eq!(decided["answers"], json!({"Which colour?": "teal", "Which sizes?": "S, L, XL"}));
    let page = serving.good_page(&place);
    assert!(page.contains("<dt>Which colour?</dt><dd>teal</dd>") && page.contains("<dd>S, L, XL</dd>"), "{page}");
    room.verify();
}

#[test]
fn a_decision_offers_the_calls_own_pattern_which_says_nothing_of_one_call() {
    let room = room_with_run(Value::Null);
    let call = ask("t1", "Bash", &json!({"command": "git push"}));
    commands(&room).ask(&Ask { pattern: Some("Bash(git push)".to_owned()), ..call }).unwrap();
    let serving = Serving::start(&room, &[]);
    let place = format!("/permissions/{}", position(&room));
    let page = serving.good_page(&place);
    assert!(page.contains("name=\"pattern\" value=\"Bash(git push)\""), "{page}");
    let form = format!("verdict=allow&scope=once&pattern=Bash(git+push)&form_word={}", form_word(&page));
    assert_eq!(serving.form(&serving.cookie(), &place, &form).status, 303);
    assert_eq!(room.json(["context", "t1"])[0]["scope"], "once");
}

#[test]
fn whatever_a_call_has_in_its_lines_it_can_be_allowed_as_it_is() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    for (name, command) in [("t1", "git commit -m 'fix\n\nbody'"), ("t2", "echo a\u{202e}b\u{200b}"), ("t3", " ls ")] {
        let call = ask(name, "Bash", &json!({"command": command}));
        commands(&room).ask(&Ask { pattern: Some(format!("Bash({command})")), ..call }).unwrap();
        for (scope, told) in [("once", "once"), ("run", "run")] {
            let again = format!("{name}-{scope}");
            let call = ask(&again, "Bash", &json!({"command": command}));
            commands(&room).ask(&Ask { pattern: Some(format!("Bash({command})")), ..call }).unwrap();
            let position = room.json(["context", &format!("client-1:{again}")])[0]["position"].as_u64().unwrap();
            let place = format!("/permissions/{position}");
            let mut page = String::new();
            wait_until("its page", || {
                let answer = serving.page(&place);
                page = answer.body;
                answer.status == 200
            });
            let (_, field) = page.split_once("name=\"pattern\" value=\"").unwrap();
            let field = field.split('"').next().unwrap().replace("&amp;", "&").replace("&lt;", "<");
            // A field of one line has no line breaks in it.
            let field: String = field.chars().filter(|character| !"\r\n".contains(*character)).collect();
            let form = [("verdict", "allow"), ("scope", scope), ("pattern", &field), ("form_word", &form_word(&page))]
                .map(|(name, value)| format!("{name}={}", encoded(value)));
            let answer = serving.form(&serving.cookie(), &place, &form.join("&"));
            assert_eq!(answer.status, 303, "{name} {scope}: {}", answer.body);
            let decided = room.json(["context", &format!("client-1:{again}")]).remove(0);
            assert_eq!(decided["scope"], told);
            if scope == "run" {
                assert_eq!(decided["pattern"], format!("Bash({command})"), "it is the call's own");
            }
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_question_of_an_unknown_shape_is_answered_elsewhere() {
    let room = room_with_run(Value::Null);
    commands(&room).ask(&ask("t1", "AskUserQuestion", &json!({"what": "odd"}))).unwrap();
    let serving = Serving::start(&room, &[]);
    let place = format!("/permissions/{}", position(&room));
    let page = serving.good_page(&place);
    assert!(page.contains("runledger allow --answer") && !page.contains("value=\"allow\""), "{page}");
    let form = format!("verdict=allow&own_1=X&form_word={}", form_word(&page));
    serving.form(&serving.cookie(), &place, &form).is_refused(400, "cannot be told apart here");
    assert_eq!(room.json(["pending"]).len(), 1);
}

#[test]
fn a_request_that_nobody_waits_for_comes_to_its_end_when_its_time_is_up() {
    let room = room_with_run(Value::Null);
    let long_ago = commands(&room).with_clock(Clock::new(|| TimestampMs(1_761_000_000_000)));
    long_ago.ask(&Ask { timeout_ms: Some(1), ..ask("t1", "Bash", &json!({"command": "ls"})) }).unwrap();
    assert_eq!(room.json(["pending"]).len(), 1);

    let reading = Serving::start(&room, &["--read-only"]);
    let page = reading.good_page("/permissions");
    assert!(page.contains("class=\"mark expired\""), "who only reads says so too: {page}");
    assert_eq!(room.json(["pending"]).len(), 1);

    let serving = Serving::start(&room, &[]);
    wait_until("its end", || room.json(["pending"]).is_empty());
    assert_eq!(room.json(["pending", "--status", "expired"])[0]["decided_via"], "timeout");
    wait_until("the list", || serving.good_page("/permissions").contains("Nothing waits for you."));
    assert!(serving.good_page("/permissions?status=expired").contains("class=\"mark expired\""));
}

#[test]
fn a_long_list_goes_on_with_older_requests() {
    let room = room_with_run(Value::Null);
    let commands = commands(&room);
    for number in 1..=201 {
        commands.ask(&ask(&format!("t{number}"), "Bash", &json!({"command": format!("make part-{number}.")}))).unwrap();
    }
    let serving = Serving::start(&room, &[]);
    for list in ["/permissions?", "/permissions?status=all&"] {
        let page = serving.good_page(list);
        assert!(page.contains("part-201.") && page.contains("part-2.") && !page.contains("part-1."), "{list}");
        let (_, link) = page.split_once("rel=\"prev\" href=\"").unwrap();
        let link = link.split('"').next().unwrap().replace("&amp;", "&");
        let page = serving.good_page(&link);
        assert!(page.contains("part-1.") && !page.contains("part-2."), "{link}");
        assert!(!page.contains("Older requests") && page.contains("Latest requests"), "{link}");
    }
}
