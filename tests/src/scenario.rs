//! The frame of every scenario: a folder, a name for its queue, a time limit, artifacts on failure, and an end that
//! leaves nothing behind.

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::browser::Browser;
use crate::process::Process;
use crate::{binary, docker, tests_folder, wait};

/// How long a scenario may take. The test runner's own limit is longer, so that artifacts are still kept.
pub const LIMIT: Duration = Duration::from_secs(150);
/// How many lines of each log are shown in the report of a failure.
const SHOWN_LINES: usize = 40;

/// What a scenario owns. Parts register here what has to be ended with it.
#[derive(Debug)]
pub struct Scenario {
    name: String,
    folder: TempDir,
    queue: String,
    owned: Mutex<Owned>,
}

#[derive(Debug, Default)]
struct Owned {
    processes: Vec<Arc<Process>>,
    browsers: Vec<Arc<Browser>>,
    workers: Vec<String>,
}

/// Runs a scenario to its end, whatever that is.
///
/// # Panics
/// When it failed, after its logs and screenshots are in `tests/artifacts/<name>/` and all is closed.
pub fn run<F>(name: &str, body: F)
where
    F: AsyncFnOnce(Arc<Scenario>) -> anyhow::Result<()>,
{
    run_within(name, LIMIT, body);
}

/// As [`run`], for what takes longer than a scenario should.
///
/// # Panics
/// When it failed, as [`run`] does.
pub fn run_within<F>(name: &str, limit: Duration, body: F)
where
    F: AsyncFnOnce(Arc<Scenario>) -> anyhow::Result<()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started");
    let report = runtime.block_on(async {
        let scenario = Arc::new(Scenario::new(name).expect("a temporary folder can be made"));
        let body = AssertUnwindSafe(tokio::time::timeout(limit, body(scenario.clone()))).catch_unwind();
        let failure = match body.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("{error:#}")),
            Ok(Err(_)) => Some(format!("it did not end within {limit:?}")),
            Err(panic) => Some(message(&*panic)),
        };
        let report = match failure {
            None => None,
            Some(failure) => Some(scenario.keep(&failure).await),
        };
        let closed = scenario.close().await;
        report.or_else(|| closed.err().map(|error| format!("{name} did not close well: {error:#}")))
    });
    drop(runtime);
    if let Some(report) = report {
        panic!("{report}");
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

impl Scenario {
    fn new(name: &str) -> anyhow::Result<Self> {
        // Not hidden in a target folder: the Engine must be able to mount what lies in it.
        let folder = tempfile::Builder::new().prefix("dockframe-test-").tempdir()?;
        let queue = format!("test-{}", uuid::Uuid::new_v4().simple());
        Ok(Self { name: name.to_owned(), folder, queue, owned: Mutex::default() })
    }

    /// A folder that nobody else uses; gone at the end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A queue that nobody else uses.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Says what was counted or measured; shown with `--no-capture`.
    #[expect(clippy::print_stdout, reason = "it is for people who run the scenario by hand")]
    pub fn tell(&self, counts: &str) {
        println!("{}: {counts}", self.name);
    }

    /// Starts a program that ends with the scenario.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, name: &str, command: Command) -> anyhow::Result<Arc<Process>> {
        let process = Arc::new(Process::start(name, command, self.folder())?);
        self.owned().processes.push(process.clone());
        Ok(process)
    }

    /// A `dockframe` command line, without what the machine's environment would say to it.
    ///
    /// # Errors
    /// The binary is not built.
    pub fn dockframe(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary::dockframe()?);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("DOCKFRAME_") || text.starts_with("METAPAGE_") || text == "API_SERVER_ADDRESS"
            {
                command.env_remove(&name);
            }
        }
        command.args(arguments).current_dir(self.folder()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs a `dockframe` command to its end.
    ///
    /// # Errors
    /// It did not end in time. Its status is the caller's to judge.
    pub async fn dockframe_output(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        self.output(self.dockframe(arguments)?).await
    }

    /// Runs a command to its end, and says what it printed.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn output(&self, mut command: Command) -> anyhow::Result<Finished> {
        command.stdin(std::process::Stdio::null());
        let output = tokio::time::timeout(wait::PATIENT, command.output())
            .await
            .with_context(|| format!("{:?} did not end", command.as_std()))??;
        Ok(Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// A headless Chromium of the scenario's own.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn browser(&self) -> anyhow::Result<Arc<Browser>> {
        let n = self.owned().browsers.len();
        let browser = Arc::new(Browser::start(self.folder(), n).await?);
        self.owned().browsers.push(browser.clone());
        Ok(browser)
    }

    /// The containers of this worker are removed at the end.
    pub(crate) fn owns_worker(&self, id: &str) {
        self.owned().workers.push(id.to_owned());
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies logs and screenshots out of the folder that is about to vanish, and words the report.
    async fn keep(&self, failure: &str) -> String {
        let artifacts = tests_folder().join("artifacts").join(&self.name);
        let mut report = format!("{} failed: {failure}\n", self.name);
        if let Err(error) = self.keep_in(&artifacts, &mut report).await {
            let _ = writeln!(report, "and not all artifacts could be kept: {error:?}");
        }
        let _ = writeln!(report, "kept in {}", artifacts.display());
        report
    }

    async fn keep_in(&self, artifacts: &PathBuf, report: &mut String) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir_all(artifacts);
        std::fs::create_dir_all(artifacts)?;
        let browsers = self.owned().browsers.clone();
        for (n, browser) in browsers.iter().enumerate() {
            // A browser that hangs must not hide the logs of the others.
            let kept = tokio::time::timeout(wait::SOON, browser.keep(artifacts, n)).await;
            match kept {
                Ok(Ok(console)) => writeln!(report, "--- console of browser {n}\n{console}")?,
                Ok(Err(error)) => writeln!(report, "browser {n} gave no screenshot: {error}")?,
                Err(_) => writeln!(report, "browser {n} does not answer")?,
            }
        }
        for entry in std::fs::read_dir(self.folder())? {
            let path = entry?.path();
            let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|end| end == "log"))
            else {
                continue;
            };
            std::fs::copy(&path, artifacts.join(name))?;
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            writeln!(report, "--- {}\n{tail}", name.display())?;
        }
        std::fs::write(artifacts.join("report.txt"), report.as_bytes())?;
        Ok(())
    }

    /// Ends everything, the newest first: browsers, then programs, then what workers left in the Engine.
    async fn close(&self) -> anyhow::Result<()> {
        let owned = std::mem::take(&mut *self.owned());
        for browser in owned.browsers.into_iter().rev() {
            browser.close().await;
        }
        let mut outcome = Ok(());
        for process in owned.processes.into_iter().rev() {
            // A worker that drains may wait for its jobs; they end with their containers below.
            if process.stop(wait::SOON).await.is_err() && outcome.is_ok() {
                outcome = Err(anyhow::anyhow!("{} did not end on SIGTERM", process.name()));
            }
        }
        for worker in owned.workers {
            docker::remove_containers_of(&worker).await?;
        }
        outcome
    }
}

/// What a command that ended said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}
