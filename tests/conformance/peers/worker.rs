//! A worker of the old way: it claims what it sees queued, and says what became of it.

use std::ops::Deref;

use serde_json::{Value, json};

use super::socket::Socket;
use crate::test::{Test, now};

#[derive(Debug)]
pub(crate) struct Worker {
    socket: Socket,
    pub(crate) id: String,
}

impl Deref for Worker {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

/// A registration as a message.
pub(crate) fn registration(id: &str) -> Value {
    json!({ "type": "WorkerRegistration", "payload": {
        "version": "0.54.85", "id": id, "cpus": 2, "gpus": 0, "time": now(), "maxJobDuration": "5m" } })
}

/// A claim as a message.
pub(crate) fn running(job: &str, worker: &str) -> Value {
    running_at(job, worker, now())
}

/// A claim with a time of the sender's.
pub(crate) fn running_at(job: &str, worker: &str, time: u64) -> Value {
    let value = json!({ "type": "Running", "worker": worker, "time": time });
    json!({ "type": "StateChange", "payload": { "tag": worker, "state": "Running", "job": job, "value": value } })
}

/// What a container left behind.
pub(crate) fn result(text: &str) -> Value {
    json!({ "StatusCode": 0, "logs": [[text, 1]], "duration": 12, "isTimedOut": false,
        "outputs": { "o.txt": { "type": "utf8", "value": text } } })
}

/// The end of a run as a message.
pub(crate) fn finished(job: &str, worker: &str, reason: &str, result: &Value) -> Value {
    let value =
        json!({ "type": "Finished", "reason": reason, "time": now(), "worker": worker, "result": result });
    json!({ "type": "StateChange", "payload": { "tag": worker, "state": "Finished", "job": job, "value": value } })
}

/// Log lines as a message.
pub(crate) fn logs(job: &str, step: &str, lines: &Value) -> Value {
    json!({ "type": "JobStatusLogs", "payload": { "jobId": job, "step": step, "logs": lines } })
}

impl Worker {
    /// Connects, registers under a fresh id and waits until it is listed.
    ///
    /// # Errors
    /// It is not.
    pub(crate) async fn join(test: &Test, queue: &str) -> anyhow::Result<Self> {
        Self::join_as(test, queue, &format!("w{}", Test::nonce())).await
    }

    /// Like [`Worker::join`], under a given id.
    ///
    /// # Errors
    /// It is not listed.
    pub(crate) async fn join_as(test: &Test, queue: &str, id: &str) -> anyhow::Result<Self> {
        let socket = test.socket(&format!("/q/{queue}/worker")).await?;
        let worker = Self { socket, id: id.to_owned() };
        worker.message(0, "JobStates").await?;
        worker.register().await?;
        Ok(worker)
    }

    /// Registers, again or for the first time, and waits for the list of workers at the first time.
    ///
    /// # Errors
    /// It is not listed.
    pub(crate) async fn register(&self) -> anyhow::Result<()> {
        self.send(&registration(&self.id)).await?;
        self.message_that(0, "Workers", "Workers with the one that registered", |payload| {
            payload["workers"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == *self.id))
        })
        .await?;
        Ok(())
    }

    /// Waits for a job to be queued, claims it, and waits until it is shown as its own.
    ///
    /// # Errors
    /// It is not.
    pub(crate) async fn claim(&self, job: &str) -> anyhow::Result<()> {
        self.state(job, "Queued").await?;
        self.send(&running(job, &self.id)).await?;
        self.until_table("its own claim", crate::check::SOON, |table| {
            let job = table.get(job)?;
            (job["state"] == "Running" && job["worker"] == *self.id).then_some(())
        })
        .await
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn log(&self, job: &str, step: &str, lines: &Value) -> anyhow::Result<()> {
        self.send(&logs(job, step, lines)).await
    }

    /// Ends a run and waits until that is shown.
    ///
    /// # Errors
    /// It is not.
    pub(crate) async fn finish(&self, job: &str, reason: &str, result: &Value) -> anyhow::Result<()> {
        self.send(&finished(job, &self.id, reason, result)).await?;
        self.state(job, "Finished").await?;
        Ok(())
    }

    /// Claims a job and ends it with success.
    ///
    /// # Errors
    /// It is not shown so.
    pub(crate) async fn do_job(&self, job: &str, text: &str) -> anyhow::Result<()> {
        self.claim(job).await?;
        self.finish(job, "Success", &result(text)).await
    }
}
