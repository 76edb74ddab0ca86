//! A Redis of the scenario's own: its process, its port, nothing on disk but its folder.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::process::Process;
use crate::{ports, wait};

#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    process: Process,
}

impl Redis {
    /// Starts it and waits until it answers. Every write is synced, as a relay that promises durability needs it.
    ///
    /// # Errors
    /// Redis is not installed, or does not answer.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = ports::free()?;
        let data = folder.join("redis");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .arg("--port")
            .arg(address.port().to_string())
            .arg("--dir")
            .arg(&data);
        let process = Process::start("redis", command, folder)
            .context("Redis cannot be started: run `scripts/setup --test`")?;
        wait::until("an answer of Redis", wait::SOON, async || {
            ping(address).await.map_err(|error| error.to_string())
        })
        .await?;
        Ok(Self { address, process })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

async fn ping(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+PONG\r\n", "Redis answers {answer:?}");
    Ok(())
}
