//! The connection to an Engine: finding it, what it can do, and the calls of [`Executor`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::Docker as Engine;
use bollard::errors::Error;
use bollard::models::{ContainerStateStatusEnum, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, TopOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use dockframe_shared::Timestamp;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::container::{Abilities, NETWORK, Rules, create_body};
use super::credentials::Credentials;
use super::image::Images;
use super::logs::chunks;
use super::paths::{HostPaths, own_container};
use crate::clock;
use crate::config::{PullPolicy, Sandbox};
use crate::executor::{
    BuildLines, ContainerSpec, EngineError, Executor, Exit, Image, ImageError, Labelled, Resumed, Running,
    StartError,
};
use crate::files::fetch::Http;
use crate::plan::ImageSource;

/// The client library's own limit covers attach and wait too, which last as long as jobs do.
const LIBRARY_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// For calls that an Engine answers at once, even when it is busy.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an Engine that has gone away under a running container.
const ENGINE_PATIENCE: Duration = Duration::from_secs(120);
/// Looks at the networks of one name until there is one: made, made by others too, the others' removed.
const NETWORK_ROUNDS: usize = 5;
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Label of everything that workers make, known to other programs.
pub(super) const LABEL: &str = "container.mtfm.io";

/// What the owner says about the Engine and what runs on it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `DOCKER_HOST`; the usual socket when missing.
    pub(crate) host: Option<String>,
    /// How long to wait for the Engine at the start.
    pub(crate) patience: Duration,
    /// For build contexts.
    pub(crate) http: Http,
    /// Where they are unpacked.
    pub(crate) scratch: PathBuf,
    pub(crate) data_directory: PathBuf,
    pub(crate) host_data_directory: Option<PathBuf>,
    pub(crate) pull_policy: PullPolicy,
    pub(crate) sandbox: Sandbox,
    pub(crate) user: Option<String>,
    pub(crate) inputs_readonly: bool,
    pub(crate) enforce_cpus: bool,
    pub(crate) cache_volumes: Vec<String>,
    pub(crate) credentials_directory: Option<PathBuf>,
    pub(crate) credentials: Option<String>,
}

/// Why there is no Engine to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no Docker Engine answers at {address} ({why}): install and start Docker, or mount its socket into the \
         worker's container with -v /var/run/docker.sock:/var/run/docker.sock"
    )]
    NoEngine { address: String, why: String },
    #[error("the Docker Engine's address `{address}` cannot be used: {why}")]
    Address { address: String, why: String },
    #[error("the Docker Engine at {address} is too old: it speaks API {version}, 1.41 is needed")]
    TooOld { address: String, version: String },
    #[error(
        "the data directory {directory} of this container is on no volume that the host knows: start the worker with \
         -v {directory}:{directory}, or say what the host calls it with --host-data-directory"
    )]
    HiddenDirectory { directory: String },
    #[error("the Docker Engine refused {what}: {why}")]
    Prepare { what: &'static str, why: String },
}

/// An Engine that answers, with what it needs to run jobs.
#[derive(Debug)]
pub(crate) struct Docker {
    engine: Engine,
    abilities: Abilities,
    rules: Rules,
    paths: HostPaths,
    images: Images,
    raises_open_files: AtomicBool,
}

impl Docker {
    pub(crate) async fn connect(settings: Settings) -> Result<Self, ConnectError> {
        let address = settings.host.clone().unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"));
        let mut engine = Engine::connect_with_host(&address).map_err(|error| match error {
            Error::SocketNotFoundError(_) => {
                ConnectError::NoEngine { address: address.clone(), why: "there is no such socket".to_owned() }
            }
            other => ConnectError::Address { address: address.clone(), why: other.to_string() },
        });
        // A socket that does not exist yet may appear: the machine may be starting.
        let until = tokio::time::Instant::now() + settings.patience;
        let mut pause = Duration::from_millis(250);
        let mut is_said = false;
        let engine = loop {
            let failure = match engine {
                Ok(found) => match timeout(CALL_TIMEOUT, found.negotiate_version()).await {
                    Ok(Ok(found)) => break found,
                    Ok(Err(error)) => {
                        ConnectError::NoEngine { address: address.clone(), why: reason(&error) }
                    }
                    Err(_) => {
                        ConnectError::NoEngine { address: address.clone(), why: "no answer".to_owned() }
                    }
                },
                Err(failure @ ConnectError::Address { .. }) => return Err(failure),
                Err(failure) => failure,
            };
            if tokio::time::Instant::now() + pause >= until {
                return Err(failure);
            }
            if !is_said {
                info!("waiting for the Docker Engine: {failure}");
                is_said = true;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            engine = Engine::connect_with_host(&address)
                .map_err(|error| ConnectError::NoEngine { address: address.clone(), why: reason(&error) });
        };
        let engine = engine.with_timeout(LIBRARY_TIMEOUT);
        let version = engine.client_version();
        if (version.major_version, version.minor_version) < (1, 41) {
            let version = format!("{}.{}", version.major_version, version.minor_version);
            return Err(ConnectError::TooOld { address, version });
        }
        let abilities = abilities(&engine).await?;
        warn_missing(&abilities);
        let paths = match &settings.host_data_directory {
            Some(there) => HostPaths::given(&settings.data_directory, there),
            None => find_paths(&engine, &settings.data_directory).await?,
        };
        let docker = Self {
            images: Images::new(
                engine.clone(),
                settings.http,
                settings.scratch,
                settings.pull_policy,
                Credentials { directory: settings.credentials_directory, text: settings.credentials },
            ),
            engine,
            abilities,
            rules: Rules {
                sandbox: settings.sandbox,
                user: settings.user,
                inputs_readonly: settings.inputs_readonly,
                enforce_cpus: settings.enforce_cpus,
            },
            paths,
            raises_open_files: AtomicBool::new(true),
        };
        docker.ensure_network().await.map_err(prepare("to make the jobs' network"))?;
        for volume in &settings.cache_volumes {
            docker.ensure_volume(volume).await.map_err(prepare("to make the jobs' cache"))?;
        }
        Ok(docker)
    }

    /// Memory of the Engine's host.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        self.abilities.memory_bytes
    }

    /// Exactly one network of the known name. The Engine takes several of one name, so two workers that start
    /// together may make two: the oldest stays.
    async fn ensure_network(&self) -> Result<(), Error> {
        let mut last = Ok(());
        for _ in 0..NETWORK_ROUNDS {
            let filters = HashMap::from([("name", vec![NETWORK])]);
            let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
            let mut found = self.engine.list_networks(Some(options)).await?;
            // The filter matches parts of names too.
            found.retain(|network| network.name.as_deref() == Some(NETWORK));
            found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
            match found.as_slice() {
                [] => last = self.create_network().await,
                [_] => return Ok(()),
                [_, newer @ ..] => {
                    for id in newer.iter().filter_map(|network| network.id.as_deref()) {
                        last = self.engine.remove_network(id).await;
                    }
                }
            }
        }
        last
    }

    async fn create_network(&self) -> Result<(), Error> {
        let option =
            |name: &str, value: &str| (format!("com.docker.network.bridge.{name}"), value.to_owned());
        let request = NetworkCreateRequest {
            name: NETWORK.to_owned(),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            options: Some(HashMap::from([
                option("enable_ip_masquerade", "true"),
                option("enable_icc", "false"),
            ])),
            labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        match self.engine.create_network(request).await {
            // Another worker of this host was quicker.
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// What the host calls a path below the data directory.
    pub(crate) fn host_path(&self, path: &Path) -> PathBuf {
        self.paths.to_host(path)
    }

    async fn ensure_volume(&self, name: &str) -> Result<(), Error> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(HashMap::from([(LABEL.to_owned(), "true".to_owned())])),
            ..VolumeCreateRequest::default()
        };
        self.engine.create_volume(request).await.map(drop)
    }

    /// The signal that asks the container to stop, if its first process would hear it (`worker` 21, E19).
    async fn heard_stop_signal(&self, name: &str) -> Option<String> {
        let inspected = self.engine.inspect_container(name, None::<InspectContainerOptions>).await.ok()?;
        let signal = inspected
            .config
            .and_then(|config| config.stop_signal)
            .filter(|signal| !signal.is_empty())
            .unwrap_or_else(|| "SIGTERM".to_owned());
        let Some(number) = signal_number(&signal) else { return Some(signal) };
        let pid = inspected.state?.pid?.to_string();
        let options = TopOptionsBuilder::default().ps_args("-o pid,caught").build();
        let Ok(top) = self.engine.top_processes(name, Some(options)).await else { return Some(signal) };
        let mask = top.processes.unwrap_or_default().into_iter().find_map(|row| match row.as_slice() {
            [row_pid, mask, ..] if *row_pid == pid => u64::from_str_radix(mask, 16).ok(),
            _ => None,
        });
        match mask {
            Some(mask) if mask & (1 << (number - 1)) == 0 => None,
            _ => Some(signal),
        }
    }

    async fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match call(self.engine.kill_container(name, Some(options))).await {
            // Gone, or not running: that is what was wanted.
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(()),
            other => other,
        }
    }

    async fn attach(&self, name: &str) -> Result<Running, EngineError> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        let attached = call(self.engine.attach_container(name, Some(options))).await?;
        let exit = wait_for_exit(self.engine.clone(), name.to_owned());
        Ok(Running { output: chunks(attached.output), exit: exit.boxed() })
    }
}

impl Executor for Docker {
    async fn image(
        &self,
        source: &ImageSource,
        platform: Option<&str>,
        lines: &BuildLines,
    ) -> Result<Image, ImageError> {
        self.images.obtain(source, platform, lines).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let raises_open_files = self.raises_open_files.load(Ordering::Relaxed);
        let abilities = Abilities { raises_open_files, ..self.abilities };
        let body = create_body(spec, &self.rules, &abilities, &self.paths);
        let mut options = CreateContainerOptionsBuilder::default().name(&spec.name);
        if let Some(platform) = &spec.image.platform {
            // The local image is of this platform; naming it keeps the Engine from looking for another.
            options = options.platform(platform);
        }
        let options = options.build();
        let mut created = call(self.engine.create_container(Some(options.clone()), body.clone())).await;
        if created.as_ref().is_err_and(is_network_fault) {
            self.ensure_network().await.map_err(|error| engine_error(&error))?;
            created = call(self.engine.create_container(Some(options), body)).await;
        }
        match created {
            Ok(created) => Ok(created.id),
            Err(EngineError::Refused { status, message })
                if message.contains("bind source path does not exist") =>
            {
                let hint = "the Engine's host does not see the worker's files: give the worker's container its data \
                            directory under the host's path, as in -v /tmp:/tmp";
                Err(EngineError::Refused { status, message: format!("{message} ({hint})") })
            }
            Err(error) => Err(error),
        }
    }

    async fn start(&self, name: &str) -> Result<Running, StartError> {
        let plain = |error| StartError { error, exit_code: None, is_worth_another: false };
        let running = self.attach(name).await.map_err(plain)?;
        let mut started = call(self.engine.start_container(name, None::<StartContainerOptions>)).await;
        if started.as_ref().is_err_and(is_network_fault) {
            self.ensure_network().await.map_err(|error| plain(engine_error(&error)))?;
            started = call(self.engine.start_container(name, None::<StartContainerOptions>)).await;
        }
        match started {
            Ok(()) => Ok(running),
            Err(error) => {
                // Not every Engine may raise its own limit of open files, and none tells which it is.
                let is_worth_another = error.to_string().contains("rlimit");
                if is_worth_another {
                    self.raises_open_files.store(false, Ordering::Relaxed);
                }
                let inspected =
                    self.engine.inspect_container(name, None::<InspectContainerOptions>).await.ok();
                let code = inspected.and_then(|container| container.state?.exit_code);
                Err(StartError { error, exit_code: code.filter(|code| *code != 0), is_worth_another })
            }
        }
    }

    async fn resume(&self, name: &str) -> Result<Option<Resumed>, EngineError> {
        let inspected = match call(self.engine.inspect_container(name, None::<InspectContainerOptions>)).await
        {
            Err(EngineError::Refused { status: 404, .. }) => return Ok(None),
            other => other?,
        };
        let state = inspected.state.unwrap_or_default();
        if state.status == Some(ContainerStateStatusEnum::CREATED) {
            return Ok(None);
        }
        let Some(started_at) = state.started_at.as_deref().and_then(clock::parse_rfc3339) else {
            // Its start was refused.
            return Ok(None);
        };
        let is_running = state.running.unwrap_or(false);
        // Not by attaching: that would leave out the unfinished line which the Engine's log still waits for.
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(is_running).build();
        let output = chunks(self.engine.logs(name, Some(options)));
        let exit = if is_running {
            wait_for_exit(self.engine.clone(), name.to_owned()).boxed()
        } else {
            let exit = Exit {
                code: state.exit_code.unwrap_or_default(),
                oom_killed: state.oom_killed.unwrap_or(false),
            };
            std::future::ready(Ok(exit)).boxed()
        };
        let running = Running { output, exit };
        let finished_at = state.finished_at.as_deref().and_then(clock::parse_rfc3339).filter(|_| !is_running);
        Ok(Some(Resumed { id: inspected.id.unwrap_or_default(), running, started_at, finished_at }))
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let exit = wait_for_exit(self.engine.clone(), name.to_owned());
        tokio::pin!(exit);
        let signal = if grace.is_zero() { None } else { self.heard_stop_signal(name).await };
        if let Some(signal) = signal {
            self.kill(name, &signal).await?;
            if timeout(grace, &mut exit).await.is_ok() {
                return Ok(());
            }
        }
        self.kill(name, "SIGKILL").await?;
        match timeout(CALL_TIMEOUT, exit).await {
            Ok(Ok(_) | Err(EngineError::Refused { status: 404, .. })) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(EngineError::Unreachable("a killed container does not end".to_owned())),
        }
    }

    async fn is_well(&self) -> bool {
        matches!(timeout(PING_TIMEOUT, self.engine.ping()).await, Ok(Ok(_)))
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().v(true).force(true).build();
        match call(self.engine.remove_container(name, Some(options))).await {
            // Gone, or going.
            Err(EngineError::Refused { status: 404 | 409, .. }) => Ok(()),
            other => other,
        }
    }

    async fn list(&self) -> Result<Vec<Labelled>, EngineError> {
        let filters = HashMap::from([("label", vec![LABEL])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = call(self.engine.list_containers(Some(options))).await?;
        let labelled = found.into_iter().filter_map(|container| {
            let name = container.names?.into_iter().next()?.trim_start_matches('/').to_owned();
            let labels = container.labels?;
            let label = |name: &str| labels.get(&format!("{LABEL}/{name}"));
            Some(Labelled {
                name,
                worker: label("worker")?.clone(),
                lock: label("host-lock").and_then(|path| self.paths.to_here(Path::new(path))),
                deadline: label("deadline").and_then(|text| text.parse().ok()).map(Timestamp::from_millis),
            })
        });
        Ok(labelled.collect())
    }
}

/// The jobs' network is gone, or there are two of them.
fn is_network_fault(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused { message, .. } if message.contains(NETWORK)
        || message.starts_with("network") && message.contains("not found"))
}

/// Waits through restarts of the Engine, which break the call while the container may live on.
async fn wait_for_exit(engine: Engine, name: String) -> Result<Exit, EngineError> {
    let mut unreachable_since: Option<tokio::time::Instant> = None;
    loop {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let answer = engine.wait_container(&name, Some(options)).next().await;
        let code = match answer {
            Some(Ok(answer)) => Some(answer.status_code),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Some(code),
            Some(Err(error @ Error::DockerResponseServerError { status_code: 400..=499, .. })) => {
                return Err(engine_error(&error));
            }
            Some(Err(_)) | None => None,
        };
        match code {
            Some(0) => return Ok(Exit::default()),
            Some(code) => {
                let inspected = engine.inspect_container(&name, None::<InspectContainerOptions>).await.ok();
                let state = inspected.and_then(|container| container.state).unwrap_or_default();
                return Ok(Exit { code, oom_killed: state.oom_killed.unwrap_or(false) });
            }
            None => {
                let since = *unreachable_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > ENGINE_PATIENCE {
                    return Err(EngineError::Unreachable("it was away for too long".to_owned()));
                }
                debug!("the wait for a container broke off, trying again");
                sleep(Duration::from_millis(500)).await;
                if engine.ping().await.is_ok() {
                    unreachable_since = None;
                }
            }
        }
    }
}

async fn abilities(engine: &Engine) -> Result<Abilities, ConnectError> {
    let info = engine.info().await.map_err(prepare("to describe itself"))?;
    let selinux = |option: &String| option.contains("name=selinux");
    Ok(Abilities {
        memory_bytes: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
        cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).filter(|cpus| *cpus > 0),
        limits_memory: info.memory_limit.unwrap_or(true),
        limits_swap: info.swap_limit.unwrap_or(true),
        limits_pids: info.pids_limit.unwrap_or(true),
        limits_cpus: info.cpu_cfs_quota.unwrap_or(true),
        raises_open_files: true,
        has_selinux: info.security_options.unwrap_or_default().iter().any(selinux),
    })
}

fn warn_missing(abilities: &Abilities) {
    let missing: Vec<&str> = [
        (abilities.limits_memory, "memory"),
        (abilities.limits_swap, "swap"),
        (abilities.limits_pids, "processes"),
        (abilities.limits_cpus, "cpu time"),
    ]
    .into_iter()
    .filter_map(|(able, name)| (!able).then_some(name))
    .collect();
    if !missing.is_empty() {
        warn!("the Docker Engine's host cannot limit {}: jobs run without these limits", missing.join(", "));
    }
}

/// What the host calls the data directory, when this process runs in a container of the same Engine.
async fn find_paths(engine: &Engine, directory: &Path) -> Result<HostPaths, ConnectError> {
    let mountinfo = tokio::fs::read_to_string("/proc/self/mountinfo").await.unwrap_or_default();
    let in_container = Path::new("/.dockerenv").exists();
    let id = own_container(&mountinfo).or_else(|| {
        let hostname = std::fs::read_to_string("/etc/hostname").ok()?;
        let hostname = hostname.trim();
        let is_id = hostname.len() == 12 && hostname.bytes().all(|byte| byte.is_ascii_hexdigit());
        (in_container && is_id).then(|| hostname.to_owned())
    });
    let Some(id) = id else { return Ok(HostPaths::same(directory)) };
    let inspected = match engine.inspect_container(&id, None::<InspectContainerOptions>).await {
        Ok(inspected) => inspected,
        // A container of another Engine: what is seen here means nothing there, but a shared path may work.
        Err(_) => return Ok(HostPaths::same(directory)),
    };
    let paths = HostPaths::by_mounts(directory, &inspected.mounts.unwrap_or_default())
        .ok_or_else(|| ConnectError::HiddenDirectory { directory: directory.display().to_string() })?;
    debug!("running in a container; the host's paths are known");
    Ok(paths)
}

fn signal_number(name: &str) -> Option<u32> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let known =
        [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("WINCH", 28)];
    let number = known.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number);
    number.or_else(|| bare.parse().ok()).filter(|number| (1..=64).contains(number))
}

fn prepare(what: &'static str) -> impl Fn(Error) -> ConnectError {
    move |error| ConnectError::Prepare { what, why: reason(&error) }
}

/// A call that an Engine answers at once.
async fn call<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
    match timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|error| engine_error(&error)),
        Err(_) => Err(EngineError::Unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

pub(super) fn engine_error(error: &Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            EngineError::Refused { status: *status_code, message: message.clone() }
        }
        other => EngineError::Unreachable(reason(other)),
    }
}

/// The error with its causes, each once.
pub(super) fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
