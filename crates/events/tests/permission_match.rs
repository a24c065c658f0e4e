//! Patterns of tool calls, and what a policy's rules say of one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use runledger_events::{
    EventId, Grant, OnTimeout, PermissionPolicy, PermissionRule, RuleAction, RuleOrigin, Ruling, RunState, ToolCall,
    ToolPattern,
};
use serde_json::{Value, json};

fn call(tool: &str, input: Value) -> ToolCall {
    ToolCall {
        tool_name: tool.to_owned(),
        tool_input: input.to_string(),
        cwd: "/home/dev/p".to_owned(),
        project_dir: "/home/dev/p".to_owned(),
        home: Some("/home/dev".to_owned()),
        agent_id: None,
        agent_type: None,
        state: RunState::Running,
        iteration: 1,
    }
}

fn bash(command: &str) -> ToolCall {
    call("Bash", json!({"command": command, "description": "what it does"}))
}

fn file(tool: &str, path: &str) -> ToolCall {
    call(tool, json!({"file_path": path, "content": "x"}))
}

fn patch(files: &[&str]) -> ToolCall {
    let text: String = files.iter().map(|file| format!("*** Update File: {file}\n@@\n-a\n+b\n")).collect();
    call("apply_patch", json!({"command": format!("*** Begin Patch\n{text}*** End Patch\n")}))
}

fn pattern(text: &str) -> ToolPattern {
    ToolPattern::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What a pattern says of a call when it allows, and when it denies or asks.
fn fits(text: &str, call: &ToolCall) -> (bool, bool) {
    let pattern = pattern(text);
    assert_eq!(pattern.fits(call, RuleAction::Deny), pattern.fits(call, RuleAction::Ask));
    (pattern.fits(call, RuleAction::Allow), pattern.fits(call, RuleAction::Deny))
}

const YES: (bool, bool) = (true, true);
const NO: (bool, bool) = (false, false);
/// It denies, and does not allow.
const WIDE: (bool, bool) = (false, true);

#[test]
fn commands_are_matched_whole_by_their_beginning_and_with_wildcards() {
    for (text, command, expected) in [
        ("Bash", "anything; at all > x", YES),
        ("Bash(*)", "anything; at all > x", YES),
        ("Bash(npm run build)", "npm run build", YES),
        ("Bash(npm run build)", "  npm  run build ", YES),
        ("Bash(npm run build)", "npm run build:prod", NO),
        ("Bash(npm run build)", "npm run build 2>&1", YES),
        ("Bash(git push:*)", "git push", YES),
        ("Bash(git push:*)", "git push origin main", YES),
        ("Bash(git push:*)", "git pushy", NO),
        ("Bash(git push *)", "git push", YES),
        ("Bash(git push*)", "git pushy", YES),
        ("Bash(git * main)", "git checkout main", YES),
        ("Bash(git * main)", "git checkout mainline", NO),
        ("Bash(git:* push)", "git:x push", YES),
        ("Bash(* --version)", "node --version", YES),
        (r"Bash(ls \*)", "ls *", YES),
        (r"Bash(ls \*)", "ls x", NO),
        ("Bash(echo (a))", "echo (a)", YES),
    ] {
        assert_eq!(fits(text, &bash(command)), expected, "{text}: {command}");
    }
}

#[test]
fn a_compound_command_is_allowed_part_by_part_and_denied_by_any() {
    for (text, command, expected) in [
        ("Bash(git status:*)", "git status && rm -rf /", WIDE),
        ("Bash(git status:*)", "git status || rm x", WIDE),
        ("Bash(git status:*)", "git status; rm x", WIDE),
        ("Bash(git status:*)", "git status | sh", WIDE),
        ("Bash(git status:*)", "git status & rm x", WIDE),
        ("Bash(git status:*)", "git status\nrm x", WIDE),
        ("Bash(git status:*)", "git status $(rm x)", WIDE),
        ("Bash(git status:*)", "git status `rm x`", WIDE),
        ("Bash(git status:*)", "git status <(rm x)", WIDE),
        ("Bash(git status:*)", "git status > ~/.bashrc", WIDE),
        ("Bash(git status:*)", "git status >/dev/null 2>&1", YES),
        ("Bash(git status:*)", "git status && git status -s", YES),
        ("Bash(git status:*)", "echo 'git status'", NO),
        ("Bash(git status:*)", "git status 'a; b'", YES),
        ("Bash(git status:*)", "git status $'\\'; rm x #'", WIDE),
        ("Bash(git status:*)", "git status <<EOF\n'\nEOF\nrm x '", WIDE),
        ("Bash(git status:*)", "FOO=1 git status", WIDE),
        ("Bash(git status:*)", "sudo git status", WIDE),
        ("Bash(rm:*)", "ls && /bin/rm -rf x", WIDE),
        ("Bash(rm:*)", "bash -c 'ls; rm x'", WIDE),
        ("Bash(rm:*)", "echo `echo $(rm x)`", WIDE),
        ("Bash(git push)", "git status && git push", WIDE),
        ("Bash(curl * | sh)", "curl x | sh", WIDE),
        ("Bash(make && make install)", "make && make install", YES),
        ("Bash(make > log)", "make > log", YES),
    ] {
        assert_eq!(fits(text, &bash(command)), expected, "{text}: {command}");
    }
}

#[test]
fn where_shells_may_read_on_nothing_is_allowed_and_all_of_it_is_searched() {
    for command in [
        "git log \"$(git log # )\nrm -rf x\n)\"",
        "git log $(git log # )\nrm -rf x\n)",
        "git log \"`git log \\\" ' \\\" ; rm -rf x ; \\\" ' \\\"`\"",
        "git log `git log \\` ; rm -rf x\\``",
        "git log \"$(git log <<E\n)\nE\nrm -rf x)\"",
        "git log \"$(case x in x) rm -rf x;; esac)\"",
        "git log \"$(git log \"$(git log ')' \"`rm -rf x`\")\")\"",
        "git log; ((#)); rm -rf x",
        "git log $[ # ]; rm -rf x",
        "git log \"$(( # )) $(rm -rf x)\n))\"",
        "git log \"${ rm -rf x; }\"",
        "git log ${x:-$(rm -rf x)}",
        "git log \"${x:-`rm -rf x`}\"",
        "git log $'\\' ; rm -rf x ; '",
        "git log <<E\nit's $(rm -rf x)\nE",
        "git log 'open\nrm -rf x",
    ] {
        assert!(!fits("Bash(git log:*)", &bash(command)).0, "{command}");
        assert_eq!(fits("Bash(rm:*)", &bash(command)), WIDE, "{command}");
        assert_eq!(fits("Bash", &bash(command)), YES, "{command}");
        let own = bash(command).pattern().unwrap();
        assert_eq!(fits(&own, &bash(command)), YES, "{command}");
    }
    for command in [
        "git log \"$(git log -1 --format='%h)')\"",
        "git log \"$(git log \"$(git log ')')\")\" `git log`",
        "git log -- a#b '# )' \"#\"",
        "git log ${x} \"${HOME}/y\" $1 \"$@\" *.rs {a,b} # done",
    ] {
        assert_eq!(fits("Bash(git log:*)", &bash(command)), YES, "{command}");
        assert_eq!(fits("Bash(rm:*)", &bash(command)), NO, "{command}");
    }
    // To some shells `&>` ends a command.
    assert_eq!(fits("Bash(git log:*)", &bash("git log &>/dev/null rm -rf x")), WIDE);
    assert_eq!(fits("Bash(rm:*)", &bash("git log &>/dev/null rm -rf x")), WIDE);
    assert_eq!(fits("Bash(git log:*)", &bash("git log &>/dev/null")), YES);
    // A here-document may stand before its command, and in it.
    for command in ["<<E rm -rf x\nE", "rm <<E -rf x\nE", "git log <<E; rm -rf x\nE", "<<-'E' rm -rf x\nE"] {
        assert_eq!(fits("Bash(rm -rf:*)", &bash(command)), WIDE, "{command}");
    }
}

#[test]
fn what_is_denied_is_found_in_the_ordinary_spellings_of_a_shell() {
    for command in [
        "git p${x}ush",
        "git pu$@sh",
        "git $x push",
        "git {push,origin}",
        "{git,push}",
        "git pus[h]",
        "git p?sh",
        "git \"pu\\\nsh\"",
        "git $'push'",
        "git $'p\\x75sh'",
        "git $\"push\"",
        "git $(echo push)",
        "$x push",
        "\"$git\" push",
        "/usr/bin/g?t push",
        "timeout -s KILL 5 git push",
        "timeout $t git push",
        "sudo -u root /usr/bin/git push",
        "sudo -u root bash -c 'git push'",
        "sudo -g a -u b git push",
        "bash -ce 'git push'",
        "bash -c -e 'git push'",
        "bash <<< 'git push'",
        "find . -exec git push \\;",
        "find . -name x -exec sh -c 'git push' {} +",
        "xargs git push",
        "xargs -I {} git push",
        "function f { git push; }",
        "f() { git push; }",
        "coproc git push",
        "coproc N { git push; }",
        "trap 'git push' EXIT",
        "trap -- 'git push' EXIT",
        "eval \"git $x\"",
    ] {
        assert_eq!(fits("Bash(git push:*)", &bash(command)), WIDE, "{command}");
    }
    for command in [
        "git log $x",
        "git commit -m \"$message\"",
        "\"$HOME/bin/make\" push",
        "$HOME/.cargo/bin/cargo test",
        "[ -f x ] && [[ -d y ]]",
        "cat > a.md <<'E'\n* git\n$x = 1;\n**push**\nE",
        "find . -name '*.rs'",
        "git diff HEAD@{1} -- *.rs",
    ] {
        assert_eq!(fits("Bash(git push:*)", &bash(command)), NO, "{command}");
    }
}

#[test]
fn a_line_that_is_too_much_to_look_at_is_denied_and_not_allowed() {
    for command in [
        format!("{}git push", "A=1 ".repeat(50_000)),
        format!("{}git push", "A=1 ".repeat(100_000)),
        format!("ls {}; git push", "x".repeat(300_000)),
        format!("{}git push", "ls;".repeat(2_000)),
        format!("{}git push{}", "$(ls ".repeat(20), ")".repeat(20)),
        format!("{}git push", "eval ".repeat(60)),
    ] {
        let (allowed, denied) = fits("Bash(git push:*)", &bash(&command));
        assert!(!allowed && denied, "{}", &command[..20]);
        assert!(!fits("Bash(ls:*)", &bash(&command)).0);
        assert_eq!(fits("Bash", &bash(&command)), YES);
        let own = bash(&command).pattern().unwrap();
        assert!(fits(&own, &bash(&command)).0);
    }
    assert_eq!(fits("Bash(git push:*)", &bash(&format!("{}git pull", "A=1 ".repeat(60)))), NO);
}

#[test]
fn edit_stands_for_all_that_write_files_and_read_for_all_that_read_them() {
    for (text, call, expected) in [
        ("Edit", file("Write", "/x"), YES),
        ("Edit(src/**)", file("Edit", "/home/dev/p/src/a.rs"), YES),
        ("Edit(src/**)", file("Write", "/home/dev/p/src/a.rs"), YES),
        ("Edit(src/**)", file("MultiEdit", "src/a.rs"), YES),
        ("Edit(src/**)", call("NotebookEdit", json!({"notebook_path": "/home/dev/p/src/a.ipynb"})), YES),
        ("Edit(src/**)", file("Edit", "/home/dev/p/src/../secret"), NO),
        ("Edit(src/**)", file("Read", "/home/dev/p/src/a.rs"), NO),
        ("Write(src/**)", file("Edit", "/home/dev/p/src/a.rs"), NO),
        ("Edit(src/**)", patch(&["src/a.rs", "src/b.rs"]), YES),
        ("Edit(src/**)", patch(&["src/a.rs", "Cargo.toml"]), WIDE),
        ("Edit(src/**)", patch(&["docs/a.md"]), NO),
        ("Edit(src/**)", call("apply_patch", json!({"command": "nonsense"})), NO),
        ("Edit", call("apply_patch", json!({})), YES),
        ("Read(~/.zshrc)", file("Read", "/home/dev/.zshrc"), YES),
        ("Read(//etc/**)", file("Read", "/etc/passwd"), YES),
        ("Read(/etc/**)", file("Read", "/etc/passwd"), NO),
        ("Read(src/**)", call("Grep", json!({"pattern": "x", "path": "src"})), YES),
        ("Read(src/**)", call("Grep", json!({"pattern": "x"})), NO),
        ("Read(src/*.rs)", call("Grep", json!({"pattern": "x", "path": "src"})), NO),
        ("Read(src/**)", call("Glob", json!({"pattern": "src/**/*.rs"})), YES),
        ("Read(src/**)", call("Glob", json!({"pattern": "src/*/../../x"})), WIDE),
        ("Read(//etc/**)", call("Glob", json!({"pattern": "/etc/*"})), YES),
        ("Read(//etc/**)", call("Glob", json!({"pattern": "/*", "path": "/etc"})), NO),
        ("Read(src/**)", call("Read", json!({"file_path": 7})), NO),
    ] {
        assert_eq!(fits(text, &call), expected, "{text}: {call:?}");
    }
}

#[test]
fn other_tools_are_matched_by_name_host_and_type() {
    let fetch = |url: &str| call("WebFetch", json!({"url": url, "prompt": "p"}));
    for (text, call, expected) in [
        ("*", call("Anything", json!({})), YES),
        ("mcp__git", call("mcp__git__push", json!({})), YES),
        ("mcp__git", call("mcp__github__push", json!({})), NO),
        ("mcp__git__*", call("mcp__git__push", json!({})), YES),
        ("mcp__git__push", call("mcp__git__push", json!({})), YES),
        ("mcp__git__push", call("mcp__git__push_all", json!({})), NO),
        ("mcp__git__get_*", call("mcp__git__get_x", json!({})), YES),
        ("mcp__*", call("mcp__git__push", json!({})), YES),
        ("mcp__*", call("Bash", json!({})), NO),
        ("WebFetch(domain:example.com)", fetch("https://EXAMPLE.com:443/a?b"), YES),
        ("WebFetch(domain:example.com)", fetch("https://example.com.evil.org/"), NO),
        ("WebFetch(domain:example.com)", fetch("https://example.com@evil.org/"), NO),
        ("WebFetch(domain:example.com)", fetch("https://evil.org\\@example.com/"), WIDE),
        ("WebFetch(domain:example.com)", fetch("https://user@example.com/"), WIDE),
        ("WebFetch(domain:*.example.com)", fetch("https://a.example.com"), YES),
        ("WebFetch(https://example.com/a)", fetch("https://example.com/a"), YES),
        ("WebFetch(https://example.com/a)", fetch("https://example.com/ab"), NO),
        ("Agent(Explore)", call("Agent", json!({"subagent_type": "Explore"})), YES),
        ("Task(Explore)", call("Agent", json!({"subagent_type": "Explore"})), YES),
        ("Agent(Explore)", call("Task", json!({"subagent_type": "Plan"})), NO),
        ("Agent", call("Task", json!({"subagent_type": "Plan"})), YES),
        ("AskUserQuestion", call("AskUserQuestion", json!({"questions": []})), YES),
        ("Bash", call("BashOutput", json!({})), NO),
    ] {
        assert_eq!(fits(text, &call), expected, "{text}: {call:?}");
    }
}

#[test]
fn a_host_is_denied_in_every_spelling_and_allowed_in_the_strict_one() {
    for (address, expected) in [
        ("https://evil.com", YES),
        ("http://EVIL.com:8080/a?b#c@d", YES),
        ("https:/evil.com", WIDE),
        ("https:evil.com", WIDE),
        ("https:///evil.com", WIDE),
        ("https:\\\\evil.com\\x", WIDE),
        ("https://evil.com\\@example.com", WIDE),
        ("https://example.com\\@evil.com", WIDE),
        ("https://evil%2ecom", WIDE),
        ("https://%65vil.com/", WIDE),
        ("https://evil.com%2fx", WIDE),
        ("https://a:b@evil.com/", WIDE),
        ("https://a@b@evil.com:1/", WIDE),
        ("https://evil.com./", WIDE),
        ("https://ev\til.com/", WIDE),
        (" https://evil.com ", WIDE),
        ("https://evil\u{3002}com", WIDE),
        ("https://\u{ff45}vil.com", WIDE),
        ("evil.com/x", WIDE),
        ("evil.com:443/x", WIDE),
        ("//evil.com/x", WIDE),
        ("ftp://evil.com/", WIDE),
        ("x:y@example.com?://evil.com/", NO),
        ("https://evil.com:a/", WIDE),
        ("https://evil.com.example.com", NO),
        ("https://example.com/evil.com", NO),
        ("https://example.com/?@evil.com", NO),
        ("https://notevil.com", NO),
    ] {
        let fetch = call("WebFetch", json!({"url": address}));
        assert_eq!(fits("WebFetch(domain:evil.com)", &fetch), expected, "{address:?}");
    }
}

#[test]
fn a_search_that_may_leave_its_folder_is_not_allowed() {
    for (text, path, expected) in [
        ("Read(src/**)", "src/**/*.{ts,tsx}", YES),
        ("Read(src/**)", "src/{a,b}.rs", YES),
        ("Read(src/**)", "src/{a,b}/*", YES),
        ("Read(src/**)", "src/[a-z]*/.x", YES),
        ("Read(src/**)", "src/{..,a}/*", WIDE),
        ("Read(src/**)", "src/{a,b/../..}/*", WIDE),
        ("Read(src/**)", "src/{.,a}{.,b}/*", WIDE),
        ("Read(src/**)", "src/{.,a}./*", WIDE),
        ("Read(src/**)", "src/{a/.,b}./*", WIDE),
        ("Read(src/**)", "src/@(..|a)/*", WIDE),
        ("Read(src/**)", "src/[.][.]/*", WIDE),
        ("Read(src/**)", "src/*/../../x", WIDE),
        ("Read(src/**)", "src/.\\./*", WIDE),
        ("Read(src/**)", "src/a/../*", WIDE),
        ("Read(**)", "{src,/etc}/*", WIDE),
        ("Read(**)", "{/etc,src}/*", WIDE),
        ("Read(**)", "{src,~/x}/*", WIDE),
    ] {
        assert_eq!(fits(text, &call("Glob", json!({"pattern": path}))), expected, "{text}: {path}");
    }
}

#[test]
fn what_is_not_told_holds_for_what_denies_and_for_nothing_that_allows() {
    let homeless = |path: &str| ToolCall { home: None, ..file("Read", path) };
    for (text, call, expected) in [
        ("Read(~/.ssh/**)", homeless("/home/dev/.ssh/id"), WIDE),
        ("Read(~/.ssh/**)", homeless("~/.ssh/id"), WIDE),
        ("Read(~/.ssh/**)", homeless("/home/dev/p/src/a"), NO),
        ("Read(**)", homeless("src/a"), YES),
        ("Read(**)", homeless("~/.ssh/id"), WIDE),
        ("Read(**)", file("Read", "~root/x"), WIDE),
        ("Read(**)", file("Read", "a~"), YES),
    ] {
        assert_eq!(fits(text, &call), expected, "{text}: {call:?}");
    }
    let mut untold = ToolCall { agent_id: Some("a1".to_owned()), home: None, ..bash("ls") };
    for (when, applies) in [
        (json!({"subagent": "Explore"}), true),
        (json!({"subagent": "*"}), true),
        (json!({"cwd": "~/p"}), true),
        (json!({"cwd": "~/q"}), false),
    ] {
        for (action, expected) in [("deny", applies), ("ask", applies), ("allow", false)] {
            let policy = policy(json!([{"tool": "Bash", "action": action, "when": when}]));
            assert_eq!(policy.ruling(&untold, &[], &[]).is_some(), expected, "{action} {when}");
        }
    }
    untold.agent_id = None;
    let of_type = policy(json!([{"tool": "Bash", "action": "deny", "when": {"subagent": "Explore"}}]));
    assert_eq!(of_type.ruling(&untold, &[], &[]), None);
}

#[test]
fn what_is_no_pattern_says_where_and_what_is_accepted() {
    for (text, place) in [
        ("", 1),
        ("  ", 3),
        ("(x)", 1),
        ("Bash(git push", 5),
        ("Bash(git push) now", 15),
        ("Bash()", 6),
        ("Ba sh", 3),
        ("Bash*", 5),
        (" Edit(src/[a)", 11),
        ("Edit(a/../b)", 8),
        ("WebFetch(example.com)", 10),
        ("WebFetch(domain:)", 17),
        ("TodoWrite(x)", 11),
        ("mcp__", 6),
        ("mcp__git__push(x)", 16),
    ] {
        let error = ToolPattern::parse(text).unwrap_err();
        assert_eq!(error.place, place, "{error}");
        assert!(error.to_string().contains("accepted are `*`"), "{error}");
    }
}

fn policy(rules: Value) -> PermissionPolicy {
    let policy: PermissionPolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
    policy.check().unwrap();
    policy
}

fn grant(pattern: &str, is_allowed: bool) -> Grant {
    Grant { pattern: pattern.to_owned(), is_allowed, decision_id: EventId::new("d").unwrap() }
}

/// A ruling's action, the origin of its rule and the number there.
fn told(ruling: Option<Ruling>) -> Option<(RuleAction, RuleOrigin, u32)> {
    ruling.map(|ruling| (ruling.action, ruling.rule.origin, ruling.rule.number))
}

#[test]
fn the_first_rule_that_matches_decides_and_none_is_no_opinion() {
    let policy = policy(json!([
        {"tool": "Bash(git status:*)", "action": "allow"},
        {"tool": "Bash(git push:*)", "action": "ask", "ask_timeout_ms": null, "on_timeout": "allow"},
        {"tool": "Bash(git:*)", "action": "deny", "reason": "no git"},
        {"tool": "Bash(npm test)", "action": "allow"},
        {"tool": "Edit(src/**)", "action": "allow"},
        {"tool": "Edit(docs/**)", "action": "allow"},
        {"tool": "Edit(secret/**)", "action": "deny"},
    ]));
    use RuleAction::{Allow, Ask, Deny};
    let workflow = |action, number| Some((action, RuleOrigin::Workflow, number));
    for (call, expected) in [
        (bash("git status -s"), workflow(Allow, 1)),
        (bash("git push"), workflow(Ask, 2)),
        (bash("git log"), workflow(Deny, 3)),
        (bash("ls"), None),
        (bash("git status && npm test"), workflow(Allow, 4)),
        (bash("git status && ls"), None),
        (bash("git push && git log"), workflow(Deny, 3)),
        (bash("git push && npm test"), workflow(Ask, 2)),
        (bash("git status > x"), None),
        (patch(&["src/a", "docs/b"]), workflow(Allow, 5)),
        (patch(&["src/a", "secret/b"]), workflow(Deny, 7)),
        (patch(&["src/a", "other/b"]), None),
        (call("Read", json!({"file_path": "src/a"})), None),
    ] {
        assert_eq!(told(policy.ruling(&call, &[], &[])), expected, "{call:?}");
    }
    let asked = policy.ruling(&bash("git push"), &[], &[]).unwrap();
    assert_eq!((asked.ask_timeout_ms, asked.on_timeout), (None, OnTimeout::Allow));
    let denied = policy.ruling(&bash("git log"), &[], &[]).unwrap();
    assert_eq!((denied.ask_timeout_ms, denied.on_timeout), (Some(300_000), OnTimeout::Deny));
    assert_eq!((denied.rule.tool.as_str(), denied.rule.reason.as_deref()), ("Bash(git:*)", Some("no git")));
}

#[test]
fn grants_decide_only_where_a_rule_asks_the_runs_before_the_workflows_and_the_latest_first() {
    let policy = policy(json!([
        {"tool": "Bash(git log:*)", "action": "deny"},
        {"tool": "Bash(git:*)", "action": "ask"},
    ]));
    use RuleAction::{Allow, Ask, Deny};
    let of_run = [grant("Bash(git push:*)", true), grant("Bash(git push -f)", false), grant("Bash(git log)", true)];
    let always = [grant("Bash(git push:*)", false), grant("Bash(git pull)", true), grant("Bash(git pull && ls)", true)];
    for (command, expected) in [
        ("git log", Some((Deny, RuleOrigin::Workflow, 1))),
        ("git push", Some((Allow, RuleOrigin::Run, 1))),
        ("git push -f", Some((Deny, RuleOrigin::Run, 2))),
        ("git pull", Some((Allow, RuleOrigin::Always, 2))),
        ("git fetch", Some((Ask, RuleOrigin::Workflow, 2))),
        ("git pull && git fetch", Some((Ask, RuleOrigin::Workflow, 2))),
        ("git pull && ls", Some((Allow, RuleOrigin::Always, 3))),
        // The rest of it is the harness's to judge, as it is without the first part.
        ("git pull && rm x", None),
        ("ls", None),
    ] {
        assert_eq!(told(policy.ruling(&bash(command), &of_run, &always)), expected, "{command}");
    }
}

#[test]
fn conditions_have_to_fit_the_runs_context() {
    let at = |change: fn(&mut ToolCall)| {
        let mut call = bash("ls");
        change(&mut call);
        call
    };
    let plain = at(|_| {});
    let third = at(|call| call.iteration = 3);
    let sub = at(|call| {
        call.agent_id = Some("a1".to_owned());
        call.agent_type = Some("Explore".to_owned());
    });
    let below = at(|call| call.cwd = "/home/dev/p/src/x".to_owned());
    for (when, call, applies) in [
        (json!({}), &plain, true),
        (json!({"state": ["running"]}), &plain, true),
        (json!({"state": ["starting", "completing"]}), &plain, false),
        (json!({"iteration_from": 2}), &plain, false),
        (json!({"iteration_from": 2, "iteration_to": 3}), &third, true),
        (json!({"iteration_to": 2}), &third, false),
        (json!({"subagent": true}), &plain, false),
        (json!({"subagent": true}), &sub, true),
        (json!({"subagent": false}), &plain, true),
        (json!({"subagent": false}), &sub, false),
        (json!({"subagent": "Exp*"}), &sub, true),
        (json!({"subagent": "Plan"}), &sub, false),
        (json!({"subagent": "*"}), &plain, false),
        (json!({"cwd": "src/**"}), &below, true),
        (json!({"cwd": "src"}), &below, false),
        (json!({"cwd": "src/**"}), &plain, false),
        (json!({"cwd": "~/p"}), &plain, true),
        (json!({"cwd": "/home/*/p"}), &plain, true),
        (json!({"cwd": "/home/*/p", "iteration_from": 2}), &plain, false),
    ] {
        let policy = policy(json!([{"tool": "Bash", "action": "deny", "when": when}]));
        assert_eq!(policy.ruling(call, &[], &[]).is_some(), applies, "{when}: {call:?}");
    }
}

#[test]
fn a_rule_that_cannot_be_read_is_found_before_it_is_used() {
    let rule = |json: Value| serde_json::from_value::<PermissionRule>(json).unwrap();
    assert!(rule(json!({"tool": "Bash(", "action": "deny"})).check().is_err());
    let error = rule(json!({"tool": "Bash", "action": "deny", "when": {"cwd": "a/["}})).check().unwrap_err();
    assert_eq!((error.pattern.as_str(), error.place), ("a/[", 3));
    assert!(
        error
            .to_string()
            .ends_with("accepted is a folder, or a glob of folders: `src`, `src/**`, `~/work/**`, `/srv/*`")
    );
}

#[test]
fn a_call_that_patterns_cannot_tell_from_others_has_none_of_its_own() {
    assert_eq!(bash("git push").pattern().as_deref(), Some("Bash(git push)"));
    assert_eq!(file("Write", "a*b").pattern().as_deref(), Some(r"Write(//home/dev/p/a\*b)"));
    assert_eq!(patch(&["src/a"]).pattern().as_deref(), Some("Edit(//home/dev/p/src/a)"));
    let fetch = call("WebFetch", json!({"url": "https://a.b/(c)"}));
    assert_eq!(fetch.pattern().as_deref(), Some("WebFetch(https://a.b/(c))"));
    for call in [
        call("mcp__git__push", json!({"a": 1})),
        call("Agent", json!({"subagent_type": "Explore"})),
        call("Grep", json!({"pattern": "x"})),
        patch(&["a", "b"]),
        bash(""),
    ] {
        assert_eq!(call.pattern(), None, "{call:?}");
    }
}

/// Pieces that patterns, shells and paths read in their own ways.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,3}",
        prop::sample::select(vec![
            " ", "*", "\\", ":*", " *", "(", ")", "'", "\"", ";", "&&", "|", ">", "$(", "`", "#", "\n", "[", "]", "?",
            "..", "~", "!", ",", "é", "{", "}", "=",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_pattern_of_a_command_is_on_that_command_and_on_no_other(
        pieces in prop::collection::vec(piece(), 1..8),
        others in prop::collection::vec(piece(), 1..8),
    ) {
        let (command, other) = (pieces.concat(), others.concat());
        let text = bash(&command).pattern().unwrap();
        let parsed = ToolPattern::parse(&text).unwrap();
        prop_assert_eq!(ToolPattern::parse(parsed.as_str()).unwrap(), parsed.clone());
        prop_assert!(parsed.fits(&bash(&command), RuleAction::Allow), "{}", text);
        // Spaces, comments, harmless redirections and saying it twice do not make it another command.
        let words = |command: &str| command.split([' ', '\n', ';', '&', '|', '(', ')']).map(str::to_owned).collect::<Vec<_>>();
        let is_other = words(&other).iter().any(|word| !word.is_empty() && !command.contains(word.as_str()));
        if is_other && !other.contains(['#', '>']) {
            prop_assert!(!parsed.fits(&bash(&other), RuleAction::Allow), "{} {:?}", text, other);
        }
    }

    #[test]
    fn the_pattern_of_a_file_is_on_that_file_and_on_no_other_beside_it(
        names in prop::collection::vec(piece(), 1..5),
        others in prop::collection::vec(piece(), 1..5),
    ) {
        let path = |names: &[String]| format!("/r/{}/f", names.join("/"));
        let (one, other) = (file("Write", &path(&names)), file("Write", &path(&others)));
        let text = one.pattern().unwrap();
        let parsed = ToolPattern::parse(&text).unwrap();
        prop_assert!(parsed.fits(&one, RuleAction::Allow), "{}", text);
        prop_assert!(!parsed.fits(&file("Edit", &path(&names)), RuleAction::Allow));
        // What would be below it, were it a folder, is no other file.
        let below = format!("{}/", text.trim_end_matches(')'));
        let is_other = other.pattern().is_none_or(|other| other != text && !other.starts_with(&below));
        prop_assert_eq!(parsed.fits(&other, RuleAction::Allow), !is_other, "{} {:?}", text, other);
    }

    #[test]
    fn no_text_breaks_it_and_what_is_read_reads_again(text in "\\PC{0,30}", command in "\\PC{0,30}") {
        let call = bash(&command);
        if let Ok(pattern) = ToolPattern::parse(&text) {
            prop_assert_eq!(ToolPattern::parse(pattern.as_str()), Ok(pattern.clone()));
            pattern.fits(&call, RuleAction::Deny);
        }
        let parsed = ToolPattern::parse(&format!("Bash({text})"));
        if let Ok(pattern) = parsed {
            // What allows a call denies it too, where the rule says so.
            prop_assert!(!pattern.fits(&call, RuleAction::Allow) || pattern.fits(&call, RuleAction::Deny));
        }
    }

    #[test]
    fn a_prefix_allows_no_line_with_another_command_in_it(
        before in prop::collection::vec(piece(), 0..6),
        separator in prop::sample::select(vec![";", "&&", "||", "|", "\n", "&"]),
    ) {
        // Quotes and comments may make the rest a part of a word; then it runs nothing.
        let head: String = before.concat().chars().filter(|c| !"'\"\\#`$>".contains(*c)).collect();
        let line = format!("ls {head}{separator}rm -rf x");
        prop_assert_eq!(fits("Bash(ls:*)", &bash(&line)), WIDE, "{}", line);
    }

    #[test]
    fn what_a_substitution_runs_is_denied_and_not_allowed(
        before in prop::collection::vec(piece(), 0..6),
        after in prop::collection::vec(piece(), 0..6),
        is_quoted in any::<bool>(),
    ) {
        // Quotes may make it a part of a word, and a parenthesis end the substitution before.
        prop_assume!(!before.concat().contains(['\'', '"', '\\', ')']));
        let quote = if is_quoted { "\"" } else { "" };
        let line = format!("ls {quote}$(ls {}\nrm -rf x\n{}){quote}", before.concat(), after.concat());
        prop_assert_eq!(fits("Bash(ls:*)", &bash(&line)), WIDE, "{}", line);
        prop_assert_eq!(fits("Bash(rm:*)", &bash(&line)), WIDE, "{}", line);
    }
}

#[test]
fn a_decision_is_on_a_call_where_it_is_on_any_part_of_it_and_strictly_so_to_allow_it() {
    use RuleAction::{Allow, Deny};
    let on = |pattern: &str, call: &ToolCall, action| ToolPattern::parse(pattern).unwrap().is_on_part_of(call, action);
    let both = bash("git add . && git push origin main");
    assert!(on("Bash(git push:*)", &both, Allow) && on("Bash", &both, Allow));
    assert!(!on("Bash(git pull:*)", &both, Allow) && !on("Edit(src/**)", &both, Deny));
    // What would be asked about again is no permission; what denies is on the widest reading.
    for (pattern, line) in [("Bash(hg status)", "BAR=1 hg status"), ("Bash(ninja all)", "if true; then ninja all; fi")]
    {
        assert_eq!(
            (on(pattern, &bash(line), Allow), on(pattern, &bash(line), Deny)),
            (false, true),
            "{pattern}: {line}"
        );
    }
    let write = file("Write", "src/a.rs");
    assert!(
        on("Edit(src/**)", &write, Allow) && !on("Edit(docs/**)", &write, Allow) && !on("Read(src/**)", &write, Deny)
    );
    let nowhere = ToolCall { cwd: String::new(), ..file("Write", "/anywhere/a.rs") };
    assert!(on("Edit(src/**)", &nowhere, Allow), "where it is made is not known");
    let fetch = call("WebFetch", json!({"url": "https://b.example/"}));
    assert!(!on("WebFetch(https://a.example/*)", &fetch, Allow));
}
