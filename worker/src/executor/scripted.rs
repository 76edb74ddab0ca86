//! Containers in memory, whose every step a test decides (`worker` 22.3, B32).
//!
//! A step can be held (it begins, and goes on when it is let go), be made to fail, or to panic. A test waits for the
//! step itself to be reached, never for a time. Nothing is assumed of who calls: what calls were made, and what
//! containers are left, is there to be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dockframe_shared::Timestamp;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;

use super::{
    BuildLines, Chunk, ContainerSpec, EngineError, Executor, Exit, Image, ImageError, Labelled, Resumed,
    Running, StartError, Tidied,
};
use crate::clock;
use crate::logs::Stream;
use crate::plan::ImageSource;

/// A call of [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    Image,
    Create,
    Fill,
    Start,
    Resume,
    Stop,
    Outputs,
    Remove,
}

/// How a step goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The Engine refuses, or is away.
    Engine(EngineError),
    /// The program does not start: a code, and whether another try is worth it.
    Start {
        message: &'static str,
        code: i64,
        is_worth_another: bool,
    },
    Image(ImageError),
    /// What the outputs cannot be brought for.
    Outputs(&'static str),
    /// A fault of the executor itself.
    Panic,
}

/// What process 1 of every new container does when it is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Ends at once, with 143.
    Good,
    /// Has to be killed.
    Deaf,
}

#[derive(Debug, Clone)]
struct Container {
    spec: ContainerSpec,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    said: Vec<Chunk>,
    exit: Option<Result<Exit, EngineError>>,
    hearing: Hearing,
}

#[derive(Debug)]
struct World {
    containers: BTreeMap<String, Container>,
    /// Calls that were begun.
    calls: Vec<(Step, String)>,
    held: BTreeSet<Step>,
    faults: HashMap<Step, VecDeque<Fault>>,
    hearing: Hearing,
    is_well: bool,
    has_gpus: bool,
}

/// An executor, and the hand that moves it: copies move the same one.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    world: Arc<Mutex<World>>,
    /// Changes with the world.
    changes: watch::Sender<u64>,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        let world = World {
            containers: BTreeMap::new(),
            calls: Vec::new(),
            held: BTreeSet::new(),
            faults: HashMap::new(),
            hearing: Hearing::Good,
            is_well: true,
            has_gpus: true,
        };
        Self { world: Arc::new(Mutex::new(world)), changes: watch::Sender::new(0) }
    }

    /// From now on this step begins and does not go on.
    pub(crate) fn hold(&self, step: Step) {
        self.change(|world| world.held.insert(step));
    }

    /// What waits in this step goes on, and nothing is held there any more.
    pub(crate) fn let_go(&self, step: Step) {
        self.change(|world| world.held.remove(&step));
    }

    /// The next call of this step that has none goes wrong.
    pub(crate) fn fail(&self, step: Step, fault: Fault) {
        self.change(|world| world.faults.entry(step).or_default().push_back(fault));
    }

    /// Of containers that are created from now on.
    pub(crate) fn hears(&self, hearing: Hearing) {
        self.change(|world| world.hearing = hearing);
    }

    pub(crate) fn is_well(&self, is_well: bool) {
        self.change(|world| world.is_well = is_well);
    }

    /// Containers with GPUs are refused, as by an Engine without their runtime.
    pub(crate) fn has_no_gpus(&self) {
        self.change(|world| world.has_gpus = false);
    }

    /// Until this step was begun so many times in all.
    pub(crate) async fn reached(&self, step: Step, times: usize) {
        self.until(|world| {
            (world.calls.iter().filter(|(begun, _)| *begun == step).count() >= times).then_some(())
        })
        .await;
    }

    /// The name of a container that runs, as soon as there is one.
    pub(crate) async fn running(&self) -> String {
        self.until(|world| {
            let runs = |container: &Container| container.started_at.is_some() && container.exit.is_none();
            world.containers.iter().find(|(_, container)| runs(container)).map(|(name, _)| name.clone())
        })
        .await
    }

    /// Until no container is left, running or not.
    pub(crate) async fn empty(&self) {
        self.until(|world| world.containers.is_empty().then_some(())).await;
    }

    /// The container writes.
    pub(crate) fn say(&self, name: &str, stream: Stream, text: &str) {
        let chunk = Chunk { stream, bytes: Bytes::copy_from_slice(text.as_bytes()) };
        self.container(name, |container| container.said.push(chunk));
    }

    /// The container leaves a file in its outputs.
    pub(crate) fn leave(&self, name: &str, file: &str, content: &str) {
        let path = self.spec(name).outputs.join(file);
        std::fs::write(path, content).unwrap();
    }

    /// The container ends.
    pub(crate) fn exit(&self, name: &str, code: i64) {
        self.end(name, Ok(Exit { code, ..Exit::default() }));
    }

    /// Nobody will ever learn how the container ends.
    pub(crate) fn lose(&self, name: &str, error: EngineError) {
        self.end(name, Err(error));
    }

    pub(crate) fn spec(&self, name: &str) -> ContainerSpec {
        self.world().containers[name].spec.clone()
    }

    /// How often this step was begun.
    pub(crate) fn count(&self, step: Step) -> usize {
        self.world().calls.iter().filter(|(begun, _)| *begun == step).count()
    }

    pub(crate) fn containers(&self) -> Vec<String> {
        self.world().containers.keys().cloned().collect()
    }

    fn end(&self, name: &str, exit: Result<Exit, EngineError>) {
        self.container(name, |container| {
            container.exit.get_or_insert(exit);
            container.finished_at.get_or_insert_with(clock::now);
        });
    }

    fn container(&self, name: &str, change: impl FnOnce(&mut Container)) {
        self.change(|world| world.containers.get_mut(name).map(change).expect("there is such a container"));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let done = change(&mut self.world());
        self.changes.send_modify(|number| *number += 1);
        done
    }

    async fn until<T>(&self, mut look: impl FnMut(&World) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = look(&self.world()) {
                return found;
            }
            changes.changed().await.expect("the sender is here");
        }
    }

    /// Begins a step: writes it down, waits while it is held, and fails as scripted.
    async fn begin(&self, step: Step, name: &str) -> Option<Fault> {
        self.change(|world| world.calls.push((step, name.to_owned())));
        self.until(|world| (!world.held.contains(&step)).then_some(())).await;
        let fault = self.change(|world| world.faults.get_mut(&step)?.pop_front());
        assert!(!matches!(fault, Some(Fault::Panic)), "a scripted fault of the executor");
        fault
    }

    async fn begin_plain(&self, step: Step, name: &str) -> Result<(), EngineError> {
        match self.begin(step, name).await {
            None => Ok(()),
            Some(Fault::Engine(error)) => Err(error),
            Some(other) => panic!("{other:?} is no fault of {step:?}"),
        }
    }

    /// From the first byte: all that was said, and what is still to be said until the end.
    fn output(&self, name: &str) -> Running {
        let from = (self.clone(), name.to_owned(), 0);
        let output = stream::unfold(from, |(scripted, name, at)| async move {
            let chunk = scripted
                .until(|world| match world.containers.get(&name) {
                    Some(container) => match container.said.get(at) {
                        Some(chunk) => Some(Some(chunk.clone())),
                        None => container.exit.is_some().then_some(None),
                    },
                    None => Some(None),
                })
                .await?;
            Some((chunk, (scripted, name, at + 1)))
        });
        let (scripted, name) = (self.clone(), name.to_owned());
        let exit = async move {
            let gone = EngineError::Refused { status: 404, message: format!("No such container: {name}") };
            scripted
                .until(|world| match world.containers.get(&name) {
                    Some(container) => container.exit.clone(),
                    None => Some(Err(gone.clone())),
                })
                .await
        };
        Running { output: output.boxed(), exit: exit.boxed() }
    }
}

impl Executor for Scripted {
    async fn image(&self, _: &ImageSource, _: Option<&str>, _: &BuildLines) -> Result<Image, ImageError> {
        match self.begin(Step::Image, "").await {
            None => Ok(Image { reference: "image:scripted".to_owned(), ..Image::default() }),
            Some(Fault::Engine(error)) => Err(ImageError::Engine(error)),
            Some(Fault::Image(error)) => Err(error),
            Some(other) => panic!("{other:?} is no fault of an image"),
        }
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        self.begin_plain(Step::Create, &spec.name).await?;
        self.change(|world| {
            let container = Container {
                spec: spec.clone(),
                started_at: None,
                finished_at: None,
                said: Vec::new(),
                exit: None,
                hearing: world.hearing,
            };
            let before = world.containers.insert(spec.name.clone(), container);
            assert!(before.is_none(), "a name is used once");
        });
        Ok(format!("id of {}", spec.name))
    }

    async fn fill(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.begin_plain(Step::Fill, &spec.name).await
    }

    async fn start(&self, name: &str) -> Result<Running, StartError> {
        let plain = |error| StartError { error, exit_code: None, is_worth_another: false };
        match self.begin(Step::Start, name).await {
            None => {}
            Some(Fault::Engine(error)) => return Err(plain(error)),
            Some(Fault::Start { message, code, is_worth_another }) => {
                let error = EngineError::Refused { status: 400, message: message.to_owned() };
                return Err(StartError { error, exit_code: Some(code), is_worth_another });
            }
            Some(other) => panic!("{other:?} is no fault of a start"),
        }
        let has_gpus = self.world().has_gpus;
        let started = self.change(|world| {
            let container = world.containers.get_mut(name)?;
            if !has_gpus && !container.spec.gpus.is_empty() {
                return None;
            }
            container.started_at = Some(clock::now());
            Some(())
        });
        if started.is_none() {
            let message = "could not select device driver \"nvidia\" with capabilities: [[gpu]]".to_owned();
            return Err(plain(EngineError::Refused { status: 500, message }));
        }
        Ok(self.output(name))
    }

    async fn resume(&self, name: &str) -> Result<Option<Resumed>, EngineError> {
        self.begin_plain(Step::Resume, name).await?;
        let found = self.world().containers.get(name).cloned();
        let Some(container) = found else { return Ok(None) };
        let Some(started_at) = container.started_at else { return Ok(None) };
        let finished_at = container.finished_at;
        Ok(Some(Resumed { id: format!("id of {name}"), running: self.output(name), started_at, finished_at }))
    }

    async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        self.begin_plain(Step::Stop, name).await?;
        let found = self.world().containers.get(name).cloned();
        let Some(container) = found.filter(|container| container.exit.is_none()) else { return Ok(()) };
        let code = if container.hearing == Hearing::Good && !grace.is_zero() {
            143
        } else {
            tokio::time::sleep(grace).await;
            137
        };
        self.exit(name, code);
        Ok(())
    }

    async fn bring_outputs(&self, name: &str, _: &Path) -> Result<(), String> {
        match self.begin(Step::Outputs, name).await {
            None => Ok(()),
            Some(Fault::Outputs(why)) => Err(why.to_owned()),
            Some(other) => panic!("{other:?} is no fault of outputs"),
        }
    }

    async fn own_bytes(&self, _: &str) -> Option<u64> {
        None
    }

    async fn is_well(&self) -> bool {
        self.world().is_well
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.begin_plain(Step::Remove, name).await?;
        self.change(|world| world.containers.remove(name));
        Ok(())
    }

    async fn forget(&self, _: &ImageSource) {}

    async fn tidy(&self) -> Tidied {
        Tidied::default()
    }

    async fn list(&self) -> Result<Vec<Labelled>, EngineError> {
        let labelled = |(name, container): (&String, &Container)| {
            let label = |wanted: &str| {
                let wanted = format!("container.mtfm.io/{wanted}");
                container.spec.labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone())
            };
            Some(Labelled {
                name: name.clone(),
                worker: label("worker")?,
                lock: label("host-lock").map(Into::into),
                deadline: label("deadline").and_then(|text| text.parse().ok()).map(Timestamp::from_millis),
            })
        };
        Ok(self.world().containers.iter().filter_map(labelled).collect())
    }
}
