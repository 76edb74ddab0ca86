//! Worker to relay (`worker` 5.2, `jobs-and-states` 1.5 and 8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{BadFrame, Envelope, StateChange};
use crate::ids::{InstanceId, JobId, LeaseId, WorkerId};
use crate::job::LogLine;
use crate::lenient::null_is_missing;
use crate::number::Amount;
use crate::time::Timestamp;

/// What a worker may say.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "payload")]
pub enum WorkerMessage {
    /// The bare word `PING`, answered by `PONG <worker id>`.
    #[serde(skip)]
    Ping,
    #[serde(rename = "WorkerRegistration")]
    Registration(Registration),
    StateChange(StateChange),
    #[serde(rename = "JobStatusLogs")]
    Logs(Logs),
    #[serde(rename_all = "camelCase")]
    RequestJobDefinitions {
        job_ids: Vec<JobId>,
    },
    #[serde(rename = "WorkerStatusResponse")]
    StatusResponse(StatusResponse),
    LeaseAccept(LeaseRef),
    LeaseDecline(LeaseDecline),
    LeaseFinish(LeaseFinish),
}

impl WorkerMessage {
    /// # Errors
    /// A frame that means nothing to the relay.
    pub fn read(text: &str) -> Result<Self, BadFrame> {
        if text == "PING" {
            return Ok(Self::Ping);
        }
        let envelope = Envelope::read(text)?;
        match &*envelope.kind {
            "WorkerRegistration" => envelope.payload().map(Self::Registration),
            "StateChange" => envelope.payload().map(Self::StateChange),
            "JobStatusLogs" => envelope.payload().map(Self::Logs),
            "RequestJobDefinitions" => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Payload {
                    job_ids: Vec<JobId>,
                }
                envelope.payload().map(|Payload { job_ids }| Self::RequestJobDefinitions { job_ids })
            }
            "WorkerStatusResponse" => envelope.payload().map(Self::StatusResponse),
            "LeaseAccept" => envelope.payload().map(Self::LeaseAccept),
            "LeaseDecline" => envelope.payload().map(Self::LeaseDecline),
            "LeaseFinish" => envelope.payload().map(Self::LeaseFinish),
            _ => Err(BadFrame::UnknownType),
        }
    }
}

/// Who the worker is and what it has. On a lease socket also resume and renewal: `leases` names every lease that it
/// holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    pub id: WorkerId,
    #[serde(default, deserialize_with = "null_is_missing")]
    pub version: String,
    /// Number of jobs at once.
    #[serde(default, deserialize_with = "null_is_missing")]
    pub cpus: Amount,
    #[serde(default, deserialize_with = "null_is_missing")]
    pub gpus: Amount,
    #[serde(default, deserialize_with = "null_is_missing")]
    pub time: Timestamp,
    #[serde(default, deserialize_with = "null_is_missing")]
    pub max_job_duration: String,
    /// Missing: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<Vec<Lease>>,
    /// What another kind of worker tells besides: passed on as it came.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// A lease that a worker holds, with how far its run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub lease_id: LeaseId,
    pub phase: Phase,
}

/// How far a run has come (`jobs-and-states` 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Inputs,
    Image,
    Running,
    Outputs,
    Ended,
    /// A phase of a newer worker.
    #[serde(other)]
    Other,
}

/// Lines of a running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    pub job_id: JobId,
    pub step: LogStep,
    pub logs: Vec<LogLine>,
    /// On lease sockets; removed before it is passed on to clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<LeaseId>,
    /// Number of the first line, counted per run and kind from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// Where a log line comes from. Unknown steps count as the program's own output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStep {
    #[serde(rename = "docker image pull")]
    ImagePull,
    #[serde(rename = "cloning repo")]
    CloningRepo,
    #[serde(rename = "docker build")]
    Build,
    #[serde(rename = "docker image push")]
    ImagePush,
    Running,
    #[serde(untagged)]
    Other(String),
}

/// The two logs of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    Build,
    Run,
}

impl LogStep {
    #[must_use]
    pub fn kind(&self) -> LogKind {
        match self {
            Self::ImagePull | Self::CloningRepo | Self::Build | Self::ImagePush => LogKind::Build,
            Self::Running | Self::Other(_) => LogKind::Run,
        }
    }
}

/// Answer of an old worker to `StatusRequest`. Definitions in it are not read: they go no further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusResponse {
    #[serde(default)]
    pub time: Timestamp,
    pub id: WorkerId,
    pub cpus: Amount,
    #[serde(default)]
    pub gpus: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_job_duration: Option<String>,
    #[serde(default)]
    pub queue: BTreeMap<String, StatusEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclaimable: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusEntry {
    pub job_id: String,
    #[serde(default)]
    pub finished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRef {
    pub lease_id: LeaseId,
}

/// Before the accept a refusal, after it the job given back unfinished (`jobs-and-states` 8.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseDecline {
    pub lease_id: LeaseId,
    #[serde(default)]
    pub why: String,
    #[serde(default)]
    pub retry: DeclineRetry,
}

/// When the worker may be asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclineRetry {
    /// No room just now: the relay corrects its count.
    #[default]
    Soon,
    /// Leave this worker out for 30 s.
    Later,
    /// Until it registers with another instance.
    Never,
}

/// The end of a run. `value` is read as a [`crate::job::Finished`] by the relay, which answers what it cannot read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFinish {
    pub lease_id: LeaseId,
    pub value: Value,
}
