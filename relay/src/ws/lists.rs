//! Whole lists for old peers, at a cost that is bounded: one each 250 ms and socket at most (`relay-protocol` 3.13).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::queue::outbox::Outbox;
use crate::queue::service::Service;

const APART_MS: i64 = 250;

/// When a socket had its last whole list.
#[derive(Debug, Default)]
pub(super) struct Lists {
    last: AtomicI64,
    /// One is due already.
    pending: Arc<AtomicBool>,
}

impl Lists {
    /// Whether a list may go now; if not, it is asked for again when it may.
    pub(super) fn may_go(&self, service: &Service, outbox: &Arc<Outbox>) -> bool {
        let now = service.now().as_millis();
        let wait = APART_MS - (now - self.last.load(Ordering::Relaxed));
        if wait <= 0 {
            self.last.store(now, Ordering::Relaxed);
            return true;
        }
        if !self.pending.swap(true, Ordering::Relaxed) {
            let (outbox, pending) = (Arc::clone(outbox), Arc::clone(&self.pending));
            let stop = service.stopping().clone();
            let wait = Duration::from_millis(wait.unsigned_abs());
            service.tasks().spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                }
                pending.store(false, Ordering::Relaxed);
                outbox.full_list();
            });
        }
        false
    }
}
