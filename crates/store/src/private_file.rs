//! Files that nobody but their owner may look into.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Makes a file that nobody else may look into, and the folders that it needs; what is there stays as it is.
///
/// # Errors
/// `AlreadyExists` where the file is there, `NotADirectory` where a file stands in a folder's place, and what else the system
/// says; no file was made.
pub fn create_private(path: &Path) -> std::io::Result<File> {
    let mut folders = std::fs::DirBuilder::new();
    folders.recursive(true);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // A file in the folder's place is no file that is there already.
        let is_file = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => std::io::Error::new(ErrorKind::NotADirectory, error),
            _ => error,
        };
        folders.create(folder).map_err(is_file)?;
    }
    options.open(path)
}
