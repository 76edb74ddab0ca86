//! Relay to clients and workers (`relay-protocol` 3.8, 3.13, `jobs-and-states` 8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::worker::LogStep;
use super::{BadFrame, Envelope, Registration};
use crate::ids::{JobId, LeaseId, Namespace};
use crate::job::{Control, Definition, JobObject, LogLine};
use crate::number::Amount;
use crate::problem::Problem;

/// What the relay says. `Hello` has one shape for workers and one for clients; the reader knows which it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "payload")]
pub enum RelayMessage {
    /// The bare word `PONG`, to workers followed by their id.
    #[serde(skip)]
    Pong(Option<String>),
    /// The whole table of a queue.
    JobStates(Jobs),
    /// Changed jobs; `None` (JSON `null`): unknown, to watchers only.
    JobStateUpdates(WatchedJobs),
    Workers(Workers),
    JobStatusPayload(LogLines),
    StatusRequest,
    #[serde(rename_all = "camelCase")]
    ClearJobCache {
        job_id: JobId,
        namespace: Namespace,
    },
    BroadcastJobDefinitions(Definitions),
    #[serde(rename = "Hello")]
    ClientHello(ClientHello),
    QueueSummary(QueueSummary),
    Done(Done),
    #[serde(rename = "Hello")]
    WorkerHello(WorkerHello),
    LeaseGrant(Box<LeaseGrant>),
    LeaseRevoke(LeaseRevoke),
    LeaseFinished(LeaseFinished),
}

impl RelayMessage {
    /// # Errors
    /// A frame that means nothing to client or worker.
    pub fn read(text: &str) -> Result<Self, BadFrame> {
        if let Some(rest) = text.strip_prefix("PONG") {
            let id = rest.trim();
            return Ok(Self::Pong((!id.is_empty()).then(|| id.to_owned())));
        }
        let envelope = Envelope::read(text)?;
        match &*envelope.kind {
            "JobStates" => envelope.payload().map(Self::JobStates),
            "JobStateUpdates" => envelope.payload().map(Self::JobStateUpdates),
            "Workers" => envelope.payload().map(Self::Workers),
            "JobStatusPayload" => envelope.payload().map(Self::JobStatusPayload),
            "StatusRequest" => Ok(Self::StatusRequest),
            "ClearJobCache" => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Payload {
                    job_id: JobId,
                    #[serde(default)]
                    namespace: Option<Namespace>,
                }
                envelope.payload().map(|Payload { job_id, namespace }| Self::ClearJobCache {
                    job_id,
                    namespace: namespace.unwrap_or_default(),
                })
            }
            "BroadcastJobDefinitions" => envelope.payload().map(Self::BroadcastJobDefinitions),
            // A worker's `Hello` has a time to live, a client's has not.
            "Hello" => envelope
                .payload()
                .map(Self::WorkerHello)
                .or_else(|_| envelope.payload().map(Self::ClientHello)),
            "QueueSummary" => envelope.payload().map(Self::QueueSummary),
            "Done" => envelope.payload().map(Self::Done),
            "LeaseGrant" => envelope.payload().map(Self::LeaseGrant),
            "LeaseRevoke" => envelope.payload().map(Self::LeaseRevoke),
            "LeaseFinished" => envelope.payload().map(Self::LeaseFinished),
            _ => Err(BadFrame::UnknownType),
        }
    }

    /// As [`RelayMessage::read`], for clients alone: the readers of workers' messages would be dead weight in a page.
    ///
    /// # Errors
    /// A frame that means nothing to a client.
    pub fn read_as_client(text: &str) -> Result<Self, BadFrame> {
        if text == "PONG" {
            return Ok(Self::Pong(None));
        }
        let envelope = Envelope::read(text)?;
        match &*envelope.kind {
            "JobStates" => envelope.payload().map(Self::JobStates),
            "JobStateUpdates" => envelope.payload().map(Self::JobStateUpdates),
            "Workers" => envelope.payload().map(Self::Workers),
            "JobStatusPayload" => envelope.payload().map(Self::JobStatusPayload),
            "Hello" => envelope.payload().map(Self::ClientHello),
            "QueueSummary" => envelope.payload().map(Self::QueueSummary),
            "Done" => envelope.payload().map(Self::Done),
            _ => Err(BadFrame::UnknownType),
        }
    }
}

/// `{state: {jobs}, isSubset: false}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jobs {
    pub state: Table<JobObject>,
    #[serde(default)]
    pub is_subset: bool,
}

/// `{state: {jobs}, isSubset: true}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedJobs {
    pub state: Table<Option<JobObject>>,
    #[serde(default)]
    pub is_subset: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table<T> {
    pub jobs: BTreeMap<JobId, T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { jobs: BTreeMap::new() }
    }
}

impl Jobs {
    /// The full list of a queue.
    #[must_use]
    pub fn all(jobs: BTreeMap<JobId, JobObject>) -> Self {
        Self { state: Table { jobs }, is_subset: false }
    }
}

impl WatchedJobs {
    #[must_use]
    pub fn new(jobs: BTreeMap<JobId, Option<JobObject>>) -> Self {
        Self { state: Table { jobs }, is_subset: true }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    pub workers: Vec<Registration>,
}

/// Log lines as clients get them; `from` for watchers only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLines {
    pub job_id: JobId,
    pub step: LogStep,
    pub logs: Vec<LogLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Definitions {
    pub definitions: BTreeMap<JobId, Definition>,
}

/// First frame to a client that asked to watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientHello {
    /// `dockframe/<version>`.
    pub relay: String,
    /// Changes when the store lost its tail or was replaced.
    pub epoch: String,
    pub max_watched: u32,
    pub max_frame_bytes: u64,
}

/// What a queue has and does, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueSummary {
    pub queued: u64,
    pub running: u64,
    pub workers: u64,
    pub cpus: Amount,
    pub gpus: Amount,
    pub free_cpus: Amount,
    pub free_gpus: Amount,
}

/// A change is durable, or was refused; only for changes with a `ref`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Done {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Answer to the first registration of a lease socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerHello {
    /// `dockframe/<version>`.
    pub relay: String,
    /// Changes when the store lost its tail or was replaced.
    pub epoch: String,
    /// How long a lease lives without renewal.
    pub ttl_ms: u64,
    /// How often to register.
    pub renew_ms: u64,
    /// Longest accepted `LeaseFinish` frame.
    pub max_finish_bytes: u64,
}

/// A job for this worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseGrant {
    pub lease_id: LeaseId,
    pub job_id: JobId,
    /// Counts the grants of the record from 1; decides nothing.
    pub attempt: u32,
    pub definition: Definition,
    /// Only what a worker needs: `maxDuration`.
    #[serde(default)]
    pub control: Control,
    /// Longest time the lease may be held from the accept.
    pub deadline_ms: u64,
}

/// The run counts no more: stop, and send nothing for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRevoke {
    pub lease_id: LeaseId,
    pub why: RevokeWhy,
    /// Between SIGTERM and SIGKILL.
    pub grace_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevokeWhy {
    Cancelled,
    Replaced,
    /// Also drop what is kept for this job.
    Deleted,
    Superseded,
    Deadline,
    #[serde(other)]
    Unknown,
}

/// Whether the run's result stands; final either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFinished {
    pub lease_id: LeaseId,
    pub recorded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
