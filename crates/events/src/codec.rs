//! The payload codec: the one place that knows how facts and content are written as bytes.
//!
//! ```text
//! payload = header body
//! header  = version u8, compression u8 (0: none), dictionary u16 little-endian (0: none)
//! facts   = bincode 2, standard configuration, of `Facts`
//! content = bincode 2, standard configuration, of the event's JSON text
//! ```
//!
//! A body of content is compressed where that makes it shorter; the version is that of what comes out. Facts never are:
//! they are short, read often, and part of the digest byte for byte.
//!
//! bincode is no longer developed: the version byte is what lets another encoding take its place without rewriting a
//! log (docs/decisions/0003-payload-codec.md).

use std::borrow::Cow;
use std::fmt;

use bincode::config;

use crate::compression::{self, CONTENT_DICTIONARY};
use crate::facts::Facts;
use crate::upcast::Upcasters;

/// Length of a payload's header.
pub const HEADER_BYTES: usize = 4;

/// The codec version that this release writes.
///
/// - 1: bincode 2.0, facts as of release 0.1.
/// - 2: facts of questions and timers; forks, retries and policies in those of runs, scopes in those of decisions.
const NEWEST: u8 = 2;

const COMPRESSION_NONE: u8 = 0;

/// The longest JSON text of one event, in bytes.
pub const CONTENT_BYTES_MAX: usize = 256 << 20;

/// The length before a text takes at most this much.
const LENGTH_BYTES_MAX: usize = 9;

/// No facts come near this; a larger length can only be damage, and must not make us allocate it.
pub(crate) const FACTS_BYTES_MAX: usize = 16 << 20;

/// Which half of an event's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPart {
    /// What folds need; never erased.
    Facts,
    /// The JSON text; erasable.
    Content,
}

impl fmt::Display for PayloadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Facts => "facts",
            Self::Content => "content",
        })
    }
}

/// A payload that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The header is torn.
    #[error("{part}: {bytes} bytes are less than a header")]
    TooShort {
        /// Which half.
        part: PayloadPart,
        /// How many there are.
        bytes: usize,
    },
    /// A newer program wrote it.
    #[error("{part}: codec version {version} is newer than {newest}, the newest that this program reads; upgrade it")]
    Newer {
        /// Which half.
        part: PayloadPart,
        /// Its version.
        version: u8,
        /// The newest known.
        newest: u8,
    },
    /// No upcaster leads on from a version.
    #[error("{part}: no upcaster takes codec version {version}")]
    NoUpcaster {
        /// Which half.
        part: PayloadPart,
        /// The version where the chain ends.
        version: u8,
    },
    /// An unknown compression or dictionary.
    #[error(
        "{part}: compression {compression} with dictionary {dictionary} is not known to this program; upgrade it, \
         or the payload is damaged"
    )]
    Compression {
        /// Which half.
        part: PayloadPart,
        /// The compression's id.
        compression: u8,
        /// The dictionary's id.
        dictionary: u16,
    },
    /// The body is damaged.
    #[error("{part}: the payload does not decode: {detail}")]
    Damaged {
        /// Which half.
        part: PayloadPart,
        /// What is wrong.
        detail: String,
    },
    /// It decodes, to something else than what was appended.
    #[error("{part}: it is not what was appended")]
    Altered {
        /// Which half.
        part: PayloadPart,
    },
    /// A value that cannot be written.
    #[error("{part}: the payload cannot be encoded: {source}")]
    Encode {
        /// Which half.
        part: PayloadPart,
        /// Why.
        source: bincode::error::EncodeError,
    },
}

/// Writes and reads payloads.
#[derive(Debug, Clone)]
pub struct Codec {
    newest: u8,
    upcasters: Upcasters,
}

impl Default for Codec {
    fn default() -> Self {
        Self { newest: NEWEST, upcasters: Upcasters::released() }
    }
}

impl Codec {
    /// A codec with a chain of upcasters of one's own.
    pub fn with_upcasters(upcasters: Upcasters) -> Self {
        Self { newest: NEWEST, upcasters }
    }

    /// The facts as a stored payload.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when they are larger than any facts may be.
    pub fn encode_facts(&self, facts: &Facts) -> Result<Vec<u8>, CodecError> {
        let mut payload = self.header();
        bincode::encode_into_std_write(facts, &mut payload, config::standard())
            .map_err(|source| CodecError::Encode { part: PayloadPart::Facts, source })?;
        // The reader counts some of the fixed fields as wider than they are written; they are few.
        if payload.len() > FACTS_BYTES_MAX - 4096 {
            let source = bincode::error::EncodeError::Other("the facts are too large");
            return Err(CodecError::Encode { part: PayloadPart::Facts, source });
        }
        Ok(payload)
    }

    /// The JSON text as a stored payload.
    ///
    /// # Errors
    /// [`CodecError::Encode`], never for text that fits in memory three times.
    pub fn encode_content(&self, json: &str) -> Result<Vec<u8>, CodecError> {
        let mut payload = self.header();
        payload.reserve(json.len() + LENGTH_BYTES_MAX);
        bincode::encode_into_std_write(json, &mut payload, config::standard())
            .map_err(|source| CodecError::Encode { part: PayloadPart::Content, source })?;
        // What is too long to be read again is not the codec's to refuse, but never a frame.
        if json.len() > CONTENT_BYTES_MAX {
            return Ok(payload);
        }
        let [low, high] = CONTENT_DICTIONARY.id.to_le_bytes();
        let header = [self.newest, compression::ZSTD, low, high];
        Ok(compression::compressed(&header, &payload[HEADER_BYTES..]).unwrap_or(payload))
    }

    /// Whether a payload is of the version that this codec writes.
    pub fn is_of_own_version(&self, payload: &[u8]) -> bool {
        payload.first() == Some(&self.newest)
    }

    /// The facts in a stored payload.
    ///
    /// # Errors
    /// [`CodecError`] when the payload is damaged or newer than this program.
    pub fn decode_facts(&self, payload: &[u8]) -> Result<Facts, CodecError> {
        const PART: PayloadPart = PayloadPart::Facts;
        let body = self.body(PART, payload)?;
        let config = config::standard().with_limit::<FACTS_BYTES_MAX>();
        let (facts, read) = bincode::decode_from_slice(&body, config).map_err(|error| damaged(PART, &error))?;
        whole(PART, read, body.len())?;
        Ok(facts)
    }

    /// The JSON text in a stored payload.
    ///
    /// # Errors
    /// [`CodecError`] when the payload is damaged or newer than this program.
    pub fn decode_content(&self, payload: &[u8]) -> Result<String, CodecError> {
        const PART: PayloadPart = PayloadPart::Content;
        let body = self.body(PART, payload)?;
        let (json, read): (&str, usize) =
            bincode::borrow_decode_from_slice(&body, config::standard()).map_err(|error| damaged(PART, &error))?;
        whole(PART, read, body.len())?;
        Ok(json.to_owned())
    }

    fn header(&self) -> Vec<u8> {
        vec![self.newest, COMPRESSION_NONE, 0, 0]
    }

    /// The body in today's form.
    fn body<'a>(&self, part: PayloadPart, payload: &'a [u8]) -> Result<Cow<'a, [u8]>, CodecError> {
        let Some((header, body)) = payload.split_at_checked(HEADER_BYTES) else {
            return Err(CodecError::TooShort { part, bytes: payload.len() });
        };
        let (version, compression) = (header[0], header[1]);
        let dictionary = u16::from_le_bytes([header[2], header[3]]);
        if version > self.newest {
            return Err(CodecError::Newer { part, version, newest: self.newest });
        }
        let body = match (part, compression, dictionary) {
            (_, COMPRESSION_NONE, 0) => Cow::Borrowed(body),
            (PayloadPart::Content, compression::ZSTD, id) if id == CONTENT_DICTIONARY.id => {
                let bytes_max = CONTENT_BYTES_MAX + LENGTH_BYTES_MAX;
                Cow::Owned(compression::decompressed(body, bytes_max).map_err(|detail| damaged(part, &detail))?)
            }
            _ => return Err(CodecError::Compression { part, compression, dictionary }),
        };
        if version == self.newest {
            return Ok(body);
        }
        self.upcasters.apply(part, version, self.newest, body.into_owned()).map(Cow::Owned)
    }
}

fn damaged(part: PayloadPart, error: &dyn fmt::Display) -> CodecError {
    CodecError::Damaged { part, detail: error.to_string() }
}

fn whole(part: PayloadPart, read: usize, bytes: usize) -> Result<(), CodecError> {
    if read == bytes { Ok(()) } else { Err(damaged(part, &format!("{} bytes too many", bytes - read))) }
}
