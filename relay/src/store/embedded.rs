//! The store of one machine: a redb file, one writer, group commit.
//!
//! All writes go through one thread ([`writer`]), so that a sync is shared by everybody who waits for one. Reads see
//! the last commit. They are a few page reads from the file's cache, done where they are asked for; only scans move
//! to a blocking thread.
//!
//! What a commit costs is the pages that it touches, each copied, summed and written: so what is live stands apart
//! from what has ended, with its bytes and not as an index besides, and the documents of one job stand together.

mod collect;
mod format;
mod keys;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dockframe_shared::{QueueDigest, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redb::{Database, ReadableDatabase as _, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use self::collect::Collections;
use self::writer::Job;
use super::collect::Collect;
use super::{Commit, Committed, DocumentKey, DueEntry, Store, StoreError, Stored};
use crate::clock::Clock;
use crate::limits::INLINE_RESULT_BYTES;
use crate::queue::view::Key;

type Bytes = &'static [u8];

/// (queue, kind, name) → revision, bytes: of what is live.
const LIVE: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("live entries");
/// The same, of all else. A key is in one of the two.
const ENDED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("entries");
/// (time, queue, kind, job).
const DUE: TableDefinition<'_, Bytes, ()> = TableDefinition::new("due");
/// (job or run, kind, queue of those that belong to one).
const DOCUMENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("documents by name");

/// The file's own cache. The default of 1 GiB is for other uses; records of open queues are in memory anyway, and twice
/// as much was not faster.
const CACHE_BYTES: usize = 3 << 20;
/// Waiting commits; more wait to be queued.
const BACKLOG: usize = 4096;

/// Why the store cannot be opened. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("cannot make the folder of the store, {path}: {cause}")]
    Folder { path: String, cause: std::io::Error },
    #[error("another dockframe has the store {path} open: stop it, or choose another folder")]
    InUse { path: String },
    #[error(
        "the store {path} has the format {found}, and this program reads up to {}: use a newer dockframe",
        format::NOW
    )]
    Newer { path: String, found: String },
    #[error("the store {path} cannot be opened: {cause}")]
    Database { path: String, cause: Box<redb::Error> },
}

pub(crate) struct EmbeddedStore {
    database: Arc<Database>,
    /// Taken away when the store is let go.
    writer: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    epoch: String,
    clock: Clock,
    collections: Arc<Collections>,
    syncs: Arc<AtomicU64>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens `folder/queues.redb`, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenStoreError> {
        let path = folder.display().to_string();
        std::fs::create_dir_all(folder)
            .map_err(|cause| OpenStoreError::Folder { path: path.clone(), cause })?;
        let file = folder.join("queues.redb");
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(&file).map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.clone() },
                other => OpenStoreError::Database { path: path.clone(), cause: Box::new(other.into()) },
            })?;
        let epoch = format::prepare(&database)
            .map_err(|cause| OpenStoreError::Database { path: path.clone(), cause: Box::new(cause) })?
            .map_err(|found| OpenStoreError::Newer { path: path.clone(), found })?;
        let database = Arc::new(database);
        let (writer, jobs) = mpsc::channel(BACKLOG);
        let collections = Arc::new(Collections::default());
        let syncs = Arc::new(AtomicU64::new(0));
        let writes = writer::Writer {
            database: Arc::clone(&database),
            collections: Arc::clone(&collections),
            syncs: Arc::clone(&syncs),
        };
        let thread = writes.start(jobs).map_err(|cause| OpenStoreError::Folder { path, cause })?;
        Ok(Self {
            database,
            writer: Some(writer),
            thread: Some(thread),
            epoch,
            clock: Clock::start(),
            collections,
            syncs,
        })
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let writer = self.writer.as_ref().ok_or_else(gone)?;
        writer.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for EmbeddedStore {
    /// Waits for the writer, so that the file is free when this is gone.
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has written what it acknowledged.
            drop(thread.join());
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the store's writer has ended".into())
}

fn unavailable(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Unavailable(Box::new(error.into()))
}

/// What is kept under a key, live or not.
fn find(
    live: &impl ReadableTable<Bytes, Bytes>,
    ended: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<Option<Stored>, redb::StorageError> {
    let found = match live.get(key)? {
        Some(found) => Some(found),
        None => ended.get(key)?,
    };
    Ok(found.and_then(|found| keys::split_revision(found.value())))
}

impl Store for EmbeddedStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.collections.note(commit.documents.iter().map(|(key, _)| key));
        self.ask(|answer| Job::Commit(commit, answer)).boxed()
    }

    fn read(&self, queue: QueueDigest, key: Key) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        let read = || -> Result<Option<Stored>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let (live, ended) = (transaction.open_table(LIVE)?, transaction.open_table(ENDED)?);
            Ok(find(&live, &ended, &keys::entry(queue, &key))?)
        };
        std::future::ready(read().map_err(unavailable)).boxed()
    }

    fn live(&self, queue: QueueDigest) -> BoxFuture<'_, Result<Vec<(Key, Stored)>, StoreError>> {
        let database = Arc::clone(&self.database);
        let scan = move || -> Result<Vec<(Key, Stored)>, redb::Error> {
            let table = database.begin_read()?.open_table(LIVE)?;
            let (from, to) = keys::range_of(queue);
            let mut found = Vec::new();
            for item in table.range::<&[u8]>(&*from..&*to)? {
                let (key, value) = item?;
                let name = keys::split_entry(key.value());
                found.extend(name.zip(keys::split_revision(value.value())));
            }
            Ok(found)
        };
        blocking(scan)
    }

    fn due(&self, until: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<DueEntry>, StoreError>> {
        let database = Arc::clone(&self.database);
        let scan = move || -> Result<Vec<DueEntry>, redb::Error> {
            let table = database.begin_read()?.open_table(DUE)?;
            let mut found = Vec::new();
            for item in table.range::<&[u8]>(..&*keys::due_until(until))? {
                let (key, _) = item?;
                found.extend(keys::split_due(key.value()));
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        };
        blocking(scan)
    }

    fn document(&self, key: DocumentKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(DOCUMENTS)?;
            Ok(table.get(&*keys::document(&key))?.map(|found| found.value().to_vec()))
        };
        std::future::ready(read().map_err(unavailable)).boxed()
    }

    fn remove_document(
        &self,
        key: DocumentKey,
        only: Option<Vec<u8>>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.ask(|answer| Job::Remove(key, only, answer)).boxed()
    }

    fn epoch(&self) -> String {
        self.epoch.clone()
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn longest_result(&self) -> usize {
        INLINE_RESULT_BYTES
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn collect(&self) -> &dyn Collect {
        self
    }
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> BoxFuture<'static, Result<T, StoreError>> {
    async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(unavailable),
            Err(error) => Err(StoreError::Unavailable(Box::new(error))),
        }
    }
    .boxed()
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::keys;

    pub(crate) fn keys(bytes: &[u8]) {
        let _ = keys::is_collected(bytes);
        if let Some(found) = keys::split_due(bytes) {
            let written = keys::due(found.queue, &found.due);
            assert_eq!(keys::split_due(&written).as_ref(), Some(&found));
        }
        if let Some(key) = keys::split_entry(bytes)
            && let Some(queue) = bytes.first_chunk()
        {
            let written = keys::entry(dockframe_shared::QueueDigest::from_bytes(*queue), &key);
            assert_eq!(keys::split_entry(&written), Some(key));
        }
        let _ = keys::split_revision(bytes);
    }
}

#[cfg(test)]
mod tests;
