//! A client that watches (`relay-protocol` 3.13): it names its jobs and hears of nothing else.

use std::ops::Deref;
use std::time::Duration;

use serde_json::{Value, json};

use super::socket::Socket;
use crate::check::SOON;
use crate::test::{Test, skip};

#[derive(Debug)]
pub(crate) struct Watcher {
    socket: Socket,
    pub(crate) hello: Value,
}

impl Deref for Watcher {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Watcher {
    /// Connects; the first frame must be `Hello`.
    ///
    /// # Errors
    /// Something else comes. An old relay skips the test.
    pub(crate) async fn join(test: &Test, queue: &str) -> anyhow::Result<Self> {
        let socket = test.socket(&format!("/q/{queue}/client?protocol=watch/1")).await?;
        socket.until("a first frame", 0, SOON, |frames| frames.first().map(|_| ())).await?;
        let hello = socket.payloads(0, "Hello").into_iter().next();
        if socket.kinds(0).first().is_some_and(|kind| kind == "Workers") {
            return skip("the relay does not speak watch/1");
        }
        let Some(hello) = hello else { anyhow::bail!("expected Hello; came {}", socket.tail(0)) };
        Ok(Self { socket, hello })
    }

    /// Names the whole set of jobs, each with the numbers of the first lines wanted, and waits for all their states.
    ///
    /// # Errors
    /// They do not come.
    pub(crate) async fn watch(&self, jobs: &Value) -> anyhow::Result<()> {
        let mark = self.mark();
        self.send(&json!({ "type": "Watch", "payload": { "jobs": jobs } })).await?;
        let ids: Vec<_> = jobs.as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect();
        self.until("the states of all watched jobs", mark, SOON, |_| {
            ids.iter().all(|id| !self.jobs(mark, id).is_empty()).then_some(())
        })
        .await
    }

    /// Sends a change with a reference and gives its `Done`.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn done(&self, mut change: Value) -> anyhow::Result<Value> {
        let reference = Test::nonce();
        change["payload"]["ref"] = json!(reference);
        let mark = self.mark();
        self.send(&change).await?;
        self.message_that(mark, "Done", "Done", |payload| payload["ref"] == reference).await
    }

    /// The run lines of a job by their numbers, as the messages gave them.
    pub(crate) fn lines(&self, job: &str) -> Vec<(u64, Value)> {
        let mut lines = Vec::new();
        for payload in self.payloads(0, "JobStatusPayload") {
            let (Some(from), Some(logs)) = (payload["from"].as_u64(), payload["logs"].as_array()) else {
                continue;
            };
            if payload["jobId"] == job && payload["step"] == "Running" {
                lines.extend((from..).zip(logs.iter().cloned()));
            }
        }
        lines
    }

    /// Waits until that many run lines have come.
    ///
    /// # Errors
    /// They do not.
    pub(crate) async fn has_lines(&self, job: &str, n: usize) -> anyhow::Result<Vec<(u64, Value)>> {
        self.until(&format!("{n} run lines"), 0, Duration::from_secs(10), |_| {
            let lines = self.lines(job);
            (lines.len() >= n).then_some(lines)
        })
        .await
    }
}
