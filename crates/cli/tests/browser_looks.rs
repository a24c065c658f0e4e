//! How the pages look in a real browser: contrast in light and dark, a narrow window, the keyboard, and a quiet console.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod browser_support;
mod permission_support;
mod support;
mod web_support;

use browser_support::Browser;
use fantoccini::key::Key;
use permission_support::{answered, begin_run, end_run, hook_of_run, pre, start, told_by, wait_for_question};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, append, run_with_input, wait_until};
use web_support::Serving;

/// A ledger with something of everything: runs that go on, ended well, failed and were forked; requests that wait, were
/// allowed, were denied and expired; tools that failed; tokens; a tracker that changed.
fn room_with_everything() -> Room {
    let room = Room::new();
    let workflow = room.workflow(4);
    let script =
        "n=$RUNLEDGER_ITERATION; echo \"a rather long line without a place to break: $(printf 'x%.0s' $(seq 200))\"
        printf '# Plan\n- step %s\n' $n > tracker.md; [ $n != 2 ] || echo '<!-- WORKFLOW_COMPLETE -->' >> tracker.md";
    let (ran, _) = room.exec_to_end(&["--workflow", &workflow], script);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    begin_run(&room, "failed", Value::Null);
    end_run(&room, "failed");
    let head = room.events().len().to_string();
    room.ok(["fork", "failed", "--at", &head]);
    begin_run(&room, "r", json!({"rules": [{"tool": "Bash", "action": "ask", "reason": "all is looked at"}]}));
    let tokens = json!({"input": 900, "output": 300, "cacheRead": 4000, "cacheWrite": 700, "total": 5900});
    for (kind, data) in [
        ("workflow.iteration", json!({"phase": "end", "iteration": 1, "outcome": "continue", "tokens": tokens})),
        ("workflow.transition", json!({"from": "running", "to": "idle", "status": "running"})),
    ] {
        let event = json!({"id": format!("r-{kind}-1"), "timestamp": 2, "kind": kind, "data": data});
        append(&room.log(), "run/r", &event.to_string());
    }
    let call = pre("t0", "cat a-rather-long-name-of-a-file-that-goes-on-and-on-and-has-no-blanks-in-it-at-all.txt");
    for (hook, tool) in
        [("PreToolUse", "Read"), ("PostToolUseFailure", "Read"), ("SubagentStart", "Task"), ("Stop", "x")]
    {
        let mut payload = told_by(hook, &call);
        payload["tool_name"] = json!(tool);
        payload["error"] = json!("it is not there");
        assert_eq!(run_with_input(&mut hook_of_run(&room), payload.to_string()).code, Some(0));
    }
    for (call, decision) in [("t1", "allow"), ("t2", "deny"), ("t3", ""), ("t4", "")] {
        let waiting = start(&mut hook_of_run(&room), &pre(call, &format!("make {call}")));
        wait_for_question(&room, call);
        if decision.is_empty() {
            waiting.signal(Signal::KILL);
            drop(waiting.wait());
        } else {
            room.ok([decision, call, "--reason", "it was looked at"]);
            drop(answered(waiting));
        }
    }
    room
}

fn places(room: &Room) -> Vec<String> {
    let runs = room.json(["runs"]);
    let requests = room.json(["pending", "--all"]);
    let mut places: Vec<String> = [
        "/",
        "/?tree=1",
        "/?q=nothing",
        "/permissions",
        "/permissions?status=all",
        "/health",
        "/events/2",
        "/events/7",
    ]
    .map(str::to_owned)
    .into();
    places.extend(runs.iter().map(|run| format!("/runs/{}", run["id"].as_str().unwrap())));
    places.push(format!(
        "/runs/{}?at=4",
        runs.iter().find(|run| run["status"] == "completed").unwrap()["id"].as_str().unwrap()
    ));
    places.extend(requests.iter().map(|request| format!("/permissions/{}", request["position"])));
    places
}

#[test]
fn every_page_can_be_read_in_light_and_dark_fits_a_narrow_window_and_leaves_the_console_quiet() {
    let Some(browser) = Browser::start() else { return };
    let room = room_with_everything();
    let serving = Serving::start(&room, &[]);
    browser.open(&serving.url);
    let mut places = places(&room);
    places.push("/nowhere".to_owned());
    let contrast = include_str!("browser_support/contrast.js");
    let (mut faint, mut wide) = (Vec::new(), Vec::new());
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.chromium("Emulation.setEmulatedMedia", &features);
        let window = json!({"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500});
        browser.chromium("Emulation.setDeviceMetricsOverride", &window);
        for place in &places {
            browser.open(&format!("http://{}{place}", serving.address));
            let found = browser.script(contrast);
            assert!(found["texts"].as_u64().unwrap() > 5, "{place}: {found}");
            let failing = found["failing"].as_array().unwrap();
            faint.extend(failing.iter().map(|text| format!("{scheme} {width} {place}: {text}")));
            let needed = browser.script("return document.scrollingElement.scrollWidth").as_u64().unwrap();
            if needed > width {
                wide.push(format!("{place} at {width}: {needed}"));
            }
            let mut told = browser.console();
            // That there is no such page is told there, too.
            told.retain(|entry| !(place == "/nowhere" && entry.to_string().contains("404")));
            assert_eq!(told, Vec::<Value>::new(), "{place}");
        }
    }
    assert!(faint.is_empty() && wide.is_empty(), "too faint:\n{}\ntoo wide:\n{}", faint.join("\n"), wide.join("\n"));
}

#[test]
fn the_keyboard_reaches_the_content_the_filters_and_the_first_run() {
    let Some(browser) = Browser::start() else { return };
    let room = Room::new();
    begin_run(&room, "r", Value::Null);
    let serving = Serving::start(&room, &[]);
    browser.open(&serving.url);
    let focused = || {
        let script = "const e = document.activeElement; return e.name || e.className || e.textContent || e.tagName";
        browser.script(script).as_str().unwrap().to_owned()
    };
    let mut reached = Vec::new();
    while reached.last().is_none_or(|last| last != "id") && reached.len() < 40 {
        browser.press(char::from(Key::Tab));
        reached.push(focused());
        let outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle");
        assert_ne!(outline, "none", "where the focus is can be seen: {reached:?}");
        if reached.len() == 1 {
            // What leads past the head of the page shows itself.
            let left = browser.script("return document.activeElement.getBoundingClientRect().left");
            assert!(left.as_f64().unwrap() >= 0.0, "{left}");
        }
    }
    let wanted =
        ["skip", "name", "Runs", "Permissions", "Health", "status", "workflow", "session", "q", "tree", "Filter", "id"];
    assert_eq!(reached, wanted);
    browser.press(char::from(Key::Enter));
    wait_until("the run", || browser.address().ends_with("/runs/r"));
}
