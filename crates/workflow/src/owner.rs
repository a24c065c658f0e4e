//! Who drives a run: this process on this host, told apart from a later one with the same process id; and the end of a
//! harness that a runner left behind.

use std::time::{Duration, Instant};

use runledger_events::{LogId, Owner, ProcessId, RunId, WorkflowState};
use rustix::process::Signal;

use crate::process_group::{has_live_member, signal_group};
use crate::procfs::{group_of, members, processes, started_at};

/// How long a harness that was left behind has to end itself.
const GRACE: Duration = Duration::from_secs(2);

/// This process as the owner of a run, in this term.
pub fn current_owner(term: u64, log_id: LogId) -> Owner {
    let ProcessId { host, boot_id, pid, pid_started_at } = current_process();
    Owner { term, log_id, host, boot_id, pid, pid_started_at }
}

/// This process.
pub fn current_process() -> ProcessId {
    process_of(std::process::id())
}

/// A process of this host, by its id.
pub fn process_of(pid: u32) -> ProcessId {
    ProcessId { host: host(), boot_id: boot_id(), pid, pid_started_at: started_at(pid) }
}

/// Whether an owner's process still runs; `None` where that cannot be known from here.
pub fn is_alive(owner: &Owner) -> Option<bool> {
    let Owner { host, boot_id, pid, pid_started_at, .. } = owner;
    let process =
        ProcessId { host: host.clone(), boot_id: boot_id.clone(), pid: *pid, pid_started_at: *pid_started_at };
    is_process_alive(&process)
}

/// Whether a process still runs; `None` where that cannot be known from here.
pub fn is_process_alive(owner: &ProcessId) -> Option<bool> {
    if owner.host != host() {
        return None;
    }
    match (&owner.boot_id, boot_id()) {
        (Some(then), Some(now)) if *then != now => return Some(false),
        (Some(_), Some(_)) => {}
        _ => return None,
    }
    match (owner.pid_started_at, started_at(owner.pid)) {
        (Some(then), Some(now)) => Some(then == now),
        (Some(_), None) => Some(false),
        (None, _) => None,
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Linux tells each boot apart; elsewhere an owner's life is not known.
fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Ends what a runner that is gone left behind: its harness, with all that is in its process group.
///
/// The group's number may be another's by now, so one is only ended whose leader is the process that was noted, or which
/// has a process in it that says in its environment that it is of this run. Nothing is done on another host or boot.
pub(crate) fn end_left_behind(state: &WorkflowState) {
    let run_id = &state.run_id;
    match &state.harness_process {
        Some(harness) => {
            if harness.host != host() || harness.boot_id.is_none() || harness.boot_id != boot_id() {
                return;
            }
            let is_leader = harness.pid_started_at.is_some() && started_at(harness.pid) == harness.pid_started_at;
            if is_leader || members(harness.pid).any(|pid| is_of_run(pid, run_id)) {
                end_group(harness.pid);
            }
        }
        // The runner may have died after the harness began and before it was noted.
        None if state.iteration_is_open || state.iteration_was_cut => {
            let is_here = state.owner.as_ref().is_some_and(|owner| owner.host == host());
            if is_here {
                let leaders = processes().filter(|pid| group_of(*pid) == Some(*pid) && is_of_run(*pid, run_id));
                leaders.filter(|pid| *pid != std::process::id()).collect::<Vec<_>>().into_iter().for_each(end_group);
            }
        }
        None => {}
    }
}

fn end_group(leader: u32) {
    signal_group(leader, Signal::TERM);
    // One that was paused hears of it only when it goes on.
    signal_group(leader, Signal::CONT);
    let told = Instant::now();
    while told.elapsed() < GRACE && has_live_member(leader) {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal_group(leader, Signal::KILL);
}

/// Whether a process is of the run, by its environment.
fn is_of_run(pid: u32, run_id: &RunId) -> bool {
    let mark = format!("RUNLEDGER_RUN_ID={run_id}");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}
