//! How often something may happen: so many times a second for long, and so many at once after a pause.

use std::sync::{Mutex, PoisonError};

use dockframe_shared::Timestamp;

/// A bucket that fills with time.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    burst: u32,
    /// What is left, in thousandths, and when that was counted.
    left: Mutex<Option<(u64, Timestamp)>>,
}

impl Rate {
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, left: Mutex::new(None) }
    }

    /// Takes one; or says in how many seconds there is one again.
    pub(crate) fn take(&self, now: Timestamp) -> Result<(), u64> {
        let full = u64::from(self.burst) * 1000;
        // It is whole at every step.
        let mut state = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = state.unwrap_or((full, now));
        let passed = u64::try_from(now.since(since)).unwrap_or(0);
        let left = left.saturating_add(passed.saturating_mul(u64::from(self.per_second))).min(full);
        let (left, answer) = match left.checked_sub(1000) {
            Some(left) => (left, Ok(())),
            None => (left, Err(1 + 1 / u64::from(self.per_second.max(1)))),
        };
        *state = Some((left, now.max(since)));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_what_comes_after_waits_for_its_turn() {
        let rate = Rate::new(10, 3);
        let at = Timestamp::from_millis;
        for _ in 0..3 {
            assert_eq!(rate.take(at(5_000)), Ok(()));
        }
        assert!(rate.take(at(5_000)).is_err());
        assert!(rate.take(at(5_099)).is_err());
        assert_eq!(rate.take(at(5_100)), Ok(()));
        assert!(rate.take(at(4_000)).is_err(), "a clock that steps back gives nothing");
        for _ in 0..3 {
            assert_eq!(rate.take(at(60_000)), Ok(()));
        }
        assert!(rate.take(at(60_000)).is_err(), "a pause does not give more than a burst");
    }
}
