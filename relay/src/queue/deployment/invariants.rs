//! What must always hold (`jobs-and-states` 9), looked at from outside: at every change that became durable, at every
//! acknowledgement and every state that a client is shown, and once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dockframe_shared::{JobId, LeaseId, Namespace};

use super::network::Frame;
use super::relay::{definition_key, is_verified};
use super::store::{Change, Truth};
use super::world::{QUEUES, SLOWEST, World};
use crate::queue::command::{Command, Ending, Who};
use crate::queue::record::{EndReason, Lease, Outcome, Phase, Record, Source};
use crate::queue::timing::KEPT;
use crate::queue::view::{Entry, Key};
use crate::store::DocumentKey;

/// From when, at which revision, as what.
type Version = (i64, u64, Option<Rc<Entry>>);

/// Whether a record is as it was asked for.
type Wanted<'a> = Box<dyn Fn(Option<&Record>) -> bool + 'a>;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Observer {
    /// All that each record ever was, with the time from which it was so.
    history: BTreeMap<(usize, JobId), Vec<Version>>,
    revisions: BTreeMap<(usize, Key), u64>,
    /// Leases that ever were in a slot, and those that left it.
    leases: BTreeMap<LeaseId, (usize, JobId)>,
    gone: BTreeSet<LeaseId>,
    recorded: BTreeSet<LeaseId>,
    /// Acknowledged as recorded, or as not.
    told: BTreeMap<LeaseId, bool>,
}

impl Observer {
    pub(super) fn job_of_run(&self, run: &LeaseId) -> JobId {
        self.leases.get(run).map(|(_, job)| job.clone()).expect("a run that was")
    }
}

fn record_of(entry: Option<&Rc<Entry>>) -> Option<&Record> {
    match entry.map(|entry| &**entry) {
        Some(Entry::Record(record)) => Some(record),
        _ => None,
    }
}

fn lease_id(record: Option<&Record>) -> Option<&LeaseId> {
    record.and_then(Record::lease).map(|lease| &lease.id)
}

impl World {
    pub(super) fn is_active(&self, queue: usize, job: &JobId, lease: &LeaseId) -> bool {
        match self.store.entry(queue, &Key::Record(job.clone())) {
            Some(Entry::Record(record)) => record.active_lease().is_some_and(|active| active.id == *lease),
            _ => false,
        }
    }

    pub(super) fn check(&mut self, truth: &Truth) {
        match truth {
            Truth::Changed(changes, command) => {
                self.tell(|| format!("COMMIT {command:?}"));
                for change in changes {
                    self.check_revision(change);
                    if let Key::Record(job) = &change.key {
                        self.check_record(change.queue, job, change, command.as_deref());
                    }
                }
            }
            Truth::Document { key, before, after } => {
                self.check_document(key, before.as_deref(), after.as_deref())
            }
        }
    }

    fn check_revision(&mut self, change: &Change) {
        // Namespaces and workers are compared by their revisions; only records are shown with theirs.
        if !matches!(change.key, Key::Record(_)) {
            return;
        }
        let known = self.observer.revisions.insert((change.queue, change.key.clone()), change.revision);
        if known.is_some_and(|known| known >= change.revision) {
            let (key, revision) = (&change.key, change.revision);
            self.breaks(4, || format!("{key:?} went from revision {known:?} to {revision}"));
        }
    }

    fn check_record(&mut self, queue: usize, job: &JobId, change: &Change, command: Option<&Command>) {
        let (before, after) = (record_of(change.before.as_ref()), record_of(change.after.as_ref()));
        let state = after.map(|after| (&after.phase, after.holders.keys().collect::<Vec<_>>()));
        self.tell(|| format!("       {queue}/{job} @{} {state:?}", change.revision));
        let versions = self.observer.history.entry((queue, job.clone())).or_default();
        versions.push((self.now, change.revision, change.after.clone()));
        let Some(after) = after else {
            let ended = before.filter(|before| !before.is_going()).map(|before| before.time);
            if ended.is_none_or(|ended| self.now < ended.plus_millis(KEPT).as_millis()) {
                self.breaks(1, || format!("{job} is gone"));
            }
            return;
        };
        self.check_holders(queue, job, before, after, command);
        self.check_phase(job, before, after, command);
        self.check_lease(queue, job, before, after, command);
        self.check_outcome(queue, job, before, after, command);
    }

    /// Invariant 8: a job ends for a namespace when that one lets go, and not before.
    fn check_holders(
        &mut self,
        queue: usize,
        job: &JobId,
        before: Option<&Record>,
        after: &Record,
        command: Option<&Command>,
    ) {
        if after.is_going() && after.holders.is_empty() {
            self.breaks(8, || format!("{job} goes on for nobody"));
        }
        if matches!(after.phase, Phase::LetGo(_)) && !after.holders.is_empty() {
            self.breaks(8, || format!("{job} ended though {:?} hold it", after.holders));
        }
        let held = before.into_iter().flat_map(|before| before.holders.iter());
        for (namespace, holder) in held.filter(|(namespace, _)| after.holders.get(namespace).is_none()) {
            let is_due = match command {
                Some(Command::LetGo { job: named, who: Who::These(who), .. }) => {
                    named == job && who.covers(namespace)
                }
                Some(Command::Submit(_) | Command::Look { .. }) => {
                    self.is_superseded(queue, job, namespace, holder.number)
                }
                _ => false,
            };
            if !is_due {
                self.breaks(8, || format!("{job} was taken from {namespace} by {command:?}"));
            }
        }
    }

    fn is_superseded(&self, queue: usize, job: &JobId, namespace: &Namespace, number: u64) -> bool {
        match self.store.entry(queue, &Key::Slot(namespace.clone())) {
            Some(Entry::Slot(slot)) => {
                slot.holders.iter().any(|(other, place)| other != job && place.number > number)
            }
            _ => false,
        }
    }

    /// Invariant 1: an ending is final until the next submission.
    fn check_phase(
        &mut self,
        job: &JobId,
        before: Option<&Record>,
        after: &Record,
        command: Option<&Command>,
    ) {
        let is_submit = matches!(command, Some(Command::Submit(submit)) if submit.job == *job);
        let deletes = matches!(command, Some(Command::LetGo { why: EndReason::Deleted, .. }));
        let allowed = match (before.map(|before| &before.phase), &after.phase) {
            (None, Phase::LetGo(_)) => deletes,
            (None, _) => is_submit,
            (Some(Phase::LetGo(_)), Phase::LetGo(_)) => true,
            (Some(Phase::LetGo(_)), Phase::Waiting { .. } | Phase::Done(_)) => is_submit,
            (Some(Phase::LetGo(_)), Phase::Granted(_) | Phase::Held(_)) => false,
            (Some(Phase::Done(old)), Phase::Done(new)) => old == new,
            (Some(Phase::Done(old)), Phase::Waiting { expired: None }) => {
                is_submit && after.previous.as_ref() == Some(old)
            }
            (Some(Phase::Done(_)), Phase::LetGo(_)) => deletes,
            (Some(Phase::Done(_)), _) => false,
            (Some(_), Phase::LetGo(_)) => true,
            (Some(Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_)), _) => true,
        };
        if !allowed {
            self.breaks(1, || format!("{job} went from {before:?} to {after:?} by {command:?}"));
        }
    }

    /// Invariant 2, and the life of a lease (`jobs-and-states` 8.3).
    fn check_lease(
        &mut self,
        queue: usize,
        job: &JobId,
        before: Option<&Record>,
        after: &Record,
        command: Option<&Command>,
    ) {
        let (old, new) = (lease_id(before).cloned(), lease_id(Some(after)).cloned());
        if old != new {
            self.observer.gone.extend(old);
            if let Some(new) = &new {
                let is_made = matches!(command, Some(Command::Grant { .. } | Command::Claim { .. }));
                let known = self.observer.leases.insert(new.clone(), (queue, job.clone()));
                if !is_made || known.is_some() || self.observer.gone.contains(new) {
                    self.breaks(2, || format!("{new} came back as the lease of {job} by {command:?}"));
                }
                self.check_definition(queue, job);
            }
            return;
        }
        let (Some(Phase::Held(held)), Phase::Waiting { expired: Some(_) }) =
            (before.map(|b| &b.phase), &after.phase)
        else {
            return;
        };
        if matches!(command, Some(Command::Look { .. })) {
            self.check_expiry(queue, job, held);
        }
    }

    /// A grant whose definition cannot be read would be of no use (invariant 1).
    fn check_definition(&mut self, queue: usize, job: &JobId) {
        if self.store.document(&definition_key(queue, job)).is_none() {
            self.breaks(1, || format!("{job} was granted without its definition"));
        }
    }

    /// A lease goes before its time only if its worker has not registered since its socket closed
    /// (`jobs-and-states` 8.7).
    fn check_expiry(&mut self, queue: usize, job: &JobId, held: &Lease) {
        let Some(Entry::Worker(worker)) = self.store.entry(queue, &Key::Worker(held.worker.clone())) else {
            return;
        };
        let is_same = worker.instance == held.instance;
        let until = if is_same { worker.live_until.max(held.live_until) } else { held.live_until };
        if self.now >= until.as_millis() {
            return;
        }
        let session = self.sessions.get(&(queue, held.worker.clone(), worker.session));
        let is_connected = session.is_some_and(|socket| self.sockets[*socket].relay_side);
        if is_same && is_connected {
            let (id, lease) = (&held.worker, &held.id);
            let text = format!("{lease} of {job} expired before its time, and {id} is connected");
            self.breaks(2, || text);
        }
    }

    /// Invariants 3, 5 and 6: one result for a run, from the current lease, readable, and never another's.
    fn check_outcome(
        &mut self,
        queue: usize,
        job: &JobId,
        before: Option<&Record>,
        after: &Record,
        command: Option<&Command>,
    ) {
        if let Some(stood) = before.and_then(Record::outcome)
            && after.outcome() != Some(stood)
        {
            let is_rerun = before.is_some_and(|before| before.previous.is_some());
            let deletes = matches!(command, Some(Command::LetGo { why: EndReason::Deleted, .. }));
            if !deletes && !is_rerun {
                self.breaks(3, || format!("the result {stood:?} of {job} went by {command:?}"));
            }
        }
        let Some(outcome) = after.outcome() else { return };
        let is_new = before.and_then(Record::outcome) != Some(outcome);
        match &outcome.source {
            Source::Run(run) if is_new => self.check_recorded(queue, job, before, outcome, run, command),
            Source::Shared(run) if is_new => {
                let from = self.observer.leases.get(run).cloned();
                let is_right = from.as_ref().is_some_and(|(other, of)| *other != queue && of == job);
                let may = self.kind.shared_results && is_verified(job) && !before.is_some_and(|b| b.own_only);
                if !is_right || !may || !self.observer.recorded.contains(run) {
                    self.breaks(6, || format!("{job} was answered by {run} of {from:?}"));
                }
                if self.store.document(&DocumentKey::Result(run.clone())).is_none() {
                    self.breaks(5, || format!("the result {run} that answers {queue}/{job} cannot be read"));
                }
            }
            Source::Run(_) | Source::Shared(_) | Source::Relay(_) => {}
        }
    }

    fn check_recorded(
        &mut self,
        queue: usize,
        job: &JobId,
        before: Option<&Record>,
        outcome: &Outcome,
        run: &LeaseId,
        command: Option<&Command>,
    ) {
        let lease = before.and_then(Record::lease).filter(|lease| lease.id == *run);
        let sender = match command {
            Some(Command::Finish { worker, ending: Ending::Result { .. }, .. }) => Some(worker),
            Some(Command::ClaimFinish { worker, ending: Ending::Result { .. }, .. }) => Some(worker),
            _ => None,
        };
        if lease.is_none_or(|lease| Some(&lease.worker) != sender || lease.worker.as_str() != outcome.worker)
        {
            self.breaks(3, || {
                format!("{run} is no current lease of {job} in {before:?}, and was recorded by {command:?}")
            });
        }
        if !self.observer.recorded.insert(run.clone()) {
            self.breaks(3, || format!("{run} of {job} was recorded twice"));
        }
        if self.observer.told.get(run) == Some(&false) {
            self.breaks(3, || {
                format!("{run} of {job} was recorded after its worker was told that it will not be")
            });
        }
        let document = self.store.document(&DocumentKey::Result(run.clone()));
        let whose = format!("{} ran ", outcome.worker);
        if document.is_none_or(|document| !document.starts_with(whose.as_bytes())) {
            self.breaks(5, || format!("the result {run} of {queue}/{job} cannot be read"));
        }
    }

    fn check_document(&mut self, key: &DocumentKey, before: Option<&[u8]>, after: Option<&[u8]>) {
        match key {
            DocumentKey::Shared(job) => {
                let run = |bytes: &[u8]| self.store.decode_shared(bytes).run.clone();
                let (old, new) = (before.map(run), after.map(run));
                self.tell(|| format!("SHARED {job}: {old:?} → {new:?}"));
                if let (Some(old), Some(new)) = (&old, &new)
                    && old != new
                {
                    self.breaks(6, || format!("the shared result of {job} went from {old} to {new}"));
                }
                if let Some(new) = new.filter(|new| !self.observer.recorded.contains(new)) {
                    self.breaks(6, || format!("the shared result {new} of {job} was never recorded"));
                }
            }
            DocumentKey::Result(run) if after.is_none() => {
                self.tell(|| format!("DROPPED {run}"));
                self.check_readable(run);
            }
            _ => {}
        }
    }

    /// No queue shows a result that is gone (invariants 5 and 6).
    fn check_readable(&mut self, run: &LeaseId) {
        let shown = self.store.entries.iter().find_map(|((queue, _), (_, entry, _))| match &**entry {
            Entry::Record(record) if record.outcome().and_then(Outcome::run) == Some(run) => Some(*queue),
            _ => None,
        });
        if let Some(queue) = shown {
            self.breaks(5, || {
                format!("queue {queue} shows the result {run}, and it cannot be read any more")
            });
        }
    }

    /// Invariant 1: what was acknowledged was so at some time since it was asked for.
    pub(super) fn check_acknowledged(&mut self, queue: usize, since: i64, frame: &Frame) {
        let (job, wanted): (&JobId, Wanted<'_>) = match frame {
            Frame::Submit { job, namespace, .. } => (
                job,
                Box::new(move |record| record.is_some_and(|record| record.holders.get(namespace).is_some())),
            ),
            Frame::LetGo { job, why, who: Who::These(who), .. } => {
                let deletes = *why == EndReason::Deleted;
                let is_gone = move |record: Option<&Record>| {
                    record.is_none_or(|record| {
                        let ended = !record.is_going() && !deletes;
                        ended || !record.holders.keys().any(|namespace| who.covers(namespace))
                    })
                };
                (job, Box::new(is_gone))
            }
            _ => return,
        };
        // A relay that is alone answers by what it knows. What is durable and not known to it yet was not acknowledged
        // to anybody either, so the two came at the same time, in either order.
        let since = if self.is_alone() { since - SLOWEST } else { since };
        let empty = Vec::new();
        let versions = self.observer.history.get(&(queue, job.clone())).unwrap_or(&empty);
        let first = versions.iter().rposition(|(at, ..)| *at < since);
        let at_first = first.and_then(|first| record_of(versions[first].2.as_ref()));
        let later = versions.iter().skip(first.map_or(0, |first| first + 1));
        let held = wanted(at_first) || { later }.any(|(_, _, entry)| wanted(record_of(entry.as_ref())));
        if !held {
            let count = versions.len();
            self.breaks(1, || format!("{frame:?} was acknowledged, and never true in {count} versions"));
        }
    }

    /// What a client is shown was committed, and a result can be read as soon as it is shown (invariant 5).
    pub(super) fn check_seen(&mut self, queue: usize, job: &JobId, revision: u64, record: Option<&Record>) {
        let versions = self.observer.history.get(&(queue, job.clone()));
        let version = versions.into_iter().flatten().rev().find(|(_, known, _)| *known == revision);
        let is_same = version.is_some_and(|(.., entry)| record_of(entry.as_ref()) == record);
        if !is_same {
            self.breaks(4, || format!("{job} was shown at {revision} as it never was: {record:?}"));
        }
        let outcome = record.and_then(Record::outcome);
        if let Some(run) = outcome.and_then(Outcome::run)
            && self.store.document(&DocumentKey::Result(run.clone())).is_none()
        {
            let now = self.store.entry(queue, &Key::Record(job.clone()));
            let stands = matches!(now, Some(Entry::Record(now)) if now.outcome() == outcome);
            if stands {
                self.breaks(5, || format!("{job} was shown with the result {run}, which cannot be read"));
            }
        }
    }

    /// What a worker is told of its result is true, and final (invariant 3).
    pub(super) fn observer_hears_finished(&mut self, lease: &LeaseId, recorded: bool) {
        if recorded && !self.observer.recorded.contains(lease) {
            self.breaks(3, || format!("{lease} was acknowledged and never recorded"));
        }
        let known = self.observer.told.insert(lease.clone(), recorded);
        if known == Some(false) && recorded {
            self.breaks(3, || format!("{lease} was recorded after all"));
        }
    }

    fn is_served(&self, queue: usize) -> bool {
        self.workers.iter().any(|worker| worker.queue == queue)
            || self.old_workers.iter().any(|worker| worker.queue == queue && worker.is_there)
    }

    fn going(&self) -> Vec<(usize, JobId, Record)> {
        let records =
            self.store.entries.iter().filter_map(|((queue, key), (_, entry, _))| match (key, &**entry) {
                (Key::Record(job), Entry::Record(record)) if record.is_going() => {
                    Some((*queue, job.clone(), (**record).clone()))
                }
                _ => None,
            });
        records.collect()
    }

    /// Nothing is under way that could end.
    pub(super) fn is_settled(&self) -> bool {
        self.store.up
            && self.relays.iter().all(|relay| relay.is_up)
            && self.clients.iter().all(|client| client.is_content())
            && self.workers.iter().all(|worker| worker.runs.is_empty())
            && self.old_workers.iter().all(|worker| worker.runs.is_empty())
            && self.going().iter().all(|(queue, ..)| !self.is_served(*queue))
    }

    /// Long after the last trouble.
    pub(super) fn check_end(&mut self) {
        let waiting = self.going().into_iter().find(|(queue, ..)| self.is_served(*queue));
        if let Some((queue, job, record)) = waiting {
            self.breaks(9, || format!("{queue}/{job} never ends: {:?}", record.phase));
        }
        if let Some(number) = self.clients.iter().position(|client| !client.is_content()) {
            self.breaks(1, || format!("client {number} is never answered"));
        }
        for number in 0..self.workers.len() {
            if let Some((lease, run)) = self.workers[number].runs.iter().next() {
                let text = format!("worker {number} still runs {lease} for {}", run.job);
                self.breaks(8, || text);
            }
        }
        for number in 0..self.old_workers.len() {
            if let Some(job) = self.old_workers[number].runs.keys().next() {
                let text = format!("old worker {number} still runs {job}");
                self.breaks(8, || text);
            }
        }
        for queue in 0..QUEUES {
            self.check_namespaces(queue);
        }
        self.check_shared();
    }

    /// Invariant 7: of a namespace's live jobs one is left, the newest.
    fn check_namespaces(&mut self, queue: usize) {
        let mut live: BTreeMap<Namespace, Vec<(u64, JobId)>> = BTreeMap::new();
        for (_, job, record) in self.going().into_iter().filter(|(of, ..)| *of == queue) {
            for (namespace, holder) in record.holders.iter().filter(|(namespace, _)| !namespace.is_default())
            {
                live.entry(namespace.clone()).or_default().push((holder.number, job.clone()));
            }
        }
        if let Some((namespace, jobs)) = live.into_iter().find(|(_, jobs)| jobs.len() > 1) {
            self.breaks(7, || format!("{namespace} of queue {queue} holds {jobs:?}"));
        }
    }

    /// Invariant 6: what a queue deleted or ran again does not answer others in its name.
    fn check_shared(&mut self) {
        let shared: Vec<LeaseId> = self
            .store
            .documents
            .iter()
            .filter(|(name, _)| name.starts_with("Shared"))
            .map(|(_, bytes)| self.store.decode_shared(bytes).run.clone())
            .collect();
        for run in shared {
            let Some((queue, job)) = self.observer.leases.get(&run).cloned() else { continue };
            let stands = match self.store.entry(queue, &Key::Record(job.clone())) {
                Some(Entry::Record(record)) => record.outcome().and_then(Outcome::run) == Some(&run),
                _ => false,
            };
            if !stands {
                self.breaks(6, || {
                    format!("{run} of {queue}/{job} still answers others, and was taken away there")
                });
            }
        }
    }
}
