//! JSON in and out: an event's text comes back as it was, through the event and through the codec, whatever it holds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;
use runledger_events::{Codec, EventKind, KindFacts, RuntimeEvent, RuntimeEventError, readable};

/// The text as an event keeps it: one line.
fn one_line(json: &str) -> String {
    json.trim().replace(['\n', '\r'], " ")
}

/// Reads, and sends text and facts through the codec and back.
fn comes_back(json: &str) -> Result<RuntimeEvent, RuntimeEventError> {
    let codec = Codec::default();
    let event = RuntimeEvent::from_json(json)?;
    assert_eq!(event.json(), one_line(json), "the text changed");
    let content = codec.decode_content(&codec.encode_content(event.json()).unwrap()).unwrap();
    assert_eq!(content, event.json(), "the text changed in the codec");
    let facts = codec.decode_facts(&codec.encode_facts(event.facts()).unwrap()).unwrap();
    assert_eq!(&facts, event.facts(), "the facts changed in the codec");
    assert_eq!(RuntimeEvent::from_json(event.json()).unwrap(), event, "read again, it is another event");
    Ok(event)
}

#[test]
fn every_line_of_the_conformance_feed_comes_back_unchanged() {
    // Given
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/feed");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
        let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
        return;
    };
    let (mut events, mut others) = (0, 0);
    for path in entries.map(|entry| entry.unwrap().path()) {
        if !path.to_str().is_some_and(|path| path.ends_with(".input.jsonl")) {
            continue;
        }
        // When
        for (index, line) in std::fs::read_to_string(&path).unwrap().split('\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let at = format!("{}:{}", path.display(), index + 1);
            match comes_back(line) {
                Ok(event) => {
                    events += 1;
                    assert!(!matches!(event.kind(), EventKind::Other(_)), "{at}: {}", event.kind());
                }
                // Lines for the mapper's test driver are no events.
                Err(RuntimeEventError::Shape) => others += 1,
                Err(error) => panic!("{at}: {error}"),
            }
        }
    }
    // Then
    assert!(events > 1000, "{events} events");
    assert_eq!(others, 25, "bootstrap, allocateSeq and transcript lines");
}

/// White space that JSON allows between tokens.
fn space() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        1 => prop::collection::vec(prop_oneof![Just(" "), Just("\n"), Just("\r"), Just("\t")], 0..4)
            .prop_map(|parts| parts.concat()),
    ]
}

/// A JSON string, with everything that a strict reader stumbles over.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 ]{0,6}",
        1 => Just("\\n\\t\\\\\\\"\\/".to_owned()),
        1 => Just("\\ud83d\\ude00".to_owned()),
        1 => Just("\\ud83d".to_owned()),
        1 => Just("\\uDE00".to_owned()),
        1 => Just("\\\\ud83d".to_owned()),
        1 => Just("\\u0000".to_owned()),
        1 => Just("\u{2028}\u{85}\u{feff}\u{7f}".to_owned()),
        1 => Just("ключ 😀 é".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        prop_oneof![
            Just("1e400"),
            Just("-1E+400"),
            Just("1e-400"),
            Just("-0"),
            Just("-0.0"),
            Just("1.0"),
            Just("1.50"),
            Just("12345678901234567890123"),
            Just("0.1e1"),
            Just("9007199254740993"),
            Just("18446744073709551616"),
        ]
        .prop_map(str::to_owned),
    ]
}

/// Any JSON value, as text.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned),
        number(),
        string(),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            (prop::collection::vec((space(), inner.clone(), space()), 0..6)).prop_map(|items| {
                let items: Vec<String> = items.into_iter().map(|(a, item, b)| format!("{a}{item}{b}")).collect();
                format!("[{}]", items.join(","))
            }),
            prop::collection::vec((name(), space(), inner), 0..6).prop_map(|fields| object(&fields)),
        ]
    })
}

/// A field's name: one that some kind knows, or any other, but none of the envelope.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop_oneof![
            Just("data"), Just("payload"), Just("interaction"), Just("expectsDecision"), Just("agentId"),
            Just("toolName"), Just("tool_name"), Just("tool_use_id"), Just("exit_code"), Just("usage"), Just("delta"),
            Just("input"), Just("request_id"), Just("source"), Just("model"), Just("turn_id"), Just("content_index"),
            Just("da\\u0074a"),
        ].prop_map(|name| format!("\"{name}\"")),
        1 => string().prop_map(|name| format!("\"_{}", &name[1..])),
    ]
}

fn object(fields: &[(String, String, String)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, space, value)| format!("{space}{name}{space}:{space}{value}{space}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// A kind that takes any `data`.
fn kind() -> impl Strategy<Value = String> {
    let open: Vec<&str> = EventKind::KNOWN
        .iter()
        .filter(|kind| !kind.has_own_shape() && **kind != EventKind::Decision)
        .map(EventKind::as_str)
        .collect();
    prop_oneof![4 => prop::sample::select(open).prop_map(str::to_owned), 1 => "[a-z]{1,8}\\.[a-z]{1,8}"]
        .prop_map(|kind| format!("\"{kind}\""))
}

/// An event: its envelope, and any fields before, between and behind, names repeated or not.
fn event() -> impl Strategy<Value = String> {
    let envelope = (
        prop::collection::vec(kind(), 1..3),
        prop::option::of(prop_oneof![Just("null".to_owned()), "\"[a-z0-9-]{1,12}\"", Just("\"\\ud83d\"".to_owned())]),
        prop::option::of(prop_oneof![
            Just("null"),
            Just("1761000000250"),
            Just("1761000000250.75"),
            Just("1.5e12"),
            Just("-1"),
            Just("0")
        ]),
        prop::option::of(prop_oneof![Just("null".to_owned()), Just("\"\"".to_owned()), "\"[a-z0-9-]{1,12}\""]),
    );
    let others = prop::collection::vec((name(), space(), value()), 0..8);
    (envelope, others, space(), space(), any::<prop::sample::Index>()).prop_map(
        |((kinds, id, timestamp, session), mut fields, before, behind, at)| {
            let mut put = |name: &str, value: String| {
                let at = at.index(fields.len() + 1);
                fields.insert(at, (format!("\"{name}\""), before.clone(), value));
            };
            kinds.into_iter().for_each(|kind| put("kind", kind));
            id.into_iter().for_each(|id| put("id", id));
            timestamp.into_iter().for_each(|timestamp| put("timestamp", timestamp.to_owned()));
            session.into_iter().for_each(|session| put("sessionId", session));
            format!("{before}{}{behind}", object(&fields))
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn any_event_comes_back_unchanged(json in event()) {
        let event = comes_back(&json);
        prop_assert!(event.is_ok(), "{}: {:?}", json, event);
    }

    #[test]
    fn the_readable_form_is_strict_json_and_of_the_same_shape(json in value()) {
        // serde_json's own values refuse numbers beyond a double; raw values take them.
        let shown = readable(&json);
        prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&shown).is_ok());
        prop_assert_eq!(shown.chars().filter(|c| *c == '"').count(), json.chars().filter(|c| *c == '"').count());
    }

    #[test]
    fn reading_never_panics_on_any_text(text in any::<String>()) {
        let _ = RuntimeEvent::from_json(&text);
        let _ = readable(&text);
    }

    #[test]
    fn reading_never_panics_on_a_torn_or_changed_event(
        json in event(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any::<char>())), 1..4),
    ) {
        let mut text: Vec<char> = json.chars().collect();
        for (at, put) in cuts {
            let at = at.index(text.len().max(1));
            match put {
                Some(put) => text.insert(at.min(text.len()), put),
                None => text.truncate(at),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(event) = RuntimeEvent::from_json(&text) {
            prop_assert_eq!(event.json(), one_line(&text));
        }
    }
}

#[test]
fn nesting_of_any_depth_is_carried() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    comes_back(&format!(r#"{{"kind":"tool.pre","data":{{"tool_input":{deep}}},"payload":{deep}}}"#)).unwrap();
}

#[test]
fn of_a_repeated_field_the_last_counts_and_all_are_kept() {
    let event =
        comes_back(r#"{"kind":"setup","kind":"session.end","data":{"reason":"a","reason":"b"},"id":"1","id":"2"}"#)
            .unwrap();
    assert_eq!(event.kind(), &EventKind::SessionEnd);
    assert_eq!(event.id().unwrap().as_str(), "2");
    assert_eq!(event.facts().data, KindFacts::SessionEnd { reason: Some("b".to_owned()) });
}

#[test]
fn half_a_character_shows_as_the_replacement_in_facts_and_stays_in_the_text() {
    let event = comes_back(r#"{"kind":"session.end","data":{"reason":"half \ud83d"}}"#).unwrap();
    assert_eq!(event.facts().data, KindFacts::SessionEnd { reason: Some("half \u{fffd}".to_owned()) });
    assert!(event.json().contains(r"half \ud83d"));
}

#[test]
fn a_line_break_between_tokens_becomes_a_space_and_an_escaped_one_stays() {
    let event = comes_back("{\n\"kind\":\r\n\"user.prompt\",\"data\":{\"prompt\":\"a\\nb\"}}\n").unwrap();
    assert_eq!(event.json(), r#"{ "kind":  "user.prompt","data":{"prompt":"a\nb"}}"#);
}

#[test]
fn a_raw_line_break_inside_a_string_is_no_json() {
    for text in ["{\"kind\":\"user.prompt\",\"x\":\"a\nb\"}", "{\"kind\":\"user.prompt\",\"x\":\"a\rb\"}"] {
        assert!(matches!(RuntimeEvent::from_json(text), Err(RuntimeEventError::Json(_))), "{text:?} was taken");
    }
}

#[test]
fn a_field_of_an_unexpected_type_is_unknown_and_refuses_nothing() {
    for odd in ["1", "null", "[1]", "{}", "1e400", "\"\\ud83d\"", "true"] {
        let json = format!(
            r#"{{"kind":"tool.post","agentId":{odd},"interaction":{odd},"data":{{"tool_name":{odd},"exit_code":{odd}}}}}"#
        );
        comes_back(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
        comes_back(&format!(r#"{{"kind":"tool.post","data":{odd}}}"#)).unwrap();
    }
}

#[test]
fn an_unknown_field_of_a_workflow_event_may_hold_anything() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let events = [
        r#""kind":"workflow.start","data":{"run_id":"r","session_id":"s","max_iterations":1,"x":ANY}"#,
        r#""kind":"workflow.transition","data":{"from":"idle","to":"starting","status":"running","x":ANY}"#,
        r#""kind":"workflow.iteration","data":{"phase":"start","iteration":1,"continuation":{"mode":"fresh"},"x":ANY}"#,
        r#""kind":"workflow.end","data":{"status":"completed","iteration":1,"x":ANY}"#,
    ];
    for any in ["1e400", "12345678901234567890123", r#""\ud83d""#, r#"{"x":1,"x":2}"#, &deep] {
        for event in events {
            let json = format!("{{{}}}", event.replace("ANY", any));
            comes_back(&json).unwrap_or_else(|error| panic!("{}: {error}", &json[..json.len().min(200)]));
        }
    }
}

#[test]
fn a_bare_decision_and_a_decision_event_mean_the_same() {
    let decision =
        r#""eventId":"req-1","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}}"#;
    let bare = comes_back(&format!(r#"{{{decision},"now":1761000000790}}"#)).unwrap();
    let event =
        comes_back(&format!(r#"{{"kind":"decision","timestamp":1761000000790,"data":{{{decision}}}}}"#)).unwrap();
    assert_eq!(bare.kind(), &EventKind::Decision);
    assert_eq!(bare.facts(), event.facts());
    assert_eq!(bare.occurred_at(), event.occurred_at());
}

#[test]
fn what_is_wrong_with_an_envelope_is_named() {
    let long = "x".repeat(1025);
    let table: &[(&str, &str)] = &[
        ("", "no JSON object"),
        ("   ", "no JSON object"),
        ("no json", "no JSON object"),
        ("[]", "no JSON object"),
        (r#"[{"kind":"setup"}]"#, "no JSON object"),
        ("null", "no JSON object"),
        ("\"setup\"", "no JSON object"),
        ("1", "no JSON object"),
        (r#"{"kind":"setup""#, "no JSON object"),
        (r#"{"kind":"setup"} {}"#, "no JSON object"),
        (r#"{"kind":"setup",}"#, "no JSON object"),
        (r#"{"kind":"setup","x":01}"#, "no JSON object"),
        (r#"{"kind":"setup","x":NaN}"#, "no JSON object"),
        ("{}", "neither `kind` nor `eventId`"),
        (r#"{"kind":null}"#, "neither `kind` nor `eventId`"),
        (r#"{"eventId":"req-1"}"#, "neither `kind` nor `eventId`"),
        (r#"{"decision":{}}"#, "neither `kind` nor `eventId`"),
        (r#"{"bootstrap":{}}"#, "neither `kind` nor `eventId`"),
        (r#"{"kind":1}"#, "`kind` is not a string"),
        (r#"{"kind":""}"#, "`kind` is not a string"),
        (r#"{"kind":["setup"]}"#, "`kind` is not a string"),
        (r#"{"kind":"setup","id":1}"#, "`id` is not a string"),
        (r#"{"kind":"setup","id":{}}"#, "`id` is not a string"),
        (r#"{"kind":"setup","id":""}"#, "an event id is empty"),
        (r#"{"kind":"setup","sessionId":7}"#, "`sessionId` is not a string"),
        (r#"{"kind":"setup","timestamp":"now"}"#, "`timestamp` is not a time in Unix milliseconds"),
        (r#"{"kind":"setup","timestamp":true}"#, "`timestamp` is not a time in Unix milliseconds"),
        (r#"{"kind":"setup","timestamp":1e400}"#, "`timestamp` is not a time in Unix milliseconds"),
        (r#"{"kind":"setup","timestamp":1e17}"#, "`timestamp` is not a time in Unix milliseconds"),
        (r#"{"eventId":1,"decision":{}}"#, "`eventId` is not the decided event's id"),
        (r#"{"eventId":"req-1","decision":{},"now":"x"}"#, "`now` is not a time in Unix milliseconds"),
        (r#"{"kind":"decision","data":{}}"#, "`eventId` is not the decided event's id"),
        (r#"{"kind":"workflow.start"}"#, "`data` of workflow.start is not of its shape"),
        (r#"{"kind":"workflow.end","data":{"status":"gone","iteration":1}}"#, "`data` of workflow.end is not of its"),
        (r#"{"kind":"workflow.iteration","data":{"phase":"x"}}"#, "`data.phase` is not start, session, process,"),
        (r#"{"kind":"relay.request","data":{}}"#, "`data` of relay.request is not of its shape"),
        (r#"{"kind":"timer.fired","data":{"timer":"soon"}}"#, "`data` of timer.fired is not of its shape"),
        (r#"{"kind":"workflow.transition","data":[]}"#, "`data` of workflow.transition is not of its shape"),
    ];
    for (json, message) in table {
        let error = RuntimeEvent::from_json(json).expect_err(json).to_string();
        assert!(error.starts_with(message), "{json}: {error}");
    }
    let error = RuntimeEvent::from_json(&format!(r#"{{"kind":"setup","id":"{long}"}}"#)).unwrap_err().to_string();
    assert!(error.starts_with("an event id has 1025 bytes; at most 1024"), "{error}");
    let error = RuntimeEvent::from_json(&format!(r#"{{"kind":"{long}"}}"#)).unwrap_err().to_string();
    assert_eq!(error, "`kind` is not a string of at most 1024 bytes");
    assert!(RuntimeEvent::from_json(&format!(r#"{{"kind":"{}"}}"#, &long[1..])).is_ok());
}
