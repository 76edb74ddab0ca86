//! The relay's clock: the time of day at the start, moved on by the monotonic clock.
//!
//! So no step of the machine's clock can end a lease or reorder a queue within the life of a process.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dockframe_shared::Timestamp;

#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<(Timestamp, Instant)>);

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        Self(Arc::new((start, Instant::now())))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.0.1.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.0.0.plus_millis(passed)
    }
}
