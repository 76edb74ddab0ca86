//! How many of something there may be at once: so many in all, and of these so many for one queue, so that what one
//! queue does takes nothing from another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dockframe_shared::QueueDigest;

#[derive(Debug, Clone)]
pub(crate) struct Turns {
    state: Arc<Mutex<State>>,
    in_all: usize,
    of_a_queue: usize,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    queues: HashMap<QueueDigest, usize>,
}

/// One may be under way as long as this is held.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    queue: QueueDigest,
}

impl Turns {
    pub(crate) fn new(in_all: usize, of_a_queue: usize) -> Self {
        Self { state: Arc::default(), in_all, of_a_queue }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts are whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One, if there is one free for this queue.
    pub(crate) fn take_one(&self, queue: QueueDigest) -> Option<Turn> {
        self.take(queue, 1).pop()
    }

    /// As many as are free for this queue, at most `wanted`.
    pub(crate) fn take(&self, queue: QueueDigest, wanted: usize) -> Vec<Turn> {
        let mut state = self.lock();
        let all = self.in_all.saturating_sub(state.all);
        let taken = state.queues.get(&queue).copied().unwrap_or(0);
        let free = wanted.min(all).min(self.of_a_queue.saturating_sub(taken));
        if free > 0 {
            state.all += free;
            *state.queues.entry(queue).or_default() += free;
        }
        (0..free).map(|_| Turn { turns: self.clone(), queue }).collect()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.all = state.all.saturating_sub(1);
        if let Some(count) = state.queues.get_mut(&self.queue) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.queues.remove(&self.queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dockframe_shared::QueueKey;

    use super::*;

    #[test]
    fn a_queue_cannot_take_the_turns_of_another_and_turns_come_back() {
        let turns = Turns::new(1024, 16);
        let [one, other] = ["one", "other"].map(|name| QueueKey::new(name).unwrap().digest());
        let taken = turns.take(one, 100);
        assert_eq!(taken.len(), 16);
        assert_eq!(turns.take(one, 1).len(), 0);
        assert_eq!(turns.take(other, 3).len(), 3);
        drop(taken);
        assert_eq!(turns.take(one, 2).len(), 2);
        assert!(turns.lock().queues.is_empty());
    }
}
