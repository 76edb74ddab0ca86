//! What a worker is told: flags, environment, old names and defaults made into one checked value (`worker` 2).
//!
//! Where each value comes from is decided in `sources`. Reading the environment anywhere else is a mistake: tests
//! give their own.

mod sources;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockframe_shared::units::duration;
use dockframe_shared::units::gpus::{GpuDevice, GpuOffer, InvalidGpus};
use dockframe_shared::{BadName, QueueKey, WorkerId};

use self::sources::{Sources, certificates, choice, given, job_user, listen, parse, secrets, size, time};
use crate::args::RunArgs;
pub use crate::disk::DiskRules;
use crate::image_policy::{ImagePolicy, InvalidPattern};

/// Where the relay is when nobody says.
const DEFAULT_ADDRESS: &str = "http://localhost:8000";
const DEFAULT_DATA_DIRECTORY: &str = "/tmp/worker-metapage-io";
const DEFAULT_JOB_DURATION: &str = "5m";
/// Most jobs at once: a bound for what a typing error may announce.
const MAX_CPUS: f64 = 4096.0;

/// Where the driver lists its devices.
const NVIDIA_DRIVER: &str = "/proc/driver/nvidia/gpus";

/// A configuration that cannot work. These are faults of a running deployment, not wrong use of the command line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("Remote mode: must supply the queue id (dockframe run QUEUE, or METAPAGE_IO_WORKER_QUEUE)")]
    NoQueue,
    #[error("the queue cannot be used: {0}")]
    Queue(#[source] BadName),
    #[error("the worker id cannot be used: {0}")]
    Id(#[source] BadName),
    #[error("{option}: `{value}` is not {expected}")]
    Value { option: &'static str, value: String, expected: &'static str },
    #[error("--gpus: {0}")]
    Gpus(#[from] InvalidGpus),
    #[error(
        "--gpus: `all` was asked for, but no driver shows a GPU under {NVIDIA_DRIVER}: name them, as in device=0,1"
    )]
    NoGpus,
    #[error(transparent)]
    ImagePattern(#[from] InvalidPattern),
}

/// Whose relay the worker works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A relay elsewhere.
    Remote,
    /// This machine is relay and worker of the one queue `local`.
    Local { port: u16 },
}

/// Under which name the worker registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerIdChoice {
    Given(WorkerId),
    /// A new random one at each start.
    Fresh,
    /// The one kept in the data directory.
    Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Digests once, tags when the registry's differs from the local copy (`worker` 10.2).
    Default,
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The internet, but no other job.
    Nat,
    /// A network that leads nowhere.
    Internal,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    Compat,
    Strict,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainTimeout {
    After(Duration),
    /// As long as the jobs take.
    Job,
}

/// Which jobs share the volume at `/job-cache` (`worker` 15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheScope {
    /// All of the Engine, of every worker.
    Engine,
    /// Those of one queue.
    Queue,
    /// None: there is no such volume.
    Off,
}

/// What a stopping worker does with jobs that still run (`worker` 22.3, B24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// As the queue's relay expects: with leases give back, without them leave.
    AsAgreed,
    /// Stop what still runs and give it back.
    Requeue,
    /// Let it run on for a restart that follows.
    Leave,
}

/// A value that jobs may be given by its name; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSource(pub(crate) String);

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretSource")
    }
}

/// Secrets for registries; never printed.
#[derive(Clone)]
pub struct RegistryCredentials(pub(crate) String);

impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryCredentials")
    }
}

/// How long each phase of a job may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseLimits {
    pub inputs: Duration,
    pub pull: Duration,
    pub build: Duration,
    pub outputs: Duration,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// At least one.
    pub queues: Vec<QueueKey>,
    pub mode: Mode,
    /// Base address of the relay, without a slash at its end.
    pub api_address: String,
    /// Jobs at once, as given; fractions are rounded up when announced.
    pub cpus: f64,
    pub gpus: GpuOffer,
    pub memory_bytes: Option<u64>,
    pub default_memory_bytes: Option<u64>,
    pub enforce_cpus: bool,
    pub tags: Vec<String>,
    /// With the mode's name appended.
    pub data_directory: PathBuf,
    /// What the host calls `data_directory`, mode appended.
    pub host_data_directory: Option<PathBuf>,
    pub id: WorkerIdChoice,
    pub max_job_duration: Duration,
    /// As given: it is registered so.
    pub max_job_duration_text: String,
    pub pull_policy: PullPolicy,
    /// Images to have here before a job needs them.
    pub prepull: Vec<String>,
    pub network: Network,
    /// Jobs may reach private networks and this host.
    pub allow_private_network: bool,
    pub sandbox: Sandbox,
    /// Such as `runsc`; the Engine's own when missing.
    pub runtime: Option<String>,
    /// Run a command that needs a shell by one, where the image has no entrypoint.
    pub shell_fallback: bool,
    pub image_policy: ImagePolicy,
    /// Name and value.
    pub secrets: Vec<(String, SecretSource)>,
    /// `None`: the image's.
    pub job_user: Option<String>,
    pub inputs_readonly: bool,
    pub kill_grace: Duration,
    pub drain_timeout: DrainTimeout,
    pub on_exit: OnExit,
    pub phase_limits: PhaseLimits,
    pub max_input_bytes: u64,
    pub max_log_bytes: u64,
    pub allow_private_fetch: bool,
    /// Of the inputs that are kept for later jobs; a fifth of the disk when missing.
    pub input_cache_bytes: Option<u64>,
    pub job_cache_scope: CacheScope,
    /// What one job may have on disk.
    pub job_disk_bytes: u64,
    pub disk_rules: DiskRules,
    pub metrics_listen: Option<SocketAddr>,
    pub hide_queue: bool,
    pub ignore_certificate_errors: bool,
    /// Replaces the relay's base address in the addresses of uploaded outputs.
    pub external_address: Option<String>,
    pub debug: bool,
    /// How long to wait for the Engine at the start.
    pub engine_patience: Duration,
    /// `DOCKER_HOST`.
    pub engine_address: Option<String>,
    /// Directory of `ca.pem`, `cert.pem` and `key.pem`, where the Engine is to be spoken to by TLS.
    pub engine_certificates: Option<PathBuf>,
    /// Directory of Docker's `config.json`, for registries' credentials.
    pub credentials_directory: Option<PathBuf>,
    /// `METAPAGE_IO_WORKER_REGISTRY_AUTH`: JSON, host → user and password.
    pub registry_credentials: Option<RegistryCredentials>,
    /// What to tell the owner once, at the start: old names in use, odd values.
    pub warnings: Vec<String>,
}

impl Config {
    /// # Errors
    /// [`ConfigError`]: what cannot work, with the option's name.
    pub fn resolve(args: RunArgs, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut sources = Sources { env, warnings: Vec::new() };
        if args.test_mode.is_some() {
            sources.warn_old("--test-mode", "nothing: it has no effect");
        }

        let port = sources.pick(args.port, &["METAPAGE_IO_WORKER_PORT"], &["METAPAGE_IO_PORT"]);
        let mode = sources.pick(args.mode, &["METAPAGE_IO_WORKER_MODE"], &["METAPAGE_IO_MODE"]);
        let mode = match mode.as_deref() {
            Some("local") => Mode::Local {
                port: parse(port, 8000, "--port", "a port number from 1 to 65535", |text| {
                    text.parse().ok().filter(|port| *port > 0)
                })?,
            },
            None | Some("remote") => Mode::Remote,
            Some(other) => {
                let note = format!("--mode: `{other}` is neither remote nor local, remote is used");
                sources.warnings.push(note);
                Mode::Remote
            }
        };

        let queues = match mode {
            Mode::Local { .. } => vec![QueueKey::new("local").map_err(ConfigError::Queue)?],
            Mode::Remote => sources.queues(args.queues)?,
        };
        let api_address = match mode {
            Mode::Local { port } => format!("http://localhost:{port}"),
            Mode::Remote => sources.api_address(args.api_address, args.api_server_address)?,
        };

        let cpus = if args.cpus.as_deref().is_none_or(str::is_empty) && args.cores.is_some() {
            sources.warn_old("--cores", "--cpus");
            args.cores
        } else {
            args.cpus
        };
        let cpus = sources.pick(cpus, &["METAPAGE_IO_WORKER_CPUS"], &["METAPAGE_IO_CPUS"]);
        let cpus = parse(cpus, 1.0, "--cpus", "a number of jobs above 0, at most 4096", |text| {
            text.trim().parse().ok().filter(|cpus: &f64| *cpus > 0.0 && *cpus <= MAX_CPUS)
        })?;

        let gpus = match args.gpu.as_deref() {
            Some(value) if args.gpus.as_deref().is_none_or(str::is_empty) => {
                sources.warn_old("--gpu", "--gpus");
                Some(if matches!(value, "true" | "1") { "1" } else { "0" }.to_owned())
            }
            _ => args.gpus,
        };
        let gpus = sources.pick(gpus, &["METAPAGE_IO_WORKER_GPUS"], &["METAPAGE_IO_GPUS"]);
        let gpus = gpus.map_or(Ok(GpuOffer::None), |text| text.parse::<GpuOffer>())?;

        let mode_name = if mode == Mode::Remote { "remote" } else { "local" };
        let data_directory = given(args.data_directory).unwrap_or_else(|| DEFAULT_DATA_DIRECTORY.to_owned());
        let host_data_directory =
            sources.pick(args.host_data_directory, &["METAPAGE_IO_WORKER_HOST_DATA_DIRECTORY"], &[]);

        let fresh = sources.pick(
            None,
            &["METAPAGE_IO_WORKER_GENERATE_WORKER_ID"],
            &["METAPAGE_IO_GENERATE_WORKER_ID"],
        );
        let id = match given(args.id) {
            Some(id) => WorkerIdChoice::Given(WorkerId::new(id).map_err(ConfigError::Id)?),
            None if fresh.is_some() => WorkerIdChoice::Fresh,
            None => WorkerIdChoice::Stored,
        };

        let max_job_duration_text = sources
            .pick(
                args.max_job_duration,
                &["METAPAGE_IO_WORKER_JOB_MAX_DURATION"],
                &["METAPAGE_IO_JOB_MAX_DURATION"],
            )
            .unwrap_or_else(|| DEFAULT_JOB_DURATION.to_owned());
        let max_job_duration =
            time(Some(max_job_duration_text.clone()), Duration::ZERO, "--max-job-duration")?;
        if duration::forgets_its_unit(&max_job_duration_text) {
            sources.warnings.push(format!(
                "--max-job-duration: `{max_job_duration_text}` is less than a second (a bare number is milliseconds)"
            ));
        }

        let debug = sources.pick(args.debug, &["METAPAGE_IO_WORKER_DEBUG"], &["METAPAGE_IO_DEBUG"]);
        let drain_timeout = match given(args.drain_timeout).as_deref() {
            None | Some("0") => DrainTimeout::After(Duration::ZERO),
            Some("job") => DrainTimeout::Job,
            Some(text) => {
                DrainTimeout::After(time(Some(text.to_owned()), Duration::ZERO, "--drain-timeout")?)
            }
        };
        // Each queue is a trust domain: several share a volume only if the owner says so.
        let scopes = [("engine", CacheScope::Engine), ("queue", CacheScope::Queue), ("off", CacheScope::Off)];
        let job_cache_scope = match given(args.job_cache_scope) {
            None if queues.len() > 1 => CacheScope::Queue,
            scope => choice(scope, "--job-cache-scope", &scopes)?,
        };
        const MINUTE: Duration = Duration::from_secs(60);
        let credentials_directory = sources
            .pick(None, &["DOCKER_CONFIG"], &[])
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&sources.pick(None, &["HOME"], &[])?).join(".docker")));
        let verifies_engine = sources.pick(None, &["DOCKER_TLS_VERIFY"], &[]).is_some();
        let certificate_path = sources.pick(None, &["DOCKER_CERT_PATH"], &[]);

        Ok(Self {
            queues,
            mode,
            api_address,
            cpus,
            gpus,
            memory_bytes: size(args.memory, "--memory")?,
            default_memory_bytes: size(args.default_memory, "--default-memory")?,
            enforce_cpus: args.enforce_cpus,
            tags: args.tags.into_iter().filter(|tag| !tag.is_empty()).collect(),
            data_directory: PathBuf::from(data_directory).join(mode_name),
            host_data_directory: host_data_directory.map(|dir| PathBuf::from(dir).join(mode_name)),
            id,
            max_job_duration,
            max_job_duration_text,
            pull_policy: choice(
                args.pull_policy,
                "--pull-policy",
                &[
                    ("default", PullPolicy::Default),
                    ("always", PullPolicy::Always),
                    ("if-not-present", PullPolicy::IfNotPresent),
                    ("never", PullPolicy::Never),
                ],
            )?,
            prepull: args.prepull.into_iter().filter(|image| !image.is_empty()).collect(),
            network: choice(
                args.network,
                "--network",
                &[("nat", Network::Nat), ("internal", Network::Internal), ("none", Network::None)],
            )?,
            allow_private_network: args.allow_private_network,
            runtime: given(args.runtime),
            shell_fallback: args.shell_fallback,
            image_policy: ImagePolicy::new(
                &args.allow_image,
                &args.deny_image,
                args.require_digest,
                choice(args.allow_build, "--allow-build", &[("yes", true), ("no", false)])?,
            )?,
            secrets: secrets(args.secrets, &sources.env)?,
            sandbox: choice(
                args.sandbox,
                "--sandbox",
                &[("compat", Sandbox::Compat), ("strict", Sandbox::Strict), ("off", Sandbox::Off)],
            )?,
            job_user: job_user(args.job_user)?,
            inputs_readonly: args.inputs_readonly,
            kill_grace: time(args.kill_grace, Duration::from_secs(2), "--kill-grace")?,
            drain_timeout,
            on_exit: choice(
                args.on_exit,
                "--on-exit",
                &[("as-agreed", OnExit::AsAgreed), ("requeue", OnExit::Requeue), ("leave", OnExit::Leave)],
            )?,
            phase_limits: PhaseLimits {
                inputs: time(args.max_input_duration, 30 * MINUTE, "--max-input-duration")?,
                pull: time(args.max_pull_duration, 30 * MINUTE, "--max-pull-duration")?,
                build: time(args.max_build_duration, 30 * MINUTE, "--max-build-duration")?,
                outputs: time(args.upload_deadline, 60 * MINUTE, "--upload-deadline")?,
            },
            max_input_bytes: size(args.max_input_bytes, "--max-input-bytes")?.unwrap_or(20 << 30),
            max_log_bytes: size(args.max_log_bytes, "--max-log-bytes")?.unwrap_or(3 << 20),
            allow_private_fetch: args.allow_private_fetch,
            input_cache_bytes: size(args.input_cache_max, "--input-cache-max")?,
            job_cache_scope,
            job_disk_bytes: size(args.job_disk, "--job-disk")?.unwrap_or(20 << 30),
            disk_rules: DiskRules::default(),
            metrics_listen: listen(args.metrics_listen, "--metrics-listen")?,
            hide_queue: args.hide_queue,
            ignore_certificate_errors: sources.is_true("IGNORE_CERTIFICATE_ERRORS"),
            external_address: sources.pick(
                args.external_address,
                &["DOCKFRAME_EXTERNAL_ADDRESS", "DEV_ONLY_EXTERNAL_SERVER_ADDRESS"],
                &[],
            ),
            debug: matches!(debug.as_deref(), Some("true" | "1")),
            engine_patience: MINUTE,
            engine_address: sources.pick(None, &["DOCKER_HOST"], &[]),
            engine_certificates: certificates(
                verifies_engine,
                certificate_path,
                credentials_directory.clone(),
            ),
            credentials_directory,
            registry_credentials: sources
                .pick(None, &["METAPAGE_IO_WORKER_REGISTRY_AUTH"], &[])
                .map(RegistryCredentials),
            warnings: sources.warnings,
        })
    }

    /// The lent GPUs' names for the Engine, in the order in which jobs get them.
    ///
    /// # Errors
    /// All were asked for, and none is found.
    pub fn gpu_devices(&self) -> Result<Vec<String>, ConfigError> {
        match &self.gpus {
            GpuOffer::None => Ok(Vec::new()),
            GpuOffer::Count(count) => Ok((0..*count).map(|index| index.to_string()).collect()),
            GpuOffer::Devices(devices) => Ok(devices
                .iter()
                .map(|device| match device {
                    GpuDevice::Index(index) => index.to_string(),
                    GpuDevice::Uuid(uuid) => uuid.clone(),
                })
                .collect()),
            GpuOffer::All => match Path::new(NVIDIA_DRIVER).read_dir().map_or(0, Iterator::count) {
                0 => Err(ConfigError::NoGpus),
                found => Ok((0..found).map(|index| index.to_string()).collect()),
            },
        }
    }

    /// Number of slots that is announced.
    #[must_use]
    pub fn slots(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: above 0, at most 4096"
        )]
        (self.cpus.ceil() as u32)
    }
}

#[cfg(test)]
mod tests;
