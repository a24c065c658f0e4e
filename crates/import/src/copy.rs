//! A private copy of a database with its write-ahead log, so that reading changes nothing of it nor beside it.
//!
//! SQLite itself would write beside a database that it only reads: a `-shm` file for the write-ahead log, and it would
//! fold the log in when it closes. The copy is taken at one moment: a file that changes meanwhile is copied again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::ImportError;

/// What stands beside a database and belongs to it: the write-ahead log, and a journal of a rolled-back write.
const BESIDE: [&str; 2] = ["-wal", "-journal"];
/// What a SQLite database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How often a file that changes is copied before it is given up.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

static COPIES: AtomicU64 = AtomicU64::new(0);

/// The copy; it goes with this value.
#[derive(Debug)]
pub(crate) struct PrivateCopy {
    folder: PathBuf,
}

impl PrivateCopy {
    /// Copies the database at `file`.
    pub(crate) fn of(file: &Path) -> Result<Self, ImportError> {
        let unreadable = |source| ImportError::Unreadable { file: file.to_owned(), source };
        check_magic(file)?;
        // What belongs to a database stands beside the file itself, not beside a link to it.
        let linked = fs::canonicalize(file).map_err(unreadable)?;
        let parent = std::env::temp_dir();
        let failed = |folder: &Path| {
            let folder = folder.to_owned();
            move |source| ImportError::Copy { file: file.to_owned(), folder, source }
        };
        let copy = Self { folder: new_folder(&parent).map_err(failed(&parent))? };
        for _ in 0..TRIES_MAX {
            let before = state(&linked).map_err(unreadable)?;
            copy_file(&linked, &copy.path()).map_err(failed(&copy.folder))?;
            for suffix in BESIDE {
                let beside = with_suffix(&linked, suffix);
                if beside.exists() {
                    copy_file(&beside, &with_suffix(&copy.path(), suffix)).map_err(failed(&copy.folder))?;
                } else {
                    let _ = fs::remove_file(with_suffix(&copy.path(), suffix));
                }
            }
            if state(&linked).map_err(unreadable)? == before {
                return Ok(copy);
            }
            std::thread::sleep(PAUSE);
        }
        Err(ImportError::Changing { file: file.to_owned() })
    }

    /// The copied database.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("session.db")
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        // What stays behind is private, and the system empties the folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn check_magic(file: &Path) -> Result<(), ImportError> {
    let unreadable = |source| ImportError::Unreadable { file: file.to_owned(), source };
    let opened = File::open(file).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mut head = Vec::new();
    opened.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(unreadable)?;
    if head == MAGIC { Ok(()) } else { Err(ImportError::NoDatabase { file: file.to_owned() }) }
}

/// Length and time of change of a database and of what stands beside it.
fn state(file: &Path) -> io::Result<Vec<Option<(u64, SystemTime)>>> {
    let of = |path: &Path| fs::metadata(path).and_then(|metadata| Ok((metadata.len(), metadata.modified()?)));
    let mut state = vec![Some(of(file)?)];
    state.extend(BESIDE.map(|suffix| of(&with_suffix(file, suffix)).ok()));
    Ok(state)
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies the bytes alone: the copy has to be writable where the file is not, and only for this user.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::copy(&mut File::open(from)?, &mut options.open(to)?)?;
    Ok(())
}

/// A new folder that only this user may look into.
fn new_folder(parent: &Path) -> io::Result<PathBuf> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    loop {
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("runledger-import-{}-{number}-{moment:x}", std::process::id()));
        match builder.create(&folder) {
            // Somebody else has that name: never theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| folder),
        }
    }
}
