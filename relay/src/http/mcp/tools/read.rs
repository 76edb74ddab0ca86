//! `get_job_status`, `list_jobs`, `cancel_job`.

use dockframe_shared::NamespaceSelector;
use dockframe_shared::job::JobObject;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, PUBLIC_QUEUE, arguments, job_id, queue_key, tool, view_url};
use crate::http::mcp::Caller;
use crate::queue::command::{Reply, Who};
use crate::queue::record::EndReason;
use crate::queue::service::Scope;

const LIMIT: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusArguments {
    job_id: String,
    queue: Option<String>,
    include_result: Option<bool>,
}

pub(super) fn status_schema() -> Value {
    tool(
        "get_job_status",
        "The state of a job, and its result once it has one: outputs, log, exit code.",
        &json!({
            "jobId": { "type": "string", "description": "The job" },
            "queue": { "type": "string", "description": "Its queue; without it only a result can be found" },
            "includeResult": { "type": "boolean", "description": "Whether to give the result", "default": true },
        }),
        &["jobId"],
    )
}

pub(super) async fn status(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let given: StatusArguments = arguments(given)?;
    let job = job_id(&given.job_id)?;
    let service = &caller.app.service;
    let mut text = json!({ "success": true, "jobId": job });
    let (live, finished) = match given.queue.as_deref().filter(|queue| !queue.is_empty()) {
        Some(name) => {
            let key = queue_key(name)?;
            let queue = service.open(&key).await?;
            let view = view_url(caller, &key, &job);
            text["viewUrl"] = json!(view);
            text["shareWithUser"] = json!(format!("Watch the job and see its results: {view}"));
            (service.listed(&queue, &job), service.result(Scope::Queue(&queue), &job).await?)
        }
        None => {
            text["shareWithUser"] = json!("Name the job's queue to get a link to it");
            (None, service.result(Scope::Anywhere, &job).await?)
        }
    };
    text["status"] = state(live.as_ref().or(finished.as_ref()));
    let finished = finished.filter(|_| given.include_result.unwrap_or(true));
    text["result"] =
        finished.and_then(|job| job.finished).and_then(|end| end.result).map_or(Value::Null, |result| {
            json!({
                "outputs": result.get("outputs"),
                "logs": result.get("logs"),
                "statusCode": result.get("StatusCode"),
                "duration": result.get("duration"),
                "isTimedOut": result.get("isTimedOut"),
            })
        });
    Ok(text)
}

/// Only what is there.
fn state(job: Option<&JobObject>) -> Value {
    let Some(job) = job else { return json!({}) };
    let mut state = json!({ "state": job.state });
    if !job.worker.is_empty() {
        state["worker"] = json!(job.worker);
    }
    if let Some(reason) = job.finished_reason {
        state["finishedReason"] = json!(reason);
    }
    state["time"] = json!(job.time);
    state["queuedTime"] = json!(job.queued_time);
    state
}

#[derive(Deserialize)]
struct ListArguments {
    queue: Option<String>,
    limit: Option<usize>,
    state: Option<String>,
}

pub(super) fn list_schema() -> Value {
    tool(
        "list_jobs",
        "The jobs of a queue, the newest first.",
        &json!({
            "queue": { "type": "string", "description": "Name of the queue", "default": PUBLIC_QUEUE },
            "limit": { "type": "integer", "minimum": 1, "maximum": 200, "description": "At most so many", "default": LIMIT },
            "state": { "type": "string", "enum": ["Queued", "Running", "Finished"], "description": "Only these" },
        }),
        &[],
    )
}

pub(super) async fn list(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let given: ListArguments = arguments(given)?;
    let key = queue_key(given.queue.as_deref().unwrap_or(PUBLIC_QUEUE))?;
    let service = &caller.app.service;
    let queue = service.open(&key).await?;
    let mut jobs: Vec<_> = service.list(&queue).into_iter().collect();
    if let Some(state) = &given.state {
        jobs.retain(|(_, job)| json!(job.state) == json!(state));
    }
    jobs.sort_by_key(|(_, job)| std::cmp::Reverse(job.queued_time));
    let matching = jobs.len();
    let limit = given.limit.unwrap_or(LIMIT);
    jobs.truncate(limit);
    let shown: Vec<Value> = jobs
        .iter()
        .map(|(id, job)| {
            let mut shown = json!({ "jobId": id, "state": job.state, "worker": job.worker });
            if let Some(reason) = job.finished_reason {
                shown["finishedReason"] = json!(reason);
            }
            shown["time"] = json!(job.time);
            shown["queuedTime"] = json!(job.queued_time);
            shown["namespaces"] = json!(job.namespaces);
            shown
        })
        .collect();
    let mut filters = json!({});
    if let Some(state) = given.state {
        filters["state"] = json!(state);
    }
    filters["limit"] = json!(limit);
    Ok(json!({
        "success": true,
        "queue": key.reveal(),
        "totalJobs": shown.len(),
        "totalMatchingJobs": matching,
        "filters": filters,
        "jobs": shown,
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CancelArguments {
    job_id: String,
    queue: Option<String>,
    namespace: Option<String>,
}

pub(super) fn cancel_schema() -> Value {
    tool(
        "cancel_job",
        "Stop a job that is queued or running.",
        &json!({
            "jobId": { "type": "string", "description": "The job" },
            "queue": { "type": "string", "description": "Its queue", "default": PUBLIC_QUEUE },
            "namespace": { "type": "string", "description": "Only for this namespace; * is all", "default": "*" },
        }),
        &["jobId"],
    )
}

pub(super) async fn cancel(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let given: CancelArguments = arguments(given)?;
    let job = job_id(&given.job_id)?;
    let key = queue_key(given.queue.as_deref().unwrap_or(PUBLIC_QUEUE))?;
    let namespace = given.namespace.as_deref().unwrap_or("*");
    let selector = NamespaceSelector::new(namespace)
        .map_err(|error| Failure::new("Invalid namespace", error.to_string()))?;
    let service = &caller.app.service;
    let queue = service.open(&key).await?;
    let message = Some("Job cancelled by MCP".to_owned());
    let who = Who::These(selector);
    let message = match service.let_go(&queue, &job, EndReason::Cancelled, who, message).await? {
        Reply::Unknown => "The queue has no such job: there is nothing to cancel".to_owned(),
        Reply::AlreadyEnded { .. } => "The job has ended already: there is nothing to cancel".to_owned(),
        _ => format!("Job {job} is cancelled"),
    };
    Ok(json!({ "success": true, "jobId": job, "queue": key.reveal(), "message": message }))
}
