//! Signals to whole process groups, and the end of the group of a child of ours.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How often it is looked whether a group has ended.
const TICK: Duration = Duration::from_millis(10);

/// Sends a signal to the group that a process leads.
pub(crate) fn signal_group(leader: u32, signal: Signal) {
    if let Some(group) = group_of(leader)
        && let Err(error) = kill_process_group(group, signal)
    {
        tracing::debug!(leader, %error, "the process group is gone already");
    }
}

/// Whether there is a process in the group, one that has ended and was not looked after too.
pub(crate) fn has_member(leader: u32) -> bool {
    group_of(leader).is_some_and(|group| test_kill_process_group(group).is_ok())
}

/// Ends a child and all that is in its group: as the signal says, and for good after `grace`, or as soon as `is_urgent`.
pub(crate) fn end_group(
    child: &mut Child,
    signal: Signal,
    grace: Duration,
    mut is_urgent: impl FnMut() -> bool,
) -> Option<ExitStatus> {
    let leader = child.id();
    signal_group(leader, signal);
    // One that was paused hears of it only when it goes on.
    signal_group(leader, Signal::CONT);
    let told = Instant::now();
    let mut status = None;
    while told.elapsed() < grace && !is_urgent() {
        if status.is_none() {
            match child.try_wait() {
                Ok(ended) => status = ended,
                Err(_) => break,
            }
        }
        // Its children get the same grace: who does the work may be one of them.
        if status.is_some() && !has_member(leader) {
            break;
        }
        std::thread::sleep(TICK);
    }
    // Children that did not listen go with it.
    signal_group(leader, Signal::KILL);
    status.or_else(|| child.wait().ok())
}

fn group_of(leader: u32) -> Option<Pid> {
    i32::try_from(leader).ok().and_then(Pid::from_raw)
}
