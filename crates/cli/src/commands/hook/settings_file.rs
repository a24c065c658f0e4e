//! Where a client's settings are, and putting new ones in their place: shown first, then written whole or not at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::diff::unified;
use super::install::Client;
use super::settings::SettingsError;
use crate::exit_code::{CouldNotStart, Usage};
use crate::output::{Output, message};
use crate::render;

/// Links followed at the most from a settings file's name to the file.
const LINKS_MAX: usize = 40;

/// Whose sessions the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Project,
    User,
    /// One's own in a project, which `install` does not write.
    Local,
}

/// A settings file as it was read.
pub(crate) struct SettingsFile {
    path: PathBuf,
    /// The text; nothing where there is no file.
    text: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    path: String,
    changed: bool,
    written: bool,
    diff: &'a [String],
}

/// The longest file of settings that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The text of a file of settings.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes, and no more are read")));
    }
    Ok(text)
}

impl SettingsFile {
    /// Reads the client's settings, which may be missing.
    pub(crate) fn open(client: Client, scope: Scope) -> anyhow::Result<Self> {
        // One's own settings need no folder to stand in.
        let folder = match scope {
            Scope::User => PathBuf::new(),
            Scope::Project | Scope::Local => std::env::current_dir()
                .map_err(|error| CouldNotStart(format!("the current folder cannot be told: {error}")))?,
        };
        let path = path(client, scope, &folder, &|name| std::env::var_os(name))?;
        let text = match read_text(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(
                    CouldNotStart(format!("{}: cannot be read: {error}; it was not touched", path.display())).into()
                );
            }
        };
        Ok(Self { path, text })
    }

    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// The error for settings that cannot be edited.
    pub(crate) fn refused(&self, error: &SettingsError) -> CouldNotStart {
        CouldNotStart(format!("{}: {error}; it was not touched, mend it and try again", self.path.display()))
    }

    /// Shows the difference, then writes the new text unless this is a dry run.
    pub(crate) fn replace(&self, new: &str, is_dry_run: bool, output: &mut Output) -> anyhow::Result<()> {
        let name = self.path.display().to_string();
        let old_name = if self.text.is_some() { &name } else { "/dev/null" };
        let is_changed = new != self.text();
        let diff = if is_changed { unified(old_name, &name, self.text(), new) } else { Vec::new() };
        if !output.is_json() {
            diff.iter().try_for_each(|line| output.line(&visible(line)))?;
            output.flush()?;
        }
        let is_written = is_changed && !is_dry_run;
        if is_written {
            self.write(new).with_context(|| format!("writing {name}; it is as it was"))?;
        }
        if output.is_json() {
            return output.json(&Report { path: name, changed: is_changed, written: is_written, diff: &diff });
        }
        message(&match (is_changed, is_dry_run) {
            (false, _) => format!("{name} is as it should be; nothing was changed"),
            (true, true) => format!("{name} was not written: this is a dry run"),
            (true, false) => format!("wrote {name}"),
        });
        Ok(())
    }

    /// Puts the new text in the file's place at once, with the old one's mode; a link goes on pointing there.
    fn write(&self, new: &str) -> anyhow::Result<()> {
        let target = follow_links(&self.path)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;

        let draft = target.with_file_name(format!(".runledger-{}.draft", std::process::id()));
        let put = || -> anyhow::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            if let Ok(metadata) = std::fs::metadata(&target) {
                file.set_permissions(metadata.permissions())?;
            }
            file.write_all(new.as_bytes())?;
            file.sync_all()?;
            // Somebody may have written to it since it was read: their words are not to be lost.
            let now = std::fs::read_to_string(&target).ok();
            anyhow::ensure!(now == self.text, "it was changed by somebody else in the meantime; try again");
            std::fs::rename(&draft, &target)?;
            File::open(folder)?.sync_all()?;
            Ok(())
        };
        put().inspect_err(|_| {
            // There is none where it could not be made.
            let _ = std::fs::remove_file(&draft);
        })
    }
}

/// A line without what could drive a terminal; tabs stay.
fn visible(line: &str) -> String {
    line.split('\t').map(render::plain).collect::<Vec<_>>().join("\t")
}

/// The settings files with hooks that a client reads when it works in this folder, those that count more behind the
/// others; `variable` is its environment.
pub(crate) fn read_by(
    client: Client,
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<(Scope, PathBuf)>, Usage> {
    let scopes: &[Scope] = match client {
        Client::Claude => &[Scope::User, Scope::Project, Scope::Local],
        Client::Codex => &[Scope::User],
    };
    scopes.iter().map(|scope| Ok((*scope, path(client, *scope, folder, variable)?))).collect()
}

/// The settings file that the client reads.
fn path(
    client: Client,
    scope: Scope,
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Usage> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = |default: &str, name: &str| {
        let own = variable(name).or_else(|| variable("HOME").map(|home| home.join(default)));
        own.map(|own| folder.join(own)).ok_or_else(|| Usage(format!("neither HOME nor {name} is set")))
    };
    match (client, scope) {
        (Client::Claude, Scope::User) => Ok(home(".claude", "CLAUDE_CONFIG_DIR")?.join("settings.json")),
        (Client::Claude, Scope::Project) => Ok(folder.join(".claude/settings.json")),
        (Client::Claude, Scope::Local) => Ok(folder.join(".claude/settings.local.json")),
        (Client::Codex, Scope::User) => Ok(home(".codex", "CODEX_HOME")?.join("hooks.json")),
        (Client::Codex, Scope::Project | Scope::Local) => {
            Err(Usage("Codex has hooks of the user only: leave out --project".to_owned()))
        }
    }
}

/// The file that a name leads to, there or not.
fn follow_links(path: &Path) -> anyhow::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().map_or_else(|| target.clone(), |folder| folder.join(&target)),
            // It is no link, or not there.
            Err(_) => return Ok(path),
        }
    }
    anyhow::bail!("too many links")
}
