//! The core over a world that is against it: two relays that decide on stale knowledge, commit late and die; messages
//! that are lost, repeated and late; workers that vanish and come back (`jobs-and-states` 9).
//!
//! A schedule follows from its seed alone. On a failure the seed is in the message: `SIMULATION_SEED=… cargo test`
//! plays it again. `SIMULATION_SCHEDULES` says how many. To show that it can find anything, it is also run with
//! guards taken out: then it must fail.

use std::collections::{BTreeMap, BTreeSet};

use dockframe_shared::job::ResultReason;
use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, NamespaceSelector, Timestamp, WorkerId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::apply;
use super::command::{Command, Decision, DueKind, Effect, Ending, Ids, Reply, Submit, Who};
use super::record::{EndReason, Holder, Needs, Phase, Record, Slot, Source, WorkerRecord};
use super::view::{Entry, Key, Need, Seen, Versioned, View};

const JOBS: usize = 4;
const NAMESPACES: [&str; 3] = ["_", "n", "m"];
const NEW_WORKERS: [&str; 2] = ["new1", "new2"];
const OLD_WORKERS: [&str; 2] = ["old1", "old2"];
const STEPS: usize = 80;
/// Rounds in which everything works again, at the end: more than anything may take.
const CALM_ROUNDS: usize = 60;

/// A guard that is taken out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A finish counts whatever lease it names.
    Fence,
    /// Due entries are not written with what they are for.
    DueEntries,
    /// A commit does not look at what others wrote.
    CompareAndSet,
    /// A namespace that lets go ends the job for all.
    Holders,
}

#[derive(Debug, Clone, Default)]
struct Knowledge(BTreeMap<Key, Versioned<Entry>>);

impl View for Knowledge {
    fn record(&self, job: &JobId) -> Seen<'_, Record> {
        Ok(self.0.get(&Key::Record(job.clone())).and_then(|known| match &known.value {
            Entry::Record(record) => Some(Versioned { revision: known.revision, value: &**record }),
            _ => None,
        }))
    }

    fn slot(&self, namespace: &Namespace) -> Seen<'_, Slot> {
        Ok(self.0.get(&Key::Slot(namespace.clone())).and_then(|known| match &known.value {
            Entry::Slot(slot) => Some(Versioned { revision: known.revision, value: slot }),
            _ => None,
        }))
    }

    fn worker(&self, worker: &WorkerId) -> Seen<'_, WorkerRecord> {
        Ok(self.0.get(&Key::Worker(worker.clone())).and_then(|known| match &known.value {
            Entry::Worker(record) => Some(Versioned { revision: known.revision, value: record }),
            _ => None,
        }))
    }

    fn job_of(&self, lease: &LeaseId) -> Result<Option<JobId>, Need> {
        let slot = self.records().find(|(_, record)| record.lease().is_some_and(|held| held.id == *lease));
        Ok(slot.map(|(job, _)| job.clone()).or_else(|| {
            match self.0.get(&Key::Run(lease.clone())).map(|known| &known.value) {
                Some(Entry::Run(job)) => Some(job.clone()),
                _ => None,
            }
        }))
    }

    fn leased_to(&self, worker: &WorkerId) -> Vec<JobId> {
        let leased = self.records().filter(|(_, record)| record.lease().is_some_and(|l| l.worker == *worker));
        leased.map(|(job, _)| job.clone()).collect()
    }
}

impl Knowledge {
    fn records(&self) -> impl Iterator<Item = (&JobId, &Record)> {
        self.0.iter().filter_map(|(key, known)| match (key, &known.value) {
            (Key::Record(job), Entry::Record(record)) => Some((job, &**record)),
            _ => None,
        })
    }

    fn set(&mut self, key: &Key, known: Option<&Versioned<Entry>>) {
        match known {
            Some(known) => drop(self.0.insert(key.clone(), known.clone())),
            None => drop(self.0.remove(key)),
        }
    }
}

struct Counting<'a>(&'a mut u64);

impl Ids for Counting<'_> {
    fn nonce(&mut self) -> u64 {
        *self.0 += 1;
        *self.0
    }

    fn lease(&mut self) -> LeaseId {
        *self.0 += 1;
        LeaseId::new(format!("lease-{}", self.0)).unwrap()
    }
}

/// A run as its worker has it: the lease names it, the worker made it.
#[derive(Debug, Clone)]
struct Run {
    lease: LeaseId,
    job: JobId,
    accepted: bool,
}

#[derive(Debug, Default)]
struct Worker {
    /// Which relay it is connected to, in which session.
    connected: Option<(usize, u64)>,
    inbox: Vec<Run>,
    runs: Vec<Run>,
    done: Vec<Run>,
}

/// A command that was decided and not committed yet: its relay was paused in between.
struct Paused {
    relay: usize,
    command: Command,
    decision: Decision,
}

struct World {
    without: Without,
    random: StdRng,
    now: Timestamp,
    store: Knowledge,
    due: BTreeSet<(Timestamp, JobId)>,
    relays: [Knowledge; 2],
    /// Since when each has been up.
    up_since: [Timestamp; 2],
    paused: Vec<Paused>,
    workers: BTreeMap<&'static str, Worker>,
    ids: u64,
    /// What clients were told is durable, and what may have ended it.
    submitted: BTreeSet<JobId>,
    let_go: BTreeMap<JobId, BTreeSet<Namespace>>,
    deleted: BTreeSet<JobId>,
    /// Which worker got a lease, and for which job.
    granted: BTreeMap<LeaseId, (WorkerId, JobId)>,
    recorded: BTreeMap<LeaseId, u32>,
    /// What was committed, when one schedule is played again.
    history: Option<Vec<String>>,
}

fn job(number: usize) -> JobId {
    JobId::new(format!("job{number}")).unwrap()
}

fn worker_id(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new(format!("process of {name}")).unwrap()
}

impl World {
    fn new(seed: u64, without: Without) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let names = NEW_WORKERS.into_iter().chain(OLD_WORKERS);
        Self {
            without,
            random: StdRng::seed_from_u64(seed),
            now,
            store: Knowledge::default(),
            due: BTreeSet::new(),
            relays: [Knowledge::default(), Knowledge::default()],
            up_since: [now; 2],
            paused: Vec::new(),
            workers: names.map(|name| (name, Worker::default())).collect(),
            ids: 0,
            submitted: BTreeSet::new(),
            let_go: BTreeMap::new(),
            deleted: BTreeSet::new(),
            granted: BTreeMap::new(),
            recorded: BTreeMap::new(),
            history: None,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn any_of(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn decide(&mut self, relay: usize, command: &Command) -> Decision {
        let mut ids = Counting(&mut self.ids);
        apply(&self.relays[relay], command, self.now, &mut ids).unwrap()
    }

    /// A relay carries a command out; now and then it is paused between decision and commit.
    fn execute(&mut self, relay: usize, command: Command, calm: bool) -> Result<Option<Reply>, String> {
        let decision = self.decide(relay, &command);
        if !calm && self.chance(15) {
            self.paused.push(Paused { relay, command, decision });
            return Ok(None);
        }
        self.commit(relay, command, decision, calm).map(Some)
    }

    /// As long as others were faster, what they wrote is learned and the command is decided anew.
    #[expect(clippy::needless_pass_by_value, reason = "a command is carried out once")]
    fn commit(
        &mut self,
        relay: usize,
        command: Command,
        mut decision: Decision,
        calm: bool,
    ) -> Result<Reply, String> {
        loop {
            let mut expected: Vec<(Key, u64)> =
                decision.writes.iter().map(|write| (write.key.clone(), write.expected)).collect();
            if decision.hangs_on_reads(&command) {
                expected.extend(decision.reads.clone());
            }
            let conflicts: Vec<Key> = expected
                .into_iter()
                .filter(|(key, _)| !matches!(key, Key::Run(_)))
                .filter(|(key, revision)| {
                    self.store.0.get(key).map_or(0, |known| known.revision) != *revision
                })
                .map(|(key, _)| key)
                .collect();
            if conflicts.is_empty() || self.without == Without::CompareAndSet {
                break;
            }
            for key in conflicts {
                let fresh = self.store.0.get(&key).cloned();
                self.relays[relay].set(&key, fresh.as_ref());
            }
            decision = self.decide(relay, &command);
        }
        let Decision { writes, due, effects, reply, reads: _ } = decision;
        self.note(&command);
        if let Some(history) = &mut self.history {
            let keys: Vec<_> =
                writes.iter().map(|write| (&write.key, write.revision, &write.entry)).collect();
            history.push(format!("{} relay {relay}: {command:?}\n    {keys:?}\n    due {due:?}", self.now));
        }
        for write in writes {
            let before = self.store.0.get(&write.key).cloned();
            let after = write.entry.map(|value| Versioned { revision: write.revision, value });
            self.check_change(&write.key, before.as_ref(), after.as_ref())?;
            self.store.set(&write.key, after.as_ref());
            for other in 0..self.relays.len() {
                // What is published may be lost on its way to the other.
                if other == relay || calm || self.chance(70) {
                    self.relays[other].set(&write.key, after.as_ref());
                }
            }
        }
        if self.without != Without::DueEntries {
            let looks = due.into_iter().filter(|due| due.what == DueKind::Look);
            self.due.extend(looks.map(|due| (due.at, due.job)));
        }
        // A relay that dies now has told nobody.
        if calm || !self.chance(5) {
            for effect in effects {
                self.perform(relay, effect, calm);
            }
        }
        Ok(reply)
    }

    /// What was committed, as clients may rely on it.
    fn note(&mut self, command: &Command) {
        match command {
            Command::Submit(submit) => {
                self.submitted.insert(submit.job.clone());
            }
            Command::LetGo { job, why, who: Who::These(who), .. } => {
                let all = NAMESPACES.map(|name| Namespace::new(name).unwrap());
                let these = all.into_iter().filter(|namespace| who.covers(namespace));
                self.let_go.entry(job.clone()).or_default().extend(these);
                if *why == EndReason::Deleted {
                    self.deleted.insert(job.clone());
                }
            }
            _ => {}
        }
    }

    fn perform(&mut self, relay: usize, effect: Effect, calm: bool) {
        match effect {
            Effect::Grant { worker, session, job, lease, .. } => {
                self.granted.insert(lease.clone(), (worker.clone(), job.clone()));
                let arrives = calm || self.chance(85);
                let name = NEW_WORKERS.into_iter().find(|name| *name == worker.as_str());
                let Some(worker) = name.and_then(|name| self.workers.get_mut(name)) else { return };
                if arrives && worker.connected == Some((relay, session)) {
                    worker.inbox.push(Run { lease, job, accepted: false });
                }
            }
            Effect::Revoke { worker, lease, .. } => {
                let name = NEW_WORKERS.into_iter().find(|name| *name == worker.as_str());
                if let Some(worker) = name.and_then(|name| self.workers.get_mut(name))
                    && worker.connected.is_some_and(|(at, _)| at == relay)
                {
                    worker.runs.retain(|run| run.lease != lease);
                }
            }
            _ => {}
        }
    }

    /// No change of a record breaks a promise.
    fn check_change(
        &mut self,
        key: &Key,
        before: Option<&Versioned<Entry>>,
        after: Option<&Versioned<Entry>>,
    ) -> Result<(), String> {
        let Key::Record(job) = key else { return Ok(()) };
        let record = |entry: Option<&Versioned<Entry>>| match entry.map(|known| known.value.clone()) {
            Some(Entry::Record(record)) => Some(*record),
            _ => None,
        };
        if before.is_some_and(|before| after.is_some_and(|after| after.revision <= before.revision)) {
            return Err(format!("{job}: a revision went down"));
        }
        let (before, after) = (record(before), record(after));
        let Some(after) = after else {
            return if self.submitted.contains(job) { Err(format!("{job} is gone")) } else { Ok(()) };
        };
        if let Phase::Done(outcome) = &after.phase
            && let Source::Run(run) = &outcome.source
        {
            let stood = before.as_ref().and_then(Record::outcome).and_then(|outcome| outcome.run());
            if stood != Some(run) {
                let slot = before.as_ref().and_then(Record::lease);
                let Some(slot) = slot.filter(|slot| slot.id == *run) else {
                    return Err(format!("{job}: a result of {run}, which was not current"));
                };
                if slot.worker.as_str() != outcome.worker {
                    return Err(format!("{job}: a result of {run} from another worker"));
                }
                let times = self.recorded.entry(run.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    return Err(format!("{job}: {run} recorded twice"));
                }
            }
        }
        // A result goes with a deletion, and with nothing else.
        if let Some(stood) = before.as_ref().and_then(Record::outcome)
            && after.outcome().is_none()
            && !matches!(&after.phase, Phase::LetGo(let_go) if let_go.why == EndReason::Deleted)
        {
            return Err(format!("{job}: the result {stood:?} went without deletion"));
        }
        // Only who let go is gone; a namespace other than the default one may have been taken by a newer job.
        if let Some(before) = &before {
            for namespace in before.holders.keys().filter(|held| !after.holders.contains_key(*held)) {
                let wanted = self.let_go.get(job).is_some_and(|gone| gone.contains(namespace));
                if !wanted && namespace.is_default() {
                    return Err(format!("{job}: {namespace} was let go by nobody"));
                }
            }
        }
        if after.is_going() && after.holders.is_empty() {
            return Err(format!("{job} goes on for nobody"));
        }
        Ok(())
    }
}

/// What happens in a schedule.
impl World {
    fn step(&mut self) -> Result<(), String> {
        let relay = self.any_of(2);
        match self.any_of(20) {
            0..=2 => self.submit(relay),
            3 => self.let_somebody_go(relay),
            4 | 5 => self.grant(relay),
            6 | 7 => self.register(),
            8..=10 => self.go_on(),
            11 => self.disconnect(),
            12 | 13 => self.old_worker(),
            14 => self.go_on_after_a_pause(),
            15 => {
                self.relays[relay] = self.store.clone();
                Ok(())
            }
            16 => self.crash(relay),
            _ => {
                let millis = [200, 1_500, 6_000, 32_000][self.any_of(4)];
                self.now = self.now.plus_millis(millis);
                self.sweep(relay, false)
            }
        }
    }

    fn submit(&mut self, relay: usize) -> Result<(), String> {
        let namespace = NAMESPACES[self.any_of(NAMESPACES.len())];
        let submit = Submit {
            job: job(self.any_of(JOBS)),
            verified: true,
            namespace: Namespace::new(namespace).unwrap(),
            holder: Holder::default(),
            rerun: self.chance(10).then_some(dockframe_shared::job::Rerun::Any),
            debug: None,
            tags: None,
            requirements: None,
            needs: Needs::default(),
            shared: None,
        };
        self.execute(relay, Command::Submit(Box::new(submit)), false).map(drop)
    }

    fn let_somebody_go(&mut self, relay: usize) -> Result<(), String> {
        let one = Namespace::new(NAMESPACES[self.any_of(NAMESPACES.len())]).unwrap();
        let everybody = self.chance(20);
        let mut who = if everybody { NamespaceSelector::All } else { NamespaceSelector::One(one) };
        let job = job(self.any_of(JOBS));
        let why = if self.chance(30) { EndReason::Deleted } else { EndReason::Cancelled };
        let noted = Command::LetGo { job: job.clone(), why, who: Who::These(who.clone()), message: None };
        if self.without == Without::Holders {
            who = NamespaceSelector::All;
            self.note(&noted);
            let command = Command::LetGo { job, why, who: Who::These(who), message: None };
            let decision = self.decide(relay, &command);
            // As if the core ended the job for all: what was asked for is noted, not what is done.
            return self
                .commit(
                    relay,
                    Command::Look { job: self::job(0), healthy_since: self.now, another_free: false },
                    decision,
                    true,
                )
                .map(drop);
        }
        self.execute(relay, noted, false).map(drop)
    }

    fn grant(&mut self, relay: usize) -> Result<(), String> {
        let name = NEW_WORKERS[self.any_of(2)];
        let Some((at, session)) = self.workers[name].connected else { return Ok(()) };
        if at != relay {
            return Ok(());
        }
        let command = Command::Grant {
            job: job(self.any_of(JOBS)),
            worker: worker_id(name),
            instance: instance(name),
            session,
        };
        self.execute(relay, command, false).map(drop)
    }

    /// A worker connects, or renews, or comes back with what it holds.
    fn register(&mut self) -> Result<(), String> {
        let name = NEW_WORKERS[self.any_of(2)];
        let stays = self.chance(70);
        let relay = match self.workers[name].connected {
            Some((relay, _)) if stays => relay,
            _ => self.any_of(2),
        };
        self.register_at(name, relay, false)
    }

    fn register_at(&mut self, name: &'static str, relay: usize, calm: bool) -> Result<(), String> {
        let before = self.workers[name].connected;
        let first = before.is_none_or(|(at, _)| at != relay);
        let held = self.workers[name].runs.iter().filter(|run| run.accepted);
        let leases = held.map(|run| run.lease.clone()).collect();
        let command = Command::Register { worker: worker_id(name), instance: instance(name), first, leases };
        if first {
            self.relays[relay] = self.store.clone();
        }
        let decision = self.decide(relay, &command);
        let Reply::Registered { session, revoked } = self.commit(relay, command, decision, calm)? else {
            return Err("a registration was not answered".to_owned());
        };
        let Some(worker) = self.workers.get_mut(name) else { return Ok(()) };
        worker.connected = Some((relay, session));
        if first {
            worker.inbox.clear();
        }
        worker.runs.retain(|run| !revoked.contains(&run.lease));
        Ok(())
    }

    /// A worker accepts what it was granted, or ends a run, or says an end once more.
    fn go_on(&mut self) -> Result<(), String> {
        let name = NEW_WORKERS[self.any_of(2)];
        self.go_on_at(name, false)
    }

    fn go_on_at(&mut self, name: &'static str, calm: bool) -> Result<(), String> {
        let Some((relay, _)) = self.workers[name].connected else { return Ok(()) };
        let Some(worker) = self.workers.get_mut(name) else { return Ok(()) };
        if let Some(run) = worker.inbox.pop() {
            worker.runs.push(Run { accepted: true, ..run.clone() });
            let command = Command::Accept { lease: run.lease.clone(), worker: worker_id(name) };
            if let Some(Reply::NotCurrent) = self.execute(relay, command, calm)?
                && let Some(worker) = self.workers.get_mut(name)
            {
                worker.runs.retain(|held| held.lease != run.lease);
            }
            return Ok(());
        }
        let again =
            !worker.done.is_empty() && (worker.runs.is_empty() || self.random.random_range(0..4) == 0);
        let from = if again { &worker.done } else { &worker.runs };
        if from.is_empty() {
            return Ok(());
        }
        let run = from[self.random.random_range(0..from.len())].clone();
        self.finish(name, relay, &run, calm)
    }

    fn finish(&mut self, name: &'static str, relay: usize, run: &Run, calm: bool) -> Result<(), String> {
        let ending = Ending::Result { reason: ResultReason::Success, time: self.now };
        let mut command =
            Command::Finish { lease: run.lease.clone(), worker: worker_id(name), ending: ending.clone() };
        if self.without == Without::Fence
            && let Some(held) =
                self.relays[relay].record(&run.job).ok().flatten().and_then(|known| known.value.lease())
        {
            command = Command::Finish { lease: held.id.clone(), worker: held.worker.clone(), ending };
        }
        let reply = self.execute(relay, command, calm)?;
        if let Some(Reply::Finished { recorded, .. }) = reply {
            let record = self.store.record(&run.job).ok().flatten();
            let stands = record.and_then(|known| known.value.outcome()?.run().cloned());
            if recorded && stands.as_ref() != Some(&run.lease) {
                return Err(format!("{}: {} was acknowledged, and {stands:?} stands", run.job, run.lease));
            }
            if let Some(worker) = self.workers.get_mut(name) {
                worker.runs.retain(|held| held.lease != run.lease);
                worker.done.push(run.clone());
            }
        }
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), String> {
        let name = NEW_WORKERS[self.any_of(2)];
        let forgets = self.chance(30);
        let Some(worker) = self.workers.get_mut(name) else { return Ok(()) };
        let Some((relay, session)) = worker.connected.take() else { return Ok(()) };
        worker.inbox.clear();
        if forgets {
            worker.runs.clear();
        }
        // Its relay may be cut off from it without noticing.
        if self.chance(70) {
            let command = Command::Closed { worker: worker_id(name), session };
            self.execute(relay, command, false)?;
        }
        Ok(())
    }

    fn old_worker(&mut self) -> Result<(), String> {
        let name = OLD_WORKERS[self.any_of(2)];
        let relay = self.any_of(2);
        let job = job(self.any_of(JOBS));
        let worker = worker_id(name);
        match self.any_of(6) {
            0 => self.execute(relay, Command::OldWorker { worker, first: true }, false).map(drop),
            1 => {
                let known = self.relays[relay].worker(&worker).ok().flatten();
                let session = known.map_or(0, |known| known.value.session);
                self.execute(relay, Command::Closed { worker, session }, false).map(drop)
            }
            2 => self.execute(relay, Command::ClaimLost { job, worker }, false).map(drop),
            3 | 4 => {
                let time = self.now;
                self.execute(relay, Command::OldWorker { worker: worker.clone(), first: false }, false)?;
                self.execute(relay, Command::Claim { job, worker, time }, false).map(drop)
            }
            _ => {
                // The relay writes the document under the claim that it knows of.
                let known = self.relays[relay].record(&job).ok().flatten();
                let lease = known.and_then(|known| known.value.lease().cloned());
                let Some(lease) = lease.filter(|lease| lease.worker == worker) else { return Ok(()) };
                let ending = Ending::Result { reason: ResultReason::Error, time: self.now };
                let command = Command::ClaimFinish { job, worker, run: lease.id, ending };
                self.execute(relay, command, false).map(drop)
            }
        }
    }

    /// What was decided long ago is committed now.
    fn go_on_after_a_pause(&mut self) -> Result<(), String> {
        if self.paused.is_empty() {
            return Ok(());
        }
        let at = self.any_of(self.paused.len());
        let Paused { relay, command, decision } = self.paused.swap_remove(at);
        self.commit(relay, command, decision, false).map(drop)
    }

    /// All that a process knew and had under way is gone; its sockets close.
    fn crash(&mut self, relay: usize) -> Result<(), String> {
        self.paused.retain(|paused| paused.relay != relay);
        self.relays[relay] = self.store.clone();
        self.up_since[relay] = self.now;
        for worker in self.workers.values_mut() {
            if worker.connected.is_some_and(|(at, _)| at == relay) {
                worker.connected = None;
                worker.inbox.clear();
            }
        }
        Ok(())
    }

    fn sweep(&mut self, relay: usize, calm: bool) -> Result<(), String> {
        for _ in 0..200 {
            let Some((at, job)) = self.due.first().cloned().filter(|(at, _)| *at <= self.now) else { break };
            let healthy_since = self.up_since[relay];
            let another_free = self.chance(50);
            let command = Command::Look { job: job.clone(), healthy_since, another_free };
            // The entry goes with the commit that dealt with it, and stays if its relay is paused.
            if self.execute(relay, command, calm)?.is_some() {
                self.due.remove(&(at, job));
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Everything works again, and one worker is left: whatever was asked for comes to an end.
    fn calm_down(&mut self) -> Result<(), String> {
        self.paused.clear();
        for relay in 0..2 {
            self.crash(relay)?;
        }
        for worker in self.workers.values_mut() {
            *worker = Worker::default();
        }
        self.now = self.now.plus_millis(10_000);
        self.sweep(0, true)?;
        self.check_namespaces()?;
        for _ in 0..CALM_ROUNDS {
            if !self.store.records().any(|(_, record)| record.is_going()) {
                break;
            }
            self.now = self.now.plus_millis(5_000);
            self.relays[0] = self.store.clone();
            self.sweep(0, true)?;
            self.register_at(NEW_WORKERS[0], 0, true)?;
            let waiting =
                self.store.records().find(|(_, record)| matches!(record.phase, Phase::Waiting { .. }));
            if let Some((job, _)) = waiting {
                let Some((_, session)) = self.workers[NEW_WORKERS[0]].connected else { continue };
                let (worker, instance) = (worker_id(NEW_WORKERS[0]), instance(NEW_WORKERS[0]));
                let command = Command::Grant { job: job.clone(), worker, instance, session };
                self.execute(0, command, true)?;
            }
            while !self.workers[NEW_WORKERS[0]].inbox.is_empty() {
                self.go_on_at(NEW_WORKERS[0], true)?;
            }
            for run in self.workers[NEW_WORKERS[0]].runs.clone() {
                self.finish(NEW_WORKERS[0], 0, &run, true)?;
            }
        }
        for job in &self.submitted {
            let record = self.store.record(job).ok().flatten();
            let Some(record) = record else { return Err(format!("{job} was accepted and is gone")) };
            if record.value.is_going() {
                return Err(format!("{job} never ends: {:?}", record.value.phase));
            }
        }
        Ok(())
    }

    /// Once delays are over, a namespace keeps one live job, and that is the newest.
    fn check_namespaces(&self) -> Result<(), String> {
        for known in self.store.0.values() {
            let Entry::Slot(slot) = &known.value else { continue };
            let newest = slot.holders.values().map(|place| place.number).max();
            let going = slot.holders.iter().filter(|(job, _)| {
                self.store.record(job).ok().flatten().is_some_and(|known| known.value.is_going())
            });
            for (job, place) in going {
                if Some(place.number) != newest {
                    return Err(format!("{job} goes on though a newer one took its namespace"));
                }
            }
        }
        Ok(())
    }
}

fn play(world: &mut World) -> Result<(), String> {
    for _ in 0..STEPS {
        world.step()?;
    }
    world.calm_down()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A part of all schedules, so that the parts run side by side.
fn play_part(part: u64) {
    const SCHEDULES: u64 = 5_000;
    let schedules = number("SIMULATION_SCHEDULES", SCHEDULES);
    let first = number("SIMULATION_SEED", 0) + part * schedules;
    for seed in first..first + schedules {
        let mut world = World::new(seed, Without::Nothing);
        world.history = (schedules == 1).then(Vec::new);
        if let Err(why) = play(&mut world) {
            for line in world.history.iter().flatten() {
                println!("{line}");
            }
            panic!("SIMULATION_SEED={} SIMULATION_SCHEDULES=1, part 0: {why}", seed);
        }
    }
}

#[test]
fn no_schedule_breaks_a_promise() {
    play_part(0);
}

#[test]
fn no_schedule_of_the_second_part_breaks_a_promise() {
    play_part(1);
}

#[test]
fn no_schedule_of_the_third_part_breaks_a_promise() {
    play_part(2);
}

#[test]
fn no_schedule_of_the_fourth_part_breaks_a_promise() {
    play_part(3);
}

#[test]
fn every_guard_is_missed_when_it_is_taken_out() {
    for without in [Without::Fence, Without::DueEntries, Without::CompareAndSet, Without::Holders] {
        let found = (0..20_000).find(|seed| play(&mut World::new(*seed, without)).is_err());
        assert!(found.is_some(), "nobody missed {without:?}");
    }
}
