//! A decision in the making: reads see what the same decision has already changed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use dockframe_shared::{JobId, LeaseId, Namespace, Timestamp, WorkerId};

use crate::queue::command::{Decision, Due, DueKind, Effect, Ids, Reply, Write};
use crate::queue::record::{Record, Slot, WorkerRecord};
use crate::queue::timing::SHARED_AGAIN;
use crate::queue::view::{Entry, Key, Need, View};

pub(super) struct Draft<'a, V> {
    view: &'a V,
    ids: &'a mut dyn Ids,
    pub(super) now: Timestamp,
    /// Expected revision and new value of what is changed.
    changes: BTreeMap<Key, (u64, Option<Entry>)>,
    /// Revisions of what was looked at.
    reads: RefCell<BTreeMap<Key, u64>>,
    due: Vec<Due>,
    effects: Vec<Effect>,
}

impl<'a, V: View> Draft<'a, V> {
    pub(super) fn new(view: &'a V, now: Timestamp, ids: &'a mut dyn Ids) -> Self {
        Self {
            view,
            ids,
            now,
            changes: BTreeMap::new(),
            reads: RefCell::default(),
            due: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn new_lease_id(&mut self) -> LeaseId {
        self.ids.lease()
    }

    pub(super) fn record(&self, job: &JobId) -> Result<Option<Record>, Need> {
        match self.changes.get(&Key::Record(job.clone())) {
            Some((_, Some(Entry::Record(record)))) => Ok(Some((**record).clone())),
            Some(_) => Ok(None),
            None => {
                let seen = self.view.record(job)?;
                self.saw(Key::Record(job.clone()), seen.as_ref().map(|seen| seen.revision));
                Ok(seen.map(|seen| seen.value.clone()))
            }
        }
    }

    fn saw(&self, key: Key, revision: Option<u64>) {
        self.reads.borrow_mut().insert(key, revision.unwrap_or(0));
    }

    pub(super) fn slot(&self, namespace: &Namespace) -> Result<Slot, Need> {
        match self.changes.get(&Key::Slot(namespace.clone())) {
            Some((_, Some(Entry::Slot(slot)))) => Ok(slot.clone()),
            Some(_) => Ok(Slot::default()),
            None => {
                let seen = self.view.slot(namespace)?;
                self.saw(Key::Slot(namespace.clone()), seen.as_ref().map(|seen| seen.revision));
                Ok(seen.map(|seen| seen.value.clone()).unwrap_or_default())
            }
        }
    }

    pub(super) fn worker(&self, worker: &WorkerId) -> Result<Option<WorkerRecord>, Need> {
        let seen = self.view.worker(worker)?;
        self.saw(Key::Worker(worker.clone()), seen.as_ref().map(|seen| seen.revision));
        Ok(seen.map(|seen| seen.value.clone()))
    }

    pub(super) fn job_of(&self, lease: &LeaseId) -> Result<Option<JobId>, Need> {
        self.view.job_of(lease)
    }

    pub(super) fn leased_to(&self, worker: &WorkerId) -> Vec<JobId> {
        self.view.leased_to(worker)
    }

    /// The revision that the record has, or will have once this decision is committed; 0: absent.
    pub(super) fn revision(&self, job: &JobId) -> Result<u64, Need> {
        let key = Key::Record(job.clone());
        match self.changes.get(&key) {
            Some((expected, _)) => Ok(next_revision(*expected, self.now)),
            None => self.stored_revision(&key),
        }
    }

    fn stored_revision(&self, key: &Key) -> Result<u64, Need> {
        Ok(match key {
            Key::Record(job) => self.view.record(job)?.map(|seen| seen.revision),
            Key::Slot(namespace) => self.view.slot(namespace)?.map(|seen| seen.revision),
            Key::Worker(worker) => self.view.worker(worker)?.map(|seen| seen.revision),
            // Written once, with a result that is recorded once: nothing to compare with.
            Key::Run(_) => None,
        }
        .unwrap_or(0))
    }

    fn put(&mut self, key: Key, entry: Option<Entry>) -> Result<(), Need> {
        let expected = match self.changes.get(&key) {
            Some((expected, _)) => *expected,
            None => self.stored_revision(&key)?,
        };
        self.changes.insert(key, (expected, entry));
        Ok(())
    }

    pub(super) fn put_record(&mut self, job: &JobId, record: Record) -> Result<(), Need> {
        self.put(Key::Record(job.clone()), Some(Entry::Record(Box::new(record))))
    }

    pub(super) fn remove_record(&mut self, job: &JobId) -> Result<(), Need> {
        self.put(Key::Record(job.clone()), None)
    }

    pub(super) fn put_worker(&mut self, worker: &WorkerId, record: WorkerRecord) -> Result<(), Need> {
        self.put(Key::Worker(worker.clone()), Some(Entry::Worker(record)))
    }

    pub(super) fn remove_worker(&mut self, worker: &WorkerId) -> Result<(), Need> {
        self.put(Key::Worker(worker.clone()), None)
    }

    pub(super) fn put_slot(&mut self, namespace: &Namespace, slot: Slot) -> Result<(), Need> {
        let entry = (!slot.holders.is_empty()).then_some(Entry::Slot(slot));
        self.put(Key::Slot(namespace.clone()), entry)
    }

    pub(super) fn put_run(&mut self, run: &LeaseId, job: Option<&JobId>) -> Result<(), Need> {
        self.put(Key::Run(run.clone()), job.map(|job| Entry::Run(job.clone())))
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    pub(super) fn look_at(&mut self, job: &JobId, at: Timestamp) {
        self.due(job, DueKind::Look, at);
    }

    pub(super) fn due(&mut self, job: &JobId, what: DueKind, at: Timestamp) {
        let due = Due { at, what, job: job.clone() };
        if !self.due.contains(&due) {
            self.due.push(due);
        }
    }

    /// This run's result answers other queues no more. A due entry says so again: what is done after the commit alone
    /// is lost when its relay is.
    pub(super) fn unshare(&mut self, job: &JobId, run: &LeaseId) {
        self.effect(Effect::Unshare { job: job.clone(), run: run.clone() });
        self.share_later(job);
    }

    /// What the job's record offers to other queues, or does not any more, is made sure of in a moment.
    pub(super) fn share_later(&mut self, job: &JobId) {
        self.due(job, DueKind::Share, self.now.plus_millis(SHARED_AGAIN));
    }

    /// The job is in none of these namespaces' slots any more.
    pub(super) fn leave_slots<'n>(
        &mut self,
        job: &JobId,
        namespaces: impl IntoIterator<Item = &'n Namespace>,
    ) -> Result<(), Need> {
        for namespace in namespaces {
            if namespace.is_default() {
                continue;
            }
            // Written also where the job does not seem to be in it: what is known of the slot may be old, and only
            // what is written is compared.
            let mut slot = self.slot(namespace)?;
            slot.holders.remove(job);
            self.put_slot(namespace, slot)?;
        }
        Ok(())
    }

    pub(super) fn decide(self, reply: Reply) -> Decision {
        let now = self.now;
        let writes = self
            .changes
            .into_iter()
            // Made and taken away within one decision. That a slot is not there is compared as well.
            .filter(|(key, (expected, entry))| {
                *expected > 0 || entry.is_some() || matches!(key, Key::Run(_) | Key::Slot(_))
            })
            .map(|(key, (expected, entry))| {
                let live = match &entry {
                    Some(Entry::Record(record)) => record.is_live(now),
                    Some(Entry::Slot(_) | Entry::Worker(_)) => true,
                    Some(Entry::Run(_)) | None => false,
                };
                let mut revision = next_revision(expected, now);
                if expected == 0 && matches!(key, Key::Slot(_)) {
                    // Slots come and go within a millisecond: nobody may take a new one for the one it knew.
                    revision = (revision << NONCE_BITS) | (self.ids.nonce() & ((1 << NONCE_BITS) - 1));
                }
                Write { key, expected, revision, entry, live }
            })
            .collect();
        let reads = self.reads.into_inner().into_iter().collect();
        Decision { writes, due: self.due, effects: self.effects, reads, reply }
    }
}

/// Revisions stay below 2^53, which every store can compare.
const NONCE_BITS: u32 = 12;

/// A new thing begins at the time's milliseconds: so its revisions are above those of one of the same name that
/// was taken away before, and watchers never see a revision go down.
fn next_revision(expected: u64, now: Timestamp) -> u64 {
    if expected == 0 { u64::try_from(now.as_millis()).unwrap_or(0).max(1) } else { expected + 1 }
}
