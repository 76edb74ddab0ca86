//! The Engine by itself: its command line, and the four calls that a container cannot do without.

use std::path::PathBuf;

use anyhow::Context as _;
use dockframe_tests::docker::BUSYBOX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

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
}

/// `docker run --rm`.
pub(crate) async fn docker_run(network: Network) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", network.name(), BUSYBOX, "true"]);
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Create, start, wait, remove.
pub(crate) async fn api_run(network: Network) -> anyhow::Result<()> {
    let body = format!(
        r#"{{"Image":"{BUSYBOX}","Cmd":["true"],"HostConfig":{{"NetworkMode":"{}"}}}}"#,
        network.name()
    );
    let created = call("POST", "/containers/create", &body).await?;
    let id = crate::support::socket::field(&created, "Id").context("no container was created")?.to_owned();
    call("POST", &format!("/containers/{id}/start"), "").await?;
    call("POST", &format!("/containers/{id}/wait"), "").await?;
    call("DELETE", &format!("/containers/{id}?v=true"), "").await?;
    Ok(())
}

/// The Engine's socket, if it is one of this machine.
pub(crate) fn socket() -> anyhow::Result<PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    Ok(PathBuf::from(host.strip_prefix("unix://").context("only an Engine on a local socket is measured")?))
}

async fn call(method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket()?).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Ok(answer)
}
