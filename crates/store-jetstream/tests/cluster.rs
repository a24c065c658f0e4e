//! Three servers under load: who races loses but one, and whoever is killed, stopped or cut off takes nothing that was acknowledged.
//!
//! A few rounds here; `RUNLEDGER_CLUSTER_ROUNDS` says how many, and `RUNLEDGER_RACE_ROUNDS` of races.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

#[path = "../../projections/tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runledger_events::{Metadata, Position, RecordedEvent, RunStatus, RuntimeEvent, StreamName, StreamVersion};
use runledger_projections::Projections;
use runledger_store::{AppendError, EventFilter, EventLog, ExpectedVersion, LogReader, NewEvent, Read, Receipt};
use runledger_store_jetstream::{Address, JetStreamError, JetStreamLog, Options};
use runledger_testkit::{Cutter, NatsServers, new_address};
use support::{Story, Told, assert_verifies, caught_up, dump, fresh_dump};
use tempfile::TempDir;

/// So many, unless the environment says otherwise.
fn rounds(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().map_or(usual, |rounds| rounds.parse().unwrap())
}

/// A machine: a folder for its copy, and a connection of its own.
struct Machine {
    folder: TempDir,
    log: JetStreamLog,
}

impl Machine {
    fn new(address: &Address) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = JetStreamLog::open(address, folder.path(), &Options::default()).unwrap();
        Self { folder, log }
    }

    fn all(&self) -> Vec<RecordedEvent> {
        all(&self.log.reader().unwrap())
    }
}

fn all(reader: &LogReader) -> Vec<RecordedEvent> {
    let head = reader.head().unwrap().position;
    let (mut events, mut after) = (Vec::new(), Position::START);
    while after < head {
        let batch = reader.read(&EventFilter::default(), after, head, 1000, Read::All).unwrap();
        after = batch.scanned_to;
        events.extend(batch.events);
    }
    events
}

fn event(id: &str) -> NewEvent {
    let json = format!(r#"{{"id":"{id}","timestamp":1,"kind":"user.prompt","data":{{"prompt":"{id}"}}}}"#);
    NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap()
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// Every machine has the same log, chain and all, and the same read models, as one that folds all of it anew; gives the events.
fn are_equal(machines: &[Machine]) -> Vec<RecordedEvent> {
    for machine in machines {
        machine.log.catch_up(Duration::from_secs(60)).unwrap();
    }
    let head = machines[0].log.reader().unwrap().head().unwrap();
    let events = machines[0].all();
    for machine in machines {
        let reader = machine.log.reader().unwrap();
        assert_eq!(reader.head().unwrap(), head);
        assert_eq!(reader.verify(|_| {}).unwrap().findings, []);
        assert!(machine.all() == events);
    }
    let models = fresh_dump(machines[0].log.path());
    for machine in machines {
        assert_verifies(&mut caught_up(machine.log.path()));
        assert!(dump(machine.log.path()) == models, "the read models are others");
    }
    events
}

/// Each acknowledged event is there once, at the position that was told.
fn has_each_once(events: &[RecordedEvent], acknowledged: &[(String, Position)]) {
    let ids: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "an event stands there twice");
    for (id, position) in acknowledged {
        let found = &events[usize::try_from(position.0).unwrap() - 1];
        assert_eq!(found.id.as_str(), id, "at position {position}");
    }
}

#[test]
fn of_those_who_append_at_the_same_expected_version_exactly_one_wins() {
    let Some(servers) = NatsServers::start(3, false) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let machines: Vec<Machine> = (0..8).map(|_| Machine::new(&address)).collect();
    let rounds = rounds("RUNLEDGER_RACE_ROUNDS", 50);
    let barrier = Barrier::new(machines.len());
    let race = |number: usize, machine: &Machine| -> Vec<bool> {
        let mut won = Vec::new();
        for round in 0..rounds {
            barrier.wait();
            let expected = ExpectedVersion::Exact(StreamVersion(u64::from(round)));
            let result = machine.log.append(&stream("run/raced"), expected, vec![event(&format!("{round}-{number}"))]);
            won.push(match result {
                Ok(receipts) => {
                    assert_eq!(receipts[0].stream_version, StreamVersion(u64::from(round) + 1));
                    true
                }
                Err(AppendError::WrongExpectedVersion(wrong)) => {
                    assert!(wrong.actual > StreamVersion(u64::from(round)), "{wrong:?}");
                    false
                }
                Err(error) => panic!("round {round}: {error}"),
            });
        }
        won
    };
    let wins: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let handles: Vec<_> = machines
            .iter()
            .enumerate()
            .map(|(number, machine)| {
                let race = &race;
                scope.spawn(move || race(number, machine))
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    for round in 0..rounds as usize {
        assert_eq!(wins.iter().filter(|won| won[round]).count(), 1, "round {round}");
    }
    assert_eq!(are_equal(&machines).len(), rounds as usize);
}

/// How long something may not move before it is taken for stuck: no figure of what is usual.
const STUCK: Duration = Duration::from_secs(600);

/// Machines that append and project all the while.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// Appends of each machine that were acknowledged.
    acknowledged: [AtomicU64; 3],
}

impl Load {
    /// Waits until so many appends more of each machine were acknowledged.
    fn goes_on(&self, appends: u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Acquire);
        let before = self.acknowledged.each_ref().map(count);
        let began = Instant::now();
        while self.acknowledged.iter().zip(before).any(|(now, before)| count(now) < before + appends) {
            let now = self.acknowledged.each_ref().map(count);
            assert!(began.elapsed() < STUCK, "nothing goes on: {before:?} appends were acknowledged, and {now:?} now");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Appends whole runs, step by step and several at once, and words in a session that all share, until it is over; what is not known
    /// is asked again. Gives what was acknowledged.
    fn append(&self, machine: &Machine, number: usize) -> Vec<(String, Position)> {
        let mut story = Story::behind(number as u64 * 1_000_000_000);
        let mut acknowledged = Vec::new();
        for run in 0.. {
            let mut steps = story.whole_run(&format!("w{number}-{run}"), "shared", 2, RunStatus::Completed).into_iter();
            for step in 0.. {
                let mut told: Vec<Told> = steps.by_ref().take(1 + step % 2).collect();
                if told.is_empty() {
                    break;
                }
                if self.is_over.load(Ordering::Acquire) {
                    return acknowledged;
                }
                if step % 3 != 0 {
                    told.push(story.harness("shared", Some("a1"), None, u8::try_from((run + step) % 256).unwrap()));
                }
                let heard = append_at_last(machine, &told);
                acknowledged.extend(heard);
                self.acknowledged[number].fetch_add(1, Ordering::Release);
                // A log of a few thousand events tells as much, and is checked sooner.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        acknowledged
    }

    /// Builds a machine's read models until it is over.
    fn project(&self, machine: &Machine) {
        let mut projections = Projections::open(machine.log.path()).unwrap();
        while !self.is_over.load(Ordering::Acquire) {
            projections.catch_up().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Appends, and asks again for as long as nobody knows what came of it.
fn append_at_last(machine: &Machine, told: &[Told]) -> Vec<(String, Position)> {
    let began = Instant::now();
    loop {
        match machine.log.append_all(told.iter().map(Told::append).collect()) {
            Ok(receipts) => {
                let heard = |receipt: Receipt| (receipt.event_id.to_string(), receipt.position);
                return receipts.into_iter().map(heard).collect();
            }
            Err(AppendError::Storage(error)) => assert!(began.elapsed() < STUCK, "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every machine appends and projects while the servers suffer: then each has the same log, with each acknowledged event once; gives
/// its events.
fn while_all_append(machines: &[Machine], suffer: impl FnOnce(&Load)) -> Vec<RecordedEvent> {
    let load = Load::default();
    let acknowledged: Vec<(String, Position)> = std::thread::scope(|scope| {
        let writers: Vec<_> = machines
            .iter()
            .enumerate()
            .map(|(number, machine)| {
                let load = &load;
                scope.spawn(move || load.project(machine));
                scope.spawn(move || load.append(machine, number))
            })
            .collect();
        // Whatever it finds, the others have to end.
        let suffered = std::panic::catch_unwind(AssertUnwindSafe(|| suffer(&load)));
        load.is_over.store(true, Ordering::Release);
        let heard = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        suffered.unwrap();
        heard
    });
    let events = are_equal(machines);
    has_each_once(&events, &acknowledged);
    say(format_args!("{} events, {} of them acknowledged; nothing lost or doubled", events.len(), acknowledged.len()));
    events
}

/// Says it on the terminal even where the test passes.
fn say(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "cluster: {words}");
}

/// The server that leads the ledger's stream.
fn leader(machine: &Machine) -> usize {
    let began = Instant::now();
    loop {
        if let Ok(Some(leader)) = machine.log.state().map(|state| state.leader) {
            return leader.strip_prefix("node-").unwrap().parse().unwrap();
        }
        assert!(began.elapsed() < STUCK, "nobody leads");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Appends of each machine between two blows.
const BETWEEN: u64 = 10;

#[test]
fn servers_that_are_killed_and_stopped_take_nothing_that_was_acknowledged() {
    let Some(servers) = NatsServers::start(3, true) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let machines: Vec<Machine> = (0..3).map(|_| Machine::new(&address)).collect();
    let events = while_all_append(&machines, |load| {
        for _ in 0..rounds("RUNLEDGER_CLUSTER_ROUNDS", 1) {
            load.goes_on(BETWEEN);
            let first = leader(&machines[0]);
            servers.kill(first);
            load.goes_on(BETWEEN);
            servers.restart(first);
            load.goes_on(BETWEEN);
            let follower = (leader(&machines[0]) + 1) % 3;
            servers.kill(follower);
            load.goes_on(BETWEEN);
            servers.restart(follower);
            load.goes_on(BETWEEN);
            // One that is stopped still has its connections, and answers nobody.
            let stopped = leader(&machines[0]);
            servers.stop(stopped);
            load.goes_on(BETWEEN);
            servers.go_on(stopped);
        }
        load.goes_on(BETWEEN);
    });
    // A machine that was never there has the same log.
    let mut machines = machines;
    machines.push(Machine::new(&address));
    assert_eq!(are_equal(&machines).len(), events.len());
}

#[test]
fn without_a_quorum_writes_are_refused_in_words_and_reads_go_on() {
    let Some(servers) = NatsServers::start(3, false) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = Options { patience: Duration::from_secs(4), ..Options::default() };
    let log = JetStreamLog::open(&address, folder.path(), &options).unwrap();
    log.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e1")]).unwrap();
    servers.kill(0);
    servers.kill(1);
    let error = log.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e2")]).unwrap_err().to_string();
    assert!(error.contains("appending the same events again is safe") && error.contains(address.name()), "{error}");
    assert_eq!(all(&log.reader().unwrap()).len(), 1);
    // The server that is left may have led, and gives that up when the others have been silent for a while.
    while log.catch_up(Duration::from_secs(1)).is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    // Healed, the same events again stand there once, whether the first try was written or not.
    servers.restart(0);
    servers.restart(1);
    let again = JetStreamLog::open(&address, folder.path(), &Options::default()).unwrap();
    again.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e2")]).unwrap();
    again.catch_up(Duration::from_secs(30)).unwrap();
    let ids: Vec<String> = all(&again.reader().unwrap()).iter().map(|event| event.id.to_string()).collect();
    assert_eq!(ids, ["e1", "e2"]);
    // Where nobody is, that is said, and how.
    drop(servers);
    let nobody = JetStreamLog::open(&address, folder.path(), &options).unwrap_err();
    assert!(matches!(nobody, JetStreamError::Unreachable { .. }), "{nobody}");
}

#[test]
fn a_stream_that_could_lose_events_and_a_ledger_that_is_not_there_are_refused() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = |address: &Address, create| {
        JetStreamLog::open(address, folder.path(), &Options { create, ..Options::default() })
    };
    assert!(matches!(open(&address, false), Err(JetStreamError::Missing { .. })));
    drop(open(&address, true).unwrap());
    drop(open(&address, false).unwrap());
    let three: Address = address.to_string().replace("?replicas=1", "").parse().unwrap();
    let error = open(&three, false).unwrap_err();
    assert!(matches!(&error, JetStreamError::Settings { problems, .. } if problems.contains("replicas=1")), "{error}");
    // Three replicas need three servers.
    let new: Address = three.to_string().replace("ledger-", "other-").parse().unwrap();
    assert!(matches!(open(&new, true), Err(JetStreamError::NotMade { .. })));
}

#[test]
fn events_that_are_too_many_or_too_large_for_one_append_are_refused_and_nothing_is_written() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let machine = Machine::new(&new_address(&servers, 1).parse().unwrap());
    let many = (0..1001).map(|number| event(&format!("e{number}"))).collect();
    let error = machine.log.append(&stream("run/r"), ExpectedVersion::Any, many).unwrap_err().to_string();
    assert!(error.contains("1001 events") && error.contains("nothing was written"), "{error}");
    let many: Vec<NewEvent> = (0..1000).map(|number| event(&format!("e{number}"))).collect();
    let receipts = machine.log.append(&stream("run/r"), ExpectedVersion::NoStream, many.clone()).unwrap();
    assert_eq!((receipts.len(), receipts[999].position), (1000, Position(1000)));
    // The same again is all there.
    let again = machine.log.append(&stream("run/r"), ExpectedVersion::NoStream, many).unwrap();
    assert!(again.iter().all(|receipt| receipt.is_duplicate));
    assert!(machine.folder.path().join("ledger.db").is_file());
    assert_eq!(machine.all().len(), 1000);
}

/// A server that is cut off, the leader among them, still takes connections of nobody, and finds the others again.
#[test]
fn a_server_that_is_cut_off_takes_nothing_that_was_acknowledged() {
    let Some(servers) = NatsServers::start_apart(3, true) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let machines: Vec<Machine> = (0..3).map(|_| Machine::new(&address)).collect();
    while_all_append(&machines, |load| {
        for round in 0..rounds("RUNLEDGER_CLUSTER_ROUNDS", 2) as usize {
            load.goes_on(BETWEEN);
            // Every other time it is the one that leads.
            let cut_off = if round.is_multiple_of(2) { leader(&machines[0]) } else { round % 3 };
            servers.cut_off(cut_off);
            load.goes_on(BETWEEN);
            servers.heal(cut_off);
        }
        load.goes_on(BETWEEN);
    });
}

/// Connections are cut all the while, also between a message and its answer: on one server, where a repeated message is a conflict,
/// and on three, where it is a duplicate.
#[test]
fn connections_that_are_cut_lose_nothing_and_double_nothing() {
    for count in [1, 3] {
        let Some(servers) = NatsServers::start(count, false) else { return };
        let cutters: Vec<Cutter> = (0..count).map(|index| Cutter::before(servers.port(index))).collect();
        let ports: Vec<String> = cutters.iter().map(|cutter| format!("127.0.0.1:{}", cutter.port())).collect();
        let name = format!("nats://{}/cut?replicas={count}", ports.join(","));
        let address: Address = name.parse().unwrap();
        let machines: Vec<Machine> = (0..3).map(|_| Machine::new(&address)).collect();
        while_all_append(&machines, |load| {
            for cut in 0..u64::from(rounds("RUNLEDGER_CLUSTER_ROUNDS", 2)) * 10 {
                load.goes_on(1);
                // Not always at the same moment of an append.
                std::thread::sleep(Duration::from_millis(cut * 7 % 20));
                cutters.iter().for_each(Cutter::cut);
            }
            load.goes_on(BETWEEN);
        });
    }
}

/// Who holds a name is seen from afar; whoever gives it up, or is gone, holds it no more.
#[test]
fn a_name_is_held_as_long_as_its_holder_lives() {
    let Some(servers) = NatsServers::start(1, false) else { return };
    let address: Address = new_address(&servers, 1).parse().unwrap();
    let (one, other) = (Machine::new(&address), Machine::new(&address));
    assert_eq!(other.log.is_held("r.1").unwrap(), Some(false));
    let lease = one.log.hold("r.1", "process 7 on one").unwrap().unwrap();
    assert_eq!((other.log.is_held("r.1").unwrap(), other.log.is_held("r.2").unwrap()), (Some(true), Some(false)));
    drop(lease);
    assert_eq!(other.log.is_held("r.1").unwrap(), Some(false));
    // A machine that is gone gives up nothing; its names go by themselves.
    std::mem::forget(one.log.hold("r.3", "process 7 on one").unwrap());
    drop(one);
    assert_eq!(other.log.is_held("r.3").unwrap(), Some(true));
    let began = Instant::now();
    while other.log.is_held("r.3").unwrap() == Some(true) {
        assert!(began.elapsed() < Duration::from_secs(90), "it is held for ever");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_one_machine_appends_another_one_waits_for_and_notes_when_it_had_all() {
    let Some(servers) = NatsServers::start(3, false) else { return };
    let address: Address = new_address(&servers, 3).parse().unwrap();
    let (one, other) = (Machine::new(&address), Machine::new(&address));
    assert_eq!(JetStreamLog::heard_in(other.folder.path()), None);
    let receipts = one.log.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e1"), event("e2")]).unwrap();
    let position = receipts.iter().map(|receipt| receipt.position).max().unwrap();
    // Nobody asks the other one's log for anything but to come so far: its copier follows by itself.
    let mut follower = other.log.follow(Position::START).unwrap();
    let began = Instant::now();
    while follower.wait_beyond(Position(position.0 - 1), Duration::from_secs(1)).unwrap() < position {
        assert!(began.elapsed() < Duration::from_secs(60), "position {position} does not come");
    }
    let there: Vec<String> = all(&other.log.reader().unwrap()).iter().map(|event| event.id.to_string()).collect();
    assert_eq!(there, ["e1", "e2"]);
    while JetStreamLog::heard_in(other.folder.path()).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not noted when it had all");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A laptop's leaf node passes on what is appended and what is followed; without the servers behind it nothing is written.
#[test]
fn a_leaf_node_passes_everything_on_and_keeps_nothing() {
    let Some(hub) = NatsServers::start_hub() else { return };
    let leaf = hub.start_leaf();
    let at_hub = new_address(&hub, 1);
    let at_leaf = format!("{}&domain=hub", at_hub.replace(&hub.url(), &leaf.url()));
    let machine = Machine::new(&at_hub.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    let laptop = JetStreamLog::open(&at_leaf.parse().unwrap(), folder.path(), &options).unwrap();
    laptop.append(&stream("run/r"), ExpectedVersion::NoStream, vec![event("e1"), event("e2")]).unwrap();
    machine.log.append(&stream("run/r"), ExpectedVersion::Exact(StreamVersion(2)), vec![event("e3")]).unwrap();
    laptop.catch_up(Duration::from_secs(60)).unwrap();
    let ids = |log: &JetStreamLog| -> Vec<String> {
        all(&log.reader().unwrap()).iter().map(|event| event.id.to_string()).collect()
    };
    assert_eq!(ids(&laptop), ["e1", "e2", "e3"]);
    let lease = laptop.hold("r.1", "process 7 on a laptop").unwrap().unwrap();
    assert_eq!(machine.log.is_held("r.1").unwrap(), Some(true));
    drop(lease);
    hub.kill(0);
    let refused = laptop.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e4")]);
    assert!(matches!(refused, Err(AppendError::Storage(_))), "{refused:?}");
    assert_eq!(ids(&laptop).len(), 3);
    hub.restart(0);
    let began = Instant::now();
    while let Err(error) = laptop.append(&stream("run/r"), ExpectedVersion::Any, vec![event("e4")]) {
        assert!(began.elapsed() < STUCK, "{error}");
    }
    machine.log.catch_up(Duration::from_secs(60)).unwrap();
    assert_eq!(ids(&machine.log), ["e1", "e2", "e3", "e4"]);
}
