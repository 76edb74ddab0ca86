//! What an ended process leaves to the next one (`jobs-and-states` 6).

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_job_submitted_before_a_restart_runs_after_it() {
    let mut relay = TestRelay::start().await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}, "control": {"namespace": "n"}})).await;
    let before = relay.get_json("/q/q1").await;
    relay.restart().await;
    assert_eq!(relay.get_json("/q/q1").await, before);
    let mut worker = relay.worker("q1", "w1").await;
    let grant = worker.expect("LeaseGrant").await;
    assert_eq!(grant["jobId"], *id);
    assert_eq!(grant["definition"], json!({"image": "a"}));
}

#[tokio::test]
async fn a_running_job_its_lease_and_its_lines_survive_a_restart() {
    let mut relay = TestRelay::start().await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let mut worker = relay.worker("q1", "w1").await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["before\n"])).await;
    worker.drain().await;
    relay.restart().await;
    assert_eq!(worker.expect_close().await, Some(1012));

    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["state"], "Running");
    let mut worker = relay.lease_socket("q1").await;
    worker.send(&registration("w1", &[&lease])).await;
    worker.expect("Hello").await;
    worker.send(&logs(&lease, 1, &["after\n"])).await;
    worker.send(&finish(&lease, "end")).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
    let logs = relay.get_json(&format!("/q/q1/j/{id}/run-logs.json")).await;
    assert_eq!(logs["data"], json!([["before\n", 3], ["after\n", 3]]));
}

#[tokio::test]
async fn a_result_answers_a_resubmission_after_a_restart_too() {
    let mut relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "a"}});
    let id = relay.submit("q1", body.clone()).await;
    let mut worker = relay.worker("q1", "w1").await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "once")).await;
    worker.expect("LeaseFinished").await;
    relay.restart().await;
    assert_eq!(relay.submit("q1", body).await, id);
    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["state"], "Finished");
    let mut worker = relay.worker("q1", "w2").await;
    assert!(worker.drain().await.is_empty(), "nothing runs twice");
}

#[tokio::test]
async fn no_queue_name_is_in_any_file() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("canary-queue-name").await;
    client.send(&queued("J1", "n1", "r1")).await;
    client.expect("Done").await;
    let mut folders = vec![relay.folder().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"canary"), "{}", path.display());
        }
    }
    assert!(files > 0);
}
