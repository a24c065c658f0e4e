//! How long a rebuild holds the write lock, so that the live projector comes between.

use std::time::{Duration, Instant};

/// How long one transaction is meant to hold the lock. Others get it once that, and what came before it without a pause, is
/// half as long.
const HELD_AIM: Duration = Duration::from_millis(20);
/// How long they have to take it, longer than the live projector's step of waiting.
const PAUSE: Duration = Duration::from_millis(3);
/// Rows, or events, of one transaction: rows of one table can cost ten times what those of the last one did, so that a
/// longer one would come to 0.1 s before it is noticed.
const COUNT: std::ops::RangeInclusive<usize> = 16..=8_000;

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
        let aim = HELD_AIM.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON);
        // At most twice as many, as what comes next may cost more.
        let next = (count as f64 * aim.min(2.0)) as usize;
        next.clamp(*COUNT.start(), *COUNT.end())
    }
}
