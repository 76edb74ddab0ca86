//! What can run a container: the one trait between a job's state machine and the world (`worker` 22.3, B32).
//!
//! [`docker`] speaks to a real Engine, and is the only one that may name the Engine's client library. `scripted` is for
//! tests: containers in memory that do as they are told.
//!
//! Containers are named by the worker before they exist ([`ContainerSpec::name`]), so that whatever was begun can be
//! stopped and removed even when the answer to its creation was lost.

pub(crate) mod docker;
#[cfg(test)]
pub(crate) mod scripted;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dockframe_shared::Timestamp;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::config::Network;
use crate::logs::Stream;
use crate::plan::ImageSource;

/// Where lines about pulling and building go. Never the program's own output.
pub(crate) type BuildLines = mpsc::Sender<(LogStep, LogLine)>;

/// Runs containers. All waits can be dropped, which cancels them, but for [`Executor::create`] and
/// [`Executor::start`]: these are short, and are awaited so that nothing is left behind unseen.
pub(crate) trait Executor: Send + Sync + 'static {
    /// Makes the image available here, and says what it is.
    fn image(
        &self,
        source: &ImageSource,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> impl Future<Output = Result<Image, ImageError>> + Send;

    /// Creates the container; its id is for people.
    fn create(&self, spec: &ContainerSpec) -> impl Future<Output = Result<String, EngineError>> + Send;

    /// Brings the run's files into the created container, if it does not see them where they are.
    fn fill(&self, spec: &ContainerSpec) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Starts a created container. Its output is complete from the first byte.
    fn start(&self, name: &str) -> impl Future<Output = Result<Running, StartError>> + Send;

    /// Takes up a container of an earlier process, running or ended. Its output comes from the first byte.
    fn resume(&self, name: &str) -> impl Future<Output = Result<Option<Resumed>, EngineError>> + Send;

    /// Asks, waits `grace`, then kills. Returns when the container runs no more; one that is gone is stopped.
    fn stop(&self, name: &str, grace: Duration) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Brings what an ended container has left in `/outputs` to `into`, if it is not there already. The error is for
    /// the job's user.
    fn bring_outputs(&self, name: &str, into: &Path) -> impl Future<Output = Result<(), String>> + Send;

    /// Bytes that the container has written besides its inputs and outputs, where that can be told.
    fn own_bytes(&self, name: &str) -> impl Future<Output = Option<u64>> + Send;

    /// Whether the executor's host can be talked to just now.
    fn is_well(&self) -> impl Future<Output = bool> + Send;

    /// Removes the container with everything that was its own.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes the image that was made for this block alone: its job was deleted.
    fn forget(&self, source: &ImageSource) -> impl Future<Output = ()> + Send;

    /// Makes room: removes what the worker has brought here and has not used for longest.
    fn tidy(&self) -> impl Future<Output = Tidied> + Send;

    /// All containers that carry workers' labels, of whichever worker, in any state.
    fn list(&self) -> impl Future<Output = Result<Vec<Labelled>, EngineError>> + Send;
}

/// What was removed to make room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    pub(crate) images: usize,
    pub(crate) build_cache_bytes: u64,
}

/// A container that some worker made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) name: String,
    pub(crate) worker: String,
    /// The lock that its worker holds while it lives, where it can be seen from here.
    pub(crate) lock: Option<PathBuf>,
    /// When its lease is over for certain.
    pub(crate) deadline: Option<Timestamp>,
}

/// An image that is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// What the Engine starts containers from.
    pub(crate) reference: String,
    /// `sha256:…` of the manifest where known, else of the configuration.
    pub(crate) digest: Option<String>,
    /// Whether it is only on this machine: no registry ever named it.
    #[serde(default)]
    pub(crate) is_local: bool,
    /// Such as `linux/amd64`.
    pub(crate) platform: Option<String>,
    /// Whether it says itself which program starts.
    #[serde(default)]
    pub(crate) has_entrypoint: bool,
}

/// Everything that the Engine is told about a container. It has no field for host paths of a job's choice,
/// privileges or devices other than GPUs: what cannot be said cannot be asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    pub(crate) image: Image,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) shm_bytes: Option<u64>,
    /// Cpus that the job counts for.
    pub(crate) cpus: f64,
    /// A hard limit, where the job or the owner asks for one.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) gpus: Vec<String>,
    pub(crate) network: Network,
    /// Directories and files of the run, as this process sees them.
    pub(crate) inputs: PathBuf,
    pub(crate) outputs: PathBuf,
    /// File and absolute path in the container.
    pub(crate) mounted: Vec<(PathBuf, String)>,
    /// Name of the volume at `/job-cache`.
    pub(crate) cache_volume: Option<String>,
}

/// A started container.
pub(crate) struct Running {
    /// Ends when the container has closed both streams.
    pub(crate) output: BoxStream<'static, Chunk>,
    pub(crate) exit: BoxFuture<'static, Result<Exit, EngineError>>,
}

/// A container of an earlier process.
pub(crate) struct Resumed {
    pub(crate) id: String,
    pub(crate) running: Running,
    pub(crate) started_at: Timestamp,
    /// Of a container that runs no more.
    pub(crate) finished_at: Option<Timestamp>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stream: Stream,
    pub(crate) bytes: Bytes,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i64,
    /// The kernel ended it for want of memory.
    pub(crate) oom_killed: bool,
    /// The Engine went away and came back meanwhile: output that it had not written down then is lost.
    pub(crate) saw_restart: bool,
}

/// A refusal or failure of the Engine, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("(HTTP code {status}) {message}")]
    Refused { status: u16, message: String },
    #[error("the Docker Engine does not answer: {0}")]
    Unreachable(String),
}

/// Why a created container does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct StartError {
    pub(crate) error: EngineError,
    /// 126, 127 or 128, where the Engine says so.
    pub(crate) exit_code: Option<i64>,
    /// The executor has learned what its host cannot do: created anew, the container may start.
    pub(crate) is_worth_another: bool,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{0}")]
    Pull(String),
    #[error("{0}")]
    Build(String),
    /// Building went wrong before the first step.
    #[error("{0}")]
    Context(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
}
