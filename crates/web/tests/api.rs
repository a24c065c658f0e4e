//! Who may ask and act below `/api/v1`, the bounds of what is asked, and how a refusal looks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use support::{Answer, Served, TOKEN, bearer};

fn served() -> Served {
    let served = Served::new();
    let prompt = r#"{"id":"e1","timestamp":1,"kind":"user.prompt","data":{"prompt":"hello"}}"#;
    served.ledger.append("session/s1", prompt);
    served
}

/// A refusal says what is wrong and what to do next, as JSON.
fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    let json = answer.json();
    for name in ["error", "next"] {
        assert!(json[name].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    }
}

/// The cookie of a browser that opened the printed address.
fn cookie(served: &Served) -> String {
    let opened = served.ask("GET", &format!("/?token={TOKEN}"), &[], "");
    let cookie = opened.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    format!("cookie: {}", cookie.split(';').next().unwrap())
}

#[test]
fn nothing_is_told_without_the_token_nor_under_a_foreign_name() {
    let served = served();
    for path in ["/api/v1/runs", "/api/v1/events", "/api/v1/openapi.json", "/metrics", "/api/v1/nothing"] {
        assert_refused(&served.ask("GET", path, &[], ""), 401);
        assert_refused(&served.ask("GET", path, &["authorization: Bearer another-token-here"], ""), 401);
    }
    // The token in the address opens pages alone.
    assert_refused(&served.ask("GET", &format!("/api/v1/status?token={TOKEN}"), &[], ""), 401);
    assert_refused(&served.ask("GET", "/api/v1/runs", &[&bearer(), "host: evil.example"], ""), 421);
}

#[test]
fn a_cookie_alone_reads_and_does_not_act() {
    let served = served();
    let cookie = cookie(&served);
    assert_eq!(served.ask("GET", "/api/v1/status", &[&cookie], "").status, 200);
    let json = "content-type: application/json";
    let act = |lines: &[&str]| served.ask("POST", "/api/v1/runs/x/cancel", lines, "{}");
    assert_refused(&act(&[&cookie, json]), 403);
    assert_refused(&act(&[&cookie, json, "x-form-word: guessed"]), 403);
    // What a form of another site can send.
    assert_refused(&act(&[&cookie, "content-type: text/plain"]), 403);
    assert_refused(&act(&[&cookie, json, "origin: http://evil.example"]), 403);
    assert_refused(&act(&[&bearer(), json, "origin: http://evil.example"]), 403);
    assert_refused(&act(&[&bearer(), json]), 404);
}

#[test]
fn what_is_sent_is_json_of_a_bounded_size() {
    let served = served();
    let act = |kind: &str, body: &str| served.ask("POST", "/api/v1/runs/x/signal", &[&bearer(), kind], body);
    let json = "content-type: application/json; charset=utf-8";
    assert_refused(&act("content-type: application/x-www-form-urlencoded", "name=pause"), 415);
    assert_refused(&act("accept: */*", r#"{"name":"pause"}"#), 415);
    assert_refused(&act(json, "{"), 400);
    assert_refused(&act(json, r#"{"name":"pause","more":1}"#), 400);
    assert_refused(&act(json, &format!(r#"{{"name":"{}"}}"#, "x".repeat(70 << 10))), 413);
    assert_refused(&act(json, r#"{"name":"pause"}"#), 404);
}

#[test]
fn what_is_asked_has_bounds_and_no_unknown_words() {
    let served = served();
    let refused = [
        "/runs?limit=0",
        "/runs?limit=1001",
        "/runs?limit=99999999999999999999999",
        "/runs?stauts=failed",
        "/runs?status=lost",
        "/runs?limit=1&limit=2",
        "/runs?before=-1",
        "/feed?before=1.1&after=1.1",
        "/feed?after=here",
        "/events/zero",
        "/events/99999999999999999999",
        "/permissions?all=true&status=denied",
        "/sessions?session=",
        "/feed?session=",
        "/status?q=1",
        "/runs/%FF",
    ];
    for path in refused {
        assert_refused(&served.get(&format!("/api/v1{path}")), 400);
    }
    let limit = served.get("/api/v1/runs?limit=1001").json();
    assert!(limit["next"].as_str().unwrap().contains("1 to 1000"), "{limit}");
    for path in
        ["/runs/none", "/sessions/none", "/events/2", "/events/0", "/permissions/none", "/events?after=2", "/none"]
    {
        assert_refused(&served.get(&format!("/api/v1{path}")), 404);
    }
    assert_refused(&served.get("/api/v1/runs/none?at=7"), 404);
    let unfit = served.ask("DELETE", "/api/v1/runs", &[&bearer()], "");
    assert_refused(&unfit, 405);
    assert!(unfit.head.contains("allow: get"), "{unfit:?}");
}

#[test]
fn a_ledger_that_is_gone_is_told_and_its_return_is_noticed() {
    let served = served();
    assert_eq!(served.get("/api/v1/status").status, 200);
    let aside = served.ledger.path.with_extension("aside");
    std::fs::rename(&served.ledger.path, &aside).unwrap();
    assert_refused(&served.get("/api/v1/status"), 503);
    assert_eq!(served.figure("ledger_readable"), 0);
    std::fs::rename(&aside, &served.ledger.path).unwrap();
    assert_eq!(served.get("/api/v1/status").json()["head"], 1);
}

#[test]
fn figures_are_told_as_prometheus_reads_them() {
    let served = served();
    served.get("/api/v1/none");
    let answer = served.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:?}");
    for line in answer.body.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        assert!(name.starts_with("runledger_"), "{line}");
        let value = line.rsplit(' ').next().unwrap();
        assert!(line.starts_with('#') || value.parse::<u64>().is_ok(), "{line}");
    }
    assert_eq!(served.figure("log_head_position"), 1);
    assert_eq!(served.figure("permission_requests_pending"), 0);
    assert_eq!(served.figure("event_stream_clients"), 0);
    assert_eq!(served.figure("http_responses_total{class=\"4xx\"}"), 1);
    assert!(answer.body.contains("runledger_projection_lag_positions{projection=\"workflow_runs\"} "), "{answer:?}");
}
