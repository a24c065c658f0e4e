//! A spool: where events wait while the log cannot take them. A folder of plain files, beside no database at all.
//!
//! ```text
//! entries        one event a line, see `record`; who appends holds `lock`
//! 00000001, …    `entries` of before, nothing is appended to them; the lowest number is the oldest
//! lock           held to append, and to give `entries` a number
//! take-lock      held by the one process that takes in
//! rejected       JSON Lines: what no log will take, and why; nobody takes it in
//! ```
//!
//! Invariants: an append is synced before it is answered; its place in the spool is the order of appends; a file is
//! removed after the log has committed all of its events, so a crash repeats events, by their ids, and loses none.

mod record;
mod take;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use record::SpoolRecord;
pub use take::{TakeError, Taken, take_in};

/// Bytes of one spool, at the most; as many again of what was rejected.
pub const SPOOL_BYTES_MAX: u64 = 64 << 20;
/// `entries` gets a number when it has this many bytes, so that taking in a full spool comes forward step by step.
const SEGMENT_BYTES: u64 = 1 << 20;

const ENTRIES: &str = "entries";
const LOCK: &str = "lock";
const TAKE_LOCK: &str = "take-lock";
const REJECTED: &str = "rejected";

/// Why a spool could not take an event. Nothing of it is there.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The bound is reached.
    #[error("the spool {folder} is full: it holds {bytes_max} bytes at the most")]
    Full {
        /// The spool.
        folder: PathBuf,
        /// Its bound.
        bytes_max: u64,
    },
    /// A file of it is longer than a whole spool, so no hook has written it.
    #[error("{path} has {bytes} bytes, and a whole spool {bytes_max} at the most; move it away, and look what it is")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The longest taken.
        bytes_max: u64,
    },
    /// Another process held it all the while.
    #[error("the spool {folder} is held by another process")]
    Busy {
        /// The spool.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The event cannot be written as a line.
    #[error("an event cannot be written to a spool: {0}")]
    Json(#[from] serde_json::Error),
}

impl SpoolError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// A spool's folder, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The spool in this folder, which the first append makes; its parent has to be there.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether no event waits.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; a folder that is not there has none.
    pub fn is_empty(&self) -> Result<bool, SpoolError> {
        // By the names alone: a file that has just got another one is still there.
        Ok(self.names()?.is_empty())
    }

    /// Bytes of the events that wait.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; a folder that is not there has none.
    pub fn bytes(&self) -> Result<u64, SpoolError> {
        let mut bytes = 0;
        for name in self.names()? {
            let path = self.folder.join(name);
            bytes += match std::fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                // Taken in since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(SpoolError::io(&path)(error)),
            };
        }
        Ok(bytes)
    }

    /// Bytes of what was rejected.
    pub fn rejected_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.join(REJECTED)).map(|metadata| metadata.len()).unwrap_or_default()
    }

    /// Appends one event, and returns once it is on disk. Waits for other processes no longer than `patience`.
    ///
    /// # Errors
    /// [`SpoolError`]; the event is not there.
    pub fn append(&self, record: &SpoolRecord, patience: Duration) -> Result<(), SpoolError> {
        let line = record.to_line()?;
        self.make()?;
        let _lock = self.lock(LOCK, patience)?.ok_or_else(|| SpoolError::Busy { folder: self.folder.clone() })?;
        if self.bytes()? + line.len() as u64 > SPOOL_BYTES_MAX {
            return Err(SpoolError::Full { folder: self.folder.clone(), bytes_max: SPOOL_BYTES_MAX });
        }
        let length = self.append_line(ENTRIES, line.as_bytes())?;
        if length >= SEGMENT_BYTES {
            // It can wait for the next time just as well.
            let _ = self.seal_locked();
        }
        Ok(())
    }

    /// Keeps what no log will take, and why. Bytes that are no text are kept in hexadecimal.
    ///
    /// # Errors
    /// [`SpoolError`]; it is not there.
    pub fn reject(&self, what: &[u8], reason: &str, patience: Duration) -> Result<(), SpoolError> {
        #[derive(serde::Serialize)]
        struct Rejected<'a> {
            at: i64,
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            text: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hex: Option<String>,
        }
        let text = std::str::from_utf8(what).ok();
        let hex = text.is_none().then(|| what.iter().map(|byte| format!("{byte:02x}")).collect());
        let mut line = serde_json::to_string(&Rejected { at: crate::write::now().0, reason, text, hex })?;
        line.push('\n');
        self.make()?;
        let _lock = self.lock(LOCK, patience)?.ok_or_else(|| SpoolError::Busy { folder: self.folder.clone() })?;
        if self.rejected_bytes() + line.len() as u64 > SPOOL_BYTES_MAX {
            return Err(SpoolError::Full { folder: self.folder.clone(), bytes_max: SPOOL_BYTES_MAX });
        }
        self.append_line(REJECTED, line.as_bytes()).map(drop)
    }

    /// Makes the folder (0700); its parent has to be there.
    fn make(&self) -> Result<(), SpoolError> {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&self.folder) {
            Ok(()) => self.folder.parent().map_or(Ok(()), sync_folder).map_err(SpoolError::io(&self.folder)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(SpoolError::io(&self.folder)(error)),
        }
    }

    /// Holds a lock of the spool as long as the file is open; nothing where another process holds it for longer than
    /// `patience`.
    fn lock(&self, name: &str, patience: Duration) -> Result<Option<File>, SpoolError> {
        let path = self.folder.join(name);
        let file = open_private(OpenOptions::new().create(true).append(true), &path).map_err(SpoolError::io(&path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if began.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(SpoolError::io(&path)(error)),
            }
        }
    }

    /// Appends a whole line to a file, behind a line break where the last writer was killed in its line. Gives the
    /// file's length.
    fn append_line(&self, name: &str, line: &[u8]) -> Result<u64, SpoolError> {
        let path = self.folder.join(name);
        let append = || -> io::Result<u64> {
            let mut file = open_private(OpenOptions::new().create(true).read(true).append(true), &path)?;
            let before = file.metadata()?.len();
            let mut text = Vec::with_capacity(line.len() + 1);
            if before > 0 && last_byte(&mut file)? != b'\n' {
                text.push(b'\n');
            }
            text.extend_from_slice(line);
            if let Err(error) = file.write_all(&text).and_then(|()| file.sync_data()) {
                // Half a line would be taken for a torn one later, which is no harm but for the space.
                let _ = file.set_len(before);
                return Err(error);
            }
            if before == 0 {
                sync_folder(&self.folder)?;
            }
            Ok(before + text.len() as u64)
        };
        append().map_err(SpoolError::io(&path))
    }

    /// Gives `entries` a number, under the lock. Nobody appends to it from then on.
    fn seal_locked(&self) -> Result<(), SpoolError> {
        let entries = self.folder.join(ENTRIES);
        if !entries.exists() {
            return Ok(());
        }
        let number = self.segments()?.last().map_or(0, |(number, _)| *number) + 1;
        std::fs::rename(&entries, self.folder.join(format!("{number:08}"))).map_err(SpoolError::io(&entries))
    }

    /// Makes the newest file that has a number `entries` again, where there is none and it is not large. Only who takes
    /// in may do so.
    fn unseal(&self, patience: Duration) -> Result<(), SpoolError> {
        let Some(_lock) = self.lock(LOCK, patience)? else {
            return Ok(());
        };
        let entries = self.folder.join(ENTRIES);
        let Some((_, newest)) = self.segments()?.pop() else {
            return Ok(());
        };
        let is_small = std::fs::metadata(&newest).is_ok_and(|metadata| metadata.len() < SEGMENT_BYTES);
        if is_small && !entries.exists() {
            std::fs::rename(&newest, &entries).map_err(SpoolError::io(&newest))?;
        }
        Ok(())
    }

    /// The files that have a number, the oldest first.
    fn segments(&self) -> Result<Vec<(u64, PathBuf)>, SpoolError> {
        let names = self.names()?.into_iter();
        let mut segments: Vec<(u64, PathBuf)> =
            names.filter_map(|name| Some((segment_number(&name)?, self.folder.join(name)))).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// The files with events.
    fn names(&self) -> Result<Vec<OsString>, SpoolError> {
        let listing = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(SpoolError::io(&self.folder))?,
        };
        let mut names = Vec::new();
        for entry in listing {
            let name = entry.map_err(SpoolError::io(&self.folder))?.file_name();
            if name == ENTRIES || segment_number(&name).is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn segment_number(name: &OsStr) -> Option<u64> {
    let name = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))?;
    name.parse().ok()
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Opens a file that is made with mode 0600.
fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
