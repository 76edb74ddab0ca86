//! The six tools: their schemas, and how what they return becomes the result of a call.

mod follow;
mod read;
mod submit;
mod upload;

use dockframe_shared::javascript::uri::encode_component;
use dockframe_shared::{JobId, QueueKey};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Caller;
use super::progress::Notifier;
use super::rpc::{INTERNAL_ERROR, RpcError};
use crate::error::chain;
use crate::queue::service;

/// The queue of callers that name none.
const PUBLIC_QUEUE: &str = "public1";

/// Makes the schema of a tool.
type Schema = fn() -> Value;

pub(super) const NAMES: &[(&str, Schema)] = &[
    ("submit_job", submit::schema),
    ("follow_job", follow::schema),
    ("get_job_status", read::status_schema),
    ("list_jobs", read::list_schema),
    ("cancel_job", read::cancel_schema),
    ("upload_file", upload::schema),
];

/// Why a tool could not do what it was asked; the caller can read it and try again.
#[derive(Debug)]
pub(super) struct Failure {
    error: String,
    message: String,
    troubleshooting: Option<&'static [&'static str]>,
}

impl Failure {
    fn new(error: impl Into<String>, message: impl Into<String>) -> Self {
        Self { error: error.into(), message: message.into(), troubleshooting: None }
    }

    fn to_json(&self) -> Value {
        let mut text = json!({ "success": false, "error": self.error, "message": self.message });
        if let Some(hints) = self.troubleshooting {
            text["troubleshooting"] = json!(hints);
        }
        text
    }
}

impl From<service::Error> for Failure {
    fn from(error: service::Error) -> Self {
        match error {
            service::Error::Refused(problem) => Self::new(problem.title, problem.detail),
            error => unavailable(&error),
        }
    }
}

/// Told to the log with its causes, to the caller without them.
fn unavailable(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error = chain(error), "a tool of MCP failed");
    Failure::new("Not possible now", "The relay has a fault of its own: try again later.")
}

pub(super) fn list() -> Vec<Value> {
    NAMES.iter().map(|(_, schema)| schema()).collect()
}

pub(super) async fn call(
    caller: &Caller,
    name: &str,
    arguments: Map<String, Value>,
    notifier: &Notifier,
) -> Result<Value, RpcError> {
    let outcome = match name {
        "submit_job" => submit::submit(caller, arguments).await,
        // What it cannot begin is no result of the tool but an error of the call.
        "follow_job" => {
            let followed = follow::follow(caller, arguments, notifier).await;
            Ok(followed.map_err(|failure| RpcError::new(INTERNAL_ERROR, failure.message))?)
        }
        "get_job_status" => read::status(caller, arguments).await,
        "list_jobs" => read::list(caller, arguments).await,
        "cancel_job" => read::cancel(caller, arguments).await,
        "upload_file" => upload::upload(caller, arguments).await,
        _ => return Err(RpcError::new(INTERNAL_ERROR, format!("Unknown tool: {name}"))),
    };
    let content = |text: &Value| {
        let text = serde_json::to_string_pretty(text).unwrap_or_else(|_| text.to_string());
        json!([{ "type": "text", "text": text }])
    };
    Ok(match outcome {
        Ok(text) => json!({ "content": content(&text) }),
        Err(failure) => json!({ "content": content(&failure.to_json()), "isError": true }),
    })
}

/// One tool as `tools/list` shows it.
fn tool(name: &str, description: &str, properties: &Value, required: &[&str]) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": { "type": "object", "properties": properties, "required": required },
    })
}

fn arguments<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::new("Invalid arguments", format!("The arguments cannot be read: {error}")))
}

fn queue_key(name: &str) -> Result<QueueKey, Failure> {
    QueueKey::new(name).map_err(|error| Failure::new("Invalid queue", error.to_string()))
}

fn job_id(id: &str) -> Result<JobId, Failure> {
    JobId::new(id).map_err(|error| Failure::new("Invalid jobId", error.to_string()))
}

/// The page that shows a job.
fn view_url(caller: &Caller, queue: &QueueKey, job: &JobId) -> String {
    let (job, queue) = (encode_component(job.as_str()), encode_component(queue.reveal()));
    format!("{}/j/{job}#?queue={queue}", caller.origin)
}

fn result_url(caller: &Caller, queue: &QueueKey, job: &JobId) -> String {
    let (job, queue) = (encode_component(job.as_str()), encode_component(queue.reveal()));
    format!("{}/q/{queue}/j/{job}/result.json", caller.origin)
}
