//! A worker: `dockframe run` as a process. Its containers are told from all others by its id.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::Process;
use crate::scenario::Scenario;
use crate::{docker, wait};

#[derive(Debug)]
pub struct Worker {
    scenario: Arc<Scenario>,
    id: String,
    data: PathBuf,
    /// All words after `dockframe`.
    words: Vec<String>,
    env: Vec<(String, String)>,
    process: Mutex<Arc<Process>>,
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
        Self::start_at(scenario, relay, arguments, &[])
    }

    /// Starts a worker with the given words and environment, at whatever Engine that names.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_at(
        scenario: &Arc<Scenario>,
        relay: &str,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        // Old workers spare containers of ids that begin so (`worker` 2.5).
        let id = format!("test-worker-{}", uuid::Uuid::new_v4().simple());
        let data = scenario.folder().join("workers").join(&id);
        std::fs::create_dir_all(&data)?;
        let place = data.display().to_string();
        let appended = ["--api-address", relay, "--id", &id, "--data-directory", &place];
        let words = ["run"].iter().chain(arguments).chain(&appended);
        let words: Vec<String> = words.map(|&word| word.to_owned()).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        scenario.owns_worker(&id);
        let process = launch(scenario, &id, &words, &env)?;
        let scenario = scenario.clone();
        Ok(Self { scenario, id, data, words, env, process: Mutex::new(process) })
    }

    /// Starts it again as it was started, after it has ended or was killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let process = launch(&self.scenario, &self.id, &self.words, &self.env)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    #[must_use]
    pub fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            running.map(str::to_owned).ok_or_else(|| format!("{containers:?}; {}", self.process().output()))
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

fn launch(
    scenario: &Arc<Scenario>,
    id: &str,
    words: &[String],
    env: &[(String, String)],
) -> anyhow::Result<Arc<Process>> {
    let mut command = scenario.dockframe(&[])?;
    command.args(words).envs(env.iter().map(|(name, value)| (name, value)));
    scenario.start(id, command)
}
