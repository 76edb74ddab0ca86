//! What other relays of the same store do, taken in: their commits, their workers, their log lines.
//!
//! News only make it faster. Whoever missed some, or may have, reads the queue again and finds the same effects by
//! comparison ([`crate::queue::derive`]); every 2 s it is looked whether some were missed. With a store of one relay
//! nothing here does anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dockframe_shared::protocol::Registration;
use dockframe_shared::{QueueDigest, Timestamp};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Error, Service};
use crate::error::chain;
use crate::queue::command::Effect;
use crate::queue::derive;
use crate::queue::elsewhere::{Elsewhere, TakesLeases};
use crate::queue::open::OpenQueue;
use crate::queue::outbox::Closing;
use crate::queue::record::WorkerRecord;
use crate::queue::view::{Entry, Key};
use crate::store::codec::decode_entry;
use crate::store::news::{News, Notice, Others, Value, Written};

/// How often it is looked whether commits were missed.
const LOOK: Duration = Duration::from_secs(2);
/// News are on their way for a moment only; then the queue is read instead.
const ON_THEIR_WAY: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Service {
    /// Takes in news until the relay stops.
    pub(crate) async fn hear(self: Arc<Self>) {
        let Some(mut news) = self.store.others().and_then(Others::news) else { return };
        loop {
            tokio::select! {
                heard = news.recv() => match heard {
                    Some(heard) => self.take_in(heard).await,
                    None => return,
                },
                () = self.stopping().cancelled() => return,
            }
        }
    }

    /// Looks for missed news until the relay stops.
    pub(crate) async fn look_for_missed_news(self: Arc<Self>) {
        let Some(others) = self.store.others() else { return };
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stopping().cancelled() => return,
            }
            // As it was before the question: what came since may be on its way.
            let open: Vec<_> =
                self.open_queues().into_iter().map(|queue| (queue.heard.count(), queue)).collect();
            let digests = open.iter().map(|(_, queue)| queue.digest).collect();
            let looked = async {
                let mut is_lost = false;
                for ((before, queue), count) in open.iter().zip(others.counts(digests).await?) {
                    let behind = count > *before && !queue.heard.reaches(count, ON_THEIR_WAY).await;
                    if count < *before {
                        is_lost = true;
                        queue.heard.begin_again(count);
                    }
                    if behind || count < *before {
                        self.doubt(queue);
                    }
                }
                others.check_epoch(is_lost).await
            };
            match looked.await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!("the store has lost something, or is another one: everybody comes back");
                    self.send_everybody_back();
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "it is not known whether news were missed")
                }
            }
        }
    }

    /// Peers that come back are told the store's epoch, and say again what it may have lost (`jobs-and-states` 8.6).
    fn send_everybody_back(&self) {
        for queue in self.open_queues() {
            for outbox in queue.sockets().everybody() {
                outbox.close(Closing::Restart);
            }
        }
    }

    async fn take_in(self: &Arc<Self>, news: News) {
        match news {
            News::Gap => {
                for queue in self.open_queues() {
                    self.doubt(&queue);
                }
            }
            News::Commit { queue, count, writes } => match self.opened(queue) {
                Opened::Yes(queue) => self.take_in_commit(&queue, count, writes).await,
                // It is being read: whatever this read has not seen yet comes after it.
                Opened::SoonHere => {
                    let service = Arc::clone(self);
                    self.tasks.spawn(async move {
                        if let Ok(queue) = service.open_digest(queue).await {
                            service.take_in_commit(&queue, count, writes).await;
                        }
                    });
                }
                Opened::No => {}
            },
            News::Notice { queue, process, notice } => {
                if let Opened::Yes(queue) = self.opened(queue) {
                    self.take_in_notice(&queue, process, notice).await;
                }
            }
        }
    }

    async fn take_in_commit(self: &Arc<Self>, queue: &Arc<OpenQueue>, count: u64, writes: Vec<Written>) {
        let mut effects = Vec::new();
        let mut is_whole = true;
        for Written { key, revision, value } in writes {
            match value {
                Value::Gone => effects.extend(self.absorb(queue, &key, revision, None, false)),
                Value::Is { bytes, live } => match decode_entry(&key, &bytes) {
                    Ok(entry) => effects.extend(self.absorb(queue, &key, revision, Some(entry), live)),
                    Err(error) => {
                        tracing::error!(error = chain(&error), queue.hash = %queue.digest, "news that cannot be read");
                        is_whole = false;
                    }
                },
                Value::Read => is_whole = false,
            }
        }
        self.perform(queue, effects).await;
        if !queue.heard.of(count) || !is_whole {
            self.doubt(queue);
        }
    }

    async fn take_in_notice(self: &Arc<Self>, queue: &Arc<OpenQueue>, process: String, notice: Notice) {
        match notice {
            Notice::Lines { job, message } => {
                queue.has_lines(&job);
                if !message.is_empty() {
                    let old_clients: Vec<_> = queue.sockets().old_clients.values().cloned().collect();
                    for outbox in old_clients {
                        outbox.push_lines(&job, &message, || self.listed(queue, &job));
                    }
                }
            }
            Notice::Workers(workers) => match serde_json::from_str::<Vec<Elsewhere>>(&workers) {
                Ok(workers) => {
                    let is_news = queue.elsewhere().put(process, workers, self.now());
                    queue.touch();
                    if is_news {
                        self.show_workers(queue);
                    }
                }
                Err(error) => tracing::warn!(%error, "another relay's list of workers cannot be read"),
            },
            Notice::WhoIsThere => self.tell_workers(queue, true).await,
        }
    }

    /// Another process, or another task, wrote this. What follows from it for those who are connected here.
    pub(super) fn absorb(
        &self,
        queue: &OpenQueue,
        key: &Key,
        revision: u64,
        entry: Option<Entry>,
        live: bool,
    ) -> Vec<Effect> {
        if let (Key::Worker(worker), Some(Entry::Worker(WorkerRecord { session, .. }))) = (key, &entry) {
            let sockets = queue.sockets();
            // It came back on another relay: the socket here is an old one.
            if let Some(standing) = sockets.lease_workers.get(worker).filter(|here| here.session < *session) {
                standing.outbox.close(Closing::Superseded);
            }
        }
        let mut cache = queue.cache();
        let Key::Record(job) = key else {
            cache.put(key, revision, entry, live, self.now());
            return Vec::new();
        };
        let before = cache.record(job).map(|known| (known.revision, known.value.clone()));
        let after = match &entry {
            Some(Entry::Record(record)) => Some((**record).clone()),
            _ => None,
        };
        let is_news = cache.put(key, revision, entry, live, self.now());
        if !is_news || before.as_ref().is_some_and(|(known, _)| *known == revision) {
            return Vec::new();
        }
        derive::effects(job, before.as_ref().map(|(_, record)| record), after.as_ref())
    }

    /// This process may not know what the store has: the queue is read again as soon as can be.
    pub(super) fn doubt(self: &Arc<Self>, queue: &Arc<OpenQueue>) {
        if self.store.others().is_none() || !queue.heard.doubt() {
            return;
        }
        let service = Arc::clone(self);
        let queue = Arc::clone(queue);
        self.tasks.spawn(async move {
            let mut wait = FIRST_WAIT;
            loop {
                match service.read_again(&queue).await {
                    Ok(true) => return,
                    Ok(false) => wait = FIRST_WAIT,
                    Err(error) => {
                        tracing::warn!(error = chain(&error), queue.hash = %queue.digest, "a queue cannot be read");
                    }
                }
                tokio::select! {
                    () = sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                    () = service.stopping().cancelled() => return,
                }
            }
        });
    }

    /// Compares the queue with the store. Whether there is no doubt left.
    async fn read_again(self: &Arc<Self>, queue: &Arc<OpenQueue>) -> Result<bool, Error> {
        let Some(others) = self.store.others() else { return Ok(true) };
        let doubts = queue.heard.doubts();
        let count = others.counts(vec![queue.digest]).await?.into_iter().next().unwrap_or(0);
        let mut known = queue.cache().revisions();
        for (key, stored) in self.store.live(queue.digest).await? {
            known.remove(&key);
            let entry = decode_entry(&key, &stored.bytes)?;
            let effects = self.absorb(queue, &key, stored.revision, Some(entry), true);
            self.perform(queue, effects).await;
        }
        // What is known and not live: it ended, or is gone.
        for (key, revision) in known {
            let effects = match self.store.read(queue.digest, key.clone()).await? {
                Some(stored) => {
                    let entry = decode_entry(&key, &stored.bytes)?;
                    let live = self.counts_as_live(&entry);
                    self.absorb(queue, &key, stored.revision, Some(entry), live)
                }
                None => self.lose(queue, &key, revision),
            };
            self.perform(queue, effects).await;
        }
        queue.sockets().remind_of_lines();
        queue.wake.notify_one();
        Ok(queue.heard.settle(doubts, count))
    }

    /// The store does not have it, though this process knew it with this revision.
    fn lose(&self, queue: &OpenQueue, key: &Key, revision: u64) -> Vec<Effect> {
        let mut cache = queue.cache();
        if cache.revision(key) != Some(revision) {
            return Vec::new();
        }
        let Key::Record(job) = key else {
            cache.forget(key);
            return Vec::new();
        };
        let before = cache.record(job).map(|known| known.value.clone());
        cache.forget(key);
        derive::effects(job, before.as_ref(), None)
    }

    /// Waits until this process knows all that was committed to the queue before now.
    pub(super) async fn catch_up(self: &Arc<Self>, queue: &Arc<OpenQueue>) -> Result<(), Error> {
        let Some(others) = self.store.others() else { return Ok(()) };
        let count = others.counts(vec![queue.digest]).await?.into_iter().next().unwrap_or(0);
        if !queue.heard.reaches(count, ON_THEIR_WAY).await {
            self.read_again(queue).await?;
        }
        Ok(())
    }

    /// Tells other relays who is connected here: if there is somebody, or was, or they ask.
    pub(super) async fn tell_workers(&self, queue: &OpenQueue, asked: bool) {
        let Some(others) = self.store.others() else { return };
        let workers = workers_here(queue, self.now());
        let had_some = queue.has_told_workers.swap(!workers.is_empty(), Ordering::Relaxed);
        if workers.is_empty() && !had_some && !asked {
            return;
        }
        match serde_json::to_string(&workers) {
            Ok(workers) => {
                others.tell(queue.digest, Notice::Workers(workers)).await;
            }
            Err(error) => tracing::error!(%error, "the list of workers cannot be written"),
        }
    }

    fn opened(&self, queue: QueueDigest) -> Opened {
        let queues = self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match queues.get(&queue).map(|cell| cell.get()) {
            Some(Some(queue)) => Opened::Yes(Arc::clone(queue)),
            Some(None) => Opened::SoonHere,
            None => Opened::No,
        }
    }
}

enum Opened {
    Yes(Arc<OpenQueue>),
    SoonHere,
    No,
}

/// As other relays are told: without what only relay and worker know.
fn workers_here(queue: &OpenQueue, now: Timestamp) -> Vec<Elsewhere> {
    let told =
        |registration: &Registration| Registration { leases: None, instance: None, ..registration.clone() };
    let sockets = queue.sockets();
    let with_leases = sockets.lease_workers.values().map(|socket| Elsewhere {
        registration: told(&socket.registration),
        leases: Some(TakesLeases {
            instance: socket.instance.clone(),
            session: socket.session,
            full: socket.full,
        }),
        last_frame: Timestamp::from_millis(socket.last_frame.load(Ordering::Relaxed)),
        declined: queue.declined_by(&socket.registration.id, &socket.instance, now),
    });
    let old = sockets.old_registrations().map(|registration| Elsewhere {
        registration: told(registration),
        leases: None,
        last_frame: registration.time,
        declined: Vec::new(),
    });
    with_leases.chain(old).collect()
}
