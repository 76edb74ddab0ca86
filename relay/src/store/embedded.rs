//! The store of one machine: a redb file, one writer, group commit.
//!
//! All writes go through one thread that takes what has gathered, makes one transaction of it, and answers after
//! the sync: so a sync is shared by everybody who waits for one. Reads see the last commit. They are a few page
//! reads from the file's cache, done where they are asked for; only scans move to a blocking thread.

mod collect;
mod keys;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dockframe_shared::{QueueDigest, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use self::collect::Named;
use super::collect::Collect;
use super::{ANY_REVISION, Commit, Committed, DocumentKey, DueEntry, Store, StoreError, StoreWrite, Stored};
use crate::clock::Clock;
use crate::limits::INLINE_RESULT_BYTES;
use crate::queue::view::Key;

type Bytes = &'static [u8];

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
/// (queue, kind, name) → revision, bytes.
const ENTRIES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("entries");
/// (queue, kind, name) of what is live.
const LIVE: TableDefinition<'_, Bytes, ()> = TableDefinition::new("live");
/// (time, queue, kind, job).
const DUE: TableDefinition<'_, Bytes, ()> = TableDefinition::new("due");
const DOCUMENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("documents");

const FORMAT: &str = "1";
/// The file's own cache. The default of 1 GiB is for other uses; records of open queues are in memory anyway.
const CACHE_BYTES: usize = 6 << 20;
/// So many commits share one sync at most: bounds what is lost of the first one's patience.
const GROUP: usize = 256;
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
        "the store {path} has the format {found}, and this program reads up to {FORMAT}: use a newer dockframe"
    )]
    Newer { path: String, found: String },
    #[error("the store {path} cannot be opened: {cause}")]
    Database { path: String, cause: Box<redb::Error> },
}

enum Job {
    Commit(Commit, oneshot::Sender<Result<Committed, StoreError>>),
    Remove(DocumentKey, Option<Vec<u8>>, oneshot::Sender<Result<bool, StoreError>>),
    /// Of the garbage collection: documents by their keys here.
    RemoveUnnamed(Vec<Vec<u8>>, oneshot::Sender<Result<u64, StoreError>>),
}

/// An answer that is given once the transaction is durable.
enum Answer {
    Commit(Committed, oneshot::Sender<Result<Committed, StoreError>>),
    Remove(bool, oneshot::Sender<Result<bool, StoreError>>),
    RemoveUnnamed(u64, oneshot::Sender<Result<u64, StoreError>>),
}

pub(crate) struct EmbeddedStore {
    database: Arc<Database>,
    /// Taken away when the store is let go.
    writer: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    epoch: String,
    clock: Clock,
    named: Arc<Named>,
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
        let epoch = prepare(&database)
            .map_err(|cause| OpenStoreError::Database { path: path.clone(), cause: Box::new(cause) })?
            .map_err(|found| OpenStoreError::Newer { path: path.clone(), found })?;
        let database = Arc::new(database);
        let (writer, jobs) = mpsc::channel(BACKLOG);
        let named = Arc::new(Named::default());
        let syncs = Arc::new(AtomicU64::new(0));
        let shared = (Arc::clone(&database), Arc::clone(&named), Arc::clone(&syncs));
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_all(&shared.0, &shared.1, &shared.2, jobs))
            .map_err(|cause| OpenStoreError::Folder { path, cause })?;
        Ok(Self {
            database,
            writer: Some(writer),
            thread: Some(thread),
            epoch,
            clock: Clock::start(),
            named,
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

/// Makes the tables, checks the format. The inner error is a format of a newer program.
fn prepare(database: &Database) -> Result<Result<String, String>, redb::Error> {
    let transaction = database.begin_write()?;
    let epoch;
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("format")?.map(|value| value.value().to_owned());
        match found {
            None => {
                meta.insert("format", FORMAT)?;
            }
            Some(found) if found == FORMAT => {}
            Some(found) => return Ok(Err(found)),
        }
        let known = meta.get("epoch")?.map(|value| value.value().to_owned());
        epoch = match known {
            Some(known) => known,
            None => {
                let made = uuid::Uuid::new_v4().simple().to_string();
                meta.insert("epoch", made.as_str())?;
                made
            }
        };
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LIVE)?;
        transaction.open_table(DUE)?;
        transaction.open_table(DOCUMENTS)?;
    }
    transaction.commit()?;
    Ok(Ok(epoch))
}

/// The writer: takes what waits, commits it together, answers. Ends when nobody can ask any more.
fn write_all(database: &Database, named: &Named, syncs: &AtomicU64, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match jobs.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let mut answers = Vec::with_capacity(group.len());
        // Senders of a failed group are dropped with their answers, so that everybody hears "unavailable".
        match write_group(database, named, group, &mut answers) {
            Ok(()) => {
                syncs.fetch_add(1, Ordering::Relaxed);
                for answer in answers {
                    // Whoever does not wait any more does not need the answer.
                    match answer {
                        Answer::Commit(committed, to) => drop(to.send(Ok(committed))),
                        Answer::Remove(removed, to) => drop(to.send(Ok(removed))),
                        Answer::RemoveUnnamed(removed, to) => drop(to.send(Ok(removed))),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the store cannot write"),
        }
    }
}

fn write_group(
    database: &Database,
    named: &Named,
    group: Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut live = transaction.open_table(LIVE)?;
        let mut due = transaction.open_table(DUE)?;
        let mut documents = transaction.open_table(DOCUMENTS)?;
        for job in group {
            match job {
                Job::Commit(commit, to) => {
                    let conflicts = conflicts(&entries, &commit)?;
                    if !conflicts.is_empty() {
                        answers.push(Answer::Commit(Committed::Conflict(conflicts), to));
                        continue;
                    }
                    for StoreWrite { key, revision, bytes, live: is_live, .. } in &commit.writes {
                        let key = keys::entry(commit.queue, key);
                        match bytes {
                            Some(bytes) => {
                                entries.insert(&*key, &*keys::with_revision(*revision, bytes))?;
                            }
                            None => {
                                entries.remove(&*key)?;
                            }
                        }
                        if *is_live {
                            live.insert(&*key, ())?;
                        } else {
                            live.remove(&*key)?;
                        }
                    }
                    for done in &commit.done {
                        due.remove(&*keys::due(commit.queue, done))?;
                    }
                    for new in &commit.due {
                        due.insert(&*keys::due(commit.queue, new), ())?;
                    }
                    for (key, bytes) in commit.documents.iter().chain(&commit.offers) {
                        let key = keys::document(key);
                        if documents.get(&*key)?.is_none() {
                            documents.insert(&*key, &**bytes)?;
                        }
                    }
                    answers.push(Answer::Commit(Committed::Ok, to));
                }
                Job::Remove(key, bytes, to) => {
                    let key = keys::document(&key);
                    let is_it = documents
                        .get(&*key)?
                        .is_some_and(|known| bytes.as_ref().is_none_or(|bytes| known.value() == bytes));
                    if is_it {
                        documents.remove(&*key)?;
                    }
                    answers.push(Answer::Remove(is_it, to));
                }
                Job::RemoveUnnamed(names, to) => {
                    let removed = collect::remove_unnamed(&mut documents, named, &names)?;
                    answers.push(Answer::RemoveUnnamed(removed, to));
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn conflicts(
    entries: &redb::Table<'_, Bytes, Bytes>,
    commit: &Commit,
) -> Result<Vec<(Key, Option<Stored>)>, redb::Error> {
    let mut conflicts = Vec::new();
    for StoreWrite { key, expected, .. } in &commit.writes {
        if *expected == ANY_REVISION {
            continue;
        }
        let found = entries.get(&*keys::entry(commit.queue, key))?;
        let found = found.and_then(|found| keys::split_revision(found.value()));
        if found.as_ref().map_or(0, |found| found.revision) != *expected {
            conflicts.push((key.clone(), found));
        }
    }
    Ok(conflicts)
}

impl Store for EmbeddedStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.named.note(commit.documents.iter().map(|(key, _)| key));
        self.ask(|answer| Job::Commit(commit, answer)).boxed()
    }

    fn read(&self, queue: QueueDigest, key: Key) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        let read = || -> Result<Option<Stored>, redb::Error> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            let found = table.get(&*keys::entry(queue, &key))?;
            Ok(found.and_then(|found| keys::split_revision(found.value())))
        };
        std::future::ready(read().map_err(unavailable)).boxed()
    }

    fn live(&self, queue: QueueDigest) -> BoxFuture<'_, Result<Vec<(Key, Stored)>, StoreError>> {
        let database = Arc::clone(&self.database);
        let scan = move || -> Result<Vec<(Key, Stored)>, redb::Error> {
            let transaction = database.begin_read()?;
            let live = transaction.open_table(LIVE)?;
            let entries = transaction.open_table(ENTRIES)?;
            let (from, to) = keys::range_of(queue);
            let mut found = Vec::new();
            for item in live.range::<&[u8]>(&*from..&*to)? {
                let (key, ()) = {
                    let (key, _) = item?;
                    (key.value().to_vec(), ())
                };
                let Some(name) = keys::split_entry(&key) else { continue };
                if let Some(stored) = entries.get(&*key)?.and_then(|e| keys::split_revision(e.value())) {
                    found.push((name, stored));
                }
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
