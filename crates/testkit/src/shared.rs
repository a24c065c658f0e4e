//! The conformance inputs and recordings, read in place; a test that lacks them says so.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder `name` of the shared inputs beside the project; `None`, and a word about it, where there are none.
///
/// # Panics
/// In CI, where they have to be there.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "../shared/{name} is absent, and in CI it has to be there");
    // Not by `eprintln!`, whose words the test runner keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: ../shared/{name} is absent");
    None
}
