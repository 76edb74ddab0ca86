//! `follow_job`: a job's events, told as progress and summed up at its end.

use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::JobId;
use serde_json::{Value, json};

use super::super::stream::Follower;
use super::tools::{Arguments, Caller, Failure, key, share};
use crate::queue::service::Scope;

/// The longest that one call waits.
const LONGEST_S: f64 = 1_700.0;
/// Lines of the log that are told at the end; the newest.
const MAX_LINES: usize = 2_000;

/// What was seen so far.
#[derive(Default)]
struct Told {
    state: Option<String>,
    reason: Option<String>,
    logs: Vec<String>,
    count: usize,
}

pub(super) async fn follow(
    caller: &Caller,
    given: &Arguments<'_>,
    job: JobId,
    name: &str,
    token: Option<Value>,
) -> Result<Value, Failure> {
    let service = &caller.app.service;
    let queue = service.open(&key(name)?).await?;
    let limit = given.number("timeoutSeconds").unwrap_or(600.0).clamp(0.0, LONGEST_S);
    let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(limit);
    let with_build = given.flag("includeBuildLogs", true);
    let mut told = Told::default();
    let mut follower = Follower::new(Arc::clone(service), Arc::clone(&queue), job.clone());
    let ended = loop {
        match tokio::time::timeout_at(deadline, follower.next()).await {
            Ok(Some((kind, data))) => {
                let is_end = kind == "final";
                for message in told.take(kind, &data, with_build) {
                    notify(caller, token.as_ref(), told.count, &message).await;
                }
                if is_end {
                    break true;
                }
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };

    let result = service.result(Scope::Queue(&queue), &job).await?.and_then(|job| job.finished);
    let result = result.and_then(|finished| finished.result).unwrap_or_default();
    let code = result.get("StatusCode").cloned().unwrap_or_default();
    let outputs: Vec<&String> =
        result["outputs"].as_object().into_iter().flat_map(|files| files.keys()).collect();
    let view = caller.view_url(&job, name);
    let succeeded = told.reason.as_deref() == Some("Success") && code == 0;
    let mut answer = json!({
        "jobId": job, "queue": name, "viewUrl": view, "resultUrl": caller.result_url(&job, name),
        "shareWithUser": share(&view), "state": told.state, "finishedReason": told.reason, "exitCode": code,
        "programSucceeded": succeeded, "durationMs": result["duration"], "outputFiles": outputs,
        "streamedLive": token.is_some(), "logLineCount": told.count, "logs": told.logs,
    });
    if !ended {
        answer["state"] = json!("Following stopped");
        answer["note"] = json!("the job goes on: call follow_job again to wait for its end");
    }
    Ok(answer)
}

impl Told {
    /// What to tell of an event.
    fn take(&mut self, kind: &str, data: &Value, with_build: bool) -> Vec<String> {
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        match kind {
            "build-log" | "run-log" => {
                let is_build = kind == "build-log";
                if is_build && !with_build {
                    return Vec::new();
                }
                let lines = data["lines"].as_array().into_iter().flatten();
                let lines: Vec<String> = lines
                    .filter_map(|line| line[0].as_str())
                    .map(|line| {
                        let line = line.trim_end_matches('\n');
                        if is_build { format!("[build] {line}") } else { line.to_owned() }
                    })
                    .collect();
                self.count += lines.len();
                self.logs.extend(lines.iter().cloned());
                let surplus = self.logs.len().saturating_sub(MAX_LINES);
                self.logs.drain(..surplus);
                lines
            }
            "state" => {
                self.state = text("state");
                self.reason = text("reason");
                let state = self.state.clone().unwrap_or_default();
                vec![match &self.reason {
                    Some(reason) => format!("▸ {state} ({reason})"),
                    None => format!("▸ {state}"),
                }]
            }
            "final" => {
                self.state = text("state");
                self.reason = text("reason");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

async fn notify(caller: &Caller, token: Option<&Value>, progress: usize, message: &str) {
    let Some(token) = token else { return };
    let notice = json!({ "method": "notifications/progress", "jsonrpc": "2.0",
        "params": { "progressToken": token, "progress": progress, "message": message } });
    // A reader that is gone is noticed by whoever waits for this call.
    drop(caller.notices.send(notice).await);
}
