//! Workers with leases (`jobs-and-states` 8).

use serde_json::{Value, json};

use crate::support::*;

const JOB: &str = r#"{"definition":{"image":"alpine:3.18.5","command":"date"}}"#;

fn job() -> Value {
    serde_json::from_str(JOB).unwrap()
}

#[tokio::test]
async fn a_job_goes_from_its_submitter_to_a_worker_and_its_result_back() {
    let relay = TestRelay::start().await;
    let id = relay.submit("q1", job()).await;
    let mut client = relay.client("q1").await;
    client.send(&watch(&[&id])).await;
    let waiting = client.expect_state(&id, "Queued").await;
    assert_eq!(waiting["waitReason"], "no worker is connected");
    assert_eq!(waiting["place"], 1);

    let mut worker = relay.worker("q1", "w1").await;
    let grant = worker.expect("LeaseGrant").await;
    assert_eq!(grant["jobId"], *id);
    assert_eq!(grant["attempt"], 1);
    assert_eq!(grant["definition"], json!({"image":"alpine:3.18.5","command":"date"}));
    let lease = grant["leaseId"].as_str().unwrap().to_owned();
    assert!(lease.len() >= 20);

    worker.send(&accept(&lease)).await;
    let running = client.expect_state(&id, "Running").await;
    assert_eq!(running["worker"], "w1");
    worker.send(&logs(&lease, 0, &["one\n", "two\n"])).await;
    let lines = client.expect("JobStatusPayload").await;
    assert_eq!(lines["logs"], json!([["one\n", 3], ["two\n", 3]]));
    assert_eq!((&lines["from"], lines.get("leaseId")), (&json!(0), None));

    worker.send(&finish(&lease, "hi\n")).await;
    let finished = worker.expect("LeaseFinished").await;
    assert_eq!(finished, json!({"leaseId": lease, "recorded": true}));
    let told = client.expect_state(&id, "Finished").await;
    assert_eq!(told["finishedReason"], "Success");

    for path in [format!("/q/q1/j/{id}/result.json"), format!("/j/{id}/result.json")] {
        let result = relay.get_json(&path).await;
        assert_eq!(result["data"]["finished"]["result"]["logs"], json!([["hi\n", 4]]), "{path}");
        assert_eq!(result["data"]["state"], "Finished");
    }
    let logs = relay.get_json(&format!("/q/q1/j/{id}/run-logs.json")).await;
    assert_eq!(
        logs,
        json!({"data": [["one\n", 3], ["two\n", 3]], "sliceStart": 0, "nextCursor": 2, "isFinal": true})
    );
}

#[tokio::test]
async fn a_lease_socket_is_told_of_the_other_workers() {
    let relay = TestRelay::start().await;
    let mut first = relay.worker("q1", "w1").await;
    let second = relay.worker("q1", "w2").await;
    let told = async |worker: &mut Peer, ids: &[&str]| {
        loop {
            let told = worker.expect("Workers").await;
            let workers = told["workers"].as_array().unwrap().clone();
            assert!(workers.iter().all(|one| one.get("leases").is_none() && one.get("instance").is_none()));
            if workers.iter().map(|one| one["id"].as_str().unwrap()).eq(ids.iter().copied()) {
                break;
            }
        }
    };
    told(&mut first, &["w1", "w2"]).await;
    second.close(1000).await;
    told(&mut first, &["w1"]).await;
}

#[tokio::test]
async fn a_lease_socket_is_told_so_and_gets_nothing_before_it_registers() {
    let relay = TestRelay::start().await;
    relay.submit("q1", job()).await;
    let mut worker = relay.lease_socket("q1").await;
    assert!(worker.headers.contains(&("dockframe-protocol".to_owned(), "lease/1".to_owned())));
    assert_eq!(worker.drain().await, Vec::<Value>::new());
    worker.send(&registration("w1", &[])).await;
    let hello = worker.next().await;
    assert_eq!(hello["type"], "Hello", "before any grant");
    assert_eq!((&hello["payload"]["ttlMs"], &hello["payload"]["renewMs"]), (&json!(30_000), &json!(10_000)));
    worker.expect("LeaseGrant").await;
    worker.send(&registration("w1", &[])).await;
    assert_eq!(worker.drain().await, Vec::<Value>::new(), "one Hello a socket");
}

#[tokio::test]
async fn no_more_is_granted_than_a_worker_has_room_for() {
    let relay = TestRelay::start().await;
    for number in 0..3 {
        relay.submit("q1", json!({"definition": {"image": "a", "command": format!("{number}")}})).await;
    }
    let mut worker = relay.worker("q1", "w1").await;
    let first = worker.expect("LeaseGrant").await;
    let lease = first["leaseId"].as_str().unwrap();
    worker.send(&accept(lease)).await;
    assert_eq!(worker.drain().await, Vec::<Value>::new());
    worker.send(&finish(lease, "x")).await;
    worker.expect("LeaseFinished").await;
    let second = worker.expect("LeaseGrant").await;
    assert_eq!(second["definition"]["command"], "1", "the oldest first");
}

#[tokio::test]
async fn a_declined_job_goes_to_another_worker() {
    let relay = TestRelay::start().await;
    let mut first = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let grant = first.expect("LeaseGrant").await;
    let mut second = relay.worker("q1", "w2").await;
    first
        .send(&json!({"type": "LeaseDecline", "payload": {
            "leaseId": grant["leaseId"], "why": "image not allowed here", "retry": "never"}}))
        .await;
    let again = second.expect("LeaseGrant").await;
    assert_eq!((&again["jobId"], &again["attempt"]), (&json!(id), &json!(2)));
    assert_ne!(again["leaseId"], grant["leaseId"]);
}

#[tokio::test]
async fn a_job_that_all_declined_waits_and_says_why() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let grant = worker.expect("LeaseGrant").await;
    worker
        .send(&json!({"type": "LeaseDecline", "payload": {
            "leaseId": grant["leaseId"], "why": "image not allowed here", "retry": "never"}}))
        .await;
    worker.drain().await;
    let mut client = relay.client("q1").await;
    client.send(&watch(&[&id])).await;
    let told = client.expect_state(&id, "Queued").await;
    assert_eq!(told["waitReason"], "declined by all fitting workers: image not allowed here");
}

#[tokio::test]
async fn a_job_that_fits_no_worker_waits_and_says_why() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", json!({"definition": {"image": "a", "requirements": {"gpus": 2}}})).await;
    assert_eq!(worker.drain().await, Vec::<Value>::new());
    let mut client = relay.client("q1").await;
    client.send(&watch(&[&id])).await;
    assert_eq!(client.expect_state(&id, "Queued").await["waitReason"], "no connected worker has 2 GPUs");
}

#[tokio::test]
async fn a_cancel_revokes_the_lease_at_once_and_a_late_result_counts_for_nothing() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    let answer: Value = relay.post(&format!("/q/q1/j/{id}/cancel"), &json!(null)).await.json().await.unwrap();
    assert_eq!(answer, json!({"success": true, "jobId": id, "namespace": "_"}));
    let revoke = worker.expect("LeaseRevoke").await;
    assert_eq!((&revoke["leaseId"], &revoke["why"]), (&json!(lease), &json!("cancelled")));
    worker.send(&finish(&lease, "late")).await;
    assert_eq!(worker.expect("LeaseFinished").await["recorded"], false);
    assert_eq!(relay.get_json(&format!("/q/q1/j/{id}/result.json")).await, json!({"data": null}));
    assert_eq!(relay.get_json("/q/q1").await, json!({"data": {}}));
}

#[tokio::test]
async fn a_finish_said_twice_is_recorded_once_and_acknowledged_twice() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "first")).await;
    worker.send(&finish(&lease, "second")).await;
    for _ in 0..2 {
        assert_eq!(worker.expect("LeaseFinished").await["recorded"], true);
    }
    let result = relay.get_json(&format!("/q/q1/j/{id}/result.json")).await;
    assert_eq!(result["data"]["finished"]["result"]["logs"][0][0], "first");
}

#[tokio::test]
async fn lines_said_twice_are_there_once() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&logs(&lease, 0, &["before the accept\n"])).await;
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["0\n", "1\n"])).await;
    worker.send(&logs(&lease, 1, &["1\n", "2\n"])).await;
    worker.drain().await;
    let logs = relay.get_json(&format!("/q/q1/j/{id}/run-logs.json")).await;
    assert_eq!(logs["data"], json!([["0\n", 3], ["1\n", 3], ["2\n", 3]]));
}

#[tokio::test]
async fn a_lease_that_its_worker_forgot_is_granted_anew() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&registration("w1", &[])).await;
    let again = worker.expect("LeaseGrant").await;
    assert_eq!(again["attempt"], 2);
    worker.send(&accept(&lease)).await;
    let revokes = [worker.expect("LeaseRevoke").await, worker.expect("LeaseRevoke").await];
    assert!(revokes.iter().all(|revoke| revoke["leaseId"] == *lease));
}

#[tokio::test]
async fn a_worker_that_comes_back_goes_on_with_its_leases() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    worker.close(1000).await;

    let mut back = relay.lease_socket("q1").await;
    back.send(&registration("w1", &[&lease, "not-a-lease"])).await;
    back.expect("Hello").await;
    assert_eq!(back.expect("LeaseRevoke").await["leaseId"], "not-a-lease");
    back.send(&finish(&lease, "after all")).await;
    assert_eq!(back.expect("LeaseFinished").await["recorded"], true);
    let result = relay.get_json(&format!("/j/{id}/result.json")).await;
    assert_eq!(result["data"]["finished"]["result"]["logs"][0][0], "after all");
}

#[tokio::test]
async fn a_short_job_of_a_closed_socket_is_granted_anew_within_two_seconds() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    let mut other = relay.worker("q1", "w2").await;
    // The sweeps judge nobody before they have run for the grace.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let closed = std::time::Instant::now();
    drop(worker);
    other.expect("LeaseGrant").await;
    assert!(closed.elapsed() < std::time::Duration::from_millis(2_500), "{:?}", closed.elapsed());
}

#[tokio::test]
async fn another_process_with_the_same_id_is_refused_while_the_first_lives() {
    let relay = TestRelay::start().await;
    let mut first = relay.worker("q1", "w1").await;
    let mut second = relay.lease_socket("q1").await;
    let mut registration = registration("w1", &[]);
    registration["payload"]["instance"] = json!("another process");
    second.send(&registration).await;
    assert_eq!(second.expect_close().await, Some(4409));
    relay.submit("q1", job()).await;
    first.expect("LeaseGrant").await;
}

#[tokio::test]
async fn a_draining_worker_gets_nothing_new() {
    let relay = TestRelay::start().await;
    let mut worker = relay.lease_socket("q1").await;
    let mut draining = registration("w1", &[]);
    draining["payload"]["draining"] = json!(true);
    worker.send(&draining).await;
    worker.expect("Hello").await;
    relay.submit("q1", job()).await;
    assert_eq!(worker.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_lease_is_nobodys_but_its_workers() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    let mut thief = relay.worker("q1", "w2").await;
    thief.send(&finish(&lease, "forged")).await;
    assert_eq!(thief.expect("LeaseFinished").await["recorded"], false);
    let status = relay.get("/q/q1/status").await.text().await.unwrap();
    assert!(!status.contains(&lease) && !status.contains("w1-process"), "{status}");
    assert_eq!(relay.get_json(&format!("/j/{id}/result.json")).await, json!({"data": null}));
}

#[tokio::test]
async fn what_is_no_result_is_answered_and_the_job_waits_again() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    relay.submit("q1", job()).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    let mut odd = finish(&lease, "x");
    odd["payload"]["value"]["reason"] = json!("Cancelled");
    worker.send(&odd).await;
    let answer = worker.expect("LeaseFinished").await;
    assert_eq!(answer["recorded"], false);
    assert!(answer["why"].as_str().unwrap().contains("Success, Error or TimedOut"), "{answer}");
    assert_eq!(worker.expect("LeaseGrant").await["attempt"], 2);
}
