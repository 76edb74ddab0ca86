//! A worker: `dockframe run` as a process. Its containers are told from all others by its id.

use std::sync::Arc;

use crate::docker;
use crate::process::Process;
use crate::scenario::Scenario;

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
}
