//! The calls of [`Executor`], as an Engine understands them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::Docker as Engine;
use bollard::errors::Error;
use bollard::models::{ContainerStateStatusEnum, VolumeCreateRequest};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    InspectContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, TopOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use dockframe_shared::Timestamp;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::container::{Abilities, Rules, create_body};
use super::copy;
use super::image::Images;
use super::logs::chunks;
use super::network::is_network_fault;
use super::paths::Sharing;
use crate::clock;
use crate::config::Network;
use crate::disk::Disk;
use crate::executor::{
    BuildLines, ContainerSpec, EngineError, Executor, Exit, Image, ImageError, Labelled, Resumed, Running,
    StartError, Tidied,
};
use crate::plan::ImageSource;

/// For calls that an Engine answers at once, even when it is busy.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an Engine that has gone away under a running container.
const ENGINE_PATIENCE: Duration = Duration::from_secs(120);
/// Label of everything that workers make, known to other programs.
pub(super) const LABEL: &str = "container.mtfm.io";

/// An Engine that answers, with what it needs to run jobs.
#[derive(Debug)]
pub(crate) struct Docker {
    pub(super) engine: Engine,
    pub(super) abilities: Abilities,
    pub(super) rules: Rules,
    pub(super) sharing: Sharing,
    /// Where the Engine keeps its things.
    pub(super) disk: Disk,
    pub(super) images: Images,
    /// Of jobs that do not ask for less.
    pub(super) network: Network,
    pub(super) raises_open_files: AtomicBool,
}

impl Docker {
    /// Memory of the Engine's host.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        self.abilities.memory_bytes
    }

    /// What the host calls a path below the data directory, if it sees it.
    pub(crate) fn host_path(&self, path: &Path) -> Option<PathBuf> {
        self.sharing.to_host(path)
    }

    pub(super) async fn ensure_volume(&self, name: &str) -> Result<(), Error> {
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
        let exit = exit_of_run(self.engine.clone(), name.to_owned());
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
        if abilities.has_selinux && spec.mounted.iter().any(|(_, target)| target.contains(':')) {
            let message =
                "a config file's path cannot have a `:` on this host, whose binds need a label".to_owned();
            return Err(EngineError::Refused { status: 400, message });
        }
        let body = create_body(spec, &self.rules, &abilities, &self.sharing);
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

    async fn fill(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        match self.sharing {
            Sharing::Paths(_) => Ok(()),
            Sharing::Copies => copy::fill(&self.engine, spec).await,
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
            exit_of_run(self.engine.clone(), name.to_owned()).boxed()
        } else {
            let exit = Exit {
                code: state.exit_code.unwrap_or_default(),
                oom_killed: state.oom_killed.unwrap_or(false),
                saw_restart: false,
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

    async fn bring_outputs(&self, name: &str, into: &Path) -> Result<(), String> {
        match self.sharing {
            Sharing::Paths(_) => Ok(()),
            Sharing::Copies => copy::bring_outputs(&self.engine, name, into).await,
        }
    }

    async fn own_bytes(&self, name: &str) -> Option<u64> {
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let inspected = call(self.engine.inspect_container(name, Some(options))).await.ok()?;
        u64::try_from(inspected.size_rw?).ok()
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

    async fn forget(&self, source: &ImageSource) {
        if let ImageSource::Build(block) = source {
            self.images.forget(block).await;
        }
    }

    async fn tidy(&self) -> Tidied {
        self.images.tidy(&self.disk).await
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
                lock: label("host-lock").and_then(|path| self.sharing.to_here(Path::new(path))),
                deadline: label("deadline").and_then(|text| text.parse().ok()).map(Timestamp::from_millis),
            })
        });
        Ok(labelled.collect())
    }
}

/// The exit of a run. What a restarted Engine has done to it, or has not seen, is no result of its program; and it does
/// both by codes that a program may have, too: 255 where it does not know, 137 and 143 where it killed, 2 where it went
/// while the container was made. So of a run that saw a restart only success counts: all else may be the Engine's.
async fn exit_of_run(engine: Engine, name: String) -> Result<Exit, EngineError> {
    let exit = wait_for_exit(engine, name).await?;
    if exit.saw_restart && exit.code != 0 && !exit.oom_killed {
        return Err(EngineError::Unreachable("it was restarted under the job".to_owned()));
    }
    Ok(exit)
}

/// Waits through restarts of the Engine, which break the call while the container may live on.
async fn wait_for_exit(engine: Engine, name: String) -> Result<Exit, EngineError> {
    let mut saw_restart = false;
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
            Some(0) => return Ok(Exit { saw_restart, ..Exit::default() }),
            Some(code) => {
                let inspected = engine.inspect_container(&name, None::<InspectContainerOptions>).await.ok();
                let state = inspected.and_then(|container| container.state).unwrap_or_default();
                return Ok(Exit { code, oom_killed: state.oom_killed.unwrap_or(false), saw_restart });
            }
            None => {
                saw_restart = true;
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

fn signal_number(name: &str) -> Option<u32> {
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    let known =
        [("HUP", 1), ("INT", 2), ("QUIT", 3), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("WINCH", 28)];
    let number = known.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number);
    number.or_else(|| bare.parse().ok()).filter(|number| (1..=64).contains(number))
}

/// A call that an Engine answers at once.
pub(super) async fn call<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
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
