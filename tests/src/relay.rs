//! A relay: `dockframe relay` as a process, on one address over its restarts. Also `dockframe up`, which is a relay
//! with a worker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::Command;

use crate::client::Client;
use crate::process::Process;
use crate::redis::Redis;
use crate::scenario::Scenario;
use crate::{ports, wait};

/// Where a relay keeps its queues.
#[derive(Debug, Clone)]
pub enum Store {
    /// In a folder of the scenario.
    Embedded,
    Redis(String),
}

impl From<&Redis> for Store {
    fn from(redis: &Redis) -> Self {
        Self::Redis(redis.url())
    }
}

#[derive(Debug)]
pub struct Relay {
    scenario: Arc<Scenario>,
    name: String,
    address: SocketAddr,
    arguments: Vec<String>,
    /// Of its log; none: its own.
    filter: String,
    process: Mutex<Arc<Process>>,
}

impl Relay {
    /// Starts a relay with an embedded store and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start(scenario: &Arc<Scenario>) -> anyhow::Result<Self> {
        Self::start_with(scenario, "relay", &Store::Embedded).await
    }

    /// Starts a relay; several of one store are told apart by their names.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_with(scenario: &Arc<Scenario>, name: &str, store: &Store) -> anyhow::Result<Self> {
        Self::launch(scenario, name, arguments(scenario, name, store)?).await
    }

    /// Starts a relay with an embedded store and further words on its command line.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_saying(
        scenario: &Arc<Scenario>,
        name: &str,
        store: &Store,
        words: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_logging(scenario, name, store, words, "").await
    }

    /// The same, with a filter for its log.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_logging(
        scenario: &Arc<Scenario>,
        name: &str,
        store: &Store,
        words: &[&str],
        filter: &str,
    ) -> anyhow::Result<Self> {
        let mut arguments = arguments(scenario, name, store)?;
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        Self::launch_logging(scenario, name, arguments, filter).await
    }

    /// Starts a relay with an embedded store under another program, such as a tracer, which gets `words` before the
    /// relay's own command line.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_under(
        scenario: &Arc<Scenario>,
        name: &str,
        program: &str,
        words: &[String],
    ) -> anyhow::Result<Self> {
        let arguments = arguments(scenario, name, &Store::Embedded)?;
        let address = ports::free()?;
        let own = command(scenario, &arguments, address, "")?;
        let mut under = Command::new(program);
        under.args(words).arg(own.as_std().get_program()).args(own.as_std().get_args()).kill_on_drop(true);
        let process = Mutex::new(scenario.start(name, under)?);
        let (name, filter) = (name.to_owned(), String::new());
        let relay = Self { scenario: scenario.clone(), name, address, arguments, filter, process };
        relay.ready().await?;
        Ok(relay)
    }

    /// Starts `dockframe up`: relay, page and a worker of the queue `local`.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_up(scenario: &Arc<Scenario>) -> anyhow::Result<Self> {
        let data = folder(scenario, "up", "data")?.display().to_string();
        let arguments = ["up", "--data-dir", &data, "--cpus", "2"].map(str::to_owned).to_vec();
        Self::launch(scenario, "up", arguments).await
    }

    async fn launch(scenario: &Arc<Scenario>, name: &str, arguments: Vec<String>) -> anyhow::Result<Self> {
        Self::launch_logging(scenario, name, arguments, "").await
    }

    async fn launch_logging(
        scenario: &Arc<Scenario>,
        name: &str,
        arguments: Vec<String>,
        filter: &str,
    ) -> anyhow::Result<Self> {
        let address = ports::free()?;
        let process = scenario.start(name, command(scenario, &arguments, address, filter)?)?;
        let relay = Self {
            scenario: scenario.clone(),
            name: name.to_owned(),
            address,
            arguments,
            filter: filter.to_owned(),
            process: Mutex::new(process),
        };
        relay.ready().await?;
        Ok(relay)
    }

    /// The base address, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// # Errors
    /// The HTTP client cannot be made.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.url())
    }

    #[must_use]
    pub fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.process().kill().await
    }

    /// Asks it to end, as an operator would.
    ///
    /// # Errors
    /// It does not end by itself.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let status = self.process().stop(wait::SOON).await?;
        anyhow::ensure!(status.success(), "the relay ended with {status}");
        Ok(())
    }

    /// Starts it again, with the same store at the same address.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        let command = command(&self.scenario, &self.arguments, self.address, &self.filter)?;
        let process = self.scenario.start(&self.name, command)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        self.ready().await
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let client = self.client()?;
        let process = self.process();
        wait::until("a healthy relay", wait::SOON, async || match process.ended().await {
            Ok(None) => client.health().await.map_err(|error| error.to_string()),
            ended => Err(format!("it has ended ({ended:?}): {}", process.output())),
        })
        .await
    }
}

fn arguments(scenario: &Scenario, name: &str, store: &Store) -> anyhow::Result<Vec<String>> {
    let store = match store {
        Store::Embedded => format!("embedded:{}", folder(scenario, name, "store")?.display()),
        Store::Redis(url) => url.clone(),
    };
    let blobs = format!("file:{}", folder(scenario, "shared", "blobs")?.display());
    Ok(["relay", "--store", &store, "--blobs", &blobs].map(str::to_owned).to_vec())
}

fn folder(scenario: &Scenario, name: &str, what: &str) -> anyhow::Result<PathBuf> {
    let path = scenario.folder().join(name).join(what);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

fn command(
    scenario: &Scenario,
    arguments: &[String],
    address: SocketAddr,
    filter: &str,
) -> anyhow::Result<Command> {
    let mut command = scenario.dockframe(&[])?;
    if !filter.is_empty() {
        command.env("DOCKFRAME_LOG", filter);
    }
    command.args(arguments).args(["--listen", &address.to_string()]);
    Ok(command)
}
