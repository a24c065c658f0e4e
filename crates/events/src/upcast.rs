//! Upcasters: payloads of old codec versions, brought to today's on read, one version at a time.

use std::collections::BTreeMap;

use crate::codec::{CodecError, PayloadPart};
use crate::version_1;

/// Brings a payload body (the bytes after the header) of one codec version to the next.
///
/// # Errors
/// [`CodecError`] when the body is not of its version's shape.
pub type Upcast = fn(PayloadPart, Vec<u8>) -> Result<Vec<u8>, CodecError>;

/// The chain of upcasters, by the version that each takes.
#[derive(Debug, Clone, Default)]
pub struct Upcasters(BTreeMap<u8, Upcast>);

impl Upcasters {
    /// Those of this release.
    pub fn released() -> Self {
        Self::default().with(1, version_1::upcast)
    }

    /// Adds the step from `version` to the next.
    #[must_use]
    pub fn with(mut self, version: u8, upcast: Upcast) -> Self {
        self.0.insert(version, upcast);
        self
    }

    /// Brings `body` from `version` to `newest`.
    pub(crate) fn apply(
        &self,
        part: PayloadPart,
        version: u8,
        newest: u8,
        mut body: Vec<u8>,
    ) -> Result<Vec<u8>, CodecError> {
        for step in version..newest {
            let upcast = self.0.get(&step).ok_or(CodecError::NoUpcaster { part, version: step })?;
            body = upcast(part, body)?;
        }
        Ok(body)
    }
}
