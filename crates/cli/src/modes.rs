//! Who may read a ledger's files: what is looser than this program makes it.

use std::path::{Path, PathBuf};

use runledger_web::objects::LooseMode;

/// The ledger's files and folders whose modes are looser than 0600 and 0700.
#[cfg(unix)]
pub(crate) fn looser(ledger: &Path, spools: &[PathBuf]) -> Vec<LooseMode> {
    use std::os::unix::fs::PermissionsExt;
    let mut paths: Vec<PathBuf> = ledger.parent().map(Path::to_owned).into_iter().collect();
    for suffix in
        ["", "-wal", "-shm", ".projections", ".projections-wal", ".projections-shm", ".projections.rebuild-lock"]
    {
        let mut path = ledger.as_os_str().to_owned();
        path.push(suffix);
        paths.push(PathBuf::from(path));
    }
    for folder in spools {
        paths.push(folder.clone());
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        paths.extend(entries.map(|entry| entry.path()));
    }
    let loose = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok()?;
        // Everybody's folder, as /tmp, is nobody's to shut.
        if metadata.is_dir() && metadata.permissions().mode() & 0o1000 != 0 {
            return None;
        }
        let (mode, wanted) = (metadata.permissions().mode() & 0o777, if metadata.is_dir() { 0o700 } else { 0o600 });
        let (mode, wanted) = (mode & !wanted != 0).then(|| (format!("{mode:04o}"), format!("{wanted:04o}")))?;
        Some(LooseMode { path: path.display().to_string(), mode, wanted })
    };
    paths.into_iter().filter_map(loose).collect()
}

/// Elsewhere modes say nothing.
#[cfg(not(unix))]
pub(crate) fn looser(_: &Path, _: &[PathBuf]) -> Vec<LooseMode> {
    Vec::new()
}
