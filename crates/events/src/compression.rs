//! Compression of payload bodies: zstd, with a dictionary of the project's own writing.
//!
//! ```text
//! compression 1 = one zstd frame, its content's size declared, without a checksum (the commitment is one)
//! dictionary 1  = dictionaries/content-1.zdict: zstd's tables, then the text of dictionaries/content-1.jsonl as it is
//! ```
//!
//! Invariants: a dictionary's bytes never change, and no user's content is in one, so that erasing an event's content
//! leaves nothing of it (docs/decisions/0022-compression.md). What a frame asks for in memory is checked before it is
//! given.

use std::io::Cursor;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size, get_frame_content_size};

/// The compression id in a payload's header.
pub(crate) const ZSTD: u8 = 1;

/// A dictionary that payloads are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dictionary {
    /// What payload headers call it.
    pub id: u16,
    /// The dictionary, as the `zstd` program takes it.
    pub bytes: &'static [u8],
}

/// The one of this release, for content.
pub const CONTENT_DICTIONARY: Dictionary =
    Dictionary { id: 1, bytes: include_bytes!("../dictionaries/content-1.zdict") };

/// Level 3 saves 2 to 5 % more, and its tables of the dictionary take ten times the memory, which an append feels.
const LEVEL: i32 = 1;

/// What a context has taken for a larger body is given back at once.
const KEPT_BODY_BYTES_MAX: usize = 1 << 20;

/// A block of a frame holds at most this much, and has at least four bytes.
const BLOCK_BYTES_MAX: usize = 128 << 10;
const BLOCK_BYTES_MIN: usize = 4;

// zstd makes these unless there is no memory: then content is stored as it is.
static ENCODER: LazyLock<Option<EncoderDictionary<'static>>> =
    LazyLock::new(|| EncoderDictionary::try_copy(CONTENT_DICTIONARY.bytes, LEVEL).ok());
static DECODER: LazyLock<Option<DecoderDictionary<'static>>> =
    LazyLock::new(|| DecoderDictionary::try_copy(CONTENT_DICTIONARY.bytes).ok());

static COMPRESSORS: Pool<Compressor<'static>> = Pool(Mutex::new(Vec::new()));
static DECOMPRESSORS: Pool<Decompressor<'static>> = Pool(Mutex::new(Vec::new()));

/// Contexts that wait for use, the last used on top: its memory is still in the cache. One for each thread would be made anew
/// by every short one, and of many threads each would find its own gone cold.
struct Pool<T>(Mutex<Vec<T>>);

/// More threads than these are not at work at once.
const KEPT_CONTEXTS_MAX: usize = 16;

impl<T> Pool<T> {
    /// Uses a context that waits, or makes one; `None` where that fails. One that failed at its work is not kept.
    fn with<R>(
        &self,
        make: fn() -> Option<T>,
        work: impl FnOnce(&mut T) -> std::io::Result<R>,
    ) -> Option<std::io::Result<R>> {
        let kept = self.contexts().pop();
        let mut context = match kept {
            Some(context) => context,
            None => make()?,
        };
        let result = work(&mut context);
        let mut contexts = self.contexts();
        if result.is_ok() && contexts.len() < KEPT_CONTEXTS_MAX {
            contexts.push(context);
        }
        Some(result)
    }

    fn contexts(&self) -> MutexGuard<'_, Vec<T>> {
        // A list is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compressor() -> Option<Compressor<'static>> {
    let mut compressor = Compressor::with_prepared_dictionary(ENCODER.as_ref()?).ok()?;
    // The payload's header names the dictionary.
    compressor.include_dictid(false).ok()?;
    Some(compressor)
}

fn decompressor() -> Option<Decompressor<'static>> {
    Decompressor::with_prepared_dictionary(DECODER.as_ref()?).ok()
}

/// The body as a frame behind `header`; `None` where that is no shorter than the body as it is.
pub(crate) fn compressed(header: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    payload.try_reserve_exact(header.len() + compress_bound(body.len())).ok()?;
    payload.extend_from_slice(header);
    let mut payload = Cursor::new(payload);
    payload.set_position(header.len() as u64);
    let bytes = if body.len() > KEPT_BODY_BYTES_MAX {
        compressor()?.compress_to_buffer(body, &mut payload)
    } else {
        COMPRESSORS.with(compressor, |context| context.compress_to_buffer(body, &mut payload))?
    };
    let mut payload = (bytes.ok()? < body.len()).then(|| payload.into_inner())?;
    // It may wait for its turn with many others.
    payload.shrink_to_fit();
    Some(payload)
}

/// The body in a frame, of at most `bytes_max`; or what is wrong with the frame.
pub(crate) fn decompressed(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let bytes = match get_frame_content_size(frame) {
        // A frame that is to be skipped says so too.
        Ok(Some(0)) => return Err("the frame is empty".to_owned()),
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err("the frame does not say how large its content is".to_owned()),
        Err(_) => return Err("it is no zstd frame".to_owned()),
    };
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err("it is not one whole zstd frame".to_owned());
    }
    let most = (frame.len() / BLOCK_BYTES_MIN).saturating_mul(BLOCK_BYTES_MAX).min(bytes_max);
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= most).ok_or_else(|| {
        format!("a frame of {} bytes says that it holds {bytes}; at most {most} are taken", frame.len())
    })?;
    let mut body = Vec::new();
    body.try_reserve_exact(bytes).map_err(|error| error.to_string())?;
    let read = DECOMPRESSORS
        .with(decompressor, |context| context.decompress_to_buffer(frame, &mut body))
        .ok_or("there is no memory for zstd")?
        .map_err(|error| error.to_string())?;
    if read == bytes { Ok(body) } else { Err(format!("the frame holds {read} bytes where it says {bytes}")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_was_released() {
        let digest = blake3::hash(CONTENT_DICTIONARY.bytes).to_string();
        assert_eq!(
            digest, "a4f366ba60cce0da186d6fa8d44d8e03c448d5e59dff43b665082639ceec2d04",
            "a payload that was written cannot be read without these bytes"
        );
    }

    #[test]
    fn the_dictionary_is_the_readable_text_behind_zstds_tables() {
        let text = include_str!("../dictionaries/content-1.jsonl");
        assert!(CONTENT_DICTIONARY.bytes.ends_with(text.as_bytes()));
        for line in text.lines() {
            let event = crate::Fields::parse(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event.text("kind").is_some(), "{line}");
        }
    }

    /// A frame with these content size bytes and no more than a last, empty block.
    fn frame(bytes: u64, blocks: &[u8]) -> Vec<u8> {
        // Magic number; one segment with a content size of eight bytes, no dictionary, no checksum.
        [&[0x28, 0xB5, 0x2F, 0xFD, 0b1110_0000][..], &bytes.to_le_bytes(), blocks].concat()
    }

    /// A block that repeats a byte.
    fn repeat(count: u32, is_last: bool) -> Vec<u8> {
        let header = count << 3 | 1 << 1 | u32::from(is_last);
        [&header.to_le_bytes()[..3], b" "].concat()
    }

    #[test]
    fn a_frame_is_taken_up_to_what_its_blocks_can_hold_and_no_further() {
        let block = u32::try_from(BLOCK_BYTES_MAX).unwrap();
        let blocks = [repeat(block, false), repeat(block, true)].concat();
        let whole = 2 * BLOCK_BYTES_MAX;
        assert_eq!(decompressed(&frame(whole as u64, &blocks), whole).unwrap().len(), whole);
        assert!(decompressed(&frame(whole as u64, &blocks), whole - 1).unwrap_err().contains("at most 262143"));
        for bytes in [0, 1, whole as u64 - 1, whole as u64 + 1, 1 << 40, u64::MAX - 2, u64::MAX] {
            assert!(decompressed(&frame(bytes, &blocks), usize::MAX).is_err(), "{bytes} were taken");
        }
    }

    #[test]
    fn what_is_not_one_whole_frame_is_refused() {
        let good = frame(1, &repeat(1, true));
        assert_eq!(decompressed(&good, 10).unwrap(), b" ");
        let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 7][..]].concat();
        // Content size left out: a window descriptor in its place.
        let undeclared = [&[0x28, 0xB5, 0x2F, 0xFD, 0, 0x40][..], &repeat(1, true)].concat();
        let twice = [good.clone(), good.clone()].concat();
        let behind = [good.clone(), skippable.clone()].concat();
        for bytes in [Vec::new(), skippable, undeclared, twice, behind, good[..good.len() - 1].to_vec()] {
            assert!(decompressed(&bytes, 10).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_large_body_comes_back_and_a_body_that_zstd_makes_no_shorter_is_left_alone() {
        let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_string().into_bytes()).collect();
        let payload = compressed(&[9; 4], &large).unwrap();
        assert!(payload.len() < large.len() / 2 && payload.starts_with(&[9; 4]));
        assert_eq!(decompressed(&payload[4..], large.len()).unwrap(), large);
        assert_eq!(compressed(&[9; 4], b"x"), None);
        assert_eq!(compressed(&[9; 4], b""), None);
    }
}
