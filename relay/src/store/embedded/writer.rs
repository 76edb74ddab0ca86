//! The one thread that writes: takes what has gathered, makes one transaction of it, answers after the sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::{Database, ReadableTable as _, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::collect::{self, Collections};
use super::{Bytes, DOCUMENTS, DUE, ENDED, LIVE, find, keys};
use crate::queue::view::Key;
use crate::store::{ANY_REVISION, Commit, Committed, DocumentKey, StoreError, StoreWrite, Stored};

/// So many commits share one sync at most: bounds what is lost of the first one's patience.
const GROUP: usize = 256;
/// As many commits as shared the last sync are likely to come again, from those who were just answered: they are waited
/// for, and no longer than this. Pages, checksums and the sync cost once a group, so under load larger groups are
/// faster for everybody; one who is alone never waits.
const GATHER: Duration = Duration::from_millis(1);

pub(super) enum Job {
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

impl Answer {
    fn give(self) {
        // Whoever does not wait any more does not need the answer.
        match self {
            Self::Commit(committed, to) => drop(to.send(Ok(committed))),
            Self::Remove(removed, to) => drop(to.send(Ok(removed))),
            Self::RemoveUnnamed(removed, to) => drop(to.send(Ok(removed))),
        }
    }
}

pub(super) struct Writer {
    pub database: Arc<Database>,
    pub collections: Arc<Collections>,
    pub syncs: Arc<AtomicU64>,
}

impl Writer {
    /// Ends when nobody can ask any more.
    pub(super) fn start(
        self,
        jobs: mpsc::Receiver<Job>,
    ) -> Result<std::thread::JoinHandle<()>, std::io::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || runtime.block_on(self.write_all(jobs)))
    }

    async fn write_all(self, mut jobs: mpsc::Receiver<Job>) {
        let mut last: usize = 1;
        let mut group = Vec::with_capacity(GROUP);
        while jobs.recv_many(&mut group, GROUP).await > 0 {
            let patience = Instant::now() + GATHER;
            while let missing @ 1.. = last.saturating_sub(group.len())
                && let Ok(1..) = timeout_at(patience, jobs.recv_many(&mut group, missing)).await
            {}
            last = group.len();
            // Senders of a failed group are dropped with their answers, so that everybody hears "unavailable".
            match self.write(group.drain(..)) {
                Ok(answers) => {
                    self.syncs.fetch_add(1, Ordering::Relaxed);
                    answers.into_iter().for_each(Answer::give);
                }
                Err(error) => tracing::error!(%error, "the store cannot write"),
            }
        }
    }

    fn write(&self, group: impl ExactSizeIterator<Item = Job>) -> Result<Vec<Answer>, redb::Error> {
        let mut answers = Vec::with_capacity(group.len());
        let transaction = self.database.begin_write()?;
        {
            let mut tables = Tables::open(&transaction)?;
            for job in group {
                answers.push(match job {
                    Job::Commit(commit, to) => Answer::Commit(tables.commit(&commit)?, to),
                    Job::Remove(key, only, to) => Answer::Remove(tables.remove(&key, only.as_deref())?, to),
                    Job::RemoveUnnamed(names, to) => {
                        let removed =
                            collect::remove_unnamed(&mut tables.documents, &self.collections, &names)?;
                        Answer::RemoveUnnamed(removed, to)
                    }
                });
            }
        }
        transaction.commit()?;
        Ok(answers)
    }
}

struct Tables<'t> {
    live: Table<'t, Bytes, Bytes>,
    ended: Table<'t, Bytes, Bytes>,
    due: Table<'t, Bytes, ()>,
    documents: Table<'t, Bytes, Bytes>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            live: transaction.open_table(LIVE)?,
            ended: transaction.open_table(ENDED)?,
            due: transaction.open_table(DUE)?,
            documents: transaction.open_table(DOCUMENTS)?,
        })
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, redb::Error> {
        let conflicts = self.conflicts(commit)?;
        if !conflicts.is_empty() {
            return Ok(Committed::Conflict(conflicts));
        }
        for write in &commit.writes {
            self.write(&keys::entry(commit.queue, &write.key), write)?;
        }
        for done in &commit.done {
            self.due.remove(&*keys::due(commit.queue, done))?;
        }
        for new in &commit.due {
            self.due.insert(&*keys::due(commit.queue, new), ())?;
        }
        for (key, bytes) in commit.documents.iter().chain(&commit.offers) {
            let key = keys::document(key);
            if self.documents.get(&*key)?.is_none() {
                self.documents.insert(&*key, &**bytes)?;
            }
        }
        Ok(Committed::Ok)
    }

    fn write(&mut self, key: &[u8], write: &StoreWrite) -> Result<(), redb::Error> {
        let (to, other) = match write.live {
            true => (&mut self.live, &mut self.ended),
            false => (&mut self.ended, &mut self.live),
        };
        match &write.bytes {
            Some(bytes) => drop(to.insert(key, &*keys::with_revision(write.revision, bytes))?),
            None => drop(to.remove(key)?),
        }
        // What is not there costs a look and no page.
        other.remove(key)?;
        Ok(())
    }

    fn conflicts(&self, commit: &Commit) -> Result<Vec<(Key, Option<Stored>)>, redb::Error> {
        let mut conflicts = Vec::new();
        for StoreWrite { key, expected, .. } in &commit.writes {
            if *expected == ANY_REVISION {
                continue;
            }
            let found = find(&self.live, &self.ended, &keys::entry(commit.queue, key))?;
            if found.as_ref().map_or(0, |found| found.revision) != *expected {
                conflicts.push((key.clone(), found));
            }
        }
        Ok(conflicts)
    }

    fn remove(&mut self, key: &DocumentKey, only: Option<&[u8]>) -> Result<bool, redb::Error> {
        let key = keys::document(key);
        let known = self.documents.get(&*key)?;
        let is_it = known.is_some_and(|known| only.is_none_or(|only| known.value() == only));
        if is_it {
            self.documents.remove(&*key)?;
        }
        Ok(is_it)
    }
}
