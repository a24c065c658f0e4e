//! Old, newer and damaged payloads: old ones are brought up to date, newer ones are told apart, damage is an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::path::Path;

use proptest::prelude::*;
use runledger_events::{Codec, CodecError, Facts, HEADER_BYTES, KindFacts, PayloadPart, Upcasters};

/// The made-up version 0: facts are the words `agent/tool`, content is bare UTF-8.
fn version_0(part: PayloadPart, body: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    let damaged = |detail: &str| CodecError::Damaged { part, detail: detail.to_owned() };
    let text = String::from_utf8(body).map_err(|_| damaged("version 0 is UTF-8"))?;
    let payload = match part {
        PayloadPart::Content => Codec::default().encode_content(&text)?,
        PayloadPart::Facts => {
            let (agent, tool) = text.split_once('/').ok_or_else(|| damaged("version 0 has a slash"))?;
            Codec::default().encode_facts(&Facts {
                agent_id: Some(agent.to_owned()),
                data: KindFacts::Tool {
                    tool_name: Some(tool.to_owned()),
                    tool_use_id: None,
                    is_interrupt: None,
                    exit_code: None,
                    error_code: None,
                },
                ..Facts::default()
            })?
        }
    };
    Ok(payload[HEADER_BYTES..].to_vec())
}

fn payload(version: u8, body: &[u8]) -> Vec<u8> {
    [&[version, 0, 0, 0], body].concat()
}

#[test]
fn an_older_version_is_brought_up_to_date_on_read() {
    // Given
    let codec = Codec::with_upcasters(Upcasters::released().with(0, version_0));
    // When
    let facts = codec.decode_facts(&payload(0, b"agent-7/Bash")).unwrap();
    let content = codec.decode_content(&payload(0, br#"{"kind":"tool.pre"}"#)).unwrap();
    // Then
    assert_eq!(facts.agent_id.as_deref(), Some("agent-7"));
    assert!(matches!(facts.data, KindFacts::Tool { tool_name: Some(ref name), .. } if name == "Bash"));
    assert_eq!(content, r#"{"kind":"tool.pre"}"#);
}

#[test]
fn todays_version_is_read_past_the_upcasters() {
    let codec = Codec::with_upcasters(Upcasters::released().with(0, version_0));
    let facts = Facts { agent_id: Some("a".to_owned()), ..Facts::default() };
    assert_eq!(codec.decode_facts(&codec.encode_facts(&facts).unwrap()).unwrap(), facts);
}

#[test]
fn an_older_version_without_its_step_is_named() {
    let codec = Codec::default();
    for part in [PayloadPart::Facts, PayloadPart::Content] {
        let error = match part {
            PayloadPart::Facts => codec.decode_facts(&payload(0, b"agent-7/Bash")).unwrap_err(),
            PayloadPart::Content => codec.decode_content(&payload(0, b"{}")).unwrap_err(),
        };
        assert!(matches!(error, CodecError::NoUpcaster { part: p, version: 0 } if p == part), "{error}");
    }
}

#[test]
fn an_upcaster_that_refuses_is_heard() {
    let codec = Codec::with_upcasters(Upcasters::released().with(0, version_0));
    let error = codec.decode_facts(&payload(0, b"no slash")).unwrap_err();
    assert_eq!(error.to_string(), "facts: the payload does not decode: version 0 has a slash");
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let codec = Codec::default();
    for version in 3..=u8::MAX {
        let error = codec.decode_facts(&payload(version, &[0xff; 8])).unwrap_err();
        assert!(matches!(error, CodecError::Newer { part: PayloadPart::Facts, version: v, newest: 2 } if v == version));
        let error = codec.decode_content(&payload(version, b"")).unwrap_err();
        assert!(
            matches!(error, CodecError::Newer { part: PayloadPart::Content, version: v, newest: 2 } if v == version)
        );
    }
}

#[test]
fn an_unknown_compression_or_dictionary_is_named() {
    let codec = Codec::default();
    for header in [[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 255, 255, 255]] {
        let error = codec.decode_content(&header).unwrap_err();
        assert!(matches!(error, CodecError::Compression { .. }), "{header:?}: {error}");
    }
}

#[test]
fn a_torn_header_and_left_over_bytes_are_damage() {
    let codec = Codec::default();
    for bytes in 0..HEADER_BYTES {
        let error = codec.decode_facts(&vec![1; bytes]).unwrap_err();
        assert!(matches!(error, CodecError::TooShort { bytes: b, .. } if b == bytes), "{error}");
    }
    let mut facts = codec.encode_facts(&Facts::default()).unwrap();
    facts.push(0);
    assert!(matches!(codec.decode_facts(&facts), Err(CodecError::Damaged { .. })));
    let mut content = codec.encode_content("{}").unwrap();
    content.push(0);
    assert!(matches!(codec.decode_content(&content), Err(CodecError::Damaged { .. })));
}

#[test]
fn a_length_beyond_the_payload_is_refused_without_taking_that_memory() {
    let codec = Codec::default();
    // bincode's lengths: 0xfd stands before eight bytes. Each of these would need more memory than there is.
    for length in [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 48, 1 << 44] {
        let length = [&[0xfd][..], &length.to_le_bytes()].concat();
        // The first field of facts is an optional text.
        let facts = payload(1, &[&[1][..], &length, b"x"].concat());
        assert!(matches!(codec.decode_facts(&facts), Err(CodecError::Damaged { .. })));
        let content = payload(1, &[&length[..], b"x"].concat());
        assert!(matches!(codec.decode_content(&content), Err(CodecError::Damaged { .. })));
    }
}

#[test]
fn facts_that_could_not_be_read_again_are_not_written() {
    // Given
    let codec = Codec::default();
    for bytes in [(16 << 20) - 8192, (16 << 20) - 1024, 16 << 20, 17 << 20] {
        let facts = Facts { agent_id: Some("x".repeat(bytes)), ..Facts::default() };
        // When
        let encoded = codec.encode_facts(&facts);
        // Then
        match encoded {
            Ok(payload) => {
                assert!(codec.decode_facts(&payload).is_ok(), "{bytes} bytes were written, and do not decode")
            }
            Err(error) => assert!(matches!(error, CodecError::Encode { .. }) && bytes > 15 << 20, "{bytes}: {error}"),
        }
    }
}

/// The committed payloads of every kind.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".facts.hex")))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let hex = std::fs::read_to_string(path).unwrap();
            let hex = hex.trim_end();
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        })
        .collect()
}

#[test]
fn every_bit_flip_of_a_golden_payload_is_an_error_or_other_facts() {
    let codec = Codec::default();
    let mut refused = 0;
    for payload in golden() {
        let facts = codec.decode_facts(&payload).unwrap();
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match codec.decode_facts(&flipped) {
                Ok(other) => assert_ne!(other, facts, "bit {bit} changed nothing"),
                Err(_) => refused += 1,
            }
            let _ = codec.decode_content(&flipped);
        }
        for end in 0..payload.len() {
            assert!(codec.decode_facts(&payload[..end]).is_err(), "a torn payload was read");
        }
    }
    assert!(refused > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), with_header in any::<bool>()) {
        let bytes = if with_header { payload(1, &bytes) } else { bytes };
        let codec = Codec::with_upcasters(Upcasters::released().with(0, version_0));
        if let Ok(facts) = codec.decode_facts(&bytes) {
            // What was read can be written, and is then read the same.
            prop_assert_eq!(codec.decode_facts(&codec.encode_facts(&facts).unwrap()).unwrap(), facts);
        }
        if let Ok(json) = codec.decode_content(&bytes) {
            prop_assert_eq!(codec.decode_content(&codec.encode_content(&json).unwrap()).unwrap(), json);
        }
    }
}
