//! `build-logs.json`, `run-logs.json` (`relay-protocol` 2.10).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use dockframe_shared::JobId;
use dockframe_shared::protocol::LogKind;
use serde_json::{Value, json};

use super::App;
use super::extract::{ByJob, InQueue, Params};
use crate::error::ApiError;
use crate::queue::service::Scope;

type Answer = Result<Json<Value>, ApiError>;

/// From which line on. Negative is 0, a fraction is rounded down, nothing is 0.
fn since(query: &Params) -> Result<u64, ApiError> {
    let text = query.get("since").unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(0);
    }
    let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
    number.map(|number| number.max(0.0) as u64).ok_or_else(|| ApiError::bad("`since` must be a number"))
}

async fn log(app: &App, scope: Scope<'_>, job: &JobId, kind: LogKind, since: u64) -> Answer {
    let log = app.service.log(scope, job, kind, since).await?;
    let lines: Vec<_> = log.lines.lines.iter().map(|(_, line)| line).collect();
    Ok(Json(json!({
        "data": lines,
        "sliceStart": log.lines.start,
        "nextCursor": log.lines.total,
        "isFinal": log.is_final,
    })))
}

pub(crate) async fn build(State(app): State<Arc<App>>, ByJob(job): ByJob, query: Params) -> Answer {
    log(&app, Scope::Anywhere, &job, LogKind::Build, since(&query)?).await
}

pub(crate) async fn run(State(app): State<Arc<App>>, ByJob(job): ByJob, query: Params) -> Answer {
    log(&app, Scope::Anywhere, &job, LogKind::Run, since(&query)?).await
}

pub(crate) async fn build_in_queue(
    State(app): State<Arc<App>>,
    InQueue(queue, job): InQueue,
    query: Params,
) -> Answer {
    let queue = app.service.open(&queue).await?;
    log(&app, Scope::Queue(&queue), &job, LogKind::Build, since(&query)?).await
}

pub(crate) async fn run_in_queue(
    State(app): State<Arc<App>>,
    InQueue(queue, job): InQueue,
    query: Params,
) -> Answer {
    let queue = app.service.open(&queue).await?;
    log(&app, Scope::Queue(&queue), &job, LogKind::Run, since(&query)?).await
}
