//! The processes of one round: who starts, who is killed and when, who comes again, and what they told.
//!
//! Who dies, and after how many acknowledged lines, follows from the seed alone. What the others do at that moment does
//! not: the operating system decides that.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::acknowledged::{Acknowledged, parse};
use crate::requests::PROCESSES;
use crate::support::Random;
use crate::workers::{REBUILT, Task};

/// Longer than any step takes on any machine: a test that waits it out has failed.
const LONG: Duration = Duration::from_secs(300);
/// Acknowledged lines of a round in which somebody may still be killed; about as many as there are.
const LINES: u64 = 120;

/// What happens in a round.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In order: after how many lines, whom, and how many steps later.
    kills: Vec<(u64, usize, u64)>,
    /// Whether all die with the last one, and nobody comes again to finish its work.
    ends_all: bool,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let count = 2 + random.below(4);
        let mut kills: Vec<_> = (0..count)
            .map(|_| {
                (random.below(LINES), usize::try_from(random.below(PROCESSES + 2)).unwrap(), random.below(2_000_000))
            })
            .collect();
        kills.sort_unstable();
        Self { kills, ends_all: random.below(3) == 0 }
    }
}

/// What came of a round.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) kills: u64,
    pub(crate) lines: u64,
    pub(crate) rebuilds: u64,
    /// Whether every appender came to its end, so that all of the round's requests were acknowledged.
    pub(crate) is_complete: bool,
}

/// What a process's pipe gives.
enum Word {
    Line(String),
    /// Its last line was read.
    Ended,
}

/// A process that is not over yet; it is killed with this value.
struct Member {
    child: Child,
    is_killed: bool,
}

impl Member {
    fn kill(&mut self) -> bool {
        let is_first = !self.is_killed;
        self.is_killed = true;
        // It may have ended by itself.
        let _ = self.child.kill();
        is_first
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// The processes, by their place.
struct Crew<'a> {
    ledger: &'a Path,
    round: u64,
    members: Vec<Option<Member>>,
    /// How often each was started.
    starts: Vec<u64>,
    sender: Sender<(usize, Word)>,
    words: Receiver<(usize, Word)>,
}

impl<'a> Crew<'a> {
    fn new(ledger: &'a Path, round: u64) -> Self {
        let (sender, words) = channel();
        let count = usize::try_from(PROCESSES + 2).unwrap();
        let mut crew =
            Self { ledger, round, members: (0..count).map(|_| None).collect(), starts: vec![0; count], sender, words };
        (0..count).for_each(|place| crew.start(place));
        crew
    }

    fn start(&mut self, place: usize) {
        let process = place as u64;
        let task = match process.checked_sub(PROCESSES) {
            None => Task::Append { round: self.round, process },
            Some(0) => Task::Project,
            Some(_) => Task::Rebuild { first: self.round + self.starts[place] },
        };
        self.starts[place] += 1;
        let mut child = task.start(self.ledger, None);
        let stdout = child.stdout.take().unwrap();
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            loop {
                let mut line = String::new();
                // A line that is not whole was not told.
                if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                    break;
                }
                // Nobody listens any more where the test has failed.
                let _ = sender.send((place, Word::Line(line)));
            }
            let _ = sender.send((place, Word::Ended));
        });
        self.members[place] = Some(Member { child, is_killed: false });
    }

    fn appends(&self) -> bool {
        self.members[..usize::try_from(PROCESSES).unwrap()].iter().any(Option::is_some)
    }

    fn kill_all(&mut self) -> u64 {
        self.members.iter_mut().flatten().map(Member::kill).map(u64::from).sum()
    }
}

/// Runs a round to its end; when it returns no process is left.
pub(crate) fn play(ledger: &Path, round: u64, plan: &Plan, acknowledged: &mut Acknowledged) -> Figures {
    let mut crew = Crew::new(ledger, round);
    let mut figures = Figures::default();
    let mut kills = plan.kills.iter().peekable();
    let mut is_over = false;
    loop {
        while let Some((_, victim, steps)) = kills.next_if(|(after, ..)| *after <= figures.lines && !is_over) {
            // A few more steps, so that it dies anywhere between two lines.
            (0..*steps).for_each(|step| {
                std::hint::black_box(step);
            });
            figures.kills += crew.members[*victim].as_mut().map_or(0, |member| u64::from(member.kill()));
            if plan.ends_all && kills.peek().is_none() {
                is_over = true;
                figures.kills += crew.kill_all();
            }
        }
        if crew.members.iter().all(Option::is_none) {
            return figures;
        }
        let (place, word) = crew.words.recv_timeout(LONG).expect("a word of some process");
        match word {
            Word::Line(line) => {
                if let Some((event, at)) = parse(&line) {
                    acknowledged.take(event, at);
                    figures.lines += 1;
                }
                figures.rebuilds += u64::from(line.trim_end().ends_with(REBUILT));
            }
            Word::Ended => {
                let mut member = crew.members[place].take().unwrap();
                let status = member.child.wait().unwrap();
                // One that was to be killed may have come to its end before.
                assert!(member.is_killed || status.success(), "process {place} of round {round} failed: {status}");
                if member.is_killed && !status.success() && !is_over {
                    crew.start(place);
                }
                if !is_over && !crew.appends() {
                    (is_over, figures.is_complete) = (true, true);
                    figures.kills += crew.kill_all();
                }
            }
        }
    }
}
