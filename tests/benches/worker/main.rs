//! The worker beside the Engine that it drives, in the same run: `make bench`. Prints tables; fails on nothing but jobs
//! that do not end.
//!
//! What is compared is interleaved, so that all of it meets the same moments of the machine.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

mod engine;
mod files;
mod latency;
mod logs;
mod memory;
#[path = "../support/mod.rs"]
mod support;
mod throughput;

use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::worker::Worker;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::http::Connection;
use crate::support::process::resident_kb;
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};

/// All of it together, on a slow machine.
const LIMIT: Duration = Duration::from_secs(1800);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|name| name == part);
    scenario::run_within("bench_worker", LIMIT, async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let side = Side::start(&scenario).await?;
        let idle = resident_kb(side.worker.process().pid())?;
        if wanted("latency") {
            latency::measure(&side).await?;
        }
        if wanted("throughput") {
            throughput::measure(&side).await?;
        }
        if wanted("logs") {
            logs::measure(&side).await?;
        }
        if arguments.is_empty() {
            let after = resident_kb(side.worker.process().pid())?;
            title("Memory of the worker");
            row("resident, idle after its first job", idle / 1024.0, "MiB", Aim::AtMost(15.0));
            row("growth by all jobs above", (after - idle) / 1024.0, "MiB", Aim::AtMost(3.0));
        }
        if arguments.iter().any(|name| name == "memory") {
            memory::measure(&side).await?;
        }
        if wanted("files") {
            files::measure(&side).await?;
        }
        Ok(())
    });
}

/// A relay, a worker with two processors, and a client.
pub(crate) struct Side {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) relay: Relay,
    pub(crate) worker: Worker,
}

impl Side {
    async fn start(scenario: &Arc<Scenario>) -> anyhow::Result<Self> {
        let relay = Relay::start(scenario).await?;
        let worker = Worker::start_with(scenario, &relay.url(), &["--cpus=2", scenario.queue()]).await?;
        let side = Self { scenario: Arc::clone(scenario), relay, worker };
        // Not measured: the first job waits for the worker, and warms the Engine.
        let mut client = Socket::client(side.relay.address(), scenario.queue()).await?;
        side.run(&mut client, &json!({"image": BUSYBOX, "command": "true"})).await?;
        Ok(side)
    }

    /// Milliseconds of each phase, from the result.
    pub(crate) async fn phases(&self, id: &str) -> anyhow::Result<Value> {
        let mut connection = Connection::open(self.relay.address()).await?;
        let path = format!("/q/{}/j/{id}/result.json", self.scenario.queue());
        let mut result: Value = serde_json::from_slice(connection.ask("GET", &path, "").await?)?;
        Ok(result["data"]["finished"]["result"]["phases"].take())
    }

    /// Until nothing is left of any job.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        let filters = format!(r#"{{"label":["container.mtfm.io/worker={}"]}}"#, self.worker.id());
        let path =
            format!("/containers/json?all=true&filters={}", utf8_percent_encode(&filters, NON_ALPHANUMERIC));
        tokio::time::timeout(Duration::from_secs(60), async {
            while !engine::call("GET", &path, "").await?.trim_end().ends_with("[]") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        })
        .await?
    }

    /// Submits over HTTP, as scripts do, and waits on a watching socket until the job is finished.
    pub(crate) async fn run(&self, client: &mut Socket, definition: &Value) -> anyhow::Result<String> {
        let queue = self.scenario.queue();
        let mut connection = Connection::open(self.relay.address()).await?;
        let body = json!({"definition": definition}).to_string();
        let answer: Value =
            serde_json::from_slice(connection.ask("POST", &format!("/q/{queue}"), &body).await?)?;
        let id = answer["jobId"].as_str().unwrap_or_default().to_owned();
        client.send(format!(r#"{{"type":"Watch","payload":{{"jobs":{{"{id}":{{}}}}}}}}"#)).await?;
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(120), client.next()).await??;
            if frame.contains(&id) && frame.contains("\"Finished\"") {
                anyhow::ensure!(frame.contains("\"Success\""), "the job failed: {frame}");
                return Ok(id);
            }
        }
    }
}
