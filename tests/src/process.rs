//! Programs that a scenario starts: their output in a file, ended with the scenario.
//!
//! They stay in the test's own process group, so that a test runner that kills the test takes them along.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::wait;

/// A running program. Dropping it kills the program at once; [`Process::stop`] asks it to end.
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts it with both output streams in `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The program is not there or cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("cannot write a log")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("the program has ended before it began")?;
        Ok(Self { name: name.to_owned(), pid, log, child: Mutex::new(child) })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The status, once it has ended.
    ///
    /// # Errors
    /// The status cannot be read.
    pub async fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.lock().await.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It is still running after the limit.
    pub async fn end(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        wait::until(&format!("the end of {}", self.name), limit, async || match self.ended().await {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it is running".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Waits until its output holds a text; fails at once when it ends without.
    ///
    /// # Errors
    /// The text did not come; the message has the output.
    pub async fn says(&self, text: &str, limit: Duration) -> anyhow::Result<String> {
        wait::until(&format!("{text:?} in the output of {}", self.name), limit, async || {
            let output = self.output();
            if output.contains(text) { Ok(output) } else { Err(output) }
        })
        .await
    }

    /// Sends SIGTERM; killed when it has not ended after the limit, which is an error.
    ///
    /// # Errors
    /// It did not end by itself.
    pub async fn stop(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal("TERM").await?;
        let ended = self.end(limit).await;
        if ended.is_err() {
            self.kill().await?;
        }
        ended
    }

    /// Sends SIGKILL: what a crash or a loss of power looks like from outside.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.child.lock().await.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends a signal by its name; nothing when it has ended.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        // Held while sending: an ended child that nobody has waited for keeps its number to itself.
        let mut child = self.child.lock().await;
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status().await?;
        anyhow::ensure!(sent.success(), "cannot send {name} to {}", self.name);
        Ok(())
    }
}
