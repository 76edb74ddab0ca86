//! One task for each open queue: grants what can be granted, and tells summaries, once a second at most.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dockframe_shared::protocol::{Registration, RelayMessage};
use dockframe_shared::{InstanceId, JobId, WorkerId};
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use super::Service;
use crate::queue::command::{Command, Reply};
use crate::queue::elsewhere::TOLD_EVERY_MS;
use crate::queue::matching::{self, Machine, Room, Waiting};
use crate::queue::open::{OpenQueue, summary};
use crate::queue::outbox::text;
use crate::queue::record::Phase;

/// Where nothing wakes it, waiting work is looked at so often: a lost wake-up delays and never loses.
const TICK: Duration = Duration::from_secs(1);
/// Other relays are told of the workers here so often, at least.
const SHARE: Duration = Duration::from_millis(TOLD_EVERY_MS.unsigned_abs());
/// Jobs looked at in one pass; the rest waits for the next.
const PASS: usize = 10_000;

/// The task ends with the queue or the relay, whichever goes first.
pub(super) fn start(service: &Arc<Service>, queue: &Arc<OpenQueue>) {
    let stop = service.stopping().clone();
    let wake = Arc::clone(&queue.wake);
    let service_of = Arc::downgrade(service);
    let queue_of = Arc::downgrade(queue);
    service.tasks().spawn(async move {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_summary = String::new();
        let mut told = Instant::now();
        let mut shared = Instant::now();
        loop {
            tokio::select! {
                () = wake.notified() => {}
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let (Some(service), Some(queue)) = (service_of.upgrade(), queue_of.upgrade()) else { return };
            service.grant_all(&queue).await;
            if queue.workers_to_share.swap(false, Ordering::Relaxed) || shared.elapsed() >= SHARE {
                shared = Instant::now();
                service.tell_workers(&queue, false).await;
                if queue.elsewhere().forget_silent(service.now()) {
                    service.show_workers(&queue);
                }
            }
            if told.elapsed() >= TICK && queue.take_changed() {
                told = Instant::now();
                service.tell_summary(&queue, &mut last_summary);
            }
        }
    });
}

impl Service {
    /// This queue may take room of the worker's process.
    pub(super) fn serves(&self, queue: &Arc<OpenQueue>, worker: &WorkerId, instance: &InstanceId) {
        let mut served = self.served.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let queues = served.entry((worker.clone(), instance.clone())).or_default();
        queues.retain(|known| known.strong_count() > 0);
        if !queues.iter().any(|known| Weak::ptr_eq(known, &Arc::downgrade(queue))) {
            queues.push(Arc::downgrade(queue));
        }
        if served.len() > 10_000 {
            served.retain(|_, queues| queues.iter().any(|queue| queue.strong_count() > 0));
        }
    }

    fn queues_of(&self, worker: &WorkerId, instance: &InstanceId) -> Vec<Arc<OpenQueue>> {
        let served = self.served.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let queues = served.get(&(worker.clone(), instance.clone()));
        queues.into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// All workers with leases, those of other relays too. What these take in other queues is not known here.
    pub(crate) fn all_machines(&self, queue: &OpenQueue) -> Vec<Machine> {
        let mut machines = self.machines(queue);
        let here: HashSet<WorkerId> = machines.iter().map(|machine| machine.worker.clone()).collect();
        let mut others: Vec<Machine> = {
            let elsewhere = queue.elsewhere();
            let others = elsewhere.workers().filter(|other| !here.contains(&other.registration.id));
            others
                .filter_map(|other| {
                    let leases = other.leases.as_ref()?;
                    Some(machine(&other.registration, &leases.instance, leases.session, leases.full))
                })
                .collect()
        };
        for other in &mut others {
            let cache = queue.cache();
            for needs in cache.taken_by(&other.worker, &other.instance) {
                other.used.add(matching::demand(needs, other.cpus, other.memory_bytes));
            }
        }
        machines.append(&mut others);
        machines.sort_by(|a, b| a.worker.cmp(&b.worker));
        machines
    }

    /// The workers with leases that are connected here, and what is left of them.
    fn machines(&self, queue: &OpenQueue) -> Vec<Machine> {
        let mut machines: Vec<Machine> = {
            let sockets = queue.sockets();
            sockets
                .lease_workers
                .values()
                .map(|socket| machine(&socket.registration, &socket.instance, socket.session, socket.full))
                .collect()
        };
        for machine in &mut machines {
            for other in self.queues_of(&machine.worker, &machine.instance) {
                let cache = other.cache();
                for needs in cache.taken_by(&machine.worker, &machine.instance) {
                    machine.used.add(matching::demand(needs, machine.cpus, machine.memory_bytes));
                }
            }
        }
        machines.sort_by(|a, b| a.worker.cmp(&b.worker));
        machines
    }

    /// Whether a worker other than the job's own could take it now.
    pub(super) fn another_is_free(&self, queue: &OpenQueue, job: &JobId) -> bool {
        let now = self.now();
        let (needs, holder) = {
            let cache = queue.cache();
            let Some(known) = cache.record(job) else { return false };
            let holder = known.value.active_lease().map(|lease| lease.worker.clone());
            (known.value.needs.clone(), holder)
        };
        let mut others = self.all_machines(queue);
        others.retain(|machine| Some(&machine.worker) != holder.as_ref());
        let waiting = std::iter::once(Waiting { job, needs: &needs, since: now });
        let willing = |job: &JobId, machine: &Machine| queue.willing(job, machine, now);
        !matching::plan(waiting, &mut others, now, willing).is_empty()
    }

    /// Grants until nothing more fits.
    async fn grant_all(self: &Arc<Self>, queue: &Arc<OpenQueue>) {
        loop {
            let mut machines = self.machines(queue);
            if machines.is_empty() {
                return;
            }
            let shared = machines.iter().any(|m| self.queues_of(&m.worker, &m.instance).len() > 1);
            let guard = if shared { Some(self.granting.lock().await) } else { None };
            if guard.is_some() {
                machines = self.machines(queue);
            }
            let now = self.now();
            let pairs = {
                let cache = queue.cache();
                let waiting = cache.waiting().take(PASS).map(|(job, record)| Waiting {
                    job,
                    needs: &record.needs,
                    since: record.queued_time,
                });
                let willing = |job: &JobId, machine: &Machine| queue.willing(job, machine, now);
                matching::plan(waiting, &mut machines, now, willing)
            };
            if pairs.is_empty() {
                return;
            }
            let commands: Vec<Command> = pairs
                .into_iter()
                .map(|pair| {
                    let machine = &machines[pair.machine];
                    Command::Grant {
                        job: pair.job,
                        worker: machine.worker.clone(),
                        instance: machine.instance.clone(),
                        session: machine.session,
                    }
                })
                .collect();
            let grants = commands.iter().map(|command| self.execute(queue, command));
            let mut progress = false;
            for outcome in join_all(grants).await {
                match outcome {
                    Ok(Reply::Done { .. } | Reply::Nothing) => progress = true,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, queue.hash = %queue.digest, "a grant could not be made");
                        return;
                    }
                }
            }
            if !progress {
                return;
            }
        }
    }

    /// Tells the workers with leases of one another (`relay-protocol` 3.8), and watching clients how the queue stands and
    /// at which places their waiting jobs are.
    fn tell_summary(&self, queue: &OpenQueue, last: &mut String) {
        let workers = queue.workers_to_tell.swap(false, Ordering::Relaxed).then(|| queue.workers_message());
        {
            let sockets = queue.sockets();
            if let Some(workers) = &workers {
                let clients = sockets.watch_clients.values().filter(|client| client.wants_workers);
                let leases = sockets.lease_workers.values().map(|socket| &socket.outbox);
                for outbox in clients.map(|client| &client.outbox).chain(leases) {
                    outbox.workers(workers);
                }
            }
            if sockets.watch_clients.is_empty() {
                return;
            }
        }
        let text = self.summary_message(queue);
        let waiting = |job: &JobId| {
            let cache = queue.cache();
            cache.record(job).is_some_and(|known| matches!(known.value.phase, Phase::Waiting { .. }))
        };
        let sockets = queue.sockets();
        if text != *last {
            for client in sockets.watch_clients.values() {
                client.outbox.summary(&text);
            }
            *last = text;
        }
        sockets.remind(waiting);
    }

    pub(crate) fn summary_message(&self, queue: &OpenQueue) -> String {
        let (queued, running) = queue.cache().counts();
        let machines = self.all_machines(queue);
        let free_cpus = machines.iter().map(|m| (m.cpus - m.used.cpus).max(0.0)).sum();
        let free_gpus = machines.iter().map(|m| (m.gpus - m.used.gpus).max(0.0)).sum();
        let numbers = summary(queued, running, &queue.registrations(), free_cpus, free_gpus);
        text(&RelayMessage::QueueSummary(numbers))
    }
}

fn machine(announced: &Registration, instance: &InstanceId, session: u64, full: bool) -> Machine {
    Machine {
        worker: announced.id.clone(),
        instance: instance.clone(),
        session,
        cpus: announced.cpus.0.max(0.0),
        gpus: announced.gpus.0.max(0.0),
        memory_bytes: announced.memory_bytes,
        tags: announced.tags.clone().unwrap_or_default(),
        closed: full || announced.draining.unwrap_or(false),
        used: Room::default(),
    }
}
