//! What waits to be sent to one socket.
//!
//! A peer that reads slowly must not cost the others anything, so nothing here grows without bound. What can be
//! derived again is only marked (this job changed, it has new lines) and made when the socket can take it, from
//! what is true by then; messages that count are queued, and a peer that lets too many pile up is closed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dockframe_shared::JobId;
use dockframe_shared::job::JobObject;
use dockframe_shared::protocol::{RelayMessage, WatchedJobs};
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
    /// Jobs that an old client asked for: each question has its answer.
    pub asked: Vec<JobId>,
    /// What `messages` tell of jobs whose lines they hold.
    pub told: BTreeMap<JobId, JobObject>,
    /// Jobs with new log lines.
    pub lines: BTreeSet<JobId>,
    /// The newest of each kind only.
    pub summary: Option<String>,
    pub workers: Option<String>,
    /// An old peer wants the whole list.
    pub full_list: bool,
    /// It asked for it, and waits.
    pub asked_list: bool,
    /// Answers to words. They go last, so that a peer that hears one has heard all that was before it.
    pub words: Vec<String>,
    pub closing: Option<Closing>,
}

impl Parcel {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.jobs.is_empty()
            && self.asked.is_empty()
            && self.lines.is_empty()
            && self.summary.is_none()
            && self.workers.is_none()
            && !self.full_list
            && !self.asked_list
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

    /// Queues lines of a job, which may be left out when much is waiting. A job whose change is not told yet is told
    /// first, as it is now: old pages drop the lines of a job that they do not know to run, and by the time this is
    /// sent it may have ended.
    pub(crate) fn push_lines(&self, job: &JobId, lines: &str, now: impl FnOnce() -> Option<JobObject>) {
        let (has_room, is_untold) = {
            let guard = self.lock();
            let (parcel, bytes) = &*guard;
            let has_room = parcel.messages.len() < MAX_MESSAGES / 2 && bytes + lines.len() < MAX_BYTES / 8;
            (has_room, parcel.jobs.contains(job) && !parcel.told.contains_key(job))
        };
        if !has_room {
            return;
        }
        if is_untold && let Some(object) = now() {
            let jobs = BTreeMap::from([(job.clone(), Some(object.clone()))]);
            self.push(&RelayMessage::JobStateUpdates(WatchedJobs::new(jobs)));
            self.add(|parcel| {
                parcel.told.insert(job.clone(), object);
            });
        }
        self.push_text(lines.to_owned());
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

    /// The peer asked for the whole list.
    pub(crate) fn asked_for_list(&self) {
        self.add(|parcel| parcel.asked_list = true);
    }

    /// The peer asked for a job.
    pub(crate) fn asked_for(&self, job: JobId) {
        self.add(|parcel| {
            if parcel.asked.len() >= MAX_MESSAGES {
                parcel.asked.clear();
                parcel.closing = Some(Closing::Slow);
            } else if parcel.closing.is_none() {
                parcel.asked.push(job);
            }
        });
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

#[cfg(test)]
mod tests {
    use dockframe_shared::job::StateName;

    use super::*;

    fn object(state: StateName) -> JobObject {
        let text = serde_json::json!({ "queuedTime": 1, "state": state, "time": 1 });
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn a_job_is_told_before_its_lines_once() {
        let outbox = Outbox::default();
        let job = JobId::new("j").unwrap();
        outbox.push_lines(&job, "known to run", || unreachable!("its change is told already"));
        outbox.job_changed(&job);
        for line in ["first", "second"] {
            outbox.push_lines(&job, line, || Some(object(StateName::Running)));
        }
        let parcel = outbox.take().await;
        let kinds: Vec<bool> = parcel.messages.iter().map(|text| text.contains("Running")).collect();
        assert_eq!(kinds, [false, true, false, false], "{:?}", parcel.messages);
        // What became of it meanwhile is still to be told.
        assert!(parcel.jobs.contains(&job));
        assert_eq!(parcel.told.get(&job).map(|told| told.state), Some(StateName::Running));
        outbox.job_changed(&job);
        outbox.push_lines(&job, "of the next parcel", || Some(object(StateName::Running)));
        assert_eq!(outbox.take().await.messages.len(), 2);
    }

    #[tokio::test]
    async fn each_question_has_its_answer_and_too_many_end_the_socket() {
        let outbox = Outbox::default();
        let job = JobId::new("j").unwrap();
        outbox.asked_for(job.clone());
        outbox.asked_for(job.clone());
        outbox.asked_for_list();
        let parcel = outbox.take().await;
        assert_eq!((parcel.asked.len(), parcel.asked_list, parcel.closing), (2, true, None));
        for _ in 0..=MAX_MESSAGES {
            outbox.asked_for(job.clone());
        }
        let parcel = outbox.take().await;
        assert_eq!((parcel.asked.len(), parcel.closing), (0, Some(Closing::Slow)));
    }
}
