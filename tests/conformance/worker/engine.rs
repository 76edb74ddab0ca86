//! The Docker Engine, seen through its command line.

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

/// Runs a `docker` command and gives what it printed.
///
/// # Errors
/// It failed; the message has what it said.
pub(crate) async fn docker(words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("docker");
    command.args(words).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("cannot run docker")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "docker {} failed: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Containers with a label, in any state, newest first.
///
/// # Errors
/// The Engine does not answer.
pub(crate) async fn containers(label: &str, value: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label=container.mtfm.io/{label}={value}");
    let ids = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).await?;
    Ok(ids.lines().map(str::to_owned).collect())
}

/// Those of them that run.
///
/// # Errors
/// The Engine does not answer.
pub(crate) async fn running(label: &str, value: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label=container.mtfm.io/{label}={value}");
    let ids = docker(&["ps", "--quiet", "--no-trunc", "--filter", &filter]).await?;
    Ok(ids.lines().map(str::to_owned).collect())
}

/// # Errors
/// There is no such container.
pub(crate) async fn inspect(container: &str) -> anyhow::Result<Value> {
    let text = docker(&["inspect", "--type", "container", container]).await?;
    let all: Value = serde_json::from_str(&text)?;
    Ok(all[0].clone())
}

/// Removes what a worker left.
///
/// # Errors
/// The Engine does not answer.
pub(crate) async fn remove_containers(worker: &str) -> anyhow::Result<()> {
    for container in containers("worker", worker).await? {
        // It may be on its way out already.
        let _ = docker(&["rm", "--force", "--volumes", &container]).await;
    }
    Ok(())
}
