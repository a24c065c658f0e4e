//! A disk that fails and a power that goes, under SQLite, for runledger's own tests.
//!
//! [`Watch`] puts a VFS in front of SQLite's own and becomes the process's default, so that the code under test uses it
//! unchanged. It writes down what is done to one database's files, and fails calls when it is told to. [`Image`] is what a
//! loss of power could leave of them.
//!
//! ```
//! use runledger_faultfs::{Image, Random, Watch};
//!
//! # let folder = tempfile::tempdir()?;
//! let watch = Watch::new(&folder.path().join("a.db"))?;
//! let connection = rusqlite::Connection::open(folder.path().join("a.db"))?;
//! connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a)")?;
//!
//! let image = Image::after(&watch.journal(), &mut Random::new(1));
//! image.write(&folder.path().join("image.db"))?;
//! let tables = "SELECT count(*) FROM sqlite_schema";
//! let left = rusqlite::Connection::open(folder.path().join("image.db"))?;
//! assert_eq!(left.query_row(tables, [], |row| row.get::<_, i64>(0))?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Parts: `vfs` (what SQLite calls; the one place with `unsafe`), `watch` (the journal), `fault` (which calls fail, and
//! how), `image` (power loss), `random` (numbers from a seed).

mod fault;
mod image;
mod random;
#[allow(unsafe_code, reason = "SQLite calls a VFS through C function pointers")]
mod vfs;
mod watch;

pub use fault::{Fault, Operation};
pub use image::Image;
pub use random::Random;
pub use watch::{Change, Entry, Watch};
