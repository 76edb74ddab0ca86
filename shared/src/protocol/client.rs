//! Client to relay (`relay-protocol` 3.6, 3.13).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BadFrame, Envelope, StateChange};
use crate::ids::JobId;

/// What a client may say.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", content = "payload")]
pub enum ClientMessage {
    /// The bare word `PING`, answered by `PONG`.
    #[serde(skip)]
    Ping,
    StateChange(StateChange),
    #[serde(rename_all = "camelCase")]
    QueryJob {
        job_id: JobId,
    },
    QueryJobStates,
    Watch(Watch),
}

impl ClientMessage {
    /// # Errors
    /// A frame that means nothing to the relay.
    pub fn read(text: &str) -> Result<Self, BadFrame> {
        if text == "PING" {
            return Ok(Self::Ping);
        }
        let envelope = Envelope::read(text)?;
        match &*envelope.kind {
            "StateChange" => envelope.payload().map(Self::StateChange),
            "QueryJob" => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Payload {
                    job_id: JobId,
                }
                envelope.payload().map(|Payload { job_id }| Self::QueryJob { job_id })
            }
            "QueryJobStates" => Ok(Self::QueryJobStates),
            "Watch" => envelope.payload().map(Self::Watch),
            _ => Err(BadFrame::UnknownType),
        }
    }

    /// The `ref` of a change or of a set to watch that [`Self::read`] did not take: its sender is answered by a
    /// [`super::Done`] all the same, or would repeat it for ever. `None`: nobody waits for an answer.
    #[must_use]
    pub fn unread_reference(text: &str) -> Option<Option<String>> {
        #[derive(Deserialize)]
        struct Payload {
            #[serde(rename = "ref")]
            reference: Option<Value>,
        }
        let envelope = Envelope::read(text).ok()?;
        let reference = match envelope.payload::<Payload>() {
            Ok(Payload { reference: Some(Value::String(reference)) }) => Some(reference),
            _ => None,
        };
        match &*envelope.kind {
            "StateChange" => reference.map(Some),
            "Watch" => Some(reference),
            _ => None,
        }
    }
}

/// The whole set of jobs that a client watches; replaces its last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    pub jobs: BTreeMap<JobId, LogCursors>,
    /// Send the list of workers too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<bool>,
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Number of the first line wanted of each kind, counted per run from 0; missing: no lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursors {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
}
