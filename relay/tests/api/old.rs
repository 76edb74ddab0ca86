//! Browsers and workers of the old way (`relay-protocol` 3, `jobs-and-states` 8.8).

use serde_json::{Value, json};

use crate::support::*;

async fn old_client(relay: &TestRelay, queue: &str) -> Peer {
    let mut peer = Peer::connect(&relay.address, &format!("/q/{queue}/client"), &[]).await;
    assert_eq!(peer.next().await["type"], "Workers");
    assert_eq!(peer.next().await["type"], "JobStates");
    peer
}

async fn old_worker(relay: &TestRelay, queue: &str, id: &str) -> Peer {
    let mut peer = Peer::connect(&relay.address, &format!("/{queue}/worker"), &[]).await;
    assert_eq!(peer.next().await["type"], "JobStates");
    peer.send(&old_registration(id)).await;
    peer.expect("Workers").await;
    peer
}

fn old_registration(id: &str) -> Value {
    json!({"type": "WorkerRegistration", "payload":
        {"version": "0.54.85", "id": id, "cpus": 2, "gpus": 0, "time": 0, "maxJobDuration": "5m"}})
}

fn claim(job: &str, worker: &str) -> Value {
    json!({"type": "StateChange", "payload": {"tag": worker, "state": "Running", "job": job,
        "value": {"type": "Running", "worker": worker, "time": 0}}})
}

fn result(job: &str, worker: &str, text: &str) -> Value {
    json!({"type": "StateChange", "payload": {"tag": worker, "state": "Finished", "job": job,
        "value": {"type": "Finished", "reason": "Success", "time": 6, "worker": worker,
            "result": {"StatusCode": 0, "logs": [[text, 1]], "duration": 12, "isTimedOut": false, "outputs": {}}}}})
}

#[tokio::test]
async fn an_old_browser_and_an_old_worker_run_a_job() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    let mut worker = old_worker(&relay, "q1", "wA").await;
    assert_eq!(client.expect("Workers").await["workers"][0]["id"], "wA");
    client.send(&queued("J1", "n1", "")).await;
    assert_eq!(client.expect_state("J1", "Queued").await["namespaces"], json!(["n1"]));
    worker.expect_state("J1", "Queued").await;
    worker.send(&json!({"type": "RequestJobDefinitions", "payload": {"jobIds": ["J1", "unknown"]}})).await;
    let definitions = worker.expect("BroadcastJobDefinitions").await;
    assert_eq!(definitions, json!({"definitions": {"J1": {"image": "a", "command": "J1"}}}));
    worker.send(&claim("J1", "wA")).await;
    assert_eq!(worker.expect_state("J1", "Running").await["worker"], "wA");
    let lines = json!({"jobId": "J1", "step": "Running", "logs": [["hi\n", 1], ["err\n", 2, true]]});
    worker.send(&json!({"type": "JobStatusLogs", "payload": lines})).await;
    worker.send(&result("J1", "wA", "hi\n")).await;
    client.expect_state("J1", "Running").await;
    assert_eq!(client.expect("JobStatusPayload").await, lines);
    let finished = client.expect_state("J1", "Finished").await;
    assert_eq!((&finished["finishedReason"], finished.get("finished")), (&json!("Success"), None));
    let result = relay.get_json("/j/J1/result.json").await;
    assert_eq!(result["data"]["finished"]["result"]["duration"], 12);
    assert_eq!(relay.get_json("/q/q1/j/J1/run-logs.json").await["data"], lines["logs"]);
}

#[tokio::test]
async fn an_ending_without_result_reaches_old_peers_as_a_list_without_the_job() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    let mut worker = old_worker(&relay, "q1", "wA").await;
    client.send(&queued("J1", "n1", "")).await;
    worker.expect_state("J1", "Queued").await;
    worker.send(&claim("J1", "wA")).await;
    client.expect_state("J1", "Running").await;
    worker.drain().await;
    client.drain().await;
    client.send(&ended("J1", "Deleted", Some("n1"))).await;
    assert_eq!(
        worker.next().await,
        json!({"type": "ClearJobCache", "payload": {"jobId": "J1", "namespace": "n1"}})
    );
    for peer in [&mut worker, &mut client] {
        let list = peer.expect("JobStates").await;
        assert_eq!(list, json!({"state": {"jobs": {}}, "isSubset": false}));
    }
    worker.send(&result("J1", "wA", "late")).await;
    worker.drain().await;
    assert_eq!(relay.get_json("/j/J1/result.json").await, json!({"data": null}));
}

#[tokio::test]
async fn an_old_worker_does_not_see_what_is_leased_to_another() {
    let relay = TestRelay::start().await;
    let mut new = relay.worker("q1", "w1").await;
    let mut old = old_worker(&relay, "q1", "wA").await;
    let mut client = relay.client("q1").await;
    client.send(&queued("J1", "", "r")).await;
    let lease = new.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    new.send(&accept(&lease)).await;
    assert_eq!(old.expect_state("J1", "Running").await["worker"], "w1");
    old.drain().await;
    old.send(&claim("J1", "wA")).await;
    let list = old.expect("JobStates").await;
    assert_eq!(list["state"]["jobs"], json!({}), "at once, a list without it");
    old.send(&result("J1", "wA", "forged")).await;
    old.drain().await;
    new.send(&finish(&lease, "true")).await;
    assert_eq!(new.expect("LeaseFinished").await["recorded"], true);
    let result = relay.get_json("/q/q1/j/J1/result.json").await;
    assert_eq!(result["data"]["finished"]["result"]["logs"][0][0], "true");
}

#[tokio::test]
async fn a_lost_old_workers_job_goes_back_and_its_late_result_is_taken() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    let mut worker = old_worker(&relay, "q1", "wA").await;
    client.send(&queued("J1", "", "")).await;
    worker.expect_state("J1", "Queued").await;
    worker.send(&claim("J1", "wA")).await;
    let running = client.expect_state("J1", "Running").await;
    drop(worker);
    let back = client.expect_state("J1", "Queued").await;
    assert_eq!(back["queuedTime"], running["queuedTime"]);
    // What it flushes before it registers is held for the registration.
    let mut again = Peer::connect(&relay.address, "/q1/worker", &[]).await;
    again.send(&result("J1", "wA", "after all")).await;
    again.send(&old_registration("wA")).await;
    client.expect_state("J1", "Finished").await;
}

#[tokio::test]
async fn what_is_not_theirs_to_say_has_no_effect() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    let mut worker = old_worker(&relay, "q1", "wA").await;
    client.send(&queued("J1", "", "")).await;
    client.send(&claim("J1", "wA")).await;
    client.send(&result("J1", "wA", "forged")).await;
    client.drain().await;
    worker.send(&claim("J1", "wB")).await;
    worker.send(&ended("J1", "Cancelled", Some("_"))).await;
    worker.send(&ended("J1", "Deleted", Some("*"))).await;
    worker.send(&queued("J2", "", "")).await;
    worker.drain().await;
    let list = relay.get_json("/q/q1").await;
    assert_eq!(list["data"].as_object().unwrap().len(), 1);
    assert_eq!(list["data"]["J1"]["state"], "Queued");
}

#[tokio::test]
async fn a_submission_is_answered_also_where_it_changes_nothing() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    for _ in 0..3 {
        client.send(&queued("J1", "n1", "")).await;
        client.expect_state("J1", "Queued").await;
        client.drain().await;
    }
}

#[tokio::test]
async fn a_question_is_answered_to_the_asker_alone() {
    let relay = TestRelay::start().await;
    let mut asker = old_client(&relay, "q1").await;
    let mut other = old_client(&relay, "q1").await;
    asker.send(&json!({"type": "QueryJob", "payload": {"jobId": "unknown"}})).await;
    assert_eq!(asker.next().await["payload"]["state"]["jobs"], json!({}));
    asker.send(&json!({"type": "QueryJobStates"})).await;
    assert_eq!(asker.next().await["type"], "JobStates");
    assert_eq!(other.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn lists_come_by_themselves_within_ten_seconds() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    let mut worker = old_worker(&relay, "q1", "wA").await;
    client.drain().await;
    worker.drain().await;
    client.expect("JobStates").await;
    worker.expect("JobStates").await;
}

#[tokio::test]
async fn words_are_answered_by_words() {
    let relay = TestRelay::start().await;
    let mut client = old_client(&relay, "q1").await;
    client.send_text("PING").await;
    assert_eq!(client.next().await, "PONG");
    let mut worker = Peer::connect(&relay.address, "/q/q1/worker", &[]).await;
    worker.send_text("PING").await;
    assert_eq!(worker.expect("JobStates").await["isSubset"], false);
    assert_eq!(worker.next().await, "PONG unknown");
    worker.send(&old_registration("wA")).await;
    worker.expect("JobStates").await;
    worker.drain().await;
    worker.send_text("PING").await;
    assert_eq!(worker.next().await, "PONG wA");
}
