//! What a relay does by itself: sweeps, ticks, grants.

use super::*;

impl World {
    pub(in crate::queue::deployment) fn sweep(&mut self, relay: usize) {
        if self.now - self.relays[relay].last_sweep > 5_000 {
            self.relays[relay].healthy_since = self.now;
        }
        if self.store.up && self.store.next_due().is_none_or(|at| at > self.now) {
            // A question that would be answered "nothing" is not asked.
            return self.swept(relay, true);
        }
        let task = self.relays[relay].add(Task::Sweep);
        let until = self.time();
        self.ask(relay, task, Request::Due(until));
    }

    pub(super) fn stepped(&mut self, relay: usize, is_done: bool) {
        let Some(sweep) = &mut self.relays[relay].sweep else { return };
        sweep.left -= 1;
        sweep.failed |= !is_done;
        if sweep.left == 0 {
            let failed = sweep.failed;
            self.relays[relay].sweep = None;
            self.swept(relay, !failed);
        }
    }

    pub(super) fn swept(&mut self, relay: usize, well: bool) {
        let now = self.now;
        let life = self.relays[relay].life;
        if well {
            self.relays[relay].last_sweep = now;
        } else {
            self.relays[relay].healthy_since = now;
        }
        let next = self.store.next_due().unwrap_or(i64::MAX).clamp(now + 1_000, now + 4_000);
        self.at(next, Event::Sweep { relay, life });
    }

    pub(in crate::queue::deployment) fn relay_ticks(&mut self, relay: usize) {
        let life = self.relays[relay].life;
        for queue in 0..QUEUES {
            self.match_jobs(relay, queue);
            // Whether commits were missed is asked; here it is known.
            let count = self.store.counts[queue];
            let is_open = self.relays[relay].queues[queue].is_some();
            if is_open && !self.is_alone() && self.relays[relay].counts[queue] != count {
                self.relays[relay].counts[queue] = count;
                self.refresh(relay, queue, None);
            }
        }
        self.after(2_000, Event::Tick { relay, life });
    }

    /// One more grant is on its way.
    pub(in crate::queue::deployment) fn grant(&mut self, relay: usize, queue: usize, command: Command) {
        self.command(relay, queue, command, Why::Grant);
    }

    pub(in crate::queue::deployment) fn machines(
        &self,
        relay: usize,
        queue: usize,
    ) -> Vec<crate::queue::matching::Machine> {
        use crate::queue::matching::{Machine, Room, demand};
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return Vec::new() };
        let machine = |(worker, standing): (&WorkerId, &Standing)| {
            let mut used = Room::default();
            for needs in open.cache.taken_by(worker, &standing.instance) {
                used.add(demand(needs, standing.cpus, None));
            }
            Machine {
                worker: worker.clone(),
                instance: standing.instance.clone(),
                session: standing.session,
                cpus: standing.cpus,
                gpus: 0.0,
                memory_bytes: None,
                tags: Vec::new(),
                closed: standing.full,
                used,
            }
        };
        open.leases.iter().map(machine).collect()
    }

    pub(super) fn another_is_free(&self, relay: usize, queue: usize, job: &JobId) -> bool {
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return false };
        let Some(known) = open.cache.record(job) else { return false };
        let holder = known.value.active_lease().map(|lease| &lease.worker);
        let mut others = self.machines(relay, queue);
        others.retain(|machine| Some(&machine.worker) != holder);
        !self.plan(open, std::iter::once((job, &*known.value.needs, self.time())), &mut others).is_empty()
    }

    pub(super) fn plan<'a>(
        &self,
        open: &OpenQueue,
        waiting: impl Iterator<Item = (&'a JobId, &'a Needs, Timestamp)>,
        machines: &mut [crate::queue::matching::Machine],
    ) -> Vec<crate::queue::matching::Pair> {
        use crate::queue::matching::{Machine, Waiting, Willing, plan};
        let willing = |job: &JobId, machine: &Machine| {
            let name = (job.clone(), machine.worker.clone());
            let is_its = |instance: &InstanceId| *instance == machine.instance;
            let declined = open.declines.get(&name).is_some_and(|(instance, until)| {
                is_its(instance) && until.is_none_or(|until| self.now < until)
            });
            let unheard = open.unheard.get(&name);
            if declined {
                Willing::No
            } else if unheard.is_some_and(|(instance, until)| is_its(instance) && self.now < *until) {
                Willing::Last
            } else {
                Willing::Yes
            }
        };
        plan(waiting.map(|(job, needs, since)| Waiting { job, needs, since }), machines, self.time(), willing)
    }

    pub(super) fn match_jobs(&mut self, relay: usize, queue: usize) {
        let mut machines = self.machines(relay, queue);
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        if machines.is_empty() {
            return;
        }
        if open.granting > 0 {
            if let Some(open) = self.relays[relay].queues[queue].as_mut() {
                open.grant_again = true;
            }
            return;
        }
        let waiting = open.cache.waiting().map(|(job, record)| (job, &*record.needs, record.queued_time));
        let pairs = self.plan(open, waiting, &mut machines);
        if let Some(open) = self.relays[relay].queues[queue].as_mut() {
            open.granting = pairs.len();
        }
        for pair in pairs {
            let machine = &machines[pair.machine];
            let command = Command::Grant {
                job: pair.job,
                worker: machine.worker.clone(),
                instance: machine.instance.clone(),
                session: machine.session,
            };
            self.grant(relay, queue, command);
        }
    }
}
