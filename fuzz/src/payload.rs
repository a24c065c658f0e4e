//! Stored payloads: facts and content, whole, damaged and made up.

use runledger_events::{CONTENT_BYTES_MAX, Codec, HEADER_BYTES};

/// The most that a frame of so many bytes can hold: a block has at least 4 bytes, and holds 128 KiB at the most.
fn most_of(frame_bytes: usize) -> usize {
    (frame_bytes / 4).saturating_mul(128 << 10).min(CONTENT_BYTES_MAX)
}

/// Any bytes as a payload, and a payload of any bytes.
pub fn payload(bytes: &[u8]) {
    let codec = Codec::default();
    if let Ok(facts) = codec.decode_facts(bytes) {
        let encoded = codec.encode_facts(&facts).expect("facts that were read can be written");
        assert_eq!(codec.decode_facts(&encoded).expect("what was written is read"), facts);
    }
    if let Ok(json) = codec.decode_content(bytes) {
        assert!(json.len() <= most_of(bytes.len()).max(bytes.len()), "{} bytes out of {}", json.len(), bytes.len());
        content(&codec, &json);
    }
    let text = String::from_utf8_lossy(bytes);
    let encoded = content(&codec, &text);
    damaged(&codec, encoded, bytes);
}

/// A text comes back from its payload.
fn content(codec: &Codec, text: &str) -> Vec<u8> {
    let encoded = codec.encode_content(text).expect("a text in memory can be written");
    assert_eq!(codec.decode_content(&encoded).expect("what was written is read"), text);
    encoded
}

/// A payload of which one byte is another is refused, or is another text; never more than its frame can hold.
fn damaged(codec: &Codec, mut encoded: Vec<u8>, bytes: &[u8]) {
    let place = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let behind_header = encoded.len() - HEADER_BYTES;
    if behind_header > 0 {
        encoded[HEADER_BYTES + place % behind_header] ^= 1 << (place % 8);
        if let Ok(json) = codec.decode_content(&encoded) {
            assert!(json.len() <= most_of(encoded.len()).max(encoded.len()));
        }
    }
}
