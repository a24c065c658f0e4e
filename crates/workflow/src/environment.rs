//! What programs that a workflow names get of our own environment: what any program needs, and nothing that may be a secret of
//! somebody else's. Claude Code and Codex get all of it, as they do without us.

use std::ffi::{OsStr, OsString};
use std::process::Command;

/// What names more variables to be passed on, with commas between them; `*` for all of them.
pub const PASS_ENV: &str = "RUNLEDGER_PASS_ENV";

/// Who one is, where things are, how to write.
const NAMES: [&str; 17] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "COLUMNS",
    "LINES",
    "TMPDIR",
    "TMP",
    "TEMP",
];
const PREFIXES: [&str; 3] = ["LC_", "XDG_", "RUNLEDGER_"];

/// Leaves the command those variables alone. What is set on it afterwards is added.
pub(crate) fn confine(command: &mut Command) {
    command.env_clear().envs(passed(std::env::vars_os(), std::env::var_os(PASS_ENV).as_deref()));
}

fn passed(variables: impl Iterator<Item = (OsString, OsString)>, more: Option<&OsStr>) -> Vec<(OsString, OsString)> {
    let more = more.map(OsStr::to_string_lossy).unwrap_or_default();
    let more: Vec<&str> = more.split(',').map(str::trim).collect();
    let is_passed = |name: &OsStr| {
        let Some(name) = name.to_str() else {
            return more.contains(&"*");
        };
        more.contains(&"*")
            || more.contains(&name)
            || NAMES.contains(&name)
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    variables.filter(|(name, _)| is_passed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(more: Option<&str>) -> Vec<String> {
        let variables = ["PATH", "LC_ALL", "RUNLEDGER_DB", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PATHS"];
        let variables = variables.map(|name| (OsString::from(name), OsString::from("x"))).into_iter();
        passed(variables, more.map(OsStr::new))
            .into_iter()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn what_any_program_needs_is_passed_on_and_what_is_named() {
        assert_eq!(names(None), ["PATH", "LC_ALL", "RUNLEDGER_DB"]);
        assert_eq!(names(Some("OPENAI_API_KEY, NONE")), ["PATH", "LC_ALL", "RUNLEDGER_DB", "OPENAI_API_KEY"]);
        assert_eq!(names(Some("*")).len(), 6);
    }
}
