//! Garbage collection of the embedded store: one process, one writer, so what is named is remembered in memory and
//! looked at by the writer itself, in the transaction that takes a document away.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use dockframe_shared::Timestamp;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTableMetadata as _};

use super::{Bytes, DOCUMENTS, ENDED, EmbeddedStore, Job, LIVE, blocking, keys};
use crate::queue::view::Key;
use crate::store::collect::{AnyEntry, Collect, Cursor, Page};
use crate::store::{DocumentKey, Store as _, StoreError};

/// The collection under way; `None`: there is none.
#[derive(Default)]
pub(super) struct Collections(Mutex<Option<Collection>>);

#[derive(Default)]
struct Collection {
    /// The documents that were named since it began.
    named: HashSet<Vec<u8>>,
    /// What the entries are read from, page by page: entries go from one table to the other meanwhile, and none may be
    /// missed.
    snapshot: Option<Arc<ReadTransaction>>,
}

impl Collections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Collection>> {
        // It is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before a commit is handed to the writer.
    pub(super) fn note<'a>(&self, named: impl Iterator<Item = &'a DocumentKey>) {
        if let Some(collection) = &mut *self.lock() {
            collection.named.extend(named.map(keys::document));
        }
    }

    /// What is there now for a first page, and for further ones what was there then.
    fn snapshot(&self, database: &Database, is_first: bool) -> Result<Arc<ReadTransaction>, redb::Error> {
        let mut collection = self.lock();
        let kept = collection.as_mut().map(|collection| &mut collection.snapshot);
        match kept {
            Some(Some(snapshot)) if !is_first => Ok(Arc::clone(snapshot)),
            kept => {
                let snapshot = Arc::new(database.begin_read()?);
                if let Some(kept) = kept {
                    *kept = Some(Arc::clone(&snapshot));
                }
                Ok(snapshot)
            }
        }
    }
}

/// The writer's part: removes what nobody named.
pub(super) fn remove_unnamed(
    documents: &mut redb::Table<'_, Bytes, Bytes>,
    collections: &Collections,
    names: &[Vec<u8>],
) -> Result<u64, redb::Error> {
    let collection = collections.lock();
    let mut removed = 0;
    for name in names {
        // Without a collection under way nothing is known of who needs it.
        if collection.as_ref().is_some_and(|collection| !collection.named.contains(name)) {
            removed += u64::from(documents.remove(&**name)?.is_some());
        }
    }
    Ok(removed)
}

impl Collect for EmbeddedStore {
    fn take_turn(&self, _for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        std::future::ready(Ok(true)).boxed()
    }

    fn begin(&self) {
        *self.collections.lock() = Some(Collection::default());
    }

    fn end(&self) {
        *self.collections.lock() = None;
    }

    fn settle(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // The writer takes one thing after the other.
        async move { self.ask(|answer| Job::RemoveUnnamed(Vec::new(), answer)).await.map(|_| ()) }.boxed()
    }

    fn entries(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AnyEntry>, StoreError>> {
        let (database, collections) = (Arc::clone(&self.database), Arc::clone(&self.collections));
        blocking(move || {
            let snapshot = collections.snapshot(&database, after.is_none())?;
            let (from, is_ended) = keys::split_cursor(after.as_deref());
            let table = snapshot.open_table(if is_ended { ENDED } else { LIVE })?;
            let mut page = Page::default();
            let mut last = None;
            for item in table.range::<&[u8]>(keys::from(from))?.take(limit) {
                let (key, value) = item?;
                let wanted = keys::split_entry(key.value())
                    .filter(|key| matches!(key, Key::Record(_) | Key::Worker(_)));
                let stored = keys::split_revision(value.value());
                if let (Some(queue), Some(key), Some(stored)) = (keys::queue_of(key.value()), wanted, stored)
                {
                    page.items.push((queue, key, stored));
                }
                last = Some(key);
            }
            page.next = match last {
                Some(last) => Some(keys::cursor(is_ended, last.value())),
                None if is_ended => None,
                None => Some(keys::cursor(true, &[])),
            };
            Ok(page)
        })
    }

    fn documents(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Vec<u8>>, StoreError>> {
        let database = Arc::clone(&self.database);
        blocking(move || {
            let table = database.begin_read()?.open_table(DOCUMENTS)?;
            let mut page = Page::default();
            for item in table.range::<&[u8]>(keys::from(after.as_deref()))?.take(limit) {
                let (key, _) = item?;
                page.next = Some(key.value().to_vec());
                if keys::is_collected(key.value()) {
                    page.items.push(key.value().to_vec());
                }
            }
            Ok(page)
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let database = Arc::clone(&self.database);
        blocking(move || Ok(database.begin_read()?.open_table(DOCUMENTS)?.len()?))
    }

    fn name_of(&self, key: &DocumentKey) -> Vec<u8> {
        keys::document(key)
    }

    fn name(&self, key: DocumentKey) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.collections.note(std::iter::once(&key));
        async move { Ok(self.document(key).await?.is_some()) }.boxed()
    }

    fn remove_unnamed(
        &self,
        names: Vec<Vec<u8>>,
        _since: Timestamp,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.ask(|answer| Job::RemoveUnnamed(names, answer)).boxed()
    }
}
