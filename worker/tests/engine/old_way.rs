//! A relay that knows no leases: its table is what there is.

use dockframe_shared::job::{FinishReason, JobResult};
use dockframe_shared::protocol::{Change, StateChange, WorkerMessage};
use serde_json::{Value, json};

use super::bench::{Bench, eventually};

async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench.relay.set(|settings| settings.speaks_leases = false);
    bench
}

fn list(bench: &Bench, jobs: &Value) {
    let message = json!({"type": "JobStates", "payload": {"isSubset": false, "state": {"jobs": jobs}}});
    bench.relay.say_text(message.to_string());
}

fn queued() -> Value {
    json!({"queuedTime": 5, "state": "Queued", "time": 5, "worker": ""})
}

async fn defined(bench: &Bench, job: &str, definition: Value) {
    bench
        .relay
        .wait_for("question for the definition", |heard| match &heard.message {
            WorkerMessage::RequestJobDefinitions { job_ids } => {
                job_ids.iter().any(|id| id.as_str() == job).then_some(())
            }
            _ => None,
        })
        .await;
    let message = json!({"type": "BroadcastJobDefinitions", "payload": {"definitions": {job: definition}}});
    bench.relay.say_text(message.to_string());
}

fn changes(bench: &Bench) -> Vec<StateChange> {
    let change = |heard: super::relay::Heard| match heard.message {
        WorkerMessage::StateChange(change) => Some(change),
        _ => None,
    };
    bench.relay.heard().into_iter().filter_map(change).collect()
}

async fn said<T>(bench: &Bench, what: &str, look: impl Fn(&StateChange) -> Option<T>) -> T {
    bench
        .relay
        .wait_for(what, |heard| match &heard.message {
            WorkerMessage::StateChange(change) => look(change),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_claimed_run_and_reported_the_old_way() {
    let bench = bench().await;
    let worker = bench.worker(&[]).await;
    let registration = bench.relay.registration().await;
    assert_eq!((registration.leases, registration.instance), (None, None));
    list(&bench, &json!({"j1": queued()}));
    defined(
        &bench,
        "j1",
        json!({"image": bench.image, "command": ["sh", "-c", "echo hi; echo x > /outputs/x"]}),
    )
    .await;
    let time = said(&bench, "Running", |change| match &change.change {
        Change::Running { time, worker } => {
            assert_eq!(worker.as_str(), bench.worker_id);
            Some(*time)
        }
        _ => None,
    })
    .await;
    assert!(time.as_millis() > 5);
    let finished = said(&bench, "Finished", |change| match &change.change {
        Change::Finished(finished) => Some(finished.clone()),
        _ => None,
    })
    .await;
    assert_eq!(finished.reason, FinishReason::Success);
    let result: JobResult = serde_json::from_value(finished.result.clone().unwrap()).unwrap();
    assert_eq!((result.status_code, result.outputs.len()), (Some(0), 1));
    let logs = bench.relay.heard().into_iter().find_map(|heard| match heard.message {
        WorkerMessage::Logs(logs) => Some(logs),
        _ => None,
    });
    let logs = logs.unwrap();
    assert_eq!((logs.lease_id, logs.from, logs.logs[0].text.as_str()), (None, None, "hi\n"));
    bench.clean().await;
    list(
        &bench,
        &json!({"j1": {"queuedTime": 5, "state": "Finished", "time": finished.time, "worker": bench.worker_id}}),
    );
    bench.relay.say_text(json!({"type": "StatusRequest"}).to_string());
    let status = bench
        .relay
        .wait_for("status", |heard| match &heard.message {
            WorkerMessage::StatusResponse(status) => Some(status.clone()),
            _ => None,
        })
        .await;
    assert!(status.queue.is_empty(), "{status:?}");
    assert!(!bench.relay.heard().iter().any(|heard| matches!(
        heard.message,
        WorkerMessage::LeaseAccept(_) | WorkerMessage::LeaseFinish(_) | WorkerMessage::LeaseDecline(_)
    )));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_vanished_from_the_table_is_killed_and_says_nothing() {
    let bench = bench().await;
    let worker = bench.worker(&[]).await;
    list(&bench, &json!({"j1": queued()}));
    defined(&bench, "j1", json!({"image": bench.image, "command": ["sh", "-c", "echo up; sleep 100"]})).await;
    bench.relay.wait_for("line", |heard| matches!(heard.message, WorkerMessage::Logs(_)).then_some(())).await;
    let began = std::time::Instant::now();
    list(&bench, &json!({}));
    eventually("the container is gone", || bench.containers().is_empty()).await;
    assert!(began.elapsed() > std::time::Duration::from_secs(5), "it has its grace");
    bench.clean().await;
    worker.stop().await;
    assert!(!changes(&bench).iter().any(|change| matches!(change.change, Change::Finished(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_worker_goes_on_with_its_claim() {
    let bench = bench().await;
    // Without leases what runs goes on when its worker is stopped, unless the owner says otherwise.
    let worker = bench.worker(&[]).await;
    list(&bench, &json!({"j1": queued()}));
    let script = "echo up; until [ -e /outputs/go ]; do sleep 0.05; done; echo down";
    defined(&bench, "j1", json!({"image": bench.image, "command": ["sh", "-c", script]})).await;
    bench.relay.wait_for("line", |heard| matches!(heard.message, WorkerMessage::Logs(_)).then_some(())).await;
    worker.stop().await;
    let container = bench.containers().remove(0);
    let worker = bench.worker(&[]).await;
    list(&bench, &json!({"j1": {"queuedTime": 5, "state": "Running", "time": 7, "worker": bench.worker_id}}));
    said(&bench, "Running with its first time", |change| match &change.change {
        Change::Running { time, .. } if time.as_millis() == 7 => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(bench.containers(), [container.as_str()]);
    super::bench::docker(&["exec", &container, "touch", "/outputs/go"]);
    let finished = said(&bench, "Finished", |change| match &change.change {
        Change::Finished(finished) => Some(finished.clone()),
        _ => None,
    })
    .await;
    assert!(finished.result.unwrap().to_string().contains("down"));
    bench.clean().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_requeue_stops_its_jobs_and_says_that_it_lost_them() {
    let bench = bench().await;
    let worker = bench.worker(&["--on-exit=requeue"]).await;
    list(&bench, &json!({"j1": queued()}));
    defined(&bench, "j1", json!({"image": bench.image, "command": ["sh", "-c", "echo up; sleep 100"]})).await;
    bench.relay.wait_for("line", |heard| matches!(heard.message, WorkerMessage::Logs(_)).then_some(())).await;
    worker.stop().await;
    let lost = said(&bench, "Finished", |change| match &change.change {
        Change::Finished(finished) => Some(finished.reason),
        _ => None,
    })
    .await;
    assert_eq!(lost, FinishReason::WorkerLost);
    bench.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reconnect_the_claim_comes_before_its_lines() {
    let bench = bench().await;
    let worker = bench.worker(&[]).await;
    list(&bench, &json!({"j1": queued()}));
    let script = "echo up; until [ -e /outputs/go ]; do sleep 0.05; done; echo down; sleep 100";
    defined(&bench, "j1", json!({"image": bench.image, "command": ["sh", "-c", script]})).await;
    bench.relay.wait_for("line", |heard| matches!(heard.message, WorkerMessage::Logs(_)).then_some(())).await;
    bench.relay.close(None);
    super::bench::docker(&["exec", &bench.containers().remove(0), "touch", "/outputs/go"]);
    bench
        .relay
        .wait_for("a line on the second connection", |heard| {
            (heard.connection == 2 && matches!(heard.message, WorkerMessage::Logs(_))).then_some(())
        })
        .await;
    let second: Vec<&str> = bench
        .relay
        .heard()
        .iter()
        .filter(|heard| heard.connection == 2)
        .filter_map(|heard| match &heard.message {
            WorkerMessage::Registration(_) => Some("registration"),
            WorkerMessage::StateChange(_) => Some("claim"),
            WorkerMessage::Logs(_) => Some("lines"),
            _ => None,
        })
        .take(3)
        .collect();
    assert_eq!(second, ["registration", "claim", "lines"]);
    list(&bench, &json!({}));
    bench.clean().await;
    worker.stop().await;
}
