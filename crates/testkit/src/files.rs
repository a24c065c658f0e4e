//! Looking for bytes in files, as whoever has the disk could.

use std::path::{Path, PathBuf};

/// Every file below a folder that holds one of these.
pub fn files_with(folder: &Path, wanted: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
            continue;
        }
        // Whose files they are may remove some meanwhile.
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.unwrap(),
        };
        if wanted.iter().any(|wanted| bytes.windows(wanted.len()).any(|window| window == *wanted)) {
            found.push(path);
        }
    }
    found
}
