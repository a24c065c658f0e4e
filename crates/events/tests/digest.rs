//! Known answers of the digests, their byte layout as docs/format.md has it, and that every field counts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::collections::HashSet;

use proptest::prelude::*;
use runledger_events::{
    AdapterSessionId, DIGEST_BYTES, Digest, EventId, EventKind, Metadata, RunId, SessionId, StreamName, StreamVersion,
    TimestampMs, chain, commitment, content_digest, event_digest,
};

/// What `event_digest` takes, by name.
#[derive(Clone)]
struct Input {
    predecessor: Digest,
    stream: String,
    version: u64,
    id: String,
    kind: String,
    occurred_at: i64,
    recorded_at: i64,
    metadata: [Option<String>; 5],
    facts: Vec<u8>,
    commitment: Digest,
}

impl Input {
    fn sample() -> Self {
        let field = |text: &str| Some(text.to_owned());
        Self {
            predecessor: Digest([0x11; DIGEST_BYTES]),
            stream: "session/s1".to_owned(),
            version: 2,
            id: "req-1".to_owned(),
            kind: "tool.pre".to_owned(),
            occurred_at: 1_761_000_000_250,
            recorded_at: 1_761_000_000_251,
            metadata: [field("req-0"), field("corr"), field("s1"), field("adapter-1"), field("run-1")],
            facts: vec![1, 0, 0, 0, 9],
            commitment: Digest([0x22; DIGEST_BYTES]),
        }
    }

    fn digest(&self) -> Digest {
        let [causation_id, correlation_id, session_id, adapter_session_id, run_id] = self.metadata.clone();
        let metadata = Metadata {
            causation_id: causation_id.map(|id| EventId::new(id).unwrap()),
            correlation_id,
            session_id: session_id.map(|id| SessionId::new(id).unwrap()),
            adapter_session_id: adapter_session_id.map(|id| AdapterSessionId::new(id).unwrap()),
            run_id: run_id.map(|id| RunId::new(id).unwrap()),
        };
        event_digest(
            &self.predecessor,
            &StreamName::new(self.stream.clone()).unwrap(),
            StreamVersion(self.version),
            &EventId::new(self.id.clone()).unwrap(),
            &EventKind::parse(&self.kind),
            TimestampMs(self.occurred_at),
            TimestampMs(self.recorded_at),
            &metadata,
            &self.facts,
            &self.commitment,
        )
    }

    /// The bytes that are hashed, written down a second time from docs/format.md.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = part(b"runledger.event.1");
        bytes.extend(self.predecessor.0);
        bytes.extend(part(self.stream.as_bytes()));
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(part(self.id.as_bytes()));
        bytes.extend(part(self.kind.as_bytes()));
        bytes.extend(self.occurred_at.to_le_bytes());
        bytes.extend(self.recorded_at.to_le_bytes());
        for field in &self.metadata {
            match field {
                None => bytes.push(0),
                Some(text) => {
                    bytes.push(1);
                    bytes.extend(part(text.as_bytes()));
                }
            }
        }
        bytes.extend(part(&self.facts));
        bytes.extend(self.commitment.0);
        bytes
    }
}

/// A part of variable length: its length as eight bytes, little-endian, then itself.
fn part(bytes: &[u8]) -> Vec<u8> {
    [&u64::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
}

fn blake3(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

#[test]
fn known_answers_of_the_commitment() {
    assert_eq!(
        commitment(&[0; 16], b"").to_string(),
        "883676b5e0b418da2bb44d13d334f61145ce20e2f1b8208ebac58e958102a0dd"
    );
    let salt = *b"0123456789abcdef";
    assert_eq!(
        commitment(&salt, br#"{"kind":"setup"}"#).to_string(),
        "93894098906252a5144de34c83e1df9c7128a31232481fcc087d14131e999a30"
    );
}

#[test]
fn known_answers_of_the_event_digest() {
    assert_eq!(
        Input::sample().digest().to_string(),
        "0bfa489006fd77abacd6aac0a5358ed2fc285dcb4e0832b97d6b272a0b22621d"
    );
    let bare = Input {
        predecessor: Digest::ZERO,
        version: 1,
        occurred_at: -1,
        recorded_at: 0,
        metadata: [None, None, None, None, None],
        facts: Vec::new(),
        commitment: Digest::ZERO,
        ..Input::sample()
    };
    assert_eq!(bare.digest().to_string(), "ee660466bedfdb3655cfbeb3a8f43fdb9d361054c11c4ba04b1189deecfc6d5d");
}

#[test]
fn known_answers_of_the_chain() {
    assert_eq!(
        chain(&Digest::ZERO, &Digest::ZERO).to_string(),
        "40929081bce6652ae6e576951e2d5172b425c4ea95d26b0bfcd25b11d17668e9"
    );
    assert_eq!(
        chain(&Digest([0x11; 32]), &Digest([0x22; 32])).to_string(),
        "f5f49fae0421b461b2f9a78b794924bdabb45ed4e451529e8dbbb466c761a190"
    );
}

#[test]
fn the_digest_of_a_file_is_plain_blake3() {
    // The test vector of BLAKE3 for no input.
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(content_digest(b"").to_string(), empty);
}

#[test]
fn digests_are_blake3_of_the_documented_bytes() {
    let salt = [7; 16];
    let committed = [part(b"runledger.content.1"), salt.to_vec(), part(b"{}")].concat();
    assert_eq!(commitment(&salt, b"{}"), blake3(&committed));
    let sample = Input::sample();
    assert_eq!(sample.digest(), blake3(&sample.bytes()));
    let (previous, digest) = (Digest([3; 32]), Digest([4; 32]));
    let chained = [part(b"runledger.chain.1"), previous.0.to_vec(), digest.0.to_vec()].concat();
    assert_eq!(chain(&previous, &digest), blake3(&chained));
}

#[test]
fn a_change_of_any_field_changes_the_digest() {
    // Given
    let sample = Input::sample();
    let mut changed = vec![
        Input { predecessor: Digest([0x12; 32]), ..sample.clone() },
        Input { stream: "session/s2".to_owned(), ..sample.clone() },
        Input { version: 3, ..sample.clone() },
        Input { id: "req-2".to_owned(), ..sample.clone() },
        Input { kind: "tool.post".to_owned(), ..sample.clone() },
        Input { kind: "tool.pre2".to_owned(), ..sample.clone() },
        Input { occurred_at: 1_761_000_000_251, ..sample.clone() },
        Input { recorded_at: 1_761_000_000_252, ..sample.clone() },
        Input { occurred_at: sample.recorded_at, recorded_at: sample.occurred_at, ..sample.clone() },
        Input { facts: vec![1, 0, 0, 0, 8], ..sample.clone() },
        Input { facts: vec![1, 0, 0, 0], ..sample.clone() },
        Input { commitment: Digest([0x23; 32]), ..sample.clone() },
        Input { predecessor: sample.commitment, commitment: sample.predecessor, ..sample.clone() },
        // A character that moves from one field to its neighbour.
        Input { id: "req-1t".to_owned(), kind: "ool.pre".to_owned(), ..sample.clone() },
    ];
    for index in 0..5 {
        for value in [None, Some("other".to_owned())] {
            let mut input = sample.clone();
            input.metadata[index] = value;
            changed.push(input);
        }
        let mut moved = sample.clone();
        moved.metadata.rotate_left(index);
        if index > 0 {
            changed.push(moved);
        }
    }
    // When
    let digests: HashSet<Digest> = changed.iter().map(Input::digest).chain([sample.digest()]).collect();
    // Then
    assert_eq!(digests.len(), changed.len() + 1);
}

#[test]
fn a_change_of_salt_or_content_changes_the_commitment_and_of_either_link_the_chain() {
    let salts = [[0; 16], [1; 16], *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"];
    let commitments: HashSet<Digest> =
        salts.iter().flat_map(|salt| [&b""[..], b"\0", b"a", b"ab"].map(|content| commitment(salt, content))).collect();
    assert_eq!(commitments.len(), 12);
    let (a, b) = (Digest([1; 32]), Digest([2; 32]));
    let chains = HashSet::from([chain(&a, &b), chain(&b, &a), chain(&a, &a), chain(&b, &b), commitment(&[1; 16], &[])]);
    assert_eq!(chains.len(), 5);
}

#[test]
fn a_digest_is_read_from_32_bytes_and_no_others() {
    assert_eq!(Digest::from_slice(&[5; 32]), Some(Digest([5; 32])));
    for length in [0, 31, 33] {
        assert_eq!(Digest::from_slice(&vec![5; length]), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_digest_is_blake3_of_the_documented_bytes(
        stream in "[a-z/é]{1,20}",
        version in any::<u64>(),
        id in "\\PC{1,20}",
        kind in "[a-z.]{1,20}",
        times in any::<(i64, i64)>(),
        metadata in prop::array::uniform5(prop::option::of("[a-z]{1,8}")),
        facts in prop::collection::vec(any::<u8>(), 0..64),
        links in any::<([u8; 32], [u8; 32])>(),
    ) {
        let input = Input {
            predecessor: Digest(links.0),
            stream,
            version,
            id,
            kind,
            occurred_at: times.0,
            recorded_at: times.1,
            metadata,
            facts,
            commitment: Digest(links.1),
        };
        prop_assert_eq!(input.digest(), blake3(&input.bytes()));
    }
}
