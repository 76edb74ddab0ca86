//! One letter for each kind of thing that is kept under a queue: part of the stores' formats, never to change.

use dockframe_shared::{JobId, LeaseId, Namespace, WorkerId};

use crate::queue::command::DueKind;
use crate::queue::view::Key;

pub(super) fn name_of(key: &Key) -> (u8, &str) {
    match key {
        Key::Record(job) => (b'j', job.as_str()),
        Key::Slot(namespace) => (b'n', namespace.as_str()),
        Key::Worker(worker) => (b'w', worker.as_str()),
        Key::Run(run) => (b'r', run.as_str()),
    }
}

pub(super) fn key_of(kind: u8, name: &str) -> Option<Key> {
    match kind {
        b'j' => JobId::new(name).ok().map(Key::Record),
        b'n' => Namespace::new(name).ok().map(Key::Slot),
        b'w' => WorkerId::new(name).ok().map(Key::Worker),
        b'r' => LeaseId::new(name).ok().map(Key::Run),
        _ => None,
    }
}

pub(super) fn due_letter(kind: DueKind) -> u8 {
    match kind {
        DueKind::Look => b'l',
        DueKind::Share => b's',
        DueKind::Callbacks => b'c',
    }
}

pub(super) fn due_kind(letter: u8) -> Option<DueKind> {
    match letter {
        b'l' => Some(DueKind::Look),
        b's' => Some(DueKind::Share),
        b'c' => Some(DueKind::Callbacks),
        _ => None,
    }
}
