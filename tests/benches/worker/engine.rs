//! The Engine by itself: its command line, and the four calls that a container cannot do without.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dockframe_tests::docker::BUSYBOX;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::Side;
use crate::support::socket::Socket;

/// How a container is joined to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Nat,
    None,
}

impl Network {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nat => "bridge",
            Self::None => "none",
        }
    }

    /// Makes a job ask for it; the worker's own is the other.
    pub(crate) fn ask(self, job: &mut Value) {
        if self == Self::None {
            job["network"] = json!("none");
        }
    }
}

/// `docker run --rm`.
pub(crate) async fn docker_run(network: Network) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", network.name(), BUSYBOX, "true"]);
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The least that the Engine can be asked for: nothing is confined or mounted, and the network is Docker's own.
pub(crate) fn bare(network: Network) -> String {
    format!(r#"{{"Image":"{BUSYBOX}","Cmd":["true"],"HostConfig":{{"NetworkMode":"{}"}}}}"#, network.name())
}

/// What the worker asks for: its own container, read back from the Engine while a job runs. Without its labels, by
/// which workers would look after it.
pub(crate) async fn as_the_worker_does(side: &Side, network: Network) -> anyhow::Result<String> {
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let mut job = json!({"image": BUSYBOX, "command": "sleep 1", "env": {"N": format!("body {network:?}")}});
    network.ask(&mut job);
    let running = async {
        let container = side.worker.running_container().await?;
        let answer = call("GET", &format!("/containers/{container}/json"), "").await?;
        let json = answer.find('{').zip(answer.rfind('}')).context("no JSON")?;
        let mut inspected: Value = serde_json::from_str(&answer[json.0..=json.1])?;
        let mut body = inspected["Config"].take();
        body["Cmd"] = json!(["true"]);
        body["HostConfig"] = inspected["HostConfig"].take();
        for name in ["Labels", "Hostname", "Volumes"] {
            body[name] = Value::Null;
        }
        // The job's directories go with it.
        let folder = side.scenario.folder().join(format!("same-{network:?}"));
        for mount in body["HostConfig"]["Mounts"].as_array_mut().into_iter().flatten() {
            if mount["Type"] == "bind" {
                let name = mount["Target"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
                let source = folder.join(name);
                std::fs::create_dir_all(&source)?;
                mount["Source"] = json!(source);
            }
        }
        anyhow::Ok(body.to_string())
    };
    let (finished, body) = tokio::join!(side.run(&mut client, &job), running);
    finished.and(body)
}

/// The steps of [`api_run`].
pub(crate) const STEPS: [&str; 4] = ["create", "start", "wait", "remove"];

/// Create, start, wait, remove: how long each took.
pub(crate) async fn api_run(body: &str) -> anyhow::Result<[Duration; 4]> {
    let mut before = Instant::now();
    let mut lap = || {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut before, now))
    };
    let created = call("POST", "/containers/create", body).await?;
    let id = crate::support::socket::field(&created, "Id").context("no container was created")?.to_owned();
    let create = lap();
    call("POST", &format!("/containers/{id}/start"), "").await?;
    let start = lap();
    call("POST", &format!("/containers/{id}/wait"), "").await?;
    let wait = lap();
    call("DELETE", &format!("/containers/{id}?v=true"), "").await?;
    Ok([create, start, wait, lap()])
}

/// The Engine's socket, if it is one of this machine.
pub(crate) fn socket() -> anyhow::Result<PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    Ok(PathBuf::from(host.strip_prefix("unix://").context("only an Engine on a local socket is measured")?))
}

pub(crate) async fn call(method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket()?).await?;
    // The older protocol: the answer comes whole, not in chunks.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.0 2"), "{method} {path}: {answer}");
    Ok(answer)
}
