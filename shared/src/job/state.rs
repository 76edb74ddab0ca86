//! The states of a job and its shape on the wire (`jobs-and-states` 1.3, 1.4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{Namespace, NamespaceSelector};
use crate::lenient::null_is_missing;
use crate::time::Timestamp;

/// The four states that the wire knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StateName {
    #[serde(alias = "ReQueued")]
    Queued,
    Running,
    Finished,
    Removed,
}

/// Why a job is finished, or what a client wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FinishReason {
    /// The container ran and ended, whatever its exit code.
    Success,
    /// It could not be run: pull, build, start, transfer, limits.
    Error,
    /// Stopped at a time limit.
    TimedOut,
    /// A client let go.
    Cancelled,
    /// A newer job took its namespace.
    JobReplacedByClient,
    /// A client wants result and entry gone.
    Deleted,
    /// An order "back to Queued", never a lasting state.
    WorkerLost,
}

impl FinishReason {
    /// The reason as that of a stored result, if it is one.
    #[must_use]
    pub fn as_result(self) -> Option<ResultReason> {
        match self {
            Self::Success => Some(ResultReason::Success),
            Self::Error => Some(ResultReason::Error),
            Self::TimedOut => Some(ResultReason::TimedOut),
            Self::Cancelled | Self::JobReplacedByClient | Self::Deleted | Self::WorkerLost => None,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Error => "Error",
            Self::TimedOut => "TimedOut",
            Self::Cancelled => "Cancelled",
            Self::JobReplacedByClient => "JobReplacedByClient",
            Self::Deleted => "Deleted",
            Self::WorkerLost => "WorkerLost",
        }
    }
}

/// The reasons that come with a result. Results are stored and answer later submissions, errors too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResultReason {
    Success,
    Error,
    TimedOut,
}

impl From<ResultReason> for FinishReason {
    fn from(reason: ResultReason) -> Self {
        match reason {
            ResultReason::Success => Self::Success,
            ResultReason::Error => Self::Error,
            ResultReason::TimedOut => Self::TimedOut,
        }
    }
}

/// The value of a change to Finished (`jobs-and-states` 1.3). `result` is passed on as its worker sent it; read it
/// as a [`super::JobResult`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    #[serde(rename = "type", default = "finished_tag")]
    pub tag: FinishedTag,
    pub reason: FinishReason,
    /// By the sender's clock; some leave it out where nobody reads it.
    #[serde(default, deserialize_with = "null_is_missing")]
    pub time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Whose ending it is; missing is the default namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What its sender says besides: passed on as it came.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Finished {
    #[must_use]
    pub fn new(reason: FinishReason, time: Timestamp) -> Self {
        Self {
            tag: FinishedTag::Finished,
            reason,
            time,
            worker: None,
            namespace: None,
            message: None,
            result: None,
            others: Map::new(),
        }
    }
}

/// The constant `"Finished"`; may be missing on input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishedTag {
    Finished,
}

fn finished_tag() -> FinishedTag {
    FinishedTag::Finished
}

/// A job as lists and updates show it (`jobs-and-states` 1.4; for watchers `relay-protocol` 3.13).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobObject {
    /// Relay's clock when the entry was created; decides the order of work.
    pub queued_time: Timestamp,
    pub state: StateName,
    /// Of the last change.
    pub time: Timestamp,
    /// Empty while queued.
    #[serde(default)]
    pub worker: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<Namespace>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Value>,
    /// Only when finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_reason: Option<FinishReason>,
    /// The whole change with its result: in `result.json`, never in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Box<Finished>>,
    /// Why a queued job is not running yet, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_reason: Option<String>,
    /// Which grant this run is of, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The result was computed in another queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Watchers only: grows with every change of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Watchers only: position in line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
}
