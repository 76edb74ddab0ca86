//! What comes back from runs and what relays say to it: lines, results, and that they have arrived (`worker` 22.3, B14).

use std::sync::atomic::Ordering;
use std::time::Duration;

use dockframe_shared::protocol::{
    DeclineRetry, Lease, LeaseFinished, LeaseRef, Phase, WorkerHello, WorkerMessage,
};
use dockframe_shared::{Amount, LeaseId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::queue::Letter;
use super::{Dispatcher, Standing};
use crate::executor::Executor;
use crate::messages::{Cause, GiveBack, QueueIndex, RunKey, StopOrder, Then, UnitEvent};
use crate::metrics;
use crate::spool::Spool;

/// How long a result is kept after the relay has answered.
const LETTER_MEMORY: Duration = Duration::from_secs(10 * 60);
/// An unanswered result is sent again on a living connection after this.
const RESEND_EVERY: Duration = Duration::from_secs(15);
/// Lines of all runs together that wait for their relays.
const MAX_SPOOLED_BYTES: usize = 64 << 20;

impl<E: Executor> Dispatcher<E> {
    pub(super) fn link_up(
        &mut self,
        index: QueueIndex,
        hello: &WorkerHello,
        frames: mpsc::UnboundedSender<String>,
    ) {
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

    pub(super) fn finished(&mut self, index: QueueIndex, finished: &LeaseFinished) {
        let key = RunKey { queue: index, lease: finished.lease_id.clone() };
        self.spools.remove(&key);
        if !finished.recorded {
            let why = finished.why.as_deref().unwrap_or("the lease was no longer current");
            info!(queue = %self.queue(index).key.digest(), "a result was not recorded: {why}");
            let order = StopOrder { grace: self.shared.kill_grace, then: Then::CleanUp };
            self.forget(&key, order);
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

    pub(super) fn confirmed(&mut self, index: QueueIndex, frames: u64) {
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

    pub(super) fn unit_event(&mut self, key: &RunKey, event: UnitEvent) {
        match event {
            UnitEvent::Ready => {
                let Some(entry) = self.table.get_mut(key) else { return };
                if entry.standing != Standing::Offered {
                    return;
                }
                entry.standing = Standing::Held;
                let go = entry.go.take();
                self.metrics().add(&metrics::CLAIMED, "", 1);
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
                    self.bound_spools();
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
            UnitEvent::GivenBack(GiveBack { why, cause }) => {
                let standing = self.leave_table(key);
                self.spools.remove(key);
                self.metrics().add(&metrics::ENGINE_ERRORS, "run", 1);
                let retry = match cause {
                    Cause::Machine => DeclineRetry::Later,
                    Cause::NoGpus => {
                        self.lend_no_gpus();
                        DeclineRetry::Never
                    }
                };
                if matches!(standing, Some(Standing::Held | Standing::GivingBack)) {
                    self.decline(key, &why, retry);
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

    /// GPUs were announced that the Engine cannot give: no job is to come for them again.
    fn lend_no_gpus(&mut self) {
        error!(
            "GPUs are lent (--gpus), but the Docker Engine cannot give them to containers: install the NVIDIA Container Toolkit. Going on without"
        );
        self.capacity.lend_no_gpus();
        for queue in &self.queues {
            queue.registration.send_modify(|registration| registration.gpus = Amount(0.0));
        }
    }

    /// All lines that wait for relays, within the bound of a worker: the longest queue loses its oldest.
    fn bound_spools(&mut self) {
        let total: usize = self.spools.values().map(Spool::bytes).sum();
        if total > MAX_SPOOLED_BYTES
            && let Some(longest) = self.spools.values_mut().max_by_key(|spool| spool.bytes())
        {
            longest.lose(total - MAX_SPOOLED_BYTES);
        }
    }

    /// Gives the run's share back.
    pub(super) fn leave_table(&mut self, key: &RunKey) -> Option<Standing> {
        let entry = self.table.remove(key)?;
        self.capacity.release(&entry.share);
        Some(entry.standing)
    }

    /// Sends what the spool has, if there is a connection.
    pub(super) fn pump(&mut self, key: &RunKey) {
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
    pub(super) fn announce(&mut self, index: QueueIndex) {
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

    pub(super) fn post_again(&mut self) {
        let now = Instant::now();
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
}
