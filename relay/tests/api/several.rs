//! Several relays on one Redis server: one queue, whoever one is connected to (`jobs-and-states` 6).

use std::path::Path;
use std::time::{Duration, Instant};

use dockframe_relay::page::Page;
use dockframe_relay::{BlobAddress, Config, Relay, StoreAddress};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::redis_server::RedisServer;
use crate::support::*;

/// What happens on one relay shows on the others within this.
const SHOWN: Duration = Duration::from_secs(1);

/// A relay that can die: all its threads and sockets are its own.
pub(crate) struct Node {
    pub(crate) relay: TestRelay,
    runtime: Option<Runtime>,
}

impl Node {
    pub(crate) async fn start(store: StoreAddress, blobs: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = Config::new(store, BlobAddress::Directory(blobs.to_owned()));
        let (told, address) = oneshot::channel();
        runtime.spawn(async move {
            let relay = Relay::open(config, Page { assets: PAGE }).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap().to_string()).unwrap();
            relay.serve(listener, CancellationToken::new()).await.unwrap();
        });
        Self { relay: TestRelay::at(address.await.unwrap()), runtime: Some(runtime) }
    }

    /// Nothing is said and nothing is written any more.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) server: RedisServer,
    _blobs: TempDir,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let server = RedisServer::start();
        let blobs = tempfile::tempdir().unwrap();
        let a = Node::start(server.address().parse().unwrap(), blobs.path()).await;
        let b = Node::start(server.address().parse().unwrap(), blobs.path()).await;
        Self { a, b, server, _blobs: blobs }
    }
}

fn job() -> Value {
    json!({"definition": {"image": "alpine:3.18.5", "command": "date"}})
}

fn lease_of(grant: &Value) -> String {
    grant["leaseId"].as_str().unwrap().to_owned()
}

/// A watcher of the job, told once.
async fn watcher(relay: &TestRelay, id: &str, state: &str) -> Peer {
    let mut client = relay.client("q1").await;
    client.send(&watch(&[id])).await;
    client.expect_state(id, state).await;
    client
}

#[tokio::test]
async fn a_job_submitted_on_one_relay_is_run_on_another_before_the_eyes_of_both() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut worker = a.worker("q1", "w1").await;
    worker.drain().await;
    let begun = Instant::now();
    let id = b.submit("q1", job()).await;
    let lease = lease_of(&worker.expect("LeaseGrant").await);
    assert!(begun.elapsed() < SHOWN, "{:?}", begun.elapsed());
    let mut watchers = [watcher(a, &id, "Queued").await, watcher(b, &id, "Queued").await];
    let mut old = Peer::connect(&b.address, "/q/q1/client", &[]).await;
    old.drain().await;

    let begun = Instant::now();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["one\n", "two\n"])).await;
    for watcher in &mut watchers {
        assert_eq!(watcher.expect_state(&id, "Running").await["worker"], "w1");
        let lines = watcher.expect("JobStatusPayload").await;
        assert_eq!((&lines["logs"], &lines["from"]), (&json!([["one\n", 3], ["two\n", 3]]), &json!(0)));
    }
    assert_eq!(old.expect("JobStatusPayload").await["logs"], json!([["one\n", 3], ["two\n", 3]]));
    worker.send(&finish(&lease, "hi\n")).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
    for watcher in &mut watchers {
        assert_eq!(watcher.expect_state(&id, "Finished").await["finishedReason"], "Success");
    }
    assert!(begun.elapsed() < SHOWN, "{:?}", begun.elapsed());
    for relay in [a, b] {
        // Who sees the end can read the result, wherever.
        let result = relay.get_json(&format!("/q/q1/j/{id}/result.json")).await;
        assert_eq!(result["data"]["finished"]["result"]["logs"], json!([["hi\n", 4]]));
        let logs = relay.get_json(&format!("/q/q1/j/{id}/run-logs.json")).await;
        assert_eq!(logs["data"], json!([["one\n", 3], ["two\n", 3]]));
        let definition = relay.get_json(&format!("/j/{id}/definition.json")).await;
        assert_eq!(definition["data"]["command"], "date");
    }
}

#[tokio::test]
async fn a_cancel_a_replacement_and_a_deletion_reach_the_worker_on_another_relay() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut worker = a.worker("q1", "w1").await;
    for why in ["cancelled", "replaced", "deleted"] {
        let definition = json!({"image": "a", "command": why});
        let body = json!({"definition": definition, "control": {"namespace": "n"}});
        let id = b.submit("q1", body).await;
        let lease = lease_of(&worker.expect("LeaseGrant").await);
        worker.send(&accept(&lease)).await;
        let mut watcher = watcher(a, &id, "Running").await;
        let mut client = b.client("q1").await;
        let begun = Instant::now();
        let next = match why {
            "cancelled" => {
                client.send(&ended(&id, "Cancelled", Some("n"))).await;
                None
            }
            "deleted" => {
                client.send(&ended(&id, "Deleted", Some("n"))).await;
                None
            }
            _ => {
                client.send(&queued("the next", "n", "r")).await;
                Some("the next")
            }
        };
        assert_eq!(client.expect("Done").await.get("error"), None);
        let revoke = worker.expect("LeaseRevoke").await;
        assert_eq!((&revoke["leaseId"], &revoke["why"]), (&json!(lease), &json!(why)));
        watcher.expect_state(&id, "Finished").await;
        assert!(begun.elapsed() < SHOWN, "{why}: {:?}", begun.elapsed());
        if let Some(next) = next {
            let grant = worker.expect("LeaseGrant").await;
            assert_eq!(grant["jobId"], next);
            let lease = lease_of(&grant);
            worker.send(&accept(&lease)).await;
            worker.send(&finish(&lease, "x")).await;
            worker.expect("LeaseFinished").await;
        }
        worker.send(&finish(&lease, "late")).await;
        assert_eq!(worker.expect("LeaseFinished").await["recorded"], false);
    }
}

#[tokio::test]
async fn a_namespace_that_comes_or_goes_on_one_relay_shows_on_the_other() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut first = b.client("q1").await;
    first.send(&queued("J1", "n1", "r1")).await;
    first.expect("Done").await;
    let mut watcher = watcher(a, "J1", "Queued").await;
    let begun = Instant::now();
    first.send(&queued("J1", "n2", "r2")).await;
    let expect = async |watcher: &mut Peer, namespaces: Value| loop {
        if watcher.expect_state("J1", "Queued").await["namespaces"] == namespaces {
            return;
        }
    };
    expect(&mut watcher, json!(["n1", "n2"])).await;
    first.send(&ended("J1", "Cancelled", Some("n1"))).await;
    expect(&mut watcher, json!(["n2"])).await;
    assert!(begun.elapsed() < SHOWN, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_one_relay_acknowledged_is_read_from_the_other_at_once() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    b.get_json("/q/q1").await;
    for number in 0..30 {
        let (from, to) = if number % 2 == 0 { (a, b) } else { (b, a) };
        let id =
            from.submit("q1", json!({"definition": {"image": "a", "command": number.to_string()}})).await;
        let list = to.get_json("/q/q1").await;
        assert_eq!(list["data"][&id]["state"], "Queued", "{number}: {list}");
        from.post(&format!("/q/q1/j/{id}/cancel"), &json!(null)).await;
        assert_eq!(to.get_json("/q/q1").await["data"], json!({}), "{number}");
    }
}

#[tokio::test]
async fn a_killed_relays_work_is_finished_by_the_other() {
    let mut pair = Pair::start().await;
    let running = pair.a.relay.submit("q1", job()).await;
    let mut worker = pair.a.relay.worker("q1", "w1").await;
    let lease = lease_of(&worker.expect("LeaseGrant").await);
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["before\n"])).await;
    let mut watcher = watcher(&pair.b.relay, &running, "Running").await;
    watcher.expect("JobStatusPayload").await;
    let waiting = pair.a.relay.submit("q1", json!({"definition": {"image": "b"}})).await;
    pair.a.kill();

    let b = &pair.b.relay;
    let mut worker = b.lease_socket("q1").await;
    worker.send(&registration("w1", &[&lease])).await;
    worker.expect("Hello").await;
    worker.send(&logs(&lease, 1, &["after\n"])).await;
    worker.send(&finish(&lease, "end")).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
    let lines = watcher.expect("JobStatusPayload").await;
    assert_eq!((&lines["logs"], &lines["from"]), (&json!([["after\n", 3]]), &json!(1)));
    watcher.expect_state(&running, "Finished").await;
    let grant = worker.expect("LeaseGrant").await;
    assert_eq!(grant["jobId"], *waiting);
    worker.send(&accept(&lease_of(&grant))).await;
    worker.send(&finish(&lease_of(&grant), "end")).await;
    worker.expect("LeaseFinished").await;
    let result = b.get_json(&format!("/q/q1/j/{waiting}/result.json")).await;
    assert_eq!(result["data"]["finishedReason"], "Success");
}

#[tokio::test]
async fn a_lost_workers_short_job_goes_to_a_worker_of_the_other_relay_within_two_seconds() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut worker = a.worker("q1", "w1").await;
    let id = a.submit("q1", job()).await;
    let lease = lease_of(&worker.expect("LeaseGrant").await);
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    let mut other = b.worker("q1", "w2").await;
    // The sweeps judge nobody before they have run for the grace.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let closed = Instant::now();
    drop(worker);
    let grant = other.expect("LeaseGrant").await;
    assert!(closed.elapsed() < Duration::from_millis(2_500), "{:?}", closed.elapsed());
    assert_eq!((&grant["jobId"], &grant["attempt"]), (&json!(id), &json!(2)));
}

#[tokio::test]
async fn a_worker_that_comes_back_on_another_relay_leaves_its_old_socket() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut here = a.worker("q1", "w1").await;
    a.submit("q1", job()).await;
    let lease = lease_of(&here.expect("LeaseGrant").await);
    here.send(&accept(&lease)).await;
    here.drain().await;
    let mut there = b.lease_socket("q1").await;
    there.send(&registration("w1", &[&lease])).await;
    there.expect("Hello").await;
    assert_eq!(here.expect_close().await, Some(1000));
    there.send(&finish(&lease, "end")).await;
    assert_eq!(there.expect("LeaseFinished").await["recorded"], true);
    assert!(there.drain().await.is_empty(), "nothing was revoked");

    let mut thief = a.lease_socket("q1").await;
    let mut registration = registration("w1", &[]);
    registration["payload"]["instance"] = json!("another process");
    thief.send(&registration).await;
    assert_eq!(thief.expect_close().await, Some(4409), "the id is taken, on the other relay");
}

#[tokio::test]
async fn workers_of_all_relays_are_shown_by_each() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let worker = a.worker("q1", "w1").await;
    let mut client = b.client("q1").await;
    client.send(&json!({"type": "Watch", "payload": {"jobs": {}, "workers": true}})).await;
    let ids = async |client: &mut Peer| -> Vec<Value> {
        let workers = client.expect("Workers").await;
        workers["workers"].as_array().unwrap().iter().map(|worker| worker["id"].clone()).collect()
    };
    while ids(&mut client).await != [json!("w1")] {}
    let _other = b.worker("q1", "w2").await;
    while ids(&mut client).await != [json!("w1"), json!("w2")] {}
    let big = json!({"definition": {"image": "a", "requirements": {"gpus": 1}}});
    let id = b.submit("q1", big).await;
    client.send(&watch(&[&id])).await;
    assert_eq!(client.expect_state(&id, "Queued").await["waitReason"], "no connected worker has 1 GPUs");
    client.send(&json!({"type": "Watch", "payload": {"jobs": {}, "workers": true}})).await;
    worker.close(1000).await;
    while ids(&mut client).await != [json!("w2")] {}
}

#[tokio::test]
async fn every_job_is_granted_once_though_both_relays_have_workers() {
    const JOBS: usize = 60;
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut peers = Vec::new();
    for number in 0..6 {
        let relay = if number % 2 == 0 { a } else { b };
        peers.push(relay.worker("q1", &format!("w{number}")).await);
    }
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let workers: Vec<_> = peers
        .into_iter()
        .map(|mut worker| {
            let done = done.clone();
            tokio::spawn(async move {
                loop {
                    let grant = worker.expect("LeaseGrant").await;
                    worker.send(&accept(&lease_of(&grant))).await;
                    worker.send(&finish(&lease_of(&grant), "x")).await;
                    let recorded = worker.expect("LeaseFinished").await["recorded"].clone();
                    done.send((grant["jobId"].clone(), grant["attempt"].clone(), recorded)).unwrap();
                }
            })
        })
        .collect();
    let mut submitted = Vec::new();
    for number in 0..JOBS {
        let relay = if number % 3 == 0 { a } else { b };
        let body = json!({"definition": {"image": "a", "command": number.to_string()}});
        submitted.push(json!(relay.submit("q1", body).await));
    }
    let mut ran = Vec::new();
    while ran.len() < JOBS {
        let (job, attempt, recorded) = tokio::time::timeout(SOON, finished.recv()).await.unwrap().unwrap();
        assert_eq!((&attempt, &recorded), (&json!(1), &json!(true)), "{job}");
        ran.push(job);
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    let key = |job: &Value| job.to_string();
    ran.sort_by_key(key);
    submitted.sort_by_key(key);
    assert_eq!(ran, submitted);
}

#[tokio::test]
async fn without_the_server_nothing_is_answered_and_with_it_all_goes_on() {
    let mut pair = Pair::start().await;
    let mut worker = pair.a.relay.worker("q1", "w1").await;
    let id = pair.b.relay.submit("q1", job()).await;
    let lease = lease_of(&worker.expect("LeaseGrant").await);
    worker.send(&accept(&lease)).await;
    let mut watcher = watcher(&pair.b.relay, &id, "Running").await;
    pair.server.kill();
    for relay in [&pair.a.relay, &pair.b.relay] {
        assert_eq!(relay.get("/q/q1").await.status(), 503);
        assert_eq!(relay.post("/q/q1", &json!({"definition": {"image": "b"}})).await.status(), 503);
    }
    worker.send(&finish(&lease, "during the outage")).await;
    pair.server.start_again();

    // No answer came, so the worker says it again; the relay finds its way back by itself.
    let begun = Instant::now();
    loop {
        worker.send(&finish(&lease, "after all")).await;
        worker.drain().await.into_iter().for_each(|frame| {
            assert_ne!(frame["type"], "LeaseRevoke", "{frame}");
        });
        if pair.b.relay.get_json(&format!("/q/q1/j/{id}/result.json")).await["data"] != json!(null) {
            break;
        }
        assert!(begun.elapsed() < SOON, "the relay does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    watcher.expect_state(&id, "Finished").await;
    let next = pair.b.relay.submit("q1", json!({"definition": {"image": "next"}})).await;
    assert_eq!(worker.expect("LeaseGrant").await["jobId"], *next);
}

#[tokio::test]
async fn why_a_job_waits_and_who_has_it_is_the_same_on_all_relays() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let mut worker = a.worker("q1", "w1").await;
    let id = b.submit("q1", job()).await;
    let grant = worker.expect("LeaseGrant").await;
    worker
        .send(&json!({"type": "LeaseDecline", "payload": {
            "leaseId": grant["leaseId"], "why": "image not allowed here", "retry": "never"}}))
        .await;
    let mut watcher = watcher(b, &id, "Queued").await;
    watcher.send(&watch(&[&id])).await;
    let why = "declined by all fitting workers: image not allowed here";
    while watcher.expect_state(&id, "Queued").await["waitReason"] != why {}

    // An old worker with a socket on each relay is lost with the last of them.
    let registration = json!({"type": "WorkerRegistration", "payload": {
        "time": 1, "version": "0.54", "id": "old", "cpus": 1, "gpus": 0, "maxJobDuration": "20m"}});
    let mut sockets = Vec::new();
    for relay in [a, b] {
        let mut socket = Peer::connect(&relay.address, "/q/q1/worker", &[]).await;
        socket.send(&registration).await;
        socket.drain().await;
        sockets.push(socket);
    }
    let status = async || b.get_json("/q/q1/status").await.to_string();
    while !status().await.contains("\"old\"") {}
    let claim = json!({"type": "StateChange", "payload": {"tag": "", "state": "Running", "job": id,
        "value": {"type": "Running", "worker": "old", "time": 1}}});
    sockets[0].send(&claim).await;
    watcher.expect_state(&id, "Running").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    sockets.pop().unwrap().close(1000).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(a.get_json("/q/q1").await["data"][&id]["state"], "Running", "one socket is left");
    let closed = Instant::now();
    sockets.pop().unwrap().close(1000).await;
    watcher.expect_state(&id, "Queued").await;
    assert!(closed.elapsed() < Duration::from_secs(4), "the last one: {:?}", closed.elapsed());
}
