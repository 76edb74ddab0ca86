//! Clients that watch: they name their jobs and hear of those alone (`relay-protocol` 3.13).
//!
//! What is told is made when the socket can take it, from the record and the logs as they are then: a slow reader
//! gets the newest state of each job and all lines that are still kept, and nothing waits for it in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Utf8Bytes, WebSocket};
use dockframe_shared::job::{JobObject, StateName};
use dockframe_shared::protocol::{
    Change, ClientHello, ClientMessage, Done, LogCursors, LogKind, LogLines, LogStep, RelayMessage,
    StateChange, Watch, WatchedJobs,
};
use dockframe_shared::{JobId, LeaseId, Problem, QueueKey};

use super::changes::Changes;
use super::connection::{Connection, Peer};
use crate::error::chain;
use crate::limits::{MAX_CLIENT_FRAME_BYTES, MAX_WATCHED};
use crate::queue::open::{OpenQueue, SocketId, WatchClient as WatchEntry};
use crate::queue::outbox::{Outbox, Parcel, text};
use crate::queue::service::{self, Service, wire_revision};

/// Log lines read at once, and sent in one go; then others have their turn.
const LINES: usize = 500;
const LINES_BYTES: usize = 1 << 20;

struct WatchClient {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    socket: SocketId,
    outbox: Arc<Outbox>,
    watched: Mutex<HashMap<JobId, Watched>>,
    changes: Changes,
}

/// A job as it is to be told; missing: unknown.
struct News {
    object: Option<JobObject>,
    /// The first word of it since it was named.
    is_first: bool,
}

fn has_ended(object: Option<&JobObject>) -> bool {
    object.is_none_or(|object| object.state == StateName::Finished)
}

/// What this socket has been told of a job.
#[derive(Debug, Clone, Default)]
struct Watched {
    told: Option<Option<JobObject>>,
    /// Revision of the record at that time, and how often something else was told of it.
    revision: u64,
    derived: u64,
    run: Option<LeaseId>,
    cursors: LogCursors,
}

pub(super) async fn serve(service: Arc<Service>, key: QueueKey, origin: String, socket: WebSocket) {
    let Some(queue) = super::open(&service, &key).await else { return };
    let outbox = Arc::new(Outbox::default());
    outbox.push(&RelayMessage::ClientHello(ClientHello {
        relay: crate::NAME.to_owned(),
        epoch: service.store.epoch(),
        max_watched: MAX_WATCHED as u32,
        max_frame_bytes: MAX_CLIENT_FRAME_BYTES as u64,
    }));
    outbox.summary(&service.summary_message(&queue));
    let id = {
        let mut sockets = queue.sockets();
        let id = sockets.new_id();
        let entry = WatchEntry { outbox: Arc::clone(&outbox), wants_workers: false };
        sockets.watch_clients.insert(id, entry);
        id
    };
    let changes = Changes::new(Arc::clone(&service), Arc::clone(&queue), origin);
    let client = WatchClient {
        service: Arc::clone(&service),
        queue,
        socket: id,
        outbox,
        watched: Mutex::default(),
        changes,
    };
    let connection = Connection {
        peer: &client,
        outbox: &client.outbox,
        last_frame: Arc::default(),
        clock: &service.clock,
        stop: service.stopping(),
    };
    connection.run(socket).await;
    let mut sockets = client.queue.sockets();
    sockets.watch_clients.remove(&id);
    for job in client.watched().keys() {
        sockets.unwatch(job, id);
    }
}

impl Peer for WatchClient {
    type Message = ClientMessage;

    fn read(&self, text: Utf8Bytes) -> Option<ClientMessage> {
        super::read_client(&self.service, &text)
            .inspect_err(|error| {
                if let Some(reference) = ClientMessage::unread_reference(&text) {
                    self.refuse(reference, "message-unreadable", "Message not readable", chain(error));
                }
            })
            .ok()
    }

    /// Submissions of different jobs, but for those to a namespace of its own, where each takes the place of the last.
    fn lane(message: &ClientMessage) -> Option<&str> {
        match message {
            ClientMessage::StateChange(StateChange {
                job, change: Change::Queued { enqueued, .. }, ..
            }) => {
                let control = enqueued.control.as_ref();
                let in_the_default_one = control.is_none_or(|control| control.namespace().is_default());
                in_the_default_one.then_some(job.as_str())
            }
            _ => None,
        }
    }

    async fn message(&self, message: ClientMessage) {
        match message {
            ClientMessage::Ping => self.outbox.answer(&RelayMessage::Pong(None)),
            ClientMessage::StateChange(change) => {
                let (job, reference) = (change.job.clone(), change.reference.clone());
                let outcome = self.changes.make(change).await;
                if let Some(reference) = reference {
                    self.outbox.push(&service::done(reference, &job, outcome));
                }
            }
            ClientMessage::Watch(watch) => self.watch(watch),
            ClientMessage::QueryJob { job_id } => self.tell_once(job_id).await,
            // A client that watches has no use for the whole list; it is read over HTTP, in pages.
            ClientMessage::QueryJobStates => {}
        }
    }

    async fn frames(&self, parcel: Parcel) -> Vec<String> {
        let mut frames: Vec<String> = parcel.messages.into();
        frames.extend(parcel.workers);
        frames.extend(parcel.summary);
        // What a set names is told at once; of what happens later, an end goes behind its lines.
        let (mut named, mut going, mut ended) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut lines = parcel.lines;
        for job in parcel.jobs {
            match self.news(&job).await {
                Ok(Some(News { object, is_first })) => {
                    lines.insert(job.clone());
                    match is_first {
                        true => &mut named,
                        false if has_ended(object.as_ref()) => &mut ended,
                        false => &mut going,
                    }
                    .insert(job, object);
                }
                Ok(None) => {}
                Err(error) => tracing::error!(error = chain(&error), "a job could not be told"),
            }
        }
        let all_ended = named.values().all(|object| has_ended(object.as_ref()));
        if all_ended { &mut ended } else { &mut going }.append(&mut named);
        // A run's first lines come after its Running, and its last ones before its end.
        if !going.is_empty() {
            frames.push(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(going))));
        }
        for job in lines {
            match self.lines(&job, &mut frames).await {
                Ok(true) => {}
                Ok(false) => self.outbox.has_lines(&job),
                Err(error) => tracing::error!(error = chain(&error), "lines could not be read"),
            }
        }
        if !ended.is_empty() {
            frames.push(text(&RelayMessage::JobStateUpdates(WatchedJobs::new(ended))));
        }
        frames
    }
}

impl WatchClient {
    fn watched(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing changed, and this is why.
    fn refuse(&self, reference: Option<String>, code: &'static str, title: &'static str, detail: String) {
        let error = Some(Problem::new(code, title, detail));
        self.outbox.push(&RelayMessage::Done(Done { reference, error, ..Done::default() }));
    }

    fn watch(&self, watch: Watch) {
        let Watch { jobs, workers, reference } = watch;
        if jobs.len() > MAX_WATCHED {
            let detail = format!("{} jobs are named, the limit is {MAX_WATCHED}: watch fewer", jobs.len());
            return self.refuse(reference, "too-many-watched", "Too many jobs watched", detail);
        }
        let mut sockets = self.queue.sockets();
        let wants_workers = workers.unwrap_or(false);
        if let Some(entry) = sockets.watch_clients.get_mut(&self.socket) {
            entry.wants_workers = wants_workers;
        }
        let mut watched = self.watched();
        for gone in watched.keys().filter(|job| !jobs.contains_key(*job)) {
            sockets.unwatch(gone, self.socket);
        }
        // Everything named is told anew, from the numbers that it names.
        *watched = jobs
            .into_iter()
            .map(|(job, cursors)| {
                sockets.watch(job.clone(), self.socket, &self.outbox);
                (job, Watched { cursors, ..Watched::default() })
            })
            .collect();
        let names: Vec<JobId> = watched.keys().cloned().collect();
        drop(watched);
        drop(sockets);
        // After the subscription: what changes from now on is told as well.
        for job in &names {
            self.outbox.job_changed(job);
        }
        if wants_workers {
            self.outbox.workers(&self.queue.workers_message());
        }
        if let Some(reference) = reference {
            self.outbox.push(&RelayMessage::Done(Done { reference: Some(reference), ..Done::default() }));
        }
    }

    async fn tell_once(&self, job: JobId) {
        match self.service.watched(&self.queue, &job).await {
            Ok(found) => {
                let object = found.map(|(mut object, _)| {
                    object.revision = object.revision.map(|revision| wire_revision(revision, 0));
                    object
                });
                let jobs = BTreeMap::from([(job, object)]);
                self.outbox.push(&RelayMessage::JobStateUpdates(WatchedJobs::new(jobs)));
            }
            Err(error) => tracing::error!(error = chain(&error), "a job could not be told"),
        }
    }

    /// The job as it is now, if that is news to this socket.
    async fn news(&self, job: &JobId) -> Result<Option<News>, service::Error> {
        let found = self.service.watched(&self.queue, job).await?;
        let mut all = self.watched();
        // Not watched any more.
        let Some(watched) = all.get_mut(job) else { return Ok(None) };
        let (object, revision) = match found {
            None => (None, 0),
            Some((mut object, run)) => {
                let revision = object.revision.take().unwrap_or(0);
                if revision < watched.revision {
                    return Ok(None);
                }
                if watched.run != run {
                    let is_new = watched.run.is_some();
                    watched.run = run;
                    if is_new {
                        watched.cursors = LogCursors {
                            build: watched.cursors.build.map(|_| 0),
                            run: watched.cursors.run.map(|_| 0),
                        };
                    }
                }
                (Some(object), revision)
            }
        };
        if watched.told.as_ref() == Some(&object) {
            watched.revision = revision;
            return Ok(None);
        }
        let is_first = watched.told.is_none();
        watched.derived =
            if watched.revision == revision && watched.told.is_some() { watched.derived + 1 } else { 0 };
        watched.revision = revision;
        watched.told = Some(object.clone());
        let derived = watched.derived;
        let object =
            object.map(|object| JobObject { revision: Some(wire_revision(revision, derived)), ..object });
        Ok(Some(News { object, is_first }))
    }

    /// Adds the lines that this socket has not seen. `false`: there are more.
    async fn lines(&self, job: &JobId, frames: &mut Vec<String>) -> Result<bool, service::Error> {
        let mut complete = true;
        for kind in [LogKind::Build, LogKind::Run] {
            let mut bytes = 0;
            loop {
                let (run, since) = {
                    let all = self.watched();
                    let Some(watched) = all.get(job) else { return Ok(true) };
                    let since = match kind {
                        LogKind::Build => watched.cursors.build,
                        LogKind::Run => watched.cursors.run,
                    };
                    let (Some(run), Some(since)) = (watched.run.clone(), since) else { break };
                    (run, since)
                };
                let mut found = self.service.lines_of_run(&run, kind, since, LINES).await?;
                // A number beyond the end is of another run: this one is told from its beginning.
                if since > found.total {
                    found = self.service.lines_of_run(&run, kind, 0, LINES).await?;
                }
                let next = found.start + found.lines.len() as u64;
                {
                    let mut all = self.watched();
                    let Some(watched) = all.get_mut(job).filter(|watched| watched.run.as_ref() == Some(&run))
                    else {
                        return Ok(true);
                    };
                    match kind {
                        LogKind::Build => watched.cursors.build = Some(next.min(found.total)),
                        LogKind::Run => watched.cursors.run = Some(next.min(found.total)),
                    }
                }
                if found.lines.is_empty() {
                    break;
                }
                for frame in frames_of(job, found.start, found.lines) {
                    bytes += frame.len();
                    frames.push(frame);
                }
                if next >= found.total {
                    break;
                }
                if bytes > LINES_BYTES {
                    complete = false;
                    break;
                }
            }
        }
        Ok(complete)
    }
}

/// Neighbouring lines of one step go together.
fn frames_of(job: &JobId, start: u64, lines: Vec<(LogStep, dockframe_shared::job::LogLine)>) -> Vec<String> {
    let mut groups: Vec<LogLines> = Vec::new();
    for (number, (step, line)) in (start..).zip(lines) {
        match groups.last_mut() {
            Some(group) if group.step == step => group.logs.push(line),
            _ => groups.push(LogLines { job_id: job.clone(), step, logs: vec![line], from: Some(number) }),
        }
    }
    groups.into_iter().map(|group| text(&RelayMessage::JobStatusPayload(group))).collect()
}
