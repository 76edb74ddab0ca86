//! What lies between: sockets that keep the order of what they carry and may break at any point, and requests to the
//! store that are lost, late, repeated and answered or not.

use std::collections::VecDeque;
use std::rc::Rc;

use dockframe_shared::job::Rerun;
use dockframe_shared::protocol::DeclineRetry;
use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, WorkerId};

use super::store::{Answer, Reach, Request, Truth};
use super::world::{Event, World};
use crate::queue::command::{Ending, Who};
use crate::queue::record::{EndReason, Record};
use crate::store::Committed;

/// What peers say to a relay.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Register {
        worker: WorkerId,
        instance: InstanceId,
        cpus: f64,
        leases: Vec<LeaseId>,
    },
    Accept(LeaseId),
    Decline(LeaseId, DeclineRetry),
    Finish(LeaseId, Ending, Vec<u8>),
    OldRegister(WorkerId),
    Ping,
    List,
    /// When it was claimed first goes with it.
    Claim(JobId, i64),
    ClaimFinish(JobId, Ending, Vec<u8>),
    ClaimLost(JobId),
    Submit {
        request: u64,
        job: JobId,
        namespace: Namespace,
        priority: i8,
        rerun: Option<Rerun>,
    },
    LetGo {
        request: u64,
        job: JobId,
        why: EndReason,
        who: Who,
    },
    Watch(JobId),
}

/// What a relay says to its peers.
#[derive(Debug, Clone)]
pub(super) enum ToPeer {
    Hello,
    Grant(LeaseId, JobId),
    Revoke(LeaseId),
    Finished(LeaseId, bool),
    List(Vec<JobId>),
    /// The answer to a change; `None`: not possible now.
    Done(u64, Option<u64>),
    Shown {
        job: JobId,
        revision: u64,
        record: Option<Rc<Record>>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Worker(usize),
    OldWorker(usize),
    Client(usize),
}

#[derive(Debug)]
pub(super) struct Socket {
    pub relay: usize,
    pub life: u32,
    pub peer: Peer,
    pub queue: usize,
    pub relay_side: bool,
    pub peer_side: bool,
    /// Nothing passes any more, and nobody knows yet.
    pub is_cut: bool,
    last_to_relay: i64,
    last_to_peer: i64,
    pub last_frame: i64,
    /// Frames of one socket are dealt with one after the other.
    pub inbox: VecDeque<Frame>,
    pub is_busy: bool,
    pub name: Option<(WorkerId, Option<InstanceId>)>,
    pub told: std::collections::BTreeMap<JobId, u64>,
}

impl World {
    /// A peer connects to some relay; `None`: none is there.
    pub(super) fn connect(&mut self, peer: Peer, queue: usize) -> Option<usize> {
        let up: Vec<usize> = (0..self.relays.len()).filter(|relay| self.relays[*relay].is_up).collect();
        if up.is_empty() {
            return None;
        }
        let relay = self.chance.pick(&up);
        self.sockets.push(Socket {
            relay,
            life: self.relays[relay].life,
            peer,
            queue,
            relay_side: true,
            peer_side: true,
            is_cut: false,
            last_to_relay: self.now,
            last_to_peer: self.now,
            last_frame: self.now,
            inbox: VecDeque::new(),
            is_busy: false,
            name: None,
            told: std::collections::BTreeMap::new(),
        });
        let socket = self.sockets.len() - 1;
        self.tell(|| format!("{peer:?} connects to relay {relay} by socket {socket}"));
        Some(socket)
    }

    pub(super) fn say(&mut self, socket: usize, frame: Frame) {
        let latency = self.latency();
        let now = self.now;
        let line = &mut self.sockets[socket];
        if line.is_cut || !line.peer_side {
            return;
        }
        line.last_to_relay = line.last_to_relay.max(now + latency);
        let at = line.last_to_relay;
        self.at(at, Event::ToRelay { socket, frame });
    }

    pub(super) fn answer(&mut self, socket: usize, message: ToPeer) {
        let latency = self.latency();
        let now = self.now;
        let line = &mut self.sockets[socket];
        if line.is_cut || !line.relay_side {
            return;
        }
        line.last_to_peer = line.last_to_peer.max(now + latency);
        let at = line.last_to_peer;
        self.at(at, Event::ToPeer { socket, message });
    }

    pub(super) fn frame_arrives(&mut self, socket: usize, frame: Frame) {
        let now = self.now;
        let line = &mut self.sockets[socket];
        if line.is_cut || !line.relay_side || self.relays[line.relay].life != line.life {
            return;
        }
        line.last_frame = now;
        line.inbox.push_back(frame);
        self.next_frame(socket);
    }

    pub(super) fn next_frame(&mut self, socket: usize) {
        let line = &mut self.sockets[socket];
        if line.is_busy || !line.relay_side {
            return;
        }
        if let Some(frame) = line.inbox.pop_front() {
            line.is_busy = true;
            self.relay_reads(socket, frame);
        }
    }

    pub(super) fn message_arrives(&mut self, socket: usize, message: ToPeer) {
        let line = &self.sockets[socket];
        if line.is_cut || !line.peer_side {
            return;
        }
        match line.peer {
            Peer::Worker(worker) => self.worker_hears(worker, socket, message),
            Peer::OldWorker(worker) => self.old_worker_hears(worker, socket, message),
            Peer::Client(client) => self.client_hears(client, socket, message),
        }
    }

    /// The relay closes it, or a crash does.
    pub(super) fn closed_by_relay(&mut self, socket: usize) {
        self.sockets[socket].relay_side = false;
        let latency = self.latency();
        self.after(latency, Event::PeerSideCloses(socket));
    }

    pub(super) fn closed_by_peer(&mut self, socket: usize) {
        self.sockets[socket].peer_side = false;
        let latency = self.latency();
        // What was under way before the closing may still come.
        let at = self.sockets[socket].last_to_relay.max(self.now + latency);
        self.at(at, Event::RelaySideCloses(socket));
    }

    pub(super) fn peer_side_closes(&mut self, socket: usize) {
        if !std::mem::replace(&mut self.sockets[socket].peer_side, false) {
            return;
        }
        match self.sockets[socket].peer {
            Peer::Worker(worker) => self.worker_loses(worker, socket),
            Peer::OldWorker(worker) => self.old_worker_loses(worker, socket),
            Peer::Client(client) => self.client_loses(client, socket),
        }
    }

    /// A link breaks, seen by both sides sooner or later, or not at all before they miss each other.
    pub(super) fn cut(&mut self, number: usize) {
        let open: Vec<usize> = (0..self.sockets.len())
            .filter(|s| self.sockets[*s].relay_side && self.sockets[*s].peer_side)
            .collect();
        if open.is_empty() {
            return;
        }
        let socket = open[number % open.len()];
        self.tell(|| format!("socket {socket} is cut"));
        self.sockets[socket].is_cut = true;
        let (peer_side, relay_side) = if self.chance.permille(500) {
            (self.chance.between(1, 2_000), self.chance.between(1, 2_000))
        } else {
            // The peer misses its PONG, the relay any frame.
            (self.chance.between(1_000, 15_000), self.chance.between(2_000, 30_000))
        };
        self.after(peer_side, Event::PeerSideCloses(socket));
        self.after(relay_side, Event::RelaySideCloses(socket));
    }

    /// A store within the relay's process answers whatever it is asked, or goes with it.
    fn is_lossy(&self) -> bool {
        self.is_trouble() && self.kind.relays > 1
    }

    /// A request of a relay sets out for the store.
    pub(super) fn ask(&mut self, relay: usize, task: u64, request: Request) {
        let life = self.relays[relay].life;
        if self.is_lossy() && self.chance.permille(6) {
            let late = self.chance.between(200, 5_000);
            self.after(late, Event::FromStore { relay, life, task, answer: Answer::Failed });
            return;
        }
        let latency = self.latency();
        if self.is_lossy() && self.chance.permille(6) {
            let late = latency + self.chance.between(1, 3_000);
            self.after(late, Event::ToStore { relay, life, task: None, request: request.clone() });
        }
        self.after(latency, Event::ToStore { relay, life, task: Some(task), request });
    }

    fn reply(&mut self, relay: usize, life: u32, task: Option<u64>, answer: Answer) {
        let Some(task) = task else { return };
        let is_lost = self.is_lossy() && self.chance.permille(6);
        let latency = self.latency();
        let answer = if is_lost { Answer::Failed } else { answer };
        self.after(latency, Event::FromStore { relay, life, task, answer });
    }

    pub(super) fn store_hears(&mut self, relay: usize, life: u32, task: Option<u64>, request: Request) {
        // A store within the process never hears of what died with it.
        if self.is_alone() && self.relays[relay].life != life {
            return;
        }
        if !self.store.up {
            return self.reply(relay, life, task, Answer::Failed);
        }
        if let Some(answer) = self.store.read(&request) {
            return self.reply(relay, life, task, answer);
        }
        if self.batch.is_empty() {
            let pause = if self.is_trouble() && self.chance.permille(10) { 4_000 } else { 6 };
            let until_sync = self.chance.between(0, pause);
            self.after(until_sync, Event::Sync);
        }
        self.batch.push((relay, life, task, request));
    }

    pub(super) fn store_syncs(&mut self) {
        for (relay, life, task, request) in std::mem::take(&mut self.batch) {
            let mut truths = Vec::new();
            let answer = self.store.write(&request, Reach::Whole, &mut truths);
            if let Request::Commit(commit, _) = &request
                && commit.writes.is_empty()
            {
                self.tell(|| format!("relay {relay} deals with {:?}, adds {:?}", commit.done, commit.due));
            }
            let committed = matches!(answer, Answer::Committed(Committed::Ok));
            self.come_true(&truths, relay, committed);
            self.reply(relay, life, task, answer);
        }
    }

    /// It is away for a while, and what it had not synced is torn somewhere.
    pub(super) fn store_crashes(&mut self) {
        if !self.store.up {
            return;
        }
        self.store.up = false;
        let away = if self.kind.relays > 1 { self.chance.pick(&[300, 2_000, 40_000]) } else { 1 };
        if self.kind.relays == 1 {
            self.relay_dies(0);
        }
        self.tell(|| format!("the store is away for {away} ms"));
        self.after(away, Event::StoreBack);
        let batch = std::mem::take(&mut self.batch);
        let whole = self.chance.below(batch.len() + 1);
        for (number, (relay, life, task, request)) in batch.into_iter().enumerate() {
            let reach = match number {
                _ if number < whole => Some(Reach::Whole),
                _ if number == whole => self.chance.pick(&[None, Some(Reach::Before), Some(Reach::Itself)]),
                _ => None,
            };
            if let Some(reach) = reach {
                let mut truths = Vec::new();
                self.store.write(&request, reach, &mut truths);
                self.come_true(&truths, relay, false);
            }
            self.reply(relay, life, task, Answer::Failed);
        }
    }

    /// Those who check look at it, and other relays hear of it, if they do.
    fn come_true(&mut self, truths: &[Truth], relay: usize, is_told: bool) {
        if is_told {
            self.publish(relay, truths);
        }
        for truth in truths {
            self.check(truth);
        }
    }
}
