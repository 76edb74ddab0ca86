//! The imperative shell around the core: load, decide, commit, tell.
//!
//! A command is decided on what this process knows and committed by compare-and-set. Where another was faster the
//! store answers with what is there, and the command is decided anew. Effects follow a commit and can all be derived
//! from what is committed, so a crash between the two loses nothing.

mod callbacks;
mod carried;
mod changes;
mod collect;
mod effects;
mod execute;
mod leases;
mod matcher;
mod news;
mod old;
mod reads;
mod sharing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use dockframe_shared::protocol::{Done, RelayMessage};
use dockframe_shared::{InstanceId, JobId, Problem, QueueDigest, QueueKey, Timestamp, WorkerId};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::command::{Command, Due};
use super::heard::{Heard, Subscription};
use super::open::OpenQueue;
use super::record::Phase;
use crate::blobs::{Blobs, Documents, LogError, Logs};
use crate::callbacks::Callbacks;
use crate::clock::Clock;
use crate::limits::{MAX_CALLBACKS, MAX_CALLBACKS_OF_A_QUEUE, MAX_SOCKETS, MAX_SOCKETS_OF_A_QUEUE, Turns};
use crate::metrics::Metrics;
use crate::store::codec::decode_entry;
use crate::store::news::Notice;
use crate::store::{Store, StoreError};

use execute::With;

pub(crate) use changes::{Finishing, Submission};
pub(crate) use collect::{Collected, SETTLED};
pub(crate) use leases::{Registered, WorkerSocket};
pub(crate) use reads::{Scope, wire_revision};
#[cfg(any(test, fuzzing))]
pub(crate) use sharing::SharedRecord;

/// A command that is overtaken so often is given up: no fair schedule does that.
const ATTEMPTS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The sender's fault, said in a way that can be shown.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// More than there is room for now; it may be tried again after so many seconds.
    #[error("{problem}")]
    Busy { problem: Problem, retry_after_s: u64 },
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
    /// Sockets and event streams that are open.
    pub(crate) sockets: Turns,
    pub(crate) metrics: Metrics,
    /// Where this relay is reached by those who do not say how they reached it.
    pub(crate) own_origin: OnceLock<String>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Open queues, and their jobs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub queues: usize,
    pub queued: usize,
    pub running: usize,
}

/// A worker's process, and where it takes jobs.
type Served = HashMap<(WorkerId, InstanceId), Vec<Weak<OpenQueue>>>;

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
            turns: Turns::new(MAX_CALLBACKS, MAX_CALLBACKS_OF_A_QUEUE),
            sockets: Turns::new(MAX_SOCKETS, MAX_SOCKETS_OF_A_QUEUE),
            metrics: Metrics::default(),
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

    /// What is open, and what is in it.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for queue in self.open_queues() {
            let (queued, running) = queue.cache().counts();
            totals.queues += 1;
            totals.queued += queued;
            totals.running += running;
        }
        totals
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

    /// A look at a job, as a due entry asks for.
    pub(crate) async fn look(self: &Arc<Self>, queue: &Arc<OpenQueue>, due: Due) -> Result<(), Error> {
        let (granted_to, held) = {
            let cache = queue.cache();
            match cache.record(&due.job).map(|known| &known.value.phase) {
                Some(Phase::Granted(lease)) => (Some(lease.clone()), None),
                Some(Phase::Held(lease)) => (None, Some(lease.id.clone())),
                _ => (None, None),
            }
        };
        let command = Command::Look {
            job: due.job.clone(),
            healthy_since: self.healthy_since(),
            another_free: self.another_is_free(queue, &due.job),
        };
        let with = With { done: Some(due.clone()), ..With::default() };
        self.execute_with(queue, &command, with).await?;
        if let Some(held) = held {
            let cache = queue.cache();
            let expired = cache.record(&due.job).and_then(|known| match &known.value.phase {
                Phase::Waiting { expired } => expired.as_ref().map(|lease| &lease.id),
                _ => None,
            });
            if expired == Some(&held) {
                self.metrics.leases_expired.inc();
            }
        }
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
