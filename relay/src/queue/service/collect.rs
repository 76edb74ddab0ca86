//! Garbage collection: what no record needs any more goes (`jobs-and-states` 5.2).
//!
//! Records go by their own due entries. What they point to stands outside: definitions, results, log lines, uploaded
//! files; several records, of several queues, may need the same one, and a crash may leave some that nobody ever
//! pointed to. So it is looked through as a whole: **list** what may go, **mark** what the records need, page by
//! page, **sweep** the rest. Needed are: of every record its definition, its runs' results, and the files that these
//! speak of; the lines of a run while its job goes on, and for a week after.
//!
//! It runs beside everything else, on every relay at once if need be, and may end anywhere:
//! - only what was there before the marking began is swept, so what is made meanwhile is safe;
//! - what is needed anew meanwhile is *named* before its record is written (a submission names its definition, the
//!   result that answers it and its files), and what was named since the beginning is not swept;
//! - an uploaded file counts as wanted for four weeks after it was uploaded, asked for or named, with no record.
//!
//! The memory it takes is bounded: where there is much, it goes in slices.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::{JobId, LeaseId, QueueDigest, Timestamp, WorkerId};

use super::{Error, Service};
use crate::blobs::{keys_in, run_name, shards};
use crate::queue::command::Command;
use crate::queue::record::{Event, Phase, Record, WorkerRecord};
use crate::queue::timing::{KEPT, LISTED, LOGS_KEPT, WORKER_KEPT};
use crate::queue::view::{Entry, Key};
use crate::store::DocumentKey;
use crate::store::codec::decode_entry;
use crate::store::collect::Cursor;

/// Whoever named something has committed what needs it within this time.
pub(crate) const SETTLED: Duration = Duration::from_secs(20);
/// Things looked through at once.
const PAGE: usize = 500;
/// After each page others have their turn.
const PAUSE: Duration = Duration::from_millis(2);
/// Things of one slice, about.
const SLICE: u64 = 500_000;

/// What a collection took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Definitions and small results.
    pub documents: u64,
    /// Large results.
    pub results: u64,
    /// Runs whose lines went.
    pub logs: u64,
    pub files: u64,
    pub workers: u64,
}

/// Kinds of things that are swept; part of what they are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Document,
    Result,
    Log,
    File,
}

impl Service {
    /// Looks through everything once. `settled`: how long to wait until what was named before is committed.
    pub(crate) async fn collect(self: &Arc<Self>, settled: Duration) -> Result<Collected, Error> {
        self.store.collect().begin();
        let collected = self.collect_begun(settled).await;
        self.store.collect().end();
        collected
    }

    async fn collect_begun(self: &Arc<Self>, settled: Duration) -> Result<Collected, Error> {
        let since = self.now();
        tokio::time::sleep(settled).await;
        self.store.collect().settle().await?;
        let slices = 1 + self.store.collect().count().await? / SLICE;
        let state = RandomState::new();
        let mut all = Collected::default();
        for number in 0..slices {
            let slice = Slice { service: self, since, state: &state, number, slices };
            slice.collect(&mut all).await?;
        }
        self.blobs.clear_incoming().await?;
        Ok(all)
    }

    /// A run of another queue is about to answer here: its result and lines are kept. Whether the result is there.
    pub(super) async fn name_run(&self, run: &LeaseId) -> Result<bool, Error> {
        self.logs.name(run).await?;
        Ok(self.store.collect().name(DocumentKey::Result(run.clone())).await?
            || self.documents.name(run, self.now())?)
    }
}

/// One part of everything, told apart by what it is named.
struct Slice<'a> {
    service: &'a Arc<Service>,
    since: Timestamp,
    state: &'a RandomState,
    number: u64,
    slices: u64,
}

/// What may go, unless a record needs it.
type Suspects = HashSet<u64>;

impl Slice<'_> {
    async fn collect(&self, all: &mut Collected) -> Result<(), Error> {
        let mut suspects = self.list().await?;
        // Files are the only thing for which documents have to be read.
        let has_files = suspects.files;
        self.mark(&mut suspects.hashes, has_files, all).await?;
        if suspects.hashes.is_empty() {
            return Ok(());
        }
        self.sweep(&suspects.hashes, all).await
    }

    /// What tells a thing apart, if it belongs to this slice. Two things that are taken for one are kept as long as
    /// one of them is needed, or until the next collection.
    fn hash(&self, kind: Kind, name: &[u8]) -> Option<u64> {
        let hash = self.state.hash_one((kind, name));
        (hash % self.slices == self.number).then_some(hash)
    }

    fn unwanted_since(&self) -> Timestamp {
        self.since.plus_millis(-KEPT)
    }

    async fn list(&self) -> Result<Listed, Error> {
        let mut listed = Listed::default();
        let mut after = None;
        loop {
            let page = self.service.store.collect().documents(after, PAGE).await?;
            listed.hashes.extend(page.items.iter().filter_map(|name| self.hash(Kind::Document, name)));
            after = page.next;
            if !pause(&after).await {
                break;
            }
        }
        loop {
            let page = self.service.logs.runs(after, PAGE).await?;
            listed.hashes.extend(page.items.iter().filter_map(|run| self.hash(Kind::Log, run.as_bytes())));
            after = page.next;
            if !pause(&after).await {
                break;
            }
        }
        for shard in shards() {
            let results = self.service.documents.unnamed(&shard, self.since).await?;
            listed.hashes.extend(results.iter().filter_map(|run| self.hash(Kind::Result, run.as_bytes())));
            let files = self.service.blobs.unwanted(&shard, self.unwanted_since()).await?;
            let files = files.iter().filter_map(|name| self.hash(Kind::File, name.as_bytes()));
            let before = listed.hashes.len();
            listed.hashes.extend(files);
            listed.files |= listed.hashes.len() > before;
        }
        Ok(listed)
    }

    /// Goes through the records of all queues, and takes what they need off the list.
    async fn mark(&self, suspects: &mut Suspects, has_files: bool, all: &mut Collected) -> Result<(), Error> {
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.service.store.collect().entries(after, PAGE).await?;
            for (queue, key, stored) in page.items {
                match (&key, decode_entry(&key, &stored.bytes)?) {
                    (Key::Record(job), Entry::Record(record)) => {
                        self.mark_record(suspects, queue, job, &record);
                        if has_files {
                            self.mark_files(suspects, queue, job, &record).await?;
                        }
                    }
                    (Key::Worker(worker), Entry::Worker(known)) => {
                        all.workers += u64::from(self.forget_worker(queue, worker, &known).await?);
                    }
                    _ => {}
                }
            }
            after = page.next;
            if !pause(&after).await {
                return Ok(());
            }
        }
    }

    fn mark_record(&self, suspects: &mut Suspects, queue: QueueDigest, job: &JobId, record: &Record) {
        let store = self.service.store.collect();
        let mut take = |kind: Kind, name: &[u8]| {
            if let Some(hash) = self.hash(kind, name) {
                suspects.remove(&hash);
            }
        };
        for document in [
            DocumentKey::Definition(job.clone()),
            DocumentKey::OwnDefinition(queue, job.clone()),
            DocumentKey::Home(job.clone()),
        ] {
            take(Kind::Document, &store.name_of(&document));
        }
        let ended = record.listed_until.plus_millis(-LISTED).max(record.time);
        let has_lines = record.is_going() || self.since < ended.plus_millis(LOGS_KEPT);
        for run in runs_of(record) {
            let name = run_name(run);
            take(Kind::Document, &store.name_of(&DocumentKey::Result(run.clone())));
            take(Kind::Result, name.as_bytes());
            if has_lines {
                take(Kind::Log, name.as_bytes());
            }
        }
    }

    async fn mark_files(
        &self,
        suspects: &mut Suspects,
        queue: QueueDigest,
        job: &JobId,
        record: &Record,
    ) -> Result<(), Error> {
        let service = self.service;
        let mut documents = Vec::new();
        for key in [DocumentKey::Definition(job.clone()), DocumentKey::OwnDefinition(queue, job.clone())] {
            documents.extend(service.store.document(key).await?);
        }
        for run in results_of(record) {
            documents.extend(service.bytes_of_run(run).await?);
        }
        for key in documents.iter().flat_map(|document| keys_in(document)) {
            if let Some(hash) = self.hash(Kind::File, key.file_name().as_bytes()) {
                suspects.remove(&hash);
            }
        }
        Ok(())
    }

    async fn forget_worker(
        &self,
        queue: QueueDigest,
        worker: &WorkerId,
        known: &WorkerRecord,
    ) -> Result<bool, Error> {
        // Once in a collection, whatever its slices.
        if self.number > 0 || self.since < known.live_until.plus_millis(WORKER_KEPT) {
            return Ok(false);
        }
        let queue = self.service.open_digest(queue).await?;
        self.service.execute(&queue, &Command::ForgetWorker { worker: worker.clone() }).await?;
        Ok(true)
    }

    async fn sweep(&self, suspects: &Suspects, all: &mut Collected) -> Result<(), Error> {
        let is_left =
            |kind: Kind, name: &[u8]| self.hash(kind, name).is_some_and(|hash| suspects.contains(&hash));
        let service = self.service;
        let mut after = None;
        loop {
            let page = service.store.collect().documents(after, PAGE).await?;
            let left = page.items.into_iter().filter(|name| is_left(Kind::Document, name)).collect();
            all.documents += service.store.collect().remove_unnamed(left, self.since).await?;
            after = page.next;
            if !pause(&after).await {
                break;
            }
        }
        loop {
            let page = service.logs.runs(after, PAGE).await?;
            let left = page.items.into_iter().filter(|run| is_left(Kind::Log, run.as_bytes())).collect();
            all.logs += service.logs.remove_unnamed(left, self.since).await?;
            after = page.next;
            if !pause(&after).await {
                break;
            }
        }
        for shard in shards() {
            for run in service.documents.unnamed(&shard, self.since).await? {
                if is_left(Kind::Result, run.as_bytes()) {
                    let gone = service.documents.remove_unnamed(&shard, &run, self.since).await?;
                    all.results += u64::from(gone);
                }
            }
            for name in service.blobs.unwanted(&shard, self.unwanted_since()).await? {
                if is_left(Kind::File, name.as_bytes()) {
                    let gone = service.blobs.remove_unwanted(&name, self.unwanted_since()).await?;
                    all.files += u64::from(gone);
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Listed {
    hashes: Suspects,
    /// There are files among them.
    files: bool,
}

/// Whether there is more, after a moment for others.
async fn pause(next: &Option<Cursor>) -> bool {
    if next.is_some() {
        tokio::time::sleep(PAUSE).await;
    }
    next.is_some()
}

/// All runs that a record speaks of.
fn runs_of(record: &Record) -> impl Iterator<Item = &LeaseId> {
    let called = record.calls.iter().filter_map(|call| match &call.event {
        Event::Finished { run, .. } => run.as_ref(),
        Event::Queued => None,
    });
    let lease = record.lease().map(|lease| &lease.id);
    record.run.iter().chain(lease).chain(results_of(record)).chain(called)
}

/// The runs whose results it shows, or will show again.
fn results_of(record: &Record) -> impl Iterator<Item = &LeaseId> {
    let done = match &record.phase {
        Phase::Done(outcome) => Some(outcome),
        _ => None,
    };
    done.into_iter().chain(&record.previous).filter_map(|outcome| outcome.run())
}

#[cfg(test)]
mod tests;
