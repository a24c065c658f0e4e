//! The workflow conformance cases, played through the real runner.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runledger_events::{
    Continuation, KindFacts, LogId, Position, RecordedEvent, RunState, StreamName, StreamVersion, Tokens,
    WorkflowIteration, WorkflowState,
};
use runledger_store::{AppendError, EventFilter, ExpectedVersion, NewEvent, ReadError, Receipt, StorageError};
use runledger_workflow::{
    CancelHandle, HarnessError, Journal, LedgerJournal, RunError, RunSpec, Runner, Stop, TransportCheck, Turn,
    TurnResult, WorkflowConfig,
};
use serde_json::{Value, json};

use crate::{ScriptedHarness, TempLedger};

/// What is told of a run, in the words of the cases.
#[derive(Default)]
struct Told {
    log: Vec<String>,
    persisted: Vec<Value>,
    turns: Vec<Value>,
    iterations_completed: Vec<Value>,
    aborts: u64,
    tracker_at_first_turn: Value,
    run_id: String,
    session_id: String,
    appends: u64,
}

type SharedTold = Arc<Mutex<Told>>;

/// A journal that notes what the reference's callbacks would have been given, and fails where a case says so.
struct NotingJournal {
    inner: LedgerJournal,
    fails: Vec<u64>,
    turns: Vec<Value>,
    told: SharedTold,
    cancel: CancelHandle,
}

impl Journal for NotingJournal {
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, AppendError> {
        {
            let mut told = self.told.lock().unwrap();
            told.appends += 1;
            if self.fails.contains(&told.appends) {
                let path = PathBuf::from("ledger.db");
                return Err(AppendError::Storage(StorageError::Full { path, doing: "appending" }));
            }
        }
        let receipts = self.inner.append(stream, expected, events)?;
        if stream.run_id().is_some() {
            self.note(stream);
        }
        Ok(receipts)
    }

    fn read_stream(&self, stream: &StreamName, after: StreamVersion) -> Result<Vec<RecordedEvent>, ReadError> {
        self.inner.read_stream(stream, after)
    }

    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, ReadError> {
        self.inner.read(filter, after)
    }

    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, StorageError> {
        self.inner.stream_version(stream)
    }

    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }
}

impl NotingJournal {
    /// The reference persists at the start, after each iteration, and at the end: so do these events.
    fn note(&self, stream: &StreamName) {
        let events = self.inner.read_stream(stream, StreamVersion::EMPTY).unwrap();
        let (state, illegal) = WorkflowState::fold(&events).unwrap();
        assert_eq!(illegal, [], "the runner writes what the fold takes");
        let is_iteration_end =
            matches!(events.last().unwrap().facts.data, KindFacts::WorkflowIteration(WorkflowIteration::End(_)));
        if events.len() > 1 && !is_iteration_end && state.state != RunState::Done {
            return;
        }
        let mut told = self.told.lock().unwrap();
        told.run_id = state.run_id.to_string();
        told.session_id = state.session_id.to_string();
        let snapshot = snapshot(&state);
        told.persisted.push(snapshot.clone());
        told.log.push(format!("persist {}", state.status));
        if is_iteration_end {
            told.iterations_completed.push(snapshot);
            told.log.push("iterationComplete".to_owned());
            let turn = &self.turns[state.iteration as usize - 1];
            drop(told);
            ask(&self.cancel, &turn["afterIteration"], &self.told);
        }
    }
}

/// Cancels or kills, as the case says. The reference's kill calls back to abort the harness; ours is seen by the harness
/// at its desk, which `play` checks.
fn ask(cancel: &CancelHandle, what: &Value, told: &SharedTold) {
    match what.as_str() {
        Some("cancel") => cancel.cancel(),
        Some("kill") => {
            cancel.kill();
            let mut told = told.lock().unwrap();
            told.aborts += 1;
            told.log.push("abort".to_owned());
        }
        _ => {}
    }
}

fn snapshot(state: &WorkflowState) -> Value {
    let mut object = json!({
        "runId": state.run_id, "sessionId": state.session_id, "iteration": state.iteration,
        "maxIterations": state.max_iterations, "status": state.status,
    });
    let optional = [
        ("workflowName", &state.workflow_name),
        ("stopReason", &state.stop_reason),
        ("trackerPath", &state.tracker_path),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            object[name] = json!(value);
        }
    }
    object
}

fn tokens_in(value: &Value) -> Tokens {
    let figure = |name: &str| value[name].as_u64();
    Tokens {
        input: figure("input"),
        output: figure("output"),
        cache_read: figure("cacheRead"),
        cache_write: figure("cacheWrite"),
        total: figure("total"),
        context_size: figure("contextSize"),
        context_window_size: figure("contextWindowSize"),
    }
}

/// Token figures in the words of the cases.
pub fn tokens_out(tokens: Tokens) -> Value {
    json!({
        "input": tokens.input, "output": tokens.output, "cacheRead": tokens.cache_read,
        "cacheWrite": tokens.cache_write, "total": tokens.total, "contextSize": tokens.context_size,
        "contextWindowSize": tokens.context_window_size,
    })
}

fn write_files(project: &Path, files: &Value) {
    for (path, content) in files.as_object().into_iter().flatten() {
        let path = project.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content {
            Value::Null => std::fs::remove_file(&path).unwrap(),
            Value::String(text) => std::fs::write(&path, text).unwrap(),
            other => panic!("no case writes {other}"),
        }
    }
}

/// One turn of the script.
fn play(
    input: &Value,
    project: &Path,
    turn: &Turn,
    desk: &mut dyn runledger_workflow::TurnDesk,
    told: &SharedTold,
    cancel: &CancelHandle,
) -> Result<TurnResult, HarnessError> {
    let script = &input["turns"][turn.iteration as usize - 1];
    {
        let mut told = told.lock().unwrap();
        if turn.iteration == 1 {
            told.tracker_at_first_turn = tracker_at_first_turn(input, project, turn);
        }
        told.turns.push(asked(turn));
        told.log.push(format!("turn {}", turn.iteration));
    }
    ask(cancel, &script["during"], told);
    let heard = match script["during"].as_str() {
        Some("kill") => Err(Stop::Now),
        Some("cancel") => Err(Stop::Cancelled),
        _ => Ok(()),
    };
    assert_eq!(desk.check(), heard, "the harness hears what was asked");
    write_files(project, &script["files"]);
    if let Some(message) = script["rejects"]["message"].as_str() {
        return Err(HarnessError::Turn(message.to_owned()));
    }
    let result = &script["result"];
    let transport = &result["diagnostics"]["transport"];
    Ok(TurnResult {
        exit_code: result["exitCode"].as_i64().map(|code| i32::try_from(code).unwrap()),
        error: result["error"]["message"].as_str().map(str::to_owned),
        last_stderr: result["lastStderr"].as_str().map(str::to_owned),
        tokens: tokens_in(&result["tokens"]),
        transport: transport["streamToolUses"].as_u64().map(|stream_tool_uses| TransportCheck {
            stream_tool_uses,
            pre_tool_use_events: transport["preToolUseEvents"].as_u64().unwrap(),
        }),
        deferred_tool_use_id: None,
    })
}

fn asked(turn: &Turn) -> Value {
    let continuation = match &turn.continuation {
        Continuation::Fresh => json!({"mode": "fresh"}),
        Continuation::Resume { handle } => json!({"mode": "resume", "handle": handle}),
        Continuation::ReuseCurrent => json!({"mode": "reuse-current"}),
    };
    let mut asked = json!({"prompt": turn.prompt, "continuation": continuation});
    if let Some(instructions) = &turn.instructions {
        let own =
            instructions.text.split_once("another turn follows.").map_or(instructions.text.as_str(), |(_, own)| own);
        let is_behind_protocol = own.len() < instructions.text.len();
        asked["configOverride"] = json!({
            "appendSystemPromptFile": instructions.file,
            "developerInstructions": format!("{}{own}", if is_behind_protocol { "{protocol}" } else { "" }),
            "fileMatchesInstructions": std::fs::read_to_string(&instructions.file).unwrap() == instructions.text,
        });
    }
    asked
}

/// The tracker when the first turn begins, without what only the reference's own wording can match.
fn tracker_at_first_turn(input: &Value, project: &Path, turn: &Turn) -> Value {
    let Some(path) = turn.env.get("RUNLEDGER_TRACKER").map(PathBuf::from) else {
        return Value::Null;
    };
    let relative = path.strip_prefix(project.canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
    let text = std::fs::read_to_string(&path).unwrap();
    if let Some(before) = input["files"][&relative].as_str() {
        return json!({"path": relative, "preExisting": true, "unchanged": text == before});
    }
    let is_field = |line: &&str| line.starts_with("**") && line.contains("**: ");
    let fields: Vec<&str> = text.lines().filter(is_field).collect();
    json!({"path": relative, "preExisting": false, "firstLine": text.lines().next(), "fields": fields})
}

/// All workflow cases, ours in the place of the reference's folder name.
pub fn workflow_cases(folder: &Path) -> Vec<Value> {
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let index: Vec<Value> = serde_json::from_str(&index).unwrap();
    assert!(index.len() >= 50, "all cases are there");
    index
        .iter()
        .map(|entry| {
            let file = folder.join(format!("{}.json", entry["name"].as_str().unwrap()));
            let text = std::fs::read_to_string(file).unwrap();
            serde_json::from_str(&text.replace(".athena", ".runledger")).unwrap()
        })
        .collect()
}

/// Runs a case through the real runner, with a scripted harness, into `ledger`; tells what happened in the words of the
/// case's `expected`.
pub fn run_workflow_case(case: &Value, ledger: &TempLedger) -> Value {
    let name = case["name"].as_str().unwrap();
    let input = case["input"].clone();
    let project = tempfile::tempdir().unwrap();
    let project_dir = project.path().canonicalize().unwrap();
    write_files(&project_dir, &input["files"]);
    if !input["createTrackerFails"].is_null() {
        // A file where the tracker's folder has to be.
        std::fs::write(project_dir.join(".runledger"), "in the way").unwrap();
    }

    let told = SharedTold::default();
    let session = input["sessionId"].as_str().unwrap();
    let continuation = match input["initialContinuation"]["mode"].as_str() {
        Some("resume") => {
            Continuation::Resume { handle: input["initialContinuation"]["handle"].as_str().unwrap().to_owned() }
        }
        Some("reuse-current") => Continuation::ReuseCurrent,
        _ => Continuation::Fresh,
    };
    let workflow =
        (!input["workflow"].is_null()).then(|| WorkflowConfig::parse(&input["workflow"].to_string()).unwrap());
    let spec = RunSpec {
        workflow,
        session_id: (!session.is_empty()).then(|| session.parse().unwrap()),
        continuation,
        ..RunSpec::new(input["prompt"].as_str().unwrap(), &project_dir)
    };
    let cancel_of_harness = Arc::new(Mutex::new(None::<CancelHandle>));
    let harness = {
        let (input, project, told, cancel) =
            (input.clone(), project_dir.clone(), told.clone(), cancel_of_harness.clone());
        ScriptedHarness(Box::new(move |turn, desk| {
            let cancel = cancel.lock().unwrap().clone().unwrap();
            play(&input, &project, turn, desk, &told, &cancel)
        }))
    };
    let runner = Runner::new(Box::new(harness), spec).unwrap();
    let cancel = runner.cancel_handle();
    *cancel_of_harness.lock().unwrap() = Some(cancel.clone());
    ask(&cancel, &input["beforeStart"], &told);
    let journal = NotingJournal {
        inner: LedgerJournal::open(ledger.log.clone()).unwrap(),
        fails: input["persistFails"].as_array().unwrap().iter().map(|call| call.as_u64().unwrap()).collect(),
        turns: input["turns"].as_array().unwrap().clone(),
        told: told.clone(),
        cancel,
    };
    let result = runner.run(Box::new(journal));

    let told = Arc::into_inner(told).map(|told| told.into_inner().unwrap());
    let told = told.unwrap_or_else(|| panic!("{name}: somebody still tells"));
    let (result, rejected) = match result {
        Ok(outcome) => {
            let state = outcome.state;
            let mut result = json!({"runId": state.run_id, "status": state.status, "iterations": state.iteration,
                "tokens": tokens_out(state.tokens)});
            if let Some(reason) = &state.stop_reason {
                result["stopReason"] = json!(reason);
            }
            (result, Value::Null)
        }
        Err(RunError::Config(error)) => (Value::Null, json!({"message": error.to_string()})),
        Err(error) => panic!("{name}: {error}"),
    };
    let actual = json!({
        "trackerAtFirstTurn": told.tracker_at_first_turn, "persisted": told.persisted, "turns": told.turns,
        "iterationsCompleted": told.iterations_completed, "aborts": told.aborts, "log": told.log, "result": result,
        "rejected": rejected,
    });
    // The cases' placeholders.
    let mut text = actual.to_string();
    if !told.run_id.is_empty() {
        text = text.replace(&told.run_id, "<run-id>");
    }
    if session.is_empty() {
        // Ours gives the run a session where the reference has an empty one.
        text = text.replace(&format!(".runledger/{}", told.session_id), ".runledger/<session>");
        text = text.replace(&told.session_id, "");
    }
    text = text.replace(project_dir.to_str().unwrap(), "{projectDir}");
    serde_json::from_str(&text).unwrap()
}
