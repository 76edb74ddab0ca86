//! What can be asked of the core, and what it answers.

use dockframe_shared::job::{Rerun, ResultReason};
use dockframe_shared::protocol::RevokeWhy;
use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, NamespaceSelector, Timestamp, WorkerId};
use serde_json::Value;

use super::record::{Call, EndReason, Holder, Hook, Needs, Outcome, Record};
use super::view::{Entry, Key};

/// One wish to change something in a queue.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Submit(Box<Submit>),
    LetGo {
        job: JobId,
        why: EndReason,
        who: Who,
        message: Option<String>,
    },
    Grant {
        job: JobId,
        worker: WorkerId,
        instance: InstanceId,
        session: u64,
    },
    Accept {
        lease: LeaseId,
        worker: WorkerId,
    },
    Decline {
        lease: LeaseId,
        worker: WorkerId,
    },
    Finish {
        lease: LeaseId,
        worker: WorkerId,
        ending: Ending,
    },
    Register {
        worker: WorkerId,
        instance: InstanceId,
        first: bool,
        leases: Vec<LeaseId>,
    },
    /// The socket of this session closed without saying that the worker comes back.
    Closed {
        worker: WorkerId,
        session: u64,
    },
    /// An old worker's registration, or a sign of its life.
    OldWorker {
        worker: WorkerId,
        first: bool,
    },
    /// An old worker takes a job (`jobs-and-states` 8.8).
    Claim {
        job: JobId,
        worker: WorkerId,
        time: Timestamp,
    },
    /// An old worker's result. `run` is the document it was written to.
    ClaimFinish {
        job: JobId,
        worker: WorkerId,
        run: LeaseId,
        ending: Ending,
    },
    /// An old worker gives a claim back.
    ClaimLost {
        job: JobId,
        worker: WorkerId,
    },
    /// Takes callbacks that are due, so that nobody else makes them at the same time.
    TakeCalls {
        job: JobId,
        at_most: usize,
    },
    /// What became of a callback that was taken.
    Called {
        job: JobId,
        id: String,
        outcome: Called,
    },
    /// A worker that was not heard of for very long, and holds nothing, is not remembered any more.
    ForgetWorker {
        worker: WorkerId,
    },
    /// Time passed: do what is due for this job.
    /// Nothing of a worker is judged lost earlier than its time after `healthy_since`: since then this relay could
    /// have heard of it.
    Look {
        job: JobId,
        healthy_since: Timestamp,
        another_free: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    /// The receiver has it, or does not want it.
    Over,
    /// It may be there another time.
    Again,
}

#[derive(Debug, Clone)]
pub(crate) struct Submit {
    pub job: JobId,
    pub verified: bool,
    pub namespace: Namespace,
    pub holder: Holder,
    /// To be called for the job's queueing.
    pub queued_callback: Option<Hook>,
    pub rerun: Option<Rerun>,
    pub debug: Option<bool>,
    pub tags: Option<Value>,
    pub requirements: Option<Value>,
    pub needs: Needs,
    /// The answer of another queue, if there is one and it may count.
    pub shared: Option<SharedAnswer>,
}

/// A result of another queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedAnswer {
    pub outcome: Outcome,
    pub queued_time: Timestamp,
}

/// For whom a job ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Who {
    These(NamespaceSelector),
    /// The namespaces under which this sender submitted it.
    Own(Vec<Namespace>),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// With a result, whose document is written.
    Result { reason: ResultReason, time: Timestamp },
    /// What came could not be read: the job waits again.
    Unreadable(String),
}

/// Source of ids, given from outside so that decisions can be repeated.
pub(crate) trait Ids {
    /// Unique for ever, unguessable.
    fn lease(&mut self) -> LeaseId;

    /// Another number each time, for a while: tells what was made anew from what was there before.
    fn nonce(&mut self) -> u64;
}

/// What is to be written, when to look again, whom to tell, what to answer.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub writes: Vec<Write>,
    pub due: Vec<Due>,
    pub effects: Vec<Effect>,
    /// What it was decided on, with revisions.
    pub reads: Vec<(Key, u64)>,
    pub reply: Reply,
}

impl Decision {
    /// Whether what it only read has to be compared too, where others write as well. One that writes nothing is
    /// compared with nothing; and a look that overlooks something takes the due entry away all the same.
    pub(crate) fn hangs_on_reads(&self, command: &Command) -> bool {
        self.writes.is_empty() || matches!(command, Command::Look { .. })
    }

    /// The jobs whose result is offered to other queues, each with its record as it is written.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&JobId, &Record)> {
        self.effects.iter().filter_map(|effect| {
            let Effect::Share(job) = effect else { return None };
            self.writes.iter().find_map(|write| match (&write.key, &write.entry) {
                (Key::Record(key), Some(Entry::Record(record))) if key == job => Some((job, &**record)),
                _ => None,
            })
        })
    }
}

/// One compare-and-set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub key: Key,
    /// 0: must be absent.
    pub expected: u64,
    pub revision: u64,
    /// `None`: taken away.
    pub entry: Option<Entry>,
    /// Whether it is in the queue's index of live things.
    pub live: bool,
}

/// A time at which something has to be done for a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub at: Timestamp,
    pub what: DueKind,
    pub job: JobId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DueKind {
    /// Look at the record.
    Look,
    /// Offer the result to other queues.
    Share,
    /// Make the open callbacks.
    Callbacks,
}

/// What follows from a committed decision. All of it can be derived again from what is committed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// The job changed: tell those who watch.
    Changed(JobId),
    /// A job left by an ending without result: old peers need a full list.
    Ended(JobId),
    /// There may be something to grant.
    Wake,
    Grant {
        worker: WorkerId,
        session: u64,
        job: JobId,
        lease: LeaseId,
        attempt: u32,
        deadline_ms: i64,
    },
    Revoke {
        worker: WorkerId,
        lease: LeaseId,
        why: RevokeWhy,
    },
    /// Old workers drop what they keep for the job.
    ClearCache {
        job: JobId,
        namespace: Namespace,
    },
    /// Documents and logs of a run are needed no more.
    DropRun(LeaseId),
    /// Offer the result to other queues.
    Share(JobId),
    /// Take the shared answer back, if this run gave it.
    Unshare {
        job: JobId,
        run: LeaseId,
    },
    /// There are callbacks to be made.
    Callbacks(JobId),
}

/// What the sender is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Reply {
    /// Nothing changed, nothing to say.
    #[default]
    Nothing,
    /// Done; the record's revision.
    Done {
        revision: u64,
    },
    /// The queue does not have the job.
    Unknown,
    /// The job has ended already.
    AlreadyEnded {
        revision: u64,
    },
    Registered {
        session: u64,
        revoked: Vec<LeaseId>,
    },
    /// The lease is not current.
    NotCurrent,
    Finished {
        recorded: bool,
        why: Option<String>,
    },
    /// The session is not the worker's current one any more.
    Stale,
    /// Callbacks to be made now.
    Calls(Vec<Call>),
    /// A callback that was owed for too long is not tried again.
    GivenUp,
}
