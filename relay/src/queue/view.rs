//! What the core sees: records, workers and namespaces of one queue, each with its revision.
//!
//! A view may be incomplete. The core then answers [`Need`], the shell loads what is missing and asks again; so
//! a decision is always made on what the store has, without the core knowing that there is one.

use dockframe_shared::{JobId, LeaseId, Namespace, WorkerId};

use super::record::{Record, Slot, WorkerRecord};

/// Name of something that is kept under a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Record(JobId),
    Slot(Namespace),
    Worker(WorkerId),
    /// A recorded run: which job it was of.
    Run(LeaseId),
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Record(Box<Record>),
    Slot(Slot),
    Worker(WorkerRecord),
    Run(JobId),
}

/// A value with the revision that a compare-and-set expects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Versioned<T> {
    pub revision: u64,
    pub value: T,
}

/// The core cannot decide without this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need(pub(crate) Key);

/// `Ok(None)`: known to be absent.
pub(crate) type Seen<'a, T> = Result<Option<Versioned<&'a T>>, Need>;

/// What is known of one queue.
pub(crate) trait View {
    fn record(&self, job: &JobId) -> Seen<'_, Record>;
    fn slot(&self, namespace: &Namespace) -> Seen<'_, Slot>;
    fn worker(&self, worker: &WorkerId) -> Seen<'_, WorkerRecord>;
    /// The job in whose slot this lease is, or whose recorded result came of it.
    fn job_of(&self, lease: &LeaseId) -> Result<Option<JobId>, Need>;
    /// All jobs with a lease of this worker in their slot. Live records are always known.
    fn leased_to(&self, worker: &WorkerId) -> Vec<JobId>;
}
