//! What a test of a worker works with: the command to start one, a folder, and an end that leaves nothing behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use dockframe_tests::process::Process;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::engine;
use super::relay::Relay;
use crate::registry::Context;
use crate::test::skip;

/// What is under test.
#[derive(Debug)]
pub(crate) struct Setup {
    command: Vec<String>,
    image: String,
    keep: bool,
}

impl Setup {
    pub(crate) fn new(command: Vec<String>, image: String, keep: bool) -> Self {
        Self { command, image, keep }
    }

    /// That there are an Engine and the image: otherwise every test would fail for the same reason.
    ///
    /// # Errors
    /// One of them is not there.
    pub(crate) async fn is_possible(&self) -> anyhow::Result<()> {
        engine::docker(&["version", "--format", "{{.Server.Version}}"]).await.context("no Docker Engine")?;
        if engine::docker(&["image", "inspect", &self.image]).await.is_err() {
            let pulled = engine::docker(&["pull", &self.image]).await;
            pulled.with_context(|| format!("no image {}: name one by --image", self.image))?;
        }
        Ok(())
    }
}

/// The context of one test.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    setup: Arc<Setup>,
    /// Text that nobody else uses.
    nonce: String,
    owned: Arc<Mutex<Owned>>,
}

#[derive(Debug, Default)]
struct Owned {
    folder: Option<Arc<TempDir>>,
    processes: Vec<Arc<Process>>,
    workers: Vec<String>,
    volumes: Vec<String>,
}

/// A started worker program.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    /// The id it was given.
    pub(crate) id: String,
    pub(crate) queue: String,
    pub(crate) process: Arc<Process>,
}

/// How a worker is started: all that is not said is appended so that it works.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    /// Before everything that is appended.
    pub(crate) options: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) queue: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) data: Option<PathBuf>,
}

impl Test {
    pub(crate) fn new(setup: &Arc<Setup>) -> Self {
        let nonce = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        Self { setup: setup.clone(), nonce, owned: Arc::default() }
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(crate) fn image(&self) -> &str {
        &self.setup.image
    }

    /// A job that runs a script by `sh`.
    pub(crate) fn sh(&self, script: &str) -> Value {
        json!({ "image": self.image(), "command": ["sh", "-c", script] })
    }

    /// A definition of the test's image with these fields.
    pub(crate) fn job(&self, fields: Value) -> Value {
        let mut job = json!({ "image": self.image() });
        if let (Value::Object(job), Value::Object(fields)) = (&mut job, fields) {
            job.extend(fields);
        }
        job
    }

    /// A folder of the test's own, which the Engine can mount from.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        let mut owned = self.owned();
        if owned.folder.is_none() {
            owned.folder =
                Some(Arc::new(tempfile::Builder::new().prefix("dockframe-conformance-").tempdir()?));
        }
        owned.folder.as_ref().map(|folder| folder.path().to_owned()).context("a folder")
    }

    /// An id that old workers spare when they look for orphans (`worker` 2.5), and that is the smallest of its kind.
    pub(crate) fn worker_id(&self, name: &str) -> String {
        format!("test-worker-{}-{name}", self.nonce)
    }

    /// Starts a worker for a relay, with these options.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn worker(&self, relay: &Relay, options: &[&str]) -> anyhow::Result<Worker> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        self.worker_by(relay, Line { options, ..Line::default() })
    }

    /// Starts a worker for a relay.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn worker_by(&self, relay: &Relay, line: Line) -> anyhow::Result<Worker> {
        let queue = line.queue.unwrap_or_else(|| format!("conformance-{}", self.nonce));
        let id = line.id.unwrap_or_else(|| self.worker_id("0"));
        let data = match line.data {
            Some(data) => data,
            None => self.folder()?.join(format!("data-{id}")),
        };
        std::fs::create_dir_all(&data)?;
        let places =
            [("{queue}", queue.clone()), ("{relay}", relay.url()), ("{data}", data.display().to_string())];
        let mut words = self.setup.command.clone();
        words.extend(line.options);
        words.push(format!("--id={id}"));
        for (place, value) in places {
            if words.iter().any(|word| word.contains(place)) {
                for word in &mut words {
                    *word = word.replace(place, &value);
                }
                continue;
            }
            words.push(match place {
                "{queue}" => value,
                "{relay}" => format!("--api-address={value}"),
                _ => format!("--data-directory={value}"),
            });
        }
        let process = self.launch(&words, &line.env)?;
        self.owned().workers.push(id.clone());
        Ok(Worker { id, queue, process })
    }

    /// Starts the command with exactly these words after it: for what is about the command line itself.
    ///
    /// # Errors
    /// It cannot be started; skipped when the command has places of its own.
    pub(crate) fn launch_with(
        &self,
        words: &[String],
        env: &[(String, String)],
    ) -> anyhow::Result<Arc<Process>> {
        if self.setup.command.iter().any(|word| word.contains('{')) {
            return skip("needs a COMMAND that takes options after it");
        }
        self.launch(&[&self.setup.command[..], words].concat(), env)
    }

    fn launch(&self, words: &[String], env: &[(String, String)]) -> anyhow::Result<Arc<Process>> {
        let (program, arguments) = words.split_first().context("an empty command")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("DOCKFRAME_") || text.starts_with("METAPAGE_") || text == "API_SERVER_ADDRESS"
            {
                command.env_remove(&name);
            }
        }
        command.args(arguments).envs(env.iter().map(|(name, value)| (name, value)));
        let folder = self.folder()?;
        let n = self.owned().processes.len();
        let process = Arc::new(Process::start(&format!("worker-{n}"), command, &folder)?);
        self.owned().processes.push(process.clone());
        Ok(process)
    }

    /// Containers of this worker are removed with the test.
    pub(crate) fn owns_worker(&self, id: &str) {
        self.owned().workers.push(id.to_owned());
    }

    /// A volume that is removed with the test.
    pub(crate) fn owns_volume(&self, name: String) {
        self.owned().volumes.push(name);
    }

    /// The label that images built in this test carry, so that they are removed with it.
    pub(crate) fn image_label(&self) -> String {
        format!("dockframe.conformance={}", self.nonce)
    }

    fn owned(&self) -> std::sync::MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context for Test {
    async fn end(self) -> anyhow::Result<()> {
        let owned = std::mem::take(&mut *self.owned());
        for process in &owned.processes {
            process.kill().await?;
        }
        for worker in &owned.workers {
            engine::remove_containers(worker).await?;
        }
        for volume in &owned.volumes {
            let _ = engine::docker(&["volume", "rm", volume]).await;
        }
        let label = format!("label={}", self.image_label());
        for image in engine::docker(&["images", "--quiet", "--filter", &label]).await?.lines() {
            let _ = engine::docker(&["rmi", "--force", image]).await;
        }
        if let Some(folder) = owned.folder.filter(|_| self.setup.keep)
            && let Some(folder) = Arc::into_inner(folder)
        {
            let kept = folder.keep();
            keep_note(&kept)?;
        }
        Ok(())
    }
}

fn keep_note(folder: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "kept: {}", folder.display())
}

/// How long a worker may take to be registered.
pub(crate) const START: Duration = Duration::from_secs(30);
