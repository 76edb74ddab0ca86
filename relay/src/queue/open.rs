//! A queue that this process has open: its cache, and the sockets that care for it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dockframe_shared::protocol::{DeclineRetry, QueueSummary, Registration, RelayMessage, Workers};
use dockframe_shared::{Amount, InstanceId, JobId, LeaseId, QueueDigest, QueueKey, Timestamp, WorkerId};
use tokio::sync::Notify;

use super::cache::Cache;
use super::elsewhere::{Lists, TOLD_DECLINES};
use super::heard::Heard;
use super::matching::{Machine, Willing};
use super::outbox::{Outbox, text};
use super::timing;
use crate::limits::{MAX_JOBS_OF_A_QUEUE, Rate, SUBMISSIONS_AT_ONCE, SUBMISSIONS_PER_SECOND};

pub(crate) type SocketId = u64;

#[derive(Debug)]
pub(crate) struct OpenQueue {
    pub digest: QueueDigest,
    /// Known once somebody named it: a sweep opens queues by their digest.
    key: OnceLock<QueueKey>,
    cache: Mutex<Cache>,
    /// How often something is submitted.
    pub submissions: Rate,
    sockets: Mutex<Sockets>,
    declines: Mutex<HashMap<(JobId, WorkerId), Declined>>,
    /// There may be something to grant.
    pub wake: Arc<Notify>,
    /// Something changed since the last summary.
    changed: AtomicBool,
    /// The workers changed since watchers were told.
    pub workers_to_tell: AtomicBool,
    /// The workers here changed since other relays were told.
    pub workers_to_share: AtomicBool,
    /// Other relays know of workers here.
    pub has_told_workers: AtomicBool,
    /// What other relays do with the queue, and whether all of it is known.
    pub heard: Heard,
    elsewhere: Mutex<Lists>,
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    last: SocketId,
    /// Who watches a job.
    watchers: HashMap<JobId, HashMap<SocketId, Arc<Outbox>>>,
    pub watch_clients: HashMap<SocketId, WatchClient>,
    pub old_clients: HashMap<SocketId, Arc<Outbox>>,
    pub lease_workers: HashMap<WorkerId, LeaseSocket>,
    pub old_workers: HashMap<SocketId, OldSocket>,
}

#[derive(Debug)]
pub(crate) struct WatchClient {
    pub outbox: Arc<Outbox>,
    pub wants_workers: bool,
}

/// A worker with leases, on the socket that stands for it.
#[derive(Debug)]
pub(crate) struct LeaseSocket {
    pub socket: SocketId,
    pub outbox: Arc<Outbox>,
    pub registration: Registration,
    pub instance: InstanceId,
    pub session: u64,
    /// When its last frame came, by the relay's clock.
    pub last_frame: Arc<AtomicI64>,
    /// It said that it has no room; until its next registration or end of a lease.
    pub full: bool,
}

/// A worker of the old way.
#[derive(Debug)]
pub(crate) struct OldSocket {
    pub outbox: Arc<Outbox>,
    pub registration: Option<Registration>,
    /// When that came, by the relay's clock: of several sockets with one id the newest registration stands.
    pub registered: Timestamp,
    /// The newest session that this worker had on a socket of this relay, however many it has.
    pub session: u64,
}

/// A worker does not want a job.
#[derive(Debug, Clone)]
struct Declined {
    instance: InstanceId,
    /// It only did not answer: it comes after others, and not never.
    comes_last: bool,
    /// `None`: as long as its process lives.
    until: Option<Timestamp>,
    why: String,
}

impl Declined {
    fn stands(&self, instance: &InstanceId, now: Timestamp) -> bool {
        self.instance == *instance && self.until.is_none_or(|until| now < until)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole at every step, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenQueue {
    pub(crate) fn new(digest: QueueDigest, cache: Cache, heard: Heard) -> Self {
        Self {
            digest,
            key: OnceLock::new(),
            cache: Mutex::new(cache),
            submissions: Rate::new(SUBMISSIONS_PER_SECOND, SUBMISSIONS_AT_ONCE),
            sockets: Mutex::default(),
            declines: Mutex::default(),
            wake: Arc::default(),
            changed: AtomicBool::new(true),
            workers_to_tell: AtomicBool::new(false),
            workers_to_share: AtomicBool::new(false),
            has_told_workers: AtomicBool::new(false),
            heard,
            elsewhere: Mutex::default(),
        }
    }

    pub(crate) fn named(&self, key: &QueueKey) {
        // Somebody else may have named it before: it is the same name.
        drop(self.key.set(key.clone()));
    }

    pub(crate) fn name(&self) -> Option<&QueueKey> {
        self.key.get()
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }

    /// Whether there is no room for this job, if it is a new one.
    pub(crate) fn is_full_for(&self, job: &JobId) -> bool {
        let cache = self.cache();
        cache.record_count() >= MAX_JOBS_OF_A_QUEUE && cache.record(job).is_none()
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Sockets> {
        lock(&self.sockets)
    }

    /// The workers of other relays.
    pub(crate) fn elsewhere(&self) -> MutexGuard<'_, Lists> {
        lock(&self.elsewhere)
    }

    /// Tells those who watch the job, and old peers, that it changed.
    pub(crate) fn job_changed(&self, job: &JobId) {
        self.touch();
        let sockets = self.sockets();
        for outbox in sockets.watchers.get(job).into_iter().flatten().map(|(_, outbox)| outbox) {
            outbox.job_changed(job);
        }
        for outbox in sockets.old_peers() {
            outbox.job_changed(job);
        }
    }

    pub(crate) fn has_lines(&self, job: &JobId) {
        let sockets = self.sockets();
        for outbox in sockets.watchers.get(job).into_iter().flatten().map(|(_, outbox)| outbox) {
            outbox.has_lines(job);
        }
    }

    /// Queue summary and waiting jobs' places are to be told anew.
    pub(crate) fn touch(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn decline(
        &self,
        job: &JobId,
        worker: &WorkerId,
        instance: &InstanceId,
        retry: DeclineRetry,
        why: &str,
        now: Timestamp,
    ) {
        let until = match retry {
            DeclineRetry::Soon => return,
            DeclineRetry::Later => Some(now.plus_millis(timing::DECLINED_LATER)),
            DeclineRetry::Never => None,
        };
        let declined = Declined { instance: instance.clone(), comes_last: false, until, why: why.to_owned() };
        self.workers_to_share.store(true, Ordering::Relaxed);
        lock(&self.declines).insert((job.clone(), worker.clone()), declined);
    }

    /// After a grant that was not accepted other workers come first for a while.
    pub(crate) fn did_not_accept(
        &self,
        job: &JobId,
        worker: &WorkerId,
        instance: &InstanceId,
        now: Timestamp,
    ) {
        let until = Some(now.plus_millis(timing::ACCEPT));
        let why = "did not answer".to_owned();
        let declined = Declined { instance: instance.clone(), comes_last: true, until, why };
        lock(&self.declines).insert((job.clone(), worker.clone()), declined);
    }

    /// Why this worker does not want the job now, if it said so.
    pub(crate) fn declined(
        &self,
        job: &JobId,
        worker: &WorkerId,
        instance: &InstanceId,
        now: Timestamp,
    ) -> Option<String> {
        let here = lock(&self.declines).get(&(job.clone(), worker.clone())).cloned();
        match here {
            Some(declined) => {
                (declined.stands(instance, now) && !declined.comes_last).then_some(declined.why)
            }
            None => self.elsewhere().declined(job, worker, instance).map(str::to_owned),
        }
    }

    pub(crate) fn willing(&self, job: &JobId, machine: &Machine, now: Timestamp) -> Willing {
        let here = lock(&self.declines).get(&(job.clone(), machine.worker.clone())).cloned();
        if here.is_some_and(|declined| declined.comes_last && declined.stands(&machine.instance, now)) {
            return Willing::Last;
        }
        match self.declined(job, &machine.worker, &machine.instance, now) {
            Some(_) => Willing::No,
            None => Willing::Yes,
        }
    }

    /// What this worker does not want now, some of it if it is much.
    pub(crate) fn declined_by(
        &self,
        worker: &WorkerId,
        instance: &InstanceId,
        now: Timestamp,
    ) -> Vec<(JobId, String)> {
        let declines = lock(&self.declines);
        let standing = declines.iter().filter(|((_, id), declined)| {
            id == worker && !declined.comes_last && declined.stands(instance, now)
        });
        standing.map(|((job, _), declined)| (job.clone(), declined.why.clone())).take(TOLD_DECLINES).collect()
    }

    /// Drops what does not matter any more.
    pub(crate) fn tidy(&self, now: Timestamp) {
        let live: HashSet<JobId> = {
            let mut cache = self.cache();
            cache.forget_departed(now);
            cache.waiting().map(|(job, _)| job.clone()).collect()
        };
        lock(&self.declines).retain(|(job, _), declined| {
            live.contains(job) && declined.until.is_none_or(|until| now < until)
        });
    }

    /// Nobody needs this queue in memory now.
    pub(crate) fn is_idle(&self) -> bool {
        let sockets = self.sockets();
        sockets.watch_clients.is_empty()
            && sockets.old_clients.is_empty()
            && sockets.lease_workers.is_empty()
            && sockets.old_workers.is_empty()
            && self.cache().is_idle()
    }

    pub(crate) fn revoke_target(&self, worker: &WorkerId) -> Option<Arc<Outbox>> {
        self.sockets().lease_workers.get(worker).map(|socket| Arc::clone(&socket.outbox))
    }

    /// A run ended: its worker has room again.
    pub(crate) fn has_room_again(&self, worker: &WorkerId) {
        if let Some(socket) = self.sockets().lease_workers.get_mut(worker) {
            socket.full = false;
        }
    }

    /// The job that a lease of the live records belongs to.
    pub(crate) fn job_of(&self, lease: &LeaseId) -> Option<JobId> {
        self.cache().job_of(lease)
    }

    pub(crate) fn workers_message(&self) -> String {
        text(&RelayMessage::Workers(Workers { workers: self.registrations() }))
    }

    /// Registrations as everybody may see them: without what only relay and worker know.
    pub(crate) fn registrations(&self) -> Vec<Registration> {
        let mut registrations = self.registrations_here();
        let here: HashSet<WorkerId> = registrations.iter().map(|one| one.id.clone()).collect();
        let elsewhere = self.elsewhere();
        let others = elsewhere.workers().map(|worker| &worker.registration);
        registrations.extend(shown(others.filter(|other| !here.contains(&other.id))));
        registrations.sort_by(|a, b| a.id.cmp(&b.id));
        registrations
    }

    /// Of those who are connected to this relay.
    pub(crate) fn registrations_here(&self) -> Vec<Registration> {
        let sockets = self.sockets();
        let leases = sockets.lease_workers.values().map(|socket| &socket.registration);
        shown(leases.chain(sockets.old_registrations()))
    }

    /// Of those who are connected to other relays, by these.
    pub(crate) fn registrations_elsewhere(&self) -> Vec<(String, Vec<Registration>)> {
        let elsewhere = self.elsewhere();
        let all = elsewhere.by_process();
        all.map(|(process, workers)| {
            (process.to_owned(), shown(workers.iter().map(|worker| &worker.registration)))
        })
        .collect()
    }
}

/// Each worker once, without what only relay and worker know.
fn shown<'a>(registrations: impl Iterator<Item = &'a Registration>) -> Vec<Registration> {
    let mut seen = HashSet::new();
    registrations
        .filter(|registration| seen.insert(registration.id.clone()))
        .map(|registration| Registration { leases: None, instance: None, ..registration.clone() })
        .collect()
}

impl Sockets {
    pub(crate) fn new_id(&mut self) -> SocketId {
        self.last += 1;
        self.last
    }

    pub(crate) fn old_peers(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        let workers = self.old_workers.values().filter(|socket| socket.registration.is_some());
        self.old_clients.values().chain(workers.map(|socket| &socket.outbox))
    }

    /// All sockets that something can be told.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        let watching = self.watch_clients.values().map(|client| &client.outbox);
        let leases = self.lease_workers.values().map(|socket| &socket.outbox);
        let old = self.old_workers.values().map(|socket| &socket.outbox);
        watching.chain(self.old_clients.values()).chain(leases).chain(old)
    }

    pub(crate) fn watch(&mut self, job: JobId, socket: SocketId, outbox: &Arc<Outbox>) {
        self.watchers.entry(job).or_default().insert(socket, Arc::clone(outbox));
    }

    pub(crate) fn unwatch(&mut self, job: &JobId, socket: SocketId) {
        if let Some(watchers) = self.watchers.get_mut(job) {
            watchers.remove(&socket);
            if watchers.is_empty() {
                self.watchers.remove(job);
            }
        }
    }

    /// Tells all watchers of these jobs to look again.
    pub(crate) fn remind(&self, jobs: impl Fn(&JobId) -> bool) {
        for (job, watchers) in self.watchers.iter().filter(|(job, _)| jobs(job)) {
            for outbox in watchers.values() {
                outbox.job_changed(job);
            }
        }
    }

    /// Tells everybody who watches a job to look for lines.
    pub(crate) fn remind_of_lines(&self) {
        for (job, watchers) in &self.watchers {
            for outbox in watchers.values() {
                outbox.has_lines(job);
            }
        }
    }

    pub(crate) fn client_count(&self) -> usize {
        self.watch_clients.len() + self.old_clients.len()
    }

    /// Those of workers of the old way, the newest first.
    pub(crate) fn old_registrations(&self) -> impl Iterator<Item = &Registration> {
        let mut old: Vec<_> = self.old_workers.iter().collect();
        old.sort_unstable_by_key(|(id, socket)| std::cmp::Reverse((socket.registered, **id)));
        old.into_iter().filter_map(|(_, socket)| socket.registration.as_ref())
    }

    pub(crate) fn old_worker_count(&self) -> usize {
        self.old_workers.values().filter(|socket| socket.registration.is_some()).count()
    }
}

/// The numbers of a queue, from its machines and counts.
pub(crate) fn summary(
    queued: usize,
    running: usize,
    registrations: &[Registration],
    free_cpus: f64,
    free_gpus: f64,
) -> QueueSummary {
    let sum = |of: fn(&Registration) -> f64| Amount(registrations.iter().map(of).sum());
    QueueSummary {
        queued: queued as u64,
        running: running as u64,
        workers: registrations.len() as u64,
        cpus: sum(|worker| worker.cpus.0),
        gpus: sum(|worker| worker.gpus.0),
        free_cpus: Amount(free_cpus.max(0.0)),
        free_gpus: Amount(free_gpus.max(0.0)),
    }
}
