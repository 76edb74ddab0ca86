//! What garbage collection asks of a store.
//!
//! Documents stand outside the queues and several records may need one of them, so no commit can take one away. A
//! collection looks which documents no record needs. What is *named* (by a commit that sets it, or by
//! [`Collect::name`]) after the collection began is left alone: its record may not be there yet. So a collection
//! may run beside everything else, and beside those of other relays.

use dockframe_shared::{QueueDigest, Timestamp};
use futures_util::future::BoxFuture;

use super::{DocumentKey, StoreError, Stored};
use crate::queue::view::Key;

/// Where the next page begins, in the store's own way.
pub(crate) type Cursor = Vec<u8>;

/// Some of a long list. It may be empty without being the last.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<Cursor>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// An entry of any queue.
pub(crate) type AnyEntry = (QueueDigest, Key, Stored);

pub(crate) trait Collect: Send + Sync {
    /// Whether this process is to collect now. Where several share a store, one of them gets the turn, and nobody
    /// else for so many milliseconds.
    fn take_turn(&self, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// From now on it is remembered what is named. What was named before is committed a few seconds later at most.
    fn begin(&self);

    fn end(&self);

    /// All that is ordered has happened when this returns.
    fn settle(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Records and workers of all queues. Whatever is there from the first page to the last is among them.
    fn entries(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AnyEntry>, StoreError>>;

    /// Names of definitions, of results and of which queue had a job first, likewise. Shared results have a due
    /// step of their own.
    fn documents(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Vec<u8>>, StoreError>>;

    /// About how many of everything there are.
    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// A document as [`Self::documents`] names it.
    fn name_of(&self, key: &DocumentKey) -> Vec<u8>;

    /// Says that a record is about to need this document; whether it is there.
    fn name(&self, key: DocumentKey) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes away those of these documents that were not named since; how many.
    fn remove_unnamed(&self, names: Vec<Vec<u8>>, since: Timestamp)
    -> BoxFuture<'_, Result<u64, StoreError>>;
}
