//! What is kept of one job in one queue, and of one worker and one namespace there.
//!
//! A record holds everything that one decision about its job needs. The phase carries the lease slot, so that no
//! lease can outlive what it was for: whatever ends, deletes or grants the job anew replaces both together
//! (`jobs-and-states` 8). Large things (definition, result, logs) are documents that the record points to.
//!
//! A queue may have a hundred thousand jobs waiting, all of them in memory: what a waiting job does not have is behind
//! a pointer.

use std::collections::BTreeMap;

use dockframe_shared::job::{FinishReason, Requirements, ResultReason};
use dockframe_shared::{InstanceId, JobId, LeaseId, Namespace, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::holders::Holders;
use super::rare::{Rare, Usual};

/// One job in one queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Relay's clock when the job was queued; decides the order of work.
    pub queued_time: Timestamp,
    /// Of the last change, as shown.
    pub time: Timestamp,
    pub phase: Phase,
    /// The result that a rerun is to replace: readable until then, back again when the rerun is let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<Outcome>>,
    /// Who wants the job: it ends when nobody is left.
    pub holders: Holders,
    /// The id is the definition's digest, so the job may be answered by, and answer, other queues.
    pub verified: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Box<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Box<Value>>,
    /// What it wants of a machine, read from tags and requirements once.
    #[serde(default)]
    pub needs: Rare<Needs>,
    /// Grants so far; for people.
    #[serde(default)]
    pub attempt: u32,
    /// Leases that expired and were not resumed.
    #[serde(default)]
    pub losses: u8,
    /// The run whose log lines are the job's: of the current or the last lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Rare<Option<LeaseId>>,
    /// An ended job is in lists until then.
    #[serde(default)]
    pub listed_until: Timestamp,
    /// What is still to be told to somebody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Rare<Vec<Call>>,
    /// The shared answer does not count here: the job was deleted or rerun in this queue.
    #[serde(default)]
    pub own_only: bool,
}

/// Where the job is, with what belongs to that alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Waits for a worker. An expired lease may still come back until something replaces it.
    Waiting { expired: Option<Box<Lease>> },
    /// Offered to a worker; to clients still queued.
    Granted(Box<Lease>),
    /// A worker has it.
    Held(Box<Lease>),
    /// It has a result.
    Done(Box<Outcome>),
    /// It ended without one, or is a mark that it was deleted here.
    LetGo(Box<LetGo>),
}

/// One run of the job by one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub id: LeaseId,
    pub worker: WorkerId,
    /// Missing: a claim of the old way, which lives as long as its worker's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Of a claim: when it was made, as its worker says. It says so again when it comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Timestamp>,
    pub attempt: u32,
    /// Number of the worker's session in which it was granted.
    pub session: u64,
    pub granted: Timestamp,
    /// When it was accepted; meaningless before.
    #[serde(default)]
    pub accepted: Timestamp,
    /// Not lost before then, whatever its worker's record says.
    pub live_until: Timestamp,
    /// Longest time from the accept.
    pub deadline_ms: i64,
}

impl Lease {
    pub(crate) fn is_claim(&self) -> bool {
        self.instance.is_none()
    }
}

/// A result, and where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub reason: ResultReason,
    /// As its worker says.
    pub time: Timestamp,
    /// The claimer, as lists show it.
    pub worker: String,
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// The document of this run, in this queue.
    Run(LeaseId),
    /// The document of a run in another queue. It stays as long as this one needs it.
    Shared(LeaseId),
    /// The relay ended it, and this is why.
    Relay(String),
}

impl Outcome {
    pub(crate) fn run(&self) -> Option<&LeaseId> {
        match &self.source {
            Source::Run(run) | Source::Shared(run) => Some(run),
            Source::Relay(_) => None,
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.source, Source::Shared(_))
    }
}

/// An ending without result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LetGo {
    pub why: EndReason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// An old worker's claim that was current at the end: it may say so once more, and is not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndReason {
    Cancelled,
    Replaced,
    Deleted,
}

impl From<EndReason> for FinishReason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Cancelled => Self::Cancelled,
            EndReason::Replaced => Self::JobReplacedByClient,
            EndReason::Deleted => Self::Deleted,
        }
    }
}

/// One namespace's hold on the job (`jobs-and-states` 4).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Its number in the namespace; 0 in the default one, which counts nothing.
    pub number: u64,
    pub since: Timestamp,
    #[serde(default)]
    pub priority: i8,
    /// A duration such as `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Rare<Option<String>>,
    /// Until the job ends for this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_callback: Option<Box<Hook>>,
    /// The end that the job has now was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// Where to tell of an event, what to say, and the queue's name: sealed, since no name may be read in a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hook {
    #[serde(default)]
    pub sealed: String,
}

/// A callback that is owed (`jobs-and-states` 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The same at every attempt, so that a receiver knows what it has heard before.
    pub id: String,
    pub namespace: Namespace,
    pub event: Event,
    pub hook: Hook,
    /// Since when it is owed.
    pub since: Timestamp,
    #[serde(default)]
    pub attempts: u32,
    /// Not to be tried before then.
    pub next: Timestamp,
}

/// What a callback tells of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    Queued,
    /// `run`: whose document is the result, if there is one.
    Finished {
        reason: FinishReason,
        run: Option<LeaseId>,
    },
}

/// What a job wants of a machine, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Needs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    #[serde(default)]
    pub gpus: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The job's own limit on its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration_ms: Option<i64>,
}

impl Usual for Needs {
    const USUAL: &'static Self =
        &Self { cpus: None, gpus: 0.0, memory_bytes: None, tags: Vec::new(), max_duration_ms: None };
}

impl Needs {
    /// Wishes that cannot be read count as none: the worker tells the user which one is wrong.
    pub(crate) fn read(requirements: &Requirements, tags: Vec<String>, max_duration: Option<&str>) -> Self {
        let wish = |amount: f64| (amount.is_finite() && amount > 0.0).then_some(amount);
        let duration = |text: &str| crate::limits::duration_ms(text);
        Self {
            cpus: requirements.cpus.and_then(|cpus| wish(cpus.0)),
            gpus: requirements.gpus.and_then(|gpus| wish(gpus.0)).unwrap_or(0.0),
            memory_bytes: requirements.memory.as_deref().and_then(crate::limits::bytes),
            tags,
            max_duration_ms: [max_duration, requirements.max_duration.as_deref()]
                .into_iter()
                .flatten()
                .filter_map(duration)
                .min(),
        }
    }
}

// One more word is almost a megabyte for a hundred thousand jobs: keep rare things behind a pointer.
const _: () = assert!(size_of::<Record>() <= 152);

impl Record {
    /// In lists, in the live index and in memory.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_) => true,
            Phase::Done(_) => now < self.listed_until,
            Phase::LetGo(_) => false,
        }
    }

    /// Not ended.
    pub(crate) fn is_going(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_))
    }

    /// The lease in the slot, whatever its state.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Waiting { expired } => expired.as_deref(),
            Phase::Granted(lease) | Phase::Held(lease) => Some(lease),
            Phase::Done(_) | Phase::LetGo(_) => None,
        }
    }

    /// The lease that takes a worker's room.
    pub(crate) fn active_lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Granted(lease) | Phase::Held(lease) => Some(lease),
            Phase::Waiting { .. } | Phase::Done(_) | Phase::LetGo(_) => None,
        }
    }

    /// The result that stands: the job's own end, or the one that a rerun has not replaced yet.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Done(outcome) => Some(outcome),
            _ => self.previous.as_deref(),
        }
    }

    /// The highest priority of those who want it.
    pub(crate) fn priority(&self) -> i8 {
        self.holders.values().map(|holder| holder.priority).max().unwrap_or(0)
    }
}

/// What is known of a worker in one queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Raised by each first registration of a socket.
    pub session: u64,
    /// Its leases live until then: one renewal is one write, however many leases there are.
    pub live_until: Timestamp,
    /// When the socket of this session closed without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
}

/// One namespace of one queue, other than the default one: who was submitted to it last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub last: u64,
    /// The jobs in it that are live or listed.
    pub holders: BTreeMap<JobId, Place>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub number: u64,
    /// When a newer one came: after a delay by its age then, it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<Timestamp>,
}

impl Slot {
    /// Whether a later submission to this namespace still stands.
    pub(crate) fn supersedes(&self, job: &JobId) -> bool {
        let Some(place) = self.holders.get(job) else { return false };
        self.holders.values().any(|other| other.number > place.number)
    }
}
