//! Failpoints: named places at which a test lets the process die.
//!
//! Without the feature `failpoints` passing one is an empty function. Tests alone enable it, as dev-dependencies, so it is
//! in no program that is built for use (`crates/cli/tests/crate_graph.rs`). Our own rather than the crate `fail`: that one
//! cannot end a process without running destructors, and would put `log`, `once_cell` and `rand` under every program.

/// Passes the failpoint of this name.
///
/// With the feature: where the environment variable `RUNLEDGER_FAILPOINT` is `name` or `name:n`, the first or the n-th
/// passing of it ends the process at once. No destructor runs and nothing is flushed, as with `kill -9`.
#[inline]
pub fn pass(name: &str) {
    #[cfg(feature = "failpoints")]
    armed::pass(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The one at which this process dies.
    struct Armed {
        name: String,
        /// Passings that are left.
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let word = std::env::var("RUNLEDGER_FAILPOINT").ok()?;
        let (name, count) = word.split_once(':').unwrap_or((&word, "1"));
        // A count that is none never comes to zero, and the test sees a process that did not die.
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(count.parse().unwrap_or(0)) })
    });

    pub(super) fn pass(name: &str) {
        if let Some(armed) = &*ARMED
            && armed.name == name
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}
