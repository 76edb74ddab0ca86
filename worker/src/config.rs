//! What a worker is told: flags, environment, old names and defaults made into one checked value (`worker` 2).
//!
//! For every option the order is flag, environment, old names, default. Reading the environment anywhere else is a
//! mistake: tests give their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dockframe_shared::units::gpus::{GpuDevice, GpuOffer, InvalidGpus};
use dockframe_shared::units::{bytes, duration};
use dockframe_shared::{BadName, QueueKey, WorkerId};
use url::Url;

use crate::args::RunArgs;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Stop what still runs and give it back.
    Requeue,
    /// Let it run on for a restart that follows.
    Leave,
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
    pub network: Network,
    pub sandbox: Sandbox,
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
    pub hide_queue: bool,
    pub ignore_certificate_errors: bool,
    /// Replaces the relay's base address in the addresses of uploaded outputs; development only.
    pub external_address: Option<String>,
    pub debug: bool,
    /// How long to wait for the Engine at the start.
    pub engine_patience: Duration,
    /// `DOCKER_HOST`.
    pub engine_address: Option<String>,
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
        const MINUTE: Duration = Duration::from_secs(60);

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
            network: choice(args.network, "--network", &[("nat", Network::Nat), ("none", Network::None)])?,
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
                &[("requeue", OnExit::Requeue), ("leave", OnExit::Leave)],
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
            hide_queue: args.hide_queue,
            ignore_certificate_errors: sources.is_true("IGNORE_CERTIFICATE_ERRORS"),
            external_address: sources.pick(None, &["DEV_ONLY_EXTERNAL_SERVER_ADDRESS"], &[]),
            debug: matches!(debug.as_deref(), Some("true" | "1")),
            engine_patience: MINUTE,
            engine_address: sources.pick(None, &["DOCKER_HOST"], &[]),
            credentials_directory: sources.pick(None, &["DOCKER_CONFIG"], &[]).map(PathBuf::from).or_else(
                || {
                    let home = sources.pick(None, &["HOME"], &[])?;
                    Some(Path::new(&home).join(".docker"))
                },
            ),
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

/// An empty value counts as not given.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

struct Sources<E> {
    env: E,
    warnings: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Sources<E> {
    /// The flag, else the first of the variables that is set, else the first of the old ones, with a warning.
    fn pick(&mut self, flag: Option<String>, names: &[&str], old: &[&str]) -> Option<String> {
        if let Some(value) = given(flag) {
            return Some(value);
        }
        if let Some(value) = names.iter().find_map(|name| given((self.env)(name))) {
            return Some(value);
        }
        let (name, value) = old.iter().find_map(|name| Some((*name, given((self.env)(name))?)))?;
        self.warn_old(name, names.first().copied().unwrap_or("a flag"));
        Some(value)
    }

    fn warn_old(&mut self, old: &str, new: &str) {
        self.warnings.push(format!("{old} is an old name, use {new}"));
    }

    fn is_true(&self, name: &str) -> bool {
        (self.env)(name).as_deref() == Some("true")
    }

    fn queues(&mut self, words: Vec<String>) -> Result<Vec<QueueKey>, ConfigError> {
        let mut words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            let old = &["METAPAGE_IO_QUEUE", "METAPAGE_IO_WORKER_QUEUE_ID"];
            words.extend(self.pick(None, &["METAPAGE_IO_WORKER_QUEUE"], old));
        }
        if words.is_empty() {
            return Err(ConfigError::NoQueue);
        }
        let mut queues = Vec::new();
        for word in words {
            let queue = QueueKey::new(word).map_err(ConfigError::Queue)?;
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        Ok(queues)
    }

    fn api_address(&mut self, flag: Option<String>, old_flag: Option<String>) -> Result<String, ConfigError> {
        let flag = match (given(flag), given(old_flag)) {
            (None, Some(old)) => {
                self.warn_old("--api-server-address", "--api-address");
                Some(old)
            }
            (flag, _) => flag,
        };
        let address = self
            .pick(
                flag,
                &["DOCKFRAME_API_ADDRESS", "METAPAGE_IO_WORKER_API_ADDRESS"],
                &["METAPAGE_IO_API_ADDRESS", "API_SERVER_ADDRESS"],
            )
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let bad = || ConfigError::Value {
            option: "--api-address",
            value: address.clone(),
            expected: "the relay's address, such as https://relay.example or http://localhost:8000",
        };
        let url = Url::parse(&address).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad());
        }
        Ok(address.strip_suffix('/').unwrap_or(&address).to_owned())
    }
}

fn parse<T>(
    value: Option<String>,
    default: T,
    option: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    match given(value) {
        None => Ok(default),
        Some(value) => read(&value).ok_or(ConfigError::Value { option, value, expected }),
    }
}

fn choice<T: Copy>(
    value: Option<String>,
    option: &'static str,
    choices: &[(&'static str, T)],
) -> Result<T, ConfigError> {
    // The first choice is the default; every caller names at least two.
    let default = choices[0].1;
    parse(value, default, option, "one of its values (see --help)", |text| {
        choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    })
}

fn time(value: Option<String>, default: Duration, option: &'static str) -> Result<Duration, ConfigError> {
    parse(value, default, option, "a time above 0, such as 90s, 20m or 1h30m", |text| {
        duration::parse_limit(text).ok()
    })
}

fn size(value: Option<String>, option: &'static str) -> Result<Option<u64>, ConfigError> {
    parse(value, None, option, "a size above 0, such as 512M or 16G", |text| {
        bytes::parse(text).ok().map(Some)
    })
}

/// `None` is the image's own user.
fn job_user(value: Option<String>) -> Result<Option<String>, ConfigError> {
    parse(value, Some("0:0".to_owned()), "--job-user", "`image`, or UID:GID in numbers", |text| {
        if text == "image" {
            return Some(None);
        }
        let (uid, gid) = text.split_once(':')?;
        (uid.parse::<u32>().is_ok() && gid.parse::<u32>().is_ok()).then(|| Some(text.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn resolve(line: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let args = Line::try_parse_from(line.split(' ')).unwrap().run;
        Config::resolve(args, |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_in_any_order_and_the_environment_alone_mean_the_same() {
        let env = [
            ("METAPAGE_IO_WORKER_CPUS", "4"),
            ("METAPAGE_IO_WORKER_GPUS", "0"),
            ("METAPAGE_IO_WORKER_QUEUE", "public1"),
        ];
        for (line, env) in [
            ("run --cpus=4 --gpus=0 public1", &[][..]),
            ("run public1 --cpus 4", &[]),
            ("run -c4 public1", &[]),
            ("run", &env),
        ] {
            let config = resolve(line, env).unwrap();
            assert_eq!((config.cpus, &config.gpus), (4.0, &GpuOffer::None), "{line}");
            assert_eq!(config.queues, [QueueKey::new("public1").unwrap()]);
            assert_eq!(config.mode, Mode::Remote);
            assert_eq!(config.max_job_duration_text, "5m");
            assert_eq!(config.max_job_duration, Duration::from_secs(300));
            assert_eq!(config.api_address, "http://localhost:8000");
            assert!(config.warnings.is_empty());
        }
    }

    #[test]
    fn flag_beats_environment_beats_default() {
        type Read = fn(&Config) -> String;
        let cases: [(&str, &str, &str, &str, &str, Read); 5] = [
            ("--cpus=3", "METAPAGE_IO_WORKER_CPUS", "2", "3", "1", |c| c.cpus.to_string()),
            ("--gpus=3", "METAPAGE_IO_WORKER_GPUS", "2", "Count(3)", "None", |c| format!("{:?}", c.gpus)),
            (
                "--api-address=http://a/",
                "DOCKFRAME_API_ADDRESS",
                "http://b",
                "http://a",
                DEFAULT_ADDRESS,
                |c| c.api_address.clone(),
            ),
            ("--max-job-duration=3s", "METAPAGE_IO_WORKER_JOB_MAX_DURATION", "2s", "3s", "5m", |c| {
                c.max_job_duration_text.clone()
            }),
            ("--debug=1", "METAPAGE_IO_WORKER_DEBUG", "false", "true", "false", |c| c.debug.to_string()),
        ];
        for (flag, name, value, by_flag, by_default, read) in cases {
            let env = [(name, value)];
            assert_eq!(read(&resolve(&format!("run {flag} q"), &env).unwrap()), by_flag, "{flag}");
            let by_env = read(&resolve("run q", &env).unwrap());
            assert!(by_env.contains(value), "{name}: {by_env}");
            assert_eq!(read(&resolve("run q", &[]).unwrap()), by_default, "{name}");
        }
    }

    #[test]
    fn the_relay_is_looked_for_in_the_documented_order() {
        let all = [
            ("DOCKFRAME_API_ADDRESS", "http://one"),
            ("METAPAGE_IO_WORKER_API_ADDRESS", "http://two"),
            ("METAPAGE_IO_API_ADDRESS", "http://three"),
            ("API_SERVER_ADDRESS", "http://four"),
        ];
        for skipped in 0..=all.len() {
            let config = resolve("run q", &all[skipped..]).unwrap();
            let expected = all.get(skipped).map_or(DEFAULT_ADDRESS, |(_, address)| address);
            assert_eq!(config.api_address, expected);
            assert_eq!(config.warnings.len(), usize::from(matches!(skipped, 2 | 3)));
        }
    }

    #[test]
    fn old_names_work_with_one_warning_each() {
        let old = [
            ("METAPAGE_IO_CPUS", "2"),
            ("METAPAGE_IO_GPUS", "1"),
            ("METAPAGE_IO_QUEUE", "q"),
            ("METAPAGE_IO_JOB_MAX_DURATION", "9s"),
            ("METAPAGE_IO_GENERATE_WORKER_ID", "1"),
        ];
        let config = resolve("run", &old).unwrap();
        assert_eq!((config.cpus, config.gpus, config.id), (2.0, GpuOffer::Count(1), WorkerIdChoice::Fresh));
        assert_eq!((config.max_job_duration, config.warnings.len()), (Duration::from_secs(9), 5));

        let config = resolve("run --cores 3 --gpu --api-server-address http://x --test-mode q", &[]).unwrap();
        assert_eq!((config.cpus, config.gpus, config.warnings.len()), (3.0, GpuOffer::Count(1), 4));
        let recipe = [("METAPAGE_IO_WORKER_QUEUE_ID", "r")];
        assert_eq!(resolve("run", &recipe).unwrap().queues[0].reveal(), "r");
    }

    #[test]
    fn empty_means_not_given() {
        let config = resolve("run --gpus= --cpus= --id= q", &[("METAPAGE_IO_WORKER_CPUS", "")]).unwrap();
        assert_eq!((config.cpus, config.gpus, config.id), (1.0, GpuOffer::None, WorkerIdChoice::Stored));
    }

    #[test]
    fn what_cannot_work_is_refused_by_the_options_name() {
        for (line, part) in [
            ("run", "must supply the queue id"),
            ("run --cpus=many q", "--cpus"),
            ("run --cpus=0 q", "--cpus"),
            ("run --gpus=lots q", "--gpus"),
            ("run --max-job-duration=abc q", "--max-job-duration"),
            ("run --max-job-duration=-5m q", "--max-job-duration"),
            ("run --api-address=localhost:8000 q", "--api-address"),
            ("run --job-user=root q", "--job-user"),
            ("run --pull-policy=sometimes q", "--pull-policy"),
            ("run --memory=lots q", "--memory"),
            ("run --mode=local --port=70000 q", "--port"),
        ] {
            let error = resolve(line, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_queues_name_is_in_no_error_and_no_debug_text() {
        let long = "s3cret".repeat(1000);
        let error = resolve(&format!("run {long}"), &[]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        assert!(!format!("{:?}", resolve("run s3cret", &[]).unwrap()).contains("s3cret"));
    }

    #[test]
    fn local_mode_is_the_queue_local_on_its_own_port() {
        let config = resolve("run --mode=local -p8123", &[]).unwrap();
        assert_eq!(config.mode, Mode::Local { port: 8123 });
        assert_eq!(
            (config.queues[0].reveal(), config.api_address.as_str()),
            ("local", "http://localhost:8123")
        );
        assert!(config.data_directory.ends_with("local"));
    }

    #[test]
    fn a_fraction_of_a_job_is_a_whole_slot() {
        assert_eq!(resolve("run --cpus=2.5 q", &[]).unwrap().slots(), 3);
    }
}
