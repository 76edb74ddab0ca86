//! The world of one schedule: what there is, what is to happen and when, and the loop that lets it happen.
//!
//! Nothing here is concurrent: events are dealt with one by one in the order of their times, and whatever is left to
//! chance comes of the seed. So a schedule is its seed.

use std::collections::BTreeMap;
use std::rc::Rc;

use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};

use super::chance::Chance;
use super::client::Client;
use super::invariants::Observer;
use super::network::{Frame, Socket, ToPeer};
use super::old_worker::OldWorker;
use super::relay::Relay;
use super::store::{Answer, Request, SimStore};
use super::worker::Worker;
use crate::queue::command::Ids;

/// The second one is another trust domain: what happens there must not be seen in the first.
pub(super) const QUEUES: usize = 2;

/// What happens at some time.
#[derive(Debug)]
pub(super) enum Event {
    ToStore {
        relay: usize,
        life: u32,
        task: Option<u64>,
        request: Request,
    },
    Sync,
    FromStore {
        relay: usize,
        life: u32,
        task: u64,
        answer: Answer,
    },
    StoreCrash,
    StoreBack,
    Sweep {
        relay: usize,
        life: u32,
    },
    Tick {
        relay: usize,
        life: u32,
    },
    RelayCrash(usize),
    RelayBack(usize),
    /// A commit of another relay, as the store tells it.
    News {
        relay: usize,
        life: u32,
        news: Rc<Vec<super::relay::News>>,
    },
    ToRelay {
        socket: usize,
        frame: Frame,
    },
    ToPeer {
        socket: usize,
        message: ToPeer,
    },
    /// One side notices that the socket is gone.
    RelaySideCloses(usize),
    PeerSideCloses(usize),
    Cut(usize),
    WorkerTick(usize),
    WorkerCrash(usize),
    RunEnds {
        worker: usize,
        lease: LeaseId,
    },
    OldTick(usize),
    OldCrash(usize),
    OldRunEnds {
        worker: usize,
        job: JobId,
        number: u64,
    },
    Act(usize),
    ClientTick(usize),
}

/// Ids that count.
#[derive(Debug, Default)]
pub(super) struct Counting(u64);

impl Ids for Counting {
    fn nonce(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn lease(&mut self) -> LeaseId {
        self.0 += 1;
        LeaseId::new(format!("l{}", self.0)).expect("a name")
    }
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    /// Of `jobs-and-states` 9.
    pub invariant: u8,
    pub text: String,
}

/// What kind of schedule it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub relays: usize,
    /// Until then things go wrong and clients act.
    pub trouble_until: i64,
    pub shared_results: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub kind: Kind,
    pub now: i64,
    count: u64,
    events: BTreeMap<(i64, u64), Event>,
    pub chance: Chance,
    pub ids: Counting,
    pub store: SimStore,
    pub batch: Vec<(usize, u32, Option<u64>, Request)>,
    pub relays: Vec<Relay>,
    pub sockets: Vec<Socket>,
    pub workers: Vec<Worker>,
    pub old_workers: Vec<OldWorker>,
    pub clients: Vec<Client>,
    /// On which socket each session of a worker was.
    pub sessions: BTreeMap<(usize, WorkerId, u64), usize>,
    pub observer: Observer,
    pub broken: Option<Broken>,
    pub steps: usize,
    /// What happened, when somebody wants to read it.
    pub story: Option<Vec<String>>,
}

/// So long nothing more may be under way before all counts as settled.
const QUIET: i64 = 10_000;

/// The longest that anything takes on its way.
pub(super) const SLOWEST: i64 = 6_000;

/// When every world begins.
pub(super) const START: i64 = 1_000_000_000;

impl World {
    pub(super) fn new(seed: u64, tell: bool) -> Self {
        let mut chance = Chance::new(seed);
        let kind = Kind {
            relays: if chance.permille(250) { 1 } else { 2 },
            trouble_until: START + chance.pick(&[2_000, 8_000, 20_000, 60_000]),
            shared_results: chance.permille(800),
        };
        let encodes = chance.permille(40);
        let mut world = Self {
            kind,
            now: START,
            count: 0,
            events: BTreeMap::new(),
            chance,
            ids: Counting::default(),
            store: SimStore::new(encodes),
            batch: Vec::new(),
            relays: (0..kind.relays).map(|_| Relay::new(START)).collect(),
            sockets: Vec::new(),
            workers: Vec::new(),
            old_workers: Vec::new(),
            clients: Vec::new(),
            sessions: BTreeMap::new(),
            observer: Observer::default(),
            broken: None,
            steps: 0,
            story: tell.then(Vec::new),
        };
        for relay in 0..kind.relays {
            world.start_relay(relay);
        }
        for number in 0..2 {
            // Somebody serves the first queue; the others are anywhere.
            let queue = if number == 0 { 0 } else { world.chance.below(QUEUES) };
            world.workers.push(Worker::new(number, queue, world.chance.pick(&[1.0, 2.0])));
            world.after(number as i64, Event::WorkerTick(number));
        }
        for number in 0..2 {
            let queue = world.chance.below(QUEUES);
            let is_there = world.chance.permille(700);
            world.old_workers.push(OldWorker::new(number, queue, is_there));
            if is_there {
                world.after(1, Event::OldTick(number));
            }
        }
        for number in 0..3 {
            let queue = if number < 2 { 0 } else { 1 };
            world.clients.push(Client::new(queue));
            world.after(2, Event::ClientTick(number));
        }
        world.plan_trouble();
        world
    }

    /// Crashes and cuts, at times of the seed's choice.
    fn plan_trouble(&mut self) {
        let span = self.kind.trouble_until - self.now;
        for _ in 0..self.chance.below(5) {
            let at = self.chance.between(0, span);
            let event = match self.chance.below(8) {
                0 => Event::StoreCrash,
                1 | 2 => Event::RelayCrash(self.chance.below(self.kind.relays)),
                3 => Event::WorkerCrash(self.chance.below(2)),
                4 => Event::OldCrash(self.chance.below(2)),
                _ => Event::Cut(self.chance.below(12)),
            };
            self.after(at, event);
        }
        for _ in 0..2 + self.chance.below(10) {
            let at = self.chance.between(0, span);
            let client = self.chance.below(3);
            self.after(at, Event::Act(client));
        }
    }

    pub(super) fn is_trouble(&self) -> bool {
        self.now < self.kind.trouble_until
    }

    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    pub(super) fn after(&mut self, millis: i64, event: Event) {
        self.at(self.now + millis, event);
    }

    pub(super) fn at(&mut self, at: i64, event: Event) {
        self.count += 1;
        self.events.insert((at.max(self.now), self.count), event);
    }

    /// How long something takes on its way.
    pub(super) fn latency(&mut self) -> i64 {
        if !self.is_trouble() {
            return self.chance.between(1, 10);
        }
        match self.chance.below(100) {
            0..85 => self.chance.between(1, 20),
            85..97 => self.chance.between(20, 500),
            _ => self.chance.between(500, SLOWEST),
        }
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        let now = self.now - START;
        if let Some(story) = &mut self.story {
            story.push(format!("{now:>7} {}", text()));
        }
    }

    pub(super) fn breaks(&mut self, invariant: u8, text: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let text = text();
            self.tell(|| format!("BROKEN {invariant}: {text}"));
            self.broken = Some(Broken { invariant, text });
        }
    }

    /// Until everything is settled, or a promise is broken.
    pub(super) fn run(&mut self) {
        let mut quiet = None;
        let patience = self.kind.trouble_until + 400_000;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.steps += 1;
            if self.now > self.kind.trouble_until {
                // What follows from the last change has its time too.
                quiet = self.is_settled().then(|| quiet.unwrap_or(at));
                if quiet.is_some_and(|since| at - since > QUIET) {
                    break;
                }
            }
            if self.now > patience {
                break;
            }
            self.happen(event);
            if self.broken.is_some() {
                return;
            }
        }
        self.check_end();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToStore { relay, life, task, request } => self.store_hears(relay, life, task, request),
            Event::Sync => self.store_syncs(),
            Event::FromStore { relay, life, task, answer } => {
                if self.relays[relay].life == life {
                    self.relay_hears(relay, task, answer);
                }
            }
            Event::StoreCrash => self.store_crashes(),
            Event::StoreBack => {
                self.tell(|| "the store is back".to_owned());
                self.store.up = true;
            }
            Event::Sweep { relay, life } if self.relays[relay].life == life => self.sweep(relay),
            Event::Tick { relay, life } if self.relays[relay].life == life => self.relay_ticks(relay),
            Event::News { relay, life, news } if self.relays[relay].life == life => {
                self.relay_learns(relay, &news);
            }
            Event::Sweep { .. } | Event::Tick { .. } | Event::News { .. } => {}
            Event::RelayCrash(relay) => self.relay_crashes(relay),
            Event::RelayBack(relay) => {
                self.tell(|| format!("relay {relay} is back"));
                self.start_relay(relay);
            }
            Event::ToRelay { socket, frame } => self.frame_arrives(socket, frame),
            Event::ToPeer { socket, message } => self.message_arrives(socket, message),
            Event::RelaySideCloses(socket) => self.relay_side_closes(socket),
            Event::PeerSideCloses(socket) => self.peer_side_closes(socket),
            Event::Cut(number) => self.cut(number),
            Event::WorkerTick(worker) => self.worker_ticks(worker),
            Event::WorkerCrash(worker) => self.worker_crashes(worker),
            Event::RunEnds { worker, lease } => self.run_ends(worker, &lease),
            Event::OldTick(worker) => self.old_worker_ticks(worker),
            Event::OldCrash(worker) => self.old_worker_crashes(worker),
            Event::OldRunEnds { worker, job, number } => self.old_run_ends(worker, &job, number),
            Event::Act(client) => self.client_acts(client),
            Event::ClientTick(client) => self.client_ticks(client),
        }
    }
}
