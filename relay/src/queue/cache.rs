//! What this process knows of an open queue: everything live, with revisions, and the order of work.
//!
//! The cache is never the truth. A decision made on stale knowledge fails its compare-and-set, and the store
//! answers what is there. Writes that arrive late, after a newer one of the same key, are told apart by revision,
//! also when the newer one took the key away.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, Timestamp, WorkerId};

use super::record::{Needs, Outcome, Phase, Record, Slot, WorkerRecord};
use super::view::{Entry, Key, Need, Seen, Versioned, View};

/// Order of work: priority, then time of queueing, then id (`jobs-and-states` 8.2).
pub(crate) type Turn = (Reverse<i8>, Timestamp, JobId);

/// How long the revision of something that left is remembered: longer than any commit is under way.
const DEPARTED_MS: i64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    records: HashMap<JobId, Versioned<Box<Record>>>,
    slots: HashMap<Namespace, Versioned<Slot>>,
    workers: HashMap<WorkerId, Versioned<WorkerRecord>>,
    leases: HashMap<LeaseId, JobId>,
    by_worker: HashMap<WorkerId, HashSet<JobId>>,
    waiting: BTreeSet<Turn>,
    departed: HashMap<Key, (u64, Timestamp)>,
    running: usize,
}

fn turn(job: &JobId, record: &Record) -> Turn {
    (Reverse(record.priority()), record.queued_time, job.clone())
}

impl Cache {
    /// Takes in what is committed, unless something newer is known. `live: false` or no entry: it is not kept here.
    pub(crate) fn put(
        &mut self,
        key: &Key,
        revision: u64,
        entry: Option<Entry>,
        live: bool,
        now: Timestamp,
    ) -> bool {
        if self.revision(key).is_some_and(|known| known > revision)
            || self.departed.get(key).is_some_and(|(known, _)| *known > revision)
        {
            return false;
        }
        if entry.is_none() || !live {
            self.departed.insert(key.clone(), (revision, now));
        } else {
            self.departed.remove(key);
        }
        match (key, entry.filter(|_| live)) {
            (Key::Record(job), Some(Entry::Record(record))) => self.put_record(job, revision, Some(record)),
            (Key::Record(job), _) => self.put_record(job, revision, None),
            (Key::Slot(namespace), Some(Entry::Slot(value))) => {
                self.slots.insert(namespace.clone(), Versioned { revision, value });
            }
            (Key::Slot(namespace), _) => {
                self.slots.remove(namespace);
            }
            (Key::Worker(worker), Some(Entry::Worker(value))) => {
                self.workers.insert(worker.clone(), Versioned { revision, value });
            }
            (Key::Worker(worker), _) => {
                self.workers.remove(worker);
            }
            (Key::Run(_), _) => {}
        }
        true
    }

    /// All that is known, with revisions.
    pub(crate) fn revisions(&self) -> HashMap<Key, u64> {
        let records = self.records.iter().map(|(job, known)| (Key::Record(job.clone()), known.revision));
        let slots = self.slots.iter().map(|(name, known)| (Key::Slot(name.clone()), known.revision));
        let workers = self.workers.iter().map(|(id, known)| (Key::Worker(id.clone()), known.revision));
        records.chain(slots).chain(workers).collect()
    }

    /// The store does not have it.
    pub(crate) fn forget(&mut self, key: &Key) {
        match key {
            Key::Record(job) => self.put_record(job, 0, None),
            Key::Slot(namespace) => drop(self.slots.remove(namespace)),
            Key::Worker(worker) => drop(self.workers.remove(worker)),
            Key::Run(_) => {}
        }
    }

    pub(crate) fn revision(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Record(job) => self.records.get(job).map(|known| known.revision),
            Key::Slot(namespace) => self.slots.get(namespace).map(|known| known.revision),
            Key::Worker(worker) => self.workers.get(worker).map(|known| known.revision),
            Key::Run(_) => None,
        }
    }

    fn put_record(&mut self, job: &JobId, revision: u64, record: Option<Box<Record>>) {
        if let Some(old) = self.records.remove(job) {
            let old = old.value;
            self.waiting.remove(&turn(job, &old));
            self.running -= usize::from(matches!(old.phase, Phase::Held(_)));
            if let Some(lease) = old.lease() {
                self.leases.remove(&lease.id);
                if let Some(jobs) = self.by_worker.get_mut(&lease.worker) {
                    jobs.remove(job);
                    if jobs.is_empty() {
                        self.by_worker.remove(&lease.worker);
                    }
                }
            }
            if let Some(run) = old.outcome().and_then(Outcome::run) {
                self.leases.remove(run);
            }
        }
        let Some(record) = record else { return };
        if matches!(record.phase, Phase::Waiting { .. }) {
            self.waiting.insert(turn(job, &record));
        }
        self.running += usize::from(matches!(record.phase, Phase::Held(_)));
        if let Some(lease) = record.lease() {
            self.leases.insert(lease.id.clone(), job.clone());
            self.by_worker.entry(lease.worker.clone()).or_default().insert(job.clone());
        }
        if let Some(run) = record.outcome().filter(|outcome| !outcome.is_shared()).and_then(Outcome::run) {
            self.leases.insert(run.clone(), job.clone());
        }
        self.records.insert(job.clone(), Versioned { revision, value: record });
    }

    pub(crate) fn record(&self, job: &JobId) -> Option<Versioned<&Record>> {
        let known = self.records.get(job)?;
        Some(Versioned { revision: known.revision, value: &known.value })
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (&JobId, &Record)> {
        self.records.iter().map(|(job, known)| (job, &*known.value))
    }

    /// Waiting jobs in the order of work.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&JobId, &Record)> {
        self.waiting.iter().filter_map(|(_, _, job)| self.records.get(job).map(|known| (job, &*known.value)))
    }

    /// Position in line from 1, looked for among the first `limit`.
    pub(crate) fn place(&self, job: &JobId, limit: usize) -> Option<u32> {
        let at = self.waiting.iter().take(limit).position(|(_, _, other)| other == job)?;
        u32::try_from(at + 1).ok()
    }

    /// The job whose lease or recorded run this is.
    pub(crate) fn job_of(&self, lease: &LeaseId) -> Option<JobId> {
        self.leases.get(lease).cloned()
    }

    /// How many wait, how many run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let granted = self.by_worker.values().flatten().filter(|job| {
            self.records.get(*job).is_some_and(|known| matches!(known.value.phase, Phase::Granted(_)))
        });
        (self.waiting.len() + granted.count(), self.running)
    }

    /// What the leases of this process of a worker take.
    pub(crate) fn taken_by<'a>(
        &'a self,
        worker: &WorkerId,
        instance: &'a InstanceId,
    ) -> impl Iterator<Item = &'a Needs> {
        self.by_worker.get(worker).into_iter().flatten().filter_map(move |job| {
            let record = &self.records.get(job)?.value;
            let lease = record.active_lease()?;
            (lease.instance.as_ref() == Some(instance)).then_some(&record.needs)
        })
    }

    pub(crate) fn forget_departed(&mut self, now: Timestamp) {
        self.departed.retain(|_, (_, at)| now.since(*at) < DEPARTED_MS);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.records.is_empty()
    }
}

/// What was looked up for one command beyond the cache. `None`: known to be absent.
pub(crate) type Looked = HashMap<Key, Option<Versioned<Entry>>>;

/// The cache, and what was looked up besides.
pub(crate) struct Sight<'a> {
    pub cache: &'a Cache,
    pub looked: &'a Looked,
}

impl View for Sight<'_> {
    fn record(&self, job: &JobId) -> Seen<'_, Record> {
        if let Some(known) = self.cache.record(job) {
            return Ok(Some(known));
        }
        let key = Key::Record(job.clone());
        match self.looked.get(&key) {
            Some(Some(Versioned { revision, value: Entry::Record(record) })) => {
                Ok(Some(Versioned { revision: *revision, value: record }))
            }
            Some(_) => Ok(None),
            None => Err(Need(key)),
        }
    }

    fn slot(&self, namespace: &Namespace) -> Seen<'_, Slot> {
        // All namespaces and workers of a queue are live, so what is not here is nowhere; unless the store has just
        // said otherwise.
        let known = self.cache.slots.get(namespace);
        let known = known.map(|known| Versioned { revision: known.revision, value: &known.value });
        let looked = match self.looked.get(&Key::Slot(namespace.clone())) {
            Some(Some(Versioned { revision, value: Entry::Slot(slot) })) => {
                Some(Versioned { revision: *revision, value: slot })
            }
            _ => None,
        };
        Ok(match (known, looked) {
            (Some(known), Some(looked)) if looked.revision > known.revision => Some(looked),
            (None, looked) => looked,
            (known, _) => known,
        })
    }

    fn worker(&self, worker: &WorkerId) -> Seen<'_, WorkerRecord> {
        Ok(self
            .cache
            .workers
            .get(worker)
            .map(|known| Versioned { revision: known.revision, value: &known.value }))
    }

    fn job_of(&self, lease: &LeaseId) -> Result<Option<JobId>, Need> {
        if let Some(job) = self.cache.leases.get(lease) {
            return Ok(Some(job.clone()));
        }
        let key = Key::Run(lease.clone());
        match self.looked.get(&key) {
            Some(Some(Versioned { value: Entry::Run(job), .. })) => Ok(Some(job.clone())),
            Some(_) => Ok(None),
            None => Err(Need(key)),
        }
    }

    fn leased_to(&self, worker: &WorkerId) -> Vec<JobId> {
        let mut jobs: Vec<JobId> = self.cache.by_worker.get(worker).into_iter().flatten().cloned().collect();
        // In one order, so that a decision can be repeated.
        jobs.sort();
        jobs
    }
}
