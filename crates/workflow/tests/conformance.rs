//! Every workflow conformance case through the real runner, with a scripted harness. Deviations are listed here by
//! name, and explained in docs/decisions/0009-reference-deviations.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use runledger_events::Tokens;
use runledger_testkit::{TempLedger, run_workflow_case, shared, tokens_out, workflow_cases};
use serde_json::{Value, json};

/// Where ours differs: the case's expectation, as this project has decided it.
fn deviate(name: &str, expected: &mut Value) {
    let last = |expected: &Value| expected["persisted"].as_array().unwrap().len() - 1;
    match name {
        // An empty reason is no reason.
        "blocked-reason-empty" => {
            let last = last(expected);
            expected["persisted"][last].as_object_mut().unwrap().remove("stopReason");
            expected["result"].as_object_mut().unwrap().remove("stopReason");
        }
        // The tracker's last line decides, whatever stands above it.
        "skeleton-marker-kept" => {
            let last = last(expected);
            for place in ["/result", &format!("/persisted/{last}")] {
                let end = expected.pointer_mut(place).unwrap().as_object_mut().unwrap();
                end.insert("status".to_owned(), json!("completed"));
                end.remove("stopReason");
            }
            expected["log"][last + 1] = json!("persist completed");
        }
        // A turn that breaks off fails the run; it is not left as if it were running.
        "turn-rejects" => {
            let mut end = expected["persisted"][last(expected)].clone();
            end["iteration"] = json!(2);
            end["status"] = json!("failed");
            end["stopReason"] = json!("transport gone");
            expected["persisted"].as_array_mut().unwrap().push(end);
            expected["log"].as_array_mut().unwrap().push(json!("persist failed"));
            expected["rejected"] = Value::Null;
            expected["result"] = json!({"runId": "<run-id>", "status": "failed", "iterations": 2,
                "stopReason": "transport gone", "tokens": tokens_out(Tokens::default())});
        }
        // An exit code of 0 explains no failure.
        "turn-error-empty-message" => {
            let last = last(expected);
            expected["persisted"][last]["stopReason"] = json!("Turn failed");
            expected["result"]["stopReason"] = json!("Turn failed");
        }
        // The prompt is put in as it is: `$&` is no pattern.
        "template-dollar-patterns" => {
            let turn = expected["turns"][0]["prompt"].as_str().unwrap().to_owned();
            assert!(turn.contains("{input}"), "the reference expands the patterns");
            expected["turns"][0]["prompt"] = json!(null);
            expected["trackerAtFirstTurn"]["fields"] = json!(null);
        }
        // Every run has a session, and so a tracker; one that is never touched ends the loop.
        "no-session-id-loop" => {
            let reason = "tracker skeleton was never replaced — Claude did not bootstrap the tracker";
            let path = ".runledger/<session>/tracker.md";
            let snapshot = |iteration: u32, status: &str| {
                json!({"runId": "<run-id>", "sessionId": "", "workflowName": "ship-it", "iteration": iteration,
                    "maxIterations": 2, "status": status, "trackerPath": path})
            };
            let mut end = snapshot(1, "failed");
            end["stopReason"] = json!(reason);
            expected["persisted"] = json!([snapshot(0, "running"), end]);
            expected["turns"] = json!([expected["turns"][0]]);
            expected["iterationsCompleted"] = json!([]);
            expected["log"] = json!(["persist running", "turn 1", "persist failed"]);
            expected["trackerAtFirstTurn"] = json!({"path": path, "preExisting": false,
                "firstLine": "<!-- TRACKER_SKELETON -->",
                "fields": ["**Session**: ", format!("**Tracker**: {path}"), "**Goal**: Build the thing"]});
            expected["result"] = json!({"runId": "<run-id>", "status": "failed", "iterations": 1,
                "stopReason": reason, "tokens": tokens_out(Tokens::default())});
        }
        _ => {}
    }
}

/// What a case comes to, and what is expected of it.
fn run_case(case: &Value) -> (Value, Value) {
    let name = case["name"].as_str().unwrap();
    let input = &case["input"];
    let ledger = TempLedger::new();
    let mut actual = run_workflow_case(case, &ledger);
    let mut expected = case["expected"].clone();
    deviate(name, &mut expected);
    if let Some(tracker) = expected["trackerAtFirstTurn"].as_object_mut() {
        // Length and hash are of the reference's own wording.
        tracker.remove("bytes");
        tracker.remove("sha256");
    }
    if !input["createTrackerFails"].is_null() {
        // There the message is the callback's; here it is the operating system's, behind the file's name.
        assert!(actual["rejected"]["message"].as_str().unwrap().starts_with("tracker "), "{actual}");
        actual["rejected"] = expected["rejected"].clone();
        assert_eq!(ledger.log.reader().unwrap().head().unwrap().position.0, 0, "nothing is stored");
    }
    if name == "template-dollar-patterns" {
        let prompt = input["prompt"].as_str().unwrap();
        let template = input["workflow"]["promptTemplate"].as_str().unwrap();
        assert_eq!(actual["turns"][0]["prompt"], json!(template.replace("{input}", prompt)));
        let fields = actual["trackerAtFirstTurn"]["fields"].to_string();
        assert!(fields.contains("$&"), "the goal is put in as it is: {fields}");
        actual["turns"][0]["prompt"] = Value::Null;
        actual["trackerAtFirstTurn"]["fields"] = Value::Null;
    }
    let verified = ledger.log.reader().unwrap().verify(|_| {}).unwrap();
    assert_eq!(verified.findings, [], "{name}: the log verifies");
    (actual, expected)
}

#[test]
fn every_case_runs_as_the_reference_or_as_documented() {
    let Some(folder) = shared("conformance/workflow") else {
        return;
    };
    let cases = workflow_cases(&folder);
    let mut failed = Vec::new();
    for case in &cases {
        let (actual, expected) = run_case(case);
        for (field, expected) in expected.as_object().unwrap() {
            if actual[field] != *expected {
                failed.push(format!("{}: {field}\n  expected {expected}\n  actual   {}", case["name"], actual[field]));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} cases differ:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
