//! `hook install` and `hook uninstall`: what they write, what they leave alone, and what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::hooks::{USER, hook, hook_command, hook_ok, named, read};
use support::{Room, run};

/// Settings that a person has: other hooks, other keys, an order and a style of their own.
const EXISTING: &str = r#"{
    "model": "opus",
    "hooks": {
        "Stop": [
            {"hooks": [{"type": "command", "command": "say done"}]}
        ],
        "PreToolUse": [
            {
                "matcher": "Bash",
                "hooks": [
                    { "command": "/usr/local/bin/guard", "type": "command", "timeout": 3 }
                ]
            }
        ]
    },

    "permissions": { "allow": ["Bash(ls:*)"],   "deny": [] },
    "env": {"A": "1e999", "B": "\u00e9"}
}
"#;

#[test]
fn without_settings_they_are_made_with_every_event_that_may_be_observed() {
    let room = Room::new();
    let ran = hook_ok(&room, &["install"]);
    assert_eq!(named(&room, &ran.stderr()), "wrote [room]/home/.claude/settings.json\n");
    let settings = read(&room, USER);
    insta::assert_snapshot!("claude_new", named(&room, &settings));
    let added: Vec<&str> = ran
        .out
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix('+'))
        .collect();
    assert_eq!(added[1..].join("\n") + "\n", settings, "the difference shows all that was written");

    let json: Value = serde_json::from_str(&settings).unwrap();
    let events = json["hooks"].as_object().unwrap();
    assert_eq!(events.len(), 32);
    assert!(!events.contains_key("WorktreeCreate"), "a hook on that one would replace the client's own deed");
    let mode = |name: &str| std::fs::metadata(room.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("home/.claude"), mode(USER)), (0o700, 0o600));
    assert!(!room.path("home/.local").exists(), "no ledger is made");
}

#[test]
fn the_recorded_settings_observe_the_same_events() {
    let Some(shared) = runledger_testkit::shared("real") else {
        return;
    };
    let room = Room::new();
    hook_ok(&room, &["install"]);
    hook_ok(&room, &["install", "--harness", "codex"]);
    for (ours, recorded) in
        [(USER, "claude-code-2.1.330/settings.json"), ("home/.codex/hooks.json", "codex-0.169.0/hooks.json")]
    {
        let events = |text: String| {
            let settings: Value = serde_json::from_str(&text).unwrap();
            let mut events: Vec<String> = settings["hooks"].as_object().unwrap().keys().cloned().collect();
            events.sort();
            events
        };
        assert_eq!(events(read(&room, ours)), events(std::fs::read_to_string(shared.join(recorded)).unwrap()));
    }
}

#[test]
fn what_is_there_stays_as_it_is_written() {
    let room = Room::new();
    room.write(USER, EXISTING);
    std::fs::set_permissions(room.path(USER), std::fs::Permissions::from_mode(0o640)).unwrap();
    let ran = hook_ok(&room, &["install"]);
    insta::assert_snapshot!("claude_existing_diff", named(&room, &ran.stdout()));
    assert_eq!(std::fs::metadata(room.path(USER)).unwrap().permissions().mode() & 0o777, 0o640);
    let settings: Value = serde_json::from_str(&read(&room, USER)).unwrap();
    assert_eq!(settings["hooks"]["Stop"][0]["hooks"][0]["command"], "say done");
    assert_eq!(settings["hooks"]["PreToolUse"].as_array().unwrap().len(), 2);
    assert!(read(&room, USER).contains(r#""permissions": { "allow": ["Bash(ls:*)"],   "deny": [] },"#));

    hook_ok(&room, &["uninstall"]);
    // But for a blank line between two members all is as it was, to the space.
    let lists = [
        (
            r#"[
            {"hooks": [{"type": "command", "command": "say done"}]}
        ]"#,
            "say done",
        ),
        (r#""B": "\u00e9"}"#, "env"),
    ];
    for (text, what) in lists {
        assert!(read(&room, USER).contains(text), "{what}");
    }
    assert_eq!(read(&room, USER), EXISTING.replace("    },\n\n", "    },\n"));
}

#[test]
fn a_second_time_changes_nothing() {
    let room = Room::new();
    for name in ["missing", "existing"] {
        if name == "existing" {
            room.write(USER, EXISTING);
        }
        hook_ok(&room, &["install"]);
        let settings = read(&room, USER);
        let ran = hook_ok(&room, &["install"]);
        assert_eq!(ran.stdout(), "");
        assert!(ran.stderr().contains("nothing was changed"), "{ran:?}");
        assert_eq!(read(&room, USER), settings);
    }
}

#[test]
fn another_ledger_takes_the_place_of_the_one_before_and_keeps_nothing_double() {
    let room = Room::new();
    hook_ok(&room, &["install"]);
    let ledger = room.path("it's a ledger.db");
    let mut command = hook_command(&room, &["install"]);
    assert_eq!(run(command.env("RUNLEDGER_DB", &ledger)).code, Some(0));
    let settings: Value = serde_json::from_str(&read(&room, USER)).unwrap();
    let expected = format!(
        r"{} --db '{}/it'\''s a ledger.db' hook",
        env!("CARGO_BIN_EXE_runledger"),
        room.path("").display().to_string().trim_end_matches('/')
    );
    for (event, groups) in settings["hooks"].as_object().unwrap() {
        assert_eq!(groups.as_array().unwrap().len(), 1, "{event}");
        assert_eq!(groups[0]["hooks"].as_array().unwrap().len(), 1, "{event}");
        assert_eq!(groups[0]["hooks"][0]["command"], Value::from(expected.as_str()), "{event}");
    }
    // A shell runs what was written.
    let mut shell = Command::new("sh");
    shell.args(["-c", &expected]).env_clear().env("HOME", room.path("home"));
    let payload = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
    let ran = support::run_with_input(&mut shell, payload);
    assert_eq!((ran.code, ran.stdout(), ran.stderr()), (Some(0), String::new(), String::new()));
    assert!(ledger.exists());
    hook_ok(&room, &["uninstall"]);
    assert_eq!(read(&room, USER), "{}\n");
}

#[test]
fn a_timeout_that_somebody_changed_stays_and_a_group_that_somebody_shares_keeps_its_rest() {
    let room = Room::new();
    let own = format!("{} hook", env!("CARGO_BIN_EXE_runledger"));
    let settings = json!({"hooks": {"Stop": [
        {"matcher": "", "hooks": [
            {"type": "command", "command": "first"},
            {"type": "command", "command": own, "timeout": 99},
            {"type": "command", "command": "last"},
        ]},
    ], "SessionEnd": [{"hooks": [{"type": "command", "command": "/old/place/runledger --db /x hook"}]}]}});
    room.write(USER, serde_json::to_string_pretty(&settings).unwrap());
    hook_ok(&room, &["install"]);
    let installed: Value = serde_json::from_str(&read(&room, USER)).unwrap();
    assert_eq!(installed["hooks"]["Stop"], settings["hooks"]["Stop"]);
    assert_eq!(
        installed["hooks"]["SessionEnd"],
        json!([{"hooks": [{"type": "command", "command": own, "timeout": 5}]}])
    );
    hook_ok(&room, &["uninstall"]);
    insta::assert_snapshot!("shared_group_without_ours", read(&room, USER));
}

#[test]
fn a_dry_run_shows_the_difference_and_writes_nothing() {
    let room = Room::new();
    let wet = hook_ok(&Room::new(), &["install"]).out.len();
    let ran = hook_ok(&room, &["install", "--dry-run"]);
    assert!(ran.out.len() > wet / 2, "the difference is shown");
    assert!(ran.stderr().contains("dry run"), "{ran:?}");
    assert!(!room.path("home/.claude").exists());
    room.write(USER, EXISTING);
    hook_ok(&room, &["install", "--dry-run"]);
    hook_ok(&room, &["uninstall", "--dry-run"]);
    assert_eq!(read(&room, USER), EXISTING);
    let ran = hook_ok(&room, &["install", "--dry-run", "--json"]);
    let report = &ran.json()[0];
    assert_eq!((&report["changed"], &report["written"]), (&Value::from(true), &Value::from(false)));
}

#[test]
fn the_project_has_settings_of_its_own() {
    let room = Room::new();
    hook_ok(&room, &["install", "--project"]);
    assert!(!room.path("home/.claude").exists());
    let settings: Value = serde_json::from_str(&read(&room, "project/.claude/settings.json")).unwrap();
    assert_eq!(settings["hooks"].as_object().unwrap().len(), 32);
    hook_ok(&room, &["uninstall", "--project"]);
    assert_eq!(read(&room, "project/.claude/settings.json"), "{}\n");
}

#[test]
fn codex_has_its_own_file_and_has_to_trust_it() {
    let room = Room::new();
    let ran = hook_ok(&room, &["install", "--harness", "codex"]);
    assert!(ran.stderr().contains("trust"), "{ran:?}");
    insta::assert_snapshot!("codex_new", named(&room, &read(&room, "home/.codex/hooks.json")));
    assert_eq!(hook(&room, &["install", "--harness", "codex", "--project"]).code, Some(2));
    assert_eq!(hook(&room, &["install", "--project", "--user"]).code, Some(2));
    hook_ok(&room, &["uninstall", "--harness", "codex"]);
    assert_eq!(read(&room, "home/.codex/hooks.json"), "{}\n");
}

#[test]
fn the_clients_own_folders_are_honoured() {
    let room = Room::new();
    let mut command = hook_command(&room, &["install"]);
    assert_eq!(run(command.env("CLAUDE_CONFIG_DIR", room.path("claude"))).code, Some(0));
    let mut command = hook_command(&room, &["install", "--harness", "codex"]);
    assert_eq!(run(command.env("CODEX_HOME", room.path("codex"))).code, Some(0));
    assert!(room.path("claude/settings.json").exists() && room.path("codex/hooks.json").exists());
    assert!(std::fs::read_dir(room.path("home")).unwrap().next().is_none());
}

#[test]
fn settings_that_are_not_understood_are_refused_and_not_touched() {
    let room = Room::new();
    let mut said = Vec::new();
    for settings in [
        "{",
        "[]",
        "{\"hooks\": [], }",
        "// a comment\n{}",
        r#"{"hooks": []}"#,
        r#"{"hooks": null}"#,
        r#"{"hooks": {"Stop": {}}}"#,
        r#"{"hooks": {"Stop": [1, 2}}"#,
        r#"{"hooks": {}, "hooks": {}}"#,
        r#"{"hooks": {"Stop": [], "Stop": []}}"#,
        "{} {}",
    ] {
        room.write(USER, settings);
        for deed in ["install", "uninstall"] {
            let ran = hook(&room, &[deed]);
            let stderr = ran.is_refused_with(3);
            assert!(stderr.contains("it was not touched"), "{settings}: {stderr}");
            assert_eq!(read(&room, USER), settings);
            if deed == "install" {
                said.push(format!("{settings}\n    {}", named(&room, &stderr)));
            }
        }
    }
    insta::assert_snapshot!("refused", said.join("\n"));
    std::fs::write(room.path(USER), b"\xff{}").unwrap();
    assert!(hook(&room, &["install"]).is_refused_with(3).contains("it was not touched"));
}

#[test]
fn groups_of_a_shape_that_we_do_not_know_stay() {
    let room = Room::new();
    let settings = json!({"hooks": {"Stop": [7, {"hooks": "x"}, {"hooks": [8, {"type": "http", "url": "http://x"}]}, {}],
        "BrandNew": [{"hooks": [{"type": "command", "command": "x"}]}]}});
    room.write(USER, settings.to_string());
    hook_ok(&room, &["install"]);
    let installed: Value = serde_json::from_str(&read(&room, USER)).unwrap();
    assert_eq!(installed["hooks"]["Stop"].as_array().unwrap()[..4], settings["hooks"]["Stop"].as_array().unwrap()[..]);
    hook_ok(&room, &["uninstall"]);
    assert_eq!(serde_json::from_str::<Value>(&read(&room, USER)).unwrap(), settings);
}

#[test]
fn a_link_to_the_settings_stays_a_link() {
    let room = Room::new();
    let target = room.write("dotfiles/claude.json", EXISTING);
    std::fs::create_dir_all(room.path("home/.claude")).unwrap();
    std::os::unix::fs::symlink("../../dotfiles/claude.json", room.path(USER)).unwrap();
    hook_ok(&room, &["install"]);
    assert_eq!(std::fs::read_link(room.path(USER)).unwrap(), Path::new("../../dotfiles/claude.json"));
    assert!(std::fs::read_to_string(&target).unwrap().contains("hook"));
    let others = std::fs::read_dir(room.path("dotfiles")).unwrap().count();
    assert_eq!(others, 1, "no draft is left");
    // One that leads nowhere yet.
    std::fs::remove_file(&target).unwrap();
    hook_ok(&room, &["install"]);
    assert!(target.exists() && read(&room, USER).contains("hook"));
}

#[test]
fn tabs_line_ends_and_a_byte_order_mark_stay() {
    let room = Room::new();
    let settings = "\u{feff}{\r\n\t\"model\": \"opus\"\r\n}\r\n";
    room.write(USER, settings);
    hook_ok(&room, &["install"]);
    let installed = read(&room, USER);
    assert!(installed.starts_with("\u{feff}{\r\n\t\"model\": \"opus\",\r\n\t\"hooks\": {\r\n\t\t\"SessionStart\": ["));
    assert!(installed.replace("\r\n", "").find('\n').is_none());
    hook_ok(&room, &["uninstall"]);
    assert_eq!(read(&room, USER), settings);
    for empty in ["", "\n", "{}", "{\"hooks\": {}}\n"] {
        room.write(USER, empty);
        hook_ok(&room, &["install"]);
        assert!(serde_json::from_str::<Value>(&read(&room, USER)).is_ok(), "{empty:?}");
    }
}
