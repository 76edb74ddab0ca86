//! A command on its way: load what the core needs, decide, compare, commit, decide anew.

use std::convert::Infallible;

use super::*;
use crate::queue::deployment::guards::{self, Guard};

impl World {
    pub(super) fn command(&mut self, relay: usize, queue: usize, command: Command, why: Why) {
        self.command_with(relay, queue, command, why, Vec::new(), None);
    }

    pub(super) fn command_with(
        &mut self,
        relay: usize,
        queue: usize,
        command: Command,
        why: Why,
        documents: Vec<(DocumentKey, Vec<u8>)>,
        done: Option<Due>,
    ) {
        let mut doing = Doing::new(queue, command, why, documents, done);
        // Who comes to this relay may have been at another one a moment ago.
        let is_first = matches!(doing.why, Why::Register { first: true, .. });
        doing.is_fresh = self.is_alone();
        if is_first && !doing.is_fresh {
            return self.refresh(relay, queue, Some(Box::new(doing)));
        }
        self.start(relay, doing);
    }

    pub(super) fn start(&mut self, relay: usize, doing: Doing) {
        let task = self.relays[relay].add(Task::Quiet);
        self.step(relay, task, Box::new(doing));
    }

    /// Decides, and asks the store for what comes next.
    pub(super) fn step(&mut self, relay: usize, task: u64, mut doing: Box<Doing>) {
        let now = self.time();
        let queue = doing.queue;
        doing.tries += 1;
        if doing.tries > 200 {
            return self.breaks(9, || format!("a command was overtaken 200 times: {:?}", doing.command));
        }
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        let sight = Sight { cache: &open.cache, looked: &doing.looked };
        let decision = match crate::queue::apply(&sight, &doing.command, now, &mut self.ids) {
            Ok(decision) => decision,
            Err(Need(key)) => {
                doing.need = Some(key.clone());
                self.relays[relay].tasks.insert(task, Task::Command(doing));
                return self.ask(relay, task, Request::Read(queue, key));
            }
        };
        let may_be_outdated = !self.is_alone() || matches!(*doing.command, Command::Look { .. });
        if may_be_outdated && decision.hangs_on_reads(&doing.command) && !decision.reads.is_empty() {
            doing.unsure = decision.reads.clone();
            doing.is_outdated = false;
            doing.pending = Some((decision, now));
            let request = Request::Read(queue, doing.unsure[0].0.clone());
            self.relays[relay].tasks.insert(task, Task::Command(doing));
            return self.ask(relay, task, request);
        }
        self.propose(relay, task, doing, decision, now);
    }

    /// The decision is made on what is there: it is committed, if it changes anything.
    pub(super) fn propose(
        &mut self,
        relay: usize,
        task: u64,
        mut doing: Box<Doing>,
        decision: Decision,
        now: Timestamp,
    ) {
        let queue = doing.queue;
        if decision.writes.is_empty() && decision.due.is_empty() && doing.done.is_none() {
            self.relays[relay].tasks.remove(&task);
            return self.decided(relay, &mut doing, decision, now);
        }
        let commit = self.commit_of(queue, now, &decision, &doing);
        let request = Request::Commit(Rc::new(commit), Some(Rc::clone(&doing.command)));
        doing.pending = Some((decision, now));
        self.relays[relay].tasks.insert(task, Task::Command(doing));
        self.ask(relay, task, request);
    }

    pub(super) fn commit_of(
        &mut self,
        queue: usize,
        at: Timestamp,
        decision: &Decision,
        doing: &Doing,
    ) -> Commit {
        let encoded =
            Commit::of(digest(queue), at, decision, |entry| Ok::<_, Infallible>(self.store.encode(entry)));
        let Ok(mut commit) = encoded;
        for (job, record) in decision.shared() {
            commit.offers.extend(self.offer(queue, job, record));
        }
        commit.done.extend(doing.done.clone());
        commit.documents.clone_from(&doing.documents);
        commit
    }

    pub(super) fn offer(
        &mut self,
        queue: usize,
        job: &JobId,
        record: &Record,
    ) -> Option<(DocumentKey, Vec<u8>)> {
        let Phase::Done(outcome) = &record.phase else { return None };
        let Source::Run(run) = &outcome.source else { return None };
        let shared = SharedRecord {
            verified: record.verified,
            run: run.clone(),
            queue: *digest(queue).as_bytes(),
            record: record.clone(),
        };
        Some((DocumentKey::Shared(job.clone()), self.store.encode_shared(&shared)))
    }

    /// It is true now, or changes nothing.
    pub(super) fn decided(&mut self, relay: usize, doing: &mut Doing, decision: Decision, now: Timestamp) {
        let Decision { writes, effects, reply, .. } = decision;
        let queue = doing.queue;
        if let Some(open) = self.relays[relay].queues[queue].as_mut() {
            for Write { key, expected, revision, entry, live } in writes {
                if expected > 0 || entry.is_some() {
                    open.cache.put(&key, revision, entry, live, now);
                }
            }
        }
        self.perform(relay, queue, effects);
        self.conclude(relay, doing, Some(reply));
    }

    pub(super) fn learn(
        &mut self,
        relay: usize,
        queue: usize,
        key: Key,
        stored: Option<Stored>,
        looked: &mut Looked,
    ) {
        let now = self.time();
        let found = self.versioned(&key, stored);
        match &found {
            Some(Versioned { revision, value }) => {
                let live = is_live(Some(value), now);
                self.absorb(relay, queue, &key, *revision, Some(value.clone()), live);
            }
            None => {
                if let Some(open) = self.relays[relay].queues[queue].as_mut() {
                    open.cache.forget(&key);
                }
            }
        }
        looked.insert(key, found);
    }

    pub(super) fn versioned(&self, key: &Key, stored: Option<Stored>) -> Option<Versioned<Entry>> {
        stored.map(|stored| {
            let value = Entry::clone(&self.store.decode(key, &stored.bytes));
            Versioned { revision: stored.revision, value }
        })
    }

    /// Another task wrote this, or another relay: then what follows from it is done here.
    pub(super) fn absorb(
        &mut self,
        relay: usize,
        queue: usize,
        key: &Key,
        revision: u64,
        entry: Option<Entry>,
        live: bool,
    ) {
        let now = self.time();
        let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
        let mut superseded = None;
        if let (Key::Worker(worker), Some(Entry::Worker(known))) = (key, &entry) {
            let standing = open.leases.get(worker).filter(|standing| standing.session < known.session);
            superseded = standing.map(|standing| standing.socket);
        }
        let mut effects = Vec::new();
        match key {
            Key::Record(job) => {
                let before = open.cache.record(job).map(|known| (known.revision, known.value.clone()));
                let after = match &entry {
                    Some(Entry::Record(record)) => Some((**record).clone()),
                    _ => None,
                };
                let is_news = open.cache.put(key, revision, entry, live, now);
                if is_news && before.as_ref().is_none_or(|(known, _)| *known != revision) {
                    effects = derive::effects(job, before.as_ref().map(|(_, record)| record), after.as_ref());
                }
            }
            Key::Slot(_) | Key::Worker(_) | Key::Run(_) => {
                open.cache.put(key, revision, entry, live, now);
            }
        }
        if self.is_alone() {
            return;
        }
        if let Some(socket) = superseded.filter(|socket| self.sockets[*socket].relay_side) {
            self.closed_by_relay(socket);
        }
        self.perform(relay, queue, effects);
    }

    pub(in crate::queue::deployment) fn relay_hears(&mut self, relay: usize, task: u64, answer: Answer) {
        let Some(waiting) = self.relays[relay].tasks.remove(&task) else { return };
        match waiting {
            Task::Command(doing) => self.command_hears(relay, task, doing, answer),
            Task::Open { queue, waiting } => {
                let Answer::Live(live) = answer else {
                    return waiting.into_iter().for_each(|input| self.give_up(relay, &input));
                };
                self.relays[relay].queues[queue] = Some(OpenQueue::default());
                // News that came while it was read went by.
                self.relays[relay].counts[queue] = u64::MAX;
                self.take_live(relay, queue, live, &BTreeMap::new());
                for input in waiting {
                    self.input(relay, queue, input);
                }
            }
            Task::Refresh { queue, known, then } => match (answer, then) {
                (Answer::Live(live), then) => {
                    self.take_live(relay, queue, live, &known);
                    if let Some(mut doing) = then {
                        doing.is_fresh = true;
                        self.resume(relay, doing);
                    }
                }
                (_, then) => {
                    // The doubt stays.
                    self.relays[relay].counts[queue] = u64::MAX;
                    if let Some(mut doing) = then {
                        self.conclude(relay, &mut doing, None);
                    }
                }
            },
            Task::Sweep => match answer {
                Answer::Due(entries) if !entries.is_empty() => {
                    self.relays[relay].sweep = Some(Sweep { left: entries.len(), failed: false });
                    for entry in entries {
                        let queue = self.store.queue_of(entry.queue);
                        self.input(relay, queue, Input::Due(entry));
                    }
                }
                Answer::Due(_) => self.swept(relay, true),
                _ => self.swept(relay, false),
            },
            Task::Submit { queue, socket, request, mut submit, documents } => {
                let Answer::Document(bytes) = answer else {
                    self.answer(socket, ToPeer::Done(request, None));
                    return self.frame_done(socket);
                };
                submit.shared = bytes.and_then(|bytes| self.shared_answer(queue, &bytes));
                let why = Why::Client { socket, request };
                self.command_with(relay, queue, Command::Submit(submit), why, documents, None);
            }
            Task::Unshare { run } => {
                let Answer::Document(Some(bytes)) = answer else { return };
                let shared = self.store.decode_shared(&bytes);
                if shared.run == run {
                    let job = self.observer.job_of_run(&run);
                    let task = self.relays[relay].add(Task::Quiet);
                    self.ask(relay, task, Request::Remove(DocumentKey::Shared(job), Some(bytes)));
                }
            }
            Task::ShareRead { queue, due } => {
                let Answer::Read(found) = answer else { return self.stepped(relay, false) };
                let key = Key::Record(due.job.clone());
                let entry = found.map(|stored| (stored.revision, self.store.decode(&key, &stored.bytes)));
                let offer = entry.and_then(|(revision, entry)| {
                    let Entry::Record(record) = &*entry else { return None };
                    let (key, bytes) = self.offer(queue, &due.job, record)?;
                    Some(Offer { key, bytes, revision, entry })
                });
                let key = DocumentKey::Shared(due.job.clone());
                let task = self.relays[relay].add(Task::ShareCompare { queue, due, offer });
                self.ask(relay, task, Request::Document(key));
            }
            Task::ShareCompare { queue, due, offer } => {
                let Answer::Document(found) = answer else { return self.stepped(relay, false) };
                let Some(bytes) = found else { return self.share_set(relay, queue, due, offer) };
                let standing = self.store.decode_shared(&bytes);
                let offered = offer.as_ref().map(|offer| self.store.decode_shared(&offer.bytes).run.clone());
                if standing.queue == *digest(queue).as_bytes() && offered.as_ref() != Some(&standing.run) {
                    let key = DocumentKey::Shared(due.job.clone());
                    let task = self.relays[relay].add(Task::ShareRemove { queue, due, offer });
                    self.ask(relay, task, Request::Remove(key, Some(bytes)));
                } else {
                    self.forget_due(relay, queue, due);
                }
            }
            Task::ShareRemove { queue, due, offer } => match answer {
                Answer::Done => self.share_set(relay, queue, due, offer),
                _ => self.stepped(relay, false),
            },
            Task::ShareSet { queue, job, revision, entry } => {
                let now = self.time();
                if matches!(answer, Answer::Committed(Committed::Ok))
                    && let Some(open) = self.relays[relay].queues[queue].as_mut()
                {
                    let live = is_live(Some(&entry), now);
                    open.cache.put(&Key::Record(job), revision, Some(Entry::clone(&entry)), live, now);
                }
                self.stepped(relay, matches!(answer, Answer::Committed(_)));
            }
            Task::Forget => self.stepped(relay, matches!(answer, Answer::Committed(_))),
            Task::DropRun(run) => {
                if matches!(answer, Answer::Document(None)) || !guards::stands(Guard::OthersResults) {
                    let task = self.relays[relay].add(Task::Quiet);
                    self.ask(relay, task, Request::Remove(DocumentKey::Result(run), None));
                }
            }
            Task::Quiet => {}
            Task::Show { job, socket } => {
                let Answer::Read(found) = answer else { return };
                let key = Key::Record(job.clone());
                let entry = found.map(|stored| (stored.revision, self.store.decode(&key, &stored.bytes)));
                if let Some((revision, entry)) = entry
                    && let Entry::Record(record) = &*entry
                {
                    self.show_record(&job, socket, revision, Record::clone(record));
                }
            }
        }
    }

    pub(super) fn give_up(&mut self, relay: usize, input: &Input) {
        match input {
            Input::Frame(socket, Frame::Submit { request, .. } | Frame::LetGo { request, .. }) => {
                self.answer(*socket, ToPeer::Done(*request, None));
                self.frame_done(*socket);
            }
            Input::Frame(socket, _) => self.frame_done(*socket),
            Input::Due(_) => self.stepped(relay, false),
        }
    }

    /// After a refresh.
    pub(super) fn resume(&mut self, relay: usize, doing: Box<Doing>) {
        let Doing { queue, why, command, .. } = *doing;
        match (why, &*command) {
            (Why::ClaimFinish { socket, job, ending, document }, Command::ClaimFinish { worker, .. }) => {
                self.claim_finish(relay, queue, socket, worker.clone(), job, ending, document, true);
            }
            (why, _) => {
                let doing = Doing { why, command, looked: Looked::new(), ..*doing };
                self.start(relay, doing);
            }
        }
    }

    pub(super) fn command_hears(&mut self, relay: usize, task: u64, mut doing: Box<Doing>, answer: Answer) {
        let queue = doing.queue;
        match (answer, doing.pending.take()) {
            (Answer::Read(stored), None) => {
                let key = doing.need.take().expect("what was asked for");
                let found = self.versioned(&key, stored);
                doing.looked.insert(key, found);
                self.step(relay, task, doing);
            }
            (Answer::Read(stored), Some((decision, now))) => {
                let (key, revision) = doing.unsure.remove(0);
                if stored.as_ref().map_or(0, |stored| stored.revision) != revision {
                    doing.is_outdated = true;
                    let mut looked = std::mem::take(&mut doing.looked);
                    self.learn(relay, queue, key, stored, &mut looked);
                    doing.looked = looked;
                }
                match doing.unsure.first() {
                    Some((key, _)) => {
                        let request = Request::Read(queue, key.clone());
                        doing.pending = Some((decision, now));
                        self.relays[relay].tasks.insert(task, Task::Command(doing));
                        self.ask(relay, task, request);
                    }
                    None if doing.is_outdated => self.step(relay, task, doing),
                    None => self.propose(relay, task, doing, decision, now),
                }
            }
            (Answer::Committed(Committed::Ok), Some((decision, now))) => {
                self.decided(relay, &mut doing, decision, now);
            }
            (Answer::Committed(Committed::Conflict(fresh)), Some(_)) => {
                let mut looked = std::mem::take(&mut doing.looked);
                for (key, stored) in fresh {
                    self.learn(relay, queue, key, stored, &mut looked);
                }
                doing.looked = looked;
                self.step(relay, task, doing);
            }
            _ => {
                self.conclude(relay, &mut doing, None);
                // It may have been made all the same.
                if !self.is_alone() {
                    self.refresh(relay, queue, None);
                }
            }
        }
    }
}

impl Doing {
    pub(super) fn new(
        queue: usize,
        command: Command,
        why: Why,
        documents: Vec<(DocumentKey, Vec<u8>)>,
        done: Option<Due>,
    ) -> Self {
        Self {
            queue,
            command: Rc::new(command),
            why,
            documents,
            done,
            looked: Looked::new(),
            is_fresh: false,
            pending: None,
            unsure: Vec::new(),
            is_outdated: false,
            need: None,
            tries: 0,
        }
    }
}
