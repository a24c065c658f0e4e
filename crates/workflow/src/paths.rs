//! Paths of a workflow, kept inside the project directory.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::error::ConfigError;

/// Makes a file that nobody else may look into, and the folders that it needs; what is there stays as it is.
///
/// # Errors
/// `AlreadyExists` among others.
pub(crate) fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut folders = std::fs::DirBuilder::new();
    folders.recursive(true);
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    if let Some(folder) = path.parent() {
        // A file in the folder's place is no file that is there already.
        let is_file = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => std::io::Error::new(ErrorKind::NotADirectory, error),
            _ => error,
        };
        folders.create(folder).map_err(is_file)?;
    }
    options.open(path)
}

/// The full path of `relative` in the project directory.
///
/// Neither `..` nor a symbolic link may lead out of it; parts that do not exist yet may not exist as links either.
///
/// # Errors
/// [`ConfigError::Outside`].
pub(crate) fn inside(project_dir: &Path, relative: &str, what: &'static str) -> Result<PathBuf, ConfigError> {
    let outside = || ConfigError::Outside { what, path: relative.to_owned(), project_dir: project_dir.to_owned() };
    let root = project_dir
        .canonicalize()
        .map_err(|source| ConfigError::ProjectDir { path: project_dir.to_owned(), source })?;
    let mut path = root.clone();
    for part in Path::new(relative).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            // An absolute path is taken where it lies inside.
            Component::RootDir | Component::Prefix(_) => path = PathBuf::from(part.as_os_str()),
            Component::ParentDir => {
                path.pop();
            }
        }
    }
    if !path.starts_with(&root) || path == root {
        return Err(outside());
    }
    // What exists already is followed to where it really is.
    let mut existing = path.as_path();
    while std::fs::symlink_metadata(existing).is_err() {
        existing = existing.parent().ok_or_else(outside)?;
    }
    match existing.canonicalize() {
        Ok(real) if real.starts_with(&root) => Ok(path),
        // A link to nowhere, or out of the project.
        _ => Err(outside()),
    }
}
