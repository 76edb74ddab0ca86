//! Clients of the old way: they hear of every job of their queue (`relay-protocol` 3.4 to 3.9, 3.13 "Old peers").
//!
//! They get the least that they can work with: updates of single jobs, and a whole list when they connect, every 10 s,
//! and when a job left without a result, since only its absence tells them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Utf8Bytes, WebSocket};
use dockframe_shared::job::StateName;
use dockframe_shared::protocol::{ClientMessage, Jobs, RelayMessage, WatchedJobs};
use dockframe_shared::{JobId, QueueKey};

use super::changes::Changes;
use super::connection::{Connection, Peer};
use super::lists::Lists;
use crate::error::chain;
use crate::limits::MAX_LISTED;
use crate::queue::open::OpenQueue;
use crate::queue::outbox::{Outbox, Parcel, text};
use crate::queue::service::Service;

/// So many jobs that a socket asked for stay in its lists.
const MAX_ASKED: usize = 1024;

struct OldClient {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    outbox: Arc<Outbox>,
    changes: Changes,
    asked: Mutex<HashSet<JobId>>,
    lists: Lists,
}

pub(super) async fn serve(service: Arc<Service>, key: QueueKey, origin: String, socket: WebSocket) {
    let Some(queue) = super::open(&service, &key).await else { return };
    let outbox = Arc::new(Outbox::default());
    let id = {
        let mut sockets = queue.sockets();
        let id = sockets.new_id();
        sockets.old_clients.insert(id, Arc::clone(&outbox));
        id
    };
    outbox.workers(&queue.workers_message());
    outbox.full_list();
    let client = OldClient {
        service: Arc::clone(&service),
        changes: Changes::new(Arc::clone(&service), Arc::clone(&queue), origin),
        queue,
        outbox,
        asked: Mutex::default(),
        lists: Lists::default(),
    };
    let connection = Connection {
        peer: &client,
        outbox: &client.outbox,
        last_frame: Arc::default(),
        clock: &service.clock,
        stop: service.stopping(),
    };
    connection.run(socket).await;
    client.queue.sockets().old_clients.remove(&id);
}

impl Peer for OldClient {
    type Message = ClientMessage;

    fn read(&self, text: Utf8Bytes) -> Option<ClientMessage> {
        super::read_client(&self.service, &text).ok()
    }

    async fn message(&self, message: ClientMessage) {
        match message {
            ClientMessage::Ping => self.outbox.answer(&RelayMessage::Pong(None)),
            ClientMessage::StateChange(change) => {
                // No answer in the old way: what became of it shows in what is told of the job.
                drop(self.changes.make(change).await);
            }
            // Answered when the socket can take it, from what is true by then: an answer made now could go out behind
            // a later state.
            ClientMessage::QueryJob { job_id } => self.outbox.asked_for(job_id),
            ClientMessage::QueryJobStates => self.outbox.asked_for_list(),
            ClientMessage::Watch(_) => {}
        }
    }

    async fn frames(&self, parcel: Parcel) -> Vec<String> {
        let mut frames = Vec::new();
        frames.extend(parcel.workers);
        let mut going = BTreeMap::new();
        let mut ended = BTreeMap::new();
        for job in parcel.jobs {
            if let Some(object) = self.service.listed(&self.queue, &job)
                && parcel.told.get(&job) != Some(&object)
            {
                let is_end = object.state == StateName::Finished;
                if is_end { &mut ended } else { &mut going }.insert(job, Some(object));
            }
        }
        // Running goes out before the first line, the end after the last.
        if !going.is_empty() {
            frames.push(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(going))));
        }
        frames.extend(parcel.messages);
        if !ended.is_empty() {
            frames.push(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(ended))));
        }
        for job in parcel.asked {
            frames.extend(self.answer(job).await);
        }
        if parcel.asked_list || parcel.full_list && self.lists.may_go(&self.service, &self.outbox) {
            frames.push(self.list());
        }
        frames
    }

    fn tick(&self) {
        self.outbox.full_list();
    }
}

impl OldClient {
    /// The jobs that this socket submitted or asked for, and so many others.
    fn list(&self) -> String {
        let mut others = 0;
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = self.service.list_of(&self.queue, |job, _| {
            if self.changes.submitted(job) || asked.contains(job) {
                return true;
            }
            others += 1;
            others <= MAX_LISTED
        });
        text(&RelayMessage::JobStates(Jobs::all(jobs)))
    }

    async fn answer(&self, job: JobId) -> Option<String> {
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.len() >= MAX_ASKED {
                asked.clear();
            }
            asked.insert(job.clone());
        }
        match self.service.found(&self.queue, &job).await {
            Ok(found) => {
                let jobs = found.into_iter().map(|object| (job.clone(), Some(object))).collect();
                Some(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(jobs))))
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "a job could not be told");
                None
            }
        }
    }
}
