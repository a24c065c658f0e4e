//! Signed heads: a signature under the log's end as it was at one moment. Whoever holds an earlier one sees that what stood
//! before it was cut off or written anew, even where every digest was computed again.
//!
//! The chain at a position depends on every row up to it, so a signature under the chain is one under all of them.

use std::fmt::Write as _;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use runledger_events::{EventKind, LogId, Metadata, Position, RuntimeEvent, StreamName, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::error::{AppendError, SealError, StorageError};
use crate::expected_version::ExpectedVersion;
use crate::ledger_events::LedgerData;
use crate::log::EventLog;
use crate::new_event::{NewEvent, Receipt, StreamAppend};
use crate::reader::{Head, LogReader};
use crate::write::now;

/// The private half of a key that signs heads.
pub struct SealKey(SigningKey);

/// The public half: what a signature is checked with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealPublicKey(VerifyingKey);

/// What a key's text begins with.
const PRIVATE_WORD: &str = "runledger-seal-key-1";
const PUBLIC_WORD: &str = "runledger-seal-public-1";

impl SealKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`SealError::Random`] where the system gives no random bytes.
    pub fn new() -> Result<Self, SealError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| SealError::Random { detail: error.to_string() })?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads it from its text.
    ///
    /// # Errors
    /// [`SealError::Key`] for a text that is none.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let seed = words(text, PRIVATE_WORD).ok_or(SealError::Key { expected: PRIVATE_WORD })?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Its text: one line, to be kept from others.
    pub fn to_text(&self) -> String {
        format!("{PRIVATE_WORD} {}\n", hex(&self.0.to_bytes()))
    }

    /// The public half.
    pub fn public(&self) -> SealPublicKey {
        SealPublicKey(self.0.verifying_key())
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealKey").field(&self.public()).finish()
    }
}

impl SealPublicKey {
    /// Reads it from its text.
    ///
    /// # Errors
    /// [`SealError::Key`] for a text that is none.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let error = SealError::Key { expected: PUBLIC_WORD };
        let bytes = words(text, PUBLIC_WORD).or_else(|| unhex(text.trim()));
        bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).map(Self).ok_or(error)
    }

    /// Its text: one line, to be handed to whoever checks.
    pub fn to_text(&self) -> String {
        format!("{PUBLIC_WORD} {self}\n")
    }
}

impl std::fmt::Display for SealPublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

/// The end of a log at one moment, signed. Keys and digests are in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The log.
    pub log_id: LogId,
    /// Its last event then.
    pub position: Position,
    /// The chain there.
    pub chain: String,
    /// When it was signed.
    pub sealed_at: TimestampMs,
    /// By whom.
    pub public_key: String,
    /// The signature under all that.
    pub signature: String,
}

/// What is wrong with a signed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFinding {
    /// What it signs; none for an event that holds no signed head.
    pub position: Option<Position>,
    /// What, in words.
    pub detail: String,
}

impl SignedHead {
    fn sign(log_id: &LogId, head: Head, key: &SealKey) -> Self {
        let mut signed = Self {
            log_id: log_id.clone(),
            position: head.position,
            chain: head.chain.to_string(),
            sealed_at: now(),
            public_key: key.public().to_string(),
            signature: String::new(),
        };
        signed.signature = hex(&key.0.sign(signed.text().as_bytes()).to_bytes());
        signed
    }

    /// What is signed. docs/format.md tells of it.
    fn text(&self) -> String {
        let Self { log_id, position, chain, sealed_at, public_key, .. } = self;
        format!("runledger.seal.1\n{log_id}\n{position}\n{chain}\n{}\n{public_key}\n", sealed_at.0)
    }

    fn is_signed(&self) -> bool {
        let signature = unhex(&self.signature).map(|bytes| Signature::from_bytes(&bytes));
        match (SealPublicKey::parse(&self.public_key), signature) {
            (Ok(key), Some(signature)) => key.0.verify_strict(self.text().as_bytes(), &signature).is_ok(),
            _ => false,
        }
    }
}

impl SignedHead {
    /// Signs the head of what a log reads, and appends it by `append`: that is the engine's own, which takes what is done to this log.
    ///
    /// # Errors
    /// As [`EventLog::seal`].
    pub fn seal(
        log: &dyn EventLog,
        key: &SealKey,
        append: impl FnOnce(StreamAppend) -> Result<Vec<Receipt>, AppendError>,
    ) -> Result<(Self, Receipt), SealError> {
        let signed = Self::sign(log.log_id(), log.reader()?.head()?, key);
        let json = serde_json::json!({ "kind": EventKind::LedgerSealed.as_str(), "data": signed }).to_string();
        let event = RuntimeEvent::from_json(&json).map_err(|source| SealError::Event { detail: source.to_string() })?;
        let event = NewEvent::new(event, Metadata::default())
            .map_err(|source| SealError::Event { detail: source.to_string() })?;
        let receipts =
            append(StreamAppend { stream: StreamName::seals(), expected: ExpectedVersion::Any, events: vec![event] })?;
        let receipt =
            receipts.into_iter().next().ok_or(SealError::Event { detail: "no receipt came back".to_owned() })?;
        Ok((signed, receipt))
    }
}

impl LogReader {
    /// The signed heads of this log in the log itself, in order; in place of each that cannot be read why. Those of a log that
    /// this one was copied from say nothing of it, nor do those that came without their content.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn seals(&self) -> Result<Vec<Result<SignedHead, SealFinding>>, StorageError> {
        let told_gone = self.told_erasures()?;
        let seals = self.ledger_data(StreamName::seals(), |position, data| {
            let seal = match data {
                data if data.is_of_another(self.log_id()) => return None,
                LedgerData::Gone if told_gone.contain(position.0) => return None,
                LedgerData::Told(json) => serde_json::from_str::<SignedHead>(&json).ok(),
                LedgerData::Gone | LedgerData::Unreadable => None,
            };
            let detail = || format!("the event at position {position} holds no signed head any more");
            Some(seal.ok_or_else(|| SealFinding { position: None, detail: detail() }))
        })?;
        Ok(seals.into_iter().flatten().collect())
    }

    /// What is wrong with a signed head, if anything is: its signature, its signer where `keys` are asked for, or the log, which
    /// is no longer what was signed.
    ///
    /// # Errors
    /// [`StorageError`] when the log cannot be read.
    pub fn check_seal(&self, seal: &SignedHead, keys: &[SealPublicKey]) -> Result<Option<SealFinding>, StorageError> {
        let position = seal.position;
        let found = |detail: String| Ok(Some(SealFinding { position: Some(position), detail }));
        if seal.log_id != *self.log_id() {
            return found(format!("it is of another log, {}", seal.log_id));
        }
        if !seal.is_signed() {
            return found("its signature does not fit: it was not made by that key, or it was changed".to_owned());
        }
        if !keys.is_empty() && !keys.iter().any(|key| seal.public_key == key.to_string()) {
            return found(format!("it is signed by another key, {}", seal.public_key));
        }
        // No row has a greater position than SQLite's integers have.
        let chain = if i64::try_from(position.0).is_ok() { self.chain_at(position)? } else { None };
        match chain {
            Some(chain) if chain.to_string() == seal.chain => Ok(None),
            Some(_) => found("what stands up to here is not what was signed".to_owned()),
            None => found(format!("what was signed up to here is gone: the log ends at {}", self.head()?.position)),
        }
    }
}

fn words<const N: usize>(text: &str, word: &str) -> Option<[u8; N]> {
    unhex(text.trim().strip_prefix(word)?.trim_start())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A text always takes what is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use runledger_events::Digest;

    use super::*;

    #[test]
    fn keys_come_back_from_their_texts_and_other_texts_are_refused() {
        let key = SealKey::new().unwrap();
        assert_eq!(SealKey::parse(&key.to_text()).unwrap().public(), key.public());
        assert_eq!(SealPublicKey::parse(&key.public().to_text()).unwrap(), key.public());
        assert_eq!(SealPublicKey::parse(&key.public().to_string()).unwrap(), key.public());
        let public = key.public().to_text();
        for text in ["", "runledger-seal-key-1", "runledger-seal-key-1 00", &key.to_text()[1..], &public] {
            assert!(SealKey::parse(text).is_err(), "{text}");
        }
        for text in ["", &public[..40], "zz", &key.to_text()] {
            assert!(SealPublicKey::parse(text).is_err(), "{text}");
        }
        assert!(!format!("{key:?}").contains(&hex(&key.0.to_bytes())), "the private half is never printed");
    }

    #[test]
    fn a_signature_fits_what_was_signed_alone() {
        let head = Head { position: Position(7), chain: Digest([5; 32]) };
        let signed = SignedHead::sign(&LogId::new("log").unwrap(), head, &SealKey::new().unwrap());
        assert!(signed.is_signed());
        let other = SealKey::new().unwrap().public().to_string();
        let changed = [
            SignedHead { log_id: LogId::new("other").unwrap(), ..signed.clone() },
            SignedHead { position: Position(8), ..signed.clone() },
            SignedHead { chain: Digest([6; 32]).to_string(), ..signed.clone() },
            SignedHead { sealed_at: TimestampMs(1), ..signed.clone() },
            SignedHead { public_key: other, ..signed.clone() },
            SignedHead { signature: hex(&[0; 64]), ..signed.clone() },
            SignedHead { signature: String::new(), ..signed },
        ];
        assert!(changed.iter().all(|changed| !changed.is_signed()));
    }
}
