//! Callbacks (`jobs-and-states` 7, `relay-protocol` 2.19, R-25).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::receiver::Receiver;
use crate::support::*;

/// What the relay logs in this process.
static LOG: LazyLock<watch::Sender<String>> = LazyLock::new(|| watch::Sender::new(String::new()));

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.send_modify(|text| text.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log_here() {
    let log = tracing_subscriber::fmt().with_ansi(false).with_env_filter("dockframe_relay=trace");
    log.with_writer(|| Log).init();
}

fn files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle) {
            found.push(path);
        }
    }
    found
}

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

async fn open_relay() -> TestRelay {
    TestRelay::start_with(|config| config.allow_private_callbacks = true).await
}

async fn signing_relay() -> TestRelay {
    TestRelay::start_with(|config| {
        config.allow_private_callbacks = true;
        config.webhook_secret = Some(format!("whsec_{}", STANDARD.encode(SECRET)).parse().unwrap());
    })
    .await
}

/// A submission that wants both callbacks.
fn submission(receiver: &Receiver, namespace: &str) -> Value {
    json!({"definition": {"image": "a"}, "control": {"namespace": namespace, "callbacks": {
        "queued": {"url": format!("{}/queued", receiver.url), "payload": {"u": 7}},
        "finished": {"url": format!("{}/finished", receiver.url)},
    }}})
}

/// Runs the next job to its end.
async fn run_next(relay: &TestRelay, queue: &str, worker: &str) {
    let mut worker = relay.worker(queue, worker).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "end")).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
}

#[tokio::test]
async fn a_queued_job_is_told_with_exactly_its_four_fields() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    let id = relay.submit("lab1", submission(&receiver, "user7/doc3")).await;
    let call = receiver.next().await;
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/queued"));
    assert_eq!(call.header("content-type"), "application/json");
    assert_eq!(
        call.text,
        format!(r#"{{"jobId":"{id}","queue":"lab1","namespace":"user7/doc3","config":{{"u":7}}}}"#)
    );
    assert_eq!(call.header("webhook-signature"), "", "no secret, no signature");
    assert!(relay.get_json(&format!("/j/{id}/definition.json")).await["data"].is_object());
}

#[tokio::test]
async fn an_end_is_told_with_its_reason_exit_code_and_result() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    let id = relay.submit("lab1", submission(&receiver, "n")).await;
    assert_eq!(receiver.next().await.path, "/queued");
    run_next(&relay, "lab1", "w").await;
    let call = receiver.next().await;
    let body = call.json();
    assert_eq!(
        body,
        json!({"jobId": id, "queue": "lab1", "namespace": "n", "config": {}, "state": "Finished",
            "reason": "Success", "statusCode": 0,
            "resultUrl": relay.url(&format!("/q/lab1/j/{id}/result.json"))})
    );
    let result: Value =
        http().get(body["resultUrl"].as_str().unwrap()).send().await.unwrap().json().await.unwrap();
    assert_eq!(result["data"]["finishedReason"], "Success");
}

#[tokio::test]
async fn added_namespaces_and_answers_from_the_cache_are_told_too() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    relay.submit("q1", submission(&receiver, "a")).await;
    assert_eq!(receiver.next().await.json()["namespace"], "a");
    relay.submit("q1", submission(&receiver, "b")).await;
    assert_eq!(receiver.next().await.json()["namespace"], "b");
    run_next(&relay, "q1", "w").await;
    let mut ends = [receiver.next().await.json(), receiver.next().await.json()];
    ends.sort_by_key(|end| end["namespace"].to_string());
    assert_eq!((&ends[0]["namespace"], &ends[1]["namespace"]), (&json!("a"), &json!("b")));
    // Another queue: answered by the shared result, and told at once.
    relay.submit("q2", submission(&receiver, "c")).await;
    let mut told = [receiver.next().await, receiver.next().await];
    told.sort_by_key(|call| call.path.clone());
    assert_eq!((told[0].path.as_str(), told[1].path.as_str()), ("/finished", "/queued"));
    let end = told[0].json();
    assert_eq!((&end["queue"], &end["statusCode"]), (&json!("q2"), &json!(0)));
    // The same again knows already.
    relay.submit("q2", submission(&receiver, "c")).await;
    relay
        .submit(
            "q2",
            json!({"definition": {"image": "b"}, "control": {"callbacks": {
        "queued": {"url": format!("{}/other", receiver.url)}}}}),
        )
        .await;
    assert_eq!(receiver.next().await.path, "/other");
    assert!(receiver.is_silent());
}

#[tokio::test]
async fn sockets_and_copies_are_told_as_http_submissions_are() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    let mut client = relay.client("q1").await;
    let mut frame = queued("J1", "n", "r");
    frame["payload"]["value"]["enqueued"]["control"]["callbacks"] =
        json!({"queued": {"url": format!("{}/socket", receiver.url)}});
    client.send(&frame).await;
    client.expect("Done").await;
    let call = receiver.next().await;
    assert_eq!((call.path.as_str(), &call.json()["jobId"]), ("/socket", &json!("J1")));
    let copy = json!({"queue": "q2", "control": {"callbacks": {"queued": {"url": format!("{}/copy", receiver.url)}}}});
    assert_eq!(relay.post("/j/J1/copy", &copy).await.status(), 200);
    let call = receiver.next().await;
    assert_eq!((call.path.as_str(), &call.json()["queue"]), ("/copy", &json!("q2")));
}

#[tokio::test]
async fn a_failed_callback_is_tried_again_with_the_same_id_and_a_valid_signature() {
    let relay = signing_relay().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(503, "");
    receiver.answer(404, "");
    relay.submit("q1", submission(&receiver, "n")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let call = receiver.next().await;
        let (id, time) = (call.header("webhook-id"), call.header("webhook-timestamp"));
        let signed = format!("{id}.{time}.{}", call.text);
        let signature =
            STANDARD.decode(call.header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        hmac::verify(&key, signed.as_bytes(), &signature).expect("the signature is valid");
        ids.push(id.to_owned());
    }
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn gone_ends_the_attempts() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(410, "");
    relay.submit("q1", submission(&receiver, "n")).await;
    receiver.next().await;
    // Another one that fails once: by the time it is tried again, the first would have been.
    receiver.answer(500, "");
    let other =
        json!({"definition": {"image": "b"}, "control": {"callbacks": {"queued": {"url": receiver.url}}}});
    relay.submit("q1", other).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert!(receiver.is_silent());
}

#[tokio::test]
async fn redirects_are_followed_with_the_body() {
    let relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    for status in [302, 307, 308] {
        receiver.answer(status, "/elsewhere");
    }
    relay.submit("q1", submission(&receiver, "n")).await;
    let first = receiver.next().await;
    for _ in 0..3 {
        let call = receiver.next().await;
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/elsewhere"));
        assert_eq!(call.text, first.text);
    }
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    log_here();
    let relay = TestRelay::start().await;
    let mut receiver = Receiver::start().await;
    let name = receiver.url.replace("127.0.0.1", "localhost");
    let literal = relay.submit("canary-q1", submission(&receiver, "n")).await;
    let by_name = json!({"definition": {"image": "b"}, "control": {"callbacks": {"queued": {"url": name}}}});
    let by_name = relay.submit("canary-q1", by_name).await;
    for job in [literal, by_name] {
        let mut lines = LOG.subscribe();
        let told = |text: &String| {
            text.lines().any(|line| line.contains("a callback is given up") && line.contains(&job))
        };
        tokio::time::timeout(SOON, lines.wait_for(told)).await.expect("it is said in the log").unwrap();
    }
    let log = LOG.borrow().clone();
    assert!(log.contains("--allow-private-callbacks"), "{log}");
    for secret in ["canary", receiver.url.as_str(), "localhost:"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(receiver.is_silent());
}

#[tokio::test]
async fn a_submission_does_not_wait_for_its_callback() {
    let relay = open_relay().await;
    // It accepts connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let started = std::time::Instant::now();
    let body = json!({"definition": {"image": "a"}, "control": {"callbacks": {"queued": {"url": url}}}});
    let id = relay.submit("q1", body).await;
    assert!(started.elapsed().as_secs() < 5);
    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["state"], "Queued");
    silent.accept().await.unwrap();
}

#[tokio::test]
async fn an_owed_callback_survives_a_restart_though_no_file_names_its_queue() {
    let mut relay = open_relay().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(500, "");
    let mut body = submission(&receiver, "n");
    body["control"]["callbacks"]["queued"]["payload"] = json!("canary in a payload");
    let id = relay.submit("canary-queue-name", body).await;
    let before = receiver.next().await;
    let found = files_with(relay.folder(), b"canary");
    assert!(found.is_empty(), "{found:?}");
    // Nobody names the queue to the new process.
    relay.restart().await;
    let after = receiver.next_within(2 * SOON).await;
    assert_eq!(after.header("webhook-id"), before.header("webhook-id"));
    assert_eq!(
        after.json(),
        json!({"jobId": id, "queue": "canary-queue-name", "namespace": "n", "config": "canary in a payload"})
    );
}

#[tokio::test]
async fn callbacks_that_are_too_large_are_refused_with_a_reason() {
    let relay = open_relay().await;
    let long = "x".repeat(17 << 10);
    for callback in
        [json!({"url": format!("http://{long}/")}), json!({"url": "http://example.com", "payload": long})]
    {
        let body = json!({"definition": {"image": "a"}, "control": {"callbacks": {"finished": callback}}});
        let answer = relay.post("/q/q1", &body).await;
        assert_eq!(answer.status(), 413);
        assert!(answer.text().await.unwrap().contains("callback may have"));
    }
    let without = json!({"definition": {"image": "a"}, "control": {"callbacks": {"queued": {"payload": 1}}}});
    assert_eq!(relay.post("/q/q1", &without).await.status(), 200);
}
