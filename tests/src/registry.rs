//! A registry of the scenario's own: Debian's `docker-registry` on a loopback port, which Engines trust without TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::process::Command;

use crate::process::Process;
use crate::scenario::Scenario;
use crate::{docker, ports, wait};

/// Whoever may push and pull.
const USER: &str = "tester";
pub const PASSWORD: &str = "pull-secret";
/// Of that password, cheaply.
const PASSWORD_HASH: &str = "$2b$04$7g3fFENoJRE4moTMxeXAvu3ECUbAdX1LeFzYSaNwGD0ctofsP1wtq";

#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    /// With a `config.json` that has the credentials.
    config: PathBuf,
    _process: Arc<Process>,
}

impl Registry {
    /// Starts it and waits until it asks for a password.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub async fn start(scenario: &Arc<Scenario>) -> anyhow::Result<Self> {
        // One provider for the process; that it is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = ports::free()?;
        let folder = scenario.folder().join("registry");
        let config = folder.join("docker");
        std::fs::create_dir_all(&config)?;
        std::fs::write(folder.join("users"), format!("{USER}:{PASSWORD_HASH}\n"))?;
        let settings = json!({
            "version": 0.1,
            "storage": { "filesystem": { "rootdirectory": folder.join("data") } },
            "http": { "addr": address.to_string() },
            "auth": { "htpasswd": { "realm": "tests", "path": folder.join("users") } },
        });
        // JSON is YAML.
        std::fs::write(folder.join("settings.yml"), settings.to_string())?;
        let auth = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let auths = json!({ "auths": { address.to_string(): { "auth": auth } } });
        std::fs::write(config.join("config.json"), auths.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(folder.join("settings.yml"));
        let process = scenario
            .start("registry", command)
            .context("no registry can be started: run `scripts/setup --test`")?;
        wait::until("an answer of the registry", wait::SOON, async || {
            match reqwest::get(format!("http://{address}/v2/")).await {
                Ok(answer) if answer.status() == 401 => Ok(()),
                other => Err(format!("{other:?}; {}", process.output())),
            }
        })
        .await?;
        Ok(Self { address, config, _process: process })
    }

    /// The reference of an image there.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// A directory for `DOCKER_CONFIG` whose credentials it accepts.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Puts an image of this Dockerfile there, and takes it away from the Engine.
    ///
    /// # Errors
    /// It cannot be built or pushed.
    pub async fn push(&self, name: &str, dockerfile: &str) -> anyhow::Result<()> {
        let image = self.image(name);
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("Dockerfile"), dockerfile)?;
        let place = folder.path().display().to_string();
        docker::run_at(None, &["build", "--quiet", "--tag", &image, &place]).await?;
        let config = self.config.display().to_string();
        let pushed = docker::run_at(None, &["--config", &config, "push", "--quiet", &image]).await;
        docker::run_at(None, &["rmi", "--force", &image]).await?;
        pushed.map(drop)
    }
}
