//! What this process knows of an open queue: everything live, with revisions, and the order of work.
//!
//! The cache is never the truth. A decision made on stale knowledge fails its compare-and-set, and the store
//! answers what is there. Writes that arrive late, after a newer one of the same key, are told apart by revision,
//! also when the newer one took the key away.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, Timestamp, WorkerId};

use super::record::{Needs, Outcome, Phase, Record, Slot, WorkerRecord};
use super::view::{Entry, Key, Need, Seen, Versioned, View};

/// A job's place among those of its lane: priority, then time of queueing, then id (`jobs-and-states` 8.2).
type Turn<'a> = (Reverse<i8>, Timestamp, &'a JobId);

/// How long the revision of something that left is remembered: longer than any commit is under way.
const DEPARTED_MS: i64 = 60_000;

/// Waiting jobs in the order of their turns.
///
/// Few priorities are in use, and many jobs have the same: it is kept once for all of them.
#[derive(Debug, Default)]
struct Lane(BTreeMap<Reverse<i8>, BTreeSet<(Timestamp, JobId)>>);

impl Lane {
    fn insert(&mut self, job: &JobId, record: &Record) {
        let jobs = self.0.entry(Reverse(record.priority())).or_default();
        jobs.insert((record.queued_time, job.clone()));
    }

    fn remove(&mut self, job: &JobId, record: &Record) {
        let priority = Reverse(record.priority());
        let Some(jobs) = self.0.get_mut(&priority) else { return };
        jobs.remove(&(record.queued_time, job.clone()));
        if jobs.is_empty() {
            self.0.remove(&priority);
        }
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    fn iter(&self) -> impl Iterator<Item = Turn<'_>> {
        self.0.iter().flat_map(|(priority, jobs)| jobs.iter().map(|(since, job)| (*priority, *since, job)))
    }
}

/// Waiting jobs, in the order in which their namespaces have their turns.
///
/// A namespace of its own holds one live job, so among these the order of queueing is fair. The default namespace is
/// shared and holds any number: it counts as one among the others, and its next job has the place in line that it
/// would have, had it been queued when the last one of them was granted. So a thousand jobs without a namespace keep
/// nobody waiting for more than one of them, and are not kept waiting by newer jobs either.
#[derive(Debug, Default)]
struct Lanes {
    named: Lane,
    /// Held by nobody but the default namespace.
    shared: Lane,
    /// When one of these was granted last.
    last_shared: Timestamp,
}

fn is_of_the_default_namespace_alone(record: &Record) -> bool {
    record.holders.keys().all(Namespace::is_default)
}

impl Lanes {
    fn lane(&mut self, record: &Record) -> &mut Lane {
        if is_of_the_default_namespace_alone(record) { &mut self.shared } else { &mut self.named }
    }

    fn len(&self) -> usize {
        self.named.len() + self.shared.len()
    }

    fn in_turn(&self) -> impl Iterator<Item = &JobId> {
        let (mut named, mut shared) = (self.named.iter().peekable(), self.shared.iter().peekable());
        let mut had_its_turn = false;
        std::iter::from_fn(move || {
            let takes_shared = match (named.peek(), shared.peek()) {
                (Some((n_priority, n_since, n_job)), Some((s_priority, s_since, s_job))) => {
                    let since = self.last_shared.max(*s_since);
                    let turns = (s_priority, had_its_turn, since, s_job);
                    turns < (n_priority, false, *n_since, n_job)
                }
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if takes_shared {
                had_its_turn = true;
                shared.next()
            } else {
                named.next()
            }
            .map(|(_, _, job)| job)
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    records: HashMap<JobId, Versioned<Box<Record>>>,
    slots: HashMap<Namespace, Versioned<Slot>>,
    workers: HashMap<WorkerId, Versioned<WorkerRecord>>,
    leases: HashMap<LeaseId, JobId>,
    by_worker: HashMap<WorkerId, HashSet<JobId>>,
    waiting: Lanes,
    departed: HashMap<Key, (u64, Timestamp)>,
    running: usize,
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
            self.waiting.lane(&old).remove(job, &old);
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
            self.waiting.lane(&record).insert(job, &record);
        }
        if let Some(lease) = record.lease().filter(|_| is_of_the_default_namespace_alone(&record)) {
            self.waiting.last_shared = self.waiting.last_shared.max(lease.granted);
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
        self.waiting.in_turn().filter_map(|job| self.records.get(job).map(|known| (job, &*known.value)))
    }

    /// Position in line from 1, looked for among the first `limit`.
    pub(crate) fn place(&self, job: &JobId, limit: usize) -> Option<u32> {
        let at = self.waiting.in_turn().take(limit).position(|other| other == job)?;
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
            (lease.instance.as_ref() == Some(instance)).then_some(&*record.needs)
        })
    }

    pub(crate) fn forget_departed(&mut self, now: Timestamp) {
        self.departed.retain(|_, (_, at)| now.since(*at) < DEPARTED_MS);
    }

    pub(crate) fn record_count(&self) -> usize {
        self.records.len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::apply::testing::{Queue, id};

    /// The queue as a process knows it that hears of everything.
    fn known(queue: &Queue) -> Cache {
        let mut cache = Cache::default();
        for (key, known) in &queue.entries {
            cache.put(key, known.revision, Some(known.value.clone()), true, queue.now);
        }
        cache
    }

    fn in_turn(cache: &Cache) -> Vec<String> {
        cache.waiting().map(|(job, _)| job.as_str().to_owned()).collect()
    }

    #[test]
    fn many_jobs_without_a_namespace_keep_nobody_waiting_for_more_than_one_of_them() {
        let mut queue = Queue::new();
        for job in ["a1", "a2", "a3"] {
            queue.submit(job, "");
            queue.pass(1);
        }
        queue.submit("b", "user1");
        queue.pass(1);
        queue.submit("c", "user2");
        let mut cache = known(&queue);
        assert_eq!(in_turn(&cache), ["a1", "b", "c", "a2", "a3"]);
        assert_eq!(cache.place(&id("a2"), 100), Some(4), "as people are told");

        // Each has its turn, whoever comes later.
        let mut order = Vec::new();
        while let Some(job) = in_turn(&cache).first().cloned() {
            queue.pass(1);
            if order.len() == 2 {
                queue.submit("d", "user3");
                queue.pass(1);
            }
            // Each on a worker of its own, which forgets nothing.
            queue.run(&job, &job);
            for key in [Key::Record(id(&job)), Key::Record(id("d"))] {
                if let Some(now) = queue.entries.get(&key) {
                    cache.put(&key, now.revision, Some(now.value.clone()), true, queue.now);
                }
            }
            order.push(job);
        }
        assert_eq!(order, ["a1", "b", "c", "a2", "d", "a3"]);
    }

    #[test]
    fn priority_goes_before_turns() {
        let mut queue = Queue::new();
        queue.submit("a", "user1");
        queue.pass(1);
        queue.submit("b", "");
        queue.submit_with_priority("c", "", 5);
        queue.submit_with_priority("d", "", -5);
        assert_eq!(in_turn(&known(&queue)), ["c", "a", "b", "d"]);
    }
}
