//! A worker with leases (`jobs-and-states` 8): it keeps what it runs over lost sockets, repeats what was not
//! acknowledged, and now and then forgets, dawdles, declines or sends what nobody can read.

use std::collections::{BTreeMap, BTreeSet};

use dockframe_shared::job::ResultReason;
use dockframe_shared::protocol::DeclineRetry;
use dockframe_shared::{InstanceId, JobId, LeaseId, Timestamp, WorkerId};

use super::network::{Frame, Peer, ToPeer};
use super::relay::needs_of;
use super::world::{Event, World};
use crate::queue::command::Ending;
use crate::queue::matching::demand;
use crate::queue::timing::LEASE_RENEW;

#[derive(Debug)]
pub(super) struct Worker {
    pub id: WorkerId,
    pub queue: usize,
    instance: u32,
    pub cpus: f64,
    socket: Option<usize>,
    is_welcome: bool,
    pub runs: BTreeMap<LeaseId, Run>,
    revoked: BTreeSet<LeaseId>,
    /// What it was told of, and how it ended: kept for a while, and said again by mistake.
    past: Vec<(LeaseId, Vec<u8>)>,
    asleep_until: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Run {
    pub job: JobId,
    /// The result that waits for its acknowledgement.
    result: Option<Ending>,
    document: Vec<u8>,
}

impl Worker {
    pub(super) fn new(number: usize, queue: usize, cpus: f64) -> Self {
        Self {
            id: WorkerId::new(format!("lease-{number}")).expect("a name"),
            queue,
            instance: 1,
            cpus,
            socket: None,
            is_welcome: false,
            runs: BTreeMap::new(),
            revoked: BTreeSet::new(),
            past: Vec::new(),
            asleep_until: 0,
        }
    }

    fn instance(&self) -> InstanceId {
        InstanceId::new(format!("{}-{}", self.id, self.instance)).expect("a name")
    }

    pub(super) fn is_awake(&self, now: i64) -> bool {
        now >= self.asleep_until
    }
}

impl World {
    pub(super) fn worker_ticks(&mut self, number: usize) {
        let next = self.chance.between(LEASE_RENEW * 7 / 10, LEASE_RENEW);
        let worker = &self.workers[number];
        if !worker.is_awake(self.now) {
            let wait = worker.asleep_until - self.now;
            return self.after(wait, Event::WorkerTick(number));
        }
        match worker.socket {
            Some(_) => self.worker_registers(number),
            None => {
                let queue = worker.queue;
                match self.connect(Peer::Worker(number), queue) {
                    Some(socket) => {
                        self.workers[number].socket = Some(socket);
                        self.workers[number].is_welcome = false;
                        self.worker_registers(number);
                    }
                    None => return self.after(500, Event::WorkerTick(number)),
                }
            }
        }
        self.after(next, Event::WorkerTick(number));
    }

    fn worker_registers(&mut self, number: usize) {
        let worker = &self.workers[number];
        let Some(socket) = worker.socket else { return };
        let leases = worker.runs.keys().cloned().collect();
        let frame = Frame::Register {
            worker: worker.id.clone(),
            instance: worker.instance(),
            cpus: worker.cpus,
            leases,
        };
        self.tell(|| format!("worker {number} says on socket {socket}: {frame:?}"));
        self.say(socket, frame);
        // Whatever was not acknowledged is said again.
        if self.workers[number].is_welcome {
            self.worker_repeats(number);
        }
    }

    fn worker_repeats(&mut self, number: usize) {
        let worker = &self.workers[number];
        let Some(socket) = worker.socket else { return };
        let ended = worker.runs.iter().filter_map(|(lease, run)| {
            Some(Frame::Finish(lease.clone(), run.result.clone()?, run.document.clone()))
        });
        let mut frames: Vec<Frame> = ended.collect();
        // And what was, at times.
        if let Some((lease, document)) = worker.past.last().cloned()
            && self.chance.permille(300)
        {
            frames.push(Frame::Finish(lease, success(self.now), document));
        }
        for frame in frames {
            self.tell(|| format!("worker {number} says again: {frame:?}"));
            self.say(socket, frame);
        }
    }

    pub(super) fn worker_loses(&mut self, number: usize, socket: usize) {
        if self.workers[number].socket == Some(socket) {
            self.workers[number].socket = None;
            self.workers[number].is_welcome = false;
            let wait = self.chance.between(0, 2_500);
            // The renewals go on beside it: one of the two finds the socket there.
            self.after(wait, Event::WorkerTick(number));
        }
    }

    /// It starts anew, with what it has on disk; or is away for long.
    pub(super) fn worker_crashes(&mut self, number: usize) {
        self.tell(|| format!("worker {number} crashes"));
        let away = self.chance.pick(&[100, 3_000, 50_000]);
        let adopts = self.chance.permille(400);
        let worker = &mut self.workers[number];
        worker.instance += 1;
        worker.asleep_until = self.now + away;
        worker.is_welcome = false;
        if !adopts {
            worker.runs.retain(|_, run| run.result.is_some());
        }
        if let Some(socket) = worker.socket.take() {
            self.closed_by_peer(socket);
        }
        self.after(away, Event::WorkerTick(number));
    }

    pub(super) fn worker_hears(&mut self, number: usize, socket: usize, message: ToPeer) {
        if self.workers[number].socket != Some(socket) || !self.workers[number].is_awake(self.now) {
            return;
        }
        self.tell(|| format!("worker {number} hears {message:?}"));
        match message {
            ToPeer::Hello => {
                self.workers[number].is_welcome = true;
                self.worker_repeats(number);
            }
            ToPeer::Grant(lease, job) => self.worker_is_granted(number, socket, lease, job),
            ToPeer::Revoke(lease) => {
                self.workers[number].runs.remove(&lease);
                self.workers[number].revoked.insert(lease);
            }
            ToPeer::Finished(lease, recorded) => {
                self.observer_hears_finished(&lease, recorded);
                if let Some(run) = self.workers[number].runs.remove(&lease) {
                    self.workers[number].past.push((lease, run.document));
                }
            }
            ToPeer::List(_) | ToPeer::Done(..) | ToPeer::Shown { .. } => {}
        }
    }

    fn worker_is_granted(&mut self, number: usize, socket: usize, lease: LeaseId, job: JobId) {
        if self.workers[number].revoked.contains(&lease) {
            return;
        }
        if self.is_trouble() {
            match self.chance.below(100) {
                0..4 => return,
                4..8 => {
                    let retry = self.chance.pick(&[DeclineRetry::Soon, DeclineRetry::Later]);
                    return self.say(socket, Frame::Decline(lease, retry));
                }
                _ => {}
            }
        }
        self.check_room(number, &lease, &job);
        let worker = &mut self.workers[number];
        let document = format!("{} ran {lease}", worker.id).into_bytes();
        worker.runs.insert(lease.clone(), Run { job, result: None, document });
        self.say(socket, Frame::Accept(lease.clone()));
        let takes = match self.chance.below(100) {
            0..60 => self.chance.between(5, 500),
            60..95 => self.chance.between(500, 6_000),
            _ => self.chance.between(6_000, 45_000),
        };
        self.after(takes, Event::RunEnds { worker: number, lease });
    }

    pub(super) fn run_ends(&mut self, number: usize, lease: &LeaseId) {
        let now = self.now;
        let gives_back = self.is_trouble() && self.chance.permille(30);
        let is_garbled = self.is_trouble() && self.chance.permille(30);
        let worker = &mut self.workers[number];
        if !worker.is_awake(now) {
            let wait = worker.asleep_until - now + 1;
            return self.after(wait, Event::RunEnds { worker: number, lease: lease.clone() });
        }
        let Some(run) = worker.runs.get_mut(lease) else { return };
        let socket = worker.socket;
        if let (true, Some(socket)) = (gives_back, socket) {
            worker.runs.remove(lease);
            worker.revoked.insert(lease.clone());
            return self.say(socket, Frame::Decline(lease.clone(), DeclineRetry::Later));
        }
        let ending = if is_garbled { Ending::Unreadable("garbled".to_owned()) } else { success(now) };
        run.result = Some(ending.clone());
        let document = run.document.clone();
        self.tell(|| format!("worker {number} ends {lease}"));
        if let Some(socket) = socket.filter(|_| self.workers[number].is_welcome) {
            self.say(socket, Frame::Finish(lease.clone(), ending, document));
        }
    }

    /// Sum of what was granted to it ≤ what it announced (invariant 9), as the worker itself sees it.
    fn check_room(&mut self, number: usize, lease: &LeaseId, job: &JobId) {
        let worker = &self.workers[number];
        let takes = |job: &JobId| demand(&needs_of(job), worker.cpus, None).cpus;
        let others = worker.runs.iter().filter(|(other, run)| {
            *other != lease && run.result.is_none() && self.is_active(worker.queue, &run.job, other)
        });
        let sum = takes(job) + others.map(|(_, run)| takes(&run.job)).sum::<f64>();
        if sum > worker.cpus + 1e-6 && self.is_active(worker.queue, job, lease) {
            let cpus = worker.cpus;
            self.breaks(9, || {
                format!("worker {number} with {cpus} cpus was granted {sum} with {lease} for {job}")
            });
        }
    }
}

fn success(now: i64) -> Ending {
    Ending::Result { reason: ResultReason::Success, time: Timestamp::from_millis(now) }
}
