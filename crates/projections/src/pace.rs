//! How long a rebuild holds the write lock, so that the live projector comes between.

use std::time::{Duration, Instant};

/// How long one transaction may hold the lock, about. Others get it once that, and what came before it without a pause, is
/// half as long; so nobody waits for longer than the 50 ms that are promised.
const HELD_AIM: Duration = Duration::from_millis(20);
/// How long they have to take it, longer than the live projector's step of waiting.
const PAUSE: Duration = Duration::from_millis(3);
/// Rows, or events, of one transaction, at the most.
const COUNT_MAX: usize = 50_000;

/// The turns of one rebuild at the write lock.
#[derive(Default)]
pub(crate) struct Pace {
    held: Duration,
}

impl Pace {
    /// After a transaction that began then and wrote so many rows, or events: waits where others are due, and says how
    /// many the next one should write.
    pub(crate) fn next(&mut self, count: usize, began: Instant) -> usize {
        let took = began.elapsed();
        self.held += took;
        if self.held >= HELD_AIM / 2 {
            std::thread::sleep(PAUSE);
            self.held = Duration::ZERO;
        }
        if took > HELD_AIM {
            (count / 2).max(16)
        } else if took < HELD_AIM / 2 {
            count.saturating_mul(2).min(COUNT_MAX)
        } else {
            count
        }
    }
}
