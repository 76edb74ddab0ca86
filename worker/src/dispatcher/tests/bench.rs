//! A dispatcher of one queue with room for two jobs, the relay's end of its link, and its place on disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dockframe_shared::protocol::{
    DeclineRetry, LeaseFinished, LeaseGrant, LeaseRevoke, Phase, Registration, RevokeWhy, WorkerHello,
    WorkerMessage,
};
use dockframe_shared::{Amount, InstanceId, JobId, LeaseId, QueueKey, Timestamp, WorkerId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::{Dispatcher, Leaving, Queue, Rules};
use crate::adoption;
use crate::capacity::Capacity;
use crate::config::{DrainTimeout, Network, OnExit, PhaseLimits};
use crate::disk::{Disk, DiskRules};
use crate::executor::scripted::{Scripted, Step};
use crate::files::cache::InputCache;
use crate::files::fetch::Http;
use crate::files::inputs::Sources;
use crate::files::outputs::Uploader;
use crate::image_policy::ImagePolicy;
use crate::messages::{Event, LinkEvent, QueueIndex};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::secrets::Secrets;
use crate::state::RunDirectory;
use crate::unit::Shared;

/// No step of these tests takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// As short as can be told from none.
const KILL_GRACE: Duration = Duration::from_millis(50);
const ONLY: QueueIndex = QueueIndex(0);
/// Jobs at once.
pub(super) const SLOTS: u32 = 2;

pub(super) struct Bench {
    pub(super) scripted: Scripted,
    place: TempDir,
    cache: TempDir,
    leaving: Leaving,
    limits: PhaseLimits,
    gpus: Vec<String>,
    process: Option<Process>,
}

/// What ends with a process.
struct Process {
    events: mpsc::Sender<Event>,
    frames: mpsc::UnboundedReceiver<String>,
    registration: watch::Receiver<Registration>,
    stop: CancellationToken,
    hurry: CancellationToken,
    task: JoinHandle<Dispatcher<Scripted>>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// As changed before it begins.
    pub(super) async fn with(change: impl FnOnce(&mut Self)) -> Self {
        let long = Duration::from_secs(600);
        let mut bench = Self {
            scripted: Scripted::new(),
            place: tempfile::tempdir().unwrap(),
            cache: tempfile::tempdir().unwrap(),
            leaving: Leaving {
                drain_timeout: DrainTimeout::After(Duration::ZERO),
                on_exit: OnExit::AsAgreed,
            },
            limits: PhaseLimits { inputs: long, pull: long, build: long, outputs: long },
            gpus: Vec::new(),
            process: None,
        };
        change(&mut bench);
        bench.begin().await;
        bench
    }

    pub(super) fn leaves(&mut self, drain_timeout: DrainTimeout, on_exit: OnExit) {
        self.leaving = Leaving { drain_timeout, on_exit };
    }

    pub(super) fn lends_gpus(&mut self, gpus: &[&str]) {
        self.gpus = gpus.iter().map(|&gpu| gpu.to_owned()).collect();
    }

    /// A process in the place of the one before, connected.
    pub(super) async fn begin(&mut self) {
        crate::install_crypto();
        let queue = QueueKey::new("q").unwrap();
        let http = Http::new("http://localhost:1", false, false, 1000).unwrap();
        let metrics = Metrics::default();
        let shared = Arc::new(Shared {
            executor: self.scripted.clone(),
            uploader: Uploader { http: http.clone(), external_address: None, metrics: metrics.clone() },
            sources: Sources {
                http,
                cache: InputCache::open(self.cache.path(), 1000).unwrap(),
                max_bytes: 1000,
                metrics,
            },
            worker: WorkerId::new("w").unwrap().into(),
            instance: InstanceId::new("i").unwrap(),
            relay: "http://localhost:1".to_owned(),
            host_lock: None,
            limits: self.limits,
            max_job_duration: Duration::from_secs(600),
            kill_grace: KILL_GRACE,
            max_log_bytes: 3 << 20,
            network: Network::Nat,
            owner: None,
            default_memory_bytes: None,
            hide_queue: false,
            secrets: Secrets::default(),
            secret_files: None,
            shell_fallback: false,
            enforce_cpus: false,
            has_init: false,
            job_disk_bytes: 1 << 30,
            active: Default::default(),
            max_finish_bytes: AtomicU64::new(1 << 20),
        });
        let registration = Registration {
            id: WorkerId::new("w").unwrap(),
            version: String::new(),
            cpus: Amount(f64::from(SLOTS)),
            gpus: Amount(f64::from(u32::try_from(self.gpus.len()).unwrap())),
            time: Timestamp::default(),
            max_job_duration: String::new(),
            memory_bytes: None,
            tags: None,
            draining: None,
            executor: None,
            instance: None,
            others: serde_json::Map::default(),
            leases: None,
        };
        let (sender, registration) = watch::channel(registration);
        let outbox = Outbox::open(self.place.path(), &queue).unwrap();
        let rules = Rules {
            place: self.place.path().to_owned(),
            data_directory: self.place.path().to_owned(),
            tags: Vec::new(),
            images: ImagePolicy::default(),
            // Whatever the disk of who runs the tests.
            disk: Disk::new(
                self.place.path(),
                DiskRules { low_percent: 0, low_bytes: 0, ..DiskRules::default() },
            ),
            leaving: self.leaving,
        };
        let (events, incoming) = mpsc::channel(64);
        let capacity = Capacity::new(SLOTS, None, self.gpus.clone());
        let queues = vec![Queue::new(queue.clone(), sender, outbox, None)];
        let mut dispatcher = Dispatcher::new(shared, rules, queues, capacity, events.clone());
        dispatcher.begin_with(adoption::find(self.place.path(), &[queue]));
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, hurried) = (stop.clone(), hurry.clone());
        let task = tokio::spawn(async move {
            dispatcher.run(incoming, &stopped, &hurried).await;
            dispatcher
        });
        let (_, frames) = mpsc::unbounded_channel();
        self.process = Some(Process { events, frames, registration, stop, hurry, task });
        self.connect("epoch").await;
    }

    /// The link is up, on another connection than before.
    pub(super) async fn connect(&mut self, epoch: &str) {
        let (frames, heard) = mpsc::unbounded_channel();
        let hello = WorkerHello {
            relay: "test".to_owned(),
            epoch: epoch.to_owned(),
            ttl_ms: 30_000,
            renew_ms: 10_000,
            max_finish_bytes: 1 << 20,
        };
        self.process().frames = heard;
        self.tell(LinkEvent::Up { hello, frames }).await;
    }

    pub(super) async fn disconnect(&mut self) {
        self.tell(LinkEvent::Down).await;
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("there is a process")
    }

    async fn tell(&mut self, event: LinkEvent) {
        self.process().events.send(Event::Link { queue: ONLY, event }).await.unwrap();
    }

    /// A job of this definition, and the image of all.
    pub(super) async fn grant(&mut self, lease: &str, definition: Value) {
        self.grant_for(lease, definition, 3_600_000).await;
    }

    /// Whose lease ends after so many milliseconds.
    pub(super) async fn grant_for(&mut self, lease: &str, mut definition: Value, deadline_ms: u64) {
        definition["image"] = json!("image:scripted");
        let grant = json!({
            "leaseId": lease, "jobId": format!("job-of-{lease}"), "attempt": 1, "definition": definition,
            "deadlineMs": deadline_ms,
        });
        let grant: LeaseGrant = serde_json::from_value(grant).unwrap();
        assert_eq!(grant.job_id, JobId::new(format!("job-of-{lease}")).unwrap());
        self.tell(LinkEvent::Grant(Box::new(grant))).await;
    }

    pub(super) async fn revoke(&mut self, lease: &str) {
        let revoke =
            LeaseRevoke { lease_id: LeaseId::new(lease).unwrap(), why: RevokeWhy::Cancelled, grace_ms: 5000 };
        self.tell(LinkEvent::Revoke(revoke)).await;
    }

    pub(super) async fn answer(&mut self, lease: &str, recorded: bool) {
        let finished = LeaseFinished { lease_id: LeaseId::new(lease).unwrap(), recorded, why: None };
        self.tell(LinkEvent::Finished(finished)).await;
    }

    /// The next frame to the relay.
    pub(super) async fn heard(&mut self) -> WorkerMessage {
        let frame = tokio::time::timeout(PATIENCE, self.process().frames.recv()).await;
        let frame = frame.expect("a frame in time").expect("the link is up");
        WorkerMessage::read(&frame).unwrap()
    }

    /// The next frame that is not of lines, which must accept this lease.
    pub(super) async fn accepted(&mut self, lease: &str) {
        match self.heard_but_lines().await {
            WorkerMessage::LeaseAccept(accept) => assert_eq!(accept.lease_id.as_str(), lease),
            other => panic!("{lease} is not accepted: {other:?}"),
        }
    }

    /// The next frame that is not of lines, which must decline this lease; when to ask again.
    pub(super) async fn declined(&mut self, lease: &str) -> DeclineRetry {
        match self.heard_but_lines().await {
            WorkerMessage::LeaseDecline(decline) if decline.lease_id.as_str() == lease => decline.retry,
            other => panic!("{lease} is not declined: {other:?}"),
        }
    }

    /// The next frame that is not of lines, which must bring this lease's result.
    pub(super) async fn finished(&mut self, lease: &str) -> Value {
        match self.heard_but_lines().await {
            WorkerMessage::LeaseFinish(finish) if finish.lease_id.as_str() == lease => finish.value,
            other => panic!("{lease} has no result: {other:?}"),
        }
    }

    async fn heard_but_lines(&mut self) -> WorkerMessage {
        loop {
            match self.heard().await {
                WorkerMessage::Logs(_) => {}
                other => return other,
            }
        }
    }

    /// Grants a job and waits until its container runs.
    pub(super) async fn run(&mut self, lease: &str, definition: Value) -> String {
        self.grant(lease, definition).await;
        self.accepted(lease).await;
        self.within(self.scripted.running()).await
    }

    /// As a relay that has heard the registration: which leases it names, with their phases.
    pub(super) fn named(&mut self) -> Vec<(String, Phase)> {
        let registration = self.process().registration.borrow();
        let leases = registration.leases.iter().flatten();
        leases.map(|lease| (lease.lease_id.to_string(), lease.phase)).collect()
    }

    /// Until the registration is so.
    pub(super) async fn registers(&mut self, mut is_so: impl FnMut(&Registration) -> bool) {
        let mut registration = self.process().registration.clone();
        tokio::time::timeout(PATIENCE, registration.wait_for(|now| is_so(now))).await.unwrap().unwrap();
    }

    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, work).await.expect("in time")
    }

    /// The whole machine is free, not more of it, and nothing of any run is left: as many jobs as there are slots
    /// are accepted, and one more is not.
    pub(super) async fn is_free(&mut self) {
        let scripted = self.scripted.clone();
        self.within(scripted.empty()).await;
        self.within(async {
            while self.run_directories() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        scripted.hold(Step::Image);
        let mut taken = Vec::new();
        for number in 0..100 {
            // A run that has just left may still be in the table.
            let lease = format!("probe-{number}");
            self.grant(&lease, json!({})).await;
            match self.heard_but_lines().await {
                WorkerMessage::LeaseAccept(_) => taken.push(lease),
                WorkerMessage::LeaseDecline(_) if taken.len() < SLOTS as usize => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                WorkerMessage::LeaseDecline(decline) => {
                    assert_eq!(decline.retry, DeclineRetry::Soon);
                    break;
                }
                other => panic!("neither accepted nor declined: {other:?}"),
            }
        }
        assert_eq!(taken.len(), SLOTS as usize, "all slots are free, and no more");
        for lease in taken {
            self.revoke(&lease).await;
        }
        scripted.let_go(Step::Image);
    }

    pub(super) fn run_directories(&self) -> usize {
        RunDirectory::all(self.place.path()).len()
    }

    pub(super) fn place(&self) -> &Path {
        self.place.path()
    }

    /// The first signal.
    pub(super) fn stop(&mut self) {
        self.process().stop.cancel();
    }

    /// The second one.
    pub(super) fn hurry(&mut self) {
        self.process().hurry.cancel();
    }

    /// The process ends by itself; whether it leaves runs to the next one.
    pub(super) async fn ends(&mut self) -> bool {
        let process = self.process.take().expect("there is a process");
        let dispatcher = self.within(process.task).await.unwrap();
        dispatcher.leaves_runs()
    }

    /// As SIGKILL would: every task ends where it is.
    pub(super) async fn kill(&mut self) {
        let process = self.process.take().expect("there is a process");
        process.task.abort();
        let _ = process.task.await;
    }
}
