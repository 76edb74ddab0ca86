//! Whatever happens, nothing that a job needs is collected; and when no job needs anything, nothing is left.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use dockframe_shared::job::{Control, Definition};
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{ContentHash, InstanceId, NamespaceSelector, QueueKey};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::background::sweep_once;
use crate::blobs::{BlobKey, Blobs, Documents, LogStore};
use crate::callbacks::Callbacks;
use crate::limits::{INLINE_RESULT_BYTES, MAX_BLOB_BYTES};
use crate::queue::command::{Reply, Who};
use crate::queue::record::EndReason;
use crate::queue::service::{Finishing, Scope, Settings, Submission};
use crate::store::Store as _;
use crate::store::embedded::EmbeddedStore;

const QUEUES: [&str; 2] = ["one", "other"];
const JOBS: usize = 3;
const DAY: i64 = 24 * 3_600_000;

struct Relay {
    folder: tempfile::TempDir,
    service: Arc<Service>,
    /// When each run ended: its lines are promised from then on, whoever it answers later.
    ended: RefCell<HashMap<LeaseId, Timestamp>>,
}

impl Relay {
    fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let store = EmbeddedStore::open(&root.join("store")).unwrap();
        let blobs = Blobs::open(root, MAX_BLOB_BYTES, store.clock()).unwrap();
        let callbacks = Arc::new(Callbacks::open(root, None, false).unwrap());
        let settings = Settings { shared_results: true, callbacks };
        let (documents, logs) = (Documents::open(root).unwrap(), LogStore::open(root).unwrap());
        let service = Service::new(Arc::new(store), blobs, documents, Box::new(logs), settings);
        Self { folder, service: Arc::new(service), ended: RefCell::default() }
    }

    async fn pass(&self, millis: i64) {
        self.service.clock.learn(self.service.now().plus_millis(millis), Instant::now());
        sweep_once(&self.service).await.unwrap();
        // What follows a commit is done on tasks of its own.
        tokio::task::yield_now().await;
    }

    async fn collect(&self) -> Collected {
        self.service.collect(Duration::ZERO).await.unwrap()
    }

    /// As a page does: what is not there is uploaded.
    async fn upload(&self, content: &str) -> String {
        let key = BlobKey::new(ContentHash::of(content.as_bytes()).to_string().as_str()).unwrap();
        if !self.service.blobs.exists(&key).await.unwrap() {
            let content = Ok::<_, std::io::Error>(Bytes::copy_from_slice(content.as_bytes()));
            self.service.blobs.put(&key, None, futures_util::stream::iter([content])).await.unwrap();
        }
        format!("http://relay.example/f/{}", key.as_str())
    }

    async fn submit(&self, queue: &str, job: usize, wait: i64) -> JobId {
        let input = self.upload(&format!("input of {job}")).await;
        self.pass(wait).await;
        let definition =
            json!({ "image": "a", "command": job, "inputs": { "i": { "type": "url", "value": input } } });
        let serde_json::Value::Object(definition) = definition else { unreachable!() };
        let submission = Submission {
            id: None,
            definition: Definition::from(definition),
            control: Control::default(),
            debug: None,
            origin: None,
        };
        let queue = self.service.open(&QueueKey::new(queue).unwrap()).await.unwrap();
        self.service.submit(&queue, submission).await.unwrap().0
    }

    /// A worker takes the job, says something, uploads an output, and ends it. `large`: the result is a file.
    async fn run(&self, queue: &str, job: &JobId, large: bool) {
        let service = &self.service;
        let queue = service.open(&QueueKey::new(queue).unwrap()).await.unwrap();
        let worker = WorkerId::new("w").unwrap();
        let instance = InstanceId::new("w1").unwrap();
        let register = Command::Register {
            worker: worker.clone(),
            instance: instance.clone(),
            first: true,
            leases: Vec::new(),
        };
        let Reply::Registered { session, .. } = service.execute(&queue, &register).await.unwrap() else {
            panic!("not registered")
        };
        let grant = Command::Grant { job: job.clone(), worker: worker.clone(), instance, session };
        service.execute(&queue, &grant).await.unwrap();
        let lease = queue.cache().record(job).and_then(|known| Some(known.value.active_lease()?.id.clone()));
        let Some(lease) = lease else { return };
        assert!(service.accept(&queue, &worker, lease.clone()).await.unwrap());
        let line = serde_json::from_value(json!(["hello\n", 1])).unwrap();
        service.lines(&queue, &worker, &lease, &LogStep::Running, Some(0), vec![line]).await.unwrap();
        let output = self.upload(&format!("output of {}", lease.as_str())).await;
        let padding = if large { "x".repeat(INLINE_RESULT_BYTES) } else { String::new() };
        let value = json!({ "type": "Finished", "reason": "Success", "worker": "w", "time": service.now(),
            "result": { "logs": [[padding, 1]], "outputs": { "o": { "type": "url", "value": output } } } });
        assert!(service.finish(&queue, &worker, &lease, &Finishing::read(&value)).await.unwrap().0);
        self.ended.borrow_mut().insert(lease, service.now());
    }

    async fn let_go(&self, queue: &str, job: &JobId, why: EndReason) {
        let queue = self.service.open(&QueueKey::new(queue).unwrap()).await.unwrap();
        self.service.let_go(&queue, job, why, Who::These(NamespaceSelector::All), None).await.unwrap();
    }

    /// Files on disk, found without asking for them, which would count as use.
    fn has_file(&self, key: &BlobKey) -> bool {
        let name = key.file_name();
        self.folder.path().join("files").join(&name[..2]).join(name).exists()
    }

    fn files_in(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.folder.path().join(folder), &mut found);
        found
    }

    /// All that any record of any queue needs is there.
    async fn check(&self) {
        for name in QUEUES {
            let queue = self.service.open(&QueueKey::new(name).unwrap()).await.unwrap();
            for number in 0..JOBS {
                let Some(job) = self.job(number) else { continue };
                let Some(record) = self.service.record(&queue, &job).await.unwrap() else { continue };
                let scope = Scope::Queue(&queue);
                if matches!(record.phase, Phase::LetGo(_)) {
                    continue;
                }
                let definition = self.service.definition(scope, &job).await.unwrap();
                let mut documents = vec![json!(definition.expect("a job without definition"))];
                if let Some(outcome) = record.outcome() {
                    let result = self.service.result(scope, &job).await.unwrap();
                    documents.push(json!(result.expect("a job without its result")));
                    let ended =
                        outcome.run().filter(|_| !record.is_going()).map(|run| self.ended.borrow()[run]);
                    if ended.is_some_and(|ended| self.service.now() < ended.plus_millis(LOGS_KEPT)) {
                        let log = self.service.log(scope, &job, LogKind::Run, 0).await.unwrap();
                        assert_eq!(log.lines.total, 1, "lines went before their time");
                    }
                }
                for key in documents.iter().flat_map(|document| keys_in(document.to_string().as_bytes())) {
                    // The digits of the job's own id look like a key.
                    assert!(self.has_file(&key) || key.as_str() == job.as_str(), "a file went: {key:?}");
                }
            }
        }
    }

    fn job(&self, number: usize) -> Option<JobId> {
        let input = ContentHash::of(format!("input of {number}").as_bytes()).to_string();
        let input = format!("http://relay.example/f/{input}");
        let definition =
            json!({ "image": "a", "command": number, "inputs": { "i": { "type": "url", "value": input } } });
        let serde_json::Value::Object(definition) = definition else { return None };
        Some(dockframe_shared::job::digest::job_id(&Definition::from(definition)))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Submit { queue: usize, job: usize, wait: i64 },
    Run { queue: usize, job: usize, large: bool },
    LetGo { queue: usize, job: usize, deleted: bool },
    Pass { millis: i64 },
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let (queue, job) = (0..QUEUES.len(), 0..JOBS);
    // Between an upload and its submission there may be all the time that is promised.
    let wait = prop_oneof![3 => Just(0), 1 => Just(DAY), 1 => Just(KEPT - DAY)];
    prop_oneof![
        4 => (queue.clone(), job.clone(), wait).prop_map(|(queue, job, wait)| Step::Submit { queue, job, wait }),
        4 => (queue.clone(), job.clone(), any::<bool>())
            .prop_map(|(queue, job, large)| Step::Run { queue, job, large }),
        1 => (queue, job, any::<bool>())
            .prop_map(|(queue, job, deleted)| Step::LetGo { queue, job, deleted }),
        3 => prop_oneof![Just(LISTED), Just(2 * DAY), Just(8 * DAY), Just(KEPT), Just(KEPT + LISTED + 1)]
            .prop_map(|millis| Step::Pass { millis }),
        4 => Just(Step::Collect),
    ]
}

async fn play(steps: Vec<Step>) {
    let relay = Relay::start();
    for step in steps {
        match step {
            Step::Submit { queue, job, wait } => {
                assert_eq!(Some(relay.submit(QUEUES[queue], job, wait).await), relay.job(job));
            }
            Step::Run { queue, job, large } => {
                if let Some(job) = relay.job(job) {
                    relay.run(QUEUES[queue], &job, large).await;
                }
            }
            Step::LetGo { queue, job, deleted } => {
                let why = if deleted { EndReason::Deleted } else { EndReason::Cancelled };
                if let Some(job) = relay.job(job) {
                    relay.let_go(QUEUES[queue], &job, why).await;
                }
            }
            Step::Pass { millis } => relay.pass(millis).await,
            Step::Collect => {
                relay.collect().await;
            }
        }
        relay.check().await;
    }
    // Everybody lets go, and time passes: nothing is left.
    for number in 0..JOBS {
        for queue in QUEUES {
            if let Some(job) = relay.job(number) {
                relay.let_go(queue, &job, EndReason::Cancelled).await;
            }
        }
    }
    for _ in 0..3 {
        relay.pass(KEPT + LISTED + 1).await;
    }
    // The first one forgets workers, whose queues are open then; all else goes at once.
    relay.collect().await;
    let page = relay.service.store.collect().entries(None, 1000).await.unwrap();
    assert!(page.items.is_empty(), "{:?}", page.items);
    let page = relay.service.store.collect().documents(None, 1000).await.unwrap();
    assert!(page.items.is_empty(), "{:?}", page.items);
    for folder in ["files", "results", "logs", "incoming"] {
        assert_eq!(relay.files_in(folder), Vec::<PathBuf>::new(), "{folder}");
    }
    for job in (0..JOBS).filter_map(|number| relay.job(number)) {
        assert_eq!(relay.service.store.document(DocumentKey::Shared(job)).await.unwrap(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_job_needs_is_collected_and_nothing_else_is_left(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test]
async fn a_result_that_answers_in_another_queue_stays_when_its_own_queue_deletes_it() {
    let relay = Relay::start();
    let job = relay.submit("one", 0, 0).await;
    relay.run("one", &job, true).await;
    relay.submit("other", 0, 0).await;
    relay.let_go("one", &job, EndReason::Deleted).await;
    relay.pass(LISTED).await;
    assert_eq!(relay.collect().await, Collected::default());
    relay.check().await;
    let other = relay.service.open(&QueueKey::new("other").unwrap()).await.unwrap();
    assert!(relay.service.result(Scope::Queue(&other), &job).await.unwrap().is_some());
    let one = relay.service.open(&QueueKey::new("one").unwrap()).await.unwrap();
    assert!(relay.service.result(Scope::Queue(&one), &job).await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_whose_lines_went_with_their_week_still_answers_elsewhere() {
    let relay = Relay::start();
    let job = relay.submit("one", 0, 0).await;
    relay.run("one", &job, false).await;
    relay.pass(KEPT - DAY).await;
    assert_eq!(relay.collect().await.logs, 1);
    relay.submit("other", 0, 0).await;
    relay.check().await;
    let other = relay.service.open(&QueueKey::new("other").unwrap()).await.unwrap();
    let log = relay.service.log(Scope::Queue(&other), &job, LogKind::Run, 0).await.unwrap();
    assert_eq!(log.lines.total, 0);
}

#[tokio::test]
async fn an_input_waits_four_weeks_for_its_job_and_no_longer() {
    let relay = Relay::start();
    relay.upload("wanted again").await;
    relay.upload("unwanted").await;
    relay.pass(KEPT - 1_000).await;
    assert_eq!(relay.collect().await.files, 0);
    relay.upload("wanted again").await;
    relay.pass(2_000).await;
    assert_eq!(relay.collect().await.files, 1);
    assert_eq!(relay.files_in("files").len(), 1);
}
