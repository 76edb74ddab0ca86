//! What relays that share a store tell each other.
//!
//! News are hints: whatever they say is in the store as well, each says of which revision it is, and those who may
//! have missed some read again. So they may be lost, repeated or late, and never make anything true.

use dockframe_shared::{JobId, QueueDigest};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::StoreError;
use crate::queue::view::Key;

/// Something that happened elsewhere, or may have been missed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// A commit, of this process or another: the `count`th of its queue.
    Commit { queue: QueueDigest, count: u64, writes: Vec<Written> },
    /// Another process says something.
    Notice { queue: QueueDigest, process: String, notice: Notice },
    /// Anything may have been missed, in every queue.
    Gap,
}

/// A write of another process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub key: Key,
    pub revision: u64,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Gone,
    Is {
        bytes: Vec<u8>,
        live: bool,
    },
    /// Too long to be told: it is to be read.
    Read,
}

/// What is told and not kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A job has new log lines; as the message that peers of the old way get, if it is short.
    Lines { job: JobId, message: String },
    /// All workers that are connected to that process, as it writes them.
    Workers(String),
    /// Everybody is asked for their workers.
    WhoIsThere,
}

/// The side of a store that lets several relays serve one queue.
pub(crate) trait Others: Send + Sync {
    /// From now on news of this queue come. Each call is undone by one of [`Self::unsubscribe`].
    fn subscribe(&self, queue: QueueDigest) -> BoxFuture<'_, Result<(), StoreError>>;

    fn unsubscribe(&self, queue: QueueDigest);

    /// The news. There is one stream: the first who asks gets it.
    fn news(&self) -> Option<mpsc::Receiver<News>>;

    /// How many commits each queue has had; whoever heard of fewer missed some.
    fn counts(&self, queues: Vec<QueueDigest>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>>;

    /// Looks whether the store has another epoch by now, and gives it one where something `is_lost`. Whether it has
    /// another one than it had when this process asked last.
    fn check_epoch(&self, is_lost: bool) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Tells the others. Lost when the store is away.
    fn tell(&self, queue: QueueDigest, notice: Notice) -> BoxFuture<'_, ()>;
}
