//! A queue in memory for tests of the core: what is decided is what is there.

use std::collections::BTreeMap;

use dockframe_shared::job::ResultReason;
use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, NamespaceSelector, Timestamp, WorkerId};

use super::apply;
use crate::queue::command::{Command, Decision, Due, DueKind, Effect, Ending, Ids, Reply, Submit, Who};
use crate::queue::record::{EndReason, Holder, Needs, Phase, Record, Slot, WorkerRecord};
use crate::queue::view::{Entry, Key, Need, Seen, Versioned, View};

/// Ids that count.
#[derive(Debug, Default)]
pub(crate) struct Counting(u64);

impl Ids for Counting {
    fn nonce(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn lease(&mut self) -> LeaseId {
        self.0 += 1;
        LeaseId::new(format!("lease-{}", self.0)).unwrap()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) entries: BTreeMap<Key, Versioned<Entry>>,
    pub(crate) due: BTreeMap<(Timestamp, JobId), ()>,
    pub(crate) now: Timestamp,
    ids: Counting,
}

impl View for Queue {
    fn record(&self, job: &JobId) -> Seen<'_, Record> {
        Ok(self.entries.get(&Key::Record(job.clone())).and_then(|known| match &known.value {
            Entry::Record(record) => Some(Versioned { revision: known.revision, value: &**record }),
            _ => None,
        }))
    }

    fn slot(&self, namespace: &Namespace) -> Seen<'_, Slot> {
        Ok(self.entries.get(&Key::Slot(namespace.clone())).and_then(|known| match &known.value {
            Entry::Slot(slot) => Some(Versioned { revision: known.revision, value: slot }),
            _ => None,
        }))
    }

    fn worker(&self, worker: &WorkerId) -> Seen<'_, WorkerRecord> {
        Ok(self.entries.get(&Key::Worker(worker.clone())).and_then(|known| match &known.value {
            Entry::Worker(record) => Some(Versioned { revision: known.revision, value: record }),
            _ => None,
        }))
    }

    fn job_of(&self, lease: &LeaseId) -> Result<Option<JobId>, Need> {
        let slot = self.entries.iter().find_map(|(key, known)| match (key, &known.value) {
            (Key::Record(job), Entry::Record(record)) => {
                record.lease().filter(|held| held.id == *lease).map(|_| job.clone())
            }
            _ => None,
        });
        Ok(slot.or_else(|| match self.entries.get(&Key::Run(lease.clone())).map(|known| &known.value) {
            Some(Entry::Run(job)) => Some(job.clone()),
            _ => None,
        }))
    }

    fn leased_to(&self, worker: &WorkerId) -> Vec<JobId> {
        let leased = self.entries.iter().filter_map(|(key, known)| match (key, &known.value) {
            (Key::Record(job), Entry::Record(record)) => {
                record.lease().filter(|held| held.worker == *worker).map(|_| job.clone())
            }
            _ => None,
        });
        leased.collect()
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { now: Timestamp::from_millis(1_000_000), ..Self::default() }
    }

    /// Decides and commits, as a store would that is never overtaken.
    pub(crate) fn tell(&mut self, command: &Command) -> Decision {
        let mut ids = std::mem::take(&mut self.ids);
        let decision = apply(self, command, self.now, &mut ids).unwrap();
        self.ids = ids;
        for write in &decision.writes {
            let known = self.entries.get(&write.key).map_or(0, |known| known.revision);
            if !matches!(write.key, Key::Run(_)) {
                assert_eq!(known, write.expected, "{:?}", write.key);
                assert!(write.revision > known);
            }
            match &write.entry {
                Some(entry) => {
                    let kept = Versioned { revision: write.revision, value: entry.clone() };
                    self.entries.insert(write.key.clone(), kept);
                }
                None => drop(self.entries.remove(&write.key)),
            }
        }
        for Due { at, what, job } in &decision.due {
            if *what == DueKind::Look {
                self.due.insert((*at, job.clone()), ());
            }
        }
        decision
    }

    /// Time passes, and all that is due by then is looked at.
    pub(crate) fn pass(&mut self, millis: i64) {
        self.pass_with(millis, true);
    }

    pub(crate) fn pass_with(&mut self, millis: i64, another_free: bool) {
        let until = self.now.plus_millis(millis);
        while let Some(((at, job), ())) = self.due.pop_first() {
            if at > until {
                self.due.insert((at, job), ());
                break;
            }
            self.now = self.now.max(at);
            let healthy_since = Timestamp::from_millis(0);
            let look = Command::Look { job, healthy_since, another_free };
            self.tell(&look);
        }
        self.now = until;
    }

    pub(crate) fn of(&self, job: &str) -> Option<&Record> {
        self.record(&id(job)).unwrap().map(|seen| seen.value)
    }

    pub(crate) fn submit(&mut self, job: &str, namespace: &str) -> Decision {
        self.tell(&submit(job, namespace))
    }

    pub(crate) fn submit_with_priority(&mut self, job: &str, namespace: &str, priority: i8) -> Decision {
        let mut submission = submission(job, namespace);
        submission.holder.priority = priority;
        self.tell(&Command::Submit(Box::new(submission)))
    }

    pub(crate) fn let_go(&mut self, job: &str, why: EndReason, namespace: &str) -> Decision {
        let who = Who::These(NamespaceSelector::new(namespace).unwrap());
        self.tell(&Command::LetGo { job: id(job), why, who, message: None })
    }

    pub(crate) fn register(&mut self, name: &str, leases: &[&LeaseId]) -> Decision {
        let leases = leases.iter().map(|lease| (*lease).clone()).collect();
        self.tell(&Command::Register { worker: worker(name), instance: instance(name), first: true, leases })
    }

    pub(crate) fn session(&self, name: &str) -> u64 {
        self.worker(&worker(name)).unwrap().map_or(0, |seen| seen.value.session)
    }

    /// The lease, if the job could be granted.
    pub(crate) fn grant(&mut self, job: &str, name: &str) -> Option<LeaseId> {
        let session = self.session(name);
        let command =
            Command::Grant { job: id(job), worker: worker(name), instance: instance(name), session };
        self.tell(&command).effects.into_iter().find_map(|effect| match effect {
            Effect::Grant { lease, .. } => Some(lease),
            _ => None,
        })
    }

    pub(crate) fn accept(&mut self, lease: &LeaseId, name: &str) -> Reply {
        self.tell(&Command::Accept { lease: lease.clone(), worker: worker(name) }).reply
    }

    pub(crate) fn finish(&mut self, lease: &LeaseId, name: &str) -> bool {
        let ending = Ending::Result { reason: ResultReason::Success, time: self.now };
        let command = Command::Finish { lease: lease.clone(), worker: worker(name), ending };
        matches!(self.tell(&command).reply, Reply::Finished { recorded: true, .. })
    }

    pub(crate) fn run(&mut self, job: &str, name: &str) -> LeaseId {
        self.register(name, &[]);
        let lease = self.grant(job, name).unwrap();
        self.accept(&lease, name);
        lease
    }

    pub(crate) fn is_waiting(&self, job: &str) -> bool {
        self.of(job).is_some_and(|record| matches!(record.phase, Phase::Waiting { .. }))
    }
}

pub(crate) fn id(job: &str) -> JobId {
    JobId::new(job).unwrap()
}

pub(crate) fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

pub(crate) fn instance(name: &str) -> InstanceId {
    InstanceId::new(format!("process of {name}")).unwrap()
}

pub(crate) fn submit(job: &str, namespace: &str) -> Command {
    Command::Submit(Box::new(submission(job, namespace)))
}

pub(crate) fn submission(job: &str, namespace: &str) -> Submit {
    Submit {
        job: id(job),
        verified: true,
        namespace: Namespace::new(namespace).unwrap(),
        holder: Holder::default(),
        queued_callback: None,
        rerun: None,
        debug: None,
        tags: None,
        requirements: None,
        needs: Needs::default(),
        shared: None,
    }
}
