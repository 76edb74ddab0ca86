//! The worker as its users start it: from the image, by the published line, in a container.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_tests::client::Client;
use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::proxy::Proxy;
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::worker::Worker;
use dockframe_tests::{binary, checkout, wait};
use serde_json::json;
use tokio::process::Command;

/// A worker's image whose relay is on this machine, a container of it, and their end.
struct Deployed {
    image: String,
    container: String,
    id: String,
    client: Client,
    queue: String,
    _relay: Relay,
    _link: Proxy,
}

impl Deployed {
    /// Starts the image by these words of `docker run` before the image and after it.
    async fn start(scenario: &Arc<Scenario>, before: &[&str], after: &[&str]) -> anyhow::Result<Self> {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(scenario).await?;
        // A container reaches this machine by the gateway of its bridge.
        let gateway = docker::run_at(
            None,
            &["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"],
        );
        let gateway: IpAddr = gateway.await?.trim().parse()?;
        let link = Proxy::start_at(SocketAddr::new(gateway, 0), relay.address()).await?;
        let queue = scenario.queue().to_owned();
        let image = format!("dockframe.test/worker:{queue}");
        let mut build = Command::new(checkout("deploy/image"));
        build.arg(&image).arg(binary::dockframe()?).env("RELAY", link.url());
        let built = scenario.output(build).await?;
        anyhow::ensure!(built.code == Some(0), "no image: {built:?}");
        let mut words = vec!["run", "-tid", "-v", "/var/run/docker.sock:/var/run/docker.sock"];
        words.extend(before);
        words.extend([&*image, "run"]);
        words.extend(after);
        words.push(&queue);
        let container = docker::run_at(None, &words).await?.trim().to_owned();
        let client = relay.client()?;
        let mut deployed =
            Self { image, container, id: String::new(), client, queue, _relay: relay, _link: link };
        match deployed.registered().await {
            Ok(id) => deployed.id = id,
            Err(error) => {
                deployed.remove().await;
                return Err(error);
            }
        }
        Ok(deployed)
    }

    async fn logs(&self) -> String {
        docker::run_at(None, &["logs", &self.container]).await.unwrap_or_else(|error| error.to_string())
    }

    /// Waits until the relay knows the worker.
    async fn registered(&self) -> anyhow::Result<String> {
        let registered = wait::until("a registered worker", wait::PATIENT, async || {
            let status = self.client.json(&format!("/q/{}/status", self.queue)).await;
            let status = status.map_err(|error| error.to_string())?;
            let workers = status["localWorkers"].as_object().into_iter().flatten();
            workers.map(|(id, _)| id.clone()).next().ok_or_else(|| status.to_string())
        })
        .await;
        match registered {
            Ok(id) => Ok(id),
            Err(error) => Err(error.context(self.logs().await)),
        }
    }

    /// A job's inputs arrive and its outputs come back, small and large.
    async fn works(&self) -> anyhow::Result<()> {
        let script =
            "cat /inputs/a/b; cp /inputs/a/b /outputs/small; head -c 3000 /dev/zero > /outputs/d_large";
        let definition = json!({
            "image": BUSYBOX, "command": ["sh", "-c", script],
            "inputs": { "a/b": { "type": "utf8", "value": format!("for {}\n", self.queue) } },
        });
        let id = self.client.submit(&self.queue, &definition).await?;
        let job = self.client.finished(&self.queue, &id).await;
        let job = match job {
            Ok(job) => job,
            Err(error) => return Err(error.context(self.logs().await)),
        };
        let result = &job["finished"]["result"];
        anyhow::ensure!(result["logs"][0][0] == format!("for {}\n", self.queue), "{job:#}");
        let names: Vec<&String> =
            result["outputs"].as_object().into_iter().flat_map(|all| all.keys()).collect();
        anyhow::ensure!(names == ["d_large", "small"], "{job:#}");
        let large = self.client.get(&format!("/q/{}/j/{id}/outputs/d_large", self.queue)).await?;
        anyhow::ensure!(large.bytes().await?.len() == 3000, "the large output is another");
        Ok(())
    }

    /// Stops it as its users would, which is quick and leaves nothing.
    async fn stop(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        docker::run_at(None, &["stop", "--time", "20", &self.container]).await?;
        let code = docker::inspect(&self.container, "{{.State.ExitCode}}").await?;
        anyhow::ensure!(code == "0", "the worker ended with {code}: {}", self.logs().await);
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(15), "it took {:?} to stop", begin.elapsed());
        anyhow::ensure!(docker::containers_of(&self.id).await?.is_empty(), "it left containers");
        Ok(())
    }

    async fn remove(&self) {
        // Also after a failure: what cannot be removed shows in the next run.
        let _ = docker::run_at(None, &["rm", "--force", "--volumes", &self.container]).await;
        let _ = docker::remove_containers_of(&self.id).await;
        let _ = docker::run_at(None, &["rmi", "--force", &self.image]).await;
    }
}

async fn tried(
    scenario: &Arc<Scenario>,
    before: &[&str],
    after: &[&str],
    check: impl AsyncFnOnce(&Deployed) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let deployed = Deployed::start(scenario, before, after).await?;
    let outcome = async {
        deployed.works().await?;
        check(&deployed).await?;
        deployed.stop().await
    }
    .await;
    deployed.remove().await;
    outcome
}

#[test]
fn the_published_line_starts_a_worker() {
    scenario::run("the_published_line_starts_a_worker", async |scenario| {
        // A data directory of its own: other workers of this machine use the default one.
        let data = scenario.folder().join("published");
        let directory = format!("--data-directory={}", data.display());
        let before = ["--restart", "unless-stopped", "-v", "/tmp:/tmp"];
        let after = ["--cpus=4", "--gpus=0", &directory];
        tried(&scenario, &before, &after, async |deployed| {
            // It is process 1: nobody else would reap.
            let top = docker::run_at(None, &["top", &deployed.container, "-o", "pid,stat"]).await?;
            anyhow::ensure!(!top.lines().any(|line| line.contains('Z')), "zombies: {top}");
            Ok(())
        })
        .await
    });
}

#[test]
fn the_version_is_the_same_everywhere() {
    scenario::run("the_version_is_the_same_everywhere", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let said = scenario.dockframe_output(&["--version"]).await?.stdout;
        let client = relay.client()?;
        let registered = wait::until("a registered worker", wait::PATIENT, async || {
            let status = client.json(&format!("/q/{}/status", scenario.queue())).await;
            let status = status.map_err(|error| error.to_string())?;
            let workers = status["localWorkers"].as_object().into_iter().flatten();
            let version = workers.map(|(_, worker)| worker["version"].clone()).next();
            version.ok_or_else(|| status.to_string())
        })
        .await?;
        anyhow::ensure!(
            said.trim() == format!("dockframe {}", registered.as_str().unwrap_or_default()),
            "{said}, {registered}"
        );
        Ok(())
    });
}

#[test]
fn a_data_directory_at_another_path_of_the_host_is_found() {
    scenario::run("a_data_directory_at_another_path_of_the_host_is_found", async |scenario| {
        let here = scenario.folder().join("elsewhere");
        std::fs::create_dir_all(&here)?;
        let mount = format!("{}:/data", here.display());
        tried(&scenario, &["-v", &mount], &["-d", "/data", "--cpus=2"], async |_| {
            anyhow::ensure!(here.join("remote").is_dir(), "nothing was kept in {}", here.display());
            Ok(())
        })
        .await
    });
}

#[test]
fn a_data_directory_that_no_host_has_is_copied() {
    scenario::run("a_data_directory_that_no_host_has_is_copied", async |scenario| {
        tried(&scenario, &[], &["-d", "/nowhere/else", "--cpus=2"], async |_| {
            anyhow::ensure!(!Path::new("/nowhere").exists(), "the Engine has made a directory on the host");
            Ok(())
        })
        .await
    });
}
