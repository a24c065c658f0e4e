//! The approver on a ledger whose run asks for three things: one is allowed by the policy, one denied by the person, one
//! left alone.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runledger_events::{AskContext, EventId, RequestId, RequestStatus, RunId, RunState, SessionId};
use runledger_testkit::TempLedger;
use runledger_workflow::{Ask, Commands};
use serde_json::json;

#[test]
fn what_begins_so_is_allowed_and_the_rest_is_asked() {
    let ledger = TempLedger::new();
    let commands = Commands::open(ledger.log.clone()).unwrap();
    let run = "0199aaaa-0000-7000-8000-000000000001";
    let stream = format!("run/{run}");
    let start = json!({"kind": "workflow.start", "data": {"run_id": run, "session_id": "s1", "workflow_name": "tidy",
        "max_iterations": 1}});
    ledger.append(&stream, &start.to_string());
    let ask = |call: &str, command: &str| {
        let id = RequestId::new(format!("a1:{call}")).unwrap();
        let (event, session) = (EventId::new(call).unwrap(), SessionId::new("s1").unwrap());
        let context = AskContext {
            run_id: RunId::new(run).unwrap(),
            workflow_name: Some("tidy".to_owned()),
            state: RunState::Running,
            iteration: 1,
            max_iterations: 1,
        };
        let input = json!({"command": command}).to_string();
        commands.ask(&Ask { context: Some(context), ..Ask::new(id.clone(), event, session, "Bash", input) }).unwrap();
        id
    };
    let tests = ask("toolu_1", "cargo test --workspace");
    let push = ask("toolu_2", "git push");
    let left = ask("toolu_3", "rm -r target");

    let mut approver = Command::new(env!("CARGO_BIN_EXE_runledger-example-approver"))
        .arg(&ledger.path)
        .args(["cargo test", "cargo build"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    approver.stdin.take().unwrap().write_all(b"n not on a Friday\n").unwrap();
    let status = |id: &RequestId| commands.relay_state(id).unwrap().unwrap().status;
    let began = Instant::now();
    while status(&push) == RequestStatus::Pending {
        assert!(began.elapsed() < Duration::from_secs(120), "nobody decided");
        std::thread::sleep(Duration::from_millis(10));
    }
    for json in [
        json!({"kind": "workflow.transition", "data": {"from": "starting", "to": "completing", "status": "running"}}),
        json!({"kind": "workflow.end", "data": {"status": "cancelled", "iteration": 0}}),
    ] {
        ledger.append(&stream, &json.to_string());
    }
    let output = approver.wait_with_output().unwrap();

    assert!(output.status.success());
    assert_eq!(status(&tests), RequestStatus::Allowed);
    assert_eq!(status(&push), RequestStatus::Denied);
    assert_eq!(status(&left), RequestStatus::Pending);
    assert_eq!(commands.relay_settled(&push).unwrap().unwrap().reason.as_deref(), Some("not on a Friday"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("a1:toolu_1: allowed \"cargo test --workspace\""), "{said}");
}
