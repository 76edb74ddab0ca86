//! A command on its way: decide on what is known, commit by compare-and-set, decide anew where another was faster, then
//! do what follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dockframe_shared::{LeaseId, Timestamp};

use super::carried::Carried;
use super::sharing::shared_record;
use super::{ATTEMPTS, Error, Service};
use crate::metrics;
use crate::queue::apply;
use crate::queue::cache::{Looked, Sight};
use crate::queue::command::{Command, Decision, Due, Ids, Reply, Write};
use crate::queue::open::OpenQueue;
use crate::queue::view::{Entry, Key, Need, Versioned};
use crate::store::codec::{decode_entry, encode, encode_entry};
use crate::store::{Commit, Committed, DocumentKey, StoreError, Stored};

/// Ids that nobody can guess.
pub(super) struct RandomIds {
    pub(super) now: Timestamp,
}

impl Ids for RandomIds {
    fn nonce(&mut self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn lease(&mut self) -> LeaseId {
        // The time goes first (6 bytes of milliseconds), so that what the store keeps of the runs of a while lies
        // together and is written together. The rest, 80 bits, nobody can guess.
        let mut bytes: [u8; 16] = rand::random();
        bytes[..6].copy_from_slice(&self.now.as_millis().to_be_bytes()[2..]);
        let text = dockframe_shared::ids::hex(&bytes);
        // Hex digits are always a name; the fallback is one that nobody can hold.
        LeaseId::new(&text).unwrap_or_else(|_| unreachable_lease())
    }
}

fn unreachable_lease() -> LeaseId {
    match LeaseId::new("0") {
        Ok(id) => id,
        Err(_) => unreachable!("a digit is a name"),
    }
}

/// What else goes with a command's commit.
#[derive(Debug, Default)]
pub(super) struct With {
    pub(super) documents: Vec<(DocumentKey, Vec<u8>)>,
    /// The due entry that brought the command.
    pub(super) done: Option<Due>,
}

/// What a commit came to.
enum Made {
    Done(Reply),
    /// Nothing was written: this is there instead of what was expected.
    Overtaken(Vec<(Key, Option<Stored>)>),
}

impl Service {
    pub(crate) async fn execute(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        command: &Command,
    ) -> Result<Reply, Error> {
        self.execute_with(queue, command, With::default()).await
    }

    pub(super) async fn execute_with(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        command: &Command,
        with: With,
    ) -> Result<Reply, Error> {
        let mut looked = Looked::new();
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let decided = {
                let cache = queue.cache();
                apply(&Sight { cache: &cache, looked: &looked }, command, now, &mut RandomIds { now })
            };
            let decision = match decided {
                Ok(decision) => decision,
                Err(Need(key)) => {
                    let found = versioned(&key, self.store.read(queue.digest, key.clone()).await?)?;
                    looked.insert(key, found);
                    continue;
                }
            };
            if decision.hangs_on_reads(command)
                && self.is_outdated(queue, command, &decision.reads, &mut looked).await?
            {
                continue;
            }
            if decision.writes.is_empty() && decision.due.is_empty() && with.done.is_none() {
                self.perform(queue, decision.effects).await;
                return Ok(decision.reply);
            }
            let commit = self.commit_of(queue, now, &decision, &with)?;
            match self.make_true(queue, commit, decision).await? {
                Made::Done(reply) => return Ok(reply),
                Made::Overtaken(fresh) => {
                    for (key, stored) in fresh {
                        let found = versioned(&key, stored)?;
                        self.learn(queue, key, found, &mut looked).await;
                    }
                }
            }
        }
        Err(Error::Overtaken)
    }

    /// Commits, and does what follows from it, though whoever asked may go away at any moment: what is durable then must
    /// be known here, and told, all the same.
    fn make_true(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        commit: Commit,
        decision: Decision,
    ) -> Carried<Result<Made, Error>> {
        let (service, queue) = (Arc::clone(self), Arc::clone(queue));
        Carried::new(&self.tasks, async move {
            let at = commit.at;
            let committed = service.store.commit(commit).await;
            service.metrics.committed(match &committed {
                Ok(Committed::Ok) => metrics::Committed::Ok,
                Ok(Committed::Conflict(_)) => metrics::Committed::Conflict,
                Err(_) => metrics::Committed::Failed,
            });
            if committed.is_err() {
                // It may have been made all the same.
                service.doubt(&queue);
            }
            match committed? {
                Committed::Ok => {
                    let Decision { writes, effects, reply, .. } = decision;
                    {
                        let mut cache = queue.cache();
                        for Write { key, expected, revision, entry, live } in writes {
                            // Only compared: it was not there, and is not.
                            if expected > 0 || entry.is_some() {
                                cache.put(&key, revision, entry, live, at);
                            }
                        }
                    }
                    service.perform(&queue, effects).await;
                    Ok(Made::Done(reply))
                }
                Committed::Conflict(fresh) => Ok(Made::Overtaken(fresh)),
            }
        })
    }

    /// Whether others have written what such a decision was made on: then it is learned. Where this process is the
    /// only writer, what it knows is what there is; but for a look, whose due entry may have come of a commit that is
    /// durable and not taken in yet.
    async fn is_outdated(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        command: &Command,
        reads: &[(Key, u64)],
        looked: &mut Looked,
    ) -> Result<bool, Error> {
        if self.store.others().is_none() && !matches!(command, Command::Look { .. }) {
            return Ok(false);
        }
        let mut outdated = false;
        for (key, revision) in reads {
            let stored = self.store.read(queue.digest, key.clone()).await?;
            if stored.as_ref().map_or(0, |stored| stored.revision) == *revision {
                continue;
            }
            self.learn(queue, key.clone(), versioned(key, stored)?, looked).await;
            outdated = true;
        }
        Ok(outdated)
    }

    /// Another process, or another task, wrote this. A task of this process performs the effects itself; where it may
    /// have been another process, what follows from the change is done here: the news of it will be none any more.
    async fn learn(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        key: Key,
        found: Option<Versioned<Entry>>,
        looked: &mut Looked,
    ) {
        let mut effects = Vec::new();
        match &found {
            Some(Versioned { revision, value }) => {
                let live = self.counts_as_live(value);
                effects = self.absorb(queue, &key, *revision, Some(value.clone()), live);
            }
            None => queue.cache().forget(&key),
        }
        looked.insert(key, found);
        if self.store.others().is_some() {
            self.perform(queue, effects).await;
        }
    }

    /// Whether an entry that was read alone is one of those that are kept in memory.
    pub(super) fn counts_as_live(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Record(record) => record.is_live(self.now()),
            Entry::Slot(_) | Entry::Worker(_) => true,
            Entry::Run(_) => false,
        }
    }

    fn commit_of(
        &self,
        queue: &OpenQueue,
        at: Timestamp,
        decision: &Decision,
        with: &With,
    ) -> Result<Commit, StoreError> {
        let mut commit = Commit::of(queue.digest, at, decision, encode_entry)?;
        for (job, record) in decision.shared() {
            if let Some((key, shared)) = shared_record(queue.digest, job, record) {
                commit.offers.push((key, encode(&shared)?));
            }
        }
        commit.done.extend(with.done.clone());
        commit.documents.clone_from(&with.documents);
        Ok(commit)
    }

    /// The due entry needs nothing to be done.
    pub(crate) async fn forget_due(&self, queue: &OpenQueue, due: Due) -> Result<(), Error> {
        let commit = Commit {
            queue: queue.digest,
            at: self.now(),
            writes: Vec::new(),
            due: Vec::new(),
            done: vec![due],
            documents: Vec::new(),
            offers: Vec::new(),
        };
        self.store.commit(commit).await?;
        Ok(())
    }
}

fn versioned(key: &Key, stored: Option<Stored>) -> Result<Option<Versioned<Entry>>, StoreError> {
    let read = |stored: Stored| {
        let value = decode_entry(key, &stored.bytes)?;
        Ok(Versioned { revision: stored.revision, value })
    };
    stored.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dockframe_shared::QueueKey;
    use dockframe_shared::job::{Control, Definition};
    use futures_util::FutureExt as _;

    use super::*;
    use crate::blobs::{Blobs, Documents, LogStore};
    use crate::callbacks::Callbacks;
    use crate::queue::outbox::Outbox;
    use crate::queue::service::{Settings, Submission};
    use crate::store::Store as _;
    use crate::store::embedded::EmbeddedStore;

    fn service(folder: &std::path::Path) -> Arc<Service> {
        crate::install_crypto();
        let callbacks = Arc::new(Callbacks::open(folder, None, false).unwrap());
        let store = Arc::new(EmbeddedStore::open(folder).unwrap());
        let clock = store.clock();
        Arc::new(Service::new(
            store,
            Blobs::open(folder, 1, clock).unwrap(),
            Documents::open(folder).unwrap(),
            Box::new(LogStore::open(folder).unwrap()),
            Settings { shared_results: true, callbacks },
        ))
    }

    #[tokio::test]
    async fn what_became_durable_is_known_and_told_though_whoever_asked_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(folder.path());
        let queue = service.open(&QueueKey::new("q").unwrap()).await.unwrap();
        let outbox = Arc::new(Outbox::default());
        queue.sockets().old_clients.insert(1, Arc::clone(&outbox));
        let submission = Submission {
            id: None,
            definition: serde_json::from_str::<Definition>(r#"{"image":"a"}"#).unwrap(),
            control: Control::default(),
            debug: None,
            origin: None,
        };
        // Asked for, on its way, and nobody waits any more.
        assert!(service.submit(&queue, submission).now_or_never().is_none());
        let told = tokio::time::timeout(Duration::from_secs(20), outbox.take()).await;
        let jobs = told.expect("nobody was told").jobs;
        let job = jobs.first().expect("a job");
        assert!(queue.cache().record(job).is_some());
    }

    #[tokio::test]
    async fn a_queue_that_nobody_uses_is_counted_and_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let key = QueueKey::new("q").unwrap();
        {
            let service = service(folder.path());
            let queue = service.open(&key).await.unwrap();
            let definition = serde_json::from_str::<Definition>(r#"{"image":"a"}"#).unwrap();
            let control = Control::default();
            let submission = Submission { id: None, definition, control, debug: None, origin: None };
            service.submit(&queue, submission).await.unwrap();
            assert_eq!(service.counts(&key).await.unwrap(), (1, 0));
            service.stopping().cancel();
            service.tasks().close();
            service.tasks().wait().await;
        }
        let service = service(folder.path());
        assert_eq!(service.counts(&key).await.unwrap(), (1, 0));
        assert_eq!(service.totals().queues, 0);
    }
}
