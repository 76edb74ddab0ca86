//! One job, from its grant to its result (`worker` 11 to 14).
//!
//! Inputs and image → create → start → stream until the end → outputs → result on disk → clean up. Each wait also
//! hears the order to stop and the limit of its phase. A unit owns the truth about its run; the dispatcher owns
//! which units there are. Once stopped, a unit uploads and reports nothing.

mod disk_watch;
mod prepare;
mod stream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use dockframe_shared::command::TakenWhole;
use dockframe_shared::protocol::{LeaseGrant, LogKind, Phase};
use dockframe_shared::{Amount, InstanceId, QueueKey, WorkerId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::capacity::Share;
use crate::clock;
use crate::config::{Network, PhaseLimits};
use crate::executor::{ContainerSpec, EngineError, Executor, Image, ImageError, Running, StartError};
use crate::files::inputs::{Owner, Sources};
use crate::files::names::job_label;
use crate::files::outputs::{OutputsError, Uploader};
use crate::journal::{Batch, Journal, Position};
use crate::logs::ResultLog;
use crate::messages::{Cause, Event, GiveBack, RunKey, StopOrder, Then, UnitEvent};
use crate::outbox::Outbox;
use crate::plan::{ImageSource, JobPlan, read_image};
use crate::result::{About, Ending, Outputs, finished, millis};
use crate::secrets::{Mask, Secrets};
use crate::shrink::shrink;
use crate::state::{RunDirectory, RunState};

/// An Engine that ends takes its containers along, and is still well for a moment.
const ENGINE_LAST_BREATH: Duration = Duration::from_secs(1);

/// Starts of one container: the executor may learn something, find the image gone, and lack a shell, once each.
const LAUNCHES: usize = 4;

/// What all units of a worker share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub(crate) executor: E,
    pub(crate) sources: Sources,
    pub(crate) uploader: Uploader,
    /// Changes when another process turns out to work under it.
    pub(crate) worker: RwLock<WorkerId>,
    pub(crate) instance: InstanceId,
    pub(crate) relay: String,
    /// The lock that this process holds, as the Engine's host calls it; `None` if it does not see it.
    pub(crate) host_lock: Option<PathBuf>,
    pub(crate) limits: PhaseLimits,
    pub(crate) max_job_duration: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) max_log_bytes: u64,
    pub(crate) network: Network,
    pub(crate) owner: Owner,
    pub(crate) default_memory_bytes: Option<u64>,
    pub(crate) hide_queue: bool,
    pub(crate) secrets: Secrets,
    pub(crate) shell_fallback: bool,
    pub(crate) enforce_cpus: bool,
    /// Containers have an init of the Engine's, which starts the program.
    pub(crate) has_init: bool,
    /// What one job may have on disk.
    pub(crate) job_disk_bytes: u64,
    /// Names of the containers of all runs under way.
    pub(crate) active: Mutex<HashSet<String>>,
    /// Longest result that the relay takes.
    pub(crate) max_finish_bytes: AtomicU64,
}

/// What one run is.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) key: RunKey,
    pub(crate) queue: QueueKey,
    pub(crate) grant: LeaseGrant,
    pub(crate) directory: RunDirectory,
    pub(crate) state: RunState,
    pub(crate) share: Share,
    pub(crate) outbox: Outbox,
    /// Volume at `/job-cache`.
    pub(crate) cache_volume: Option<String>,
}

/// A job under way.
pub(crate) struct Unit<E> {
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) run: Run,
    pub(crate) stop: watch::Receiver<Option<StopOrder>>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) phases: BTreeMap<String, Amount>,
    pub(crate) image: Image,
    pub(crate) build_log: ResultLog,
    /// How many lines of each kind were told.
    pub(crate) told: HashMap<LogKind, u64>,
    pub(crate) journal: Journal,
    /// What an earlier process told; `None` for a run that begins here.
    pub(crate) earlier: Option<Vec<Batch>>,
    /// The relay holds the lease no longer than this.
    pub(crate) deadline: Instant,
    /// Hides the job's secrets in what it writes.
    pub(crate) mask: Mask,
}

/// Why work broke off.
enum Break {
    Stopped(StopOrder),
    /// The machine failed, not the job: somebody else may run it.
    GiveBack(GiveBack),
    Over(Box<Ending>),
}

impl From<Ending> for Break {
    /// That the Engine went away is never the job's fault, in whatever it was asked just then.
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::ImageFailed { error: ImageError::Engine(error @ EngineError::Unreachable(_)) }
            | Ending::CreateFailed { error: error @ EngineError::Unreachable(_) }
            | Ending::StartFailed {
                error: StartError { error: error @ EngineError::Unreachable(_), .. },
                ..
            } => Self::machine(error.to_string()),
            ending => Self::Over(Box::new(ending)),
        }
    }
}

impl Break {
    fn machine(why: String) -> Self {
        Self::GiveBack(GiveBack { why, cause: Cause::Machine })
    }
}

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

    /// What an Engine says that cannot give GPUs to containers (`worker` 21, E8).
    fn is_missing_gpus(&self) -> bool {
        matches!(self, Self::NotStarted(failed) if failed.error.to_string().contains("could not select device driver"))
    }
}

/// A container that runs, or ran while no worker looked.
struct Started {
    container: String,
    running: Running,
    begun: Instant,
    /// Of a container that has ended already.
    ran_for: Option<Duration>,
    /// What an earlier process has told of its output.
    told: Position,
    memory_bytes: Option<u64>,
}

impl<E> Shared<E> {
    pub(crate) fn worker(&self) -> WorkerId {
        match self.worker.read() {
            Ok(id) => id.clone(),
            // Nothing that holds this lock can fail half way.
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub(crate) fn active(&self) -> HashSet<String> {
        self.active.lock().map(|active| active.clone()).unwrap_or_default()
    }

    fn mark_active(&self, name: &str, is_active: bool) {
        if let Ok(mut active) = self.active.lock() {
            if is_active {
                active.insert(name.to_owned())
            } else {
                active.remove(name)
            };
        }
    }

    pub(crate) fn rename(&self, id: WorkerId) {
        match self.worker.write() {
            Ok(mut known) => *known = id,
            Err(poisoned) => *poisoned.into_inner() = id,
        }
    }
}

impl<E: Executor> Unit<E> {
    pub(crate) fn new(
        shared: Arc<Shared<E>>,
        run: Run,
        stop: watch::Receiver<Option<StopOrder>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let deadline_ms = i64::try_from(run.grant.deadline_ms.clamp(1000, 1 << 40)).unwrap_or(i64::MAX);
        let left_ms = deadline_ms.saturating_sub(clock::now().since(run.state.accepted).max(0));
        let deadline = Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or_default());
        let build_log = ResultLog::new(shared.max_log_bytes);
        let journal = Journal::new(run.directory.path());
        Self {
            shared,
            phases: run.state.phases.clone(),
            image: run.state.image.clone(),
            run,
            stop,
            events,
            build_log,
            told: HashMap::new(),
            journal,
            earlier: None,
            deadline,
            mask: Mask::default(),
        }
    }

    /// Takes up a run of an earlier process, which told these lines.
    pub(crate) fn taking_up(mut self, earlier: Vec<Batch>) -> Self {
        for batch in &earlier {
            self.told.insert(batch.step.kind(), batch.from + batch.lines.len() as u64);
        }
        self.earlier = Some(earlier);
        self
    }

    /// To the end, whatever it is. Afterwards nothing of the run is left but its result.
    ///
    /// Begins by writing down what the run is; the work begins when the dispatcher, which then has accepted the
    /// lease, says so.
    pub(crate) async fn run(mut self, go: oneshot::Receiver<()>) {
        let name = self.run.directory.container_name();
        self.shared.mark_active(&name, true);
        if self.earlier.is_none() {
            if let Err(why) = self.write_down().await {
                self.clean_up(&name).await;
                return self.tell(UnitEvent::CannotStart { why }).await;
            }
            self.tell(UnitEvent::Ready).await;
        }
        if let Err(order) = interruptible(&mut self.stop, go).await {
            return self.wind_up(&name, order).await;
        }
        let ending = match self.work(&name).await {
            Ok(ending) => ending,
            Err(Break::Over(ending)) => *ending,
            Err(Break::Stopped(order)) => return self.wind_up(&name, order).await,
            Err(Break::GiveBack(given)) => {
                warn!("a job is given back: {}", given.why);
                self.clean_up(&name).await;
                return self.tell(UnitEvent::GivenBack(given)).await;
            }
        };
        debug!(lease = %short(&self.run), "the run has ended");
        self.phase(Phase::Ended).await;
        match self.keep_result(ending).await {
            Ok(frame) => self.tell(UnitEvent::Finished { frame }).await,
            Err(order) => return self.wind_up(&name, order).await,
        }
        self.clean_up(&name).await;
    }

    /// What the run is, in a new directory of its own.
    async fn write_down(&self) -> Result<(), String> {
        let (directory, state) = (self.run.directory.clone(), self.run.state.clone());
        let written = move || directory.prepare().and_then(|()| directory.save(&state));
        match tokio::task::spawn_blocking(written).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts the result where it cannot be lost; gives the frame that reports it.
    async fn keep_result(&mut self, ending: Ending) -> Result<String, StopOrder> {
        let build_log = std::mem::replace(&mut self.build_log, ResultLog::new(0));
        let about = About {
            worker: self.shared.worker(),
            image: std::mem::take(&mut self.image),
            phases: std::mem::take(&mut self.phases),
            build_logs: build_log.into_lines(clock::now()),
        };
        let finished = finished(ending, about, clock::now());
        let counted = finished.result.clone().and_then(|result| serde_json::from_value(result).ok());
        self.shared.sources.metrics.finished(finished.reason, counted.as_ref());
        let max = self.shared.max_finish_bytes.load(Ordering::Relaxed);
        let fitting = shrink(finished, max, &self.shared.uploader, self.shared.limits.outputs);
        let finished = match interruptible(&mut self.stop, fitting).await {
            Ok(finished) => finished,
            Err(order) => return Err(order),
        };
        let (outbox, lease) = (self.run.outbox.clone(), self.run.key.lease.clone());
        let value = serde_json::to_value(finished).unwrap_or_default();
        let mut pause = Duration::from_millis(500);
        loop {
            let (outbox, lease, value) = (outbox.clone(), lease.clone(), value.clone());
            let kept = tokio::task::spawn_blocking(move || outbox.put(&lease, value)).await;
            match kept {
                Ok(Ok(frame)) => return Ok(frame),
                Ok(Err(error)) => warn!("a result cannot be written to disk and is tried again: {error}"),
                Err(error) => warn!("a result cannot be written to disk and is tried again: {error}"),
            }
            interruptible(&mut self.stop, tokio::time::sleep(pause)).await?;
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }

    /// Stopped: the container ends, or is left for the next process.
    async fn wind_up(self, name: &str, order: StopOrder) {
        if order.then == Then::Leave {
            self.tell(UnitEvent::Stopped).await;
            return;
        }
        if let Err(error) = self.shared.executor.stop(name, order.grace).await {
            debug!("a container could not be stopped: {error}");
        }
        self.clean_up(name).await;
        if order.then == Then::Forget
            && let Ok(source) = read_image(&self.run.grant.definition)
        {
            self.shared.executor.forget(&source).await;
        }
        self.tell(UnitEvent::Stopped).await;
    }

    async fn clean_up(&self, name: &str) {
        if let Err(error) = self.shared.executor.remove(name).await {
            warn!("a container could not be removed, the reaper will: {error}");
        }
        self.shared.mark_active(name, false);
        let directory = self.run.directory.clone();
        match tokio::task::spawn_blocking(move || directory.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("a run's directory could not be removed: {error}"),
            Err(error) => warn!("a run's directory could not be removed: {error}"),
        }
    }

    async fn work(&mut self, name: &str) -> Result<Ending, Break> {
        let plan = JobPlan::of(&self.run.grant.definition, &self.run.grant.control)
            .map_err(|error| Ending::BadDefinition { error: error.to_string() })?;
        self.mask = self.shared.secrets.mask(&plan.secrets);
        let taken_whole = plan.taken_whole;
        let limit = plan
            .max_duration
            .map_or(self.shared.max_job_duration, |wish| wish.min(self.shared.max_job_duration));
        let started = match self.take_up(name).await? {
            Some(started) => started,
            None => self.start(name, plan).await?,
        };
        self.phase(Phase::Running).await;

        let streamed = self.stream(name, started, limit).await?;
        self.phases.insert("run".to_owned(), millis(streamed.ran.duration));
        if let Some(used) = streamed.over_disk {
            let exit = streamed.exit.unwrap_or_default();
            return Ok(Ending::DiskLimit {
                run: streamed.ran,
                exit,
                used,
                limit: self.shared.job_disk_bytes,
            });
        }
        if let Some(limit) = streamed.timed_out {
            return Ok(Ending::TimedOut { run: streamed.ran, limit });
        }
        let exit = match streamed.exit {
            Ok(exit) => exit,
            Err(error @ EngineError::Unreachable(_)) => return Err(Break::machine(error.to_string())),
            Err(error) => return Ok(Ending::Lost { error }),
        };
        if self.shared.has_init
            && let Some(error) = prepare::failed_exec(exit, &streamed.ran.logs)
        {
            let hint = prepare::start_hint(&error, taken_whole, &self.run.grant);
            return Ok(Ending::StartFailed { error, hint });
        }
        if exit.code == 137 && !exit.oom_killed {
            // Killed, and not by us. An Engine that is being stopped kills its containers, and then goes itself.
            let breath = tokio::time::sleep(ENGINE_LAST_BREATH);
            interruptible(&mut self.stop, breath).await.map_err(Break::Stopped)?;
            if !self.shared.executor.is_well().await {
                return Err(Break::machine("the Docker Engine was stopped under the job".to_owned()));
            }
        }

        let begun = Instant::now();
        self.phase(Phase::Outputs).await;
        let limit = self.shrunk(self.shared.limits.outputs);
        let outputs = self.run.directory.outputs();
        let shared = Arc::clone(&self.shared);
        let collecting = async {
            let brought = tokio::time::timeout(limit, shared.executor.bring_outputs(name, &outputs)).await;
            let brought = brought
                .unwrap_or_else(|_| Err("copying the outputs from the container took too long".to_owned()));
            match brought {
                Ok(()) => shared.uploader.collect(&outputs, limit).await,
                Err(error) => Err(OutputsError { error, outputs: Outputs::default() }),
            }
        };
        let collected = interruptible(&mut self.stop, collecting).await.map_err(Break::Stopped)?;
        self.spent("outputs", begun);
        Ok(match collected {
            Ok(outputs) => Ending::Exited { run: streamed.ran, exit, outputs },
            Err(failed) => Ending::OutputsFailed {
                run: streamed.ran,
                exit,
                error: failed.error,
                outputs: Outputs { files: failed.outputs.files, skipped: failed.outputs.skipped },
            },
        })
    }

    /// The container of an earlier process, if this run has one. Its inputs and its image are left alone.
    async fn take_up(&mut self, name: &str) -> Result<Option<Started>, Break> {
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

    async fn start(&mut self, name: &str, plan: JobPlan) -> Result<Started, Break> {
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

    async fn phase(&self, phase: Phase) {
        self.tell(UnitEvent::Phase(phase)).await;
    }

    async fn tell(&self, event: UnitEvent) {
        // Only a dispatcher that is gone hears nothing, and then nobody does.
        let _ = self.events.send(Event::Unit { run: self.run.key.clone(), event }).await;
    }

    fn spent(&mut self, phase: &str, since: Instant) {
        self.phases.insert(phase.to_owned(), millis(since.elapsed()));
    }

    /// A phase's limit, within what the lease leaves.
    fn shrunk(&self, limit: Duration) -> Duration {
        limit.min(self.deadline.saturating_duration_since(Instant::now())).max(Duration::from_millis(1))
    }
}

/// The order to stop, as soon as there is one.
async fn ordered(stop: &mut watch::Receiver<Option<StopOrder>>) -> StopOrder {
    match stop.wait_for(Option::is_some).await.ok().and_then(|order| *order) {
        Some(order) => order,
        // A dispatcher that is gone orders nothing any more.
        None => std::future::pending().await,
    }
}

async fn interruptible<T>(
    stop: &mut watch::Receiver<Option<StopOrder>>,
    work: impl Future<Output = T>,
) -> Result<T, StopOrder> {
    tokio::select! {
        biased;
        order = ordered(stop) => Err(order),
        done = work => Ok(done),
    }
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(24 * 3600)
}

/// For logs: enough to find it, too little to use it.
fn short(run: &Run) -> String {
    job_label(&run.grant.job_id).chars().take(12).collect()
}
