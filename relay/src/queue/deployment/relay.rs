//! A relay: the real core, cache, matching and commits within a shell that holds no thread and no socket.
//!
//! The shell keeps the contract of `queue::service`: load what the core needs, decide, commit by compare-and-set,
//! decide anew on a conflict, then perform the effects. It may die at any point between two events. What several
//! relays of one store need besides is left out where one is alone: comparing what a decision only read, news of
//! the others' commits, reading again what may have been missed.

mod background;
mod commands;
mod frames;
mod news;
mod telling;

use std::collections::BTreeMap;
use std::rc::Rc;

use dockframe_shared::job::Rerun;
use dockframe_shared::protocol::DeclineRetry;
use dockframe_shared::{InstanceId, JobId, LeaseId, Timestamp, WorkerId};

use super::network::{Frame, ToPeer};
use super::store::{Answer, Request, Truth, digest};
use super::world::{Event, QUEUES, World};
use crate::queue::cache::{Cache, Looked, Sight};
use crate::queue::command::{
    Command, Decision, Due, DueKind, Effect, Ending, Reply, SharedAnswer, Submit, Write,
};
use crate::queue::derive;
use crate::queue::record::{Holder, Lease, Needs, Outcome, Phase, Record, Source};
use crate::queue::service::SharedRecord;
use crate::queue::timing;
use crate::queue::view::{Entry, Key, Need, Versioned};
use crate::store::{Commit, Committed, DocumentKey, DueEntry, StoreWrite, Stored};

#[derive(Debug)]
pub(super) struct Relay {
    pub is_up: bool,
    /// Counts its starts: what belongs to an earlier one is void.
    pub life: u32,
    pub queues: Vec<Option<OpenQueue>>,
    tasks: BTreeMap<u64, Task>,
    last_task: u64,
    healthy_since: i64,
    last_sweep: i64,
    sweep: Option<Sweep>,
    /// How many changes of records each queue had when it was last read anew.
    counts: [u64; QUEUES],
}

#[derive(Debug)]
struct Sweep {
    left: usize,
    failed: bool,
}

#[derive(Debug, Default)]
pub(super) struct OpenQueue {
    pub cache: Cache,
    pub leases: BTreeMap<WorkerId, Standing>,
    pub old: BTreeMap<usize, (WorkerId, u64)>,
    watchers: BTreeMap<JobId, Vec<usize>>,
    declines: BTreeMap<(JobId, WorkerId), (InstanceId, Option<i64>)>,
    /// Who did not accept, and until when others come first.
    unheard: BTreeMap<(JobId, WorkerId), (InstanceId, i64)>,
    granting: usize,
    grant_again: bool,
}

/// A worker with leases on the socket that stands for it.
#[derive(Debug)]
pub(super) struct Standing {
    pub socket: usize,
    instance: InstanceId,
    session: u64,
    cpus: f64,
    full: bool,
}

/// What has to be done once a queue is open.
#[derive(Debug)]
enum Input {
    Frame(usize, Frame),
    Due(DueEntry),
}

#[derive(Debug)]
enum Task {
    Command(Box<Doing>),
    Open {
        queue: usize,
        waiting: Vec<Input>,
    },
    /// What is live is read anew; `known` was there when that was asked for.
    Refresh {
        queue: usize,
        known: BTreeMap<JobId, u64>,
        then: Option<Box<Doing>>,
    },
    Sweep,
    Submit {
        queue: usize,
        socket: usize,
        request: u64,
        submit: Box<Submit>,
        documents: Vec<(DocumentKey, Vec<u8>)>,
    },
    Unshare {
        run: LeaseId,
    },
    ShareRead {
        queue: usize,
        due: Due,
    },
    /// What stands is compared with what is to stand.
    ShareCompare {
        queue: usize,
        due: Due,
        offer: Option<Offer>,
    },
    ShareRemove {
        queue: usize,
        due: Due,
        offer: Option<Offer>,
    },
    ShareSet {
        queue: usize,
        job: JobId,
        revision: u64,
        entry: Rc<Entry>,
    },
    Forget,
    /// What was kept of a run is to go, unless there is a result.
    DropRun(LeaseId),
    Quiet,
    Show {
        job: JobId,
        socket: usize,
    },
}

/// A shared result as it is to stand.
#[derive(Debug)]
struct Offer {
    key: DocumentKey,
    bytes: Vec<u8>,
    revision: u64,
    entry: Rc<Entry>,
}

/// A command on its way.
#[derive(Debug)]
struct Doing {
    queue: usize,
    command: Rc<Command>,
    why: Why,
    documents: Vec<(DocumentKey, Vec<u8>)>,
    done: Option<Due>,
    looked: Looked,
    is_fresh: bool,
    pending: Option<(Decision, Timestamp)>,
    /// What has to be compared before the decision counts, the first of it asked for.
    unsure: Vec<(Key, u64)>,
    is_outdated: bool,
    need: Option<Key>,
    tries: usize,
}

/// Who waits for it.
#[derive(Debug)]
enum Why {
    Client { socket: usize, request: u64 },
    Register { socket: usize, first: bool, cpus: f64, instance: InstanceId },
    OldRegister { socket: usize },
    Accept { socket: usize, lease: LeaseId },
    Decline { socket: usize, lease: LeaseId },
    Finish { socket: usize, lease: LeaseId },
    Claim { socket: usize },
    ClaimFinish { socket: usize, job: JobId, ending: Ending, document: Vec<u8> },
    Frame { socket: usize },
    Grant,
    Look { granted: Option<Lease> },
    Nobody,
}

impl Why {
    fn socket(&self) -> Option<usize> {
        match self {
            Self::Client { socket, .. }
            | Self::Register { socket, .. }
            | Self::OldRegister { socket }
            | Self::Accept { socket, .. }
            | Self::Decline { socket, .. }
            | Self::Finish { socket, .. }
            | Self::Claim { socket }
            | Self::ClaimFinish { socket, .. }
            | Self::Frame { socket } => Some(*socket),
            Self::Grant | Self::Look { .. } | Self::Nobody => None,
        }
    }
}

/// A write as other relays hear of it.
#[derive(Debug)]
pub(super) struct News {
    queue: usize,
    key: Key,
    revision: u64,
    entry: Option<Rc<Entry>>,
}

impl Relay {
    pub(super) fn new(now: i64) -> Self {
        Self {
            is_up: false,
            life: 0,
            queues: (0..QUEUES).map(|_| None).collect(),
            tasks: BTreeMap::new(),
            last_task: 0,
            healthy_since: now,
            last_sweep: now,
            sweep: None,
            counts: [0; QUEUES],
        }
    }

    fn add(&mut self, task: Task) -> u64 {
        self.last_task += 1;
        self.tasks.insert(self.last_task, task);
        self.last_task
    }
}

/// How many definitions there are to choose from, what they want, and which has an id of a client's own.
pub(super) const JOBS: [&str; 4] = ["a", "b", "c", "own"];

pub(super) fn needs_of(job: &JobId) -> Needs {
    Needs { cpus: (job.as_str() == "b").then_some(2.0), ..Needs::default() }
}

pub(super) fn is_verified(job: &JobId) -> bool {
    job.as_str() != "own"
}

pub(super) fn definition_key(queue: usize, job: &JobId) -> DocumentKey {
    if is_verified(job) {
        DocumentKey::Definition(job.clone())
    } else {
        DocumentKey::OwnDefinition(digest(queue), job.clone())
    }
}

fn is_live(entry: Option<&Entry>, now: Timestamp) -> bool {
    match entry {
        Some(Entry::Record(record)) => record.is_live(now),
        Some(Entry::Slot(_) | Entry::Worker(_)) => true,
        Some(Entry::Run(_)) | None => false,
    }
}

impl World {
    pub(super) fn is_alone(&self) -> bool {
        self.kind.relays == 1
    }

    pub(super) fn start_relay(&mut self, relay: usize) {
        let life = self.relays[relay].life + 1;
        self.relays[relay] = Relay { is_up: true, life, ..Relay::new(self.now) };
        let first = self.chance.between(100, 1_000);
        self.after(first, Event::Sweep { relay, life });
        self.after(first, Event::Tick { relay, life });
    }

    pub(super) fn relay_crashes(&mut self, relay: usize) {
        if !self.relays[relay].is_up {
            return;
        }
        if self.is_alone() {
            return self.store_crashes();
        }
        self.relay_dies(relay);
    }

    pub(super) fn relay_dies(&mut self, relay: usize) {
        if !self.relays[relay].is_up {
            return;
        }
        self.tell(|| format!("relay {relay} crashes"));
        let life = self.relays[relay].life;
        self.relays[relay] = Relay { life: life + 1, ..Relay::new(self.now) };
        let dead = self.sockets.iter().enumerate().filter(|(_, s)| s.relay == relay && s.life == life);
        let dead: Vec<usize> = dead.filter(|(_, s)| s.relay_side).map(|(number, _)| number).collect();
        for socket in dead {
            self.closed_by_relay(socket);
        }
        let away = self.chance.pick(&[50, 1_000, 5_000, 40_000]);
        self.after(away, Event::RelayBack(relay));
    }

    pub(super) fn relay_side_closes(&mut self, socket: usize) {
        if !std::mem::replace(&mut self.sockets[socket].relay_side, false) {
            return;
        }
        let (relay, queue) = (self.sockets[socket].relay, self.sockets[socket].queue);
        if self.relays[relay].life != self.sockets[socket].life {
            return;
        }
        let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
        for watchers in open.watchers.values_mut() {
            watchers.retain(|watcher| *watcher != socket);
        }
        let command = if let Some(worker) = open.old.remove(&socket) {
            let (worker, session) = worker;
            let other = open.old.values_mut().find(|(other, _)| *other == worker);
            match other {
                Some((_, newest)) => {
                    *newest = session.max(*newest);
                    None
                }
                None => {
                    // It was on another relay since, and may be there still, as that one tells.
                    let newest = match self.store.entry(queue, &Key::Worker(worker.clone())) {
                        Some(Entry::Worker(known)) => known.session.max(session),
                        _ => session,
                    };
                    let on = self.sessions.get(&(queue, worker.clone(), newest)).copied();
                    // Not known yet: the other relay is about to tell.
                    let lives_on = on.is_none_or(|on| on != socket && self.sockets[on].relay_side);
                    (!lives_on).then_some(Command::Closed { worker, session: newest })
                }
            }
        } else {
            let standing = open.leases.iter().find(|(_, standing)| standing.socket == socket);
            let closed = standing.map(|(worker, standing)| (worker.clone(), standing.session));
            closed.map(|(worker, session)| {
                open.leases.remove(&worker);
                Command::Closed { worker, session }
            })
        };
        if let Some(command) = command {
            self.command(relay, queue, command, Why::Nobody);
        }
    }
}
