//! Where queues are kept: one generic commit, and reads.
//!
//! The store knows nothing of jobs. It keeps bytes with revisions under (queue digest, key), an index of what is
//! live in a queue, due entries ordered by time, and documents that are set once. A commit is a compare-and-set
//! over all that one decision touched, under one queue, so that any store with an atomic step per queue can be
//! behind it: a transaction of the embedded database, a script on a Redis slot.
//!
//! Queues are known by their digest alone: no name ever reaches a store (`jobs-and-states` 9, 12).

#[cfg(test)]
mod behaviour;
pub(crate) mod codec;
pub(crate) mod collect;
pub(crate) mod embedded;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod names;
pub(crate) mod news;
pub(crate) mod redis;
#[cfg(test)]
mod versions;

use dockframe_shared::{JobId, LeaseId, QueueDigest, Timestamp};
use futures_util::future::BoxFuture;

use self::collect::Collect;
use self::news::Others;
use crate::clock::Clock;
use crate::queue::command::{Decision, Due};
use crate::queue::view::{Entry, Key};

/// Bytes with their revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub revision: u64,
    pub bytes: Vec<u8>,
}

/// One compare-and-set over a queue.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub queue: QueueDigest,
    /// When it was decided. A store that cannot be sure to hear of it at once refuses an old one, as a conflict in
    /// which nothing is named.
    pub at: Timestamp,
    pub writes: Vec<StoreWrite>,
    /// New due entries.
    pub due: Vec<Due>,
    /// Due entries that this commit has dealt with.
    pub done: Vec<Due>,
    /// Set unless they are there, before anybody can see this commit: a store that cannot do both in one step does
    /// this first.
    pub documents: Vec<(DocumentKey, Vec<u8>)>,
    /// Set unless they are there, not before this commit is sure: a store that cannot do both in one step does this
    /// after it, and a due entry repeats it.
    pub offers: Vec<(DocumentKey, Vec<u8>)>,
}

impl Commit {
    /// What a decision writes and makes due. What goes with it is the caller's to add.
    pub(crate) fn of<E>(
        queue: QueueDigest,
        at: Timestamp,
        decision: &Decision,
        mut encode: impl FnMut(&Entry) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut writes = Vec::with_capacity(decision.writes.len());
        for write in &decision.writes {
            // Written once, by a decision whose record is compared.
            let any = matches!(write.key, Key::Run(_));
            writes.push(StoreWrite {
                key: write.key.clone(),
                expected: if any { ANY_REVISION } else { write.expected },
                revision: write.revision,
                bytes: write.entry.as_ref().map(&mut encode).transpose()?,
                live: write.live,
            });
        }
        Ok(Self {
            queue,
            at,
            writes,
            due: decision.due.clone(),
            done: Vec::new(),
            documents: Vec::new(),
            offers: Vec::new(),
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct StoreWrite {
    pub key: Key,
    /// 0: must be absent. [`ANY_REVISION`]: whatever is there.
    pub expected: u64,
    pub revision: u64,
    /// `None`: taken away.
    pub bytes: Option<Vec<u8>>,
    pub live: bool,
}

/// No expectation: for things that are written once by a decision whose record is compared.
pub(crate) const ANY_REVISION: u64 = u64::MAX;

/// What a commit came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Committed {
    /// Durable.
    Ok,
    /// Others were faster: what is there now instead of what was expected. Nothing was written.
    Conflict(Vec<(Key, Option<Stored>)>),
}

/// Documents that stand outside the queues: immutable, or set once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum DocumentKey {
    /// A definition under its verified id, the same everywhere.
    Definition(JobId),
    /// A definition under an id of a client's own: it belongs to its queue.
    OwnDefinition(QueueDigest, JobId),
    /// The result of a run, when it is small.
    Result(LeaseId),
    /// The first result of a job recorded in any queue.
    Shared(JobId),
    /// The queue that had a job first: reads without a queue look there.
    Home(JobId),
}

/// A due entry with the queue that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueEntry {
    pub queue: QueueDigest,
    pub due: Due,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the store holds something that cannot be read: {0}")]
    Corrupt(String),
}

/// What queues are kept in.
pub(crate) trait Store: Send + Sync + std::fmt::Debug {
    /// Writes all or nothing; `Ok` once it is durable.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>>;

    fn read(&self, queue: QueueDigest, key: Key) -> BoxFuture<'_, Result<Option<Stored>, StoreError>>;

    /// All that is live in a queue.
    fn live(&self, queue: QueueDigest) -> BoxFuture<'_, Result<Vec<(Key, Stored)>, StoreError>>;

    /// Due entries up to a time, the oldest first.
    fn due(&self, until: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<DueEntry>, StoreError>>;

    fn document(&self, key: DocumentKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Takes it away if it is still this one; `None`: whatever it is.
    fn remove_document(
        &self,
        key: DocumentKey,
        only: Option<Vec<u8>>,
    ) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Random, made with the store: another one once the store was replaced, or lost something.
    fn epoch(&self) -> String;

    /// The clock that decides what is due.
    fn clock(&self) -> Clock;

    /// Results up to so many bytes are kept here, longer ones among the files.
    fn longest_result(&self) -> usize;

    /// How often this process has synced what is kept here; 0 where another one does.
    fn syncs(&self) -> u64 {
        0
    }

    /// The side of garbage collection.
    fn collect(&self) -> &dyn Collect;

    /// The other relays of this store; `None`: there can be none.
    fn others(&self) -> Option<&dyn Others> {
        None
    }
}
