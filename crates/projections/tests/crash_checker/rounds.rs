//! `kill -9` of any process at any moment, round after round.
//!
//! `RUNLEDGER_TEST_ENGINE=nats` plays them with the log on NATS, where the processes copy it too.
//! `RUNLEDGER_ROUNDS=500` plays more rounds, `RUNLEDGER_SEED=7` others. With `--release` a round is several times quicker.

use std::io::Write;

use crate::acknowledged::{Acknowledged, Key};
use crate::crew::{Plan, play};
use crate::ledger::{assert_ends_well, assert_whole};
use crate::requests::{Request, of_round};
use crate::support::Random;
use crate::workers::keep_on_servers;

const ROUNDS: u64 = 40;
const SEED: u64 = 0x5eed;
/// Then a new ledger begins: the time that checking takes grows with the log, and making one is killed too.
const ROUNDS_OF_A_LEDGER: u64 = 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Says it on the terminal even where the test passes.
fn say(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "crash checker: {words}");
}

#[test]
fn whatever_is_killed_nothing_acknowledged_is_lost_and_the_read_models_are_the_logs() {
    let (rounds, seed) = (number("RUNLEDGER_ROUNDS", ROUNDS), number("RUNLEDGER_SEED", SEED));
    say(format_args!("{rounds} rounds, seed {seed}"));
    let mut random = Random(seed);
    let (mut kills, mut events, mut lines, mut rebuilds) = (0, 0, 0, 0);
    for first in (0..rounds).step_by(usize::try_from(ROUNDS_OF_A_LEDGER).unwrap()) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        keep_on_servers(&ledger);
        let mut acknowledged = Acknowledged::default();
        let mut requests: Vec<Vec<Key>> = Vec::new();
        for round in first..rounds.min(first + ROUNDS_OF_A_LEDGER) {
            let plan = Plan::new(&mut random);
            let when = format!("seed {seed}, round {round}");
            let of_this: Vec<_> = of_round(round).iter().map(Request::keys).collect();
            let figures = play(&ledger, round, &plan, &mut acknowledged);
            if figures.is_complete {
                let unheard = of_this.iter().flatten().find(|key| !acknowledged.has(key));
                assert_eq!(unheard, None, "{when}: all were appended, and this one was not acknowledged");
            }
            requests.extend(of_this);
            assert_whole(&ledger, &mut acknowledged, &requests, &when);
            kills += figures.kills;
            rebuilds += figures.rebuilds;
            lines += figures.lines;
        }
        events += acknowledged.count();
        if ledger.exists() {
            assert_ends_well(&ledger);
        }
    }
    say(format_args!(
        "{rounds} rounds, {kills} kills, {lines} acknowledgements of {events} events, {rebuilds} rebuilds; nothing lost"
    ));
    assert!(kills >= rounds && events as u64 >= rounds, "{kills} kills and {events} events prove little");
}
