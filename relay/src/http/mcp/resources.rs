//! Resources: a queue's list of jobs, for those who know the queue's name.

use dockframe_shared::QueueKey;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::Caller;
use super::rpc::{INTERNAL_ERROR, RpcError};

pub(super) const EXAMPLE: &str = "queue://public1/jobs";
const JSON: &str = "application/json";

/// The one resource that is listed. No list of queues is ever given.
pub(super) fn example() -> Value {
    json!({
        "uri": EXAMPLE,
        "name": "Public Queue Jobs",
        "description": "The jobs of the queue public1. Any queue whose name you know can be read as queue://<queue>/jobs.",
        "mimeType": JSON,
    })
}

pub(super) fn template() -> Value {
    json!({
        "uriTemplate": "queue://{queue}/jobs",
        "name": "Queue Jobs",
        "description": "The jobs of a queue whose name you know",
        "mimeType": JSON,
    })
}

pub(super) async fn read(caller: &Caller, uri: &str) -> Result<Value, RpcError> {
    let unknown = || RpcError::new(INTERNAL_ERROR, format!("Unknown resource: {uri}"));
    let name =
        uri.strip_prefix("queue://").and_then(|rest| rest.strip_suffix("/jobs")).ok_or_else(unknown)?;
    let name = percent_decode_str(name).decode_utf8().map_err(|_| unknown())?;
    let key = QueueKey::new(&*name).map_err(|_| unknown())?;
    let service = &caller.app.service;
    let queue = service.open(&key).await.map_err(|error| RpcError::internal(&error))?;
    let list = json!({ "data": service.list(&queue) });
    let text = serde_json::to_string_pretty(&list).map_err(|error| RpcError::internal(&error))?;
    Ok(json!({ "contents": [{ "uri": uri, "mimeType": JSON, "text": text }] }))
}
