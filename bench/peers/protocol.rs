//! The protocol of the peers: arguments in, the events of a file, one line of JSON out. README.md has it in words.

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Streams of the log that is rebuilt.
pub(crate) const REBUILD_STREAMS: u64 = 50;
/// Events in one call while that log is filled.
pub(crate) const FILL_BATCH: u64 = 100;

/// What an append has promised when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncMode {
    /// It survives a loss of power.
    Full,
    /// It survives the death of the process.
    Normal,
}

impl SyncMode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }

    /// The mode that `PRAGMA synchronous` names by this number.
    pub(crate) fn from_pragma(number: i64) -> Fallible<Self> {
        match number {
            1 => Ok(Self::Normal),
            2 => Ok(Self::Full),
            other => Err(format!("PRAGMA synchronous is {other}: neither NORMAL nor FULL").into()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) work: String,
    pub(crate) dir: PathBuf,
    pub(crate) events: PathBuf,
    pub(crate) count: u64,
    /// None: the peer's own default.
    pub(crate) sync: Option<SyncMode>,
    pub(crate) writers: u64,
    pub(crate) batch: u64,
    /// Events a second.
    #[allow(dead_code, reason = "not every peer keeps a rate")]
    pub(crate) rate: u64,
}

impl Arguments {
    pub(crate) fn parse() -> Fallible<Self> {
        let mut words: VecDeque<String> = std::env::args().skip(1).collect();
        let work = words.pop_front().ok_or("which work: append, rebuild or lag?")?;
        let (mut dir, mut events, mut count, mut sync) = (None, None, None, None);
        let (mut writers, mut batch, mut rate) = (1, 1, 5_000);
        while let Some(option) = words.pop_front() {
            let value = words.pop_front().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--dir" => dir = Some(PathBuf::from(value)),
                "--events" => events = Some(PathBuf::from(value)),
                "--count" => count = Some(positive(&option, &value)?),
                "--writers" => writers = positive(&option, &value)?,
                "--batch" => batch = positive(&option, &value)?,
                "--rate" => rate = positive(&option, &value)?,
                "--sync" => {
                    sync = Some(match value.as_str() {
                        "full" => SyncMode::Full,
                        "normal" => SyncMode::Normal,
                        other => return Err(format!("--sync {other}: full or normal").into()),
                    });
                }
                other => return Err(format!("{other}: no such option").into()),
            }
        }
        Ok(Self {
            work,
            dir: dir.ok_or("--dir is missing")?,
            events: events.ok_or("--events is missing")?,
            count: count.ok_or("--count is missing")?,
            sync,
            writers,
            batch,
            rate,
        })
    }

    /// How many events this writer appends: all writers together append `count`.
    pub(crate) fn share(&self, writer: u64) -> u64 {
        self.count / self.writers + u64::from(writer < self.count % self.writers)
    }
}

fn positive(option: &str, value: &str) -> Fallible<u64> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{option} {value}: a number above zero is needed").into()),
    }
}

/// The events of a file, taken again from its start when it ends.
pub(crate) struct Events {
    parsed: Vec<Map<String, Value>>,
}

impl Events {
    pub(crate) fn read(path: &Path) -> Fallible<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let parsed: Vec<Map<String, Value>> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if parsed.is_empty() {
            return Err(format!("{} has no events", path.display()).into());
        }
        Ok(Self { parsed })
    }

    pub(crate) fn at(&self, number: u64) -> &Map<String, Value> {
        &self.parsed[(number % self.parsed.len() as u64) as usize]
    }
}

/// The calls of one writer, from its first event on: ranges of at most `batch` numbers.
pub(crate) fn batches(first: u64, count: u64, batch: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..count.div_ceil(batch)).map(move |call| first + call * batch..first + ((call + 1) * batch).min(count))
}

/// The line that is printed, with the latencies of single calls where there are some.
pub(crate) fn report(events: u64, seconds: f64, latencies: &mut [Duration]) -> Value {
    let mut line = json!({ "events": events, "seconds": seconds });
    latencies.sort_unstable();
    if let Some(max) = latencies.last() {
        let percentile = |share: f64| micros(latencies[((latencies.len() - 1) as f64 * share).round() as usize]);
        line["p50_us"] = percentile(0.5).into();
        line["p99_us"] = percentile(0.99).into();
        line["max_us"] = micros(*max).into();
    }
    line
}

fn micros(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}

/// Bytes of all files of a database's folder, but for SQLite's shared memory, which holds nothing.
pub(crate) fn bytes_of(dir: &Path) -> Fallible<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// The version of a crate that a Cargo.lock has.
pub(crate) fn version_in(lock: &str, name: &str) -> String {
    let start = format!("name = \"{name}\"\nversion = \"");
    let version = lock.split_once(&start).and_then(|(_, rest)| rest.split_once('"')).map(|(version, _)| version);
    format!("{name} {}", version.unwrap_or("?"))
}
