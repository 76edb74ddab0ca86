//! A scripted relay with one worker that is registered: what most tests begin with, and what comes of a job there.

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::engine;
use super::relay::{Line as LogLine, Relay, Way, lease};
use super::setup::{START, Test, Worker};

/// How long a small job may take on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(45);
/// Before a declined job is granted again.
const REGRANT_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) t: Test,
    pub(crate) relay: Relay,
    pub(crate) worker: Worker,
}

impl Test {
    /// A relay that works this way, with a registered worker.
    ///
    /// # Errors
    /// The worker does not register.
    pub(crate) async fn bench(&self, way: Way, options: &[&str]) -> anyhow::Result<Bench> {
        let relay = Relay::start(way).await?;
        let worker = self.worker(&relay, options)?;
        let bench = Bench { t: self.clone(), relay, worker };
        bench.registered().await?;
        Ok(bench)
    }
}

impl Bench {
    /// Waits for the first registration, and gives it.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn registered(&self) -> anyhow::Result<Value> {
        let came = self.relay.registration(START).await;
        came.map_err(|error| error.context(format!("the worker says: {}", self.worker.process.output())))
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    /// No worker is connected.
    pub(crate) fn submit(&self, definition: Value) -> anyhow::Result<String> {
        let job = format!("job-{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
        self.relay.submit(&job, definition)?;
        Ok(job)
    }

    /// Runs a job to its end. A grant that finds no room yet is granted again, as a relay would.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) async fn run(&self, definition: Value) -> anyhow::Result<Ended> {
        let job = self.submit(definition.clone())?;
        let is_leased = self.relay.way() == Way::Leases;
        if is_leased {
            self.grant_again(&job, 1, definition).await?;
        }
        self.ended(&job).await
    }

    /// Grants a job again, from attempt `granted` on, until there is room for it.
    ///
    /// # Errors
    /// It is never accepted.
    pub(crate) async fn grant_again(&self, job: &str, granted: u32, definition: Value) -> anyhow::Result<()> {
        for attempt in granted..granted + 100 {
            let id = json!(lease(job, attempt));
            let is_accepted = self.relay.until("an answer to a grant", PATIENT, |relay| {
                let answered = |kind: &str| relay.payloads(kind).iter().any(|answer| answer["leaseId"] == id);
                (answered("LeaseAccept") || answered("LeaseDecline")).then(|| answered("LeaseAccept"))
            });
            if is_accepted.await? {
                return Ok(());
            }
            tokio::time::sleep(REGRANT_PAUSE).await;
            self.relay.grant(job, attempt + 1, definition.clone())?;
        }
        anyhow::bail!("{job} was declined again and again")
    }

    /// Waits for the end of a job.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) async fn ended(&self, job: &str) -> anyhow::Result<Ended> {
        let value = self.relay.finished(job, PATIENT).await?;
        Ok(Ended { job: job.to_owned(), value })
    }

    /// Waits until the job's container runs.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn container(&self, job: &str) -> anyhow::Result<String> {
        wait::until("a running container", PATIENT, async || {
            let running = engine::running("id", job).await.map_err(|error| error.to_string())?;
            running.into_iter().next().ok_or_else(|| format!("none; {:?}", self.relay.finish(job)))
        })
        .await
    }

    /// Waits until the job has no container, running or not.
    ///
    /// # Errors
    /// It still has one.
    pub(crate) async fn no_container(&self, job: &str, limit: Duration) -> anyhow::Result<()> {
        wait::until("no container", limit, async || {
            match engine::containers("id", job).await.map_err(|error| error.to_string())? {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await
    }

    /// Waits until the job has no running container.
    ///
    /// # Errors
    /// It still has one.
    pub(crate) async fn none_runs(&self, job: &str, limit: Duration) -> anyhow::Result<()> {
        wait::until("no running container", limit, async || {
            match engine::running("id", job).await.map_err(|error| error.to_string())? {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await
    }
}

/// A finished job as the worker reported it.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) job: String,
    /// `{type, reason, worker, time, result}`.
    pub(crate) value: Value,
}

impl Ended {
    pub(crate) fn result(&self) -> &Value {
        &self.value["result"]
    }

    pub(crate) fn reason(&self) -> &str {
        self.value["reason"].as_str().unwrap_or_default()
    }

    pub(crate) fn code(&self) -> Option<i64> {
        self.result()["StatusCode"].as_i64()
    }

    pub(crate) fn logs(&self) -> Vec<LogLine> {
        LogLine::all(&self.result()["logs"])
    }

    /// Both streams, in order.
    pub(crate) fn text(&self) -> String {
        self.logs().into_iter().map(|line| line.text).collect()
    }

    /// Standard output alone.
    pub(crate) fn stdout(&self) -> String {
        self.logs().into_iter().filter(|line| !line.is_stderr).map(|line| line.text).collect()
    }

    pub(crate) fn outputs(&self) -> Vec<String> {
        self.result()["outputs"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
    }

    /// The bytes of an inline output.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn inline(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        use base64::Engine as _;
        let output = &self.result()["outputs"][name];
        anyhow::ensure!(output["type"] == "base64", "{name} is not inline: {output}; {}", self.value);
        Ok(base64::prelude::BASE64_STANDARD.decode(output["value"].as_str().unwrap_or_default())?)
    }

    /// What the error says, whatever its form.
    pub(crate) fn error(&self) -> String {
        match &self.result()["error"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// # Errors
    /// The program did not run to an exit code of 0.
    pub(crate) fn good(self) -> anyhow::Result<Self> {
        anyhow::ensure!(
            self.reason() == "Success" && self.code() == Some(0),
            "expected Success with exit code 0; came {}",
            self.value
        );
        Ok(self)
    }

    /// # Errors
    /// The job did not end as `Error`.
    pub(crate) fn failed(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.reason() == "Error", "expected Error; came {}", self.value);
        Ok(self)
    }
}
