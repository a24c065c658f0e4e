//! `seal`: signs the log's head, so that whoever holds the seal sees later that the log was cut or written anew.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use runledger_events::Position;
use runledger_store::{SealKey, SignedHead, create_private};
use serde::Serialize;

use crate::exit_code::{CouldNotStart, Exit, Usage};
use crate::ledger::{LedgerArg, user_folder};
use crate::output::{Output, message};
use crate::render;

/// Sign the log's head, so that a log that is cut or written anew later is found out
///
/// A seal is one line. Keep it where whoever could change the ledger cannot: `verify --seals FILE` checks the log against
/// it. The private key belongs on another account or machine than the ledger, too, for whoever has both can sign anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger seal --init
  runledger seal --json >> /mnt/elsewhere/seals.jsonl
  runledger verify --seals /mnt/elsewhere/seals.jsonl --key \"$(runledger seal --public-key)\"

Exit status: 0 when it is done; 3 when there is no key, or one is there already where --init would make it")]
pub(crate) struct Seal {
    /// Make a pair of keys
    #[arg(long, conflicts_with = "public_key")]
    init: bool,
    /// Print the public half, for whoever checks seals
    #[arg(long)]
    public_key: bool,
    /// The private key's file [default: $XDG_CONFIG_HOME/runledger/seal.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Serialize)]
struct KeyObject {
    file: String,
    public_key: String,
}

impl Seal {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let path = self.path()?;
        if self.init {
            let key = SealKey::new()?;
            write_new(&path, &key.to_text())?;
            return tell_key(&path, &key, true, output);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let next = "`runledger seal --init` makes one, --key names another";
            CouldNotStart(format!("{}: the key cannot be read: {error}; {next}", path.display()))
        })?;
        let key = SealKey::parse(&text).map_err(|error| CouldNotStart(format!("{}: {error}", path.display())))?;
        if let Some(mode) = loose_mode(&path) {
            let path = path.display();
            message(&format!(
                "{path} has mode {mode:04o}: whoever reads it can sign; chmod 600 it, or make another key"
            ));
        }
        if self.public_key {
            return tell_key(&path, &key, false, output);
        }
        // A ledger that is missing is not made.
        drop(ledger.open_for_reading()?);
        let (seal, receipt) = ledger.open_for_writing()?.seal(&key)?;
        tell(&seal, receipt.position, output)?;
        Ok(Exit::Done)
    }

    fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.key {
            return Ok(path.clone());
        }
        user_folder("XDG_CONFIG_HOME", ".config")
            .map(|folder| folder.join("runledger/seal.key"))
            .ok_or_else(|| Usage("neither HOME nor XDG_CONFIG_HOME is set: name the key with --key".to_owned()).into())
    }
}

/// The mode of a key that others may read.
#[cfg(unix)]
fn loose_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Elsewhere modes say nothing.
#[cfg(not(unix))]
fn loose_mode(_: &Path) -> Option<u32> {
    None
}

/// Never over a key that is there: what it has signed could not be signed again.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            CouldNotStart(format!("{}: there is a key already; name another file with --key", path.display()))
        }
        _ => CouldNotStart(format!("{}: the key cannot be written: {error}; --key names another file", path.display())),
    };
    let mut file = create_private(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(())
}

fn tell_key(path: &Path, key: &SealKey, is_new: bool, output: &mut Output) -> anyhow::Result<Exit> {
    let file = std::path::absolute(path).context("the key's file")?.display().to_string();
    let public_key = key.public().to_string();
    if output.is_json() {
        output.json(&KeyObject { file, public_key })?;
    } else if is_new {
        output.line(&format!("{}: a new key, to be kept from others", render::plain(&file)))?;
        output.line(&format!("public half, for whoever checks: {public_key}"))?;
    } else {
        output.line(&public_key)?;
    }
    Ok(Exit::Done)
}

fn tell(seal: &SignedHead, at: Position, output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(seal);
    }
    output.line(&format!("sealed the log up to position {}; the seal stands at position {at} too", seal.position))?;
    output.line("keep this line where whoever could change the ledger cannot:")?;
    output.line(&serde_json::to_string(seal)?)
}
