//! What the first slice promises, line by line, with the real program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use runledger_projections::registered;
use runledger_testkit::{TempLedger, run_workflow_case, shared, workflow_cases};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::Value;

fn runledger(ledger: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runledger"));
    for name in ["RUNLEDGER_SESSION", "RUNLEDGER_RUN_ID", "RUNLEDGER_LOG"] {
        command.env_remove(name);
    }
    command.env("RUNLEDGER_DB", ledger).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn succeed(command: &mut Command) -> Vec<Value> {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    json_lines(&output)
}

fn projections(ledger: &Path) -> PathBuf {
    let status = succeed(runledger(ledger).args(["status", "--json"]));
    PathBuf::from(status[0]["projections_path"].as_str().unwrap())
}

/// Every row of every read model as the views show it, byte for byte and in the order in which they come.
fn rows(projections: &Path) -> String {
    let connection = Connection::open(projections).unwrap();
    let views: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let registered = registered();
    let mut tables: Vec<&str> =
        registered.iter().flat_map(|projection| projection.tables()).map(|table| table.name).collect();
    tables.sort_unstable();
    assert_eq!(views, tables);
    let mut text = String::new();
    for view in views {
        let mut statement = connection.prepare(&format!("SELECT * FROM {view}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            write!(text, "{view}").unwrap();
            for index in 0..columns {
                match row.get_ref(index).unwrap() {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => write!(text, "|{}", bytes.escape_ascii()).unwrap(),
                    other => write!(text, "|{other:?}").unwrap(),
                }
            }
            text.push('\n');
        }
    }
    text
}

/// Throws the read models away, builds them again, and wants the same rows.
fn rebuild_gives_the_same_rows(ledger: &Path, what: &str) -> String {
    succeed(runledger(ledger).args(["runs", "--json"]));
    let file = projections(ledger);
    let before = rows(&file);
    std::fs::remove_file(&file).unwrap();
    let rebuilt = succeed(runledger(ledger).args(["rebuild-projections", "--verify", "--json"]));
    let names: Vec<&str> = rebuilt.iter().map(|line| line["projection"].as_str().unwrap()).collect();
    let registered: Vec<&str> = registered().iter().map(|projection| projection.name()).collect();
    assert_eq!(names, registered, "{what}");
    assert_eq!(rows(&file), before, "{what}");
    // And over rows that are there already: nothing changes.
    for line in succeed(runledger(ledger).args(["rebuild-projections", "--verify", "--json"])) {
        assert_eq!(line["changed"], 0, "{what}: {line}");
    }
    for line in succeed(runledger(ledger).args(["verify", "--json"])) {
        assert_eq!(line["ok"], true, "{what}: {line}");
    }
    before
}

#[test]
fn a_rebuild_from_nothing_gives_the_same_rows_after_every_workflow_case() {
    let Some(folder) = shared("conformance/workflow") else {
        return;
    };
    let together = TempLedger::new();
    for case in workflow_cases(&folder) {
        run_workflow_case(&case, &together);
        let ledger = TempLedger::new();
        run_workflow_case(&case, &ledger);
        rebuild_gives_the_same_rows(&ledger.path, case["name"].as_str().unwrap());
    }
    let rows = rebuild_gives_the_same_rows(&together.path, "all cases in one ledger");
    assert!(rows.lines().filter(|row| row.starts_with("workflow_runs|")).count() >= 50);
}

#[test]
fn a_rebuild_from_nothing_gives_the_same_rows_after_every_feed_input() {
    let Some(folder) = shared("conformance/feed") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let ledger = place.path().join("ledger.db");
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.to_str().unwrap().ends_with(".input.jsonl"));
    inputs.sort();
    assert!(inputs.len() >= 42);
    for input in &inputs {
        let name = input.file_name().unwrap().to_str().unwrap().strip_suffix(".input.jsonl").unwrap();
        let text = std::fs::read_to_string(input).unwrap();
        let is_event = |line: &&str| {
            let line: Value = serde_json::from_str(&line.replace("\\ud83d\"", "\"")).unwrap_or(Value::Null);
            line.get("kind").is_some() || line.get("decision").is_some()
        };
        let lines = text.split('\n').filter(|line| !line.is_empty());
        let (events, others) = (lines.clone().filter(is_event).count(), lines.filter(|line| !is_event(line)).count());

        let ingest = ["ingest", "--format", "runtime", "--session", name, "--json"];
        let output = run(runledger(&ledger).args(ingest).arg(input));
        let report = &json_lines(&output)[0];
        assert_eq!(report["appended"], events, "{name}: {report}");
        assert_eq!(report["rejected"].as_array().unwrap().len(), others, "{name}: {report}");
        assert_eq!(output.status.code(), Some(i32::from(others > 0)), "{name}");
        rebuild_gives_the_same_rows(&ledger, name);

        // The log gives back what came, to the letter.
        let told = run(runledger(&ledger).args(["events", "--json", "--session", name]));
        let told = String::from_utf8(told.stdout).unwrap();
        for (line, event) in text.split('\n').filter(is_event).zip(told.lines()) {
            assert!(event.contains(line), "{name}: {line}");
        }
        // The same file again is the same story.
        let again = run(runledger(&ledger).args(ingest).arg(input));
        assert_eq!(json_lines(&again)[0]["appended"], 0, "{name}");
        assert_eq!(json_lines(&again)[0]["duplicates"], events, "{name}");
    }
}

#[test]
fn two_runs_at_once_and_a_reader_in_a_loop_never_see_an_error_or_a_half_built_model() {
    let place = tempfile::tempdir().unwrap();
    let ledger = place.path().join("ledger.db");
    let workflow = place.path().join("workflow.json");
    std::fs::write(
        &workflow,
        r#"{"name": "steps", "promptTemplate": "{input}", "loop": {"enabled": true, "maxIterations": 40}}"#,
    )
    .unwrap();
    let agent = r#"echo "step $RUNLEDGER_ITERATION" > "$RUNLEDGER_TRACKER"
        [ "$RUNLEDGER_ITERATION" -lt 20 ] || while [ ! -e ../enough-looks ]; do sleep 0.02; done
        [ "$RUNLEDGER_ITERATION" -lt 20 ] || echo '<!-- WORKFLOW_COMPLETE -->' >> "$RUNLEDGER_TRACKER"
        echo "step $RUNLEDGER_ITERATION""#;
    let exec = |name: &str| {
        let project = place.path().join(name);
        std::fs::create_dir(&project).unwrap();
        let mut command = runledger(&ledger);
        command.arg("exec").arg("--workflow").arg(&workflow).arg("--project-dir").arg(&project);
        command.args(["--session", name, "go", "--", "sh", "-c", agent]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut first = exec("one").spawn().unwrap();
    let mut second = exec("two").spawn().unwrap();
    let mut looks: Vec<Vec<Value>> = Vec::new();
    let mut rebuilds = 0;
    while first.try_wait().unwrap().is_none() || second.try_wait().unwrap().is_none() {
        if !ledger.exists() {
            continue;
        }
        let output = run(runledger(&ledger).args(["runs", "--json"]));
        // Until one of the two has made the ledger, there is none.
        if looks.is_empty() && output.status.code() == Some(3) {
            continue;
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.starts_with("no runs")).count(),
            0
        );
        looks.push(json_lines(&output));
        // A rebuild in the middle of it all.
        if looks.len().is_multiple_of(5) {
            succeed(runledger(&ledger).args(["rebuild-projections", "--json"]));
            rebuilds += 1;
        }
        // However fast the two are, their last turns wait until they were looked at often enough.
        if looks.len() == 12 {
            std::fs::write(place.path().join("enough-looks"), "").unwrap();
        }
    }
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(looks.len() >= 12 && rebuilds >= 2, "{} looks, {rebuilds} rebuilds", looks.len());
    // What was there once stays there, and only grows.
    for pair in looks.windows(2) {
        for run in &pair[0] {
            let later = pair[1].iter().find(|later| later["id"] == run["id"]).expect("a run does not vanish");
            assert!(later["iteration"].as_u64() >= run["iteration"].as_u64(), "{run} then {later}");
            assert!(later["last_position"].as_u64() >= run["last_position"].as_u64(), "{run} then {later}");
        }
    }
    let runs = succeed(runledger(&ledger).args(["runs", "--json"]));
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!((run["status"].as_str(), run["iteration"].as_u64()), (Some("completed"), Some(20)), "{run}");
    }
    rebuild_gives_the_same_rows(&ledger, "two runs at once");
}

#[test]
fn a_tail_cut_off_without_a_trace_in_the_log_is_named_by_the_read_models_and_stays_named() {
    let place = tempfile::tempdir().unwrap();
    let ledger = place.path().join("ledger.db");
    let exec = ["exec", "x", "--", "true"];
    assert!(run(runledger(&ledger).args(exec).current_dir(place.path())).status.success());
    succeed(runledger(&ledger).args(["runs", "--json"]));
    let connection = Connection::open(&ledger).unwrap();
    let head: u64 = connection.query_row("SELECT max(position) FROM runtime_events", [], |row| row.get(0)).unwrap();
    let triggers = ["runtime_events_never_deleted", "streams_only_grow"];
    let made = triggers.map(|name| -> String {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
        connection.query_row(sql, [name], |row| row.get(0)).unwrap()
    });
    let cut = "DROP TRIGGER runtime_events_never_deleted; DROP TRIGGER streams_only_grow;
        DELETE FROM runtime_events WHERE position = (SELECT max(position) FROM runtime_events);
        UPDATE streams SET version = version - 1 WHERE name LIKE 'run/%';";
    connection.execute_batch(cut).unwrap();
    connection.execute_batch(&made.join(";")).unwrap();
    drop(connection);
    for _ in 0..2 {
        let output = run(runledger(&ledger).args(["verify", "--json"]));
        assert_eq!(output.status.code(), Some(1));
        let wrong: Vec<Value> = json_lines(&output).into_iter().filter(|line| line["ok"] == false).collect();
        let named = format!("position {head}: ");
        assert!(wrong[0]["detail"].as_str().unwrap().starts_with(&named), "{wrong:?}");
    }
}

#[test]
fn an_edit_of_a_copied_log_is_named_with_its_position() {
    let place = tempfile::tempdir().unwrap();
    let ledger = place.path().join("ledger.db");
    let lines: String = (1..=9)
        .map(|n| format!("{{\"id\":\"e{n}\",\"timestamp\":{n},\"kind\":\"user.prompt\",\"sessionId\":\"s\",\"data\":{{\"prompt\":\"{n}\"}}}}\n"))
        .collect();
    let input = place.path().join("input.jsonl");
    std::fs::write(&input, lines).unwrap();
    succeed(runledger(&ledger).args(["ingest", "--format", "runtime", "--json"]).arg(&input));

    let edits = [
        ("UPDATE runtime_events SET kind = 'session.end' WHERE position = 5", 5),
        (
            "UPDATE runtime_events SET content = (SELECT content FROM runtime_events WHERE position = 2) WHERE position = 7",
            7,
        ),
        ("UPDATE runtime_events SET occurred_at = 0 WHERE position = 1", 1),
        ("DELETE FROM runtime_events WHERE position = 4", 4),
        ("DELETE FROM runtime_events WHERE position = 9", 10 - 1),
    ];
    for (index, (edit, position)) in edits.into_iter().enumerate() {
        let copy = place.path().join(format!("copy-{index}.db"));
        for suffix in ["", "-wal"] {
            let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            if name(&ledger).exists() {
                std::fs::copy(name(&ledger), name(&copy)).unwrap();
            }
        }
        let connection = Connection::open(&copy).unwrap();
        let triggers: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let made: Vec<String> = triggers
            .iter()
            .map(|name| {
                connection.query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).unwrap()
            })
            .collect();
        for name in &triggers {
            connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        connection.execute_batch(edit).unwrap();
        // Somebody who hides it puts the triggers back.
        for sql in made {
            connection.execute_batch(&sql).unwrap();
        }
        drop(connection);
        let output = run(runledger(&copy).args(["verify", "--json"]));
        assert_eq!(output.status.code(), Some(1), "{edit}");
        let wrong: Vec<Value> = json_lines(&output).into_iter().filter(|line| line["ok"] == false).collect();
        let named = format!("position {position}: ");
        assert!(wrong[0]["detail"].as_str().unwrap().starts_with(&named), "{edit}: {wrong:?}");
    }
    for line in succeed(runledger(&ledger).args(["verify", "--json"])) {
        assert_eq!(line["ok"], true, "the original is as it was: {line}");
    }
}
