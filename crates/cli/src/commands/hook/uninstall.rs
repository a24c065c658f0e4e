//! `hook uninstall`: takes our own entries out of a client's settings, and nothing else.

use clap::Args;

use super::install::{Target, is_own};
use super::settings::without_entries;
use crate::exit_code::Exit;
use crate::output::Output;

/// Take the entries of `hook install` out again
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    target: Target,
}

impl Uninstall {
    pub(crate) fn run(&self, output: &mut Output) -> anyhow::Result<Exit> {
        let file = self.target.file()?;
        let new = without_entries(file.text(), &is_own).map_err(|error| file.refused(&error))?;
        file.replace(&new, self.target.dry_run, output)?;
        Ok(Exit::Done)
    }
}
