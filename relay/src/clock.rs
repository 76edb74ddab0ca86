//! The relay's clock: the time of day at the start, moved on by the monotonic clock.
//!
//! So no step of the machine's clock can end a lease or reorder a queue within the life of a process. Where the
//! store has a clock of its own, that one counts: with each answer it is learned anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dockframe_shared::Timestamp;

#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// What the time was at the start, in milliseconds.
    start: AtomicI64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        Self(Arc::new(Inner { started: Instant::now(), start: AtomicI64::new(start) }))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let start = Timestamp::from_millis(self.0.start.load(Ordering::Relaxed));
        start.plus_millis(self.passed(Instant::now()))
    }

    fn passed(&self, until: Instant) -> i64 {
        let passed = until.saturating_duration_since(self.0.started);
        i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)
    }

    /// The clock that counts showed this time between `asked` and now. Nothing changes if that may be so already.
    pub(crate) fn learn(&self, time: Timestamp, asked: Instant) {
        let earliest = time.as_millis() - self.passed(Instant::now()) - 1;
        let latest = time.as_millis() - self.passed(asked) + 1;
        let start = self.0.start.load(Ordering::Relaxed);
        if start < earliest || start > latest {
            self.0.start.store(start.clamp(earliest, latest.max(earliest)), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_clock_counts_whether_it_is_ahead_or_behind() {
        let clock = Clock::start();
        for time in [5_000_000, 1_000] {
            clock.learn(Timestamp::from_millis(time), Instant::now());
            let shown = clock.now().as_millis();
            assert!((time - 2..time + 1_000).contains(&shown), "{shown}");
        }
    }
}
