//! Workers of the old way (`relay-protocol` 3.7, `jobs-and-states` 8.8): lists in, claims and results out.
//!
//! Old workers flush what they queued while they were offline, results included, before they register. What comes
//! before the registration is held for it, a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Utf8Bytes, WebSocket};
use dockframe_shared::job::{FinishReason, Finished};
use dockframe_shared::protocol::{
    Change, Definitions, Jobs, Logs, Registration, RelayMessage, StateChange, WatchedJobs, WorkerMessage,
};
use dockframe_shared::{JobId, QueueKey, Timestamp, WorkerId};
use serde_json::Value;

use super::connection::{Connection, Peer};
use super::lists::Lists;
use crate::error::chain;
use crate::limits::MAX_LISTED;
use crate::queue::command::{Command, Reply};
use crate::queue::open::{OldSocket, OpenQueue, SocketId};
use crate::queue::outbox::{Closing, Outbox, Parcel, text};
use crate::queue::record::Phase;
use crate::queue::service::{self, Finishing, Scope, Service};

/// How long frames wait for the registration they need.
const HELD_MS: i64 = 5_000;
/// How many of them, and of how many bytes together.
const MAX_HELD: usize = 10_000;
const MAX_HELD_BYTES: usize = 128 << 20;
/// Definitions asked for at once.
const MAX_DEFINITIONS: usize = 1_000;

struct OldWorker {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    socket: SocketId,
    outbox: Arc<Outbox>,
    last_frame: Arc<AtomicI64>,
    name: Mutex<Option<WorkerId>>,
    held: Mutex<Held>,
    lists: Lists,
}

/// What came before the registration.
#[derive(Default)]
struct Held {
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// What it said, and when.
struct Frame {
    came: Timestamp,
    bytes: usize,
    message: WorkerMessage,
    result: Option<Value>,
}

impl Held {
    /// Keeps it as long as there is room; what waited too long makes some.
    fn keep(&mut self, frame: Frame) {
        while let Some(old) = self.frames.front().filter(|old| frame.came.since(old.came) > HELD_MS) {
            self.bytes -= old.bytes;
            self.frames.pop_front();
        }
        if self.frames.len() < MAX_HELD && self.bytes + frame.bytes <= MAX_HELD_BYTES {
            self.bytes += frame.bytes;
            self.frames.push_back(frame);
        }
    }
}

pub(super) async fn serve(service: Arc<Service>, key: QueueKey, socket: WebSocket) {
    let Some(queue) = super::open(&service, &key).await else { return };
    let outbox = Arc::new(Outbox::default());
    let id = {
        let mut sockets = queue.sockets();
        let id = sockets.new_id();
        let socket = OldSocket {
            outbox: Arc::clone(&outbox),
            registration: None,
            registered: Timestamp::default(),
            session: 0,
        };
        sockets.old_workers.insert(id, socket);
        id
    };
    outbox.full_list();
    let last_frame = Arc::new(AtomicI64::new(0));
    let worker = OldWorker {
        service: Arc::clone(&service),
        queue,
        socket: id,
        outbox,
        last_frame: Arc::clone(&last_frame),
        name: Mutex::default(),
        held: Mutex::default(),
        lists: Lists::default(),
    };
    let connection = Connection {
        peer: &worker,
        outbox: &worker.outbox,
        last_frame,
        clock: &service.clock,
        stop: service.stopping(),
    };
    connection.run(socket).await;
    if let Err(error) = service.old_worker_left(&worker.queue, id).await {
        tracing::error!(error = chain(&error), "a worker's leaving could not be noted");
    }
}

impl Peer for OldWorker {
    type Message = Frame;

    fn read(&self, text: Utf8Bytes) -> Option<Frame> {
        let message = super::read_worker(&self.service, &text)?;
        let result = result_of(&message, &text);
        Some(Frame { came: self.service.now(), bytes: text.len(), message, result })
    }

    async fn message(&self, frame: Frame) {
        let registers = matches!(frame.message, WorkerMessage::Registration(_));
        if let Err(error) = self.hear(frame).await {
            tracing::error!(error = chain(&error), "a worker's message could not be dealt with");
            if registers && self.name().is_none() {
                // It registers once and would hear nothing for ever: a new socket begins anew.
                self.outbox.close(Closing::TryAgain);
            }
        }
    }

    async fn frames(&self, parcel: Parcel) -> Vec<String> {
        let mut frames = Vec::new();
        let registered = self.name().is_some();
        if registered {
            frames.extend(parcel.workers);
            let mut jobs = BTreeMap::new();
            for job in parcel.jobs {
                // A job on offer to another is neither theirs to take nor gone.
                if !self.is_granted(&job)
                    && let Some(object) = self.service.listed(&self.queue, &job)
                {
                    jobs.insert(job, Some(object));
                }
            }
            if !jobs.is_empty() {
                frames.push(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(jobs))));
            }
        }
        frames.extend(parcel.messages);
        if parcel.full_list && self.lists.may_go(&self.service, &self.outbox) {
            frames.push(self.list());
        }
        frames
    }

    fn tick(&self) {
        if self.name().is_some() {
            self.outbox.full_list();
        }
        let silent = self.service.now().as_millis() - self.last_frame.load(Ordering::Relaxed);
        if let (Some(worker), true) = (self.name(), silent < 10_000) {
            let (service, queue) = (Arc::clone(&self.service), Arc::clone(&self.queue));
            self.service.tasks().spawn(async move {
                let command = Command::OldWorker { worker, first: false };
                if let Err(error) = service.execute(&queue, &command).await {
                    tracing::error!(error = chain(&error), "a sign of life could not be noted");
                }
            });
        }
    }
}

/// The value of a result exactly as it came: it is stored like that.
fn result_of(message: &WorkerMessage, text: &str) -> Option<Value> {
    let WorkerMessage::StateChange(StateChange { change: Change::Finished(_), .. }) = message else {
        return None;
    };
    let mut frame: Value = serde_json::from_str(text).ok()?;
    Some(frame["payload"]["value"].take())
}

impl OldWorker {
    fn name(&self) -> Option<WorkerId> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_granted(&self, job: &JobId) -> bool {
        let cache = self.queue.cache();
        cache.record(job).is_some_and(|known| matches!(known.value.phase, Phase::Granted(_)))
    }

    /// What it may take, oldest first, and its own (`jobs-and-states` 8.8).
    fn list(&self) -> String {
        let name = self.name();
        let jobs = self.service.work_for(&self.queue, name.as_ref(), MAX_LISTED);
        text(&RelayMessage::JobStates(Jobs::all(jobs)))
    }

    async fn hear(&self, frame: Frame) -> Result<(), service::Error> {
        let Frame { came, bytes, message, result } = frame;
        match (message, self.name()) {
            (WorkerMessage::Ping, name) => {
                let id = name.map_or_else(|| "unknown".to_owned(), |name| name.as_str().to_owned());
                self.outbox.answer(&RelayMessage::Pong(Some(id)));
                Ok(())
            }
            (WorkerMessage::Registration(registration), name) => self.register(registration, name).await,
            (WorkerMessage::RequestJobDefinitions { job_ids }, _) => self.definitions(job_ids).await,
            (WorkerMessage::StateChange(change), Some(worker)) => self.change(&worker, change, result).await,
            (WorkerMessage::Logs(logs), Some(worker)) => self.lines(&worker, logs).await,
            (message @ (WorkerMessage::StateChange(_) | WorkerMessage::Logs(_)), None) => {
                let frame = Frame { came, bytes, message, result };
                self.held.lock().unwrap_or_else(PoisonError::into_inner).keep(frame);
                Ok(())
            }
            // Answers from registrations and records need no status of a worker's own; leases are another way.
            (
                WorkerMessage::StatusResponse(_)
                | WorkerMessage::LeaseAccept(_)
                | WorkerMessage::LeaseDecline(_)
                | WorkerMessage::LeaseFinish(_),
                _,
            ) => Ok(()),
        }
    }

    async fn register(
        &self,
        registration: Registration,
        before: Option<WorkerId>,
    ) -> Result<(), service::Error> {
        let worker = registration.id.clone();
        let first = before.as_ref() != Some(&worker);
        self.service.register_old(&self.queue, self.socket, registration, first).await?;
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker.clone());
        if !first {
            return Ok(());
        }
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for Frame { came, message, result, .. } in held.frames {
            if self.service.now().since(came) > HELD_MS {
                continue;
            }
            let done = match message {
                WorkerMessage::StateChange(change) => self.change(&worker, change, result).await,
                WorkerMessage::Logs(logs) => self.lines(&worker, logs).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                tracing::error!(error = chain(&error), "what a worker said before its registration is lost");
            }
        }
        self.outbox.full_list();
        Ok(())
    }

    async fn definitions(&self, jobs: Vec<JobId>) -> Result<(), service::Error> {
        let mut definitions = BTreeMap::new();
        for job in jobs.into_iter().take(MAX_DEFINITIONS) {
            if let Some(definition) = self.service.definition(Scope::Queue(&self.queue), &job).await? {
                definitions.insert(job, definition);
            }
        }
        if !definitions.is_empty() {
            self.outbox.push(&RelayMessage::BroadcastJobDefinitions(Definitions { definitions }));
        }
        Ok(())
    }

    /// Claims, results and claims given back; all else is not a worker's to say (`jobs-and-states` 3.7).
    async fn change(
        &self,
        worker: &WorkerId,
        change: StateChange,
        result: Option<Value>,
    ) -> Result<(), service::Error> {
        let StateChange { job, change, .. } = change;
        match change {
            Change::Running { time, worker: claimer } if claimer == *worker => {
                let command = Command::Claim { job, worker: claimer, time };
                if matches!(self.service.execute(&self.queue, &command).await?, Reply::NotCurrent) {
                    self.outbox.full_list();
                }
                Ok(())
            }
            Change::Finished(finished) => self.finished(worker, job, &finished, result).await,
            Change::Running { .. } | Change::Queued { .. } | Change::Removed => Ok(()),
        }
    }

    async fn finished(
        &self,
        worker: &WorkerId,
        job: JobId,
        finished: &Finished,
        result: Option<Value>,
    ) -> Result<(), service::Error> {
        if finished.worker.as_deref().is_some_and(|named| named != worker.as_str()) {
            return Ok(());
        }
        match (finished.reason, result) {
            (FinishReason::WorkerLost, _) => {
                let command = Command::ClaimLost { job, worker: worker.clone() };
                self.service.execute(&self.queue, &command).await?;
                Ok(())
            }
            (FinishReason::Success | FinishReason::Error | FinishReason::TimedOut, Some(value)) => {
                self.service.claim_finish(&self.queue, worker, &job, &Finishing::read(&value)).await
            }
            _ => Ok(()),
        }
    }

    async fn lines(&self, worker: &WorkerId, logs: Logs) -> Result<(), service::Error> {
        let Logs { job_id, step, logs, .. } = logs;
        self.service.claim_lines(&self.queue, worker, &job_id, &step, logs).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(came: i64, bytes: usize) -> Frame {
        Frame { came: Timestamp::from_millis(came), bytes, message: WorkerMessage::Ping, result: None }
    }

    #[test]
    fn what_waits_for_a_registration_is_bounded_in_time_number_and_bytes() {
        let mut held = Held::default();
        held.keep(frame(0, MAX_HELD_BYTES - 1));
        held.keep(frame(1, 2));
        assert_eq!((held.frames.len(), held.bytes), (1, MAX_HELD_BYTES - 1));
        held.keep(frame(HELD_MS + 1, 2));
        assert_eq!((held.frames.len(), held.bytes), (1, 2));
        for _ in 0..=MAX_HELD {
            held.keep(frame(HELD_MS + 2, 0));
        }
        assert_eq!(held.frames.len(), MAX_HELD);
    }
}
