//! Status and metrics of a queue (`relay-protocol` 2.16).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde_json::{Map, Value, json};

use super::App;
use super::extract::ByQueue;
use crate::error::ApiError;
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
    let mut workers = Map::new();
    for worker in queue.registrations() {
        let id = worker.id.as_str().to_owned();
        let mut running = Map::new();
        let cache = queue.cache();
        for (job, record) in cache.records() {
            if let Phase::Held(lease) = &record.phase
                && lease.worker == worker.id
            {
                // The container's stage is the worker's to know; what the relay knows is that there is no result.
                running.insert(job.as_str().to_owned(), json!({ "jobId": job, "finished": false }));
            }
        }
        let mut shown = json!(worker);
        shown["queue"] = Value::Object(running);
        workers.insert(id, shown);
    }
    let clients = queue.sockets().client_count();
    Ok(Json(json!({
        "queueInfo": {
            "address": key.reveal(),
            "serverId": app.service.server_id,
            "broadcastChannel": "in-isolate",
            "jobCount": jobs.len(),
            "localWorkerCount": workers.len(),
            "otherWorkerCount": 0,
            "clientCount": clients,
            "jobStates": states,
        },
        "jobs": jobs,
        "otherServers": {},
        "localWorkers": workers,
        "clientCount": clients,
    })))
}

pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    ByQueue(key): ByQueue,
) -> Result<Response, ApiError> {
    let queue = app.service.open(&key).await?;
    let (queued, running) = queue.cache().counts();
    let text = format!(
        "\n# HELP queue_length The number of outstanding jobs in the queue\n\
         # TYPE queue_length gauge\nqueue_length {}\n",
        queued + running
    );
    Ok(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
}
