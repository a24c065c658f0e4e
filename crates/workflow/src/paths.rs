//! Paths of a workflow, kept inside the project directory.

use std::path::{Component, Path, PathBuf};

use crate::error::ConfigError;

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
