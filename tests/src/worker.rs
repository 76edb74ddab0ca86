//! A worker: `dockframe run` as a process. Its containers are told from all others by its id.

use std::sync::Arc;

use crate::process::Process;
use crate::scenario::Scenario;
use crate::{docker, wait};

#[derive(Debug)]
pub struct Worker {
    id: String,
    process: Arc<Process>,
}

impl Worker {
    /// Starts a worker for the scenario's queue, with room for two jobs.
    ///
    /// # Errors
    /// It cannot be started, or there is no Engine.
    pub async fn start(scenario: &Arc<Scenario>, relay: &str) -> anyhow::Result<Self> {
        Self::start_with(scenario, relay, &["--cpus", "2", scenario.queue()]).await
    }

    /// Starts a worker with the given words after `dockframe run`.
    ///
    /// # Errors
    /// It cannot be started, or there is no Engine.
    pub async fn start_with(
        scenario: &Arc<Scenario>,
        relay: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        docker::engine().await?;
        // Old workers spare containers of ids that begin so (`worker` 2.5).
        let id = format!("test-worker-{}", uuid::Uuid::new_v4().simple());
        let data = scenario.folder().join("workers").join(&id);
        std::fs::create_dir_all(&data)?;
        let mut command = scenario.dockframe(&["run"])?;
        command
            .args(arguments)
            .args(["--api-address", relay, "--id", &id])
            .arg("--data-directory")
            .arg(&data);
        scenario.owns_worker(&id);
        let process = scenario.start(&id, command)?;
        Ok(Self { id, process })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its containers, as `<id> <status>`.
    ///
    /// # Errors
    /// The Engine does not answer.
    pub async fn containers(&self) -> anyhow::Result<Vec<String>> {
        docker::containers_of(&self.id).await
    }

    /// Waits until one of its containers runs, and gives its id.
    ///
    /// # Errors
    /// None does within the limit.
    pub async fn running_container(&self) -> anyhow::Result<String> {
        wait::until("a running container", wait::PATIENT, async || {
            let containers = self.containers().await.map_err(|error| error.to_string())?;
            let running = containers.iter().find_map(|container| container.strip_suffix(" running"));
            running.map(str::to_owned).ok_or_else(|| format!("{containers:?}; {}", self.process.output()))
        })
        .await
    }

    /// Waits until the Engine has no container of it, running or not.
    ///
    /// # Errors
    /// There are some after the limit.
    pub async fn no_container(&self) -> anyhow::Result<()> {
        wait::until("no container", wait::SOON, async || match self.containers().await {
            Ok(containers) if containers.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}
