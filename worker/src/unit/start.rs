//! The middle of a job: a container that runs, started here or by an earlier process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_shared::command::TakenWhole;
use dockframe_shared::protocol::LogKind;
use tracing::warn;

use super::{Break, Unit, interruptible, prepare};
use crate::clock;
use crate::executor::{ContainerSpec, EngineError, Executor, Running, StartError};
use crate::journal::Position;
use crate::messages::{Cause, GiveBack, StopOrder};
use crate::plan::{ImageSource, JobPlan};
use crate::result::Ending;

/// Starts of one container: the executor may learn something, find the image gone, and lack a shell, once each.
const LAUNCHES: usize = 4;

/// Why a container does not run.
enum Launch {
    Stopped(StopOrder),
    NotCreated(EngineError),
    NotFilled(EngineError),
    NotStarted(StartError),
}

impl Launch {
    /// The image that was found a moment ago is gone.
    fn is_missing_image(&self) -> bool {
        matches!(self, Self::NotCreated(EngineError::Refused { status: 404, message }) if message.contains("No such image"))
    }

    /// What an Engine says that cannot give GPUs to containers (`worker` 21, E8), by whichever way.
    fn is_missing_gpus(&self) -> bool {
        let Self::NotStarted(failed) = self else { return false };
        let said = failed.error.to_string();
        ["could not select device driver", "unresolvable CDI devices"].iter().any(|text| said.contains(text))
    }
}

/// A container that runs, or ran while no worker looked.
pub(super) struct Started {
    pub(super) container: String,
    pub(super) running: Running,
    pub(super) begun: Instant,
    /// Of a container that has ended already.
    pub(super) ran_for: Option<Duration>,
    /// What an earlier process has told of its output.
    pub(super) told: Position,
    pub(super) memory_bytes: Option<u64>,
}

impl<E: Executor> Unit<E> {
    /// The container of an earlier process, if this run has one. Its inputs and its image are left alone.
    pub(super) async fn take_up(&mut self, name: &str) -> Result<Option<Started>, Break> {
        let Some(earlier) = self.earlier.take() else { return Ok(None) };
        let resumed = match self.run.state.started {
            true => self.shared.executor.resume(name).await.map_err(|error| Ending::Lost { error })?,
            false => None,
        };
        let Some(resumed) = resumed else {
            // It had not come to that: begin again, with nothing left of the first time.
            self.clean_up(name).await;
            self.phases.clear();
            self.run.state.started = false;
            self.write_down().await.map_err(Break::machine)?;
            return Ok(None);
        };
        let now = clock::now();
        let elapsed = |since: i64| Duration::from_millis(u64::try_from(since).unwrap_or_default());
        let begun =
            Instant::now().checked_sub(elapsed(now.since(resumed.started_at))).unwrap_or_else(Instant::now);
        let told = earlier.iter().rfind(|batch| batch.step.kind() == LogKind::Run);
        Ok(Some(Started {
            container: resumed.id,
            running: resumed.running,
            begun,
            ran_for: resumed.finished_at.map(|finished| elapsed(finished.since(resumed.started_at))),
            told: told.map(|batch| batch.position).unwrap_or_default(),
            memory_bytes: self.run.state.memory_limit,
        }))
    }

    pub(super) async fn start(&mut self, name: &str, plan: JobPlan) -> Result<Started, Break> {
        let taken_whole = plan.taken_whole;
        let image_source = plan.image.clone();
        let platform = plan.platform.clone();
        let mut spec = self.prepare(name, plan, image_source.clone()).await?;

        let before = Instant::now();
        let state = &mut self.run.state;
        state.started = true;
        state.image = self.image.clone();
        state.phases = self.phases.clone();
        state.memory_limit = spec.memory_bytes;
        let (directory, state) = (self.run.directory.clone(), state.clone());
        let saving = tokio::task::spawn_blocking(move || directory.save(&state));
        let mut launched = self.launch(name, &spec).await;
        for _ in 1..LAUNCHES {
            let Err(failed) = &launched else { break };
            let better =
                self.another_try(failed, &spec, taken_whole, &image_source, platform.as_deref()).await?;
            let Some(better) = better else { break };
            spec = better;
            self.shared.executor.remove(name).await.map_err(|error| Ending::CreateFailed { error })?;
            launched = self.launch(name, &spec).await;
        }
        match saving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("a run's state cannot be written: {error}"),
            Err(error) => warn!("a run's state cannot be written: {error}"),
        }
        let (container, running) = launched.map_err(|failed| {
            if failed.is_missing_gpus() {
                let why = "the Docker Engine of this worker cannot give GPUs to containers".to_owned();
                return Break::GiveBack(GiveBack { why, cause: Cause::NoGpus });
            }
            match failed {
                Launch::Stopped(order) => Break::Stopped(order),
                Launch::NotCreated(error) | Launch::NotFilled(error) => Ending::CreateFailed { error }.into(),
                Launch::NotStarted(error) => {
                    let hint = prepare::start_hint(&error, taken_whole, &self.run.grant);
                    Ending::StartFailed { error, hint }.into()
                }
            }
        })?;
        self.spent("start", before);
        Ok(Started {
            container,
            running,
            begun: Instant::now(),
            ran_for: None,
            told: Position::default(),
            memory_bytes: spec.memory_bytes,
        })
    }

    /// What may start where `spec` did not: the same where the executor has learned something, an image that is here
    /// again, or a shell.
    async fn another_try(
        &mut self,
        failed: &Launch,
        spec: &ContainerSpec,
        taken_whole: Option<TakenWhole>,
        source: &ImageSource,
        platform: Option<&str>,
    ) -> Result<Option<ContainerSpec>, Break> {
        if failed.is_missing_image() {
            let (lines, _) = tokio::sync::mpsc::channel(256);
            let shared = Arc::clone(&self.shared);
            let again = shared.executor.image(source, platform, &lines);
            let image = interruptible(&mut self.stop, again).await.map_err(Break::Stopped)?;
            let image = image.map_err(|error| Ending::ImageFailed { error })?;
            return Ok(Some(ContainerSpec { image, ..spec.clone() }));
        }
        let Launch::NotStarted(error) = failed else { return Ok(None) };
        if error.is_worth_another {
            return Ok(Some(spec.clone()));
        }
        let lacks_shell = self.shared.shell_fallback
            && taken_whole.is_some()
            && prepare::is_missing_program(error)
            && spec.entrypoint.is_none()
            && spec.command.as_ref().is_some_and(|command| command.len() == 1)
            && !spec.image.has_entrypoint;
        Ok(match &spec.command {
            Some(command) if lacks_shell => {
                let shell = ["/bin/sh", "-c"].map(str::to_owned);
                let command = Some(shell.into_iter().chain(command.iter().cloned()).collect());
                Some(ContainerSpec { command, ..spec.clone() })
            }
            _ => None,
        })
    }

    /// Neither creation nor start is broken off by an order to stop: whatever is created must be known to be there.
    async fn launch(&mut self, name: &str, spec: &ContainerSpec) -> Result<(String, Running), Launch> {
        let shared = Arc::clone(&self.shared);
        let container = shared.executor.create(spec).await.map_err(Launch::NotCreated)?;
        if let Some(order) = *self.stop.borrow() {
            return Err(Launch::Stopped(order));
        }
        let filled =
            interruptible(&mut self.stop, shared.executor.fill(spec)).await.map_err(Launch::Stopped)?;
        filled.map_err(Launch::NotFilled)?;
        let running = self.shared.executor.start(name).await.map_err(Launch::NotStarted)?;
        Ok((container, running))
    }
}
