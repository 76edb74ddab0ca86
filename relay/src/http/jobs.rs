//! Submit, list, read, cancel, copy (`relay-protocol` 2.2 to 2.8, 2.12, 2.15).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use dockframe_shared::job::{Control, FinishReason, JobObject};
use dockframe_shared::{JobId, NamespaceSelector, QueueKey};
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::blobs::origin;
use super::extract::{ByJob, ByQueue, InQueue, JsonBody, Params};
use super::queues;
use crate::error::ApiError;
use crate::limits::{MAX_MESSAGE_BYTES, cut};
use crate::queue::command::{Reply, Who};
use crate::queue::open::OpenQueue;
use crate::queue::record::EndReason;
use crate::queue::service::{Scope, Submission};

type Answer = Result<Json<Value>, ApiError>;

pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    ByQueue(queue): ByQueue,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Answer {
    let submission = Submission { origin: Some(origin(&app, &headers)), ..read_submission(body)? };
    let queue = app.service.open(&queue).await?;
    let (job, _) = app.service.submit(&queue, submission).await?;
    Ok(Json(json!({ "success": true, "jobId": job })))
}

/// The wrapper `{definition, id?, control?, debug?}`, or a bare definition.
fn read_submission(body: Value) -> Result<Submission, ApiError> {
    let empty = match &body {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    if empty {
        return Err(ApiError::bad("No job provided"));
    }
    let Value::Object(mut fields) = body else {
        return Err(ApiError::bad("a submission must be an object with a `definition`"));
    };
    let is_bare = !fields.contains_key("definition")
        && ["image", "build", "command"].iter().any(|name| fields.contains_key(*name));
    if is_bare {
        return Ok(Submission {
            id: None,
            definition: fields.into(),
            control: Control::default(),
            debug: None,
            origin: None,
        });
    }
    let definition = match fields.remove("definition") {
        Some(Value::Object(definition)) => definition.into(),
        None | Some(Value::Null) => return Err(ApiError::bad("a submission needs a `definition`")),
        Some(_) => return Err(ApiError::bad("`definition` must be an object")),
    };
    let id = match fields.remove("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id.is_empty() => None,
        Some(Value::String(id)) => Some(JobId::new(id).map_err(|error| ApiError::bad(error.to_string()))?),
        Some(_) => return Err(ApiError::bad("`id` must be a text")),
    };
    let control = match fields.remove("control") {
        None | Some(Value::Null) => Control::default(),
        Some(control) => serde_json::from_value(control)
            .map_err(|error| ApiError::bad(format!("`control` cannot be read: {error}")))?,
    };
    let debug = fields.remove("debug").and_then(|debug| debug.as_bool());
    Ok(Submission { id, definition, control, debug, origin: None })
}

/// Pages of the list hold at most so many jobs.
const MAX_PAGE: usize = 10_000;

pub(crate) async fn list(State(app): State<Arc<App>>, ByQueue(queue): ByQueue, query: Params) -> Answer {
    let limit = match query.get("limit") {
        None | Some("") => None,
        Some(text) => {
            Some(text.parse().map_err(|_| ApiError::bad("`limit` must be a whole number, from 1"))?)
        }
    };
    let after = query.get("after").filter(|after| !after.is_empty());
    let queue = app.service.open(&queue).await?;
    if limit.is_none() && after.is_none() {
        return Ok(Json(json!({ "data": app.service.list(&queue) })));
    }
    let limit = limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let (jobs, next) = app.service.list_page(&queue, after, limit);
    let mut answer = json!({ "data": jobs });
    if let Some(next) = next {
        answer["next"] = json!(next);
    }
    Ok(Json(answer))
}

async fn job(app: &App, scope: Scope<'_>, job: &JobId) -> Answer {
    let Some(definition) = app.service.definition(scope, job).await? else {
        return Err(ApiError::not_found("Job not found"));
    };
    let mut data = json!({ "definition": definition });
    if let Some(results) = app.service.result(scope, job).await? {
        data["results"] = json!(results);
    }
    Ok(Json(json!({ "data": data })))
}

pub(crate) async fn job_in_queue(State(app): State<Arc<App>>, InQueue(queue, id): InQueue) -> Answer {
    let queue = app.service.open(&queue).await?;
    job(&app, Scope::Queue(&queue), &id).await
}

/// `/j/{id}.json` is the job, `/j/{id}` its page; but two of them are old addresses of a queue named `j`
/// (`relay-protocol` 2.1).
pub(crate) async fn job_or_page(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let queue_named_j = || QueueKey::new("j").map(ByQueue).map_err(|error| ApiError::bad(error.to_string()));
    match name.as_str() {
        "status" => return Ok(queues::status(State(app), queue_named_j()?).await?.into_response()),
        "metrics" => return queues::metrics(State(app), queue_named_j()?).await,
        _ => {}
    }
    match name.strip_suffix(".json") {
        Some(id) => {
            let id = JobId::new(id).map_err(|_| ApiError::not_found("Job not found"))?;
            Ok(job(&app, Scope::Anywhere, &id).await?.into_response())
        }
        None => app.page.start_page(true).ok_or_else(ApiError::no_route),
    }
}

pub(crate) async fn definition(State(app): State<Arc<App>>, ByJob(id): ByJob) -> Answer {
    Ok(Json(json!({ "data": app.service.definition(Scope::Anywhere, &id).await? })))
}

pub(crate) async fn definition_in_queue(State(app): State<Arc<App>>, InQueue(queue, id): InQueue) -> Answer {
    let queue = app.service.open(&queue).await?;
    Ok(Json(json!({ "data": app.service.definition(Scope::Queue(&queue), &id).await? })))
}

pub(crate) async fn result(State(app): State<Arc<App>>, ByJob(id): ByJob) -> Result<Response, ApiError> {
    Ok(result_answer(app.service.result(Scope::Anywhere, &id).await?.as_ref()))
}

pub(crate) async fn result_in_queue(
    State(app): State<Arc<App>>,
    InQueue(queue, id): InQueue,
) -> Result<Response, ApiError> {
    let queue = app.service.open(&queue).await?;
    Ok(result_answer(app.service.result(Scope::Queue(&queue), &id).await?.as_ref()))
}

/// "None yet" is soon untrue, so nobody on the way may keep it.
fn result_answer(result: Option<&JobObject>) -> Response {
    let is_there = result.is_some();
    let mut answer = Json(json!({ "data": result })).into_response();
    if !is_there {
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}

pub(crate) async fn namespaces(State(app): State<Arc<App>>, InQueue(queue, id): InQueue) -> Answer {
    let queue = app.service.open(&queue).await?;
    Ok(Json(json!({ "data": app.service.namespaces(&queue, &id).await? })))
}

pub(crate) async fn history() -> &'static str {
    "Not implemented"
}

pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    InQueue(queue, id): InQueue,
    query: Params,
) -> Answer {
    cancel_as(&app, &queue, id, query.get("namespace").unwrap_or("_"), query.get("message")).await
}

/// The path's namespace counts when no query names one.
pub(crate) async fn cancel_in_namespace(
    State(app): State<Arc<App>>,
    InQueue(queue, id): InQueue,
    Path((_, _, namespace)): Path<(String, String, String)>,
    query: Params,
) -> Answer {
    let namespace = query.get("namespace").unwrap_or(&namespace);
    cancel_as(&app, &queue, id, namespace, query.get("message")).await
}

async fn cancel_as(app: &App, queue: &QueueKey, id: JobId, namespace: &str, message: Option<&str>) -> Answer {
    let queue = app.service.open(queue).await?;
    let held = app.service.namespaces(&queue, &id).await?;
    let mut named = namespace.to_owned();
    let mut selector = NamespaceSelector::new(&named).map_err(|error| ApiError::bad(error.to_string()))?;
    // Some callers encode twice: what is not held as it is may be held decoded once more.
    if !held.iter().any(|held| selector.covers(held))
        && let Ok(decoded) = percent_decode_str(namespace).decode_utf8()
        && let Ok(other) = NamespaceSelector::new(&*decoded)
    {
        selector = other;
        named = decoded.into_owned();
    }
    let message = Some(cut(message.unwrap_or("Job cancelled by API"), MAX_MESSAGE_BYTES).to_owned());
    let who = Who::These(selector);
    let not_found = || json!({ "message": "Job not found" });
    let reply = app.service.let_go(&queue, &id, EndReason::Cancelled, who, message).await?;
    Ok(Json(match reply {
        Reply::Unknown => not_found(),
        Reply::AlreadyEnded { .. } if is_deleted(app, &queue, &id).await? => not_found(),
        Reply::AlreadyEnded { .. } => json!({ "message": "Job already Finished|Removed" }),
        _ => json!({ "success": true, "jobId": id, "namespace": named }),
    }))
}

/// What is kept of a deleted job is only that it was deleted: to callers the queue does not have it.
async fn is_deleted(app: &App, queue: &Arc<OpenQueue>, job: &JobId) -> Result<bool, ApiError> {
    let known = app.service.followed(queue, job).await?;
    Ok(known.is_some_and(|(known, _)| known.finished_reason == Some(FinishReason::Deleted)))
}

pub(crate) async fn copy(
    State(app): State<Arc<App>>,
    ByJob(id): ByJob,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Answer {
    #[derive(Deserialize)]
    struct Copy {
        queue: String,
        #[serde(default)]
        control: Option<Control>,
    }
    let Copy { queue, control } = serde_json::from_value(body)
        .map_err(|error| ApiError::bad(format!("a copy needs the `queue` to go to: {error}")))?;
    let queue = QueueKey::new(queue).map_err(|error| ApiError::bad(error.to_string()))?;
    let Some(definition) = app.service.definition(Scope::Anywhere, &id).await? else {
        return Err(ApiError::not_found("Job definition not found"));
    };
    let queue = app.service.open(&queue).await?;
    let submission = Submission {
        id: Some(id),
        definition,
        control: control.unwrap_or_default(),
        debug: Some(false),
        origin: Some(origin(&app, &headers)),
    };
    app.service.submit(&queue, submission).await?;
    Ok(Json(json!({ "success": true })))
}

/// Whether the request wants a page to look at.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}
