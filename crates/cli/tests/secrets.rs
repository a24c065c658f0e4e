//! `--redact-secrets` keeps well-known keys out of the ledger, and `export --share` what was said and done.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Room, run, run_with_input};

/// Made up, and put together here, so that no scanner takes this file for one that leaks.
fn token() -> String {
    format!("gh{}_{}", "p", "aB3dE6gH9".repeat(4))
}

fn line(token: &str) -> String {
    format!(
        r#"{{"id":"e1","timestamp":1,"kind":"user.prompt","sessionId":"a","data":{{"prompt":"push with {token}"}}}}"#
    )
}

#[test]
fn ingest_takes_secrets_out_where_it_is_told_to_and_the_same_again_appends_nothing() {
    let token = token();
    let ingest = ["ingest", "--format", "runtime", "--session", "s1", "--redact-secrets"];
    let room = Room::new();
    for _ in 0..2 {
        let ran = run_with_input(&mut room.command(ingest), line(&token));
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let events = room.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"]["data"]["prompt"], "push with [redacted:github_token]");
    // By the environment, for every client that is told of it once.
    let room = Room::new();
    let mut command = room.command(&ingest[..5]);
    let ran = run_with_input(command.env("RUNLEDGER_REDACT_SECRETS", "1"), line(&token));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!room.events()[0].to_string().contains(&token));
    // Without either it is taken as it is.
    let room = Room::new();
    let mut command = room.command(&ingest[..5]);
    let ran = run_with_input(command.env("RUNLEDGER_REDACT_SECRETS", "0"), line(&token));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(room.events()[0].to_string().contains(&token));
}

#[test]
fn a_hook_takes_secrets_out_of_what_it_records_and_of_what_it_can_only_keep_aside() {
    let token = token();
    let room = Room::new();
    let payload = format!(
        r#"{{"session_id":"a","hook_event_name":"PreToolUse","tool_name":"Bash","tool_use_id":"t","tool_input":{{"command":"curl -H {token}"}}}}"#
    );
    for input in [payload, format!("no json, but {token}")] {
        let ran = run_with_input(&mut room.command(["hook", "--redact-secrets"]), input);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let events = room.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].to_string().contains("curl -H [redacted:github_token]"), "{}", events[0]);
    let mut folders = vec![room.ledger().parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let bytes = std::fs::read(&entry).unwrap();
                assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "{}", entry.display());
            }
        }
    }
}

#[test]
fn what_is_exported_to_be_shared_says_nothing_and_verifies_in_another_ledger() {
    let room = Room::new();
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s1"]), line("words"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let shared = room.ok(["export", "--share"]);
    assert!(!shared.contains("words") && shared.contains("user.prompt"), "{shared}");
    let other = Room::new();
    let ran = run_with_input(&mut other.command(["ingest", "--format", "runtime"]), &shared);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    other.verify();
    let digest = |room: &Room| {
        let export = room.ok(["export"]);
        export.lines().next().unwrap().split("\"digest\":").nth(1).unwrap().to_owned()
    };
    assert_eq!(digest(&room), digest(&other));
    assert_eq!(room.ok(["export", "--share", "--with-content"]), room.ok(["export"]));
    assert_eq!(run(&mut room.command(["export", "--with-content"])).code, Some(2));
}
