//! Whether a harness will be held to a workflow's permission rules: whether our hook stands in the settings that it reads,
//! and may take as long there as the workflow's questions wait.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use runledger_events::PermissionPolicy;
use serde_json::Value;

use super::install::{Client, TIMEOUT_OF_QUESTIONS_S, TIMEOUT_S, own_program};
use super::settings_file::{Scope, read_by, read_text};

/// How long a client waits for a hook whose entry does not say, in seconds.
const TIMEOUT_OF_CLIENTS_S: f64 = 600.0;
/// Matchers that fit every tool.
const EVERY_TOOL: [&str; 3] = ["", "*", ".*"];

/// Why nothing would hold a harness to the rules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotEnforced {
    #[error(
        "the workflow has permissions, and nothing would hold {client} to them: there is no PreToolUse hook of runledger \
         for every tool in {files}; run `{install}`"
    )]
    Missing { client: &'static str, files: String, install: &'static str },
    #[error(
        "{path}: {client} ends the PreToolUse hook of runledger after {limit_s} s, and then runs the tool, while a \
         question of this workflow takes up to {needed_s} s; {remedy}"
    )]
    TooShort { path: String, client: &'static str, limit_s: f64, needed_s: u32, remedy: String },
    #[error(
        "{path}: its PreToolUse hook is to run {program}, which is not there, so nothing would hold {client} to the \
         workflow's permissions; {remedy}"
    )]
    NoProgram { path: String, program: String, client: &'static str, remedy: String },
    #[error(
        "{path}: `disableAllHooks` is on, so nothing would hold {client} to the workflow's permissions; take it out, then \
         try again"
    )]
    Off { path: String, client: &'static str },
    #[error(
        "{path}: {reason}, so it cannot be told whether {client} would be held to the workflow's permissions; mend it and \
         try again"
    )]
    Unreadable { path: String, reason: String, client: &'static str },
    #[error(
        "{path}: the PreToolUse hook of runledger works on the ledger {own}, and does not know the rules of a run in \
         {ledger}; run `runledger --db '{ledger}' hook install`, or give the run `--db '{own}'`"
    )]
    OtherLedger { path: String, own: String, ledger: String },
    #[error("{0}, so the settings of {1} cannot be found, and whether it would be held to the workflow's permissions")]
    Homeless(String, &'static str),
}

/// Checks that a harness which works in `project_dir`, with `env` beside this process's environment, asks our hook before
/// every tool and waits until a question was answered. One that calls `runledger hook` itself is not checked.
///
/// It cannot see whether Codex's user trusts the hook, nor settings that an administrator imposes.
pub(crate) fn check(
    harness: &str,
    project_dir: &Path,
    env: &BTreeMap<String, String>,
    ledger: &Path,
    permissions: &PermissionPolicy,
) -> Result<(), NotEnforced> {
    let (client, name) = match harness {
        "claude" | "claude-code" => (Client::Claude, "Claude Code"),
        "codex" => (Client::Codex, "Codex"),
        _ => return Ok(()),
    };
    let variable = |name: &str| env.get(name).map(OsString::from).or_else(|| std::env::var_os(name));
    let folder = std::path::absolute(project_dir).unwrap_or_else(|_| project_dir.to_owned());
    let files = read_by(client, &folder, &variable).map_err(|error| NotEnforced::Homeless(error.0, name))?;
    let mut entries = Vec::new();
    let mut off = None;
    for (scope, path) in &files {
        let Some(settings) = read(path, name)? else {
            continue;
        };
        // Where several say so, the last one counts.
        if let Some(is_off) = settings.get("disableAllHooks").and_then(Value::as_bool) {
            off = is_off.then_some(path);
        }
        entries.extend(Entry::all(*scope, path, &settings));
    }
    if let Some(path) = off.filter(|_| client == Client::Claude) {
        return Err(NotEnforced::Off { path: path.display().to_string(), client: name });
    }
    let (there, gone): (Vec<&Entry<'_>>, Vec<&Entry<'_>>) = entries.iter().partition(|entry| entry.program_is_there());
    if there.is_empty() {
        return Err(match gone.first() {
            Some(entry) => NotEnforced::NoProgram {
                path: entry.path.display().to_string(),
                program: entry.program.display().to_string(),
                client: name,
                remedy: entry.remedy(client),
            },
            None => {
                let files: Vec<String> = files.iter().map(|(_, path)| path.display().to_string()).collect();
                let files = files.join(" or ");
                NotEnforced::Missing { client: name, files, install: client.install_command() }
            }
        });
    }
    // An entry that names a ledger works on that one, whatever the run's environment says.
    let (there, elsewhere): (Vec<&Entry<'_>>, Vec<&Entry<'_>>) =
        there.into_iter().partition(|entry| entry.ledger.as_deref().is_none_or(|own| is_same(own, ledger)));
    if let (true, Some(entry)) = (there.is_empty(), elsewhere.first()) {
        return Err(NotEnforced::OtherLedger {
            path: entry.path.display().to_string(),
            own: entry.ledger.as_deref().unwrap_or(ledger).display().to_string(),
            ledger: runledger_store::absolute_place(ledger).unwrap_or_else(|_| ledger.to_owned()).display().to_string(),
        });
    }
    // Of equal commands a client runs one, and which limit it takes is not known: each has to do.
    let needed_s = needed_s(permissions);
    match there.iter().find(|entry| entry.limit_s < f64::from(needed_s)) {
        Some(entry) => Err(NotEnforced::TooShort {
            path: entry.path.display().to_string(),
            client: name,
            limit_s: entry.limit_s,
            needed_s,
            remedy: entry.remedy(client),
        }),
        None => Ok(()),
    }
}

/// Whether two names are those of one ledger, which may not be there yet.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let path = runledger_store::absolute_place(path).unwrap_or_else(|_| path.to_owned());
        path.canonicalize().unwrap_or(path)
    };
    real(one) == real(other)
}

/// How long a hook may have to take, in seconds: as long as a question waits, and what it takes beside that; a day at
/// the most, which is what `install` gives it.
fn needed_s(permissions: &PermissionPolicy) -> u32 {
    let rules = permissions.rules.iter().map(|rule| permissions.ask_timeout_ms(Some(rule)));
    let waits = rules.chain([permissions.ask_timeout_ms(None)]);
    let longest_ms = waits.map(|wait_ms| wait_ms.unwrap_or(u64::MAX)).max().unwrap_or_default();
    let with_rest_s = longest_ms.div_ceil(1000).saturating_add(u64::from(TIMEOUT_S));
    u32::try_from(with_rest_s).unwrap_or(u32::MAX).min(TIMEOUT_OF_QUESTIONS_S)
}

/// The settings in a file, where there is one.
fn read(path: &Path, client: &'static str) -> Result<Option<Value>, NotEnforced> {
    let unreadable = |reason: String| NotEnforced::Unreadable { path: path.display().to_string(), reason, client };
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(format!("it cannot be read: {error}"))),
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| unreadable(format!("it is no JSON: {error}")))
}

/// A PreToolUse entry of ours that is asked before every tool.
struct Entry<'a> {
    scope: Scope,
    path: &'a Path,
    program: PathBuf,
    /// The ledger that it names; none where it takes the run's.
    ledger: Option<PathBuf>,
    limit_s: f64,
}

impl<'a> Entry<'a> {
    fn all(scope: Scope, path: &'a Path, settings: &Value) -> Vec<Self> {
        let groups = settings.pointer("/hooks/PreToolUse").and_then(Value::as_array);
        let groups = groups.into_iter().flatten().filter(|group| match group.get("matcher") {
            None | Some(Value::Null) => true,
            Some(matcher) => matcher.as_str().is_some_and(|matcher| EVERY_TOOL.contains(&matcher)),
        });
        let hooks = groups.filter_map(|group| group.get("hooks")?.as_array()).flatten();
        hooks.filter_map(|hook| Self::of(scope, path, hook)).collect()
    }

    fn of(scope: Scope, path: &'a Path, hook: &Value) -> Option<Self> {
        let is_set = |name: &str| hook.get(name).is_some_and(|value| *value != Value::Bool(false));
        // Nobody waits for the first two, and the last is asked about some calls only.
        if hook.get("type")? != "command" || is_set("async") || is_set("asyncRewake") || is_set("if") {
            return None;
        }
        let (program, ledger) = own_program(hook.get("command")?.as_str()?)?;
        let limit_s = hook.get("timeout").and_then(Value::as_f64).unwrap_or(TIMEOUT_OF_CLIENTS_S);
        Some(Self { scope, path, program, ledger, limit_s })
    }

    /// Whether its program is where the entry says; a bare name is the shell's to find.
    fn program_is_there(&self) -> bool {
        !self.program.is_absolute() || self.program.exists()
    }

    /// What to do about it.
    fn remedy(&self, client: Client) -> String {
        let install = client.install_command();
        match self.scope {
            Scope::User => format!("run `{install}`"),
            Scope::Project => format!("run `{install} --project` in the project"),
            Scope::Local => format!("take it out there, and run `{install}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A home and a project, and a program of our name.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir(place.0.path().join("project")).unwrap();
            place.write("bin/runledger", "");
            place
        }

        fn write(&self, name: &str, text: impl ToString) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.to_string()).unwrap();
        }

        fn own(&self, rest: &str) -> String {
            format!("{} {rest}", self.0.path().join("bin/runledger").display())
        }

        /// Settings with this entry, and what else it says.
        fn entry(&self, more: Value) -> Value {
            let mut hook = json!({"type": "command", "command": self.own("hook"), "timeout": 86_400});
            hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"hooks": {"PreToolUse": [{"hooks": [hook]}]}})
        }

        fn check_with(&self, harness: &str, more: &[(&str, &str)], permissions: Value) -> String {
            let home = self.0.path().join("home").display().to_string();
            let env = [("HOME", home.as_str()), ("CLAUDE_CONFIG_DIR", ""), ("CODEX_HOME", "")];
            let env = env.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let permissions = serde_json::from_value(permissions).unwrap();
            let ledger = Path::new("/a b/c.db");
            let checked = check(harness, &self.0.path().join("project"), &env, ledger, &permissions);
            let said = checked.err().map_or_else(|| "held".to_owned(), |error| error.to_string());
            said.replace(&self.0.path().display().to_string(), "")
        }

        fn check(&self) -> String {
            self.check_with("claude", &[], json!({}))
        }
    }

    const CLAUDE: &str = "home/.claude/settings.json";

    #[test]
    fn without_our_hook_nothing_holds_a_client_to_the_rules() {
        let place = Place::new();
        let missing = "the workflow has permissions, and nothing would hold Claude Code to them: there is no PreToolUse hook \
            of runledger for every tool in /home/.claude/settings.json or /project/.claude/settings.json or \
            /project/.claude/settings.local.json; run `runledger hook install`";
        assert_eq!(place.check(), missing);
        let matched = |matcher: &str| {
            let mut settings = place.entry(json!({}));
            settings["hooks"]["PreToolUse"][0]["matcher"] = json!(matcher);
            settings
        };
        for settings in [
            json!(null),
            json!([]),
            json!({"hooks": {"PostToolUse": place.entry(json!({}))["hooks"]["PreToolUse"]}}),
            json!({"hooks": {"PreToolUse": [7, {"hooks": [8]}, {"hooks": "x"}]}}),
            place.entry(json!({"command": place.own("hook | tee log")})),
            place.entry(json!({"command": "/usr/bin/other hook"})),
            place.entry(json!({"type": "http"})),
            place.entry(json!({"async": true})),
            place.entry(json!({"asyncRewake": true})),
            place.entry(json!({"if": "Bash(git *)"})),
            matched("Bash"),
        ] {
            place.write(CLAUDE, &settings);
            assert_eq!(place.check(), missing, "{settings}");
        }
        for settings in [matched(""), matched("*"), matched(".*"), place.entry(json!({"async": false}))] {
            place.write(CLAUDE, &settings);
            assert_eq!(place.check(), "held", "{settings}");
        }
        place.write(CLAUDE, "");
        assert_eq!(place.check(), missing);
    }

    #[test]
    fn it_may_stand_in_any_file_that_the_client_reads_in_either_form_with_the_runs_ledger() {
        let place = Place::new();
        for file in [CLAUDE, "project/.claude/settings.json", "project/.claude/settings.local.json"] {
            for rest in ["hook", "hook --fail-closed", "--db '/a b/c.db' hook"] {
                place.write(file, place.entry(json!({"command": place.own(rest)})));
                assert_eq!(place.check(), "held", "{file}: {rest}");
            }
            place.write(file, place.entry(json!({"command": place.own("--db /x hook")})));
            let said = place.check();
            assert!(
                said.contains("works on the ledger /x") && said.contains("--db '/a b/c.db' hook install"),
                "{said}"
            );
            std::fs::remove_file(place.0.path().join(file)).unwrap();
        }
        let folder = place.0.path().join("own");
        let own = [("CLAUDE_CONFIG_DIR", folder.to_str().unwrap()), ("CODEX_HOME", "../own")];
        for (harness, file) in [("claude", "own/settings.json"), ("codex", "own/hooks.json")] {
            assert!(place.check_with(harness, &own, json!({})).contains(file), "the workflow's own environment counts");
            place.write(file, place.entry(json!({})));
            assert_eq!(place.check_with(harness, &own, json!({})), "held", "{harness}");
        }
        let codex = place.check_with("codex", &[], json!({}));
        assert!(codex.contains("in /home/.codex/hooks.json; run `runledger hook install --harness codex`"), "{codex}");
        place.write("home/.codex/hooks.json", place.entry(json!({})));
        assert_eq!(place.check_with("codex", &[], json!({})), "held");
        assert_eq!(Place::new().check_with("command", &[], json!({})), "held", "it calls the hook itself");
    }

    #[test]
    fn its_limit_outlasts_the_longest_question() {
        let rule = |more: Value| {
            let mut rule = json!({"tool": "Bash", "action": "ask"});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"ask_timeout_ms": 5_000, "rules": [rule]})
        };
        for (permissions, needed) in [
            (json!({}), 310),
            (json!({"ask_timeout_ms": 5_001}), 16),
            (json!({"ask_timeout_ms": null}), 86_400),
            (rule(json!({})), 15),
            (rule(json!({"ask_timeout_ms": 1})), 15),
            (rule(json!({"ask_timeout_ms": 20_000})), 30),
            (rule(json!({"ask_timeout_ms": null})), 86_400),
            (json!({"ask_timeout_ms": u64::MAX}), 86_400),
        ] {
            let place = Place::new();
            place.write(CLAUDE, place.entry(json!({"timeout": needed})));
            assert_eq!(place.check_with("claude", &[], permissions.clone()), "held", "{permissions}");
            place.write(CLAUDE, place.entry(json!({"timeout": needed - 1})));
            let said = place.check_with("claude", &[], permissions.clone());
            let limits = format!(
                "after {} s, and then runs the tool, while a question of this workflow takes up to {needed} s",
                needed - 1
            );
            assert!(said.contains(&limits), "{permissions}: {said}");
        }
    }

    #[test]
    fn each_limit_that_may_count_has_to_do_and_what_to_run_depends_on_the_file() {
        let place = Place::new();
        place.write(CLAUDE, place.entry(json!({})));
        for (file, remedy) in [
            (CLAUDE, "run `runledger hook install`"),
            ("project/.claude/settings.json", "run `runledger hook install --project` in the project"),
            ("project/.claude/settings.local.json", "take it out there, and run `runledger hook install`"),
        ] {
            let before = std::fs::read_to_string(place.0.path().join(file));
            place.write(file, place.entry(json!({"timeout": 10})));
            let said = place.check();
            assert!(said.starts_with(&format!("/{file}: Claude Code ends the PreToolUse hook")), "{said}");
            assert!(said.ends_with(&format!("; {remedy}")), "{said}");
            place.write(file, before.unwrap_or_default());
        }
        // Nothing said: the client's own 600 s.
        let mut settings = place.entry(json!({}));
        settings["hooks"]["PreToolUse"][0]["hooks"][0].as_object_mut().unwrap().remove("timeout");
        place.write(CLAUDE, &settings);
        assert_eq!(place.check(), "held");
        assert!(place.check_with("claude", &[], json!({"ask_timeout_ms": 600_000})).contains("after 600 s"));
    }

    #[test]
    fn a_hook_that_is_off_or_has_no_program_or_stands_in_a_torn_file_holds_nobody() {
        let place = Place::new();
        let mut settings = place.entry(json!({}));
        settings["disableAllHooks"] = json!(true);
        place.write(CLAUDE, &settings);
        assert!(place.check().starts_with("/home/.claude/settings.json: `disableAllHooks` is on"), "{}", place.check());
        place.write("project/.claude/settings.local.json", json!({"disableAllHooks": false}));
        assert_eq!(place.check(), "held", "the project's own word counts more");
        place.write("project/.claude/settings.local.json", "{");
        assert!(
            place.check().starts_with("/project/.claude/settings.local.json: it is no JSON: "),
            "{}",
            place.check()
        );

        let place = Place::new();
        place.write(CLAUDE, place.entry(json!({"command": "/no/such/runledger hook"})));
        let gone = "/home/.claude/settings.json: its PreToolUse hook is to run /no/such/runledger, which is not there";
        assert!(place.check().starts_with(gone), "{}", place.check());
        place.write("project/.claude/settings.json", place.entry(json!({})));
        assert_eq!(place.check(), "held");
        place.write(CLAUDE, place.entry(json!({"command": "runledger hook"})));
        assert_eq!(place.check(), "held", "a bare name is the shell's to find");
    }
}
