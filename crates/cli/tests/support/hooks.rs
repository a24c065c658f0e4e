//! Hooks that a test installs in a room, and what stands in the files of their settings then.

use std::process::Command;

use super::{Ran, Room, run};

/// The user's settings of Claude Code.
pub(crate) const USER: &str = "home/.claude/settings.json";

/// `hook …`, without a word on where the ledger is.
pub(crate) fn hook_command(room: &Room, arguments: &[&str]) -> Command {
    let mut command = room.bare_command();
    command.arg("hook").args(arguments);
    command
}

pub(crate) fn hook(room: &Room, arguments: &[&str]) -> Ran {
    run(&mut hook_command(room, arguments))
}

pub(crate) fn hook_ok(room: &Room, arguments: &[&str]) -> Ran {
    let ran = hook(room, arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

/// With names for the program's path and the room's.
pub(crate) fn named(room: &Room, text: &str) -> String {
    let room = room.path("").display().to_string();
    text.replace(env!("CARGO_BIN_EXE_runledger"), "[program]").replace(room.trim_end_matches('/'), "[room]")
}

pub(crate) fn read(room: &Room, name: &str) -> String {
    std::fs::read_to_string(room.path(name)).unwrap()
}
