//! What workers with leases do, as commands to the core (`jobs-and-states` 8).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dockframe_shared::job::{Control, Definition, LogLine};
use dockframe_shared::protocol::{
    DeclineRetry, LeaseDecline, LeaseGrant, LogLines, LogStep, Registration, RelayMessage,
};
use dockframe_shared::{InstanceId, JobId, LeaseId, WorkerId};

use super::{Error, Finishing, Service};
use crate::limits::MAX_NAMED_LEASES;
use crate::metrics::Finish;
use crate::queue::apply::submissions_limit;
use crate::queue::command::{Command, Reply};
use crate::queue::open::{LeaseSocket, OpenQueue, SocketId};
use crate::queue::outbox::{Closing, Outbox, text};
use crate::queue::record::Phase;
use crate::store::news::Notice;

/// A grant that is committed and has to be sent.
pub(super) struct Granted {
    pub worker: WorkerId,
    pub session: u64,
    pub job: JobId,
    pub lease: LeaseId,
    pub attempt: u32,
    pub deadline_ms: i64,
}

/// Longer messages of log lines are read by the old peers of other relays, if at all, and not told to them.
const LONGEST_TOLD: usize = 64 << 10;
/// How long another process with the same id is taken to be alive after its last frame.
const ALIVE_MS: i64 = 10_000;

/// The socket on which a worker speaks.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSocket {
    pub id: SocketId,
    pub outbox: Arc<Outbox>,
    pub last_frame: Arc<AtomicI64>,
}

/// What a registration came to.
#[derive(Debug)]
pub(crate) enum Registered {
    Welcome {
        revoked: Vec<LeaseId>,
    },
    /// Another process with this id is alive.
    IdTaken,
}

impl Service {
    /// Registration, resume and renewal in one. `hello`: what to answer to the first one of a socket, before any grant.
    pub(crate) async fn register(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        socket: &WorkerSocket,
        registration: Registration,
        instance: &InstanceId,
        hello: Option<&RelayMessage>,
    ) -> Result<Registered, Error> {
        let worker = registration.id.clone();
        let now = self.now();
        {
            let sockets = queue.sockets();
            if let Some(standing) = sockets.lease_workers.get(&worker).filter(|s| s.socket != socket.id) {
                let silent = now.as_millis() - standing.last_frame.load(Ordering::Relaxed);
                if standing.instance != *instance && silent < ALIVE_MS {
                    return Ok(Registered::IdTaken);
                }
                standing.outbox.close(Closing::Superseded);
            }
        }
        if hello.is_some() {
            let alive_since = now.plus_millis(-ALIVE_MS);
            if queue.elsewhere().is_taken(&worker, instance, alive_since) {
                return Ok(Registered::IdTaken);
            }
            // Another relay may have granted, a moment ago, what this registration is about.
            self.catch_up(queue).await?;
        }
        let leases = registration.leases.iter().flatten().map(|lease| lease.lease_id.clone());
        let command = Command::Register {
            worker: worker.clone(),
            instance: instance.clone(),
            first: hello.is_some(),
            leases: leases.take(MAX_NAMED_LEASES).collect(),
        };
        let Reply::Registered { session, revoked } = self.execute(queue, &command).await? else {
            return Err(Error::Overtaken);
        };
        if let Some(hello) = hello {
            socket.outbox.push(hello);
        }
        let changed = {
            let mut sockets = queue.sockets();
            let standing = LeaseSocket {
                socket: socket.id,
                outbox: Arc::clone(&socket.outbox),
                registration,
                instance: instance.clone(),
                session,
                last_frame: Arc::clone(&socket.last_frame),
                full: false,
            };
            let old = sockets.lease_workers.insert(worker.clone(), standing);
            let new = sockets.lease_workers.get(&worker);
            !same_but_time(old.as_ref(), new)
        };
        self.serves(queue, &worker, instance);
        if changed {
            self.workers_changed(queue);
        }
        queue.wake.notify_one();
        Ok(Registered::Welcome { revoked })
    }

    /// Tells of the workers; those who asked for it hear at most once a second, by the queue's own task.
    pub(crate) fn workers_changed(&self, queue: &OpenQueue) {
        queue.workers_to_share.store(true, Ordering::Relaxed);
        queue.wake.notify_one();
        self.show_workers(queue);
    }

    /// The same, where it was another relay's workers that changed.
    pub(super) fn show_workers(&self, queue: &OpenQueue) {
        queue.touch();
        queue.workers_to_tell.store(true, Ordering::Relaxed);
        let text = queue.workers_message();
        for outbox in queue.sockets().old_peers() {
            outbox.workers(&text);
        }
    }

    /// The socket is gone. `coming_back`: it said so, or the relay closed it.
    pub(crate) async fn worker_left(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        socket: SocketId,
        coming_back: bool,
    ) -> Result<(), Error> {
        let session = {
            let mut sockets = queue.sockets();
            // Another socket may stand for the worker by now.
            match sockets.lease_workers.get(worker) {
                Some(standing) if standing.socket == socket => {
                    let session = standing.session;
                    sockets.lease_workers.remove(worker);
                    session
                }
                _ => return Ok(()),
            }
        };
        self.workers_changed(queue);
        if !coming_back {
            let command = Command::Closed { worker: worker.clone(), session };
            self.execute(queue, &command).await?;
        }
        Ok(())
    }

    pub(super) async fn send_grant(self: &Arc<Self>, queue: &Arc<OpenQueue>, granted: Granted) {
        let Granted { worker, session, job, lease, attempt, deadline_ms } = granted;
        let definition = match self.definition(super::Scope::Queue(queue), &job).await {
            Ok(Some(definition)) => definition,
            // Written before the record that points to it; the grant ends by its time and the sweep says so again.
            Ok(None) => {
                tracing::error!(job.id = %job, "a job without definition");
                Definition::default()
            }
            Err(error) => {
                tracing::error!(%error, job.id = %job, "a grant could not be sent");
                return;
            }
        };
        let max_duration = {
            let cache = queue.cache();
            cache.record(&job).and_then(|known| submissions_limit(known.value))
        };
        let message = RelayMessage::LeaseGrant(Box::new(LeaseGrant {
            lease_id: lease,
            job_id: job,
            attempt,
            definition,
            control: Control { max_duration, ..Control::default() },
            deadline_ms: u64::try_from(deadline_ms).unwrap_or(u64::MAX),
        }));
        let sockets = queue.sockets();
        if let Some(socket) = sockets.lease_workers.get(&worker).filter(|s| s.session == session) {
            socket.outbox.push(&message);
        }
    }

    /// Whether the accept counts.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        lease: LeaseId,
    ) -> Result<bool, Error> {
        let reply = self.execute(queue, &Command::Accept { lease, worker: worker.clone() }).await?;
        Ok(!matches!(reply, Reply::NotCurrent))
    }

    /// Whether the decline counts.
    pub(crate) async fn decline(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        instance: &InstanceId,
        decline: LeaseDecline,
    ) -> Result<bool, Error> {
        let LeaseDecline { lease_id, why, retry } = decline;
        let job = queue.job_of(&lease_id);
        let before_accept = job.as_ref().is_some_and(|job| {
            let cache = queue.cache();
            cache.record(job).is_some_and(|known| matches!(&known.value.phase, Phase::Granted(_)))
        });
        if let Some(job) = &job {
            // Before the job waits again, so that it is not granted to the same worker at once.
            let why = crate::limits::cut(&why, crate::limits::MAX_MESSAGE_BYTES);
            queue.decline(job, worker, instance, retry, why, self.now());
        }
        if retry == DeclineRetry::Soon
            && before_accept
            && let Some(socket) = queue.sockets().lease_workers.get_mut(worker)
        {
            socket.full = true;
        }
        let command = Command::Decline { lease: lease_id, worker: worker.clone() };
        Ok(!matches!(self.execute(queue, &command).await?, Reply::NotCurrent))
    }

    /// `(recorded, why not)`.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        lease: &LeaseId,
        finishing: &Finishing,
    ) -> Result<(bool, Option<String>), Error> {
        let with = self.document_of(lease, finishing).await?;
        let command = Command::Finish {
            lease: lease.clone(),
            worker: worker.clone(),
            ending: finishing.ending().clone(),
        };
        let reply = self.execute_with(queue, &command, with).await?;
        queue.has_room_again(worker);
        queue.wake.notify_one();
        match reply {
            Reply::Finished { recorded: true, .. } => {
                self.metrics.finished(Finish::Recorded);
                Ok((true, None))
            }
            Reply::Finished { recorded: false, why } => {
                self.metrics.finished(Finish::Dropped);
                self.drop_document(lease, finishing).await?;
                Ok((false, why))
            }
            _ => Err(Error::Overtaken),
        }
    }

    /// Takes log lines of a lease that is current; others are dropped without a word.
    pub(crate) async fn lines(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        lease: &LeaseId,
        step: &LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        let Some(job) = queue.job_of(lease) else { return Ok(()) };
        let current = {
            let cache = queue.cache();
            cache.record(&job).is_some_and(|known| match &known.value.phase {
                Phase::Held(held) | Phase::Waiting { expired: Some(held) } => {
                    held.id == *lease && held.worker == *worker
                }
                _ => false,
            })
        };
        if current {
            self.append_lines(queue, &job, lease, step, from, lines).await?;
        }
        Ok(())
    }

    pub(crate) async fn append_lines(
        &self,
        queue: &OpenQueue,
        job: &JobId,
        run: &LeaseId,
        step: &LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        let fresh = self.logs.append(run, step, from, lines).await?;
        if !fresh.is_empty() {
            queue.has_lines(job);
            let old_clients: Vec<_> = queue.sockets().old_clients.values().cloned().collect();
            let others = self.store.others();
            if !old_clients.is_empty() || others.is_some() {
                let lines = LogLines { job_id: job.clone(), step: step.clone(), logs: fresh, from: None };
                let message = text(&RelayMessage::JobStatusPayload(lines));
                for outbox in old_clients {
                    outbox.push_lines(job, &message, || self.listed(queue, job));
                }
                if let Some(others) = others {
                    let message = if message.len() > LONGEST_TOLD { String::new() } else { message };
                    others.tell(queue.digest, Notice::Lines { job: job.clone(), message }).await;
                }
            }
        }
        Ok(())
    }
}

/// Whether two registrations tell people the same.
fn same_but_time(old: Option<&LeaseSocket>, new: Option<&LeaseSocket>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let told = |socket: &LeaseSocket| Registration {
        time: dockframe_shared::Timestamp::default(),
        leases: None,
        instance: None,
        ..socket.registration.clone()
    };
    told(old) == told(new)
}
