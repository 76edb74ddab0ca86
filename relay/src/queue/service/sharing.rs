//! Results that answer other queues (`jobs-and-states` 3.8): the first one recorded of a job is offered to all. It stays
//! readable as long as a queue shows it, whatever its maker deletes later: the garbage collection looks.

use std::sync::Arc;

use dockframe_shared::{JobId, LeaseId, QueueDigest};
use serde::{Deserialize, Serialize};

use super::{Error, Service};
use crate::queue::command::{Due, SharedAnswer};
use crate::queue::open::OpenQueue;
use crate::queue::record::{Holder, Outcome, Phase, Record, Source};
use crate::queue::view::{Entry, Key};
use crate::store::codec::{decode, decode_entry, encode};
use crate::store::{Commit, Committed, DocumentKey, StoreError, StoreWrite};

/// What a queue offers to others of one of its results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SharedRecord {
    /// Only a verified one answers other queues; any is read without a queue.
    pub verified: bool,
    pub run: LeaseId,
    pub queue: [u8; 32],
    pub record: Record,
}

impl Service {
    /// Another queue's result that may answer here (`jobs-and-states` 3.8).
    pub(super) async fn shared_answer(
        &self,
        queue: &OpenQueue,
        job: &JobId,
    ) -> Result<Option<SharedAnswer>, Error> {
        if !self.settings.shared_results || queue.cache().record(job).is_some() {
            return Ok(None);
        }
        let Some(shared) = self.shared(job).await? else { return Ok(None) };
        let Some(outcome) = shared.record.outcome().filter(|_| shared.verified) else { return Ok(None) };
        // The queue's own result, that has left its list, is no stranger's.
        let source = if shared.queue == *queue.digest.as_bytes() {
            Source::Run(shared.run.clone())
        } else {
            if !self.name_run(&shared.run).await? {
                return Ok(None);
            }
            Source::Shared(shared.run.clone())
        };
        let outcome = Outcome { source, ..outcome.clone() };
        Ok(Some(SharedAnswer { outcome, queued_time: shared.record.queued_time }))
    }

    pub(super) async fn shared(&self, job: &JobId) -> Result<Option<SharedRecord>, Error> {
        let bytes = self.store.document(DocumentKey::Shared(job.clone())).await?;
        Ok(bytes.map(|bytes| decode(&bytes)).transpose()?)
    }

    pub(super) async fn unshare(&self, job: &JobId, run: &LeaseId) -> Result<(), StoreError> {
        let key = DocumentKey::Shared(job.clone());
        let Some(bytes) = self.store.document(key.clone()).await? else { return Ok(()) };
        if decode::<SharedRecord>(&bytes)?.run == *run {
            self.store.remove_document(key, Some(bytes)).await?;
        }
        Ok(())
    }

    /// Offers a result to other queues once more, and takes back what this queue does not stand for any more, as a due
    /// entry asks for. The store alone is asked, and compares: another relay may have changed the record by now.
    pub(crate) async fn share_again(self: &Arc<Self>, queue: &Arc<OpenQueue>, due: Due) -> Result<(), Error> {
        let key = Key::Record(due.job.clone());
        let stored = self.store.read(queue.digest, key.clone()).await?;
        let entry = stored.as_ref().map(|stored| decode_entry(&key, &stored.bytes)).transpose()?;
        let offer = match &entry {
            Some(Entry::Record(record)) => shared_record(queue.digest, &due.job, record),
            _ => None,
        };
        let shared = DocumentKey::Shared(due.job.clone());
        let standing = self.store.document(shared.clone()).await?;
        let mut is_free = standing.is_none();
        if let Some(bytes) = standing {
            let standing: SharedRecord = decode(&bytes)?;
            let is_offered = offer.as_ref().is_some_and(|(_, offer)| offer.run == standing.run);
            if standing.queue == *queue.digest.as_bytes() && !is_offered {
                is_free = self.store.remove_document(shared, Some(bytes)).await?;
            }
        }
        let (Some((name, offer)), Some(stored), Some(entry), true) = (offer, stored, entry, is_free) else {
            return self.forget_due(queue, due).await;
        };
        // Written as it is, so that nothing is offered that was taken away a moment ago: the due entry stays then.
        let live = self.counts_as_live(&entry);
        let revision = stored.revision + 1;
        let write = StoreWrite {
            key: key.clone(),
            expected: stored.revision,
            revision,
            bytes: Some(stored.bytes),
            live,
        };
        let commit = Commit {
            queue: queue.digest,
            at: self.now(),
            writes: vec![write],
            due: Vec::new(),
            done: vec![due],
            documents: Vec::new(),
            offers: vec![(name, encode(&offer)?)],
        };
        if self.store.commit(commit).await? == Committed::Ok {
            queue.cache().put(&key, revision, Some(entry), live, self.now());
        }
        Ok(())
    }
}

/// What a finished record offers to others.
pub(super) fn shared_record(
    queue: QueueDigest,
    job: &JobId,
    record: &Record,
) -> Option<(DocumentKey, SharedRecord)> {
    let Phase::Done(outcome) = &record.phase else { return None };
    let Source::Run(run) = &outcome.source else { return None };
    let mut offered = record.clone();
    // What only this queue's people said of the job stays here.
    for holder in offered.holders.values_mut() {
        *holder = Holder::default();
    }
    offered.calls.clear();
    let shared = SharedRecord {
        verified: record.verified,
        run: run.clone(),
        queue: *queue.as_bytes(),
        record: offered,
    };
    Some((DocumentKey::Shared(job.clone()), shared))
}
