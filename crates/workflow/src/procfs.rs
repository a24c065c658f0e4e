//! What `/proc` tells of this host's processes; where there is none, nothing.

/// When a process began, in clock ticks since the boot: field 22 of its `stat`.
pub(crate) fn started_at(pid: u32) -> Option<u64> {
    // A zombie has ended; only its parent has not looked yet.
    if stat_field(pid, 0)? == "Z" {
        return None;
    }
    stat_field(pid, 19)?.parse().ok()
}

/// A field of a process's `stat`, counted from 0 behind the name's parenthesis.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = &stat[stat.rfind(')')? + 1..];
    behind_name.split_ascii_whitespace().nth(index).map(str::to_owned)
}

/// The processes of a process group.
pub(crate) fn members(group: u32) -> impl Iterator<Item = u32> {
    processes().filter(move |pid| group_of(*pid) == Some(group))
}

/// The group that a process is in.
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    stat_field(pid, 2)?.parse().ok()
}

/// The processes of this host.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
}
