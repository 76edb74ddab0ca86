//! A client of the old way: it hears of the whole queue.

use std::ops::Deref;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::socket::Socket;
use crate::test::{Test, job_id, now};

#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
}

impl Deref for Client {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

/// A submission as a message.
pub(crate) fn queued(id: &str, definition: &Value, namespace: Option<&str>) -> Value {
    let mut enqueued = json!({ "id": id, "definition": definition });
    if let Some(namespace) = namespace {
        enqueued["control"] = json!({ "namespace": namespace });
    }
    let value = json!({ "type": "Queued", "time": now(), "enqueued": enqueued });
    json!({ "type": "StateChange", "payload": { "tag": "", "state": "Queued", "job": id, "value": value } })
}

/// An ending without result as a message.
pub(crate) fn ended(id: &str, reason: &str, namespace: Option<&str>) -> Value {
    let mut value = json!({ "type": "Finished", "reason": reason, "time": now() });
    if let Some(namespace) = namespace {
        value["namespace"] = json!(namespace);
    }
    json!({ "type": "StateChange", "payload": { "tag": "api", "state": "Finished", "job": id, "value": value } })
}

impl Client {
    /// Connects and waits for the first two messages.
    ///
    /// # Errors
    /// They do not come.
    pub(crate) async fn join(test: &Test, queue: &str) -> anyhow::Result<Self> {
        let socket = test.socket(&format!("/q/{queue}/client")).await?;
        socket.message(0, "Workers").await?;
        socket.message(0, "JobStates").await?;
        Ok(Self { socket })
    }

    /// Submits a definition under its own id and waits until the table shows it.
    ///
    /// # Errors
    /// It does not show.
    pub(crate) async fn submit(&self, definition: &Value, namespace: Option<&str>) -> anyhow::Result<String> {
        let id = job_id(definition)?;
        let mark = self.mark();
        self.send(&queued(&id, definition, namespace)).await?;
        // An answer in any form: the job in a message that came after the submission.
        self.until(&format!("job {id} after its submission"), mark, crate::check::SOON, |frames| {
            super::table::fold(frames).contains_key(&id).then_some(())
        })
        .await
        .context("a submission over the socket")?;
        Ok(id)
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn end(&self, id: &str, reason: &str, namespace: Option<&str>) -> anyhow::Result<()> {
        self.send(&ended(id, reason, namespace)).await
    }

    /// Asks for one job and gives the `jobs` map of the answer.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn query(&self, id: &str) -> anyhow::Result<Value> {
        let mark = self.mark();
        self.send(&json!({ "type": "QueryJob", "payload": { "jobId": id } })).await?;
        let answer = self.message_that(mark, "JobStateUpdates", "an answer to QueryJob", |payload| {
            let jobs = payload["state"]["jobs"].as_object();
            jobs.is_some_and(|jobs| jobs.is_empty() || jobs.contains_key(id))
        });
        Ok(answer.await?["state"]["jobs"].take())
    }
}
