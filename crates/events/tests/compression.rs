//! Compressed content: any text comes back, damage is an error, and no payload can ask for more memory than it may.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use proptest::prelude::*;
use runledger_events::{
    CONTENT_BYTES_MAX, CONTENT_DICTIONARY, Codec, CodecError, HEADER_BYTES, PayloadPart, Upcasters,
};

const COMPRESSED: [u8; HEADER_BYTES] = [2, 1, 1, 0];

fn encoded(text: &str) -> Vec<u8> {
    Codec::default().encode_content(text).unwrap()
}

fn decoded(payload: &[u8]) -> Result<String, CodecError> {
    Codec::default().decode_content(payload)
}

/// What an event has beside a few words of its own.
fn event(words: &str) -> String {
    format!(
        r#"{{"id":"hook:1","timestamp":1761000000000,"kind":"user.prompt","data":{{"prompt":"{words}"}},"hookName":"UserPromptSubmit","sessionId":"a1","payload":{{"session_id":"a1","cwd":"/srv/demo","hook_event_name":"UserPromptSubmit","prompt":"{words}"}}}}"#
    )
}

#[test]
fn an_event_is_stored_in_less_than_half_its_length() {
    let text = event("Write a haiku about the sea.");
    let payload = encoded(&text);
    assert_eq!(payload[..HEADER_BYTES], COMPRESSED);
    assert_eq!(CONTENT_DICTIONARY.id, 1);
    assert!(payload.len() * 2 < text.len(), "{} of {} bytes", payload.len(), text.len());
    assert_eq!(decoded(&payload).unwrap(), text);
}

#[test]
fn a_text_that_compression_makes_no_shorter_is_stored_as_it_is() {
    for text in ["", "{}", "x", "q\u{fffd}Z"] {
        let payload = encoded(text);
        assert_eq!(payload[..HEADER_BYTES], [2, 0, 0, 0], "{text:?}");
        assert_eq!(payload.len(), HEADER_BYTES + 1 + text.len());
        assert_eq!(decoded(&payload).unwrap(), text);
    }
}

#[test]
fn large_texts_of_one_letter_and_of_many_come_back() {
    let many: String =
        (0..400_000_u32).map(|n| char::from_u32(0x20 + n.wrapping_mul(n) % 3000).unwrap_or('?')).collect();
    for text in ["a".repeat(20 << 20), many] {
        let payload = encoded(&text);
        assert!(payload.len() < text.len());
        assert_eq!(decoded(&payload).unwrap(), text);
    }
}

#[test]
fn threads_that_begin_and_end_compress_and_read_alike() {
    let text = event("From any thread.");
    let payload = encoded(&text);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(decoded(&payload).unwrap(), text);
                assert_eq!(decoded(&encoded(&text)).unwrap(), text);
            });
        }
    });
}

#[test]
fn compressed_facts_and_pairs_of_ids_that_nobody_writes_are_named() {
    let codec = Codec::default();
    let payload = encoded(&event("x"));
    for header in [[2, 1, 0, 0], [2, 0, 1, 0], [2, 1, 2, 0], [2, 1, 1, 1], [2, 2, 1, 0]] {
        let other = [&header[..], &payload[HEADER_BYTES..]].concat();
        let error = decoded(&other).unwrap_err();
        let (compression, dictionary) = (header[1], u16::from_le_bytes([header[2], header[3]]));
        assert!(
            matches!(error, CodecError::Compression { part: PayloadPart::Content, compression: c, dictionary: d }
                if c == compression && d == dictionary),
            "{error}"
        );
    }
    let error = codec.decode_facts(&payload).unwrap_err();
    assert!(matches!(error, CodecError::Compression { part: PayloadPart::Facts, .. }), "{error}");
    assert!(error.to_string().contains("is not known to this program; upgrade it"), "{error}");
}

#[test]
fn what_comes_out_of_a_frame_is_of_the_payloads_version() {
    // Version 1 wrote content as version 2 does.
    let text = event("An old body in a new coat.");
    let old = [&[1, 1, 1, 0][..], &encoded(&text)[HEADER_BYTES..]].concat();
    assert_eq!(decoded(&old).unwrap(), text);
    let newer = [&[3, 1, 1, 0][..], &old[HEADER_BYTES..]].concat();
    assert!(matches!(decoded(&newer).unwrap_err(), CodecError::Newer { version: 3, .. }));
    let codec = Codec::with_upcasters(Upcasters::default());
    assert!(matches!(codec.decode_content(&old).unwrap_err(), CodecError::NoUpcaster { version: 1, .. }));
}

#[test]
fn every_torn_frame_is_damage_and_every_flipped_bit_is_damage_or_another_text() {
    let text = event("A line of words, and then some more of them: one, two, three.");
    let payload = encoded(&text);
    for end in HEADER_BYTES..payload.len() {
        assert!(matches!(decoded(&payload[..end]), Err(CodecError::Damaged { .. })), "cut at {end}");
    }
    let mut behind = payload.clone();
    behind.push(0);
    assert!(matches!(decoded(&behind), Err(CodecError::Damaged { .. })));
    let mut refused = 0;
    for bit in HEADER_BYTES * 8..payload.len() * 8 {
        let mut flipped = payload.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decoded(&flipped) {
            Err(CodecError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("bit {bit}: {error}"),
            // One bit of the frame's header means nothing.
            Ok(_) => {}
        }
    }
    assert!(refused > payload.len(), "{refused} of {} bits", payload.len() * 8);
}

/// A frame of spaces that declares so many bytes, and has so many blocks of 128 KiB.
fn spaces(declared: u64, blocks: usize) -> Vec<u8> {
    // Magic number; one segment with a content size of eight bytes. A block: last, repeat, 128 KiB.
    let head = [&COMPRESSED[..], &[0x28, 0xB5, 0x2F, 0xFD, 0b1110_0000], &declared.to_le_bytes()].concat();
    let block = |is_last: bool| [2 | u8::from(is_last), 0, 0x10, b' '];
    (1..=blocks).fold(head, |frame, number| [frame, block(number == blocks).to_vec()].concat())
}

#[test]
fn a_bomb_is_refused_by_what_it_declares() {
    let block = 128 << 10;
    let blocks = CONTENT_BYTES_MAX / block + 2;
    for (declared, blocks) in [
        // More than content may have, in as many blocks as that takes.
        ((blocks * block) as u64, blocks),
        // As much as content may have, in blocks that do not hold it.
        (CONTENT_BYTES_MAX as u64, 3),
        (1 << 40, 1),
        (u64::MAX, 1),
    ] {
        let error = decoded(&spaces(declared, blocks)).unwrap_err();
        assert!(matches!(&error, CodecError::Damaged { .. }), "{error}");
    }
    // A frame of spaces is a frame, but no text with its length before it.
    let error = decoded(&spaces(2 * block as u64, 2)).unwrap_err().to_string();
    assert!(error.starts_with("content: the payload does not decode: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back(text in any::<String>(), times in 1..200_usize) {
        for text in [&text, &text.repeat(times), &event(&text)] {
            let payload = encoded(text);
            prop_assert!(payload.len() <= HEADER_BYTES + 9 + text.len());
            prop_assert_eq!(&decoded(&payload).unwrap(), text);
        }
    }

    #[test]
    fn any_damage_is_an_error_or_a_text_and_never_a_panic(
        words in "[a-z ]{0,300}",
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut payload = encoded(&event(&words));
        for (at, byte) in changes {
            let at = HEADER_BYTES + at.index(payload.len() - HEADER_BYTES);
            payload[at] = byte;
        }
        if let Some(cut) = cut {
            payload.truncate(HEADER_BYTES + cut.index(payload.len() - HEADER_BYTES));
        }
        match decoded(&payload) {
            Ok(_) | Err(CodecError::Damaged { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_behind_a_compressed_header_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let magic: &[u8] = if magic { &[0x28, 0xB5, 0x2F, 0xFD] } else { &[] };
        let _ = decoded(&[&COMPRESSED[..], magic, &bytes].concat());
    }
}
