//! `serve` over plain HTTP: who is let in, what acts, what reads only, and how it begins and ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod permission_support;
mod support;
mod web_support;

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use permission_support::{answered, begin_run, hook_of_run, pre, room_with_run, start, wait_for_question};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Room, append, run, wait_until};
use web_support::{Serving, connect, follow, form_word, read_until};

fn asking() -> Value {
    json!({"rules": [{"tool": "Bash(git push:*)", "action": "ask"}]})
}

/// Everything that an address can be asked for.
const PLACES: [&str; 7] = ["/", "/runs/r", "/permissions", "/permissions/1", "/events/1", "/health", "/live"];

#[test]
fn nothing_is_told_without_the_token() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let cookie_name = serving.cookie().split('=').next().unwrap().to_owned();
    let (wrong_bearer, wrong_cookie) =
        (format!("Bearer {}x", serving.token), format!("{cookie_name}={}", serving.token));
    for place in PLACES {
        for headers in [
            vec![],
            vec![("Authorization", wrong_bearer.as_str())],
            // The token itself is no cookie: who read it in a history has not the one that is made of it.
            vec![("Cookie", wrong_cookie.as_str())],
        ] {
            let answer = serving.ask("GET", place, &headers, "");
            assert_eq!(answer.status, 401, "{place}");
            assert!(!answer.body.contains("ship"), "{}", answer.body);
            let answer = serving.ask("GET", place, &[&headers[..], &[("Accept", "text/html")]].concat(), "");
            answer.is_a_page_of(401, "token");
            assert!(answer.body.contains("runledger serve"), "{}", answer.body);
            assert!(!answer.body.contains("ledger.db"), "not even where the ledger is: {}", answer.body);
        }
        let answer = serving.ask("GET", &format!("{place}?token=0123456789abcdef0123"), &[], "");
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{place}");
    }
    // What is no secret is open.
    for (place, kind) in
        [("/healthz", "text/plain"), ("/assets/app.css", "text/css"), ("/assets/app.js", "text/javascript")]
    {
        let answer = serving.ask("GET", place, &[], "");
        assert_eq!(answer.status, 200, "{place}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{answer:?}");
    }
    assert_eq!(serving.page("/assets/../Cargo.toml").status, 404);
}

#[test]
fn the_token_in_the_address_becomes_a_cookie_and_leaves_the_address() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let answer = serving.ask("GET", &format!("/runs/r?zoom=4&token={}&at=2", serving.token), &[], "");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/runs/r?zoom=4&at=2")));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains(&serving.token), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    for place in ["/", "/runs/r?zoom=4&at=2", "/health"] {
        let answer = serving.ask("GET", place, &[("Cookie", cookie)], "");
        assert_eq!(answer.status, 200, "{place}");
        assert!(!answer.body.contains(&serving.token), "{place}");
    }
    // A path that another host could be made of leads here.
    let answer = serving.ask("GET", &format!("//evil.example/?token={}", serving.token), &[], "");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/evil.example/")));
    // The cookie of one server opens no other one.
    let other = Serving::start(&room, &[]);
    assert_eq!(other.ask("GET", "/", &[("Cookie", cookie)], "").status, 401);
}

#[test]
fn whoever_comes_without_the_token_finds_a_door_to_the_page_that_was_asked_for() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let page = serving.ask("GET", "/runs/r?q=a%26b&token=wrong", &[("Accept", "text/html")], "").body;
    assert!(page.contains("<a href=\"/runs/r?q=a%26b\">"), "{page}");
    assert!(page.contains("action=\"/runs/r\"") && page.contains("name=\"q\" value=\"a&amp;b\""), "{page}");
    assert!(page.contains("type=\"password\" name=\"token\"") && !page.contains("wrong"), "{page}");
    // A path of two strokes leads nowhere else, and what is sent to the door is not sent on.
    let page = serving.ask("GET", "//evil.example/x", &[("Accept", "text/html")], "").body;
    assert!(page.contains("action=\"/evil.example/x\"") && !page.contains("\"//"), "{page}");
    let posted = serving.ask("POST", "/runs/r/cancel", &[("Accept", "text/html")], "");
    assert!(posted.status == 401 && !posted.body.contains("<form"), "{posted:?}");
}

#[test]
fn whoever_listens_for_others_is_told_under_which_names_they_are_answered() {
    let room = room_with_run(Value::Null);
    for (options, words) in [
        (&["--listen", "0.0.0.0"][..], Some("--host NAME adds the name or address")),
        (&["--listen", "0.0.0.0", "--host", "build-7.example"][..], None),
        (&[][..], None),
    ] {
        let ended = Serving::start(&room, options).end();
        match words {
            Some(words) => assert!(ended.stderr().contains(words), "{ended:?}"),
            None => assert_eq!(ended.stderr(), "", "{options:?}"),
        }
    }
}

#[test]
fn a_run_of_which_nothing_is_told_for_long_stands_out() {
    let room = room_with_run(Value::Null);
    append(
        &room.log(),
        "session/s",
        r#"{"id":"p","kind":"user.prompt","sessionId":"s","timestamp":1,"data":{"prompt":"go"}}"#,
    );
    let serving = Serving::start(&room, &[]);
    for place in ["/", "/runs/r"] {
        let page = serving.good_page(place);
        assert!(page.contains("class=\"mark stalled\">silent for "), "{page}");
    }
    // Right then it was not; and steps are those of the session, whose last event is the last there is to see.
    let past = serving.good_page("/runs/r?at=3");
    assert!(past.contains("max=\"4\"") && past.contains("at=2\" title=") && past.contains("at=4\" title="), "{past}");
    assert!(serving.good_page("/runs/r?at=4").contains("class=\"mark running\""));
}

#[test]
fn an_event_that_cannot_be_read_has_its_neighbours_all_the_same() {
    let room = room_with_run(Value::Null);
    let sqlite = room.sqlite();
    sqlite.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
    sqlite.execute("UPDATE runtime_events SET facts = x'63000000' WHERE position = 2", []).unwrap();
    drop(sqlite);
    let serving = Serving::start(&room, &[]);
    let answer = serving.page("/events/2");
    answer.is_a_page_of(503, "the event at 2");
    assert!(answer.body.contains("href=\"/events/1\"") && answer.body.contains("href=\"/events/3\""), "{answer:?}");
    let last = serving.good_page("/events/3");
    assert!(last.contains("href=\"/events/2\"") && !last.contains("href=\"/events/4\""), "{last}");
}

#[test]
fn a_tree_of_many_runs_goes_on_with_older_ones() {
    let room = Room::new();
    for number in 1..=101 {
        begin_run(&room, &format!("run-{number}."), Value::Null);
    }
    let serving = Serving::start(&room, &[]);
    for list in ["/?", "/?tree=1&"] {
        let page = serving.good_page(list);
        assert!(page.contains(">run-101.<") && page.contains(">run-2.<") && !page.contains(">run-1.<"), "{list}");
        let (_, link) = page.split_once("rel=\"next\" href=\"").unwrap();
        let page = serving.good_page(&link.split('"').next().unwrap().replace("&amp;", "&"));
        assert!(page.contains(">run-1.<") && !page.contains(">run-2.<") && !page.contains("Older runs"), "{list}");
    }
}

#[test]
fn a_foreign_name_and_a_foreign_origin_get_nothing() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &["--host", "ledger.example"]);
    let bearer = format!("Bearer {}", serving.token);
    let port = serving.address.rsplit(':').next().unwrap();
    for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1.evil.example", "localhost:1", ""] {
        for place in ["/", "/healthz", "/live", "/assets/app.js", &format!("/?token={}", serving.token)] {
            let answer = serving.ask("GET", place, &[("Host", host), ("Authorization", &bearer)], "");
            assert_eq!((answer.status, answer.header("set-cookie")), (421, None), "{host} {place}");
        }
        let headers = [("Host", host), ("Authorization", bearer.as_str()), ("Accept", "text/html")];
        serving.ask("GET", "/", &headers, "").is_a_page_of(421, "this server is not");
    }
    for host in ["localhost", &format!("LOCALHOST:{port}"), "[::1]", &format!("ledger.example:{port}")] {
        assert_eq!(serving.ask("GET", "/", &[("Host", host), ("Authorization", &bearer)], "").status, 200, "{host}");
    }

    let cookie = serving.cookie();
    let word = form_word(&serving.good_page("/runs/r"));
    let own = format!("http://{}", serving.address);
    let body = format!("form_word={word}&at=3");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", &format!("{own}.evil.example")] {
        let answer = serving.ask("POST", "/runs/r/fork", &[("Cookie", &cookie), ("Origin", origin)], &body);
        assert_eq!(answer.status, 403, "{origin}");
    }
    let cross_site = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(serving.ask("POST", "/runs/r/fork", &cross_site, &body).status, 403);
    // Nothing came of any of it.
    assert_eq!(room.json(["runs"]).len(), 1);
}

#[test]
fn a_form_acts_when_it_says_the_word_of_our_own_pages() {
    let room = room_with_run(asking());
    let serving = Serving::start(&room, &[]);
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let position = wait_for_question(&room, "t1")["position"].as_u64().unwrap();
    let place = format!("/permissions/{position}");
    let cookie = serving.cookie();
    wait_until("the request's page", || serving.page(&place).status == 200);
    for form in ["verdict=allow", "verdict=allow&form_word=", "verdict=allow&form_word=0000", ""] {
        serving.form(&cookie, &place, form).is_a_page_of(403, "this form is not one of this server's pages");
    }
    let word = form_word(&serving.good_page(&place));
    assert_eq!(serving.form("", &place, &format!("verdict=allow&form_word={word}")).status, 401);
    for (form, words) in [
        ("verdict=deny", "a denial needs a reason"),
        ("verdict=perhaps", "there is no verdict perhaps"),
        ("verdict=allow&scope=forever", "there is no scope forever"),
        ("verdict=allow&scope=run&pattern=Bash(", "Bash("),
        ("verdict=allow&scope=run&pattern=Bash(make:*)", "Bash(make:*) is on no part of this call"),
    ] {
        let answer = serving.form(&cookie, &place, &format!("{form}&reason=&form_word={word}"));
        let page = answer.is_refused(400, words);
        assert!(page.contains("value=\"deny\""), "it can be decided all the same: {page}");
    }
    let answer = serving.form(&cookie, &place, &format!("verdict=allow&reason=seen&form_word={word}"));
    assert_eq!((answer.status, answer.header("location")), (303, Some(place.as_str())), "{answer:?}");
    assert_eq!(answered(waiting).0["permissionDecision"], "allow");
    let page = serving.good_page(&place);
    assert!(page.contains("class=\"mark allowed\"") && page.contains(": seen"), "{page}");
    // It is decided once.
    serving.form(&cookie, &place, &format!("verdict=deny&reason=no&form_word={word}")).is_refused(409, "already");
    room.verify();
}

#[test]
fn a_run_is_forked_and_cancelled_from_its_page() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let cookie = serving.cookie();
    let word = form_word(&serving.good_page("/runs/r"));
    let answer = serving.form(&cookie, "/runs/r/cancel", &format!("form_word={word}"));
    assert_eq!((answer.status, answer.header("location")), (303, Some("/runs/r")), "{answer:?}");
    // Nobody runs it, so that ends it at once.
    let run = room.json(["show", "r"]).remove(0);
    assert_eq!((&run["status"], support::kinds(&room)[3].as_str()), (&json!("cancelled"), "decision"), "{run}");
    assert!(serving.good_page("/runs/r").contains("class=\"mark cancelled\""));
    serving.form(&cookie, "/runs/r/cancel", &format!("form_word={word}")).is_a_page_of(409, "");
    let answer = serving.form(&cookie, "/runs/nobody/cancel", &format!("form_word={word}"));
    answer.is_a_page_of(404, "there is no run nobody");
    for (at, status) in [("99999999", 409), ("x", 400), ("-1", 400), ("18446744073709551615", 400)] {
        let answer = serving.form(&cookie, "/runs/r/fork", &format!("form_word={word}&at={at}"));
        assert_eq!(answer.status, status, "{at}: {}", answer.body);
    }
    serving.form(&cookie, "/runs/r/fork", &format!("form_word={word}")).is_a_page_of(400, "the form does not fit");
    assert!(serving.is_up());
}

#[test]
fn who_only_reads_opens_no_write_half() {
    let room = room_with_run(asking());
    // A question that waits, and nobody who keeps the ledger open for it.
    let waiting = start(&mut hook_of_run(&room), &pre("t1", "git push"));
    let position = wait_for_question(&room, "t1")["position"].as_u64().unwrap();
    waiting.signal(Signal::KILL);
    drop(waiting.wait());
    // The read models are there already; they are no part of the log.
    room.ok(["runs"]);
    let look = || {
        let of = |path: std::path::PathBuf| {
            let metadata = std::fs::metadata(path).unwrap();
            (metadata.ino(), metadata.mode(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
        };
        of(room.ledger())
    };
    let (before, events) = (look(), room.events());
    let serving = Serving::start(&room, &["--read-only"]);
    let cookie = serving.cookie();
    let page = serving.good_page(&format!("/permissions/{position}"));
    assert!(page.contains("read only") && !page.contains("method=\"post\""), "{page}");
    assert!(!serving.good_page("/runs/r").contains("method=\"post\""));
    // The word of a server with the same token that may write.
    let word = "0".repeat(64);
    for place in [format!("/permissions/{position}"), "/runs/r/cancel".to_owned(), "/runs/r/fork".to_owned()] {
        let answer = serving.form(&cookie, &place, &format!("verdict=allow&at=3&form_word={word}"));
        assert_eq!(answer.status, 403, "{place}");
        // Nor with the token itself, which needs no word.
        let bearer = format!("Bearer {}", serving.token);
        let headers = [("Authorization", bearer.as_str()), ("Accept", "text/html")];
        serving.ask("POST", &place, &headers, "verdict=allow&at=3").is_a_page_of(403, "this server only reads");
    }
    let ran = serving.end();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(look(), before);
    assert_eq!(room.events(), events);
}

#[test]
fn an_address_that_is_taken_is_said_and_nothing_begins() {
    let room = room_with_run(Value::Null);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran = room.run(["serve", "--port", &port]);
    let said = ran.is_refused_with(3);
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("--port"), "{said}");
    // So is a ledger that is not there, and a token that anyone could guess.
    assert_eq!(Room::new().run(["serve", "--port", "0"]).code, Some(3));
    let said = run(room.command(["serve", "--port", "0"]).env("RUNLEDGER_TOKEN", "short")).is_refused_with(2);
    assert!(said.contains("RUNLEDGER_TOKEN") && !said.contains("short;"), "{said}");
    let said = room.run(["serve", "--port", "99999"]);
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
fn a_signal_ends_it_in_order_while_somebody_hangs_on_it() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let mut following = follow(&serving);
    read_until(&mut following, "a position", |text| text.contains("data: "));
    // One that follows and never reads, one that never says what it wants, and one that stops in its words.
    let (_deaf, _dumb) = (follow(&serving), connect(&serving.address));
    let mut halting = connect(&serving.address);
    std::io::Write::write_all(&mut halting, b"POST /runs/r/cancel HTTP/1.1\r\nHost: ").unwrap();
    assert!(serving.is_up());
    let ran = serving.end();
    assert_eq!((ran.code, ran.stderr()), (Some(0), String::new()), "{ran:?}");
}

#[test]
fn six_hundred_connections_that_say_nothing_do_not_stop_it() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &[]);
    let mut following = follow(&serving);
    read_until(&mut following, "a position", |text| text.contains("data: 3\n"));
    // More than are taken; the others wait in the system's queue.
    let held: Vec<_> = (0..600).map(|_| connect(&serving.address)).collect();
    // Who was there before is still told of what happens, so the read models are kept.
    let json = json!({"id": "later", "timestamp": 9, "kind": "user.prompt", "data": {"prompt": "on"}});
    append(&room.log(), "session/s", &json.to_string());
    read_until(&mut following, "the next position", |text| text.contains("data: 4\n"));
    drop(held);
    assert!(serving.good_page("/").contains("/runs/r"));
    assert_eq!(serving.end().code, Some(0));
}

#[test]
fn who_follows_is_told_of_what_others_write() {
    let room = room_with_run(Value::Null);
    let serving = Serving::start(&room, &["--read-only"]);
    let mut following = follow(&serving);
    read_until(&mut following, "a position", |text| text.contains("data: 3\n"));
    begin_run(&room, "r2", Value::Null);
    read_until(&mut following, "three more", |text| text.contains("data: 6\n"));
    assert!(serving.good_page("/").contains("/runs/r2"));
}
