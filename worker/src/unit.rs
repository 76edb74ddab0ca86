//! One job, from its grant to its result (`worker` 11 to 14).
//!
//! Inputs and image → create → start → stream until the end → outputs → result on disk → clean up. Each wait also
//! hears the order to stop and the limit of its phase. A unit owns the truth about its run; the dispatcher owns
//! which units there are. Once stopped, a unit uploads and reports nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use dockframe_shared::command::TakenWhole;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LeaseGrant, LogKind, LogStep, Phase};
use dockframe_shared::{Amount, InstanceId, QueueKey, WorkerId};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tracing::{debug, warn};

use crate::capacity::Share;
use crate::clock;
use crate::config::{Network, PhaseLimits};
use crate::executor::{ContainerSpec, EngineError, Executor, Exit, Image, Running, StartError};
use crate::files::fetch::Http;
use crate::files::inputs::{self, Owner};
use crate::files::names::job_label;
use crate::files::outputs::Uploader;
use crate::logs::{Assembler, LiveLimit, ResultLog};
use crate::messages::{Event, RunKey, StopOrder, UnitEvent};
use crate::outbox::Outbox;
use crate::plan::{ImageSource, JobPlan};
use crate::result::{About, Ending, Outputs, Ran, finished, millis};
use crate::shrink::shrink;
use crate::state::{RunDirectory, RunState};

/// How long the streams may outlast the container: its last words are on their way.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LABEL: &str = "container.mtfm.io";

/// What all units of a worker share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub(crate) executor: E,
    pub(crate) http: Http,
    pub(crate) uploader: Uploader,
    /// Changes when another process turns out to work under it.
    pub(crate) worker: RwLock<WorkerId>,
    pub(crate) instance: InstanceId,
    pub(crate) relay: String,
    pub(crate) host_lock: PathBuf,
    pub(crate) limits: PhaseLimits,
    pub(crate) max_job_duration: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) max_log_bytes: u64,
    pub(crate) network: Network,
    pub(crate) owner: Owner,
    pub(crate) default_memory_bytes: Option<u64>,
    pub(crate) hide_queue: bool,
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
    /// The relay holds the lease no longer than this.
    pub(crate) deadline: Instant,
}

/// Why work broke off.
enum Break {
    Stopped(StopOrder),
    Over(Box<Ending>),
}

impl From<Ending> for Break {
    fn from(ending: Ending) -> Self {
        Self::Over(Box::new(ending))
    }
}

/// What came of a container.
struct Streamed {
    ran: Ran,
    exit: Result<Exit, EngineError>,
    timed_out: Option<Duration>,
}

impl<E> Shared<E> {
    pub(crate) fn worker(&self) -> WorkerId {
        match self.worker.read() {
            Ok(id) => id.clone(),
            // Nothing that holds this lock can fail half way.
            Err(poisoned) => poisoned.into_inner().clone(),
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
        let deadline = Instant::now() + Duration::from_millis(run.grant.deadline_ms.clamp(1000, 1 << 40));
        let build_log = ResultLog::new(shared.max_log_bytes);
        Self {
            shared,
            run,
            stop,
            events,
            phases: BTreeMap::new(),
            image: Image::default(),
            build_log,
            deadline,
        }
    }

    /// To the end, whatever it is. Afterwards nothing of the run is left but its result.
    ///
    /// Begins by writing down what the run is; the work begins when the dispatcher, which then has accepted the
    /// lease, says so.
    pub(crate) async fn run(mut self, go: oneshot::Receiver<()>) {
        let name = self.run.directory.container_name();
        let (directory, state) = (self.run.directory.clone(), self.run.state.clone());
        let saved =
            tokio::task::spawn_blocking(move || directory.prepare().and_then(|()| directory.save(&state)));
        let failure = match saved.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failure {
            self.clean_up(&name).await;
            return self.tell(UnitEvent::CannotStart { why }).await;
        }
        self.tell(UnitEvent::Ready).await;
        match interruptible(&mut self.stop, go).await {
            Ok(_) => {}
            Err(order) => return self.wind_up(&name, order).await,
        }
        let ending = match self.work(&name).await {
            Ok(ending) => ending,
            Err(Break::Over(ending)) => *ending,
            Err(Break::Stopped(order)) => return self.wind_up(&name, order).await,
        };
        debug!(lease = %short(&self.run), "the run has ended");
        self.phase(Phase::Ended).await;
        match self.keep_result(ending).await {
            Ok(frame) => self.tell(UnitEvent::Finished { frame }).await,
            Err(order) => return self.wind_up(&name, order).await,
        }
        self.clean_up(&name).await;
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
        if order.leave && self.run.state.started {
            self.tell(UnitEvent::Stopped).await;
            return;
        }
        if let Err(error) = self.shared.executor.stop(name, order.grace).await {
            debug!("a container could not be stopped: {error}");
        }
        self.clean_up(name).await;
        self.tell(UnitEvent::Stopped).await;
    }

    async fn clean_up(&self, name: &str) {
        if let Err(error) = self.shared.executor.remove(name).await {
            warn!("a container could not be removed, the reaper will: {error}");
        }
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
        let limit = plan
            .max_duration
            .map_or(self.shared.max_job_duration, |wish| wish.min(self.shared.max_job_duration));
        let taken_whole = plan.taken_whole;
        let image_source = plan.image.clone();
        let spec = self.prepare(name, plan, image_source).await?;

        let begun = Instant::now();
        self.run.state.started = true;
        let (directory, state) = (self.run.directory.clone(), self.run.state.clone());
        let saving = tokio::task::spawn_blocking(move || directory.save(&state));
        let (container, running) = match self.launch(name, &spec).await {
            Err(Break::Over(ending)) => match *ending {
                Ending::StartFailed { error, .. } if error.is_worth_another => {
                    self.shared
                        .executor
                        .remove(name)
                        .await
                        .map_err(|error| Ending::CreateFailed { error })?;
                    self.launch(name, &spec).await
                }
                other => Err(other.into()),
            },
            launched => launched,
        }
        .map_err(|broken| match broken {
            Break::Over(ending) => match *ending {
                Ending::StartFailed { error, .. } => {
                    let hint = start_hint(&error, taken_whole, &self.run.grant);
                    Ending::StartFailed { error, hint }.into()
                }
                other => other.into(),
            },
            stopped => stopped,
        })?;
        match saving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("a run's state cannot be written: {error}"),
            Err(error) => warn!("a run's state cannot be written: {error}"),
        }
        self.spent("start", begun);
        self.phase(Phase::Running).await;

        let ran = Ran { container, memory_bytes: spec.memory_bytes, ..Ran::default() };
        let streamed = self.stream(name, running, ran, limit).await?;
        self.phases.insert("run".to_owned(), millis(streamed.ran.duration));
        if let Some(limit) = streamed.timed_out {
            return Ok(Ending::TimedOut { run: streamed.ran, limit });
        }
        let exit = match streamed.exit {
            Ok(exit) => exit,
            Err(error) => return Ok(Ending::Lost { error }),
        };

        let begun = Instant::now();
        self.phase(Phase::Outputs).await;
        let limit = self.shrunk(self.shared.limits.outputs);
        let outputs = self.run.directory.outputs();
        let collecting = self.shared.uploader.collect(&outputs, limit);
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

    /// Neither step is broken off by an order to stop: whatever is created must be known to be there.
    async fn launch(&mut self, name: &str, spec: &ContainerSpec) -> Result<(String, Running), Break> {
        let container =
            self.shared.executor.create(spec).await.map_err(|error| Ending::CreateFailed { error })?;
        if let Some(order) = *self.stop.borrow() {
            return Err(Break::Stopped(order));
        }
        match self.shared.executor.start(name).await {
            Ok(running) => Ok((container, running)),
            Err(error) => Err(Ending::StartFailed { error, hint: None }.into()),
        }
    }

    /// Inputs and image, side by side.
    async fn prepare(
        &mut self,
        name: &str,
        plan: JobPlan,
        source: ImageSource,
    ) -> Result<ContainerSpec, Break> {
        let (lines, mut build_lines) = mpsc::channel(256);
        let shared = Arc::clone(&self.shared);
        let directory = self.run.directory.clone();
        let targets: Vec<String> = plan.mounted.iter().map(|file| file.target.clone()).collect();
        let input_limit = self.shrunk(self.shared.limits.inputs);
        let image_limit = self.shrunk(match source {
            ImageSource::Reference(_) => self.shared.limits.pull,
            ImageSource::Build(_) => self.shared.limits.build,
        });
        let (inputs, mounted, platform) = (plan.inputs.clone(), plan.mounted.clone(), plan.platform.clone());

        self.phase(Phase::Inputs).await;
        let begun = Instant::now();
        let writing = async {
            let all = inputs::write_all(&shared.http, &directory, inputs, mounted, shared.owner);
            let written = match tokio::time::timeout(input_limit, all).await {
                Ok(written) => written.map_err(|error| Ending::InputFailed { error: error.to_string() }),
                Err(_) => Err(Ending::PhaseTimedOut { phase: "fetching inputs", limit: input_limit }),
            };
            written.map(|()| begun.elapsed())
        };
        let obtaining = async {
            let image = shared.executor.image(&source, platform.as_deref(), &lines);
            match tokio::time::timeout(image_limit, image).await {
                Ok(image) => {
                    image.map(|image| (image, begun.elapsed())).map_err(|error| Ending::ImageFailed { error })
                }
                Err(_) => {
                    Err(Ending::PhaseTimedOut { phase: "pulling or building the image", limit: image_limit })
                }
            }
        };
        tokio::pin!(writing, obtaining);
        let (mut written, mut obtained) = (None, None);
        while written.is_none() || obtained.is_none() {
            tokio::select! {
                biased;
                order = ordered(&mut self.stop) => return Err(Break::Stopped(order)),
                Some(first) = build_lines.recv() => {
                    let mut batch = vec![first];
                    while let Ok(more) = build_lines.try_recv() {
                        batch.push(more);
                    }
                    self.tell_build_lines(batch).await;
                }
                result = &mut writing, if written.is_none() => {
                    written = Some(result?);
                    if obtained.is_none() {
                        self.phase(Phase::Image).await;
                    }
                }
                result = &mut obtaining, if obtained.is_none() => {
                    // What was said before a failure belongs to it.
                    let mut batch = Vec::new();
                    while let Ok(more) = build_lines.try_recv() {
                        batch.push(more);
                    }
                    self.tell_build_lines(batch).await;
                    obtained = Some(result?);
                }
            }
        }
        self.phases.insert("inputs".to_owned(), millis(written.unwrap_or_default()));
        if let Some((image, took)) = obtained {
            self.phases.insert("image".to_owned(), millis(took));
            self.image = image;
        }
        Ok(self.spec(name, plan, targets))
    }

    fn spec(&self, name: &str, plan: JobPlan, targets: Vec<String>) -> ContainerSpec {
        let run = &self.run;
        let shared = &self.shared;
        let mounted = run.directory.mounted();
        let memory_bytes = plan.wishes.memory_bytes.or(shared.default_memory_bytes);
        let network = if plan.network_none { Network::None } else { shared.network };
        ContainerSpec {
            name: name.to_owned(),
            image: self.image.clone(),
            env: environment(&plan, run, shared, memory_bytes),
            labels: labels(run, shared, self.deadline),
            command: plan.command,
            entrypoint: plan.entrypoint,
            workdir: plan.workdir,
            shm_bytes: plan.shm_bytes,
            cpus: run.share.slots,
            memory_bytes,
            gpus: run.share.gpus.clone(),
            network,
            inputs: run.directory.inputs(),
            outputs: run.directory.outputs(),
            mounted: targets
                .into_iter()
                .enumerate()
                .map(|(number, target)| (mounted.join(number.to_string()), target))
                .collect(),
            cache_volume: run.cache_volume.clone(),
        }
    }

    /// Until the container has ended and said its last word.
    async fn stream(
        &mut self,
        name: &str,
        running: Running,
        mut ran: Ran,
        limit: Duration,
    ) -> Result<Streamed, Break> {
        let Running { mut output, mut exit } = running;
        let begun = Instant::now();
        let out_of_time = tokio::time::Instant::from_std(begun + limit);
        let mut assembler = Assembler::default();
        let mut live = LiveLimit::new();
        let mut kept = ResultLog::new(self.shared.max_log_bytes);
        let mut ended: Option<(Result<Exit, EngineError>, tokio::time::Instant)> = None;
        let mut timed_out = None;
        let mut output_open = true;
        while output_open || ended.is_none() {
            let due = assembler.due().map_or_else(far_away, tokio::time::Instant::from_std);
            let last_words = ended.as_ref().map_or_else(far_away, |(_, at)| *at + LAST_WORDS);
            tokio::select! {
                biased;
                order = ordered(&mut self.stop) => return Err(Break::Stopped(order)),
                () = sleep_until(out_of_time), if ended.is_none() && timed_out.is_none() => {
                    timed_out = Some(limit);
                    if let Err(error) = self.shared.executor.stop(name, self.shared.kill_grace).await {
                        ended = Some((Err(error), tokio::time::Instant::now()));
                    }
                }
                () = sleep_until(last_words), if output_open && ended.is_some() => {
                    output_open = false;
                    kept.push(LogLine {
                        text: "[the container has ended, but its output stream has not: the rest is missing]\n".to_owned(),
                        time: clock::now(),
                        is_stderr: true,
                    });
                }
                chunk = output.next(), if output_open => match chunk {
                    Some(chunk) => assembler.push(chunk.stream, &chunk.bytes, Instant::now(), clock::now()),
                    None => output_open = false,
                },
                result = &mut exit, if ended.is_none() => {
                    ran.duration = begun.elapsed();
                    ended = Some((result, tokio::time::Instant::now()));
                }
                () = sleep_until(due) => {}
            }
            let lines = assembler.take(Instant::now());
            self.tell_lines(lines, &mut live, &mut kept).await;
        }
        let lines = assembler.finish(Instant::now());
        self.tell_lines(lines, &mut live, &mut kept).await;
        if let Some(marker) = live.finish(clock::now()) {
            self.tell(UnitEvent::Logs { step: LogStep::Running, lines: vec![marker] }).await;
        }
        ran.logs = kept.into_lines(clock::now());
        let exit = ended.map_or_else(|| Ok(Exit::default()), |(exit, _)| exit);
        Ok(Streamed { ran, exit, timed_out })
    }

    async fn tell_lines(&mut self, lines: Vec<LogLine>, live: &mut LiveLimit, kept: &mut ResultLog) {
        if lines.is_empty() {
            return;
        }
        for line in &lines {
            kept.push(line.clone());
        }
        let lines = live.admit(lines, Instant::now(), clock::now());
        if !lines.is_empty() {
            self.tell(UnitEvent::Logs { step: LogStep::Running, lines }).await;
        }
    }

    /// Lines of one step go together.
    async fn tell_build_lines(&mut self, batch: Vec<(LogStep, LogLine)>) {
        let mut batch = batch.into_iter().peekable();
        while let Some((step, line)) = batch.next() {
            debug_assert_eq!(step.kind(), LogKind::Build);
            let mut lines = vec![line];
            while let Some((_, line)) = batch.next_if(|(next, _)| *next == step) {
                lines.push(line);
            }
            for line in &lines {
                self.build_log.push(line.clone());
            }
            self.tell(UnitEvent::Logs { step, lines }).await;
        }
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

/// In the order of `worker` 8.3; of a repeated name the later wins.
fn environment<E>(
    plan: &JobPlan,
    run: &Run,
    shared: &Shared<E>,
    memory_bytes: Option<u64>,
) -> Vec<(String, String)> {
    let id = run.grant.job_id.as_str();
    let base = format!("{}/j/{id}", shared.relay);
    let mut env = plan.env.clone();
    let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
    set("JOB_ID", id.to_owned());
    set("JOB_INPUTS", "/inputs".to_owned());
    set("JOB_OUTPUTS", "/outputs".to_owned());
    set("JOB_CACHE", "/job-cache".to_owned());
    set("JOB_URL_PREFIX", base.clone());
    set("JOB_OUTPUTS_URL_PREFIX", format!("{base}/outputs/"));
    set("JOB_INPUTS_URL_PREFIX", format!("{base}/inputs/"));
    if run.share.gpus.is_empty() {
        // Images made for GPUs ask for all of them; a job that asked for none must see none.
        set("NVIDIA_VISIBLE_DEVICES", "void".to_owned());
    } else {
        let indices: Vec<String> = (0..run.share.gpus.len()).map(|index| index.to_string()).collect();
        set("CUDA_VISIBLE_DEVICES", indices.join(","));
    }
    let extras = [
        ("JOB_ATTEMPT", Some(run.grant.attempt.to_string())),
        ("JOB_CPUS", Some(run.share.slots.to_string())),
        (
            "JOB_MEMORY_BYTES",
            memory_bytes.or(Some(run.share.memory_bytes).filter(|b| *b > 0)).map(|b| b.to_string()),
        ),
    ];
    for (name, value) in extras {
        if let Some(value) = value
            && !plan.env.iter().any(|(known, _)| known == name)
        {
            env.push((name.to_owned(), value));
        }
    }
    env
}

fn labels<E>(run: &Run, shared: &Shared<E>, deadline: Instant) -> Vec<(String, String)> {
    let queue = if shared.hide_queue { run.queue.digest().to_hex() } else { run.queue.reveal().to_owned() };
    let left =
        i64::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i64::MAX);
    let label = |name: &str, value: String| (format!("{LABEL}/{name}"), value);
    vec![
        (LABEL.to_owned(), "true".to_owned()),
        label("id", job_label(&run.grant.job_id)),
        label("queue", queue),
        label("worker", shared.worker().to_string()),
        label("instance", shared.instance.to_string()),
        label("host-lock", shared.host_lock.display().to_string()),
        label("deadline", clock::now().plus_millis(left).as_millis().to_string()),
        label("attempt", run.grant.attempt.to_string()),
    ]
}

/// A command that needs a shell and did not get one: say so, and how to.
fn start_hint(error: &StartError, taken_whole: Option<TakenWhole>, grant: &LeaseGrant) -> Option<String> {
    let message = error.error.to_string();
    if message.contains("exec format error") {
        return Some("🔍 The image is made for another kind of processor than this worker's.".to_owned());
    }
    let what = match taken_whole? {
        TakenWhole::Operator(operator) => format!("`{operator}`"),
        TakenWhole::Glob => "`*` or `?`".to_owned(),
        TakenWhole::Comment => "`#`".to_owned(),
    };
    let is_missing = message.contains("executable file not found")
        || message.contains("no such file or directory")
        || message.contains("permission denied");
    let command = grant.definition.text("command").filter(|_| is_missing)?;
    let quoted: String = command.chars().take(500).collect::<String>().replace('\'', "'\\''");
    Some(format!(
        "🔍 No shell runs a command, so {what} outside of quotes makes all of it one word. Write: sh -c '{quoted}'"
    ))
}
