//! The imperative shell around the core: load, decide, commit, tell.
//!
//! A command is decided on what this process knows and committed by compare-and-set. Where another was faster the
//! store answers with what is there, and the command is decided anew. Effects follow a commit and can all be derived
//! from what is committed, so a crash between the two loses nothing.

mod callbacks;
mod changes;
mod collect;
mod leases;
mod matcher;
mod news;
mod old;
mod reads;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use dockframe_shared::protocol::{Done, LeaseRevoke, RelayMessage};
use dockframe_shared::{InstanceId, JobId, LeaseId, Problem, QueueDigest, QueueKey, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::{Cache, Looked, Sight};
use super::command::{Command, Decision, Due, Effect, Ids, Reply, Write};
use super::heard::{Heard, Subscription};
use super::open::OpenQueue;
use super::record::{Outcome, Phase, Record, Source};
use super::timing;
use super::view::{Entry, Key, Need, Versioned};
use crate::blobs::{Blobs, Documents, LogError, Logs};
use crate::callbacks::{Callbacks, Turns};
use crate::clock::Clock;
use crate::store::codec::{decode, decode_entry, encode, encode_entry};
use crate::store::news::Notice;
use crate::store::{ANY_REVISION, Commit, Committed, DocumentKey, Store, StoreError, StoreWrite};

pub(crate) use changes::{Finishing, Submission};
pub(crate) use collect::SETTLED;
pub(crate) use leases::{Registered, WorkerSocket};
pub(crate) use reads::{Scope, wire_revision};

/// A command that is overtaken so often is given up: no fair schedule does that.
const ATTEMPTS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The sender's fault, said in a way that can be shown.
    #[error(transparent)]
    Refused(#[from] Problem),
    #[error("cannot use the store")]
    Store(#[from] StoreError),
    #[error("cannot use the files")]
    Files(#[from] std::io::Error),
    #[error("a change was overtaken {ATTEMPTS} times")]
    Overtaken,
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Files(error) => Self::Files(error),
            LogError::Store(error) => Self::Store(error),
        }
    }
}

/// How the relay treats its queues.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub shared_results: bool,
    pub callbacks: Arc<Callbacks>,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    documents: Documents,
    logs: Box<dyn Logs>,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    /// Names this process among others: 6 letters and digits, for people.
    pub(crate) server_id: String,
    queues: Mutex<HashMap<QueueDigest, Arc<OnceCell<Arc<OpenQueue>>>>>,
    /// In which queues a worker's process takes jobs here: its room is one for all of them.
    served: Mutex<Served>,
    /// Grants of a worker that serves several queues are made one at a time.
    granting: tokio::sync::Mutex<()>,
    /// Since when the sweeps have reached the store without a gap, in milliseconds.
    healthy_since: AtomicI64,
    /// Callbacks under way.
    turns: Turns,
    /// Where this relay is reached by those who do not say how they reached it.
    pub(crate) own_origin: OnceLock<String>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A worker's process, and where it takes jobs.
type Served = HashMap<(WorkerId, InstanceId), Vec<Weak<OpenQueue>>>;

/// What a queue offers to others of one of its results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SharedRecord {
    /// Only a verified one answers other queues; any is read without a queue.
    pub verified: bool,
    pub run: LeaseId,
    pub queue: [u8; 32],
    pub record: Record,
}

struct RandomIds;

impl Ids for RandomIds {
    fn nonce(&mut self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn lease(&mut self) -> LeaseId {
        let random: [u8; 16] = rand::random();
        let text = dockframe_shared::ids::hex(&random);
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
struct With {
    documents: Vec<(DocumentKey, Vec<u8>)>,
    /// The due entry that brought the command.
    done: Option<Due>,
}

impl Service {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        blobs: Blobs,
        documents: Documents,
        logs: Box<dyn Logs>,
        settings: Settings,
    ) -> Self {
        let clock = store.clock();
        let healthy_since = AtomicI64::new(clock.now().as_millis());
        let server_id = uuid::Uuid::new_v4().simple().to_string()[..6].to_owned();
        Self {
            store,
            blobs,
            documents,
            logs,
            clock,
            settings,
            server_id,
            queues: Mutex::default(),
            served: Mutex::default(),
            granting: tokio::sync::Mutex::default(),
            healthy_since,
            turns: Turns::default(),
            own_origin: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    pub(crate) fn healthy_since(&self) -> Timestamp {
        Timestamp::from_millis(self.healthy_since.load(Ordering::Relaxed))
    }

    /// The sweeps had a gap: everybody gets a full ttl from now on.
    pub(crate) fn was_unhealthy(&self) {
        self.healthy_since.store(self.now().as_millis(), Ordering::Relaxed);
    }

    /// The queue of this name, read from the store if nobody has it open.
    pub(crate) async fn open(self: &Arc<Self>, key: &QueueKey) -> Result<Arc<OpenQueue>, Error> {
        let queue = self.open_digest(key.digest()).await?;
        queue.named(key);
        self.catch_up(&queue).await?;
        Ok(queue)
    }

    /// As [`Self::open`], by the digest: due work is found whoever named the queue.
    pub(crate) async fn open_digest(self: &Arc<Self>, digest: QueueDigest) -> Result<Arc<OpenQueue>, Error> {
        let cell = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(queues.entry(digest).or_default())
        };
        // One object per queue: whoever comes first reads it, the others wait, nobody gets it unread.
        let queue = cell
            .get_or_try_init(|| async {
                // News first, then what they are about: so nothing falls between the two.
                let subscription = Subscription::start(&self.store, digest).await?;
                let count = match self.store.others() {
                    Some(others) => others.counts(vec![digest]).await?.into_iter().next().unwrap_or(0),
                    None => 0,
                };
                let mut cache = Cache::default();
                let now = self.now();
                for (key, stored) in self.store.live(digest).await? {
                    let entry = decode_entry(&key, &stored.bytes)?;
                    cache.put(&key, stored.revision, Some(entry), true, now);
                }
                let queue = Arc::new(OpenQueue::new(digest, cache, Heard::new(subscription, count)));
                matcher::start(self, &queue);
                if let Some(others) = self.store.others() {
                    others.tell(digest, Notice::WhoIsThere).await;
                }
                Ok::<_, Error>(queue)
            })
            .await?;
        Ok(Arc::clone(queue))
    }

    /// The queues that are open now.
    fn open_queues(&self) -> Vec<Arc<OpenQueue>> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.values().filter_map(|cell| cell.get()).cloned().collect()
    }

    /// Lets go of queues that nobody uses.
    pub(crate) fn close_idle(&self) {
        let now = self.now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, cell| match cell.get() {
            // One count is the cell's: nobody else holds it, and nobody can come while the map is locked.
            Some(queue) => {
                queue.tidy(now);
                Arc::strong_count(cell) > 1 || Arc::strong_count(queue) > 1 || !queue.is_idle()
            }
            None => Arc::strong_count(cell) > 1,
        });
    }

    pub(crate) async fn execute(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        command: &Command,
    ) -> Result<Reply, Error> {
        self.execute_with(queue, command, With::default()).await
    }

    async fn execute_with(
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
                super::apply(&Sight { cache: &cache, looked: &looked }, command, now, &mut RandomIds)
            };
            let decision = match decided {
                Ok(decision) => decision,
                Err(Need(key)) => {
                    let found = self.store.read(queue.digest, key.clone()).await?;
                    let found = found
                        .map(|stored| {
                            let value = decode_entry(&key, &stored.bytes)?;
                            Ok::<_, StoreError>(Versioned { revision: stored.revision, value })
                        })
                        .transpose()?;
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
            let committed = self.store.commit(commit).await;
            if committed.is_err() {
                // It may have been made all the same.
                self.doubt(queue);
            }
            match committed? {
                Committed::Ok => {
                    let Decision { writes, effects, reply, .. } = decision;
                    {
                        let mut cache = queue.cache();
                        for Write { key, expected, revision, entry, live } in writes {
                            // Only compared: it was not there, and is not.
                            if expected > 0 || entry.is_some() {
                                cache.put(&key, revision, entry, live, now);
                            }
                        }
                    }
                    self.perform(queue, effects).await;
                    return Ok(reply);
                }
                Committed::Conflict(fresh) => {
                    for (key, stored) in fresh {
                        let found = stored
                            .map(|stored| {
                                let value = decode_entry(&key, &stored.bytes)?;
                                Ok::<_, StoreError>(Versioned { revision: stored.revision, value })
                            })
                            .transpose()?;
                        self.learn(queue, key, found, &mut looked).await;
                    }
                }
            }
        }
        Err(Error::Overtaken)
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
            let found = stored
                .map(|stored| {
                    let value = decode_entry(key, &stored.bytes)?;
                    Ok::<_, StoreError>(Versioned { revision: stored.revision, value })
                })
                .transpose()?;
            self.learn(queue, key.clone(), found, looked).await;
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
    fn counts_as_live(&self, entry: &Entry) -> bool {
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
        let mut writes = Vec::with_capacity(decision.writes.len());
        for write in &decision.writes {
            let any = matches!(write.key, Key::Run(_));
            writes.push(StoreWrite {
                key: write.key.clone(),
                expected: if any { ANY_REVISION } else { write.expected },
                revision: write.revision,
                bytes: write.entry.as_ref().map(encode_entry).transpose()?,
                live: write.live,
            });
        }
        let mut offers = Vec::new();
        for effect in &decision.effects {
            let Effect::Share(job) = effect else { continue };
            let record = decision.writes.iter().find_map(|write| match (&write.key, &write.entry) {
                (Key::Record(key), Some(Entry::Record(record))) if key == job => Some(record),
                _ => None,
            });
            if let Some((key, shared)) = record.and_then(|record| shared_record(queue.digest, job, record)) {
                offers.push((key, encode(&shared)?));
            }
        }
        Ok(Commit {
            queue: queue.digest,
            at,
            writes,
            due: decision.due.clone(),
            done: with.done.iter().cloned().collect(),
            claims: false,
            documents: with.documents.clone(),
            offers,
        })
    }

    /// Tells everybody whom it concerns.
    async fn perform(self: &Arc<Self>, queue: &Arc<OpenQueue>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Changed(job) => queue.job_changed(&job),
                Effect::Ended(_) => {
                    for outbox in queue.sockets().old_peers() {
                        outbox.full_list();
                    }
                }
                Effect::Wake => {
                    queue.touch();
                    queue.wake.notify_one();
                }
                Effect::Grant { worker, session, job, lease, attempt, deadline_ms } => {
                    let grant = leases::Granted { worker, session, job, lease, attempt, deadline_ms };
                    self.send_grant(queue, grant).await;
                }
                Effect::Revoke { worker, lease, why } => {
                    queue.has_room_again(&worker);
                    if let Some(outbox) = queue.revoke_target(&worker) {
                        let grace_ms = timing::KILL_GRACE;
                        outbox.push(&RelayMessage::LeaseRevoke(LeaseRevoke {
                            lease_id: lease,
                            why,
                            grace_ms,
                        }));
                    }
                }
                Effect::ClearCache { job, namespace } => {
                    let message = RelayMessage::ClearJobCache { job_id: job, namespace };
                    for socket in queue.sockets().old_workers.values() {
                        socket.outbox.push(&message);
                    }
                }
                Effect::DropRun(run) => self.drop_run(run),
                // Went with the commit; the due entry repeats it where a store cannot do both in one step.
                Effect::Share(_) => {}
                Effect::Unshare { job, run } => {
                    if let Err(error) = self.unshare(&job, &run).await {
                        tracing::warn!(%error, job.id = %job, "a shared result could not be taken back");
                    }
                }
                Effect::Callbacks(job) => self.call_soon(queue, job),
            }
        }
    }

    /// What was kept of a run goes, without anybody waiting for it. One that has a result may answer in other queues
    /// too, which nothing that happens here may change: the garbage collection looks whether it does.
    fn drop_run(self: &Arc<Self>, run: LeaseId) {
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            let removed = async {
                if service.bytes_of_run(&run).await?.is_none() {
                    service.logs.remove(&run).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = removed.await {
                tracing::warn!(%error, "what was kept of a run could not be removed");
            }
        });
    }

    async fn unshare(&self, job: &JobId, run: &LeaseId) -> Result<(), StoreError> {
        let key = DocumentKey::Shared(job.clone());
        let Some(bytes) = self.store.document(key.clone()).await? else { return Ok(()) };
        if decode::<SharedRecord>(&bytes)?.run == *run {
            self.store.remove_document(key, Some(bytes)).await?;
        }
        Ok(())
    }

    /// A look at a job, as a due entry asks for.
    pub(crate) async fn look(self: &Arc<Self>, queue: &Arc<OpenQueue>, due: Due) -> Result<(), Error> {
        let granted_to = {
            let cache = queue.cache();
            cache.record(&due.job).and_then(|known| match &known.value.phase {
                Phase::Granted(lease) => Some(lease.clone()),
                _ => None,
            })
        };
        let command = Command::Look {
            job: due.job.clone(),
            healthy_since: self.healthy_since(),
            another_free: self.another_is_free(queue, &due.job),
        };
        let with = With { done: Some(due.clone()), ..With::default() };
        self.execute_with(queue, &command, with).await?;
        if let Some(lease) = granted_to
            && let Some(instance) = &lease.instance
        {
            let still = queue
                .cache()
                .record(&due.job)
                .is_some_and(|known| known.value.active_lease().is_some_and(|active| active.id == lease.id));
            if !still {
                queue.did_not_accept(&due.job, &lease.worker, instance, self.now());
            }
        }
        Ok(())
    }

    /// Offers a result to other queues once more, and takes back what this queue does not stand for any more, as a due
    /// entry asks for. The store alone is asked, and compares: another relay may have changed the record by now.
    pub(crate) async fn share_again(self: &Arc<Self>, queue: &Arc<OpenQueue>, due: Due) -> Result<(), Error> {
        let key = Key::Record(due.job.clone());
        let stored = self.store.read(queue.digest, key.clone()).await?;
        let entry = stored.as_ref().map(|stored| decode_entry(&key, &stored.bytes)).transpose()?;
        let offer = match &entry {
            Some(Entry::Record(record)) => shared_record(queue.digest, &due.job, record),
            _ => None,
        };
        let shared = DocumentKey::Shared(due.job.clone());
        let standing = self.store.document(shared.clone()).await?;
        let mut is_free = standing.is_none();
        if let Some(bytes) = standing {
            let standing: SharedRecord = decode(&bytes)?;
            let is_offered = offer.as_ref().is_some_and(|(_, offer)| offer.run == standing.run);
            if standing.queue == *queue.digest.as_bytes() && !is_offered {
                is_free = self.store.remove_document(shared, Some(bytes)).await?;
            }
        }
        let (Some((name, offer)), Some(stored), Some(entry), true) = (offer, stored, entry, is_free) else {
            return self.forget_due(queue, due).await;
        };
        // Written as it is, so that nothing is offered that was taken away a moment ago: the due entry stays then.
        let live = self.counts_as_live(&entry);
        let revision = stored.revision + 1;
        let write = StoreWrite {
            key: key.clone(),
            expected: stored.revision,
            revision,
            bytes: Some(stored.bytes),
            live,
        };
        let commit = Commit {
            queue: queue.digest,
            at: self.now(),
            writes: vec![write],
            due: Vec::new(),
            done: vec![due],
            claims: false,
            documents: Vec::new(),
            offers: vec![(name, encode(&offer)?)],
        };
        if self.store.commit(commit).await? == Committed::Ok {
            queue.cache().put(&key, revision, Some(entry), live, self.now());
        }
        Ok(())
    }

    pub(crate) async fn forget_due(&self, queue: &OpenQueue, due: Due) -> Result<(), Error> {
        let commit = Commit {
            queue: queue.digest,
            at: self.now(),
            writes: Vec::new(),
            due: Vec::new(),
            done: vec![due],
            claims: false,
            documents: Vec::new(),
            offers: Vec::new(),
        };
        self.store.commit(commit).await?;
        Ok(())
    }
}

/// What a finished record offers to others.
fn shared_record(queue: QueueDigest, job: &JobId, record: &Record) -> Option<(DocumentKey, SharedRecord)> {
    let Phase::Done(Outcome { source: Source::Run(run), .. }) = &record.phase else { return None };
    let mut offered = record.clone();
    // What only this queue's people said of the job stays here.
    for holder in offered.holders.values_mut() {
        *holder = super::record::Holder::default();
    }
    offered.calls.clear();
    let shared = SharedRecord {
        verified: record.verified,
        run: run.clone(),
        queue: *queue.as_bytes(),
        record: offered,
    };
    Some((DocumentKey::Shared(job.clone()), shared))
}

/// The answer to a change with a `ref`.
pub(crate) fn done(reference: String, job: &JobId, outcome: Result<u64, Problem>) -> RelayMessage {
    RelayMessage::Done(match outcome {
        Ok(revision) => Done {
            reference: Some(reference),
            job_id: Some(job.clone()),
            revision: Some(reads::wire_revision(revision, 0)),
            error: None,
        },
        Err(error) => Done { reference: Some(reference), job_id: None, revision: None, error: Some(error) },
    })
}
