//! `serve` under bad input: whatever agents said, whatever is asked for, and a ledger that goes away while it is served.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;
mod web_support;

use permission_support::{begin_run, hook_of_run, pre, quiet_answer, room_with_run, told_by};
use runledger_projections::projections_path;
use serde_json::{Value, json};
use support::{Room, run, run_with_input, wait_until};
use web_support::{Serving, ask, follow, form_word, read_until};

/// What an agent could say to get into a page, or to have it read as something else.
const HOSTILE: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>'&amp;\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}txt\u{2066}\u{9b}31m\r\n\
                       </title></textarea><svg onload=alert(3)> javascript:alert(4)";

/// Nothing of it may stand in a page as more than a text.
fn is_harmless(place: &str, page: &str) {
    for sign in ["<script>alert", "<img src=x", "<svg onload", "</textarea", "\" onerror", "&amp;amp;amp;"] {
        assert!(!page.contains(sign), "{sign} in {place}");
    }
    let is_hidden = |found: &char| {
        (found.is_control() && !"\r\n\t".contains(*found))
            || matches!(found, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if let Some(at) = page.find(|found| is_hidden(&found)) {
        let around: String = page[page.floor_char_boundary(at.saturating_sub(60))..].chars().take(120).collect();
        panic!("{around:?} in {place}");
    }
    assert!(!page.contains("href=\"javascript"), "{place}");
    // No script but the one file, no handlers, no styles of its own.
    assert_eq!(page.matches("<script").count(), 1, "{place}");
    for attribute in [" onload=", " onclick=", " style="] {
        // What stands between quotes is a value.
        let mut tags = page.split('<').filter_map(|tag| tag.split('>').next());
        assert!(
            !tags.any(|tag| tag.split('"').step_by(2).any(|names| names.contains(attribute))),
            "{attribute} in {place}"
        );
    }
}

#[test]
fn whatever_agents_say_stands_on_pages_as_text() {
    let room = Room::new();
    // A run whose workflow, prompt, tracker, words, tool calls, answers and permission requests are hostile.
    let workflow = json!({"name": HOSTILE, "promptTemplate": format!("{HOSTILE} {{input}}"),
        "loop": {"maxIterations": 2, "trackerPath": "tracker.md"},
        "permissions": {"ask_timeout_ms": 1, "rules": [{"tool": "Bash", "action": "ask", "reason": HOSTILE}]}});
    let file = room.write("project/hostile.json", workflow.to_string());
    room.write("project/said", HOSTILE);
    let mut call = pre("t1", HOSTILE);
    for field in ["cwd", "session_id"] {
        call[field] = json!(format!("/x{HOSTILE}"));
    }
    call["tool_input"]["description"] = json!(HOSTILE);
    let mut response = told_by("PostToolUse", &call);
    response["tool_response"] = json!({"stdout": HOSTILE, "stderr": HOSTILE});
    let mut unknown = told_by("Novelty", &call);
    unknown["tool_name"] = json!(HOSTILE);
    let said = [
        told_by("UserPromptSubmit", &{
            let mut prompt = call.clone();
            prompt["prompt"] = json!(HOSTILE);
            prompt
        }),
        call,
        response,
        unknown,
    ];
    for (index, payload) in said.iter().enumerate() {
        room.write(&format!("project/payload-{index}"), payload.to_string());
    }
    let program = env!("CARGO_BIN_EXE_runledger");
    let script = format!(
        "cat said; cat said >&2; for p in payload-*; do '{program}' hook < $p; done; cat said > tracker.md; \
         [ $RUNLEDGER_ITERATION = 1 ] || exit 9"
    );
    let mut command = room.command(["exec", "--workflow", file.to_str().unwrap()]);
    let ran = run(command.args([HOSTILE, "--", "sh", "-c", &script]));
    assert!(ran.code.is_some_and(|code| code != 2 && code != 3), "{ran:?}");
    let begun = room.json(["runs"]);
    let id = begun[0]["id"].as_str().unwrap();
    assert!(begun[0]["workflow_name"].as_str().unwrap().contains("<script>"), "{begun:?}");
    let events = room.events();
    let requests = room.json(["pending", "--all"]);
    assert!(!requests.is_empty(), "a request was asked");

    let serving = Serving::start(&room, &[]);
    let mut places = vec!["/", "/?tree=1", "/permissions", "/permissions?status=all", "/health"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    places.push(format!("/runs/{id}"));
    for event in &events {
        places.push(format!("/events/{}", event["position"]));
        places.push(format!("/runs/{id}?at={}&zoom=4", event["position"]));
    }
    places.extend(requests.iter().map(|request| format!("/permissions/{}", request["position"])));
    let mut told = 0;
    for place in &places {
        let answer = serving.page(place);
        assert!([200, 404].contains(&answer.status), "{place}: {}", answer.body);
        told += usize::from(answer.body.contains("&lt;script&gt;alert(1)"));
        is_harmless(place, &answer.body);
    }
    assert!(told > events.len(), "it is shown, on {told} pages of {}", places.len());

    // What is asked for is shown again, and is no more than a text either.
    let encoded: String = HOSTILE.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for place in [
        format!("/?q={encoded}&workflow={encoded}&session=s{encoded}"),
        format!("/?status={encoded}"),
        format!("/runs/{encoded}"),
        format!("/runs/{id}?q={encoded}"),
        format!("/runs/{id}?at={encoded}"),
        format!("/runs/{id}?before={encoded}"),
        format!("/runs/{id}?zoom={encoded}"),
        format!("/events/{encoded}"),
        format!("/permissions/{encoded}"),
        format!("/permissions?status={encoded}"),
        format!("/{encoded}"),
        format!("/assets/{encoded}"),
    ] {
        is_harmless(&place, &serving.page(&place).body);
    }
}

#[test]
fn whatever_is_asked_for_the_page_says_what_is_wrong_and_what_next() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let huge = "18446744073709551615";
    let beyond = "9".repeat(40);
    let long = "x".repeat(60_000);
    for (place, status, words) in [
        ("/runs/nobody", 404, "there is no run nobody"),
        ("/runs/r?at=4", 404, "position 4 is outside the log"),
        ("/runs/r?at=0", 404, "had not begun at position 0"),
        ("/runs/r?at=now", 400, "now is no position"),
        ("/runs/r?at=-1", 400, "-1 is no position"),
        (&format!("/runs/r?at={huge}"), 400, "is no position"),
        (&format!("/runs/r?at={beyond}"), 400, "is no position"),
        ("/runs/r?before=x", 400, "x is no place in the feed"),
        ("/runs/r?at=%FF%FE", 400, "is no position"),
        ("/runs/%FF%FE", 400, ""),
        ("/events/4", 404, "position 4 is outside the log"),
        ("/events/0", 404, "position 0 is outside the log"),
        ("/events/-1", 400, "-1 is no position"),
        ("/events/one", 400, "one is no position"),
        (&format!("/events/{huge}"), 400, "is no position"),
        ("/events/9223372036854775807", 404, "is outside the log"),
        ("/permissions/1", 404, "there is no request 1"),
        ("/permissions/none", 404, "there is no request none"),
        ("/permissions?status=maybe", 400, "there is no status maybe"),
        ("/?status=maybe", 400, "there is no status maybe"),
        ("/?before=-1", 400, "-1 is no position"),
        ("/?before=x", 400, "x is no position"),
        (&format!("/?before={huge}"), 400, "is no position"),
        ("/permissions?before=x", 400, "x is no position"),
        ("/?status=failed&status=failed", 400, ""),
        ("/nowhere", 404, "there is no page /nowhere"),
        ("/runs/r/fork", 405, ""),
        (&format!("/runs/{long}"), 404, "there is no run x"),
        (&format!("/events/{long}"), 400, "is no position"),
    ] {
        serving.page(place).is_a_page_of(status, words);
        // Programs get the same in JSON.
        let bearer = format!("Bearer {}", serving.token);
        let answer = serving.ask("GET", place, &[("Authorization", &bearer)], "");
        let json: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer.status, status, "{place}");
        assert!(json["error"].is_string() && json["next"].is_string(), "{json}");
    }
    // What is odd and no mistake.
    for place in [
        "/?before=",
        "/?before=0",
        "/permissions?before=0&status=all",
        "/?nobody=asked",
        "/?q=%FF%00%FE",
        "/runs/r?zoom=-1",
        "/runs/r?zoom=99999999999999999999",
        "/runs/r?q=%00",
        "/runs/r?at=%203%20",
    ] {
        let answer = serving.page(place);
        assert_eq!(answer.status, 200, "{place}: {}", answer.body);
    }
    for place in [format!("/?q={long}"), format!("/?workflow={long}"), format!("/runs/r?q={long}")] {
        serving.page(&place).is_a_page_of(400, "words to look for are 60000 bytes long");
    }
    // What is too long to be read at all gets no page, and nothing else either.
    let answer = ask(&serving.address, "GET", &format!("/?q={}", "y".repeat(2 << 20)), &[], "");
    assert!([414, 431].contains(&answer.status) && answer.body.is_empty(), "{answer:?}");
    let bearer = format!("Bearer {}", serving.token);
    let headers = [("Authorization", bearer.as_str()), ("Accept", "text/html")];
    serving.ask("POST", "/runs/r/cancel", &headers, &"z".repeat(1 << 20)).is_a_page_of(400, "the form does not fit");
    assert_eq!(serving.ask("DELETE", "/runs/r", &headers, "").status, 405);
    assert_eq!(serving.ask("HEAD", "/", &headers, "").body, "");
    assert!(serving.is_up());
}

#[test]
fn who_decides_too_late_is_told_so() {
    let room = room_with_run(json!({"ask_timeout_ms": 1, "on_timeout": "deny",
        "rules": [{"tool": "Bash", "action": "ask"}]}));
    assert_eq!(quiet_answer(&mut hook_of_run(&room), &pre("t1", "make"))["permissionDecision"], "deny");
    let request = room.json(["pending", "--all"]).remove(0);
    assert_eq!(request["status"], "expired");
    let serving = Serving::start(&room, &[]);
    let place = format!("/permissions/{}", request["position"]);
    let page = serving.good_page(&place);
    assert!(page.contains("class=\"mark expired\"") && !page.contains("value=\"allow\""), "{page}");
    let word = form_word(&serving.good_page("/runs/r"));
    let form = format!("verdict=allow&form_word={word}");
    let page = serving.form(&serving.cookie(), &place, &form).is_refused(409, "expired").to_owned();
    assert!(!page.contains("value=\"allow\""), "{page}");
    assert!(serving.is_up());
}

/// Puts all files of a room's ledger elsewhere.
fn rename(room: &Room, from: &str, to: &str) {
    std::fs::rename(room.path(from), room.path(to)).unwrap();
}

#[test]
fn a_ledger_that_is_gone_is_missed_and_found_again_and_another_one_is_shown_instead() {
    let room = room_with_run(Value::Null);
    for options in [&[][..], &["--read-only"]] {
        let serving = Serving::start(&room, options);
        let mut following = follow(&serving);
        read_until(&mut following, "a position", |text| text.contains("data: "));
        assert!(serving.good_page("/").contains("/runs/r\""));

        rename(&room, "state", "gone");
        for place in ["/", "/runs/r", "/permissions", "/events/1", "/health", "/permissions/1"] {
            serving.page(place).is_a_page_of(503, "is not there");
        }
        assert!(serving.is_up());
        assert!(!room.path("state").exists(), "nothing is made in its place");

        rename(&room, "gone", "state");
        wait_until("the ledger again", || serving.page("/runs/r").status == 200);

        // Another one in its place.
        let other = Room::new();
        begin_run(&other, "another", Value::Null);
        rename(&room, "state", "gone");
        other.ok(["runs"]);
        std::fs::rename(other.path("state"), room.path("state")).unwrap();
        wait_until("the other ledger", || serving.page("/runs/another").status == 200);
        let page = serving.good_page("/");
        assert!(page.contains("/runs/another") && !page.contains("/runs/r\""), "{page}");
        // It is followed, too.
        begin_run(&room, "later", Value::Null);
        wait_until("what is new in it", || serving.good_page("/").contains("/runs/later"));

        std::fs::remove_dir_all(room.path("state")).unwrap();
        rename(&room, "gone", "state");
        wait_until("the first ledger", || serving.page("/runs/r").status == 200);
        assert_eq!(serving.page("/runs/another").status, 404);
        let ran = serving.end();
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    room.verify();
}

#[test]
fn a_file_that_is_no_ledger_is_said() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    assert_eq!(serving.page("/").status, 200);
    rename(&room, "state", "gone");
    room.write("state/ledger.db", "this is no ledger, whatever else it may be".repeat(200));
    for place in ["/", "/runs/r", "/health"] {
        serving.page(place).is_a_page_of(503, "");
    }
    std::fs::remove_dir_all(room.path("state")).unwrap();
    rename(&room, "gone", "state");
    wait_until("the ledger again", || serving.page("/runs/r").status == 200);
    assert!(projections_path(&room.ledger()).exists());
    // Hooks go on all the while.
    let ran = run_with_input(&mut hook_of_run(&room), pre("t1", "ls").to_string());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
