//! Callbacks to those who submitted (`jobs-and-states` 7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::*;

/// A server that is called back. It refuses the first so many calls.
struct Receiver {
    url: String,
    calls: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
}

type Calls = (mpsc::UnboundedSender<(HeaderMap, Value)>, Arc<AtomicUsize>);

impl Receiver {
    async fn start(refuses: usize) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let state: Calls = (sender, Arc::new(AtomicUsize::new(refuses)));
        let take = |State((sender, refuses)): State<Calls>, headers: HeaderMap, body: String| async move {
            sender.send((headers, serde_json::from_str(&body).unwrap())).unwrap();
            let refused =
                refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(take)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls }
    }

    async fn next(&mut self) -> (HeaderMap, Value) {
        tokio::time::timeout(SOON, self.calls.recv()).await.expect("no call came").unwrap()
    }
}

async fn relay() -> TestRelay {
    TestRelay::start_with(|config| {
        config.private_callbacks = true;
        config.public_url = Some("https://relay.example/".parse().unwrap());
        config.callback_secret = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap());
    })
    .await
}

fn body(namespace: &str, url: &str) -> Value {
    json!({"definition": {"image": "a"}, "control": {"namespace": namespace, "callbacks": {
        "queued": {"url": url, "payload": {"u": 7}}, "finished": {"url": url}}}})
}

#[tokio::test]
async fn a_submitter_is_told_of_queueing_and_end_once_for_each_namespace() {
    let relay = relay().await;
    let mut receiver = Receiver::start(0).await;
    let id = relay.submit("lab1", body("n1", &receiver.url)).await;
    let (headers, call) = receiver.next().await;
    assert_eq!(call, json!({"jobId": id, "queue": "lab1", "namespace": "n1", "config": {"u": 7}}));
    assert!(headers["webhook-signature"].to_str().unwrap().starts_with("v1,"));
    assert!(headers["webhook-id"].to_str().unwrap().starts_with("msg_"));
    relay.submit("lab1", body("n1", &receiver.url)).await;
    relay.submit("lab1", body("n2", &receiver.url)).await;
    assert_eq!(receiver.next().await.1["namespace"], "n2", "an added namespace, and no repeat");

    let mut worker = relay.worker("lab1", "w1").await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "x")).await;
    let mut ends = [receiver.next().await.1, receiver.next().await.1];
    ends.sort_by_key(|end| end["namespace"].to_string());
    for (end, namespace) in ends.iter().zip(["n1", "n2"]) {
        let url = format!("https://relay.example/q/lab1/j/{id}/result.json");
        assert_eq!(
            *end,
            json!({"jobId": id, "queue": "lab1", "namespace": namespace, "config": {}, "state": "Finished",
                "reason": "Success", "statusCode": 0, "resultUrl": url})
        );
    }
    relay.submit("lab1", body("n3", &receiver.url)).await;
    let answers = [receiver.next().await.1, receiver.next().await.1];
    assert!(
        answers.iter().all(|answer| answer["namespace"] == "n3"),
        "an answer from the cache, told at once"
    );
    assert_eq!(answers.iter().filter(|answer| answer["state"] == "Finished").count(), 1);
}

#[tokio::test]
async fn a_callback_is_repeated_under_the_same_id_until_it_is_taken() {
    let relay = relay().await;
    let mut receiver = Receiver::start(1).await;
    relay.submit("lab1", body("n1", &receiver.url)).await;
    let (first, _) = receiver.next().await;
    let (second, call) = receiver.next().await;
    assert_eq!(first["webhook-id"], second["webhook-id"]);
    assert_eq!(call["config"], json!({"u": 7}));
}

#[tokio::test]
async fn a_cancelled_job_is_told_as_ended() {
    let relay = relay().await;
    let mut receiver = Receiver::start(0).await;
    let id = relay.submit("lab1", body("n1", &receiver.url)).await;
    receiver.next().await;
    relay.post(&format!("/q/lab1/j/{id}/cancel?namespace=n1"), &Value::Null).await;
    let (_, end) = receiver.next().await;
    assert_eq!((&end["reason"], end.get("resultUrl")), (&json!("Cancelled"), None));
}

#[tokio::test]
async fn an_open_callback_survives_a_restart() {
    let mut relay = relay().await;
    let mut receiver = Receiver::start(1).await;
    relay.submit("lab1", body("n1", &receiver.url)).await;
    receiver.next().await;
    relay.restart().await;
    // Somebody must name the queue: the store does not know its name.
    relay.get_json("/q/lab1").await;
    assert_eq!(receiver.next().await.1["queue"], "lab1");
}

#[tokio::test]
async fn private_targets_are_refused_unless_allowed() {
    let relay = TestRelay::start().await;
    let mut receiver = Receiver::start(0).await;
    relay.submit("lab1", body("n1", &receiver.url)).await;
    let allowed = self::relay().await;
    allowed.submit("lab1", body("n1", &receiver.url)).await;
    receiver.next().await;
    assert!(receiver.calls.try_recv().is_err(), "only the one that was allowed");
}
