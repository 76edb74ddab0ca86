//! Finding an Engine, and what it can do for this worker (`worker` 3, 4.2).

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, SystemInfo};
use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions};
use bollard::{API_DEFAULT_VERSION, Docker as Engine};
use rustix::fs::statfs;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::build::Builder;
use super::client::{CALL_TIMEOUT, Docker, reason};
use super::container::{Abilities, CDI_GPU, GpuWay, Rules};
use super::credentials::Credentials;
use super::firewall::{self, NetworkRules};
use super::image::Images;
use super::ledger::Ledger;
use super::paths::{HostPaths, Sharing, own_container};
use super::raw::RawEngine;
use crate::config::{PullPolicy, Sandbox};
use crate::disk::{Disk, DiskRules};
use crate::files::fetch::Http;

/// The client library's own limit covers attach and wait too, which last as long as jobs do.
const LIBRARY_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Where Linux has memory for programs to share.
const SHARED_MEMORY: &str = "/dev/shm";
/// What the kernel calls a file system in memory.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// Version of an Engine's API.
type Api = (usize, usize);
/// From this one on Engines say which devices they have found.
const SHOWS_DEVICES: Api = (1, 50);
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// What the owner says about the Engine and what runs on it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `DOCKER_HOST`; the usual socket when missing.
    pub(crate) host: Option<String>,
    /// Directory of `ca.pem`, `cert.pem` and `key.pem`, to speak to a remote Engine by TLS.
    pub(crate) certificates: Option<PathBuf>,
    /// How long to wait for the Engine at the start.
    pub(crate) patience: Duration,
    /// For build contexts.
    pub(crate) http: Http,
    /// Where they are unpacked.
    pub(crate) scratch: PathBuf,
    pub(crate) data_directory: PathBuf,
    pub(crate) host_data_directory: Option<PathBuf>,
    pub(crate) pull_policy: PullPolicy,
    /// Images that never go to make room.
    pub(crate) pinned: Vec<String>,
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Option<String>,
    pub(crate) network: NetworkRules,
    pub(crate) disk_rules: DiskRules,
    /// Where it is written down which images the worker brought here.
    pub(crate) ledger: PathBuf,
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
    #[error("the Docker Engine has no runtime `{wanted}` (--runtime): it has {known}")]
    NoRuntime { wanted: String, known: String },
    #[error("the Docker Engine refused {what}: {why}")]
    Prepare { what: &'static str, why: String },
}

impl Docker {
    pub(crate) async fn connect(settings: Settings) -> Result<Self, ConnectError> {
        let Reached { address, engine, api, info } = reach(&settings).await?;
        check_runtime(&info, settings.runtime.as_deref())?;
        let abilities = abilities(&info, api);
        warn_missing(&abilities);
        let sharing = find_sharing(&engine, &settings).await;
        // The Engine's own place where this process sees it, else the best that it does see.
        let engine_root = info.docker_root_dir.map(PathBuf::from).filter(|root| root.is_dir());
        let disk = Disk::new(engine_root.as_deref().unwrap_or(&settings.data_directory), settings.disk_rules);
        let raw =
            RawEngine::new(&address, settings.certificates.as_deref(), &engine.client_version().to_string())
                .map_err(|why| ConnectError::Address { address: address.clone(), why })?;
        let docker = Self {
            images: Images::new(
                engine.clone(),
                Builder {
                    raw,
                    http: settings.http,
                    scratch: settings.scratch,
                    network: settings.network.mode,
                },
                settings.pull_policy,
                &settings.pinned,
                Credentials { directory: settings.credentials_directory, text: settings.credentials },
                Ledger::open(settings.ledger),
            ),
            engine,
            abilities,
            rules: Rules {
                runtime: settings.runtime,
                sandbox: settings.sandbox,
                user: settings.user,
                inputs_readonly: settings.inputs_readonly,
                enforce_cpus: settings.enforce_cpus,
            },
            sharing,
            disk,
            network: settings.network.mode,
            raises_open_files: AtomicBool::new(true),
        };
        docker.ensure_network().await.map_err(prepare("to make the jobs' network"))?;
        docker.guard_network(&settings.network).await;
        for volume in &settings.cache_volumes {
            docker.ensure_volume(volume).await.map_err(prepare("to make the jobs' cache"))?;
        }
        Ok(docker)
    }
}

/// An Engine that answers.
struct Reached {
    address: String,
    engine: Engine,
    api: Api,
    info: SystemInfo,
}

/// Waits for the Engine, agrees on a version, and has it describe itself.
async fn reach(settings: &Settings) -> Result<Reached, ConnectError> {
    let address = settings.host.clone().unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"));
    let mut engine = dial(&address, settings.certificates.as_deref()).map_err(|error| match error {
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
                Ok(Err(error)) => ConnectError::NoEngine { address: address.clone(), why: reason(&error) },
                Err(_) => ConnectError::NoEngine { address: address.clone(), why: "no answer".to_owned() },
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
        engine = dial(&address, settings.certificates.as_deref())
            .map_err(|error| ConnectError::NoEngine { address: address.clone(), why: reason(&error) });
    };
    let engine = engine.with_timeout(LIBRARY_TIMEOUT);
    let version = engine.client_version();
    let api = (version.major_version, version.minor_version);
    if api < (1, 41) {
        let version = format!("{}.{}", version.major_version, version.minor_version);
        return Err(ConnectError::TooOld { address, version });
    }
    let info = engine.info().await.map_err(prepare("to describe itself"))?;
    Ok(Reached { address, engine, api, info })
}

/// What an Engine can do for a worker, for whoever asks. Nothing is made or changed there.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) api: String,
    /// What the Engine's host calls the data directory, if it sees it.
    pub(crate) host_directory: Option<PathBuf>,
    /// What it cannot limit.
    pub(crate) unlimited: Vec<&'static str>,
    pub(crate) gives_gpus: bool,
    /// Why the firewall cannot be set, if so.
    pub(crate) firewall: Result<(), String>,
    /// Where the Engine keeps its things, as far as can be seen.
    pub(crate) disk: Disk,
}

/// # Errors
/// [`ConnectError`]: the worker would not start.
pub(crate) async fn examine(settings: &Settings) -> Result<Examined, ConnectError> {
    let Reached { address, engine, api, info } = reach(settings).await?;
    check_runtime(&info, settings.runtime.as_deref())?;
    let engine_root = info.docker_root_dir.as_ref().map(PathBuf::from).filter(|root| root.is_dir());
    Ok(Examined {
        host_directory: find_sharing(&engine, settings).await.to_host(&settings.data_directory),
        unlimited: unlimited(&abilities(&info, api)),
        gives_gpus: gpu_way(&info, api).is_some(),
        firewall: firewall::is_settable().await,
        disk: Disk::new(engine_root.as_deref().unwrap_or(&settings.data_directory), settings.disk_rules),
        api: engine.client_version().to_string(),
        version: info.server_version.unwrap_or_default(),
        address,
    })
}

fn abilities(info: &SystemInfo, api: Api) -> Abilities {
    let selinux = |option: &String| option.contains("name=selinux");
    Abilities {
        memory_bytes: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
        cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).filter(|cpus| *cpus > 0),
        limits_memory: info.memory_limit.unwrap_or(true),
        limits_swap: info.swap_limit.unwrap_or(true),
        limits_pids: info.pids_limit.unwrap_or(true),
        limits_cpus: info.cpu_cfs_quota.unwrap_or(true),
        raises_open_files: true,
        has_selinux: info.security_options.iter().flatten().any(selinux),
        gpus: gpu_way(info, api).unwrap_or(GpuWay::Runtime),
    }
}

/// By the runtime where there is one, as ever; `None` where the Engine shows no way at all.
fn gpu_way(info: &SystemInfo, api: Api) -> Option<GpuWay> {
    if info.runtimes.iter().flatten().any(|(name, _)| name == "nvidia") {
        return Some(GpuWay::Runtime);
    }
    let found = |id: &String| id.split_once('=').is_some_and(|(kind, _)| kind == CDI_GPU);
    let shows_gpus =
        info.discovered_devices.iter().flatten().any(|device| device.id.as_ref().is_some_and(found));
    // Older ones do not say which devices they have found, only that they look.
    let looks = info.cdi_spec_dirs.as_ref().is_some_and(|directories| !directories.is_empty());
    (shows_gpus || api < SHOWS_DEVICES && looks).then_some(GpuWay::Cdi)
}

fn unlimited(abilities: &Abilities) -> Vec<&'static str> {
    [
        (abilities.limits_memory, "memory"),
        (abilities.limits_swap, "swap"),
        (abilities.limits_pids, "processes"),
        (abilities.limits_cpus, "cpu time"),
    ]
    .into_iter()
    .filter_map(|(able, name)| (!able).then_some(name))
    .collect()
}

fn warn_missing(abilities: &Abilities) {
    let missing = unlimited(abilities);
    if !missing.is_empty() {
        warn!("the Docker Engine's host cannot limit {}: jobs run without these limits", missing.join(", "));
    }
}

fn check_runtime(info: &SystemInfo, wanted: Option<&str>) -> Result<(), ConnectError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut known: Vec<&str> = info.runtimes.iter().flatten().map(|(name, _)| name.as_str()).collect();
    if known.contains(&wanted) {
        return Ok(());
    }
    known.sort_unstable();
    Err(ConnectError::NoRuntime { wanted: wanted.to_owned(), known: known.join(", ") })
}

/// Whether the Engine's host sees the worker's files, and under which path: tried with a directory that is nowhere
/// else.
async fn find_sharing(engine: &Engine, settings: &Settings) -> Sharing {
    let here = &settings.data_directory;
    let paths = match &settings.host_data_directory {
        Some(there) => Some(HostPaths::given(here, there)),
        None => find_paths(engine, here).await,
    };
    let probe = here.join(format!(".probe-{}", Uuid::new_v4().simple()));
    let is_seen = match (&paths, std::fs::create_dir(&probe)) {
        (Some(paths), Ok(())) => sees(engine, &paths.to_host(&probe)).await,
        (Some(_), Err(_)) => true,
        (None, _) => false,
    };
    // Nothing is in it.
    let _ = std::fs::remove_dir(&probe);
    match paths {
        Some(paths) if is_seen => Sharing::Paths(paths),
        _ => {
            info!(
                "the Docker Engine's host does not see {}: files are copied to and from containers. Sharing them is \
                 quicker: start the worker's container with -v {0}:{0}, or say what the host calls the directory \
                 with --host-data-directory",
                here.display()
            );
            Sharing::Copies
        }
    }
}

impl Docker {
    /// A directory in memory that this process and the Engine's host have under the same name.
    pub(crate) async fn shared_memory(&self) -> Option<PathBuf> {
        let memory = Path::new(SHARED_MEMORY);
        if self.sharing == Sharing::Copies || statfs(memory).ok()?.f_type != TMPFS {
            return None;
        }
        let probe = memory.join(format!("dockframe-probe-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&probe).ok()?;
        let is_seen = sees(&self.engine, &probe).await;
        // Nothing is in it.
        let _ = std::fs::remove_dir(&probe);
        is_seen.then(|| memory.to_owned())
    }
}

/// Whether a path exists on the Engine's host. The Engine checks the mounts of a container before it looks for the
/// image, so nothing is made.
async fn sees(engine: &Engine, path: &Path) -> bool {
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(path.display().to_string()),
        target: Some("/probe".to_owned()),
        ..Mount::default()
    };
    let body = ContainerCreateBody {
        image: Some("dockframe-probe:none".to_owned()),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    // With a platform the image is looked for later still.
    let options = CreateContainerOptionsBuilder::default().platform("linux").build();
    match engine.create_container(Some(options), body).await {
        Err(Error::DockerResponseServerError { message, .. }) => {
            !message.contains("bind source path does not exist")
        }
        _ => true,
    }
}

/// What the host calls the data directory, as far as can be told; `None` if it surely does not know it.
async fn find_paths(engine: &Engine, directory: &Path) -> Option<HostPaths> {
    let mountinfo = tokio::fs::read_to_string("/proc/self/mountinfo").await.unwrap_or_default();
    let in_container = Path::new("/.dockerenv").exists();
    let id = own_container(&mountinfo).or_else(|| {
        let hostname = std::fs::read_to_string("/etc/hostname").ok()?;
        let hostname = hostname.trim();
        let is_id = hostname.len() == 12 && hostname.bytes().all(|byte| byte.is_ascii_hexdigit());
        (in_container && is_id).then(|| hostname.to_owned())
    });
    let Some(id) = id else { return Some(HostPaths::same(directory)) };
    match engine.inspect_container(&id, None::<InspectContainerOptions>).await {
        Ok(inspected) => HostPaths::by_mounts(directory, &inspected.mounts.unwrap_or_default()),
        // A container of another Engine: what is seen here means nothing there, but a shared path may work.
        Err(_) => Some(HostPaths::same(directory)),
    }
}

/// TLS where the owner asks for it, as the `docker` command does.
fn dial(address: &str, certificates: Option<&Path>) -> Result<Engine, Error> {
    let is_remote = ["tcp://", "https://"].iter().any(|scheme| address.starts_with(scheme));
    match certificates.filter(|_| is_remote) {
        Some(directory) => Engine::connect_with_ssl(
            address,
            &directory.join("key.pem"),
            &directory.join("cert.pem"),
            &directory.join("ca.pem"),
            LIBRARY_TIMEOUT.as_secs(),
            API_DEFAULT_VERSION,
        ),
        None => Engine::connect_with_host(address),
    }
}

fn prepare(what: &'static str) -> impl Fn(Error) -> ConnectError {
    move |error| ConnectError::Prepare { what, why: reason(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: serde_json::Value) -> SystemInfo {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn gpus_come_by_the_runtime_or_by_the_device_interface() {
        use serde_json::json;
        let runtime = json!({"nvidia": {"path": "nvidia-container-runtime"}});
        let found = |id: &str| json!({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": [{"Source": "cdi", "ID": id}]});
        for (said, api, way) in [
            (json!({"Runtimes": runtime, "CDISpecDirs": ["/etc/cdi"]}), (1, 51), Some(GpuWay::Runtime)),
            (json!({"Runtimes": {"runc": {"path": "runc"}}}), (1, 41), None),
            (json!({"CDISpecDirs": ["/etc/cdi"]}), (1, 44), Some(GpuWay::Cdi)),
            (json!({"CDISpecDirs": ["/etc/cdi"]}), (1, 51), None),
            (json!({"CDISpecDirs": []}), (1, 44), None),
            (found("nvidia.com/gpu=0"), (1, 51), Some(GpuWay::Cdi)),
            (found("vendor.com/nic=0"), (1, 51), None),
        ] {
            assert_eq!(gpu_way(&info(said.clone()), api), way, "{said}");
        }
    }
}
