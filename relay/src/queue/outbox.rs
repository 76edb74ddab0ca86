//! What waits to be sent to one socket.
//!
//! A peer that reads slowly must not cost the others anything, so nothing here grows without bound. What can be
//! derived again is only marked (this job changed, it has new lines) and made when the socket can take it, from
//! what is true by then; messages that count are queued, and a peer that lets too many pile up is closed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dockframe_shared::JobId;
use dockframe_shared::protocol::RelayMessage;
use tokio::sync::Notify;

/// Messages that may wait for one socket.
const MAX_MESSAGES: usize = 4096;
/// Their size together.
const MAX_BYTES: usize = 64 << 20;

/// How the relay closes a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Another socket took its place.
    Superseded,
    /// Another process has this worker id.
    IdTaken,
    /// It does not read what it is sent.
    Slow,
    /// The relay stops.
    Restart,
    /// No frame for too long.
    Silent,
    /// What it said could not be done now, and it will not say it again on this socket.
    TryAgain,
}

/// What is to be sent now.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    pub messages: VecDeque<String>,
    /// Jobs that changed since the last parcel.
    pub jobs: BTreeSet<JobId>,
    /// Jobs with new log lines.
    pub lines: BTreeSet<JobId>,
    /// The newest of each kind only.
    pub summary: Option<String>,
    pub workers: Option<String>,
    /// An old peer wants the whole list.
    pub full_list: bool,
    /// Answers to words. They go last, so that a peer that hears one has heard all that was before it.
    pub words: Vec<String>,
    pub closing: Option<Closing>,
}

impl Parcel {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.jobs.is_empty()
            && self.lines.is_empty()
            && self.summary.is_none()
            && self.workers.is_none()
            && !self.full_list
            && self.words.is_empty()
            && self.closing.is_none()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<(Parcel, usize)>,
    ready: Notify,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, (Parcel, usize)> {
        // Nothing panics while it is held, and what is inside is whole at every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, change: impl FnOnce(&mut Parcel)) {
        change(&mut self.lock().0);
        self.ready.notify_one();
    }

    /// Queues a message that must arrive, or closes a peer that does not read.
    pub(crate) fn push(&self, message: &RelayMessage) {
        self.push_text(text(message));
    }

    pub(crate) fn push_text(&self, text: String) {
        let mut guard = self.lock();
        let (parcel, bytes) = &mut *guard;
        *bytes += text.len();
        if parcel.messages.len() >= MAX_MESSAGES || *bytes > MAX_BYTES {
            parcel.messages.clear();
            *bytes = 0;
            parcel.closing = Some(Closing::Slow);
        } else if parcel.closing.is_none() {
            parcel.messages.push_back(text);
        }
        drop(guard);
        self.ready.notify_one();
    }

    /// Queues a message that may be left out when much is waiting.
    pub(crate) fn push_if_room(&self, text: &str) {
        let has_room = {
            let guard = self.lock();
            guard.0.messages.len() < MAX_MESSAGES / 2 && guard.1 + text.len() < MAX_BYTES / 8
        };
        if has_room {
            self.push_text(text.to_owned());
        }
    }

    pub(crate) fn job_changed(&self, job: &JobId) {
        self.add(|parcel| {
            parcel.jobs.insert(job.clone());
        });
    }

    pub(crate) fn has_lines(&self, job: &JobId) {
        self.add(|parcel| {
            parcel.lines.insert(job.clone());
        });
    }

    pub(crate) fn summary(&self, text: &str) {
        self.add(|parcel| parcel.summary = Some(text.to_owned()));
    }

    pub(crate) fn workers(&self, text: &str) {
        self.add(|parcel| parcel.workers = Some(text.to_owned()));
    }

    /// Answers a word.
    pub(crate) fn answer(&self, word: &RelayMessage) {
        self.add(|parcel| {
            // Nobody waits for more than a few.
            if parcel.words.len() < 64 {
                parcel.words.push(text(word));
            }
        });
    }

    pub(crate) fn full_list(&self) {
        self.add(|parcel| parcel.full_list = true);
    }

    pub(crate) fn close(&self, closing: Closing) {
        self.add(|parcel| parcel.closing = parcel.closing.or(Some(closing)));
    }

    /// Waits until there is something to send, and takes all of it.
    ///
    /// Cancel-safe: nothing is taken before it is returned.
    pub(crate) async fn take(&self) -> Parcel {
        loop {
            let ready = self.ready.notified();
            {
                let mut guard = self.lock();
                if !guard.0.is_empty() {
                    guard.1 = 0;
                    return std::mem::take(&mut guard.0);
                }
            }
            ready.await;
        }
    }
}

/// A message as it is sent.
pub(crate) fn text(message: &RelayMessage) -> String {
    match message {
        RelayMessage::Pong(None) => "PONG".to_owned(),
        RelayMessage::Pong(Some(id)) => format!("PONG {id}"),
        other => serde_json::to_string(other).unwrap_or_else(|error| {
            // Every key of our maps is a text and every number finite; if that ever changes, say so.
            tracing::error!(%error, "a message cannot be written");
            String::new()
        }),
    }
}
