//! Questions put to channels and to the log: the first verdict wins, the others are told once, and a wait outlives
//! whoever waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test may fail loudly")]

mod relay_support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use relay_support::{PATIENCE, Place, ask, ask_user, run_id, wait_until};
use runledger_events::{CommandChannelConfig, OnTimeout, RequestStatus, StreamName};
use runledger_testkit::open_log;
use runledger_workflow::{
    Channel, ChannelRequest, CommandChannel, Commands, RelayAnswer, RelayCoordinator, RelayOutcome, RelayVerdict,
    Settled, StopToken, TerminalChannel, VerdictSource, Withdrawer, current_process,
};

const CHILD: &str = "RUNLEDGER_RELAY_CHILD";
const CHILD_TEST: &str = "as_a_child_it_waits_for_a_question";

/// A channel that says what it is told to say, or waits until it is told to stop; it counts both.
struct Scripted {
    name: &'static str,
    verdict: Option<RelayVerdict>,
    /// Where it is silent: whether it gives up at once.
    gives_up: bool,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    told: AtomicUsize,
}

impl Counts {
    fn get(&self) -> (usize, usize) {
        (self.asked.load(Ordering::SeqCst), self.told.load(Ordering::SeqCst))
    }
}

fn scripted(name: &'static str, verdict: Option<RelayVerdict>) -> (Scripted, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (Scripted { name, verdict, gives_up: false, counts: counts.clone() }, counts)
}

impl Counts {
    /// Waits until it was asked, and told, so often; neither comes later, since it asks no more.
    fn come_to(&self, asked_and_told: (usize, usize)) {
        wait_until("the channels' end", || self.get().1 >= asked_and_told.1);
        assert_eq!(self.get(), asked_and_told);
    }
}

impl Channel for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn ask(&self, _: &ChannelRequest, stop: &StopToken) -> Option<RelayVerdict> {
        self.counts.asked.fetch_add(1, Ordering::SeqCst);
        if self.gives_up || self.verdict.is_some() {
            return self.verdict.clone();
        }
        assert!(stop.wait(PATIENCE), "nobody told {} to stop", self.name);
        self.counts.told.fetch_add(1, Ordering::SeqCst);
        None
    }
}

fn by(name: &str, verdict: RelayVerdict) -> RelayVerdict {
    RelayVerdict { source: VerdictSource::Channel, by: Some(name.to_owned()), ..verdict }
}

fn decided(outcome: &RelayOutcome) -> &Settled {
    match outcome {
        RelayOutcome::Decided(settled) => settled,
        other => panic!("{other:?}"),
    }
}

/// A wait that is never broken off.
fn relay(coordinator: &RelayCoordinator, ask: &runledger_workflow::Ask) -> RelayOutcome {
    let relayed = coordinator.relay(ask, || false).unwrap();
    relayed.outcome.clone()
}

#[test]
fn the_first_verdict_wins_and_each_other_channel_is_told_once() {
    let place = Place::new();
    let (quick, quick_counts) = scripted("quick", Some(by("quick", RelayVerdict::deny("too soon"))));
    let (first, first_counts) = scripted("first", None);
    let (second, second_counts) = scripted("second", None);
    let coordinator =
        RelayCoordinator::new(place.others()).with_channel(first).with_channel(quick).with_channel(second);

    let outcome = relay(&coordinator, &ask("toolu_1"));

    let settled = decided(&outcome);
    assert_eq!((settled.by.as_deref(), settled.source.as_deref()), (Some("quick"), Some("channel")));
    assert_eq!((settled.is_allowed(), settled.reason.as_deref()), (Some(false), Some("too soon")));
    quick_counts.come_to((1, 0));
    first_counts.come_to((1, 1));
    second_counts.come_to((1, 1));
}

#[test]
fn channels_that_answer_at_the_same_instant_leave_one_decision() {
    let place = Place::new();
    for round in 0..30 {
        let barrier = Arc::new(Barrier::new(3));
        let mut coordinator = RelayCoordinator::new(place.others());
        for name in ["one", "two", "three"] {
            coordinator = coordinator.with_channel(AtOnce { name, barrier: barrier.clone() });
        }
        let ask = ask(&format!("toolu_{round}"));
        let outcome = relay(&coordinator, &ask);
        assert!(["one", "two", "three"].contains(&decided(&outcome).by.as_deref().unwrap()));
        assert_eq!(place.request(&ask.request_id).len(), 2);
    }
}

struct AtOnce {
    name: &'static str,
    barrier: Arc<Barrier>,
}

impl Channel for AtOnce {
    fn name(&self) -> &str {
        self.name
    }

    fn ask(&self, _: &ChannelRequest, _: &StopToken) -> Option<RelayVerdict> {
        self.barrier.wait();
        Some(by(self.name, RelayVerdict::allow()))
    }
}

#[test]
fn a_decision_through_the_log_ends_the_wait_and_tells_every_channel_once() {
    let place = Place::new();
    let (silent, counts) = scripted("silent", None);
    let coordinator = RelayCoordinator::new(place.others()).with_channel(silent);
    let others = place.others();
    let id = ask("toolu_1").request_id;
    let seen = counts.clone();
    let decides = std::thread::spawn(move || {
        wait_until("the channel", || seen.get().0 == 1);
        others.decide(&id, &RelayVerdict { by: Some("ada@host".to_owned()), ..RelayVerdict::allow() }).unwrap()
    });

    let outcome = relay(&coordinator, &ask("toolu_1"));

    assert_eq!(decided(&outcome), &decides.join().unwrap().settled);
    counts.come_to((1, 1));
}

#[test]
fn without_anybody_to_ask_there_is_no_relay_and_nothing_is_appended() {
    let place = Place::new();
    let coordinator = RelayCoordinator::new(place.others()).without_log();

    assert_eq!(relay(&coordinator, &ask("toolu_1")), RelayOutcome::NoRelay);
    assert_eq!(place.head().0, 0);
}

#[test]
fn where_channels_are_all_there_is_and_none_answers_there_is_no_relay() {
    let place = Place::new();
    let (silent, counts) = scripted("silent", None);
    let coordinator =
        RelayCoordinator::new(place.others()).without_log().with_channel(Scripted { gives_up: true, ..silent });

    assert_eq!(relay(&coordinator, &ask("toolu_1")), RelayOutcome::NoRelay);
    counts.come_to((1, 0));
    let state = place.commands.relay_state(&ask("toolu_1").request_id).unwrap().unwrap();
    assert_eq!(state.status, RequestStatus::Withdrawn);
}

#[test]
fn a_channel_that_gives_up_or_says_what_does_not_fit_leaves_the_question_to_the_others() {
    let place = Place::new();
    let (silent, _) = scripted("silent", None);
    let answers = RelayVerdict::new(RelayAnswer::Answers([("a".to_owned(), "b".to_owned())].into()));
    let (unfit, counts) = scripted("unfit", Some(by("unfit", answers)));
    let coordinator =
        RelayCoordinator::new(place.others()).with_channel(Scripted { gives_up: true, ..silent }).with_channel(unfit);
    let others = place.others();
    let id = ask("toolu_1").request_id;
    let decides = std::thread::spawn(move || {
        wait_until("the unfit channel", || counts.get().0 == 1);
        others.decide(&id, &RelayVerdict::allow()).unwrap();
    });

    assert_eq!(decided(&relay(&coordinator, &ask("toolu_1"))).source.as_deref(), Some("user"));
    decides.join().unwrap();
}

#[test]
fn a_wait_ends_when_the_time_is_up_when_it_is_withdrawn_and_when_nobody_wants_it() {
    let place = Place::new();
    let (silent, counts) = scripted("silent", None);
    let coordinator = RelayCoordinator::new(place.others()).with_channel(silent);

    let unwanted = coordinator.relay(&ask("toolu_1"), || true).unwrap();
    assert_eq!(unwanted.outcome, RelayOutcome::Stopped);
    drop(unwanted);
    counts.come_to((1, 1));
    let state = place.commands.relay_state(&ask("toolu_1").request_id).unwrap().unwrap();
    assert_eq!(state.status, RequestStatus::Pending);

    let withdrawn = coordinator.relay(&ask("toolu_1"), || {
        let by = Withdrawer::Process(current_process());
        // Only the first of them does.
        let _ = place.commands.withdraw(&ask("toolu_1").request_id, "the harness ended", &by);
        false
    });
    let RelayOutcome::Withdrawn(settled) = withdrawn.unwrap().outcome.clone() else { panic!() };
    assert_eq!(settled.reason.as_deref(), Some("the harness ended"));
    counts.come_to((2, 2));

    let late = runledger_workflow::Ask { on_timeout: OnTimeout::Allow, ..ask("toolu_2") };
    let expired = coordinator.relay(&late, || {
        place.pass(60_000);
        false
    });
    let RelayOutcome::Expired { on_timeout, settled } = expired.unwrap().outcome.clone() else { panic!() };
    assert_eq!((on_timeout, settled.is_allowed()), (OnTimeout::Allow, Some(true)));
    counts.come_to((3, 3));
}

#[test]
fn who_asks_again_what_was_decided_meanwhile_gets_the_answer_and_no_channel_is_asked() {
    let place = Place::new();
    place.commands.ask(&ask("toolu_1")).unwrap();
    place.commands.decide(&ask("toolu_1").request_id, &RelayVerdict::allow()).unwrap();
    let (silent, counts) = scripted("silent", None);
    let coordinator = RelayCoordinator::new(place.others()).with_channel(silent);

    assert_eq!(decided(&relay(&coordinator, &ask("toolu_1"))).status, RequestStatus::Allowed);
    counts.come_to((0, 0));
}

/// Does nothing unless it is run as the child: `RUNLEDGER_RELAY_CHILD` holds the ledger's place.
#[test]
fn as_a_child_it_waits_for_a_question() {
    let Ok(ledger) = std::env::var(CHILD) else {
        return;
    };
    let commands = Commands::open(open_log(&ledger)).unwrap();
    let asked = commands.ask(&ask("toolu_1")).unwrap();
    println!("\nwaits, {}", if asked.is_new { "new" } else { "attached" });
    let relayed = RelayCoordinator::new(commands).wait(&ask("toolu_1").request_id, || false).unwrap();
    println!("\noutcome {:?} by {:?}", relayed.outcome, decided(&relayed.outcome).by);
}

fn child(ledger: &str) -> (Child, impl FnMut(&str) -> String + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD_TEST, "--nocapture"])
        .env(CHILD, ledger)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let next = move |beginning: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(beginning));
        line.unwrap_or_else(|| panic!("no line {beginning}"))
    };
    (child, next)
}

#[test]
fn a_question_outlives_kill_9_of_the_process_that_waits_and_the_next_one_attaches() {
    let place = Place::new();
    let id = ask("toolu_1").request_id;
    let (mut first, mut line_of_first) = child(&place.ledger.place());
    assert_eq!(line_of_first("waits"), "waits, new");
    first.kill().unwrap();
    first.wait().unwrap();

    let (mut second, mut line_of_second) = child(&place.ledger.place());
    assert_eq!(line_of_second("waits"), "waits, attached");
    let commands = Commands::open(place.ledger.log.clone()).unwrap();
    commands.decide(&id, &RelayVerdict { by: Some("ada@host".to_owned()), ..RelayVerdict::allow() }).unwrap();

    assert!(line_of_second("outcome").contains("ada@host"));
    assert!(second.wait().unwrap().success());
    assert_eq!(place.request(&id).len(), 2);
}

/// How a program is asked, in a folder of its own.
fn command(script: &str) -> (CommandChannel, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let config = CommandChannelConfig { name: Some("robot".to_owned()), command };
    (CommandChannel::new(&config, folder.path()).unwrap(), folder)
}

#[test]
fn a_program_gets_the_request_as_json_and_its_verdict_counts() {
    let place = Place::new();
    let script = r#"cat > request.json; echo '{"decision":"deny","reason":"ask me in person"}'"#;
    let (channel, folder) = command(script);
    let coordinator = RelayCoordinator::new(place.others()).without_log().with_channel(channel);

    let outcome = relay(&coordinator, &ask("toolu_1"));

    let settled = decided(&outcome);
    assert_eq!((settled.by.as_deref(), settled.source.as_deref()), (Some("robot"), Some("channel")));
    assert_eq!(settled.reason.as_deref(), Some("ask me in person"));
    let text = std::fs::read_to_string(folder.path().join("request.json")).unwrap();
    assert_eq!(text.lines().count(), 1);
    let request: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(request["request_id"], "a1:toolu_1");
    assert_eq!(request["tool_name"], "Bash");
    assert_eq!(request["tool_input"]["command"], "git push toolu_1");
    assert_eq!(request["context"]["workflow_name"], "tidy");
    assert_eq!(request["context"]["iteration"], 2);
    assert_eq!(request["session_id"], "s1");
    assert_eq!(request["due_at"], relay_support::BEGIN_MS + 300_000);
}

#[test]
fn a_program_that_fails_or_prints_no_verdict_gives_none() {
    let place = Place::new();
    for (number, script) in [
        r#"echo '{"decision":"allow"}'; exit 3"#,
        "echo garbage",
        r#"echo '{"decision":"perhaps"}'"#,
        r#"echo '{"reason":"none"}'"#,
        r#"echo '{"decision":"allow","scope":"for ever"}'"#,
        "exit 0",
        "kill -9 $$",
    ]
    .into_iter()
    .enumerate()
    {
        let (channel, _folder) = command(script);
        let coordinator = RelayCoordinator::new(place.others()).without_log().with_channel(channel);
        assert_eq!(relay(&coordinator, &ask(&format!("toolu_{number}"))), RelayOutcome::NoRelay, "{script}");
    }
    let missing = CommandChannelConfig { name: None, command: vec!["./is-not-there".to_owned()] };
    let missing = CommandChannel::new(&missing, place.ledger.folder.path()).unwrap();
    assert_eq!(missing.name(), "is-not-there");
    let coordinator = RelayCoordinator::new(place.others()).without_log().with_channel(missing);
    assert_eq!(relay(&coordinator, &ask("toolu_missing")), RelayOutcome::NoRelay);
    let empty = CommandChannelConfig { name: None, command: Vec::new() };
    assert!(CommandChannel::new(&empty, place.ledger.folder.path()).is_err());
}

#[test]
fn a_program_answers_a_question_of_the_agent() {
    let place = Place::new();
    let (channel, _folder) = command(r#"cat > /dev/null; echo '{"answers":{"Colour":"Blue"}}'"#);
    let coordinator = RelayCoordinator::new(place.others()).without_log().with_channel(channel);

    let outcome = relay(&coordinator, &ask_user("toolu_1"));

    assert_eq!(decided(&outcome).answers["Which colour?"], "Blue");
}

#[test]
fn a_program_that_is_told_to_stop_is_gone_with_its_children_even_if_it_does_not_listen() {
    let place = Place::new();
    let script = "trap '' TERM; sleep 600 & echo $! > child.tmp; mv child.tmp child; while :; do wait; done";
    let (channel, folder) = command(script);
    let coordinator = RelayCoordinator::new(place.others()).with_channel(channel);
    let others = place.others();
    let note = folder.path().join("child");
    let seen = note.clone();
    let decides = std::thread::spawn(move || {
        wait_until("the program", || seen.exists());
        others.decide(&ask("toolu_1").request_id, &RelayVerdict::allow()).unwrap();
    });

    let relayed = coordinator.relay(&ask("toolu_1"), || false).unwrap();
    assert_eq!(decided(&relayed.outcome).status, RequestStatus::Allowed);
    drop(relayed);

    decides.join().unwrap();
    let child = std::fs::read_to_string(note).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    wait_until("the child's end", || {
        let stat = std::fs::read_to_string(&stat).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
    });
}

/// A terminal whose person is the test: what is typed comes by a channel, what is shown is kept.
struct Typed {
    keys: Receiver<String>,
    rest: Vec<u8>,
    /// How often somebody wanted more than there was: whatever came before was taken.
    waits: Arc<AtomicUsize>,
}

impl Read for Typed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.waits.fetch_add(1, Ordering::SeqCst);
            // At the end of what is typed the terminal is closed.
            self.rest = self.keys.recv().map(String::into_bytes).unwrap_or_default();
        }
        let taken = self.rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.rest[..taken]);
        self.rest.drain(..taken);
        Ok(taken)
    }
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn shows(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// Waits until so many calls were asked about, each to the end: what is typed from then on counts.
    fn has_asked(&self, calls: usize) {
        wait_until("the question", || self.text().matches("May it run?").count() == calls);
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn terminal() -> (TerminalChannel, Sender<String>, Screen) {
    let (keys, typed) = channel();
    let screen = Screen::default();
    let typed = Typed { keys: typed, rest: Vec::new(), waits: Arc::default() };
    (TerminalChannel::new(typed, screen.clone(), "ada@host"), keys, screen)
}

#[test]
fn a_person_at_a_terminal_is_shown_the_call_and_decides() {
    let place = Place::new();
    let run = StreamName::run(&run_id());
    let start = format!(
        r#"{{"kind":"workflow.start","data":{{"run_id":"{}","session_id":"s1","max_iterations":5}}}}"#,
        run_id()
    );
    place.ledger.append(run.as_str(), &start);
    let (channel, keys, screen) = terminal();
    let coordinator = RelayCoordinator::new(place.others()).with_channel(channel);
    let person = std::thread::spawn(move || {
        screen.has_asked(1);
        assert!(screen.shows("git push toolu_1") && screen.shows("tidy (iteration 2 of 5)"), "{}", screen.text());
        keys.send("what?\n".to_owned()).unwrap();
        keys.send("n not on a Friday\n".to_owned()).unwrap();
        screen.has_asked(2);
        keys.send("r\n".to_owned()).unwrap();
        wait_until("the agent's question", || screen.shows("2. Blue\nnumber or words: "));
        keys.send("2\n".to_owned()).unwrap();
        keys
    });

    let denied = relay(&coordinator, &ask("toolu_1"));
    let allowed = relay(&coordinator, &ask("toolu_2"));
    let answered = relay(&coordinator, &ask_user("toolu_3"));

    drop(person.join().unwrap());
    let denied = decided(&denied);
    assert_eq!((denied.source.as_deref(), denied.by.as_deref()), (Some("terminal"), Some("ada@host")));
    assert_eq!((denied.is_allowed(), denied.reason.as_deref()), (Some(false), Some("not on a Friday")));
    assert_eq!(decided(&allowed).is_allowed(), Some(true));
    let run = place.stream(&run);
    assert_eq!(run.len(), 2);
    assert_eq!(decided(&answered).answers["Which colour?"], "Blue");
}

#[test]
fn a_terminal_is_told_that_somebody_else_was_first_and_a_closed_one_gives_no_verdict() {
    let place = Place::new();
    let (open, _keys, screen) = terminal();
    let (closed, keys, _) = terminal();
    drop(keys);
    let coordinator = RelayCoordinator::new(place.others()).with_channel(open).with_channel(closed);
    let others = place.others();
    let seen = screen.clone();
    let decides = std::thread::spawn(move || {
        wait_until("the question", || seen.shows("May it run?"));
        others.decide(&ask("toolu_1").request_id, &RelayVerdict::allow()).unwrap();
    });

    assert_eq!(decided(&relay(&coordinator, &ask("toolu_1"))).source.as_deref(), Some("user"));
    decides.join().unwrap();
    assert!(screen.shows("settled elsewhere"));
}

#[test]
fn what_was_typed_before_a_question_was_shown_answers_nothing() {
    let place = Place::new();
    let (keys, typed) = channel();
    let (screen, waits) = (Screen::default(), Arc::new(AtomicUsize::new(0)));
    let typed = Typed { keys: typed, rest: Vec::new(), waits: waits.clone() };
    let coordinator =
        RelayCoordinator::new(place.others()).with_channel(TerminalChannel::new(typed, screen.clone(), "ada@host"));

    for (round, call) in ["toolu_1", "toolu_2"].into_iter().enumerate() {
        keys.send("y\n".to_owned()).unwrap();
        wait_until("the line to be taken", || waits.load(Ordering::SeqCst) == 2 * round + 2);
        let outcome = std::thread::scope(|scope| {
            let person = scope.spawn(|| {
                screen.has_asked(round + 1);
                keys.send("n I looked\n".to_owned()).unwrap();
            });
            let outcome = relay(&coordinator, &ask(call));
            person.join().unwrap();
            outcome
        });
        assert_eq!(decided(&outcome).reason.as_deref(), Some("I looked"), "{call}");
    }
}

/// A terminal of the system, and the side of it where the person sits.
fn pseudo_terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(person), terminal)
}

#[test]
fn what_lies_in_the_queue_of_a_terminal_when_a_question_is_shown_answers_nothing() {
    let place = Place::new();
    let (mut person, terminal) = pseudo_terminal();
    let screen = Screen::default();
    let (mut seen, mut shown) = (person.try_clone().unwrap(), screen.clone());
    // It ends when the other side is closed, which Linux tells by an error.
    std::thread::spawn(move || drop(std::io::copy(&mut seen, &mut shown)));
    let channel = TerminalChannel::open(terminal.try_clone().unwrap(), terminal).unwrap();
    let coordinator = RelayCoordinator::new(place.others()).with_channel(channel);

    for (round, call) in ["toolu_1", "toolu_2"].into_iter().enumerate() {
        // Two lines, and the beginning of a third; the terminal shows what it took.
        person.write_all(format!("y\ny\ny{round}").as_bytes()).unwrap();
        wait_until("the echo", || screen.shows(&format!("y{round}")));
        let began = Instant::now();
        let outcome = std::thread::scope(|scope| {
            let person = scope.spawn(|| {
                screen.has_asked(round + 1);
                person.write_all(b"n I looked\n").unwrap();
            });
            let outcome = coordinator.relay(&ask(call), || began.elapsed() > PATIENCE).unwrap().outcome.clone();
            person.join().unwrap();
            outcome
        });
        assert_eq!(decided(&outcome).reason.as_deref(), Some("I looked"), "{call}: {}", screen.text());
    }
}

#[test]
fn a_person_sees_every_line_and_field_of_what_is_asked_and_how_much_is_left_out() {
    let place = Place::new();
    let (channel, keys, screen) = terminal();
    let coordinator = RelayCoordinator::new(place.others()).with_channel(channel);
    let shown = |call: &str, input: &serde_json::Value| {
        let before = screen.text();
        let asked = runledger_workflow::Ask { tool_input_json: input.to_string(), ..ask(call) };
        std::thread::scope(|scope| {
            let person = scope.spawn(|| {
                screen.has_asked(before.matches("May it run?").count() + 1);
                keys.send("n\n".to_owned()).unwrap();
            });
            relay(&coordinator, &asked);
            person.join().unwrap();
        });
        let position = place.commands.relay_state(&asked.request_id).unwrap().unwrap().position;
        let screen = screen.text()[before.len()..].to_owned();
        let said = screen.split_once("(iteration 2 of 5)\n").unwrap().1.split_once("\nMay it run?").unwrap().0;
        said.replace(&format!("runledger context {position} shows all"), "(all)")
    };

    let lines = serde_json::json!({"command": "echo hi # ok\r\nrm -rf ~\u{1b}[2J", "dangerouslyDisableSandbox": true});
    assert_eq!(
        shown("toolu_1", &lines),
        "  │ echo hi # ok\n  │ rm -rf ~\u{fffd}[2J\n  dangerouslyDisableSandbox: true"
    );

    let long = serde_json::json!({"command": format!("echo {}; rm -rf ~", "x".repeat(3000)), "timeout": 5});
    let expected = format!("  │ echo {}\n  … 1015 more characters: (all)\n  timeout: 5", "x".repeat(1995));
    assert_eq!(shown("toolu_2", &long), expected);

    let deep = serde_json::json!({"command": format!("{}rm -rf ~", "\n".repeat(500))});
    let expected = format!("{}\n  … 478 more characters: (all)", ["  │ "; 30].join("\n"));
    assert_eq!(shown("toolu_3", &deep), expected);

    let file = serde_json::json!({"file_path": "/etc/motd", "content": "one\ntwo\nthree\nfour\nfive\nsix"});
    let expected = "  content:\n  │ one\n  │ two\n  │ three\n  │ four\n  │ five\n  … 3 more characters: (all)\n  \
                    file_path: /etc/motd";
    assert_eq!(shown("toolu_4", &file), expected);

    let mut many: serde_json::Map<String, serde_json::Value> =
        (0..15).map(|number| (format!("f{number:02}"), number.into())).collect();
    many.insert("command".to_owned(), "ls".into());
    let said = shown("toolu_5", &many.into());
    assert!(
        said.starts_with("  │ ls\n  f00: 0\n") && said.ends_with("\n  f11: 11\n  … 3 more fields: (all)"),
        "{said}"
    );
}

#[test]
fn a_log_that_fails_when_the_wait_begins_is_tried_again() {
    let place = Place::new();
    let coordinator = RelayCoordinator::new(place.others());
    let id = place.commands.ask(&ask("toolu_1")).unwrap().state.request.request_id;
    // Without its write-ahead log the ledger cannot be read.
    let wal = place.ledger.path.with_extension("db-wal");
    let kept = std::fs::read(&wal).unwrap();
    File::options().write(true).open(&wal).unwrap().set_len(0).unwrap();
    assert!(coordinator.commands().relay_state(&id).is_err());

    let mut tries = 0;
    let relayed = coordinator.wait(&id, || {
        tries += 1;
        match tries {
            2 => std::fs::write(&wal, &kept).unwrap(),
            3 => drop(place.commands.decide(&id, &RelayVerdict::allow()).unwrap()),
            _ => {}
        }
        false
    });

    assert_eq!(decided(&relayed.unwrap().outcome).status, RequestStatus::Allowed);
}
