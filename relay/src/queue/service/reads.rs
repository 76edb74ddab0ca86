//! What can be read of a job: in a queue its own, else the shared one; without a queue the shared one, else that of
//! the queue that had it first (`jobs-and-states` 3.8, `relay-protocol` R-34).

use std::collections::BTreeMap;
use std::sync::Arc;

use dockframe_shared::job::{Definition, Finished, JobObject, ResultReason};
use dockframe_shared::protocol::LogKind;
use dockframe_shared::{JobId, LeaseId, Namespace, QueueDigest, QueueKey};
use serde_json::json;

use super::{Error, Service};
use crate::blobs::Lines;
use crate::queue::matching::{self, Machine};
use crate::queue::object::{Extra, is_shown, job_object, with_result};
use crate::queue::open::OpenQueue;
use crate::queue::record::{Outcome, Phase, Record, Source};
use crate::queue::view::{Entry, Key, Versioned};
use crate::store::codec::{decode, decode_entry};
use crate::store::{DocumentKey, StoreError};

/// Where a reader looks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    Queue(&'a Arc<OpenQueue>),
    /// `/j/{id}/…`: no queue named.
    Anywhere,
}

/// Places in line are told among the first so many.
const PLACES: usize = 1000;
/// Watchers' revisions have room for so many changes of what is derived: place and reason to wait.
const DERIVED: u64 = 1024;

/// The revision that watchers see: that of the record, and within it a count of what changed around it. It grows
/// with every change of the record, and stays below 2^53.
pub(crate) fn wire_revision(record: u64, derived: u64) -> u64 {
    record * DERIVED + derived.min(DERIVED - 1)
}

/// A log as `…-logs.json` tells it.
#[derive(Debug)]
pub(crate) struct Log {
    pub lines: Lines,
    pub is_final: bool,
}

impl Service {
    /// The record, from memory or from the store.
    pub(crate) async fn record(&self, queue: &OpenQueue, job: &JobId) -> Result<Option<Record>, Error> {
        Ok(self.versioned(queue, job).await?.map(|known| known.value))
    }

    async fn versioned(&self, queue: &OpenQueue, job: &JobId) -> Result<Option<Versioned<Record>>, Error> {
        {
            let cache = queue.cache();
            if let Some(known) = cache.record(job) {
                return Ok(Some(Versioned { revision: known.revision, value: known.value.clone() }));
            }
        }
        self.stored(queue.digest, job).await
    }

    async fn stored(&self, queue: QueueDigest, job: &JobId) -> Result<Option<Versioned<Record>>, Error> {
        let found = self.store.read(queue, Key::Record(job.clone())).await?;
        Ok(found
            .map(|stored| {
                let value = decode::<Record>(&stored.bytes)?;
                Ok::<_, StoreError>(Versioned { revision: stored.revision, value })
            })
            .transpose()?)
    }

    async fn home(&self, job: &JobId) -> Result<Option<QueueDigest>, Error> {
        let bytes = self.store.document(DocumentKey::Home(job.clone())).await?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(QueueDigest::from_bytes))
    }

    /// The record whose state, result and lines answer in this scope.
    pub(super) async fn answering(&self, scope: Scope<'_>, job: &JobId) -> Result<Option<Record>, Error> {
        match scope {
            Scope::Queue(queue) => {
                let own = self.record(queue, job).await?;
                let own_only = own.as_ref().is_some_and(|own| own.own_only);
                let answers = own.as_ref().is_some_and(|own| !matches!(own.phase, Phase::LetGo(_)));
                if answers || own_only || !self.settings.shared_results {
                    return Ok(own);
                }
                let shared = self.shared(job).await?.filter(|shared| shared.verified);
                Ok(shared.map(|shared| as_shared(shared.record)).or(own))
            }
            Scope::Anywhere => {
                if let Some(shared) = self.shared(job).await? {
                    return Ok(Some(shared.record));
                }
                let Some(home) = self.home(job).await? else { return Ok(None) };
                Ok(self.stored(home, job).await?.map(|known| known.value))
            }
        }
    }

    pub(crate) async fn definition(
        &self,
        scope: Scope<'_>,
        job: &JobId,
    ) -> Result<Option<Definition>, Error> {
        let mut found = self.store.document(DocumentKey::Definition(job.clone())).await?;
        if found.is_none() {
            let queue = match scope {
                Scope::Queue(queue) => Some(queue.digest),
                Scope::Anywhere => self.home(job).await?,
            };
            if let Some(queue) = queue {
                found = self.store.document(DocumentKey::OwnDefinition(queue, job.clone())).await?;
            }
        }
        let Some(bytes) = found else { return Ok(None) };
        let definition = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Corrupt(format!("a definition cannot be read: {error}")))?;
        Ok(Some(definition))
    }

    /// The finished job with its result, or nothing as long as there is none.
    pub(crate) async fn result(&self, scope: Scope<'_>, job: &JobId) -> Result<Option<JobObject>, Error> {
        let Some(record) = self.answering(scope, job).await? else { return Ok(None) };
        let Some(outcome) = record.outcome() else { return Ok(None) };
        let Some(finished) = self.finished(outcome).await? else { return Ok(None) };
        Ok(Some(with_result(&record, finished)))
    }

    async fn finished(&self, outcome: &Outcome) -> Result<Option<Finished>, Error> {
        match &outcome.source {
            Source::Relay(why) => Ok(Some(by_relay(outcome, why))),
            source => self.document_of_run(source).await,
        }
    }

    /// What a run's worker sent at its end.
    pub(super) async fn document_of_run(&self, source: &Source) -> Result<Option<Finished>, Error> {
        let (Source::Run(run) | Source::Shared(run)) = source else { return Ok(None) };
        let Some(bytes) = self.bytes_of_run(run).await? else { return Ok(None) };
        let finished = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Corrupt(format!("a result cannot be read: {error}")))?;
        Ok(Some(finished))
    }

    pub(super) async fn bytes_of_run(&self, run: &LeaseId) -> Result<Option<Vec<u8>>, Error> {
        match self.store.document(DocumentKey::Result(run.clone())).await? {
            Some(bytes) => Ok(Some(bytes)),
            None => Ok(self.documents.get(run).await?),
        }
    }

    pub(crate) async fn log(
        &self,
        scope: Scope<'_>,
        job: &JobId,
        kind: LogKind,
        since: u64,
    ) -> Result<Log, Error> {
        let record = self.answering(scope, job).await?;
        let is_final = record.as_ref().is_some_and(|record| !record.is_going());
        let run = record.as_ref().and_then(lines_of);
        let lines = match run {
            Some(run) => self.logs.read(run, kind, since, usize::MAX).await?,
            None => Lines { start: since, lines: Vec::new(), total: 0 },
        };
        Ok(Log { lines, is_final })
    }

    /// The job as a stream tells it, endings included, with the run whose lines are its lines: this queue's, else the
    /// shared one.
    pub(crate) async fn followed(
        &self,
        queue: &Arc<OpenQueue>,
        job: &JobId,
    ) -> Result<Option<(JobObject, Option<LeaseId>)>, Error> {
        let record = self.answering(Scope::Queue(queue), job).await?;
        Ok(record.map(|record| (job_object(&record, Extra::default()), lines_of(&record).cloned())))
    }

    /// Some lines of a run, for those who follow it.
    pub(crate) async fn lines_of_run(
        &self,
        run: &LeaseId,
        kind: LogKind,
        since: u64,
        limit: usize,
    ) -> Result<Lines, Error> {
        Ok(self.logs.read(run, kind, since, limit).await?)
    }

    /// All that lists show.
    pub(crate) fn list(&self, queue: &OpenQueue) -> BTreeMap<JobId, JobObject> {
        let cache = queue.cache();
        cache
            .records()
            .filter(|(_, record)| is_shown(record))
            .map(|(job, record)| (job.clone(), job_object(record, Extra::default())))
            .collect()
    }

    /// A page of the list: at most `limit` jobs whose ids come after `after`, and the last one's if there are more.
    pub(crate) fn list_page(
        &self,
        queue: &OpenQueue,
        after: Option<&str>,
        limit: usize,
    ) -> (BTreeMap<JobId, JobObject>, Option<JobId>) {
        let cache = queue.cache();
        let mut ids: Vec<&JobId> = cache
            .records()
            .filter(|(job, record)| is_shown(record) && after.is_none_or(|after| job.as_str() > after))
            .map(|(job, _)| job)
            .collect();
        ids.sort_unstable();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().filter(|_| more).map(|job| (*job).clone());
        let page = ids
            .into_iter()
            .filter_map(|job| Some((job.clone(), job_object(cache.record(job)?.value, Extra::default()))));
        (page.collect(), next)
    }

    /// How many wait and how many run in a queue. One that nobody uses is counted and not opened for it.
    pub(crate) async fn counts(self: &Arc<Self>, key: &QueueKey) -> Result<(usize, usize), Error> {
        let digest = key.digest();
        if let Some(queue) = self.open_queues().into_iter().find(|queue| queue.digest == digest) {
            self.catch_up(&queue).await?;
            return Ok(queue.cache().counts());
        }
        let (mut queued, mut running) = (0, 0);
        for (key, stored) in self.store.live(digest).await? {
            if let Entry::Record(record) = decode_entry(&key, &stored.bytes)? {
                match record.phase {
                    Phase::Waiting { .. } | Phase::Granted(_) => queued += 1,
                    Phase::Held(_) => running += 1,
                    Phase::Done(_) | Phase::LetGo(_) => {}
                }
            }
        }
        Ok((queued, running))
    }

    pub(crate) async fn namespaces(&self, queue: &OpenQueue, job: &JobId) -> Result<Vec<Namespace>, Error> {
        let record = self.record(queue, job).await?;
        Ok(record.into_iter().flat_map(|record| record.holders.into_keys()).collect())
    }

    /// The job for a watcher, with the run whose lines are its lines; `None`: unknown.
    ///
    /// A job that this queue never had is known when another queue's result would answer it (`jobs-and-states` 3.8); its
    /// revision is below that of any record.
    pub(crate) async fn watched(
        &self,
        queue: &Arc<OpenQueue>,
        job: &JobId,
    ) -> Result<Option<(JobObject, Option<LeaseId>)>, Error> {
        let Some(Versioned { revision, value: record }) = self.versioned(queue, job).await? else {
            let shared = self.answering(Scope::Queue(queue), job).await?;
            let extra = Extra { revision: Some(0), ..Extra::default() };
            return Ok(shared.map(|shared| (job_object(&shared, extra), lines_of(&shared).cloned())));
        };
        let extra = Extra { revision: Some(revision), ..self.extra(queue, job, &record) };
        Ok(Some((job_object(&record, extra), lines_of(&record).cloned())))
    }

    fn extra(&self, queue: &OpenQueue, job: &JobId, record: &Record) -> Extra {
        if !matches!(record.phase, Phase::Waiting { .. }) {
            return Extra::default();
        }
        let now = self.now();
        let machines = self.all_machines(queue);
        let elsewhere = queue.elsewhere().workers().filter(|worker| worker.leases.is_none()).count();
        let old = queue.sockets().old_worker_count() + elsewhere;
        let declined = |machine: &Machine| queue.declined(job, &machine.worker, &machine.instance, now);
        let reason = matching::wait_reason(&record.needs, &machines, old, declined);
        let place = queue.cache().place(job, PLACES);
        Extra { wait_reason: reason, place, revision: None }
    }
}

/// The run whose lines are the job's.
fn lines_of(record: &Record) -> Option<&LeaseId> {
    match &record.phase {
        Phase::Done(outcome) => outcome.run().or(record.run.as_ref()),
        _ => record.run.as_ref(),
    }
}

/// Another queue's record, as an answer here.
fn as_shared(mut record: Record) -> Record {
    if let Phase::Done(outcome) = &mut record.phase
        && let Source::Run(run) = &outcome.source
    {
        outcome.source = Source::Shared(run.clone());
    }
    record.holders.clear();
    record
}

/// The result of a job that the relay ended itself.
fn by_relay(outcome: &Outcome, why: &str) -> Finished {
    let mut finished = Finished::new(outcome.reason.into(), outcome.time);
    finished.worker = (!outcome.worker.is_empty()).then(|| outcome.worker.clone());
    finished.result = Some(json!({
        "logs": [],
        "error": why,
        "isTimedOut": outcome.reason == ResultReason::TimedOut,
        "outputs": {},
    }));
    finished
}
