//! A client: it submits, cancels, deletes and watches, and repeats what was not acknowledged.

use std::collections::BTreeMap;

use dockframe_shared::job::Rerun;
use dockframe_shared::{JobId, Namespace, NamespaceSelector};

use super::network::{Frame, Peer, ToPeer};
use super::relay::JOBS;
use super::world::{Event, World};
use crate::queue::command::Who;
use crate::queue::record::{EndReason, Record};

#[derive(Debug)]
pub(super) struct Client {
    pub queue: usize,
    socket: Option<usize>,
    /// What waits for its acknowledgement, with the time at which it was first said.
    open: BTreeMap<u64, (i64, Frame)>,
    count: u64,
    /// By socket and job, the newest that it was shown.
    shown: BTreeMap<(usize, JobId), u64>,
}

impl Client {
    pub(super) fn new(queue: usize) -> Self {
        Self { queue, socket: None, open: BTreeMap::new(), count: 0, shown: BTreeMap::new() }
    }

    pub(super) fn is_content(&self) -> bool {
        self.open.is_empty()
    }
}

impl World {
    pub(super) fn client_ticks(&mut self, number: usize) {
        match self.clients[number].socket {
            Some(socket) if !self.clients[number].open.is_empty() => {
                // No answer for long: the socket is as good as gone.
                let oldest =
                    self.clients[number].open.values().map(|(since, _)| *since).min().unwrap_or(self.now);
                if self.now - oldest > 15_000 && self.chance.permille(300) {
                    self.clients[number].socket = None;
                    self.closed_by_peer(socket);
                    return self.after(10, Event::ClientTick(number));
                }
            }
            Some(_) => {}
            None => self.client_connects(number),
        }
        let next = self.chance.between(3_000, 5_000);
        self.after(next, Event::ClientTick(number));
    }

    fn client_connects(&mut self, number: usize) {
        let queue = self.clients[number].queue;
        let Some(socket) = self.connect(Peer::Client(number), queue) else { return };
        self.clients[number].socket = Some(socket);
        for job in JOBS {
            self.say(socket, Frame::Watch(JobId::new(job).expect("a name")));
        }
        let again: Vec<Frame> = self.clients[number].open.values().map(|(_, frame)| frame.clone()).collect();
        for frame in again {
            self.say(socket, frame);
        }
    }

    pub(super) fn client_loses(&mut self, number: usize, socket: usize) {
        if self.clients[number].socket == Some(socket) {
            self.clients[number].socket = None;
        }
    }

    pub(super) fn client_acts(&mut self, number: usize) {
        let request = self.clients[number].count + 1;
        self.clients[number].count = request;
        // Mostly the same job, so that much happens to it.
        let job = if self.chance.permille(600) { JOBS[0] } else { self.chance.pick(&JOBS) };
        let job = JobId::new(job).expect("a name");
        let name = self.chance.pick(&["_", "_", "n", "m"]);
        let namespace = Namespace::new(name).expect("a name");
        let frame = match self.chance.below(100) {
            0..70 => {
                let rerun = self.chance.permille(350).then_some(Rerun::Any);
                let priority = self.chance.pick(&[0, 0, 5]);
                Frame::Submit { request, job, namespace, priority, rerun }
            }
            other => {
                let which = if self.chance.permille(500) {
                    NamespaceSelector::All
                } else {
                    NamespaceSelector::One(namespace)
                };
                let why = if other < 88 { EndReason::Cancelled } else { EndReason::Deleted };
                Frame::LetGo { request, job, why, who: Who::These(which) }
            }
        };
        self.tell(|| format!("client {number} says {frame:?}"));
        self.clients[number].open.insert(request, (self.now, frame.clone()));
        if let Some(socket) = self.clients[number].socket {
            self.say(socket, frame);
        }
    }

    pub(super) fn client_hears(&mut self, number: usize, socket: usize, message: ToPeer) {
        match message {
            ToPeer::Done(request, Some(_)) => {
                let queue = self.clients[number].queue;
                if let Some((since, frame)) = self.clients[number].open.remove(&request) {
                    self.tell(|| format!("client {number} is told that {request} is done"));
                    self.check_acknowledged(queue, since, &frame);
                }
            }
            ToPeer::Done(request, None) => {
                let open = self.clients[number].open.get(&request).cloned();
                let again = self.clients[number].socket.filter(|_| self.is_trouble() || self.store.up);
                if let (Some((_, frame)), Some(socket)) = (open, again) {
                    self.say(socket, frame);
                }
            }
            ToPeer::Shown { job, revision, record } => {
                self.client_sees(number, socket, &job, revision, record.as_deref())
            }
            _ => {}
        }
    }

    fn client_sees(
        &mut self,
        number: usize,
        socket: usize,
        job: &JobId,
        revision: u64,
        record: Option<&Record>,
    ) {
        let queue = self.clients[number].queue;
        let newest = self.clients[number].shown.insert((socket, job.clone()), revision).unwrap_or(0);
        if revision < newest {
            self.breaks(4, || format!("client {number} saw {job} at {revision} after {newest}"));
        }
        self.check_seen(queue, job, revision, record);
    }
}
