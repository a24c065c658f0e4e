//! Whether a client runs `runledger hook` before it uses a tool: without that, rules on its tools are no more than words.

use std::path::{Path, PathBuf};

use super::call::Asking;
use super::install::{Client, own_ledger};
use super::settings::commands_of;
use super::settings_file::user_path;

/// Whether the settings that this harness reads in this project have our hook at PreToolUse, on this ledger.
///
/// True for a harness that has no settings of ours: what it runs answers for itself.
pub(crate) fn is_installed(harness: &str, project_dir: &Path, ledger: &Path) -> bool {
    let in_project = |name: &str| project_dir.join(".claude").join(name);
    let files: Vec<PathBuf> = match harness {
        "claude" => {
            let own = [in_project("settings.json"), in_project("settings.local.json")];
            user_path(Client::Claude).ok().into_iter().chain(own).collect()
        }
        "codex" => user_path(Client::Codex).ok().into_iter().collect(),
        _ => return true,
    };
    let ledger = std::path::absolute(ledger).unwrap_or_else(|_| ledger.to_owned());
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let commands = texts.flat_map(|text| commands_of(&text, Asking::PreToolUse.as_str()));
    // An entry without a ledger takes that of the environment, which is the run's.
    commands.filter_map(|command| own_ledger(&command)).any(|named| named.is_none_or(|named| named == ledger))
}
