//! Digests that tie an event to its stream, its content and its place in the log.
//!
//! All are BLAKE3, 32 bytes (docs/decisions/0004): `commitment = H(salt ‖ content)`, `digest = H(predecessor's digest ‖
//! everything but the position ‖ commitment)`, `chain = H(previous row's chain ‖ digest)`, where the first row's previous
//! chain is `H(log id)`. Each has its own domain word,
//! and every part of variable length is preceded by its length, so that no two inputs can be read alike.

use std::fmt;

use crate::envelope::Metadata;
use crate::ids::{EventId, LogId, StreamName};
use crate::kind::EventKind;
use crate::position::{StreamVersion, TimestampMs};

/// Length of every digest.
pub const DIGEST_BYTES: usize = 32;
/// Length of the salt beside a commitment.
pub const SALT_BYTES: usize = 16;

/// Random bytes that keep short contents from being guessed out of their commitment.
pub type Salt = [u8; SALT_BYTES];

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl Digest {
    /// The predecessor of the first event of a stream.
    pub const ZERO: Self = Self([0; DIGEST_BYTES]);

    /// The digest in these bytes, if they are of its length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Binds the uncompressed content, which can be erased later, without revealing it.
pub fn commitment(salt: &Salt, content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(b"runledger.content.1");
    hasher.fixed(salt);
    hasher.part(content);
    hasher.finish()
}

/// The digest of one event: its predecessor's in the stream, and everything of it but the position.
///
/// `facts` is the stored payload with its header; `metadata` in its canonical order.
#[allow(clippy::too_many_arguments)]
pub fn event_digest(
    predecessor: &Digest,
    stream: &StreamName,
    version: StreamVersion,
    id: &EventId,
    kind: &EventKind,
    occurred_at: TimestampMs,
    recorded_at: TimestampMs,
    metadata: &Metadata,
    facts: &[u8],
    commitment: &Digest,
) -> Digest {
    let mut hasher = Hasher::new(b"runledger.event.1");
    hasher.fixed(&predecessor.0);
    hasher.part(stream.as_str().as_bytes());
    hasher.fixed(&version.0.to_le_bytes());
    hasher.part(id.as_str().as_bytes());
    hasher.part(kind.as_str().as_bytes());
    hasher.fixed(&occurred_at.0.to_le_bytes());
    hasher.fixed(&recorded_at.0.to_le_bytes());
    for field in metadata.fields() {
        match field {
            None => hasher.fixed(&[0]),
            Some(text) => {
                hasher.fixed(&[1]);
                hasher.part(text.as_bytes());
            }
        }
    }
    hasher.part(facts);
    hasher.fixed(&commitment.0);
    hasher.finish()
}

/// The chain over all rows of a log, up to and with the row of this digest.
pub fn chain(previous: &Digest, digest: &Digest) -> Digest {
    let mut hasher = Hasher::new(b"runledger.chain.1");
    hasher.fixed(&previous.0);
    hasher.fixed(&digest.0);
    hasher.finish()
}

/// What the chain of a log begins with, before its first row: a log's rows do not pass for another's.
pub fn chain_seed(log_id: &LogId) -> Digest {
    let mut hasher = Hasher::new(b"runledger.log.1");
    hasher.part(log_id.as_str().as_bytes());
    hasher.finish()
}

/// The plain BLAKE3 digest of a file's content, such as a tracker's.
pub fn content_digest(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

struct Hasher(blake3::Hasher);

impl Hasher {
    fn new(domain: &[u8]) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.part(domain);
        hasher
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}
