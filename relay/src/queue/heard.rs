//! How much of a queue's history this process has heard, where other relays write to it too.
//!
//! Commits of a queue are counted. Whoever heard of as many as there are knows all; whoever missed one, or cannot be
//! sure, doubts until the queue was read again.

use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::QueueDigest;
use tokio::sync::watch;

use crate::store::{Store, StoreError};

/// A subscription to the news of a queue, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Subscription {
    store: Arc<dyn Store>,
    queue: QueueDigest,
}

impl Subscription {
    /// `None`: this process alone writes to the store.
    pub(crate) async fn start(
        store: &Arc<dyn Store>,
        queue: QueueDigest,
    ) -> Result<Option<Self>, StoreError> {
        let Some(others) = store.others() else { return Ok(None) };
        others.subscribe(queue).await?;
        Ok(Some(Self { store: Arc::clone(store), queue }))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(others) = self.store.others() {
            others.unsubscribe(self.queue);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Heard {
    state: watch::Sender<State>,
    _subscription: Option<Subscription>,
}

#[derive(Debug, Default)]
struct State {
    /// Commits that were heard of.
    count: u64,
    /// Reasons to read the queue again so far, and how many of them are dealt with.
    doubts: u64,
    settled: u64,
}

impl Heard {
    /// The queue is read after the subscription began and after it had `count` commits.
    pub(crate) fn new(subscription: Option<Subscription>, count: u64) -> Self {
        let state = State { count, ..State::default() };
        Self { state: watch::Sender::new(state), _subscription: subscription }
    }

    /// The effects of the commit are taken in. `false`: others before it were not heard of.
    pub(crate) fn of(&self, count: u64) -> bool {
        let mut complete = true;
        self.state.send_if_modified(|state| {
            complete = count <= state.count + 1;
            let is_more = count > state.count;
            state.count = state.count.max(count);
            is_more
        });
        complete
    }

    pub(crate) fn count(&self) -> u64 {
        self.state.borrow().count
    }

    /// The store has fewer commits than were heard of: it was replaced, or has lost some. It is counted from here.
    pub(crate) fn begin_again(&self, count: u64) {
        self.state.send_modify(|state| state.count = count);
    }

    /// Whether it is the first doubt, so that the queue is to be read by whoever had it.
    pub(crate) fn doubt(&self) -> bool {
        let mut is_first = false;
        self.state.send_modify(|state| {
            is_first = state.doubts == state.settled;
            state.doubts += 1;
        });
        is_first
    }

    /// The doubts that reading the queue from now on will settle.
    pub(crate) fn doubts(&self) -> u64 {
        self.state.borrow().doubts
    }

    /// The queue was read, with at least so many commits. Whether no doubt is left.
    pub(crate) fn settle(&self, doubts: u64, count: u64) -> bool {
        let mut is_sure = true;
        self.state.send_modify(|state| {
            state.settled = state.settled.max(doubts);
            state.count = state.count.max(count);
            is_sure = state.settled == state.doubts;
        });
        is_sure
    }

    /// Waits until so many commits are heard of, without a doubt; not longer than the limit.
    pub(crate) async fn reaches(&self, count: u64, limit: Duration) -> bool {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| state.count >= count && state.settled == state.doubts);
        tokio::time::timeout(limit, reached).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_commit_shows_and_a_repeated_one_does_not() {
        let heard = Heard::new(None, 3);
        assert!(heard.of(4) && heard.of(4) && heard.of(2));
        assert!(!heard.of(6));
        assert_eq!(heard.count(), 6);
    }

    #[tokio::test]
    async fn who_doubts_is_not_sure_until_the_queue_was_read_since() {
        let heard = Heard::new(None, 0);
        assert!(heard.doubt());
        let first = heard.doubts();
        assert!(!heard.doubt(), "somebody reads already");
        assert!(!heard.settle(first, 5), "what came while it was read is not settled");
        assert!(!heard.reaches(5, Duration::ZERO).await);
        assert!(heard.settle(heard.doubts(), 5));
        assert!(heard.reaches(5, Duration::ZERO).await);
        assert!(!heard.reaches(6, Duration::ZERO).await);
    }
}
