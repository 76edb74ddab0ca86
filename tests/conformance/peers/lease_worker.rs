//! A worker with leases (`jobs-and-states` 8): it is given work and keeps its leases by registering.

use std::ops::Deref;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::socket::Socket;
use crate::check::SOON;
use crate::test::{Test, now, skip};

#[derive(Debug)]
pub(crate) struct LeaseWorker {
    socket: Socket,
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) cpus: u32,
    /// Further fields of the registration.
    pub(crate) more: Value,
}

impl Deref for LeaseWorker {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

/// What a grant says.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) lease: String,
    pub(crate) job: String,
    pub(crate) payload: Value,
}

impl LeaseWorker {
    /// Connects without registering.
    ///
    /// # Errors
    /// The relay refuses. A relay without leases skips the test.
    pub(crate) async fn connect(test: &Test, queue: &str, cpus: u32) -> anyhow::Result<Self> {
        Self::connect_at(test.address(), queue, cpus).await
    }

    /// Like [`LeaseWorker::connect`], at one instance.
    ///
    /// # Errors
    /// The relay refuses. A relay without leases skips the test.
    pub(crate) async fn connect_at(base: &str, queue: &str, cpus: u32) -> anyhow::Result<Self> {
        let path = format!("/q/{queue}/worker");
        let socket = Socket::open(base, &path, &[("dockframe-protocol", "lease/1")]).await?;
        if socket.protocol.as_deref() != Some("lease/1") {
            return skip("the relay does not speak lease/1");
        }
        let (id, instance) = (format!("l{}", Test::nonce()), Test::nonce());
        Ok(Self { socket, id, instance, cpus, more: json!({}) })
    }

    /// Connects, registers, and waits for `Hello`.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn join(test: &Test, queue: &str, cpus: u32) -> anyhow::Result<Self> {
        let worker = Self::connect(test, queue, cpus).await?;
        worker.register(&[]).await?;
        worker.message(0, "Hello").await?;
        Ok(worker)
    }

    /// The same worker on a new socket, not registered.
    ///
    /// # Errors
    /// The relay refuses.
    pub(crate) async fn again(&self, test: &Test, queue: &str) -> anyhow::Result<Self> {
        let mut next = Self::connect(test, queue, self.cpus).await?;
        next.id.clone_from(&self.id);
        next.instance.clone_from(&self.instance);
        next.more = self.more.clone();
        Ok(next)
    }

    /// Registers and names the leases it holds.
    ///
    /// # Errors
    /// The socket is closed.
    pub(crate) async fn register(&self, leases: &[&str]) -> anyhow::Result<()> {
        let leases: Vec<_> =
            leases.iter().map(|lease| json!({ "leaseId": lease, "phase": "running" })).collect();
        let mut payload = json!({ "version": "1.0.0", "id": self.id, "instance": self.instance,
            "cpus": self.cpus, "gpus": 0, "time": now(), "maxJobDuration": "20m", "executor": "docker",
            "draining": false, "leases": leases });
        for (name, value) in self.more.as_object().into_iter().flatten() {
            payload[name] = value.clone();
        }
        self.send(&json!({ "type": "WorkerRegistration", "payload": payload })).await
    }

    /// Waits for a grant since a mark.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn grant(&self, mark: usize) -> anyhow::Result<Grant> {
        self.grant_within(mark, SOON).await
    }

    /// Like [`LeaseWorker::grant`], with a limit.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn grant_within(&self, mark: usize, limit: Duration) -> anyhow::Result<Grant> {
        let grant = self.until("a LeaseGrant", mark, limit, |_| self.grants(mark).into_iter().next());
        grant.await
    }

    /// All grants since a mark.
    pub(crate) fn grants(&self, mark: usize) -> Vec<Grant> {
        let read = |payload: Value| {
            let text = |name: &str| payload[name].as_str().map(str::to_owned);
            Some(Grant { lease: text("leaseId")?, job: text("jobId")?, payload: payload.clone() })
        };
        self.payloads(mark, "LeaseGrant").into_iter().filter_map(read).collect()
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn accept(&self, lease: &str) -> anyhow::Result<()> {
        self.send(&json!({ "type": "LeaseAccept", "payload": { "leaseId": lease } })).await
    }

    /// # Errors
    /// The socket is closed.
    pub(crate) async fn decline(&self, lease: &str, retry: &str) -> anyhow::Result<()> {
        let payload = json!({ "leaseId": lease, "why": "not this one", "retry": retry });
        self.send(&json!({ "type": "LeaseDecline", "payload": payload })).await
    }

    /// Waits for a grant and accepts it.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn take(&self) -> anyhow::Result<Grant> {
        let grant = self.grant(0).await?;
        self.accept(&grant.lease).await?;
        Ok(grant)
    }

    /// The value of a finish with success.
    pub(crate) fn success(&self, text: &str) -> Value {
        json!({ "type": "Finished", "reason": "Success", "time": now(), "worker": self.id,
            "result": super::worker::result(text) })
    }

    /// Reports an end and gives the answer.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn finish(&self, lease: &str, value: &Value) -> anyhow::Result<Value> {
        let mark = self.mark();
        let payload = json!({ "leaseId": lease, "value": value });
        self.send(&json!({ "type": "LeaseFinish", "payload": payload })).await?;
        self.message_that(mark, "LeaseFinished", "LeaseFinished", |payload| payload["leaseId"] == lease).await
    }

    /// Reports success and demands that it is recorded.
    ///
    /// # Errors
    /// It is not.
    pub(crate) async fn succeed(&self, lease: &str, text: &str) -> anyhow::Result<()> {
        let answer = self.finish(lease, &self.success(text)).await?;
        anyhow::ensure!(answer["recorded"] == true, "expected recorded:true; came {answer}");
        Ok(())
    }

    /// Log lines of a lease.
    ///
    /// # Errors
    /// The socket is closed.
    pub(crate) async fn log(&self, grant: &Grant, from: u64, lines: &Value) -> anyhow::Result<()> {
        let payload = json!({ "jobId": grant.job, "step": "Running", "logs": lines, "leaseId": grant.lease,
            "from": from });
        self.send(&json!({ "type": "JobStatusLogs", "payload": payload })).await
    }

    /// Waits for the revocation of a lease.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn revoked(&self, mark: usize, lease: &str) -> anyhow::Result<Value> {
        self.message_that(mark, "LeaseRevoke", "LeaseRevoke", |payload| payload["leaseId"] == lease)
            .await
            .with_context(|| format!("of the lease {lease}"))
    }
}
