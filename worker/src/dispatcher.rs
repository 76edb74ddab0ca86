//! The single owner of "what am I running": grants come in, units go out, results go home.
//!
//! It selects over links, units, signals and a slow tick, and never waits for any of them: what it sends goes into
//! channels that cannot block. Order of an acceptance: room, entry in the table, state on disk (the unit's first
//! deed), *then* the accept. So a lease that was accepted is always known, and what is announced is always true.

mod queue;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dockframe_shared::LeaseId;
use dockframe_shared::job::{FinishReason, Finished};
use dockframe_shared::protocol::{
    DeclineRetry, Lease, LeaseDecline, LeaseFinished, LeaseGrant, LeaseRef, LeaseRevoke, Phase, WorkerHello,
    WorkerMessage,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::queue::Letter;
pub(crate) use self::queue::Queue;
use crate::adoption::Leftover;
use crate::capacity::{Capacity, NoRoom, Share};
use crate::clock;
use crate::config::{DrainTimeout, OnExit};
use crate::executor::{Executor, Image};
use crate::files::names::job_label;
use crate::identity::Identity;
use crate::journal::Batch;
use crate::messages::{Event, LinkEvent, QueueIndex, RunKey, StopOrder, UnitEvent};
use crate::plan::Wishes;
use crate::spool::Spool;
use crate::state::{RunDirectory, RunState};
use crate::unit::{Run, Shared, Unit};

/// How long a revoked lease is remembered, in case its grant comes after.
const REVOKED_MEMORY: Duration = Duration::from_secs(60);
/// How long a result is kept after the relay has answered.
const LETTER_MEMORY: Duration = Duration::from_secs(10 * 60);
/// An unanswered result is sent again on a living connection after this.
const RESEND_EVERY: Duration = Duration::from_secs(15);
/// Between asking and killing when this process ends.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// How long an ending process waits for answers to its last results.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long the socket of our own earlier process may look alive, when we have its runs.
const PREDECESSOR_LINGERS: Duration = Duration::from_secs(12);
const TICK: Duration = Duration::from_millis(500);

/// How the worker leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    pub(crate) drain_timeout: DrainTimeout,
    pub(crate) on_exit: OnExit,
}

/// A run in the table.
struct Entry {
    share: Share,
    phase: Phase,
    stop: watch::Sender<Option<StopOrder>>,
    go: Option<oneshot::Sender<()>>,
    directory: RunDirectory,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not accepted yet.
    Offered,
    Held,
    /// The relay took it away: nothing is said of it any more.
    Revoked,
    /// We stop it ourselves, and give it back when its container is gone.
    GivingBack,
    /// Left running for the next process.
    Left,
}

pub(crate) struct Dispatcher<E> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) place: PathBuf,
    pub(crate) data_directory: PathBuf,
    pub(crate) tags: Vec<String>,
    pub(crate) leaving: Leaving,
    pub(crate) queues: Vec<Queue>,
    pub(crate) capacity: Capacity,
    pub(crate) events: mpsc::Sender<Event>,
    table: HashMap<RunKey, Entry>,
    spools: HashMap<RunKey, Spool>,
    revoked: HashMap<RunKey, Instant>,
    units: JoinSet<()>,
    unit_keys: HashMap<Id, RunKey>,
    draining: bool,
    /// Holds the lock of a slot that was taken later.
    slots: Vec<Identity>,
    /// Whether there are runs of an earlier process.
    taken_up: bool,
    begun: Instant,
}

/// What a dispatcher begins with.
pub(crate) struct Beginning<E> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) place: PathBuf,
    pub(crate) data_directory: PathBuf,
    pub(crate) tags: Vec<String>,
    pub(crate) leaving: Leaving,
    pub(crate) queues: Vec<Queue>,
    pub(crate) capacity: Capacity,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) leftovers: Vec<Leftover>,
}

impl<E: Executor> Dispatcher<E> {
    pub(crate) fn new(beginning: Beginning<E>) -> Self {
        let Beginning { shared, place, data_directory, tags, leaving, queues, capacity, events, leftovers } =
            beginning;
        let mut dispatcher = Self {
            shared,
            place,
            data_directory,
            tags,
            leaving,
            queues,
            capacity,
            events,
            table: HashMap::new(),
            spools: HashMap::new(),
            revoked: HashMap::new(),
            units: JoinSet::new(),
            unit_keys: HashMap::new(),
            draining: false,
            slots: Vec::new(),
            taken_up: false,
            begun: Instant::now(),
        };
        for leftover in leftovers {
            dispatcher.take_up(leftover);
        }
        for index in 0..dispatcher.queues.len() {
            dispatcher.announce(QueueIndex(index));
        }
        dispatcher
    }

    /// A run of an earlier process. Its lease was accepted; that the next registration names it is enough.
    fn take_up(&mut self, leftover: Leftover) {
        let Leftover { queue: index, directory, state, told } = leftover;
        let grant = state.grant.clone();
        let key = RunKey { queue: index, lease: grant.lease_id.clone() };
        let share = Share { slots: state.slots, memory_bytes: state.memory_bytes, gpus: state.gpus.clone() };
        self.capacity.retake(&share);
        let queue = self.queue(index);
        info!(queue = %queue.key.digest(), job = %short(&grant), "a run of an earlier process is taken up");
        let run = Run {
            key: key.clone(),
            queue: queue.key.clone(),
            directory,
            state,
            share: share.clone(),
            outbox: queue.outbox.clone(),
            cache_volume: queue.cache_volume.clone(),
            grant,
        };
        let mut spool = Spool::new(run.grant.job_id.clone(), key.lease.clone());
        let mut begun = Vec::new();
        for batch in &told {
            let kind = batch.step.kind();
            if !begun.contains(&kind) {
                begun.push(kind);
                spool.continue_from(kind, batch.from);
            }
            spool.push(&batch.step, batch.lines.clone());
        }
        self.spools.insert(key.clone(), spool);
        self.taken_up = true;
        self.enter(key, run, share, Standing::Held, Some(told));
    }

    /// Until stopped and drained. `stop` lets running jobs end as configured, `hurry` ends them at once.
    pub(crate) async fn run(
        &mut self,
        mut incoming: mpsc::Receiver<Event>,
        stop: &CancellationToken,
        hurry: &CancellationToken,
    ) {
        let mut ticks = interval(TICK);
        let mut give_up_at: Option<Instant> = None;
        let mut answers_until: Option<Instant> = None;
        loop {
            let nothing_runs = self.table.values().all(|entry| entry.standing == Standing::Left);
            if self.draining && nothing_runs && self.units.is_empty() {
                let until = *answers_until.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
                if self.all_answered() || Instant::now() >= until || hurry.is_cancelled() {
                    return;
                }
            }
            let give_up = give_up_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 3600));
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.draining => give_up_at = self.drain(),
                () = hurry.cancelled(), if !self.units.is_empty() && self.has_unhurried() => {
                    self.stop_all(StopOrder { grace: Duration::ZERO, leave: false });
                }
                () = sleep_until(give_up), if give_up_at.is_some() => {
                    give_up_at = None;
                    let leave = self.leaving.on_exit == OnExit::Leave;
                    self.stop_all(StopOrder { grace: EXIT_GRACE, leave });
                }
                Some(joined) = self.units.join_next_with_id() => match joined {
                    Ok((id, ())) => drop(self.unit_keys.remove(&id)),
                    Err(failure) => self.unit_failed(failure.id()),
                },
                Some(event) = incoming.recv() => self.handle(event),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    /// Whether runs are left for a process that follows.
    pub(crate) fn leaves_runs(&self) -> bool {
        self.table.values().any(|entry| entry.standing == Standing::Left)
    }

    fn all_answered(&self) -> bool {
        self.queues.iter().all(|queue| {
            queue.frames.is_none() || queue.letters.values().all(|letter| letter.answered.is_some())
        })
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Link { queue, event } => match event {
                LinkEvent::Up { hello, frames } => self.link_up(queue, &hello, frames),
                LinkEvent::Down => self.queue(queue).frames = None,
                LinkEvent::Grant(grant) => self.grant(queue, *grant),
                LinkEvent::Revoke(revoke) => self.revoke(queue, revoke),
                LinkEvent::Finished(finished) => self.finished(queue, &finished),
                LinkEvent::Confirmed { frames } => self.confirmed(queue, frames),
                LinkEvent::IdTaken => self.id_taken(),
            },
            Event::Unit { run, event } => self.unit_event(&run, event),
        }
    }

    fn queue(&mut self, index: QueueIndex) -> &mut Queue {
        // Indices are made from this list, which never changes.
        &mut self.queues[index.0]
    }

    fn link_up(&mut self, index: QueueIndex, hello: &WorkerHello, frames: mpsc::UnboundedSender<String>) {
        self.shared.max_finish_bytes.store(hello.max_finish_bytes.max(4096), Ordering::Relaxed);
        let queue = self.queue(index);
        info!(queue = %queue.key.digest(), "taking jobs from {}", hello.relay);
        queue.frames = Some(frames);
        queue.sent = 0;
        queue.in_flight.clear();
        let is_new_epoch = queue.epoch.as_deref() != Some(&hello.epoch);
        if is_new_epoch {
            if let Err(error) = queue.outbox.set_epoch(&hello.epoch) {
                warn!("the relay's epoch cannot be written to disk: {error}");
            }
            queue.epoch = Some(hello.epoch.clone());
        }
        let keys: Vec<RunKey> = self.spools.keys().filter(|key| key.queue == index).cloned().collect();
        for key in keys {
            if let Some(spool) = self.spools.get_mut(&key) {
                spool.rewind();
            }
            self.pump(&key);
        }
        let queue = self.queue(index);
        let due: Vec<LeaseId> = queue
            .letters
            .iter()
            .filter(|(_, letter)| is_new_epoch || letter.answered.is_none())
            .map(|(lease, _)| lease.clone())
            .collect();
        for lease in due {
            queue.post(&lease);
        }
    }

    fn grant(&mut self, index: QueueIndex, grant: LeaseGrant) {
        let key = RunKey { queue: index, lease: grant.lease_id.clone() };
        if self.revoked.contains_key(&key) {
            return;
        }
        if let Some(entry) = self.table.get(&key) {
            if entry.standing == Standing::Held {
                let accept = WorkerMessage::LeaseAccept(LeaseRef { lease_id: key.lease });
                self.queue(index).say(&accept);
            }
            return;
        }
        if self.draining {
            return self.decline(&key, "this worker is about to stop", DeclineRetry::Later);
        }
        if let Some(tag) = grant.definition.tags().into_iter().find(|tag| !self.tags.contains(tag)) {
            let tag: String = tag.chars().take(80).collect();
            return self.decline(
                &key,
                &format!("this worker does not offer the tag {tag}"),
                DeclineRetry::Never,
            );
        }
        // Wishes that cannot be read are a fault of the definition: its run says so.
        let wishes = Wishes::read(&grant.definition).unwrap_or_default();
        let share = match self.capacity.take(&wishes) {
            Ok(share) => share,
            Err(refusal) => {
                let retry = match refusal {
                    NoRoom::Now => DeclineRetry::Soon,
                    NoRoom::NeverGpus | NoRoom::NeverMemory => DeclineRetry::Never,
                };
                return self.decline(&key, &refusal.to_string(), retry);
            }
        };
        self.begin(key, grant, share);
    }

    /// Enters the run into the table and starts its unit, which first writes down what it is.
    fn begin(&mut self, key: RunKey, grant: LeaseGrant, share: Share) {
        let place = self.place.clone();
        let queue = self.queue(key.queue);
        let directory = RunDirectory::new(&place, &queue.key, &grant);
        let state = RunState {
            queue: queue.key.digest().to_hex(),
            grant: grant.clone(),
            accepted: clock::now(),
            slots: share.slots,
            memory_bytes: share.memory_bytes,
            gpus: share.gpus.clone(),
            started: false,
            image: Image::default(),
            phases: BTreeMap::new(),
            memory_limit: None,
        };
        info!(queue = %queue.key.digest(), job = %short(&grant), attempt = grant.attempt, "a job is granted");
        let run = Run {
            key: key.clone(),
            queue: queue.key.clone(),
            directory,
            state,
            share: share.clone(),
            outbox: queue.outbox.clone(),
            cache_volume: queue.cache_volume.clone(),
            grant,
        };
        self.spools.insert(key.clone(), Spool::new(run.grant.job_id.clone(), key.lease.clone()));
        self.enter(key, run, share, Standing::Offered, None);
    }

    fn enter(&mut self, key: RunKey, run: Run, share: Share, standing: Standing, told: Option<Vec<Batch>>) {
        let (stop, stop_heard) = watch::channel(None);
        let (go, go_heard) = oneshot::channel();
        let directory = run.directory.clone();
        let mut unit = Unit::new(Arc::clone(&self.shared), run, stop_heard, self.events.clone());
        let go = match told {
            Some(told) => {
                unit = unit.taking_up(told);
                // The unit that hears it is begun below.
                let _ = go.send(());
                None
            }
            None => Some(go),
        };
        self.table.insert(key.clone(), Entry { share, phase: Phase::Inputs, stop, go, directory, standing });
        let handle = self.units.spawn(unit.run(go_heard));
        self.unit_keys.insert(handle.id(), key);
    }

    fn decline(&mut self, key: &RunKey, why: &str, retry: DeclineRetry) {
        let queue = self.queue(key.queue);
        info!(queue = %queue.key.digest(), "a job is declined: {why}");
        queue.say(&WorkerMessage::LeaseDecline(LeaseDecline {
            lease_id: key.lease.clone(),
            why: why.to_owned(),
            retry,
        }));
    }

    fn revoke(&mut self, index: QueueIndex, revoke: LeaseRevoke) {
        let key = RunKey { queue: index, lease: revoke.lease_id };
        self.revoked.insert(key.clone(), Instant::now());
        let grace = Duration::from_millis(revoke.grace_ms).min(self.shared.kill_grace);
        self.forget(&key, grace);
        let queue = self.queue(index);
        if queue.letters.remove(&key.lease).is_some()
            && let Err(error) = queue.outbox.remove(&key.lease)
        {
            warn!("a result cannot be removed from disk: {error}");
        }
        self.announce(index);
    }

    /// The run counts no more: its unit stops and says nothing.
    fn forget(&mut self, key: &RunKey, grace: Duration) {
        self.spools.remove(key);
        if let Some(entry) = self.table.get_mut(key) {
            entry.standing = Standing::Revoked;
            entry.stop.send_replace(Some(StopOrder { grace, leave: false }));
        }
    }

    fn finished(&mut self, index: QueueIndex, finished: &LeaseFinished) {
        let key = RunKey { queue: index, lease: finished.lease_id.clone() };
        self.spools.remove(&key);
        if !finished.recorded {
            let why = finished.why.as_deref().unwrap_or("the lease was no longer current");
            info!(queue = %self.queue(index).key.digest(), "a result was not recorded: {why}");
            self.forget(&key, self.shared.kill_grace);
        }
        let queue = self.queue(index);
        if finished.recorded {
            if let Some(letter) = queue.letters.get_mut(&key.lease) {
                letter.answered.get_or_insert_with(Instant::now);
            }
        } else if queue.letters.remove(&key.lease).is_some()
            && let Err(error) = queue.outbox.remove(&key.lease)
        {
            warn!("a result cannot be removed from disk: {error}");
        }
        self.announce(index);
    }

    fn confirmed(&mut self, index: QueueIndex, frames: u64) {
        loop {
            let queue = self.queue(index);
            if queue.in_flight.front().is_none_or(|(number, ..)| *number > frames) {
                return;
            }
            if let Some((_, lease, up_to)) = queue.in_flight.pop_front()
                && let Some(spool) = self.spools.get_mut(&RunKey { queue: index, lease })
            {
                spool.confirm(up_to);
            }
        }
    }

    /// Another process works under our id. Never fight: go on under one of our own.
    fn id_taken(&mut self) {
        if self.taken_up && self.begun.elapsed() < PREDECESSOR_LINGERS {
            return info!("the relay still sees this worker's earlier process, trying again");
        }
        match Identity::acquire_slot(&self.data_directory) {
            Ok(identity) => {
                warn!("another worker is registered under this one's id, going on as {}", identity.id);
                self.shared.rename(identity.id.clone());
                for queue in &self.queues {
                    queue.registration.send_modify(|registration| registration.id = identity.id.clone());
                }
                self.slots.push(identity);
            }
            Err(failure) => {
                error!("another worker is registered under this one's id, and there is no other: {failure}")
            }
        }
    }

    fn unit_event(&mut self, key: &RunKey, event: UnitEvent) {
        match event {
            UnitEvent::Ready => {
                let Some(entry) = self.table.get_mut(key) else { return };
                if entry.standing != Standing::Offered {
                    return;
                }
                entry.standing = Standing::Held;
                let go = entry.go.take();
                // Named before it is accepted: a registration in between only accepts it earlier.
                self.announce(key.queue);
                let accept = WorkerMessage::LeaseAccept(LeaseRef { lease_id: key.lease.clone() });
                self.queue(key.queue).say(&accept);
                if let Some(go) = go {
                    // A unit that is gone was stopped.
                    let _ = go.send(());
                }
            }
            UnitEvent::CannotStart { why } => {
                warn!("a run cannot be written to disk: {why}");
                if self.leave_table(key) == Some(Standing::Offered) {
                    self.decline(key, "this worker's disk cannot be written", DeclineRetry::Later);
                }
            }
            UnitEvent::Phase(phase) => {
                if let Some(entry) = self.table.get_mut(key) {
                    entry.phase = phase;
                    self.announce(key.queue);
                }
            }
            UnitEvent::Logs { step, lines } => {
                if let Some(spool) = self.spools.get_mut(key) {
                    spool.push(&step, lines);
                    self.pump(key);
                }
            }
            UnitEvent::Finished { frame } => {
                let standing = self.leave_table(key);
                if standing == Some(Standing::Revoked) {
                    let queue = self.queue(key.queue);
                    if let Err(failure) = queue.outbox.remove(&key.lease) {
                        warn!("a result cannot be removed from disk: {failure}");
                    }
                    return;
                }
                self.pump(key);
                let queue = self.queue(key.queue);
                let sent = queue.send(frame).then(Instant::now);
                queue.letters.insert(key.lease.clone(), Letter { sent, answered: None });
                self.announce(key.queue);
            }
            UnitEvent::GivenBack { why } => {
                let standing = self.leave_table(key);
                self.spools.remove(key);
                if matches!(standing, Some(Standing::Held | Standing::GivingBack)) {
                    self.decline(key, &why, DeclineRetry::Later);
                }
                self.announce(key.queue);
            }
            UnitEvent::Stopped => {
                if let Some(entry) = self.table.get(key)
                    && entry.standing == Standing::Left
                {
                    return;
                }
                if self.leave_table(key) == Some(Standing::GivingBack) {
                    self.spools.remove(key);
                    self.decline(key, "this worker is about to stop", DeclineRetry::Later);
                    self.announce(key.queue);
                }
            }
        }
    }

    /// Gives the run's share back.
    fn leave_table(&mut self, key: &RunKey) -> Option<Standing> {
        let entry = self.table.remove(key)?;
        self.capacity.release(&entry.share);
        Some(entry.standing)
    }

    /// Sends what the spool has, if there is a connection.
    fn pump(&mut self, key: &RunKey) {
        let queue = &mut self.queues[key.queue.0];
        let Some(spool) = self.spools.get_mut(key) else { return };
        while queue.frames.is_some() {
            let Some((logs, up_to)) = spool.next_frame() else { return };
            if queue.say(&WorkerMessage::Logs(logs)) {
                queue.in_flight.push_back((queue.sent, key.lease.clone(), up_to));
            }
        }
    }

    /// Renews what the queue's registration says.
    fn announce(&mut self, index: QueueIndex) {
        let held = self.table.iter().filter(|(key, entry)| {
            key.queue == index && !matches!(entry.standing, Standing::Offered | Standing::Revoked)
        });
        let mut leases: Vec<Lease> =
            held.map(|(key, entry)| Lease { lease_id: key.lease.clone(), phase: entry.phase }).collect();
        let queue = &self.queues[index.0];
        let ended = queue.letters.iter().filter(|(_, letter)| letter.answered.is_none());
        leases.extend(ended.map(|(lease, _)| Lease { lease_id: lease.clone(), phase: Phase::Ended }));
        leases.sort_by(|a, b| a.lease_id.cmp(&b.lease_id));
        leases.dedup_by(|a, b| a.lease_id == b.lease_id);
        let draining = self.draining;
        queue.registration.send_modify(|registration| {
            registration.leases = Some(leases);
            registration.draining = Some(draining);
        });
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.revoked.retain(|_, at| now.duration_since(*at) < REVOKED_MEMORY);
        for queue in &mut self.queues {
            let outbox = queue.outbox.clone();
            queue.letters.retain(|lease, letter| {
                let is_old = letter.answered.is_some_and(|at| now.duration_since(at) > LETTER_MEMORY);
                if is_old && let Err(failure) = outbox.remove(lease) {
                    warn!("a result cannot be removed from disk: {failure}");
                }
                !is_old
            });
            if queue.frames.is_none() {
                continue;
            }
            let unanswered = |letter: &Letter| {
                letter.answered.is_none()
                    && letter.sent.is_none_or(|at| now.duration_since(at) > RESEND_EVERY)
            };
            let due: Vec<LeaseId> = queue
                .letters
                .iter()
                .filter(|(_, letter)| unanswered(letter))
                .map(|(lease, _)| lease.clone())
                .collect();
            for lease in due {
                queue.post(&lease);
            }
        }
    }

    /// No new jobs. When to give up on those that run.
    fn drain(&mut self) -> Option<Instant> {
        self.draining = true;
        for index in 0..self.queues.len() {
            self.announce(QueueIndex(index));
        }
        if !self.table.is_empty() {
            info!("stopping; {} running job(s)", self.table.len());
        }
        match self.leaving.drain_timeout {
            DrainTimeout::After(wait) => Some(Instant::now() + wait),
            DrainTimeout::Job => None,
        }
    }

    fn has_unhurried(&self) -> bool {
        self.table
            .values()
            .any(|entry| entry.stop.borrow().is_none_or(|order| !order.grace.is_zero() && !order.leave))
    }

    fn stop_all(&mut self, order: StopOrder) {
        for entry in self.table.values_mut() {
            entry.standing = match entry.standing {
                Standing::Revoked => Standing::Revoked,
                _ if order.leave => Standing::Left,
                _ => Standing::GivingBack,
            };
            entry.stop.send_replace(Some(order));
        }
    }

    /// A fault of this program: the job gets an error instead of silence.
    fn unit_failed(&mut self, id: Id) {
        let Some(key) = self.unit_keys.remove(&id) else { return };
        error!("a job's task failed inside the worker");
        let Some(entry) = self.table.remove(&key) else { return };
        self.capacity.release(&entry.share);
        let shared = Arc::clone(&self.shared);
        let name = entry.directory.container_name();
        self.units.spawn(async move {
            if let Err(failure) = shared.executor.remove(&name).await {
                warn!("a container could not be removed: {failure}");
            }
            let removed = tokio::task::spawn_blocking(move || entry.directory.remove()).await;
            if let Ok(Err(failure)) = removed {
                warn!("a run's directory could not be removed: {failure}");
            }
        });
        if entry.standing != Standing::Held {
            return;
        }
        let mut finished = Finished::new(FinishReason::Error, clock::now());
        let text = "the worker failed inside; please report it";
        finished.worker = Some(self.shared.worker().to_string());
        finished.result = Some(json!({
            "logs": [[format!("💥 {text}"), clock::now(), true]], "error": text, "isTimedOut": false, "outputs": {},
        }));
        let queue = self.queue(key.queue);
        match serde_json::to_value(finished).map(|value| queue.outbox.put(&key.lease, value)) {
            Ok(Ok(frame)) => {
                let sent = queue.send(frame).then(Instant::now);
                queue.letters.insert(key.lease.clone(), Letter { sent, answered: None });
            }
            Ok(Err(failure)) => error!("a result cannot be written to disk: {failure}"),
            Err(failure) => error!("a result cannot be written: {failure}"),
        }
        self.announce(key.queue);
    }
}

fn short(grant: &LeaseGrant) -> String {
    job_label(&grant.job_id).chars().take(12).collect()
}
