//! What workers of the old way do, as commands to the core, and the lists that old peers get (`jobs-and-states` 8.8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::job::{JobObject, LogLine};
use dockframe_shared::protocol::{LogStep, Registration};
use dockframe_shared::{JobId, LeaseId, WorkerId};

use super::{Error, Finishing, Scope, Service};
use crate::metrics::Finish;
use crate::queue::cache::{Looked, Sight};
use crate::queue::command::{Command, Reply};
use crate::queue::object::{Extra, is_shown, job_object};
use crate::queue::open::{OldSocket, OpenQueue, SocketId};
use crate::queue::record::{Phase, Record};
use crate::queue::view::View as _;

/// So long another relay's list of workers may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// A claim that changes while its result is written is looked for again so often.
const TRIES: usize = 8;

impl Service {
    /// `first`: of this socket.
    pub(crate) async fn register_old(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        socket: SocketId,
        registration: Registration,
        first: bool,
    ) -> Result<(), Error> {
        let command = Command::OldWorker { worker: registration.id.clone(), first };
        let reply = self.execute(queue, &command).await?;
        let changed = {
            let mut sockets = queue.sockets();
            let Some(entry) = sockets.old_workers.get_mut(&socket) else { return Ok(()) };
            if let (true, Reply::Registered { session, .. }) = (first, reply) {
                entry.session = session;
            }
            let timeless = |registration: &Registration| Registration {
                time: dockframe_shared::Timestamp::default(),
                ..registration.clone()
            };
            let changed = entry.registration.as_ref().map(timeless) != Some(timeless(&registration));
            entry.registration = Some(registration);
            entry.registered = self.now();
            changed
        };
        if changed {
            self.workers_changed(queue);
        }
        Ok(())
    }

    /// The socket is gone. With the last one of its id the worker is lost, unless it comes back.
    pub(crate) async fn old_worker_left(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        socket: SocketId,
    ) -> Result<(), Error> {
        let (worker, session) = {
            let mut sockets = queue.sockets();
            let Some(gone) = sockets.old_workers.remove(&socket) else { return Ok(()) };
            let Some(registration) = gone.registration else { return Ok(()) };
            let worker = registration.id;
            let is_its =
                |other: &OldSocket| other.registration.as_ref().is_some_and(|other| other.id == worker);
            let other = sockets.old_workers.values_mut().find(|other| is_its(other));
            let lives_on = other.is_some();
            if let Some(other) = other {
                other.session = other.session.max(gone.session);
            }
            ((!lives_on).then_some(worker), gone.session)
        };
        self.workers_changed(queue);
        let mut session = session;
        if let Some(worker) = &worker
            && let Some(newest) = session_of(queue, worker).filter(|newest| *newest > session)
        {
            // It was on another relay since, and may be there still: whether it is may be on its way.
            tokio::select! {
                () = tokio::time::sleep(ON_ITS_WAY) => {}
                () = self.stopping().cancelled() => {}
            }
            session = newest;
        }
        // A socket on another relay is one of its sockets too.
        let worker = worker.filter(|worker| !queue.elsewhere().has_old(worker));
        let Some(worker) = worker.filter(|_| !self.stopping().is_cancelled()) else { return Ok(()) };
        self.execute(queue, &Command::Closed { worker, session }).await?;
        Ok(())
    }

    fn claim_of(&self, queue: &OpenQueue, worker: &WorkerId, job: &JobId) -> Option<LeaseId> {
        let cache = queue.cache();
        let known = cache.record(job)?;
        let claim = known.value.lease().filter(|lease| lease.is_claim() && lease.worker == *worker)?;
        Some(claim.id.clone())
    }

    pub(crate) async fn claim_finish(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        job: &JobId,
        finishing: &Finishing,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let Some(run) = self.claim_of(queue, worker, job) else { return Ok(()) };
            let with = self.document_of(&run, finishing).await?;
            let command = Command::ClaimFinish {
                job: job.clone(),
                worker: worker.clone(),
                run: run.clone(),
                ending: finishing.ending().clone(),
            };
            match self.execute_with(queue, &command, with).await? {
                Reply::Finished { recorded: true, .. } => {
                    self.metrics.finished(Finish::Recorded);
                    return Ok(());
                }
                Reply::Stale => self.drop_document(&run, finishing).await?,
                _ => return self.drop_document(&run, finishing).await,
            }
        }
        Err(Error::Overtaken)
    }

    /// Lines count from the worker that runs the job, and only while it does.
    pub(crate) async fn claim_lines(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        worker: &WorkerId,
        job: &JobId,
        step: &LogStep,
        lines: Vec<LogLine>,
    ) -> Result<(), Error> {
        let run = {
            let cache = queue.cache();
            cache.record(job).and_then(|known| match &known.value.phase {
                Phase::Held(held) if held.is_claim() && held.worker == *worker => Some(held.id.clone()),
                _ => None,
            })
        };
        if let Some(run) = run {
            self.append_lines(queue, job, &run, step, None, lines).await?;
        }
        Ok(())
    }

    /// The job as lists show it, if they do.
    pub(crate) fn listed(&self, queue: &OpenQueue, job: &JobId) -> Option<JobObject> {
        let cache = queue.cache();
        let known = cache.record(job).filter(|known| is_shown(known.value))?;
        Some(job_object(known.value, Extra::default()))
    }

    /// The job as `QueryJob` finds it: here, or finished long ago, or answered by another queue.
    pub(crate) async fn found(
        &self,
        queue: &Arc<OpenQueue>,
        job: &JobId,
    ) -> Result<Option<JobObject>, Error> {
        let record = self.answering(Scope::Queue(queue), job).await?;
        Ok(record.filter(is_shown).map(|record| job_object(&record, Extra::default())))
    }

    /// The listed jobs that are wanted.
    pub(crate) fn list_of(
        &self,
        queue: &OpenQueue,
        mut wanted: impl FnMut(&JobId, &Record) -> bool,
    ) -> BTreeMap<JobId, JobObject> {
        let cache = queue.cache();
        cache
            .records()
            .filter(|(job, record)| is_shown(record) && wanted(job, record))
            .map(|(job, record)| (job.clone(), job_object(record, Extra::default())))
            .collect()
    }

    /// What an old worker may take, oldest first, and its own.
    pub(crate) fn work_for(
        &self,
        queue: &OpenQueue,
        worker: Option<&WorkerId>,
        limit: usize,
    ) -> BTreeMap<JobId, JobObject> {
        let cache = queue.cache();
        let own = cache.records().filter(|(_, record)| {
            let Some(worker) = worker else { return false };
            match &record.phase {
                Phase::Held(held) => held.is_claim() && held.worker == *worker,
                Phase::Done(outcome) => outcome.worker == worker.as_str(),
                Phase::Waiting { .. } | Phase::Granted(_) | Phase::LetGo(_) => false,
            }
        });
        let waiting = cache.waiting().take(limit);
        own.chain(waiting).map(|(job, record)| (job.clone(), job_object(record, Extra::default()))).collect()
    }
}

/// The newest session of the worker, on whichever relay.
fn session_of(queue: &OpenQueue, worker: &WorkerId) -> Option<u64> {
    let (cache, looked) = (queue.cache(), Looked::new());
    let sight = Sight { cache: &cache, looked: &looked };
    let known = sight.worker(worker).ok().flatten()?;
    Some(known.value.session)
}
