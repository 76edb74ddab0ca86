//! `follow_job`: waits for a job's end, tells of its lines meanwhile, and sums up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::{JobId, QueueKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{Failure, arguments, job_id, queue_key, result_url, tool, view_url};
use crate::http::mcp::Caller;
use crate::http::mcp::progress::Notifier;
use crate::http::stream::Follower;
use crate::queue::service::Scope;

const TIMEOUT_SECONDS: f64 = 600.0;
/// Shorter than the longest time that a job can be followed in one piece.
const LONGEST_SECONDS: f64 = 1_700.0;
/// Lines that the answer holds: the last ones.
const MAX_LINES: usize = 2_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    job_id: String,
    queue: String,
    timeout_seconds: Option<f64>,
    include_build_logs: Option<bool>,
}

pub(super) fn schema() -> Value {
    tool(
        "follow_job",
        "Wait for a job's end and get its log, exit code and the names of its output files. With a progress token \
         every line is told as it comes.",
        &json!({
            "jobId": { "type": "string", "description": "The job" },
            "queue": { "type": "string", "description": "Its queue" },
            "timeoutSeconds": { "type": "number", "description": "How long to wait; the job goes on after that", "default": TIMEOUT_SECONDS },
            "includeBuildLogs": { "type": "boolean", "description": "Whether lines of the image's build are told too", "default": true },
        }),
        &["jobId", "queue"],
    )
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    state: Option<String>,
    reason: Option<String>,
    /// The last lines, and how many there were.
    lines: VecDeque<String>,
    count: u64,
    /// The job was seen before its end.
    live: bool,
}

pub(super) async fn follow(
    caller: &Caller,
    given: Map<String, Value>,
    notifier: &Notifier,
) -> Result<Value, Failure> {
    let given: Arguments = arguments(given)?;
    let (job, key) = (job_id(&given.job_id)?, queue_key(&given.queue)?);
    let service = &caller.app.service;
    let queue = service.open(&key).await?;
    let seconds = given.timeout_seconds.filter(|seconds| seconds.is_finite()).unwrap_or(TIMEOUT_SECONDS);
    let deadline = Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SECONDS));
    let with_build = given.include_build_logs.unwrap_or(true);

    let mut seen = Seen::default();
    let mut follower = Follower::new(Arc::clone(service), Arc::clone(&queue), job.clone());
    let is_over = loop {
        let Ok(event) = timeout_at(deadline, follower.next()).await else { break false };
        let Some((kind, data)) = event else { break seen.state.as_deref() == Some("Finished") };
        for message in seen.take(kind, &data, with_build) {
            notifier.progress(seen.count, &message).await;
        }
        if kind == "final" {
            break true;
        }
    };
    let has_ended = is_over && seen.state.as_deref() == Some("Finished");
    let result = if has_ended { service.result(Scope::Queue(&queue), &job).await? } else { None };
    let result = result.and_then(|job| job.finished).and_then(|finished| finished.result);
    Ok(report(caller, &key, &job, &seen, is_over, &result.unwrap_or_default()))
}

impl Seen {
    /// What to tell of an event of the stream.
    fn take(&mut self, kind: &str, data: &Value, with_build: bool) -> Vec<String> {
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        match kind {
            "build-log" if !with_build => Vec::new(),
            "build-log" | "run-log" => {
                let prefix = if kind == "build-log" { "[build] " } else { "" };
                let lines = data.get("lines").and_then(Value::as_array).into_iter().flatten();
                let lines: Vec<String> = lines
                    .filter_map(|line| line.get(0).and_then(Value::as_str))
                    .map(|line| format!("{prefix}{}", line.trim_end_matches(['\n', '\r'])))
                    .collect();
                self.count += lines.len() as u64;
                self.lines.extend(lines.iter().cloned());
                let surplus = self.lines.len().saturating_sub(MAX_LINES);
                self.lines.drain(..surplus);
                lines
            }
            "state" | "final" => {
                (self.state, self.reason) = (text("state"), text("reason"));
                let state = self.state.as_deref().unwrap_or_default();
                self.live |= state != "Finished";
                match (kind, &self.reason) {
                    ("final", _) => Vec::new(),
                    (_, Some(reason)) => vec![format!("▸ {state} ({reason})")],
                    (_, None) => vec![format!("▸ {state}")],
                }
            }
            _ => Vec::new(),
        }
    }
}

fn report(caller: &Caller, key: &QueueKey, job: &JobId, seen: &Seen, is_over: bool, result: &Value) -> Value {
    let field = |name: &str| result.get(name).cloned().unwrap_or_default();
    let exit_code = field("StatusCode");
    let has_ended = is_over && seen.state.as_deref() == Some("Finished");
    let succeeded = has_ended.then(|| seen.reason.as_deref() == Some("Success") && exit_code == 0);
    let files: Vec<String> = match field("outputs") {
        Value::Object(files) => files.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    };
    let view = view_url(caller, key, job);
    let mut text = json!({
        "jobId": job,
        "queue": key.reveal(),
        "viewUrl": view,
        "resultUrl": result_url(caller, key, job),
        "shareWithUser": format!("See the job and its results: {view}"),
        "state": if is_over { json!(seen.state) } else { json!("Following stopped") },
        "finishedReason": if has_ended { json!(seen.reason) } else { Value::Null },
        "exitCode": exit_code,
        "programSucceeded": succeeded,
        "durationMs": field("duration"),
        "outputFiles": files,
        "streamedLive": seen.live,
        "logLineCount": seen.count,
        "logs": seen.lines,
    });
    let note = if !is_over {
        Some("The time to follow is over; the job goes on. Call follow_job again.".to_owned())
    } else if !has_ended {
        seen.reason.clone()
    } else if seen.count > MAX_LINES as u64 {
        Some(format!("logs holds the last {MAX_LINES} lines"))
    } else {
        result.get("error").map(|error| format!("The job failed: {error}"))
    };
    if let Some(note) = note {
        text["note"] = json!(note);
    }
    text
}
