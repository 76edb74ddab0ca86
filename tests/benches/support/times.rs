//! Many durations, and what is said of them.

use std::time::Duration;

/// Durations of one kind.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time, in milliseconds, that so many percent did not exceed; 0 without any.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn p95(&self) -> f64 {
        self.percentile(95)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

/// So many in that time, per second.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
