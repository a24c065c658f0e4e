//! How much is done for each figure.

/// Counts of events, and of seconds where a rate is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Lone durable appends.
    pub(crate) lone: u64,
    /// Events by many writers, for each writer.
    pub(crate) per_writer: u64,
    /// Events in batches of 100.
    pub(crate) batched: u64,
    /// The log that is folded, read and queried.
    pub(crate) log: u64,
    /// The log that is rebuilt while a writer goes on.
    pub(crate) rebuilt: u64,
    /// The logs of the rows of growth, the smallest first.
    pub(crate) growth: &'static [u64],
    /// Events appended at a modest rate to each of those.
    pub(crate) grown_lag: u64,
    /// Events appended at a fixed rate while the projector follows.
    pub(crate) followed: u64,
    /// Hook processes.
    pub(crate) hooks: u64,
    /// The log whose pages are asked for.
    pub(crate) pages: u64,
    /// Requests for each page.
    pub(crate) page_requests: u64,
    /// The log that is rebuilt under a look at memory.
    pub(crate) memory: u64,
}

impl Sizes {
    pub(crate) const FULL: Self = Self {
        lone: 4_000,
        per_writer: 400,
        batched: 100_000,
        log: 1_000_000,
        rebuilt: 1_000_000,
        growth: &[100_000, 1_000_000, 10_000_000],
        grown_lag: 2_500,
        followed: 100_000,
        hooks: 500,
        pages: 1_000_000,
        page_requests: 200,
        memory: 10_000_000,
    };
    pub(crate) const QUICK: Self = Self {
        lone: 1_000,
        per_writer: 100,
        batched: 30_000,
        log: 50_000,
        rebuilt: 10_000,
        growth: &[5_000, 50_000],
        grown_lag: 400,
        followed: 20_000,
        hooks: 100,
        pages: 50_000,
        page_requests: 100,
        memory: 50_000,
    };
}
