//! Checking the log itself: dense positions and versions, digests, chain, commitments, schema.

use std::collections::HashMap;

use runledger_events::{Digest, Position, StreamName, StreamVersion, chain, chain_seed, commitment, event_digest};

use crate::error::{ReadError, StorageError};
use crate::reader::{EventFilter, LogReader, Read};
use crate::redact::Ranges;
use crate::row::{Proof, RawEvent};
use crate::schema;

/// Findings of one check that are told one by one; the rest is counted.
const TOLD_MAX: usize = 20;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFinding {
    /// Which check found it: `integrity`, `schema`, `positions`, `versions`, `digests`, `contents`, `chain`, `payloads`.
    pub check: &'static str,
    /// Where; none for what concerns the whole file.
    pub position: Option<Position>,
    /// What, in words.
    pub detail: String,
}

/// What the checks found.
#[derive(Debug, Clone, Default)]
pub struct LogReport {
    /// Events read.
    pub events: u64,
    /// Events whose content was erased.
    pub erased: u64,
    /// What is wrong, in the order of the log; of each check at most 20.
    pub findings: Vec<LogFinding>,
    /// Findings of each check, those not told included.
    pub counts: HashMap<&'static str, u64>,
}

impl LogReport {
    /// The checks that are made, in the order in which they are told.
    pub const CHECKS: &'static [&'static str] =
        &["integrity", "schema", "positions", "versions", "digests", "contents", "chain", "payloads"];

    fn find(&mut self, check: &'static str, position: Option<Position>, detail: String) {
        let count = self.counts.entry(check).or_default();
        *count += 1;
        if *count <= TOLD_MAX as u64 {
            self.findings.push(LogFinding { check, position, detail });
        }
    }
}

impl LogReader {
    /// Checks the whole log. `progress` hears each position.
    ///
    /// As [`LogReader::verify_since`], from before the first event, and every page of the file.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read at all.
    pub fn verify(&self, progress: impl FnMut(Position)) -> Result<LogReport, StorageError> {
        self.verify_since(Position::START, progress)
    }

    /// Checks what stands behind a position that was checked before, at a cost that does not depend on what stands before
    /// it: the row there and the last events of streams there are taken for right, and the file's pages are not read.
    ///
    /// The check goes on from what a row says, so that one changed row is not blamed on all behind it. Where the digest,
    /// the chain or the version of a row was changed, the row behind it is named too.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read at all.
    pub fn verify_since(&self, since: Position, mut progress: impl FnMut(Position)) -> Result<LogReport, StorageError> {
        let mut report = LogReport::default();
        // One transaction: what is appended meanwhile is not half seen.
        let snapshot = self.connection().unchecked_transaction().map_err(|source| self.storage(&source))?;
        let is_whole = since == Position::START;
        if let Err(error) = if is_whole { self.check_file(&mut report) } else { self.check_schema(&mut report) } {
            report.find("integrity", None, error.to_string());
        }
        // No row has a greater position than SQLite's integers have.
        let can_be = !is_whole && i64::try_from(since.0).is_ok();
        let chain = if can_be { self.chain_at(since)? } else { None };
        if !is_whole && chain.is_none() {
            let head = self.head()?.position;
            let detail = format!("it is not there to go on from; the log ends at {head}");
            report.find("positions", Some(since), detail);
        }
        // What tells of an erasure and cannot be read is found as any other event.
        let told = self.told_erasures()?;
        let is_copy = schema::is_copy(self.path(), self.connection())?;
        let mut walk = Walk { since, position: since, chain, told, is_copy, ..Walk::default() };
        let mut after = since;
        loop {
            let up_to = self.head()?.position;
            let mut last = after;
            let result = self.scan(&EventFilter::default(), after, up_to, Read::All, true, |raw| {
                last = raw.position;
                progress(last);
                walk.step(self, &raw, &mut report)?;
                Ok(true)
            });
            match result {
                Ok(()) => break,
                Err(ReadError::Storage(error)) => {
                    report.find(
                        "integrity",
                        Some(last.next()),
                        format!("the log cannot be read on from here: {error}"),
                    );
                    return Ok(report);
                }
                // The row cannot even be read as one: name it, and go on behind it.
                Err(
                    ReadError::Payload { position, .. }
                    | ReadError::Name { position, .. }
                    | ReadError::Column { position, .. },
                ) if position > last => {
                    report.find("payloads", Some(position), "the row has columns that cannot be read".to_owned());
                    walk.lost(self, position, &mut report);
                    after = position;
                }
                Err(error) => {
                    report.find("payloads", None, error.to_string());
                    break;
                }
            }
        }
        walk.check_streams(self, &mut report)?;
        drop(snapshot);
        Ok(report)
    }

    /// The pages of the file, and that tables, indexes and triggers are as they were made.
    fn check_file(&self, report: &mut LogReport) -> Result<(), StorageError> {
        let complaints: Vec<String> = self
            .connection()
            .prepare("PRAGMA integrity_check(20)")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .map_err(|source| self.storage(&source))?;
        for complaint in complaints.into_iter().filter(|complaint| complaint != "ok") {
            report.find("integrity", None, complaint);
        }
        let before_first: Option<i64> = self
            .connection()
            .query_row("SELECT max(position) FROM runtime_events WHERE position < 1", [], |row| row.get(0))
            .map_err(|source| self.storage(&source))?;
        if let Some(position) = before_first {
            report.find("positions", None, format!("a row stands at position {position}, before the first"));
        }
        self.check_schema(report)
    }

    fn check_schema(&self, report: &mut LogReport) -> Result<(), StorageError> {
        for difference in schema::differences(self.path(), self.connection())? {
            report.find("schema", None, difference);
        }
        Ok(())
    }

    /// The last event of a stream up to and with a position, as the log has it.
    fn last_before(&self, stream: &StreamName, position: Position) -> Result<Option<Last>, StorageError> {
        self.query_optional(
            "SELECT stream_version, digest FROM runtime_events
             WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND position <= ?2
             ORDER BY stream_version DESC LIMIT 1",
            (stream.as_str(), position.0),
            |row| Ok(Last { version: StreamVersion(row.get(0)?), digest: Digest(row.get(1)?), lost: 0 }),
        )
    }
}

#[derive(Default)]
struct Walk {
    /// What is up to here is taken for right.
    since: Position,
    position: Position,
    chain: Option<Digest>,
    /// Where the content is gone, as events of the log tell.
    told: Ranges,
    /// Whether another engine keeps the log, which may have more of it.
    is_copy: bool,
    streams: HashMap<StreamName, Last>,
    /// Rows that could not be read: of which stream they were cannot be known.
    lost: u64,
}

/// The last event seen of a stream.
#[derive(Clone, Copy)]
struct Last {
    version: StreamVersion,
    digest: Digest,
    /// How many rows had been lost by then.
    lost: u64,
}

impl Last {
    const NONE: Self = Self { version: StreamVersion::EMPTY, digest: Digest::ZERO, lost: 0 };
}

impl Walk {
    fn step(&mut self, reader: &LogReader, raw: &RawEvent, report: &mut LogReport) -> Result<(), StorageError> {
        let at = Some(raw.position);
        self.arrive(reader, raw.position, report);
        let Some(proof) = &raw.proof else {
            return Ok(());
        };
        self.meet(reader, &raw.stream)?;
        self.check_stream(raw, proof, report);
        self.check_content(reader, raw, proof, report);
        if let Some(previous) = self.chain
            && chain(&previous, &proof.digest) != proof.chain
        {
            report.find("chain", at, "the chain does not lead here from the row before: one of the two was changed, or what ends there was computed anew".to_owned());
        }
        self.chain = Some(proof.chain);
        if let Err(error) = reader.codec().decode_facts(raw.facts) {
            report.find("payloads", at, error.to_string());
        }
        Ok(())
    }

    /// Looks up what a stream had before the walk began.
    fn meet(&mut self, reader: &LogReader, stream: &StreamName) -> Result<(), StorageError> {
        if self.since > Position::START && !self.streams.contains_key(stream) {
            let last = reader.last_before(stream, self.since)?.unwrap_or(Last::NONE);
            self.streams.insert(stream.clone(), last);
        }
        Ok(())
    }

    /// Counts a row, and the positions before it that are not there.
    fn arrive(&mut self, reader: &LogReader, position: Position, report: &mut LogReport) {
        report.events += 1;
        let expected = self.position.next();
        if position != expected {
            let missing = if position.0 == expected.0 + 1 {
                format!("position {expected} is missing")
            } else {
                format!("positions {expected} to {} are missing", position.0.saturating_sub(1))
            };
            report.find("positions", Some(expected), missing);
            // What the missing row's chain was cannot be known.
            self.chain = None;
        } else if position.0 == 1 {
            self.chain = Some(chain_seed(reader.log_id()));
        }
        self.position = position;
    }

    fn check_stream(&mut self, raw: &RawEvent, proof: &Proof, report: &mut LogReport) {
        let at = Some(raw.position);
        let last = self.streams.get(&raw.stream).copied().unwrap_or(Last::NONE);
        let expected = last.version.next();
        let lost_since = self.lost - last.lost;
        let predecessor = (raw.stream_version == expected && lost_since == 0).then_some(last.digest);
        // A row that could not be read may have been of this stream, and stand in the gap.
        let is_explained = raw.stream_version >= expected && raw.stream_version.0 - expected.0 <= lost_since;
        if !is_explained {
            let detail = format!(
                "stream {} goes from version {} to {}; in between there should be nothing",
                raw.stream, last.version, raw.stream_version
            );
            report.find("versions", at, detail);
        }
        if let Some(predecessor) = predecessor {
            let digest = event_digest(
                &predecessor,
                &raw.stream,
                raw.stream_version,
                &raw.id,
                &raw.kind,
                raw.occurred_at,
                raw.recorded_at,
                &raw.metadata,
                raw.facts,
                &proof.commitment,
            );
            if digest != proof.digest {
                let before = match raw.stream_version.0 {
                    1 => String::new(),
                    version => format!(", or its stream's version {} before it was written anew", version - 1),
                };
                let detail = format!("event {} of stream {} is not what was appended{before}", raw.id, raw.stream);
                report.find("digests", at, detail);
            }
        }
        let last = Last { version: raw.stream_version, digest: proof.digest, lost: self.lost };
        self.streams.insert(raw.stream.clone(), last);
    }

    /// A row that could not be read: whatever depends on it cannot be checked.
    fn lost(&mut self, reader: &LogReader, position: Position, report: &mut LogReport) {
        self.arrive(reader, position, report);
        self.chain = None;
        self.lost += 1;
    }

    /// What the table of streams says against what the events say.
    fn check_streams(&self, reader: &LogReader, report: &mut LogReport) -> Result<(), StorageError> {
        for (name, recorded) in reader.stream_versions()? {
            let last = StreamName::new(name.clone()).ok().and_then(|name| self.streams.get(&name).copied());
            // Of a stream that the walk did not meet nothing was looked at.
            let Some(last) = last.or((self.since == Position::START).then_some(Last::NONE)) else {
                continue;
            };
            let found = last.version;
            // Its last events may be among those that could not be read.
            if found.0 < recorded && recorded - found.0 <= self.lost - last.lost {
                continue;
            }
            if found.0 != recorded {
                let detail = format!("stream {name} should have {recorded} events; the last one has version {found}");
                let at = (found.0 < recorded).then(|| self.position.next());
                report.find("versions", at, detail);
            }
        }
        Ok(())
    }

    fn check_content(&self, reader: &LogReader, raw: &RawEvent, proof: &Proof, report: &mut LogReport) {
        let at = Some(raw.position);
        match (&raw.content, &proof.salt) {
            (None, None) => {
                report.erased += 1;
                if !self.told.contain(raw.position.0) {
                    let detail = format!(
                        "the content of event {} is gone, and no event of this log tells who erased it, and why; if it was you, \
                         `runledger redact --event {}` says so{}",
                        raw.id,
                        raw.position,
                        if self.is_copy {
                            "; a copy that was not filled to its end has yet to take the event that tells"
                        } else {
                            ""
                        }
                    );
                    report.find("contents", at, detail);
                }
            }
            (Some(content), Some(salt)) => match reader.codec().decode_content(content) {
                Ok(json) if commitment(salt, json.as_bytes()) == proof.commitment => {}
                Ok(_) => {
                    report.find("contents", at, format!("the content of event {} is not what was appended", raw.id))
                }
                Err(error) => report.find("payloads", at, error.to_string()),
            },
            (content, _) => {
                let (gone, there) = if content.is_some() { ("salt", "content") } else { ("content", "salt") };
                report.find("contents", at, format!("the {gone} of event {} is gone, but its {there} is not", raw.id));
            }
        }
    }
}
