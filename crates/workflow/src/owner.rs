//! Who drives a run: this process on this host, told apart from a later one with the same process id.

use runledger_events::{LogId, Owner, ProcessId};

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
pub(crate) fn process_of(pid: u32) -> ProcessId {
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

/// When a process began, in clock ticks since the boot: field 22 of its `stat`, counted behind the name's parenthesis.
fn started_at(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = behind_name.split_ascii_whitespace();
    // A zombie has ended; only its parent has not looked yet.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
