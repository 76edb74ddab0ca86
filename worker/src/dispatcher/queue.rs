//! One queue: its registration, its results on disk, and what is on its way to the relay.

use std::collections::{BTreeMap, VecDeque};

use dockframe_shared::protocol::{Registration, WorkerMessage};
use dockframe_shared::{LeaseId, QueueKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::outbox::Outbox;
use crate::spool::UpTo;

/// One queue, as the dispatcher sees it.
pub(crate) struct Queue {
    pub(crate) key: QueueKey,
    pub(crate) registration: watch::Sender<Registration>,
    pub(crate) outbox: Outbox,
    pub(crate) cache_volume: Option<String>,
    pub(super) frames: Option<mpsc::UnboundedSender<String>>,
    pub(super) sent: u64,
    /// Log frames on their way, by their number on this connection.
    pub(super) in_flight: VecDeque<(u64, LeaseId, UpTo)>,
    pub(super) epoch: Option<String>,
    pub(super) letters: BTreeMap<LeaseId, Letter>,
}

/// A result on disk.
#[derive(Debug, Default)]
pub(super) struct Letter {
    pub(super) sent: Option<Instant>,
    pub(super) answered: Option<Instant>,
}

impl Queue {
    pub(crate) fn new(
        key: QueueKey,
        registration: watch::Sender<Registration>,
        outbox: Outbox,
        cache_volume: Option<String>,
    ) -> Self {
        let letters = outbox.leases().into_iter().map(|lease| (lease, Letter::default())).collect();
        let epoch = outbox.epoch();
        Self {
            key,
            registration,
            outbox,
            cache_volume,
            frames: None,
            sent: 0,
            in_flight: VecDeque::new(),
            epoch,
            letters,
        }
    }

    /// Whether it went out. What does not is named in the next registration, spooled, or in the outbox.
    pub(super) fn send(&mut self, frame: String) -> bool {
        let is_sent = self.frames.as_ref().is_some_and(|frames| frames.send(frame).is_ok());
        if is_sent {
            self.sent += 1;
        } else {
            self.frames = None;
        }
        is_sent
    }

    pub(super) fn say(&mut self, message: &WorkerMessage) -> bool {
        // A message of texts and numbers is always writable.
        serde_json::to_string(message).is_ok_and(|frame| self.send(frame))
    }

    /// Sends a result as it stands on disk.
    pub(super) fn post(&mut self, lease: &LeaseId) {
        match self.outbox.get(lease) {
            Ok(Some(frame)) => {
                if self.send(frame)
                    && let Some(letter) = self.letters.get_mut(lease)
                {
                    letter.sent = Some(Instant::now());
                }
            }
            Ok(None) => drop(self.letters.remove(lease)),
            Err(error) => warn!("a result cannot be read from disk: {error}"),
        }
    }
}
