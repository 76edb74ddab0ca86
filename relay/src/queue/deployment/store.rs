//! A store that keeps its promises and nothing more: what it acknowledged is there, all else may be lost.
//!
//! Writes gather and become visible and durable together, as by a group commit. A crash before the sync leaves some
//! prefix of them; the write on which it fell may be torn as far as the contract of [`Commit`] allows: due entries
//! and documents before it, offers after it, itself whole or not at all. Requests and answers are lost, late and
//! repeated by the network around it (`network`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dockframe_shared::{QueueDigest, Timestamp};

use super::guards::{self, Guard};
use super::world::QUEUES;
use crate::queue::command::{Command, Due, DueKind};
use crate::queue::service::SharedRecord;
use crate::queue::view::{Entry, Key};
use crate::store::codec::{decode, decode_entry, encode, encode_entry};
use crate::store::{ANY_REVISION, Commit, Committed, DocumentKey, DueEntry, Stored};

/// What a relay asks.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// With the command that it came of, for those who check.
    Commit(Rc<Commit>, Option<Rc<Command>>),
    Read(usize, Key),
    Live(usize),
    Due(Timestamp),
    Document(DocumentKey),
    Remove(DocumentKey, Option<Vec<u8>>),
}

#[derive(Debug, Clone)]
pub(super) enum Answer {
    Committed(Committed),
    Read(Option<Stored>),
    Live(Vec<(Key, Stored)>),
    Due(Vec<DueEntry>),
    Document(Option<Vec<u8>>),
    Done,
    /// Nobody knows whether it was done.
    Failed,
}

/// One entry before and after a write.
#[derive(Debug)]
pub(super) struct Change {
    pub queue: usize,
    pub key: Key,
    pub revision: u64,
    pub before: Option<Rc<Entry>>,
    pub after: Option<Rc<Entry>>,
}

/// What became true.
#[derive(Debug)]
pub(super) enum Truth {
    Changed(Vec<Change>, Option<Rc<Command>>),
    Document { key: DocumentKey, before: Option<Vec<u8>>, after: Option<Vec<u8>> },
}

/// How far a write came before the crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Whole,
    /// What goes before the commit.
    Before,
    /// Without what goes after it.
    Itself,
}

#[derive(Debug, Default)]
pub(super) struct SimStore {
    pub entries: BTreeMap<(usize, Key), (u64, Rc<Entry>, bool)>,
    due: BTreeSet<(Timestamp, usize, DueKind, dockframe_shared::JobId)>,
    pub documents: BTreeMap<String, Vec<u8>>,
    pub up: bool,
    /// Changes of records, by queue.
    pub counts: [u64; QUEUES],
    /// Whether entries really go through their encoding: slow, so only in some schedules.
    pub encodes: bool,
    arena: Vec<Kept>,
    digests: Vec<QueueDigest>,
}

#[derive(Debug, Clone)]
enum Kept {
    Entry(Rc<Entry>),
    Shared(Rc<SharedRecord>),
}

impl SimStore {
    pub(super) fn new(encodes: bool) -> Self {
        let digests = (0..QUEUES).map(digest).collect();
        Self { up: true, encodes, digests, ..Self::default() }
    }

    pub(super) fn queue_of(&self, digest: QueueDigest) -> usize {
        self.digests.iter().position(|known| *known == digest).expect("a queue of this world")
    }

    fn keep(&mut self, kept: Kept) -> Vec<u8> {
        self.arena.push(kept);
        (self.arena.len() as u64 - 1).to_be_bytes().to_vec()
    }

    fn kept(&self, bytes: &[u8]) -> &Kept {
        let number = u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        &self.arena[usize::try_from(number).expect("a number of the arena")]
    }

    pub(super) fn encode(&mut self, entry: &Entry) -> Vec<u8> {
        if self.encodes {
            encode_entry(entry).expect("entries can be written")
        } else {
            self.keep(Kept::Entry(Rc::new(entry.clone())))
        }
    }

    pub(super) fn decode(&self, key: &Key, bytes: &[u8]) -> Rc<Entry> {
        if self.encodes {
            return Rc::new(decode_entry(key, bytes).expect("entries can be read"));
        }
        match self.kept(bytes) {
            Kept::Entry(entry) => Rc::clone(entry),
            Kept::Shared(_) => unreachable!("an entry was kept here"),
        }
    }

    pub(super) fn encode_shared(&mut self, shared: &SharedRecord) -> Vec<u8> {
        if self.encodes {
            encode(shared).expect("shared results can be written")
        } else {
            self.keep(Kept::Shared(Rc::new(shared.clone())))
        }
    }

    pub(super) fn decode_shared(&self, bytes: &[u8]) -> Rc<SharedRecord> {
        if self.encodes {
            return Rc::new(decode(bytes).expect("shared results can be read"));
        }
        match self.kept(bytes) {
            Kept::Shared(shared) => Rc::clone(shared),
            Kept::Entry(_) => unreachable!("a shared result was kept here"),
        }
    }

    pub(super) fn entry(&self, queue: usize, key: &Key) -> Option<&Entry> {
        self.entries.get(&(queue, key.clone())).map(|(_, entry, _)| &**entry)
    }

    pub(super) fn document(&self, key: &DocumentKey) -> Option<&Vec<u8>> {
        self.documents.get(&format!("{key:?}"))
    }

    pub(super) fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(at, ..)| at.as_millis())
    }

    fn stored(&mut self, queue: usize, key: &Key) -> Option<Stored> {
        let (revision, entry, _) = self.entries.get(&(queue, key.clone()))?;
        let (revision, entry) = (*revision, Rc::clone(entry));
        Some(Stored { revision, bytes: self.encode(&entry) })
    }

    /// Answers what changes nothing; `None`: it is a write.
    pub(super) fn read(&mut self, request: &Request) -> Option<Answer> {
        Some(match request {
            Request::Read(queue, key) => Answer::Read(self.stored(*queue, key)),
            Request::Live(queue) => {
                let all = self.entries.iter().filter(|((of, _), (.., live))| of == queue && *live);
                let keys: Vec<Key> = all.map(|((_, key), _)| key.clone()).collect();
                Answer::Live(
                    keys.into_iter().filter_map(|k| Some((k.clone(), self.stored(*queue, &k)?))).collect(),
                )
            }
            Request::Due(until) => {
                let due = self.due.iter().take_while(|(at, ..)| at <= until);
                let entry =
                    |(at, queue, what, job): &(Timestamp, usize, DueKind, dockframe_shared::JobId)| {
                        DueEntry {
                            queue: self.digests[*queue],
                            due: Due { at: *at, what: *what, job: job.clone() },
                        }
                    };
                Answer::Due(due.map(entry).collect())
            }
            Request::Document(key) => Answer::Document(self.document(key).cloned()),
            Request::Commit(..) | Request::Remove(..) => return None,
        })
    }

    /// Does a write as far as `reach`, and says what became true.
    pub(super) fn write(&mut self, request: &Request, reach: Reach, truths: &mut Vec<Truth>) -> Answer {
        match request {
            Request::Commit(commit, command) => self.commit(commit, command.clone(), reach, truths),
            Request::Remove(key, only) => {
                let name = format!("{key:?}");
                let is_it = self
                    .documents
                    .get(&name)
                    .is_some_and(|known| only.as_ref().is_none_or(|only| self.same(key, known, only)));
                if is_it {
                    let before = self.documents.remove(&name);
                    truths.push(Truth::Document { key: key.clone(), before, after: None });
                }
                Answer::Done
            }
            Request::Read(..) | Request::Live(_) | Request::Due(_) | Request::Document(_) => Answer::Done,
        }
    }

    /// Bytes are equal if they say the same: in the arena every writing has a number of its own.
    fn same(&self, key: &DocumentKey, a: &[u8], b: &[u8]) -> bool {
        match key {
            DocumentKey::Shared(_) if !self.encodes => self.decode_shared(a).run == self.decode_shared(b).run,
            _ => a == b,
        }
    }

    fn set(&mut self, key: &DocumentKey, bytes: &[u8], truths: &mut Vec<Truth>) {
        let name = format!("{key:?}");
        let before = self.documents.get(&name).cloned();
        let is_once = guards::stands(Guard::SharedOnce) || !matches!(key, DocumentKey::Shared(_));
        if before.is_some() && is_once {
            return;
        }
        self.documents.insert(name, bytes.to_vec());
        truths.push(Truth::Document { key: key.clone(), before, after: Some(bytes.to_vec()) });
    }

    fn commit(
        &mut self,
        commit: &Commit,
        command: Option<Rc<Command>>,
        reach: Reach,
        truths: &mut Vec<Truth>,
    ) -> Answer {
        let queue = self.queue_of(commit.queue);
        let due_first = guards::stands(Guard::DueFirst);
        if due_first {
            self.add_due(queue, &commit.due);
        }
        for (key, bytes) in &commit.documents {
            self.set(key, bytes, truths);
        }
        if reach == Reach::Before {
            return Answer::Failed;
        }
        let mut conflicts = Vec::new();
        for write in commit.writes.iter().filter(|write| write.expected != ANY_REVISION) {
            let found = self.entries.get(&(queue, write.key.clone())).map_or(0, |(revision, ..)| *revision);
            if found != write.expected {
                conflicts.push((write.key.clone(), self.stored(queue, &write.key)));
            }
        }
        if !conflicts.is_empty() && guards::stands(Guard::CompareAndSet) {
            return Answer::Committed(Committed::Conflict(conflicts));
        }
        let mut changes = Vec::with_capacity(commit.writes.len());
        for write in &commit.writes {
            let name = (queue, write.key.clone());
            let after = write.bytes.as_ref().map(|bytes| self.decode(&write.key, bytes));
            // Only compared: it was not there, and is not.
            if write.expected == 0 && after.is_none() {
                continue;
            }
            let before = match &after {
                Some(entry) => self.entries.insert(name, (write.revision, Rc::clone(entry), write.live)),
                None => self.entries.remove(&name),
            };
            let before = before.map(|(_, entry, _)| entry);
            changes.push(Change { queue, key: write.key.clone(), revision: write.revision, before, after });
        }
        for done in commit.done.iter().filter(|done| !commit.due.contains(done)) {
            self.due.remove(&(done.at, queue, done.what, done.job.clone()));
        }
        self.counts[queue] +=
            changes.iter().filter(|change| matches!(change.key, Key::Record(_))).count() as u64;
        if !changes.is_empty() {
            truths.push(Truth::Changed(changes, command));
        }
        if reach == Reach::Itself {
            return Answer::Failed;
        }
        if !due_first {
            self.add_due(queue, &commit.due);
        }
        for (key, bytes) in &commit.offers {
            self.set(key, bytes, truths);
        }
        Answer::Committed(Committed::Ok)
    }

    fn add_due(&mut self, queue: usize, due: &[Due]) {
        self.due.extend(due.iter().map(|due| (due.at, queue, due.what, due.job.clone())));
    }
}

/// The queues of every world: known by their digests alone, as stores know them.
pub(super) fn digest(queue: usize) -> QueueDigest {
    QueueDigest::from_bytes([u8::try_from(queue).unwrap_or(0) + 1; 32])
}
