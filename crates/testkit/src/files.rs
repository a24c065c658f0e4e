//! Looking for bytes in files, as whoever has the disk could.

use std::path::{Path, PathBuf};

/// Every file below a folder that holds one of these.
pub fn files_with(folder: &Path, wanted: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Whose files they are may remove some meanwhile.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        if wanted.iter().any(|wanted| bytes.windows(wanted.len()).any(|window| window == *wanted)) {
            found.push(path);
        }
    }
    found
}
