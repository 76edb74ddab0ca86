//! Status and metrics of a queue (`relay-protocol` 2.16).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use dockframe_shared::protocol::Registration;
use dockframe_shared::{QueueKey, WorkerId};
use http::header;
use serde_json::{Map, Value, json};

use super::App;
use super::extract::ByQueue;
use crate::error::ApiError;
use crate::queue::open::OpenQueue;
use crate::queue::record::Phase;

/// Ids in `queueInfo` are cut to so many characters.
const SHORT: usize = 6;

pub(crate) async fn status(
    State(app): State<Arc<App>>,
    ByQueue(key): ByQueue,
) -> Result<Json<Value>, ApiError> {
    let queue = app.service.open(&key).await?;
    let short = |text: &str| text.chars().take(SHORT).collect::<String>();
    let mut jobs = Map::new();
    let mut states = Vec::new();
    for (job, object) in app.service.list(&queue) {
        let mut shown = json!({ "state": object.state });
        if let Some(reason) = object.finished_reason {
            shown["finishedReason"] = json!(reason);
        }
        let worker = if object.worker.is_empty() { "none".to_owned() } else { short(&object.worker) };
        states.push(json!({ "id": short(job.as_str()), "state": object.state, "worker": worker }));
        jobs.insert(job.as_str().to_owned(), shown);
    }
    let here = shown_workers(&queue, queue.registrations_here());
    let others: Map<String, Value> = queue
        .registrations_elsewhere()
        .into_iter()
        .map(|(process, workers)| {
            let id = short(&process);
            let workers = shown_workers(&queue, workers);
            (id.clone(), json!({ "id": id, "workers": workers, "jobs": {} }))
        })
        .collect();
    let other_workers: usize =
        others.values().map(|other| other["workers"].as_object().map_or(0, Map::len)).sum();
    let is_alone = app.service.store.others().is_none();
    let clients = queue.sockets().client_count();
    Ok(Json(json!({
        "queueInfo": {
            "address": key.reveal(),
            "serverId": app.service.server_id,
            "broadcastChannel": if is_alone { "in-isolate" } else { "redis" },
            "jobCount": jobs.len(),
            "localWorkerCount": here.len(),
            "otherWorkerCount": other_workers,
            "clientCount": clients,
            "jobStates": states,
        },
        "jobs": jobs,
        "otherServers": others,
        "localWorkers": here,
        "clientCount": clients,
    })))
}

/// Workers with what each runs; never a definition.
fn shown_workers(queue: &OpenQueue, registrations: Vec<Registration>) -> Map<String, Value> {
    let cache = queue.cache();
    let mut running: HashMap<&WorkerId, Map<String, Value>> = HashMap::new();
    for (job, record) in cache.records() {
        if let Phase::Held(lease) = &record.phase {
            // The container's stage is the worker's to know; what the relay knows is that there is no result.
            let entry = json!({ "jobId": job, "finished": false });
            running.entry(&lease.worker).or_default().insert(job.as_str().to_owned(), entry);
        }
    }
    let with_jobs = registrations.into_iter().map(|worker| {
        let mut shown = json!(worker);
        shown["queue"] = Value::Object(running.remove(&worker.id).unwrap_or_default());
        (worker.id.as_str().to_owned(), shown)
    });
    with_jobs.collect()
}

pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    ByQueue(key): ByQueue,
) -> Result<Response, ApiError> {
    metrics_of(&app, &key).await
}

/// Those of the one queue of local mode (`worker` 18).
pub(crate) async fn local_metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let key = app.local_queue.as_ref().ok_or_else(ApiError::no_route)?;
    metrics_of(&app, key).await
}

async fn metrics_of(app: &App, key: &QueueKey) -> Result<Response, ApiError> {
    let (queued, running) = app.service.counts(key).await?;
    let text = format!(
        "\n# HELP queue_length The number of outstanding jobs in the queue\n\
         # TYPE queue_length gauge\nqueue_length {}\n",
        queued + running
    );
    Ok(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
}
