//! A Docker Engine of the scenario's own, to be killed: in a network namespace, with its own data.
//!
//! Two Engines of one namespace would share, and take from each other, the bridge and the firewall's chains.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::process::Command;

use crate::process::Process;
use crate::{docker, wait};

#[derive(Debug)]
pub struct OwnEngine {
    folder: PathBuf,
    namespace: String,
    process: Mutex<Arc<Process>>,
}

impl OwnEngine {
    /// Whether this machine can have one: root, Linux, and the programs.
    #[must_use]
    pub fn is_possible() -> bool {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        let has = |name: &str| {
            ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|folder| Path::new(folder).join(name).exists())
        };
        is_root && ["dockerd", "ip", "nsenter", "iptables"].into_iter().all(has)
    }

    /// Starts one that answers and has the image of the tests.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start() -> anyhow::Result<Self> {
        // Not in the scenario's folder: that goes before the Engine has ended, and a socket's path must be short.
        let folder = tempfile::Builder::new().prefix("dfe-").tempdir()?.keep();
        let namespace = format!("dfe-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        run("ip", &["netns", "add", &namespace]).await?;
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"]).await?;
        let process = Mutex::new(launch(&folder, &namespace)?);
        let engine = Self { folder, namespace, process };
        engine.answers().await?;
        docker::busybox_at(&engine.address()).await?;
        Ok(engine)
    }

    /// For `DOCKER_HOST`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
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

    /// Starts it again over the same data.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        // A killed one takes its containerd along, whose number would still be believed.
        let _ = std::fs::remove_file(self.folder.join("docker.pid"));
        let number = self.folder.join("exec/containerd/containerd.pid");
        if let Ok(pid) = std::fs::read_to_string(&number) {
            // It may have ended already.
            let _ = run("kill", &["-KILL", pid.trim()]).await;
            let _ = std::fs::remove_file(number);
        }
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = launch(&self.folder, &self.namespace)?;
        self.answers().await
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let address = self.address();
        wait::until("an answer of the own Engine", wait::PATIENT, async || {
            let answer =
                docker::run_at(Some(&address), &["version", "--format", "{{.Server.Version}}"]).await;
            answer.map(drop).map_err(|error| format!("{error}; {}", self.process().output()))
        })
        .await
    }

    /// Ends it, with its containers, its files and its namespace.
    ///
    /// # Errors
    /// Something is left.
    pub async fn close(self) -> anyhow::Result<()> {
        let address = self.address();
        if let Ok(all) = docker::run_at(Some(&address), &["ps", "--all", "--quiet"]).await {
            for container in all.lines() {
                let _ = docker::run_at(Some(&address), &["rm", "--force", "--volumes", container]).await;
            }
        }
        self.process().stop(wait::PATIENT).await?;
        // Mounts that a killed Engine has left would keep the folder.
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let below = self.folder.display().to_string();
        for place in
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|place| place.starts_with(&below))
        {
            let _ = run("umount", &["--lazy", place]).await;
        }
        run("ip", &["netns", "del", &self.namespace]).await?;
        std::fs::remove_dir_all(&self.folder).context("the own Engine's files stay")
    }
}

fn launch(folder: &Path, namespace: &str) -> anyhow::Result<Arc<Process>> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg("dockerd");
    for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")] {
        command.arg(option).arg(folder.join(name));
    }
    command.arg("--host").arg(format!("unix://{}", folder.join("docker.sock").display()));
    Ok(Arc::new(Process::start("dockerd", command, folder)?))
}

async fn run(program: &str, words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(words).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {} failed: {}", words.join(" "), said.trim());
    Ok(())
}
