//! The single owner of "what am I running": grants come in, units go out, results go home.
//!
//! It selects over links, units, signals and a slow tick, and never waits for any of them: what it sends goes into
//! channels that cannot block. Order of an acceptance: room, entry in the table, state on disk (the unit's first
//! deed), *then* the accept. So a lease that was accepted is always known, and what is announced is always true.
//!
//! [`grants`] is what comes from relays, [`results`] what goes back, [`leaving`] the end, [`queue`] what is known of each
//! queue.

mod grants;
mod leaving;
mod queue;
mod results;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::protocol::{LeaseGrant, Phase};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(crate) use self::leaving::Leaving;
pub(crate) use self::queue::Queue;
use crate::adoption::Leftover;
use crate::capacity::{Capacity, Share};
use crate::disk::Disk;
use crate::executor::Executor;
use crate::files::names::job_label;
use crate::identity::Identity;
use crate::image_policy::ImagePolicy;
use crate::messages::{Event, LinkEvent, QueueIndex, RunKey, StopOrder};
use crate::metrics::{self, Metrics};
use crate::spool::Spool;
use crate::state::RunDirectory;
use crate::unit::{Run, Shared};

/// How long a revoked lease is remembered, in case its grant comes after.
const REVOKED_MEMORY: Duration = Duration::from_secs(60);
/// Between asking and killing when this process ends.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// How long an ending process waits for answers to its last results, and for what is being cleared away.
const LAST_DEEDS: Duration = Duration::from_secs(3);
/// How long the socket of our own earlier process may look alive, when we have its runs.
const PREDECESSOR_LINGERS: Duration = Duration::from_secs(12);
const TICK: Duration = Duration::from_millis(500);

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
    shared: Arc<Shared<E>>,
    rules: Rules,
    queues: Vec<Queue>,
    capacity: Capacity,
    events: mpsc::Sender<Event>,
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

/// What the owner says about which jobs are taken, and where their files are.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) place: PathBuf,
    pub(crate) data_directory: PathBuf,
    pub(crate) tags: Vec<String>,
    pub(crate) images: ImagePolicy,
    pub(crate) disk: Disk,
    pub(crate) leaving: Leaving,
}

impl<E: Executor> Dispatcher<E> {
    pub(crate) fn new(
        shared: Arc<Shared<E>>,
        rules: Rules,
        queues: Vec<Queue>,
        capacity: Capacity,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            shared,
            rules,
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
        }
    }

    /// Takes up the runs of an earlier process, and makes every queue's registration true.
    pub(crate) fn begin_with(&mut self, leftovers: Vec<Leftover>) {
        for leftover in leftovers {
            self.take_up(leftover);
        }
        for index in 0..self.queues.len() {
            self.announce(QueueIndex(index));
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.shared.sources.metrics
    }

    /// A run of an earlier process. Its lease was accepted; that the next registration names it is enough.
    fn take_up(&mut self, leftover: Leftover) {
        let Leftover { queue: index, directory, state, told } = leftover;
        let grant = state.grant.clone();
        let key = RunKey { queue: index, lease: grant.lease_id.clone() };
        self.capacity.retake(&state.share());
        let queue = self.queue(index);
        info!(queue = %queue.key.digest(), job = %short(&grant), "a run of an earlier process is taken up");
        let run = Run::new(key.clone(), queue, directory, state);
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
        self.spools.insert(key, spool);
        self.taken_up = true;
        self.enter(run, Standing::Held, Some(told));
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
        let mut leave_by: Option<Instant> = None;
        loop {
            let nothing_runs = self.table.values().all(|entry| entry.standing == Standing::Left);
            if self.draining && nothing_runs {
                // Units that are left only clear away, which the next process does as well.
                let until = *leave_by.get_or_insert_with(|| Instant::now() + LAST_DEEDS);
                let is_done = self.units.is_empty() && (self.all_answered() || hurry.is_cancelled());
                if is_done || Instant::now() >= until {
                    return;
                }
            }
            let give_up = give_up_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 3600));
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.draining => give_up_at = self.drain(),
                () = hurry.cancelled(), if !self.units.is_empty() && self.has_unhurried() => {
                    self.stop_all(Duration::ZERO);
                }
                () = sleep_until(give_up), if give_up_at.is_some() => {
                    give_up_at = None;
                    self.stop_all(EXIT_GRACE);
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

    fn handle(&mut self, event: Event) {
        match event {
            Event::Link { queue, event } => match event {
                LinkEvent::Up { hello, frames } => self.link_up(queue, &hello, frames),
                LinkEvent::Down => {
                    self.queue(queue).frames = None;
                    self.count();
                }
                LinkEvent::Again => self.metrics().add(&metrics::RECONNECTS, "", 1),
                LinkEvent::Deleted(definition) => self.deleted(&definition),
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

    /// Another process works under our id. Never fight: go on under one of our own.
    fn id_taken(&mut self) {
        if self.taken_up && self.begun.elapsed() < PREDECESSOR_LINGERS {
            return info!("the relay still sees this worker's earlier process, trying again");
        }
        match Identity::acquire_slot(&self.rules.data_directory) {
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

    fn tick(&mut self) {
        let now = Instant::now();
        self.revoked.retain(|_, at| now.duration_since(*at) < REVOKED_MEMORY);
        self.post_again();
        self.count();
    }

    /// Renews what monitoring sees of the picture.
    fn count(&self) {
        let metrics = self.metrics();
        for (metric, used, free) in self.capacity.uses() {
            metrics.set(metric, "used", used);
            metrics.set(metric, "free", free);
        }
        let connected = self.queues.iter().filter(|queue| queue.frames.is_some()).count();
        metrics.set(&metrics::CONNECTED, "", f64::from(u32::try_from(connected).unwrap_or(u32::MAX)));
        metrics.set(&metrics::DRAINING, "", if self.draining { 1.0 } else { 0.0 });
    }
}

fn short(grant: &LeaseGrant) -> String {
    job_label(&grant.job_id).chars().take(12).collect()
}

#[cfg(test)]
mod tests;
