//! The machine's Docker Engine, seen through its command line: images for jobs, and what workers leave there.

use std::process::Output;

use anyhow::Context as _;
use tokio::process::Command;

use crate::checkout;

/// The label by which a worker marks its containers (`worker` 8.1).
const WORKER_LABEL: &str = "container.mtfm.io/worker";

/// An image with a shell and the usual tools.
pub const BUSYBOX: &str = "dockframe.test/busybox:1";
/// The image that the existing service's example names.
pub const PYTHON: &str = "python:3.12.1-alpine3.19";

/// What an image is for, and so what a stand-in is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Busybox,
    Python,
}

/// Makes sure that an Engine answers, and starts the installed one if none does. It is left running: it is the
/// machine's, not the scenario's.
///
/// # Errors
/// There is none; the message says what to do.
pub async fn engine() -> anyhow::Result<()> {
    run(Command::new(checkout("scripts/docker-up"))).await.map(drop)
}

/// Makes sure that the Engine has an image of this name.
///
/// # Errors
/// It can neither be pulled nor made.
pub async fn image(kind: Kind, name: &str) -> anyhow::Result<()> {
    engine().await?;
    let kind = match kind {
        Kind::Busybox => "busybox",
        Kind::Python => "python",
    };
    let mut command = Command::new(checkout("scripts/image"));
    command.args([kind, name]);
    run(command).await.map(drop)
}

/// The containers of one worker, running or not, as `<id> <status>`.
///
/// # Errors
/// The Engine does not answer.
pub async fn containers_of(worker: &str) -> anyhow::Result<Vec<String>> {
    let mut command = docker();
    command.args(["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.State}}", "--filter"]);
    command.arg(format!("label={WORKER_LABEL}={worker}"));
    Ok(lines(&run(command).await?))
}

/// As [`containers_of`], at the Engine of this address.
///
/// # Errors
/// The Engine does not answer.
pub async fn containers_at(engine: Option<&str>, worker: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={WORKER_LABEL}={worker}");
    let format = "{{.ID}} {{.State}}";
    let text =
        run_at(engine, &["ps", "--all", "--no-trunc", "--format", format, "--filter", &filter]).await?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Runs a `docker` command at the Engine of this address, and gives what it printed.
///
/// # Errors
/// It failed; the message has what it said.
pub async fn run_at(engine: Option<&str>, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = docker();
    command.args(arguments);
    if let Some(engine) = engine {
        command.env("DOCKER_HOST", engine);
    }
    Ok(String::from_utf8_lossy(&run(command).await?.stdout).into_owned())
}

/// Makes sure that the Engine of this address has [`BUSYBOX`].
///
/// # Errors
/// It cannot be made.
pub async fn busybox_at(engine: &str) -> anyhow::Result<()> {
    let mut command = Command::new(checkout("scripts/image"));
    command.args(["busybox", BUSYBOX]).env("DOCKER_HOST", engine);
    run(command).await.map(drop)
}

/// Removes what a worker left, running or not.
///
/// # Errors
/// The Engine does not answer.
pub async fn remove_containers_of(worker: &str) -> anyhow::Result<()> {
    for container in containers_of(worker).await? {
        let id = container.split(' ').next().unwrap_or_default();
        // It may be on its way out already.
        let _ = run_args(&["rm", "--force", "--volumes", id]).await;
    }
    Ok(())
}

/// Runs a command in a running container.
///
/// # Errors
/// The container is not running, or the command fails there.
pub async fn exec(container: &str, command: &[&str]) -> anyhow::Result<()> {
    let words = [&["exec", container], command].concat();
    run_args(&words).await.map(drop)
}

/// A property of a container, by a Go template.
///
/// # Errors
/// There is no such container.
pub async fn inspect(container: &str, template: &str) -> anyhow::Result<String> {
    let output = run_args(&["inspect", "--format", template, container]).await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn docker() -> Command {
    Command::new("docker")
}

async fn run_args(arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = docker();
    command.args(arguments);
    run(command).await
}

async fn run(mut command: Command) -> anyhow::Result<Output> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("cannot run {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command.as_std(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
