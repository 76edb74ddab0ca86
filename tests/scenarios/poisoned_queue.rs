//! A queue is a trust domain: a hostile worker on a queue of its own, with somebody else's definition in hand, changes
//! nothing in their queue (`jobs-and-states` 3.8).

use std::sync::Arc;

use anyhow::Context as _;
use dockframe_tests::client::Client;
use dockframe_tests::player::Player;
use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::{self, Scenario};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const FORGED: &str = "forged\n";
const TRUE: &str = "true\n";

fn definition() -> Value {
    json!({ "image": "a", "command": "everybody may know this" })
}

/// Two queues of one relay: theirs, and the hostile one's own.
struct Queues {
    relay: Relay,
    client: Client,
    theirs: String,
    hostile: String,
}

impl Queues {
    async fn start(scenario: &Arc<Scenario>, words: &[&str]) -> anyhow::Result<Self> {
        let relay = Relay::start_saying(scenario, "relay", &Store::Embedded, words).await?;
        let client = relay.client()?;
        let theirs = scenario.queue().to_owned();
        Ok(Self { relay, client, hostile: format!("hostile-{theirs}"), theirs })
    }

    /// Runs the job of a queue with a worker that says this of it.
    async fn run(&self, queue: &str, said: &str) -> anyhow::Result<String> {
        let job = self.client.submit(queue, &definition()).await?;
        // Not of the same name in both queues: one process has one room for all that it serves.
        let mut worker = Player::join(&self.relay.url(), queue, &format!("of-{queue}"), 1, &[]).await?;
        let (lease, granted) = worker.take().await?;
        anyhow::ensure!(granted == job, "another job was granted");
        worker.log(&lease, &job, 0, said);
        anyhow::ensure!(worker.finish(&lease, said).await?, "the result is not recorded");
        Ok(job)
    }

    /// All that can be done to a job from the hostile queue, by leases and in the old way, as worker and as client.
    async fn attack(&self, job: &str) -> anyhow::Result<()> {
        self.client.cancel(&self.hostile, job).await?;
        let ended = |reason: &str, more: Value| {
            let mut value = json!({ "type": "Finished", "reason": reason, "time": 1, "namespace": "*", "worker": "evil" });
            if !more.is_null() {
                value["result"] = more;
            }
            json!({ "type": "StateChange", "payload": { "tag": "", "state": "Finished", "job": job, "value": value } })
        };
        let claimed = json!({ "type": "StateChange", "payload": { "tag": "evil", "state": "Running", "job": job,
            "value": { "type": "Running", "time": 1, "worker": "evil" } } });
        let result = json!({ "StatusCode": 0, "logs": [[FORGED, 1]], "isTimedOut": false, "outputs": {} });
        let lines = json!({ "type": "JobStatusLogs", "payload": { "jobId": job, "step": "Running",
            "logs": [[FORGED, 1]] } });
        let registered = json!({ "type": "WorkerRegistration", "payload": { "version": "1", "id": "evil", "cpus": 8,
            "gpus": 0, "time": 1, "maxJobDuration": "1h" } });
        let frames = [registered, claimed, lines, ended("Success", result), ended("Deleted", Value::Null)];
        for role in ["worker", "client"] {
            self.say(role, &frames).await?;
        }
        // A lease of its own for the job, then the forgery, then the deletion once more.
        self.run(&self.hostile, FORGED).await?;
        self.say("client", &[ended("Deleted", Value::Null), ended("Cancelled", Value::Null)]).await?;
        Ok(())
    }

    /// Sends frames over a socket of the hostile queue, and waits until they are dealt with.
    async fn say(&self, role: &str, frames: &[Value]) -> anyhow::Result<()> {
        let url = format!("{}/q/{}/{role}", self.relay.url().replacen("http", "ws", 1), self.hostile);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await?;
        for frame in frames {
            socket.send(Message::text(frame.to_string())).await?;
        }
        socket.send(Message::text("PING")).await?;
        let answered = async {
            use futures_util::StreamExt as _;
            while let Some(frame) = socket.next().await {
                if matches!(&frame, Ok(Message::Text(text)) if text.starts_with("PONG")) {
                    return Ok(());
                }
            }
            anyhow::bail!("the socket was closed")
        };
        tokio::time::timeout(dockframe_tests::wait::SOON, answered).await.context("no answer")?
    }

    /// What their queue shows of the job: state, result, lines.
    async fn shown(&self, job: &str) -> anyhow::Result<Value> {
        let base = format!("/q/{}/j/{job}", self.theirs);
        Ok(json!({
            "listed": self.client.jobs(&self.theirs).await?[job],
            "result": self.client.json(&format!("{base}/result.json")).await?,
            "lines": self.client.json(&format!("{base}/run-logs.json")).await?,
            "definition": self.client.json(&format!("{base}/definition.json")).await?,
        }))
    }
}

#[test]
fn a_forged_result_answers_elsewhere_only_as_another_queues_and_goes_when_it_is_run_here() {
    let name = "a_forged_result_answers_elsewhere_only_as_another_queues_and_goes_when_it_is_run_here";
    scenario::run(name, async |scenario| {
        let queues = Queues::start(&scenario, &[]).await?;
        let job = queues.run(&queues.hostile, FORGED).await?;
        queues.client.submit(&queues.theirs, &definition()).await?;
        let answered = queues.shown(&job).await?;
        anyhow::ensure!(answered["listed"]["state"] == "Finished", "{answered:#}");
        anyhow::ensure!(answered["listed"]["shared"] == true, "it is not marked: {answered:#}");

        // Whatever the hostile queue does to its own, here nothing changes.
        queues.attack(&job).await?;
        let after = queues.shown(&job).await?;
        anyhow::ensure!(after == answered, "it was {answered:#}, it is {after:#}");

        // Run here, it is this queue's own result that answers.
        let rerun = json!({ "definition": definition(), "control": { "rerun": true } });
        queues.client.post(&format!("/q/{}", queues.theirs), &rerun).await?;
        queues.run(&queues.theirs, TRUE).await?;
        let own = queues.shown(&job).await?;
        anyhow::ensure!(own["listed"].get("shared").is_none(), "{own:#}");
        anyhow::ensure!(own["result"]["data"]["finished"]["result"]["logs"][0][0] == TRUE, "{own:#}");
        queues.attack(&job).await?;
        let after = queues.shown(&job).await?;
        anyhow::ensure!(after == own, "it was {own:#}, it is {after:#}");
        Ok(())
    });
}

#[test]
fn nothing_that_happens_in_another_queue_changes_a_running_job_or_its_result() {
    let name = "nothing_that_happens_in_another_queue_changes_a_running_job_or_its_result";
    scenario::run(name, async |scenario| {
        let queues = Queues::start(&scenario, &[]).await?;
        let job = queues.client.submit(&queues.theirs, &definition()).await?;
        let mut worker = Player::join(&queues.relay.url(), &queues.theirs, "worker", 1, &[]).await?;
        let (lease, _) = worker.take().await?;
        worker.log(&lease, &job, 0, TRUE);
        queues.client.reaches(&queues.theirs, &job, "Running").await?;
        queues.attack(&job).await?;
        let running = queues.shown(&job).await?;
        anyhow::ensure!(running["listed"]["state"] == "Running", "{running:#}");
        anyhow::ensure!(running["result"]["data"].is_null(), "{running:#}");
        anyhow::ensure!(running["lines"]["data"] == json!([[TRUE, 1]]), "{running:#}");

        anyhow::ensure!(worker.finish(&lease, TRUE).await?, "the true result is not recorded");
        let finished = queues.shown(&job).await?;
        anyhow::ensure!(finished["listed"].get("shared").is_none(), "{finished:#}");
        queues.attack(&job).await?;
        let after = queues.shown(&job).await?;
        anyhow::ensure!(after == finished, "it was {finished:#}, it is {after:#}");
        Ok(())
    });
}

#[test]
fn without_shared_results_only_a_queues_own_result_answers() {
    scenario::run("without_shared_results_only_a_queues_own_result_answers", async |scenario| {
        let queues = Queues::start(&scenario, &["--shared-results=off"]).await?;
        let job = queues.run(&queues.hostile, FORGED).await?;
        let before = queues.shown(&job).await?;
        anyhow::ensure!(before["result"]["data"].is_null(), "{before:#}");
        queues.client.submit(&queues.theirs, &definition()).await?;
        let waiting = queues.shown(&job).await?;
        anyhow::ensure!(waiting["listed"]["state"] == "Queued", "{waiting:#}");
        anyhow::ensure!(waiting["result"]["data"].is_null(), "{waiting:#}");
        queues.run(&queues.theirs, TRUE).await?;
        let own = queues.shown(&job).await?;
        anyhow::ensure!(own["result"]["data"]["finished"]["result"]["logs"][0][0] == TRUE, "{own:#}");
        Ok(())
    });
}
