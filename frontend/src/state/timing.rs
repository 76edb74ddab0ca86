//! When a submission leaves the page: a burst of changes becomes one, and a steady stream still gets through
//! (`metaframe` 5.4).

use dockframe_shared::Timestamp;

/// A change after this much quiet is the first of a burst.
const QUIET_MS: i64 = 200;
/// Wait after the first change: others of the same message come within it.
const FIRST_MS: i64 = 20;
/// Wait after a later change of a burst.
const LATER_MS: i64 = 200;
/// However steady the stream, something leaves this long after its first change.
const LATEST_MS: i64 = 1_000;

/// Collects triggers; says when the submission is due.
#[derive(Debug, Default, Clone, Copy)]
pub struct SubmitClock {
    last_trigger: Option<Timestamp>,
    waiting_since: Option<Timestamp>,
}

impl SubmitClock {
    /// Something wants a submission. Returns in how many milliseconds it is due; a later call replaces that.
    pub fn trigger(&mut self, now: Timestamp) -> i64 {
        let is_quiet = self.last_trigger.is_none_or(|last| now.since(last) >= QUIET_MS);
        self.last_trigger = Some(now);
        match self.waiting_since {
            None => {
                self.waiting_since = Some(now);
                if is_quiet { FIRST_MS } else { LATER_MS }
            }
            Some(since) => LATER_MS.min(LATEST_MS - now.since(since)).max(0),
        }
    }

    /// The submission left, or nothing is wanted any more.
    pub fn done(&mut self) {
        self.waiting_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times at which a submission leaves when triggers come at `times`.
    fn departures(times: &[i64]) -> Vec<i64> {
        let mut clock = SubmitClock::default();
        let mut due: Option<i64> = None;
        let mut left = Vec::new();
        for &time in times {
            if let Some(at) = due.filter(|at| *at <= time) {
                left.push(at);
                clock.done();
            }
            due = due.filter(|at| *at > time);
            due = Some(time + clock.trigger(Timestamp::from_millis(time))).or(due);
        }
        left.extend(due);
        left
    }

    #[test]
    fn a_single_change_leaves_after_20_ms() {
        assert_eq!(departures(&[0]), [20]);
        assert_eq!(departures(&[0, 500]), [20, 520]);
    }

    #[test]
    fn a_burst_leaves_once_it_is_over() {
        assert_eq!(departures(&[0, 50, 100, 150]), [20, 350]);
        assert_eq!(departures(&[0, 10]), [210]);
    }

    #[test]
    fn a_steady_stream_leaves_every_second() {
        let steady: Vec<i64> = (0..100).map(|n| n * 100).collect();
        let left = departures(&steady);
        assert!(left.windows(2).all(|pair| pair[1] - pair[0] <= 1_100), "{left:?}");
    }
}
