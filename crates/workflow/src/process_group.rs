//! Signals to whole process groups, and the end of the group of a child of ours.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::procfs;

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

/// Whether there is a process in the group that has not ended. Where `/proc` does not tell them apart, those count too
/// that have ended and that nobody has looked after yet.
pub(crate) fn has_live_member(leader: u32) -> bool {
    let is_there = group_of(leader).is_some_and(|group| test_kill_process_group(group).is_ok());
    is_there
        && (procfs::processes().next().is_none()
            || procfs::members(leader).any(|pid| procfs::started_at(pid).is_some()))
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
        if status.is_some() && !has_live_member(leader) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_has_ended_counts_no_more_though_nobody_has_looked_after_it() {
        let mut child = Command::new("sleep").arg("1000").stdout(Stdio::null()).process_group(0).spawn().unwrap();
        assert!(has_live_member(child.id()));
        signal_group(child.id(), Signal::KILL);
        let is_told_apart = procfs::processes().next().is_some();
        while is_told_apart && has_live_member(child.id()) {
            std::thread::sleep(TICK);
        }
        child.wait().unwrap();
        assert!(!has_live_member(child.id()));
    }
}
