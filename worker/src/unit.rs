//! One job, from its grant to its result (`worker` 11 to 14).
//!
//! Inputs and image → create → start → stream until the end → outputs → result on disk → clean up. Each wait also
//! hears the order to stop and the limit of its phase. A unit owns the truth about its run; the dispatcher owns
//! which units there are. Once stopped, a unit uploads and reports nothing.

mod disk_watch;
mod prepare;
mod shared;
mod start;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dockframe_shared::Amount;
use dockframe_shared::protocol::{LogKind, Phase};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

pub(crate) use self::shared::{Run, Shared};
use crate::clock;
use crate::executor::{EngineError, Executor, Image, ImageError, StartError};
use crate::files::names::job_label;
use crate::files::outputs::OutputsError;
use crate::journal::{Batch, Journal};
use crate::logs::ResultLog;
use crate::messages::{Cause, Event, GiveBack, StopOrder, Then, UnitEvent};
use crate::plan::{JobPlan, read_image};
use crate::result::{About, Ending, Outputs, finished, millis};
use crate::secrets::Mask;
use crate::shrink::shrink;

/// An Engine that ends takes its containers along, and is still well for a moment.
const ENGINE_LAST_BREATH: Duration = Duration::from_secs(1);

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
            }
            | Ending::Lost { error: error @ EngineError::Unreachable(_) } => Self::machine(error.to_string()),
            ending => Self::Over(Box::new(ending)),
        }
    }
}

impl Break {
    fn machine(why: String) -> Self {
        Self::GiveBack(GiveBack { why, cause: Cause::Machine })
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
        let (directory, secrets, name) =
            (self.run.directory.clone(), self.shared.secret_files.clone(), name.to_owned());
        let removing = move || {
            if let Some(secrets) = secrets {
                secrets.remove(&name);
            }
            directory.remove()
        };
        match tokio::task::spawn_blocking(removing).await {
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
            Err(error) => return Err(Ending::Lost { error }.into()),
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
