//! Images come from a registry as Docker's own configuration allows: with progress, with credentials, and not for
//! ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::client::Client;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::registry::{PASSWORD, Registry};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::wait;
use dockframe_tests::worker::Worker;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Layers of some size that no other image has.
fn dockerfile(scenario: &Scenario) -> String {
    format!(
        "FROM {BUSYBOX}\nRUN head -c 3000000 /dev/urandom > /large\nRUN echo {} > /name\n",
        scenario.queue()
    )
}

async fn ended(client: &Client, queue: &str, image: &str) -> anyhow::Result<(String, Value)> {
    let definition = json!({ "image": image, "command": "cat /name" });
    let id = client.submit(queue, &definition).await?;
    let mut job = client.finished(queue, &id).await?;
    Ok((id, job["finished"].take()))
}

/// Removes an image that a test has brought here.
async fn forget(image: &str) {
    // It may not have come.
    let _ = docker::run_at(None, &["rmi", "--force", image]).await;
}

async fn start(
    scenario: &Arc<Scenario>,
    relay: &Relay,
    more: &[&str],
    registry: Option<&Registry>,
) -> anyhow::Result<Worker> {
    let none = scenario.folder().join("no-credentials");
    let config = registry.map_or(none, |registry| registry.config().to_owned()).display().to_string();
    let arguments = [more, &["--cpus", "2", scenario.queue()]].concat();
    Worker::start_at(scenario, &relay.url(), &arguments, &[("DOCKER_CONFIG", &config)])
}

#[test]
fn an_image_is_pulled_with_progress_by_credentials_of_docker() {
    scenario::run("an_image_is_pulled_with_progress_by_credentials_of_docker", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let registry = Registry::start(&scenario).await?;
        registry.push("team/tool:1", &dockerfile(&scenario)).await?;
        let relay = Relay::start(&scenario).await?;
        let worker = start(&scenario, &relay, &[], Some(&registry)).await?;
        let (client, queue) = (relay.client()?, scenario.queue());
        let image = registry.image("team/tool:1");
        let outcome = ended(&client, queue, &image).await;
        forget(&image).await;
        let (id, finished) = outcome?;
        anyhow::ensure!(finished["reason"] == "Success", "{finished:#}");
        anyhow::ensure!(finished["result"]["logs"][0][0] == format!("{queue}\n"), "{finished:#}");
        let lines = client.get(&format!("/q/{queue}/j/{id}/build-logs.json")).await?.text().await?;
        anyhow::ensure!(lines.contains("Status: Downloaded newer image"), "no final line: {lines}");
        anyhow::ensure!(!worker.process().output().contains(PASSWORD), "the password is in the worker's log");
        anyhow::ensure!(!lines.contains(PASSWORD), "the password is in the job's log");

        // What the registry has not is an error, and soon.
        let begin = Instant::now();
        let (_, finished) = ended(&client, queue, &registry.image("team/none:1")).await?;
        anyhow::ensure!(finished["reason"] == "Error", "{finished:#}");
        anyhow::ensure!(finished.to_string().contains("team/none"), "{finished:#}");
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(20), "asked again for {:?}", begin.elapsed());
        Ok(())
    });
}

#[test]
fn an_image_that_the_owner_names_is_there_before_any_job() {
    scenario::run("an_image_that_the_owner_names_is_there_before_any_job", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let registry = Registry::start(&scenario).await?;
        registry.push("team/ahead:1", &dockerfile(&scenario)).await?;
        let image = registry.image("team/ahead:1");
        forget(&image).await;
        let relay = Relay::start(&scenario).await?;
        let _worker = start(&scenario, &relay, &["--prepull", &image], Some(&registry)).await?;
        let is_here = wait::until("the image", wait::PATIENT, async || {
            let found = docker::run_at(None, &["image", "inspect", &image]).await;
            found.map(drop).map_err(|error| error.to_string())
        });
        let is_here = is_here.await;
        forget(&image).await;
        is_here
    });
}

#[test]
fn a_registry_that_wants_credentials_refuses_a_worker_without() {
    scenario::run("a_registry_that_wants_credentials_refuses_a_worker_without", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let registry = Registry::start(&scenario).await?;
        registry.push("team/secret:1", &dockerfile(&scenario)).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = start(&scenario, &relay, &[], None).await?;
        let image = registry.image("team/secret:1");
        let outcome = ended(&relay.client()?, scenario.queue(), &image).await;
        forget(&image).await;
        let (_, finished) = outcome?;
        anyhow::ensure!(finished["reason"] == "Error", "{finished:#}");
        let text = finished["result"]["error"].to_string().to_lowercase();
        let says_why =
            ["unauthorized", "no basic auth", "denied", "credentials"].iter().any(|word| text.contains(word));
        anyhow::ensure!(says_why, "{finished:#}");
        Ok(())
    });
}

#[test]
fn a_registry_that_stalls_holds_no_job_for_ever() {
    scenario::run("a_registry_that_stalls_holds_no_job_for_ever", async |scenario| {
        let stalling = TcpListener::bind("127.0.0.1:0").await?;
        let address = stalling.local_addr()?;
        let mut held = tokio::task::JoinSet::new();
        held.spawn(async move {
            let mut all = Vec::new();
            // Taken, and never answered.
            while let Ok(connection) = stalling.accept().await {
                all.push(connection);
            }
        });
        let relay = Relay::start(&scenario).await?;
        let _worker = start(&scenario, &relay, &["--max-pull-duration=3s"], None).await?;
        let (_, finished) =
            ended(&relay.client()?, scenario.queue(), &format!("{address}/team/tool:1")).await?;
        anyhow::ensure!(finished["reason"] == "TimedOut", "{finished:#}");
        anyhow::ensure!(
            finished["result"]["logs"].to_string().contains("pull"),
            "no phase is named: {finished:#}"
        );
        Ok(())
    });
}
