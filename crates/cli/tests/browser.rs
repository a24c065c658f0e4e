//! `serve` in a real browser: a run is seen from its start to its end, found, looked at as it was, and asked for a decision.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod browser_support;
mod permission_support;
mod support;
mod web_support;

use browser_support::Browser;
use fantoccini::key::Key;
use permission_support::{answered, hook_of_run, pre, quiet_answer, room_with_run, start, wait_for_question};
use serde_json::{Value, json};
use support::{Room, Running, append, wait_until};
use web_support::Serving;

/// A run of three iterations, each of which goes on when the test says so; it ends with the room.
fn run_under_control(room: &Room) -> Running {
    let workflow = room.workflow(5);
    let script = "n=$RUNLEDGER_ITERATION; echo \"iteration $n begins\"
        while [ ! -e go-$n ]; do [ -e tidy.json ] || exit 1; sleep 0.05; done
        echo \"step $n\" > tracker.md; [ $n != 3 ] || echo '<!-- WORKFLOW_COMPLETE -->' >> tracker.md";
    Running::start(&mut room.exec(&["--workflow", &workflow], script))
}

fn go(room: &Room, iteration: u32) {
    room.write(&format!("project/go-{iteration}"), "");
}

/// The page stays the one that was loaded: a mark in it is still there.
fn mark(browser: &Browser) {
    browser.script("window.isTheSamePage = true");
}

fn is_the_same_page(browser: &Browser) -> bool {
    browser.script("return window.isTheSamePage === true") == json!(true)
}

/// Nothing went wrong on the way, and no policy was broken.
fn has_a_quiet_console(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<Value>::new());
}

#[test]
fn a_run_is_seen_to_start_iterate_and_end_and_is_found_and_looked_at_as_it_was() {
    let Some(browser) = Browser::start() else { return };
    let room = Room::new();
    drop(room.log());
    let serving = Serving::start(&room, &[]);

    // The printed address leads to the list, without the token.
    browser.open(&serving.url);
    browser.wait_for_text("#live", "live");
    assert_eq!(browser.address(), format!("http://{}/", serving.address));
    browser.wait_for_text("main", "No runs yet");
    mark(&browser);

    // A run begins, goes on, and ends: all of it on this one page.
    let running = run_under_control(&room);
    for iteration in 1..=3 {
        browser.wait_for_text(".runs tbody tr", &format!("{iteration} of 5"));
        assert_eq!(browser.texts(".runs .mark"), ["running"]);
        go(&room, iteration);
    }
    browser.wait_for_text(".runs .mark", "completed");
    assert_eq!(running.wait().code, Some(0));
    assert!(is_the_same_page(&browser));
    has_a_quiet_console(&browser);

    filters(&browser, &room);
    as_it_was(&browser, &room);
    assert!(serving.end().code == Some(0));
}

/// By status and by text; the address holds the filter, and a page that is loaded anew keeps it.
fn filters(browser: &Browser, room: &Room) {
    permission_support::begin_run(room, "other", Value::Null);
    browser.wait_for("document.querySelectorAll('.runs tbody tr').length === 2");
    browser.select("select[name=status]", "completed");
    browser.wait_for("document.querySelectorAll('.runs tbody tr').length === 1");
    assert_eq!(browser.texts(".runs .mark"), ["completed"]);
    assert!(browser.address().ends_with("/?status=completed"), "{}", browser.address());
    assert!(is_the_same_page(browser));

    browser.select("select[name=status]", "");
    browser.wait_for("document.querySelectorAll('.runs tbody tr').length === 2");
    browser.write("input[name=q]", "ship");
    browser.wait_for("document.querySelectorAll('.runs tbody tr').length === 1");
    assert_eq!(browser.texts(".runs tbody th"), ["other"]);
    assert!(browser.address().ends_with("/?q=ship"), "{}", browser.address());
    assert!(is_the_same_page(browser));
    browser.reload();
    assert!(!is_the_same_page(browser));
    assert_eq!(browser.texts(".runs tbody th"), ["other"]);
    assert_eq!(browser.script("return document.querySelector('input[name=q]').value"), json!("ship"));
    has_a_quiet_console(browser);
    browser.click("form.filter a");
    browser.wait_for("document.querySelectorAll('.runs tbody tr').length === 2");
}

/// The run's page shows an earlier moment where the slider stands, and the present again.
fn as_it_was(browser: &Browser, room: &Room) {
    let events = room.events();
    let second = events.iter().find(|event| {
        event["kind"] == "workflow.iteration"
            && event["event"]["data"]["phase"] == "start"
            && event["event"]["data"]["iteration"] == 2
    });
    let then = second.unwrap()["position"].as_u64().unwrap();
    browser.click(".runs tbody tr:last-child th a");
    browser.wait_for_text("main .mark", "completed");
    browser.wait_for_text("dl.facts", "3 of 5");
    mark(browser);
    let move_to = |position: u64| {
        browser.script(&format!(
            "const r = document.querySelector('input[type=range]'); r.value = {position}; r.dispatchEvent(new Event('input', {{bubbles: true}}))"
        ));
    };
    move_to(then);
    browser.wait_for_text(".slider .then", "as it was at");
    browser.wait_for_text("dl.facts", "2 of 5");
    browser.wait_for_text(".title-line .mark", "running");
    assert!(browser.address().contains(&format!("at={then}")), "{}", browser.address());

    // One event back, by the keyboard: that is the first iteration.
    browser.write("input[type=range]", &char::from(Key::Left).to_string());
    browser.wait_for_text("dl.facts", "1 of 5");
    assert!(browser.address().contains(&format!("at={}", then - 1)), "{}", browser.address());
    assert_eq!(browser.texts(".title-line .mark"), ["running"]);
    assert!(is_the_same_page(browser));
    // Nobody cancels what is over: the buttons are those of that moment.
    assert!(browser.texts(".actions button").iter().all(|words| words.starts_with("Fork")));

    browser.click(".slider [rel=next]");
    browser.wait_for_text("dl.facts", "2 of 5");
    assert!(browser.address().contains(&format!("at={then}")), "{}", browser.address());
    browser.click(".slider .now");
    browser.wait_for_text("dl.facts", "3 of 5");
    assert_eq!(browser.texts(".title-line .mark"), ["completed"]);
    assert!(!browser.address().contains("at="), "{}", browser.address());
    has_a_quiet_console(browser);
}

#[test]
fn a_hook_that_waits_is_answered_by_a_press_of_a_button() {
    let Some(browser) = Browser::start() else { return };
    let room = room_with_run(json!({"rules": [{"tool": "Bash", "action": "ask"}]}));
    let serving = Serving::start(&room, &[]);
    browser.open(&serving.url);
    browser.click("nav a[href='/permissions']");
    browser.wait_for_text("main", "Nothing waits for you.");
    browser.wait_for_text("#live", "live");
    mark(&browser);

    // It comes while the page is open, and is allowed with a reason.
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push origin main"));
    browser.wait_for_text(".card .call", "git push origin main");
    browser.wait_for_text(".card .context", "iteration 1 of 5");
    assert!(is_the_same_page(&browser));
    browser.write(".decide input[name=reason]", "it was looked at");
    browser.click(".decide button.allow");
    let (opinion, ran) = answered(waiting);
    assert_eq!(opinion["permissionDecision"], "allow", "{ran:?}");
    browser.wait_for_text(".card .mark", "allowed");
    browser.wait_for_text(".card .decided", "it was looked at");
    has_a_quiet_console(&browser);

    // A denial holds for the run: the next call of the same is not asked about.
    browser.open(&format!("http://{}/permissions", serving.address));
    let waiting = start(&mut hook_of_run(&room), &pre("t2", "make clean"));
    browser.wait_for_text(".card .call", "make clean");
    browser.select(".decide select[name=scope]", "run");
    browser.write(".decide input[name=reason]", "keep what is built");
    browser.click(".decide button.danger");
    let (opinion, ran) = answered(waiting);
    assert_eq!(
        (&opinion["permissionDecision"], &opinion["permissionDecisionReason"]),
        (&json!("deny"), &json!("keep what is built")),
        "{ran:?}"
    );
    browser.wait_for_text(".card .decided", "for run");
    assert_eq!(quiet_answer(&mut hook_of_run(&room), &pre("t3", "make clean"))["permissionDecision"], "deny");

    // What another process decides shows at once, without a button any more.
    let waiting = start(&mut hook_of_run(&room), &pre("t4", "cargo doc"));
    let position = &wait_for_question(&room, "t4")["position"];
    wait_until("its page", || serving.page(&format!("/permissions/{position}")).status == 200);
    browser.open(&format!("http://{}/permissions/{position}", serving.address));
    browser.wait_for("document.querySelector('.decide button.allow').matches(':enabled')");
    browser.wait_for_text("#live", "live");
    mark(&browser);
    room.ok(["allow", "t4", "--reason", "decided elsewhere"]);
    browser.wait_for_text(".card .decided", "decided elsewhere");
    assert_eq!(browser.texts(".decide button").len(), 0);
    assert!(is_the_same_page(&browser));
    assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    has_a_quiet_console(&browser);
    room.verify();
}

#[test]
fn what_comes_into_the_inbox_moves_no_button_and_takes_nothing_that_was_typed() {
    let Some(browser) = Browser::start() else { return };
    let room = room_with_run(json!({"ask_timeout_ms": 600_000, "rules": [{"tool": "Bash", "action": "ask"}]}));
    let serving = Serving::start(&room, &[]);
    let first = start(&mut hook_of_run(&room), &pre("t1", "make one"));
    wait_for_question(&room, "t1");
    browser.open(&serving.url);
    browser.open(&format!("http://{}/permissions", serving.address));
    browser.wait_for("document.querySelectorAll('.card').length === 1");
    browser.wait_for_text("#live", "live");
    // Given: somebody is writing a reason in the first card.
    browser.click(".decide input[name=reason]");
    browser.write(".decide input[name=reason]", "half a sent");
    let place = "const place = document.querySelector('.decide button.allow').getBoundingClientRect();
        return [place.x, place.y, document.querySelector('.decide').getAttribute('action')]";
    let before = browser.script(place);
    // When another one comes
    let second = start(&mut hook_of_run(&room), &pre("t2", "make two"));
    browser.wait_for("document.querySelectorAll('.card').length === 2");
    // Then it stands below, and the button is where it was, of the same request.
    assert_eq!(browser.script(place), before);
    assert_eq!(browser.texts(".card .call"), ["make one\ndescription: d", "make two\ndescription: d"]);
    let typed = "const field = document.querySelector('.decide input[name=reason]');
        return [field.value, document.activeElement === field]";
    assert_eq!(browser.script(typed), json!(["half a sent", true]));
    // And it is whole, and stays so however often the list is drawn anew: its age tells of that.
    let age = "return document.querySelectorAll('.card')[1].querySelector('.head').textContent";
    for _ in 0..2 {
        let drawn = browser.script(age);
        browser.wait_for(&format!("(() => {{ {age} }})() !== {drawn}"));
        let buttons = "return document.querySelectorAll('.card')[1].querySelectorAll('button:enabled').length";
        assert_eq!(browser.script(buttons), json!(2));
        assert_eq!(browser.script(typed), json!(["half a sent", true]));
    }
    // Nothing takes the place of what is pressed, and Enter in a reason decides nothing.
    browser.script("document.querySelectorAll('.card')[1].querySelector('.allow').dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))");
    let pressed = browser.script(age);
    append(
        &room.log(),
        "session/other",
        r#"{"id":"o","kind":"user.prompt","sessionId":"other","timestamp":1,"data":{"prompt":"x"}}"#,
    );
    browser.wait_for("Number(document.documentElement.dataset.position) >= 8");
    std::thread::sleep(std::time::Duration::from_millis(800));
    assert_eq!(browser.script(age), pressed);
    browser.script("document.dispatchEvent(new PointerEvent('pointerup', {bubbles: true}))");
    browser.wait_for(&format!("(() => {{ {age} }})() !== {pressed}"));
    browser.click(".decide input[name=reason]");
    browser.press('\u{e007}');
    assert_eq!(room.json(["pending"]).len(), 2);
    // When the one below is decided elsewhere, it is shut where it stands, and so is the one that is being written in.
    room.ok(["allow", "t2"]);
    browser.wait_for("document.querySelectorAll('.decide')[1].querySelector('fieldset').disabled");
    assert_eq!(browser.script(place), before);
    room.ok(["allow", "t1"]);
    browser.wait_for("document.querySelector('.decide fieldset').disabled");
    for waiting in [first, second] {
        assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    }
    has_a_quiet_console(&browser);
}

#[test]
fn what_expired_cannot_be_pressed() {
    let Some(browser) = Browser::start() else { return };
    let room = room_with_run(json!({"ask_timeout_ms": 600_000, "rules": [{"tool": "Bash", "action": "ask"}]}));
    let serving = Serving::start(&room, &[]);
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "make"));
    let asked = wait_for_question(&room, "t1");
    // The same question with nobody behind it, due in a moment: no hook ever says that it expired.
    let mut event = asked["event"].clone();
    let due_at = jiff::Timestamp::now().as_millisecond() + 4000;
    event["id"] = json!("soon");
    for name in ["request_id", "tool_use_id"] {
        event["data"][name] = json!("soon");
    }
    event["data"]["due_at"] = json!(due_at);
    event["data"]["timeout_ms"] = json!(4000);
    let position = append(&room.log(), "request/soon", &event.to_string()).position;
    browser.open(&serving.url);
    // Its page is shut by itself once its time is up, whenever it was opened.
    browser.open(&format!("http://{}/permissions/{position}", serving.address));
    browser.wait_for_text(".card", "expired");
    browser.wait_for("document.querySelectorAll('.card button:enabled').length === 0");
    assert!(jiff::Timestamp::now().as_millisecond() >= due_at);
    // What waits is the other one, which is open; soon it is alone.
    browser.open(&format!("http://{}/permissions", serving.address));
    browser.wait_for("document.querySelectorAll('.decide button.allow:enabled').length === 1");
    browser.wait_for("document.querySelectorAll('.card').length === 1");
    assert_eq!(room.json(["pending", "--status", "expired"]).len(), 1);
    has_a_quiet_console(&browser);
    room.ok(["deny", "t1", "--reason", "enough"]);
    assert_eq!(answered(waiting).0["permissionDecision"], "deny");
}

#[test]
fn who_has_the_wrong_token_or_comes_under_a_foreign_name_is_refused() {
    let Some(browser) = Browser::start() else { return };
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let port = serving.address.rsplit(':').next().unwrap();
    browser.open(&format!("http://{}/?token=0123456789abcdef0123456789", serving.address));
    browser.wait_for_text(".failure .code", "401");
    browser.wait_for_text(".failure", "runledger serve");
    // A foreign site whose name leads here, even with the right token.
    for place in [format!("/?token={}", serving.token), "/runs/r".to_owned(), "/healthz".to_owned()] {
        browser.open(&format!("http://evil.example:{port}{place}"));
        browser.wait_for_text(".failure .code", "421");
        assert_eq!(browser.script("return document.cookie"), json!(""));
    }
    // Who was let in by one name is not by the other; scripts see no cookie.
    browser.open(&serving.url);
    browser.wait_for_text(".runs", "ship");
    assert_eq!(browser.script("return document.cookie"), json!(""));
    browser.open(&format!("http://localhost:{port}/"));
    browser.wait_for_text(".failure .code", "401");
}
