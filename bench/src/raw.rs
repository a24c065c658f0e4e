//! The raw limits: what the disk syncs in a second, and what a bare SELECT reads.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;

/// Bytes of a page.
const BLOCK: usize = 4096;
/// The file grows to this and is written anew, as a write-ahead log is.
const FILE_BYTES: u64 = 4000 * 4096;

/// Writes of so many pages of 4 KiB, with an fdatasync after each of them, in a second.
pub(crate) fn syncs_per_second(dir: &Path, count: u64, pages: usize) -> anyhow::Result<f64> {
    let path = dir.join("raw");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all(&vec![0; usize::try_from(FILE_BYTES)?])?;
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let block = vec![7; BLOCK];
    let bytes = (BLOCK * pages) as u64;
    let began = Instant::now();
    let mut at = 0;
    for _ in 0..count {
        if at + bytes > FILE_BYTES {
            file.seek(SeekFrom::Start(0))?;
            at = 0;
        }
        for _ in 0..pages {
            file.write_all(&block)?;
        }
        file.sync_data()?;
        at += bytes;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Rows a second of a bare SELECT of the columns that folds read, on this many connections at once.
pub(crate) fn rows_per_second(ledger: &Path, connections: u64, rows: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..connections)
            .map(|number| {
                let (from, to) = (rows * number / connections, rows * (number + 1) / connections);
                scope.spawn(move || scan(ledger, from, to))
            })
            .collect();
        readers.into_iter().try_for_each(|reader| match reader.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a reader panicked"),
        })
    })?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

fn scan(ledger: &Path, from: u64, to: u64) -> anyhow::Result<()> {
    let connection = Connection::open(ledger)?;
    let mut statement = connection.prepare(
        "SELECT position, stream_key, stream_version, event_id, kind, occurred_at, recorded_at, session_key, run_key,
            adapter_session_id, causation_id, correlation_id, facts
         FROM runtime_events WHERE position > ?1 AND position <= ?2 ORDER BY position",
    )?;
    let mut rows = statement.query([from, to])?;
    let mut sum = 0_u64;
    while let Some(row) = rows.next()? {
        // Each column is looked at, none is copied.
        sum = sum.wrapping_add(row.get::<_, u64>(0)?).wrapping_add(row.get_ref(12)?.as_blob()?.len() as u64);
        for column in 1..12 {
            std::hint::black_box(row.get_ref(column)?);
        }
    }
    std::hint::black_box(sum);
    Ok(())
}
