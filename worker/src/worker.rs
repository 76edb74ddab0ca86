//! A worker from its start to its end: everything put together.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use dockframe_shared::protocol::Registration;
use dockframe_shared::{Amount, InstanceId, QueueKey, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::adoption::{self, Leftover};
use crate::args::RunArgs;
use crate::capacity::Capacity;
use crate::config::{CacheScope, Config, ConfigError, Mode, Sandbox};
use crate::disk::Disk;
use crate::dispatcher::{Dispatcher, Leaving, Queue, Rules};
use crate::executor::docker::{ConnectError, Docker, NetworkRules, Settings};
use crate::files::cache::InputCache;
use crate::files::fetch::{Http, HttpSetupError};
use crate::files::inputs::Sources;
use crate::files::outputs::Uploader;
use crate::files::secret_files::SecretFiles;
use crate::identity::{Identity, IdentityError};
use crate::messages::QueueIndex;
use crate::metrics::{Metrics, server};
use crate::outbox::Outbox;
use crate::relay_link::{Farewell, Link};
use crate::secrets::Secrets;
use crate::unit::Shared;
use crate::{housekeeping, install_crypto, metrics, prepull, reaper, tls};

/// Volume of all jobs of a host, known to other programs.
const CACHE_VOLUME: &str = "metaframe-container-worker-cache";
/// Supervisors start a worker again at once: one that cannot work must not spin.
const FAULT_PAUSE: Duration = Duration::from_secs(5);
/// Events on their way to the dispatcher.
const EVENTS: usize = 256;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Engine(#[from] ConnectError),
    #[error(transparent)]
    Http(#[from] HttpSetupError),
    #[error("the outbox of results cannot be opened: {0}")]
    Outbox(std::io::Error),
    #[error("the directory of kept inputs cannot be opened: {0}")]
    Cache(std::io::Error),
    #[error("{0}")]
    Metrics(String),
    #[error("certificates cannot be set up: {0}")]
    Tls(String),
}

/// Why a running worker ends other than by being stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("local mode is relay and worker in one: start it with `dockframe up --listen 127.0.0.1:{port}`")]
    LocalMode { port: u16 },
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
}

/// A worker that has its Engine, its place on disk and its id, and takes no jobs yet.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    gpus: Vec<String>,
    identity: Identity,
    docker: Docker,
    http: Http,
    cache: InputCache,
    metrics_listener: Option<TcpListener>,
    leftovers: Vec<Leftover>,
    secret_files: Option<SecretFiles>,
    hurry: CancellationToken,
}

impl Worker {
    /// Finds the Engine, takes a place in the data directory, clears away what earlier processes left.
    ///
    /// # Errors
    /// [`StartError`]: one sentence that says what is missing and what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        install_crypto();
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let gpus = config.gpu_devices()?;
        let (directory, choice) = (config.data_directory.clone(), config.id.clone());
        let identity = Identity::acquire(&directory, &choice)?;
        let http = Http::new(
            &config.api_address,
            config.allow_private_fetch,
            config.ignore_certificate_errors,
            config.max_input_bytes,
        )?;
        // What a killed process left of its builds; missing is the usual case.
        let _ = std::fs::remove_dir_all(scratch(&identity.place));
        let docker = Docker::connect(settings(&config, &identity.place, http.clone())).await?;
        let cache = open_cache(&config)?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(server::bind(address).await.map_err(StartError::Metrics)?),
            None => None,
        };
        let leftovers = adoption::find(&identity.place, &config.queues);
        let kept: HashSet<String> = leftovers.iter().map(|left| left.directory.container_name()).collect();
        reaper::clear(&docker, identity.id.as_str(), &identity.place, &kept).await;
        let secret_files = open_secret_files(&config, &docker, &identity.place, &kept).await;
        Ok(Self {
            config,
            gpus,
            identity,
            docker,
            http,
            cache,
            metrics_listener,
            leftovers,
            secret_files,
            hurry: CancellationToken::new(),
        })
    }

    /// Cancelled: running jobs are killed at once instead of drained, once the worker was told to stop.
    #[must_use]
    pub fn hurry(&self) -> CancellationToken {
        self.hurry.clone()
    }

    /// Takes jobs until `stop` is cancelled and what runs has ended, was given back, or is left for the next
    /// process, as configured.
    ///
    /// # Errors
    /// [`RunError`] when it cannot begin.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self {
            config,
            gpus,
            identity,
            docker,
            http,
            cache,
            metrics_listener,
            leftovers,
            secret_files,
            hurry,
        } = self;
        let disk = Disk::new(&config.data_directory, config.disk_rules);
        let metrics = Metrics::default();
        metrics.describe(describe(&config));
        let tags = tags(&config);
        let memory_bytes = config.memory_bytes.or(docker.memory_bytes());
        let instance = instance();
        let registration = Registration {
            id: identity.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cpus: Amount(f64::from(config.slots())),
            gpus: Amount(f64::from(u32::try_from(gpus.len()).unwrap_or(u32::MAX))),
            time: Timestamp::default(),
            max_job_duration: config.max_job_duration_text.clone(),
            memory_bytes,
            tags: Some(tags.clone()),
            draining: Some(false),
            executor: Some("docker".to_owned()),
            instance: Some(instance.clone()),
            leases: Some(Vec::new()),
            others: serde_json::Map::new(),
        };
        info!(
            "worker {} at {}, {} queue(s), {} job(s) at once, {} GPU(s)",
            identity.id,
            config.api_address,
            config.queues.len(),
            config.slots(),
            gpus.len(),
        );

        let (events, incoming) = mpsc::channel(EVENTS);
        let (farewell, farewell_heard) = watch::channel(Farewell::ForGood);
        let links_stop = CancellationToken::new();
        let connector = tls::connector(config.ignore_certificate_errors).map_err(StartError::Tls)?;
        let mut links = Vec::new();
        let mut queues = Vec::new();
        for (index, key) in config.queues.iter().enumerate() {
            let outbox = Outbox::open(&identity.place, key).map_err(StartError::Outbox)?;
            let (sender, receiver) = watch::channel(registration.clone());
            queues.push(Queue::new(key.clone(), sender, outbox, cache_volume(&config, key)));
            let link = Link {
                queue: QueueIndex(index),
                key: key.clone(),
                address: config.api_address.clone(),
                registration: receiver,
                events: events.clone(),
                stop: links_stop.clone(),
                farewell: farewell_heard.clone(),
                connector: connector.clone(),
                old: None,
                disk: disk.clone(),
            };
            links.push(link);
        }

        let docker_lock = docker.host_path(&identity.lock_path);
        let shared = Arc::new(Shared {
            executor: docker,
            uploader: Uploader {
                http: http.clone(),
                external_address: config.external_address.clone(),
                metrics: metrics.clone(),
            },
            sources: Sources { http, cache, max_bytes: config.max_input_bytes, metrics },
            worker: RwLock::new(identity.id.clone()),
            instance,
            relay: config.api_address.clone(),
            host_lock: docker_lock,
            active: Mutex::default(),
            limits: config.phase_limits,
            max_job_duration: config.max_job_duration,
            kill_grace: config.kill_grace,
            max_log_bytes: config.max_log_bytes,
            network: config.network,
            owner: owner(&config),
            default_memory_bytes: config.default_memory_bytes,
            hide_queue: config.hide_queue,
            secrets: Secrets::new(&config.secrets),
            secret_files,
            shell_fallback: config.shell_fallback,
            enforce_cpus: config.enforce_cpus,
            has_init: config.sandbox == Sandbox::Strict,
            job_disk_bytes: config.job_disk_bytes,
            max_finish_bytes: AtomicU64::new(4 << 20),
        });
        let mut services: JoinSet<()> = JoinSet::new();
        services.spawn(reaper::run(Arc::clone(&shared)));
        services.spawn(prepull::run(Arc::clone(&shared), config.prepull.clone()));
        services.spawn(housekeeping::run(Arc::clone(&shared), disk.clone()));
        if let Some(listener) = metrics_listener {
            let serving = server::serve(listener, Arc::clone(&shared));
            services.spawn(async move {
                if let Err(error) = serving.await {
                    warn!("metrics are served no more: {error}");
                }
            });
        }
        let rules = Rules {
            place: identity.place.clone(),
            data_directory: config.data_directory.clone(),
            tags,
            images: config.image_policy.clone(),
            disk,
            leaving: Leaving { drain_timeout: config.drain_timeout, on_exit: config.on_exit },
        };
        let capacity = Capacity::new(config.slots(), memory_bytes, gpus);
        let mut dispatcher = Dispatcher::new(shared, rules, queues, capacity, events);
        dispatcher.begin_with(leftovers);
        // Not before the dispatcher has entered what it takes up: the first registration names it.
        let mut links: JoinSet<()> = links.into_iter().map(Link::run).collect();
        dispatcher.run(incoming, &stop, &hurry).await;
        // They hold nothing that could be left half done: a removal goes on without them.
        services.abort_all();
        if dispatcher.leaves_runs() {
            farewell.send_replace(Farewell::BackSoon);
        }
        links_stop.cancel();
        // Links hear the token at every wait, and say good-bye within seconds.
        while links.join_next().await.is_some() {}
        Ok(())
    }
}

/// The whole life of `dockframe run`: configuration, start, signals, end.
///
/// The first SIGTERM or SIGINT drains as configured, the second ends at once. A worker that cannot start waits five
/// seconds before it says so by ending, because supervisors start it again at once.
///
/// # Errors
/// [`RunError`], which has been logged by then; exit code 1.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    let started = async {
        let config = Config::resolve(args, |name| std::env::var(name).ok()).map_err(StartError::from)?;
        if let Mode::Local { port } = config.mode {
            return Err(RunError::LocalMode { port });
        }
        Ok(Worker::start(config).await?)
    };
    let worker = match started.await {
        Ok(worker) => worker,
        Err(error) => {
            tracing::error!("{error}");
            tokio::time::sleep(FAULT_PAUSE).await;
            return Err(error);
        }
    };
    let stop = CancellationToken::new();
    let signals = listen(stop.clone(), worker.hurry()).map_err(RunError::Signals)?;
    let result = worker.run(stop).await.inspect_err(|error| tracing::error!("{error}"));
    signals.abort();
    result
}

/// First signal: drain. Second: at once.
fn listen(stop: CancellationToken, hurry: CancellationToken) -> std::io::Result<tokio::task::AbortHandle> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listening = tokio::spawn(async move {
        for token in [stop, hurry] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(listening.abort_handle())
}

/// Where build contexts are unpacked.
fn scratch(place: &Path) -> PathBuf {
    place.join("builds")
}

/// What the configuration says about the Engine, for a worker whose place on disk this is.
pub(crate) fn settings(config: &Config, place: &Path, http: Http) -> Settings {
    Settings {
        host: config.engine_address.clone(),
        certificates: config.engine_certificates.clone(),
        network: NetworkRules {
            mode: config.network,
            allow_private: config.allow_private_network,
            relay: config.api_address.clone(),
        },
        disk_rules: config.disk_rules,
        ledger: place.join("images.json"),
        runtime: config.runtime.clone(),
        http,
        scratch: scratch(place),
        patience: config.engine_patience,
        data_directory: config.data_directory.clone(),
        host_data_directory: config.host_data_directory.clone(),
        pull_policy: config.pull_policy,
        pinned: config.prepull.clone(),
        sandbox: config.sandbox,
        user: config.job_user.clone(),
        inputs_readonly: config.inputs_readonly,
        enforce_cpus: config.enforce_cpus,
        cache_volumes: config.queues.iter().filter_map(|queue| cache_volume(config, queue)).collect(),
        credentials_directory: config.credentials_directory.clone(),
        credentials: config.registry_credentials.clone().map(|credentials| credentials.0),
    }
}

/// The volume at `/job-cache` for the jobs of a queue.
fn cache_volume(config: &Config, queue: &QueueKey) -> Option<String> {
    match config.job_cache_scope {
        CacheScope::Off => None,
        CacheScope::Engine => Some(CACHE_VOLUME.to_owned()),
        CacheScope::Queue => {
            let digest: String = queue.digest().to_hex().chars().take(16).collect();
            Some(format!("{CACHE_VOLUME}-{digest}"))
        }
    }
}

/// In memory, where the Engine's host shares it; a worker that lends no secrets looks for nothing.
async fn open_secret_files(
    config: &Config,
    docker: &Docker,
    place: &Path,
    kept: &HashSet<String>,
) -> Option<SecretFiles> {
    if config.secrets.is_empty() {
        return None;
    }
    let opened = match docker.shared_memory().await {
        Some(memory) => SecretFiles::open(&memory, place, kept).map_err(|error| error.to_string()),
        None => Err("it shares no memory file system with the Docker Engine's host".to_owned()),
    };
    opened
        .inspect_err(|why| {
            warn!("secrets that jobs want as files lie in the data directory while a job runs: {why}")
        })
        .ok()
}

/// Of the inputs that are kept for later jobs.
fn open_cache(config: &Config) -> Result<InputCache, StartError> {
    let disk = Disk::new(&config.data_directory, config.disk_rules);
    let a_fifth = disk.space().map_or(u64::MAX, |space| space.total / 5);
    let max_bytes = config.input_cache_bytes.unwrap_or(a_fifth);
    InputCache::open(&config.data_directory, max_bytes).map_err(StartError::Cache)
}

/// The owner's, and what the worker knows of itself.
fn tags(config: &Config) -> Vec<String> {
    let runtime = config.runtime.as_ref().map(|name| format!("runtime:{name}"));
    config.tags.iter().cloned().chain(runtime).collect()
}

/// What monitoring sees of the worker besides numbers.
fn describe(config: &Config) -> String {
    let mode = match config.mode {
        Mode::Remote => "remote",
        Mode::Local { .. } => "local",
    };
    let version = metrics::escape(env!("CARGO_PKG_VERSION"));
    format!("version=\"{version}\",mode=\"{mode}\",executor=\"docker\"")
}

/// Whose the input files must be, where that is not simply root or the worker itself.
fn owner(config: &Config) -> Option<(u32, u32)> {
    let (uid, gid) = config.job_user.as_deref()?.split_once(':')?;
    let owner = (uid.parse().ok()?, gid.parse().ok()?);
    (owner != (0, 0)).then_some(owner)
}

fn instance() -> InstanceId {
    // A UUID is a short printable text, which every instance may be.
    #[expect(clippy::expect_used, reason = "see above")]
    InstanceId::new(Uuid::new_v4().simple().to_string()).expect("a UUID is an instance")
}
