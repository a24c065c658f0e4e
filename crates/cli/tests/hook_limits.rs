//! `hook install` where a hook decides: how long it may take there, and `--fail-closed`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::Room;
use support::hooks::{USER, hook, hook_ok, named, read};

#[test]
fn an_installation_from_before_there_were_rules_gets_the_longer_limits_and_nothing_else() {
    let room = Room::new();
    hook_ok(&room, &["install"]);
    let new = read(&room, USER);
    room.write(USER, new.replace("86400", "10"));
    let ran = hook_ok(&room, &["install"]);
    insta::assert_snapshot!("raised_limits_diff", named(&room, &ran.stdout()));
    assert_eq!(read(&room, USER), new);
}

#[test]
fn where_a_question_may_wait_the_limit_is_a_day_and_an_older_entry_of_ours_gets_it_in_its_place() {
    let room = Room::new();
    let own = format!("{} hook", env!("CARGO_BIN_EXE_runledger"));
    let old = serde_json::to_string_pretty(&json!({"hooks": {
        "PreToolUse": [
            {"hooks": [{"type": "command", "command": "/usr/bin/guard"}, {"type": "command", "command": own, "timeout": 10}]},
            {"matcher": "Bash", "hooks": [{"type": "command", "command": "/usr/bin/guard", "timeout": 10}]},
        ],
        "PermissionRequest": [{"hooks": [{"type": "command", "command": own}]}],
        "Stop": [{"hooks": [{"type": "command", "command": own, "timeout": 10}]}],
    }}))
    .unwrap();
    for (file, options) in [(USER, &["install"][..]), ("home/.codex/hooks.json", &["install", "--harness", "codex"])] {
        room.write(file, &old);
        let ran = hook_ok(&room, options);
        let shown = ran.stdout();
        let changed =
            |sign: char| shown.lines().filter(|line| line.starts_with(sign) && line.contains("timeout")).count();
        assert_eq!(changed('-'), 1, "{ran:?}");
        let before: Value = serde_json::from_str(&old).unwrap();
        let after: Value = serde_json::from_str(&read(&room, file)).unwrap();
        let limit = |event: &str, place: &str| after["hooks"][event].pointer(place).cloned();
        assert_eq!(limit("PreToolUse", "/0/hooks/1/timeout"), Some(json!(86_400)));
        assert_eq!(limit("PermissionRequest", "/0/hooks/0/timeout"), Some(json!(86_400)));
        assert_eq!(after["hooks"]["Stop"], before["hooks"]["Stop"]);
        assert_eq!(after["hooks"]["PreToolUse"][1], before["hooks"]["PreToolUse"][1], "theirs stays");
        assert_eq!(after["hooks"]["PreToolUse"][0]["hooks"][0], before["hooks"]["PreToolUse"][0]["hooks"][0]);
        let settings = read(&room, file);
        assert_eq!(hook_ok(&room, options).stdout(), "", "a second time changes nothing");
        assert_eq!(read(&room, file), settings);
    }
}

#[test]
fn a_limit_that_somebody_made_longer_stays() {
    let room = Room::new();
    hook_ok(&room, &["install"]);
    for limit in ["100000", "1e9"] {
        let settings = read(&room, USER).replacen("86400", limit, 1);
        room.write(USER, &settings);
        assert_eq!(hook_ok(&room, &["install"]).stdout(), "");
        assert_eq!(read(&room, USER), settings);
        room.write(USER, settings.replacen(limit, "86400", 1));
    }
    // One that is none is no choice.
    let settings = read(&room, USER);
    room.write(USER, settings.replacen("86400", "\"long\"", 1));
    hook_ok(&room, &["install"]);
    assert_eq!(read(&room, USER), settings);
}

#[test]
fn fail_closed_stands_where_a_hook_decides_and_goes_again_without_the_flag() {
    let room = Room::new();
    for (file, harness) in [(USER, "claude"), ("home/.codex/hooks.json", "codex")] {
        hook_ok(&room, &["install", "--harness", harness]);
        let open = read(&room, file);
        let ran = hook_ok(&room, &["install", "--harness", harness, "--fail-closed"]);
        if harness == "claude" {
            insta::assert_snapshot!("claude_fail_closed_diff", named(&room, &ran.stdout()));
        }
        let closed: Value = serde_json::from_str(&read(&room, file)).unwrap();
        for (event, groups) in closed["hooks"].as_object().unwrap() {
            assert_eq!(groups.as_array().unwrap().len(), 1, "{event}");
            let command = groups[0]["hooks"][0]["command"].as_str().unwrap();
            let is_closed = command.ends_with("runledger hook --fail-closed");
            assert_eq!(is_closed, ["PreToolUse", "PermissionRequest"].contains(&event.as_str()), "{event}: {command}");
            assert!(is_closed || command.ends_with("runledger hook"), "{event}: {command}");
        }
        assert_eq!(hook_ok(&room, &["install", "--harness", harness, "--fail-closed"]).stdout(), "");
        hook_ok(&room, &["install", "--harness", harness]);
        assert_eq!(read(&room, file), open);
        hook_ok(&room, &["install", "--harness", harness, "--fail-closed"]);
        hook_ok(&room, &["uninstall", "--harness", harness]);
        assert_eq!(read(&room, file), "{}\n");
    }
}

#[test]
fn an_entry_in_either_form_that_somebody_made_something_else_of_is_theirs() {
    let room = Room::new();
    let own = format!("{} hook --fail-closed", env!("CARGO_BIN_EXE_runledger"));
    let theirs = json!([{"hooks": [
        {"type": "command", "command": format!("{own} | tee log"), "timeout": 10},
        {"type": "command", "command": format!("{own} --json"), "timeout": 10},
    ]}]);
    room.write(USER, json!({"hooks": {"PreToolUse": theirs}}).to_string());
    hook_ok(&room, &["install"]);
    let installed: Value = serde_json::from_str(&read(&room, USER)).unwrap();
    assert_eq!(installed["hooks"]["PreToolUse"].as_array().unwrap().len(), 2);
    assert_eq!(installed["hooks"]["PreToolUse"][0], theirs[0]);
    hook_ok(&room, &["uninstall"]);
    assert_eq!(serde_json::from_str::<Value>(&read(&room, USER)).unwrap(), json!({"hooks": {"PreToolUse": theirs}}));
}

#[test]
fn a_hook_takes_the_flag_with_its_payload_and_never_exits_with_2() {
    let room = Room::new();
    let payload = json!({"session_id": "s", "hook_event_name": "Stop"}).to_string();
    let ran = support::run_with_input(&mut room.command(["hook", "--fail-closed"]), payload);
    assert_eq!((ran.code, ran.stdout(), ran.stderr()), (Some(0), String::new(), String::new()));
    assert_eq!(support::kinds(&room).len(), 1);
    assert_eq!(hook(&room, &["--new-option"]).code, Some(1));
    // A client takes a denial from a hook that exits with 0 alone.
    let ran = hook(&room, &["--fail-closed", "--new-option"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()[0]["hookSpecificOutput"]["permissionDecision"], "deny");
    assert!(hook(&room, &["--fail-closed", "install"]).is_refused_with(2).contains("hook install --fail-closed"));
}
