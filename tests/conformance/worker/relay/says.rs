//! What the scripted relay says and serves when a test wants it to.

use anyhow::Context as _;
use axum::body::Bytes;
use serde_json::{Value, json};

use super::{Order, Page, Relay, Way, serve};
use crate::test::now;

impl Relay {
    /// Puts a job into the queue, or grants it to the worker of the newest connection.
    ///
    /// # Errors
    /// Leases: no worker is connected.
    pub(crate) fn submit(&self, job: &str, definition: Value) -> anyhow::Result<()> {
        if self.inner.state().settings.way == Way::Leases {
            return self.grant(job, 1, definition);
        }
        self.define(job, definition);
        self.put(job, queued(now()));
        Ok(())
    }

    /// Grants a job under the lease id `lease-JOB-ATTEMPT`.
    ///
    /// # Errors
    /// No worker is connected.
    pub(crate) fn grant(&self, job: &str, attempt: u32, definition: Value) -> anyhow::Result<()> {
        self.grant_with(job, attempt, definition, json!({}))
    }

    /// As [`Relay::grant`], with `control`.
    ///
    /// # Errors
    /// No worker is connected.
    pub(crate) fn grant_with(
        &self,
        job: &str,
        attempt: u32,
        definition: Value,
        control: Value,
    ) -> anyhow::Result<()> {
        let mut payload = json!({
            "leaseId": lease(job, attempt), "jobId": job, "attempt": attempt, "deadlineMs": 3_600_000,
        });
        payload["definition"] = definition;
        payload["control"] = control;
        self.say(&json!({ "type": "LeaseGrant", "payload": payload }))
    }

    /// # Errors
    /// No worker is connected.
    pub(crate) fn revoke(&self, job: &str, attempt: u32, why: &str, grace_ms: u64) -> anyhow::Result<()> {
        let payload = json!({ "leaseId": lease(job, attempt), "why": why, "graceMs": grace_ms });
        self.say(&json!({ "type": "LeaseRevoke", "payload": payload }))
    }

    /// Changes the table, and tells it by an update.
    pub(crate) fn put(&self, job: &str, object: Value) {
        let mut state = self.inner.state();
        let update = json!({ job: object });
        state.jobs.insert(job.to_owned(), object);
        serve::tell_all(&state, &serve::update(&update));
    }

    /// Changes many at once, and tells it by one update.
    pub(crate) fn put_all(&self, objects: serde_json::Map<String, Value>) {
        let mut state = self.inner.state();
        let update = serde_json::Value::Object(objects.clone());
        state.jobs.extend(objects);
        serve::tell_all(&state, &serve::update(&update));
    }

    /// Knows a definition without telling of the job.
    pub(crate) fn define(&self, job: &str, definition: Value) {
        self.inner.state().definitions.insert(job.to_owned(), definition);
    }

    /// Takes a job out of the table without a word: the next full list lacks it.
    pub(crate) fn remove(&self, job: &str) {
        self.inner.state().jobs.remove(job);
    }

    /// A full list, now.
    pub(crate) fn list(&self) {
        let state = self.inner.state();
        serve::tell_all(&state, &serve::full_list(&state));
    }

    /// To the newest open connection.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn say(&self, message: &Value) -> anyhow::Result<()> {
        let state = self.inner.state();
        let link = state.links.iter().rev().find(|link| link.closed.is_none());
        let link = link.context("no worker is connected")?;
        link.out.send(Order::Say(words(message))).context("the connection is gone")
    }

    /// To a certain connection.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) fn say_on(&self, link: usize, message: &Value) -> anyhow::Result<()> {
        let state = self.inner.state();
        let link = state.links.get(link).context("no such connection")?;
        link.out.send(Order::Say(words(message))).context("the connection is gone")
    }

    /// Closes all connections with this code, or cuts them.
    pub(crate) fn close(&self, code: Option<u16>) {
        for link in self.inner.state().links.iter().filter(|link| link.closed.is_none()) {
            let _ = link.out.send(Order::Close(code));
        }
    }

    pub(crate) fn put_blob(&self, key: &str, content: impl Into<Bytes>) {
        self.inner.state().blobs.insert(key.to_owned(), content.into());
    }

    pub(crate) fn blob(&self, key: &str) -> Option<Bytes> {
        self.inner.state().blobs.get(key).cloned()
    }

    /// Scripts the answers of a path, and gives its address.
    pub(crate) fn page(&self, path: &str, answers: Vec<Page>) -> String {
        self.inner.state().pages.insert(path.to_owned(), answers);
        format!("{}{path}", self.url())
    }
}

/// A queued job as lists show it.
pub(crate) fn queued(time: u64) -> Value {
    json!({ "queuedTime": time, "state": "Queued", "time": time, "worker": "" })
}

/// The id of a job's lease.
pub(crate) fn lease(job: &str, attempt: u32) -> String {
    format!("lease-{job}-{attempt}")
}

/// A JSON text is a bare word.
pub(super) fn words(message: &Value) -> String {
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}
