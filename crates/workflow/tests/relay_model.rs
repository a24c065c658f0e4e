//! Any order of questions, decisions, withdrawals, strangers' words and passing time: the real log against a naive
//! model.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod relay_support;

use std::cell::Cell;

use proptest::prelude::*;
use relay_support::{Place, ask};
use runledger_events::{ProcessId, RelayState, RequestStatus, StreamName};
use runledger_workflow::{Ask, AskError, DecideError, RelayVerdict, WithdrawError, Withdrawer, current_process};

const TIMEOUT_MS: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The same question, or another one under its name.
    Ask {
        is_the_same: bool,
    },
    Decide {
        is_allowed: bool,
    },
    Withdraw {
        is_owner: bool,
    },
    Expire,
    Pass(i64),
    /// Past the commands, straight into the stream: a decision (yes, no, or of an intent that decides nothing).
    Stray(Option<bool>),
    StrayWithdrawal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::bool::weighted(0.8).prop_map(|is_the_same| Step::Ask { is_the_same }),
        3 => any::<bool>().prop_map(|is_allowed| Step::Decide { is_allowed }),
        1 => any::<bool>().prop_map(|is_owner| Step::Withdraw { is_owner }),
        1 => Just(Step::Expire),
        2 => (0..80_i64).prop_map(Step::Pass),
        1 => any::<Option<bool>>().prop_map(Step::Stray),
        1 => Just(Step::StrayWithdrawal),
    ]
}

/// A question as a list of what counted, without versions, folds or appends.
#[derive(Debug, Default)]
struct Model {
    /// Until when it can be answered, once it was put.
    due_at: Option<i64>,
    status: Option<RequestStatus>,
    /// Events in its stream.
    events: u64,
}

impl Model {
    fn is_pending(&self) -> bool {
        self.status == Some(RequestStatus::Pending)
    }

    fn is_overdue(&self, now: i64) -> bool {
        self.is_pending() && self.due_at.is_some_and(|due_at| due_at <= now)
    }

    fn expire(&mut self) {
        self.status = Some(RequestStatus::Expired);
        self.events += 1;
    }

    /// Somebody's words in the stream: they count like anybody's while nothing has.
    fn stray(&mut self, status: Option<RequestStatus>) {
        self.events += 1;
        if self.is_pending() {
            self.status = status.or(self.status);
        }
    }
}

fn of(is_allowed: bool) -> RequestStatus {
    if is_allowed { RequestStatus::Allowed } else { RequestStatus::Denied }
}

/// Does a step to both, and says what does not agree.
fn take(place: &Place, ask: &Ask, step: Step, model: &mut Model) {
    let id = &ask.request_id;
    let stream = StreamName::request(id);
    match step {
        Step::Ask { is_the_same } => {
            let other = Ask { tool_name: "Read".to_owned(), ..ask.clone() };
            let asked = place.commands.ask(if is_the_same { ask } else { &other });
            match (model.status, is_the_same) {
                (None, _) if !is_the_same => {
                    // Which of the two comes first does not matter to the model; the test's own is put first.
                    unreachable!("the first step puts the question");
                }
                (None, _) => {
                    assert!(asked.unwrap().is_new);
                    model.status = Some(RequestStatus::Pending);
                    model.due_at = Some(place.now() + i64::try_from(TIMEOUT_MS).unwrap());
                    model.events = 1;
                }
                (Some(status), true) => {
                    let asked = asked.unwrap();
                    assert_eq!((asked.is_new, asked.state.status), (false, status));
                }
                (Some(_), false) => assert!(matches!(asked, Err(AskError::Different { .. }))),
            }
        }
        Step::Decide { is_allowed } => {
            let verdict = if is_allowed { RelayVerdict::allow() } else { RelayVerdict::deny("no") };
            let decided = place.commands.decide(id, &verdict);
            if model.is_overdue(place.now()) {
                model.expire();
            }
            match model.status {
                None => assert!(matches!(decided, Err(DecideError::Unknown { .. }))),
                Some(RequestStatus::Pending) => {
                    model.status = Some(of(is_allowed));
                    model.events += 1;
                    assert_eq!(Some(decided.unwrap().state.status), model.status);
                }
                Some(RequestStatus::Expired) => {
                    model.events += 1;
                    assert!(matches!(decided, Err(DecideError::Expired { .. })));
                }
                Some(RequestStatus::Withdrawn) => assert!(matches!(decided, Err(DecideError::Withdrawn { .. }))),
                Some(_) => assert!(matches!(decided, Err(DecideError::AlreadyDecided { .. }))),
            }
        }
        Step::Withdraw { is_owner } => {
            let other = ProcessId { pid: 1, ..current_process() };
            let by = Withdrawer::Process(if is_owner { current_process() } else { other });
            let withdrawn = place.commands.withdraw(id, "over", &by);
            match model.status {
                None => assert!(matches!(withdrawn, Err(WithdrawError::Unknown { .. }))),
                Some(RequestStatus::Pending) if is_owner => {
                    model.status = Some(RequestStatus::Withdrawn);
                    model.events += 1;
                    assert_eq!(withdrawn.unwrap().status, RequestStatus::Withdrawn);
                }
                Some(RequestStatus::Pending) => assert!(matches!(withdrawn, Err(WithdrawError::NotYours { .. }))),
                Some(_) => assert!(matches!(withdrawn, Err(WithdrawError::Settled { .. }))),
            }
        }
        Step::Expire => {
            let state = place.commands.expire(id).ok();
            if model.is_overdue(place.now()) {
                model.expire();
            }
            assert_eq!(state.map(|state| state.status), model.status);
        }
        Step::Pass(ms) => place.pass(ms),
        Step::Stray(_) | Step::StrayWithdrawal if model.status.is_none() => {}
        Step::Stray(decision) => {
            let intent = match decision {
                Some(true) => "permission_allow",
                Some(false) => "permission_deny",
                None => "workflow_pause",
            };
            let json = serde_json::json!({"kind": "decision", "data": {"eventId": "x",
                "decision": {"type": "json", "intent": {"kind": intent}}}});
            place.ledger.append(stream.as_str(), &json.to_string());
            model.stray(decision.map(of));
        }
        Step::StrayWithdrawal => {
            let json = serde_json::json!({"kind": "relay.withdrawn", "data": {"request_id": id}});
            place.ledger.append(stream.as_str(), &json.to_string());
            model.stray(Some(RequestStatus::Withdrawn));
        }
    }
}

#[test]
fn the_log_agrees_with_a_naive_model_whatever_is_asked_decided_withdrawn_or_too_late() {
    let place = Place::new();
    let case = Cell::new(0);
    let steps = (prop::collection::vec(step(), 0..4), prop::collection::vec(step(), 0..12));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(96));
    let checked = runner.run(&steps, |(before, after)| {
        // Each case has a question of its own in the one ledger.
        case.set(case.get() + 1);
        let ask = Ask { timeout_ms: Some(TIMEOUT_MS), ..ask(&format!("call-{}", case.get())) };
        let mut model = Model::default();
        let before = before.into_iter().filter(|step| !matches!(step, Step::Ask { .. }));
        for step in before.chain([Step::Ask { is_the_same: true }]).chain(after) {
            take(&place, &ask, step, &mut model);
            let events = place.request(&ask.request_id);
            let state = RelayState::fold(&events);
            assert_eq!(events.len() as u64, model.events, "after {step:?}");
            assert_eq!(state.as_ref().map(|state| state.status), model.status, "after {step:?}");
            assert_eq!(place.commands.relay_state(&ask.request_id).unwrap(), state);
            let settled = place.commands.relay_settled(&ask.request_id).unwrap();
            assert_eq!(
                settled.map(|settled| settled.status),
                model.status.filter(|status| *status != RequestStatus::Pending)
            );
        }
        Ok(())
    });
    checked.unwrap();
}
