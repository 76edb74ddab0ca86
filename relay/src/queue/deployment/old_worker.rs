//! A worker of the old way (`jobs-and-states` 8.8): it takes what it sees in its list, unasked.

use std::collections::BTreeMap;

use dockframe_shared::job::ResultReason;
use dockframe_shared::{JobId, Timestamp, WorkerId};

use super::network::{Frame, Peer, ToPeer};
use super::world::{Event, World};
use crate::queue::command::Ending;

#[derive(Debug)]
pub(super) struct OldWorker {
    pub id: WorkerId,
    pub queue: usize,
    pub is_there: bool,
    socket: Option<usize>,
    pub runs: BTreeMap<JobId, OldRun>,
    count: u64,
    asleep_until: i64,
    /// It was sent a list on this socket, so the relay knows it.
    is_known: bool,
    ticks: bool,
}

#[derive(Debug)]
pub(super) struct OldRun {
    number: u64,
    started: i64,
    /// Since when it is missing from the lists.
    missing: Option<i64>,
    has_ended: bool,
}

impl OldWorker {
    pub(super) fn new(number: usize, queue: usize, is_there: bool) -> Self {
        Self {
            id: WorkerId::new(format!("old-{number}")).expect("a name"),
            queue,
            is_there,
            socket: None,
            runs: BTreeMap::new(),
            count: 0,
            asleep_until: 0,
            is_known: false,
            ticks: is_there,
        }
    }
}

impl World {
    pub(super) fn old_worker_ticks(&mut self, number: usize) {
        let now = self.now;
        let next = self.chance.between(3_000, 8_000);
        let worker = &self.old_workers[number];
        if now < worker.asleep_until {
            let wait = worker.asleep_until - now;
            return self.after(wait, Event::OldTick(number));
        }
        let (id, queue) = (worker.id.clone(), worker.queue);
        match worker.socket {
            Some(socket) => {
                if !worker.is_known {
                    self.say(socket, Frame::OldRegister(id));
                }
                self.say(socket, Frame::Ping);
                self.say(socket, Frame::List);
            }
            None => {
                let Some(socket) = self.connect(Peer::OldWorker(number), queue) else {
                    return self.after(500, Event::OldTick(number));
                };
                self.old_workers[number].socket = Some(socket);
                self.old_workers[number].is_known = false;
                self.say(socket, Frame::OldRegister(id));
                // A registration is followed by what runs.
                let runs = &self.old_workers[number].runs;
                let running: Vec<(JobId, i64)> =
                    runs.iter().map(|(job, run)| (job.clone(), run.started)).collect();
                for (job, started) in running {
                    self.say(socket, Frame::Claim(job, started));
                }
            }
        }
        self.after(next, Event::OldTick(number));
    }

    pub(super) fn old_worker_loses(&mut self, number: usize, socket: usize) {
        if self.old_workers[number].socket == Some(socket) {
            self.old_workers[number].socket = None;
        }
    }

    pub(super) fn old_worker_crashes(&mut self, number: usize) {
        if !self.old_workers[number].ticks {
            return;
        }
        self.tell(|| format!("old worker {number} crashes"));
        let away = self.chance.pick(&[100, 3_000, 50_000]);
        let worker = &mut self.old_workers[number];
        worker.asleep_until = self.now + away;
        worker.runs.clear();
        if let Some(socket) = worker.socket.take() {
            self.closed_by_peer(socket);
        }
    }

    pub(super) fn old_worker_hears(&mut self, number: usize, socket: usize, message: ToPeer) {
        let now = self.now;
        let worker = &mut self.old_workers[number];
        let ToPeer::List(jobs) = message else { return };
        if worker.socket != Some(socket) || now < worker.asleep_until {
            return;
        }
        worker.is_known = true;
        for (job, run) in &mut worker.runs {
            run.missing = if jobs.contains(job) { None } else { run.missing.or(Some(now)) };
        }
        // What is missing from a full list is killed after 6 s.
        worker.runs.retain(|_, run| run.missing.is_none_or(|since| now - since < 6_000));
        let Some(job) = jobs.into_iter().find(|job| !worker.runs.contains_key(job)) else { return };
        if !worker.runs.is_empty() {
            return;
        }
        worker.count += 1;
        let run = OldRun { number: worker.count, started: now, missing: None, has_ended: false };
        let count = worker.count;
        worker.runs.insert(job.clone(), run);
        self.tell(|| format!("old worker {number} claims {job} on socket {socket}"));
        self.say(socket, Frame::Claim(job.clone(), now));
        let takes = self.chance.between(20, 7_000);
        self.after(takes, Event::OldRunEnds { worker: number, job, number: count });
    }

    pub(super) fn old_run_ends(&mut self, number: usize, job: &JobId, count: u64) {
        let now = self.now;
        let gives_back = self.is_trouble() && self.chance.permille(50);
        let worker = &mut self.old_workers[number];
        let Some(run) = worker.runs.get_mut(job).filter(|run| run.number == count) else { return };
        run.has_ended = true;
        let started = run.started;
        let document = format!("{} ran {job} since {started}", worker.id).into_bytes();
        let Some(socket) = worker.socket else {
            // What it could not say while it was away it says after its return.
            return self.after(700, Event::OldRunEnds { worker: number, job: job.clone(), number: count });
        };
        worker.runs.remove(job);
        self.tell(|| format!("old worker {number} ends {job}"));
        let ending = Ending::Result { reason: ResultReason::Success, time: Timestamp::from_millis(now) };
        let frame = if gives_back {
            Frame::ClaimLost(job.clone())
        } else {
            Frame::ClaimFinish(job.clone(), ending, document)
        };
        self.say(socket, frame);
    }
}
