//! One at a time for each job: whoever comes while another is at it waits for its turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dockframe_shared::{JobId, QueueDigest};
use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: Mutex<HashMap<(QueueDigest, JobId), Turn>>,
}

impl Turns {
    pub(crate) async fn turn(&self, queue: QueueDigest, job: &JobId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for.
            waiting.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(waiting.entry((queue, job.clone())).or_default())
        };
        lock.lock_owned().await
    }
}
