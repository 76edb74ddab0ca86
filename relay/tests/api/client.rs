//! Clients that watch (`relay-protocol` 3.13).

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn hello_is_first_and_nothing_comes_unasked_but_summaries() {
    let relay = TestRelay::start().await;
    let mut client = Peer::connect(&relay.address, "/q1/browser?protocol=watch/1", &[]).await;
    let hello = client.next().await;
    assert_eq!((&hello["type"], &hello["payload"]["maxWatched"]), (&json!("Hello"), &json!(256)));
    relay.submit("q1", json!({"definition": {"image": "secret"}})).await;
    relay.worker("q1", "w1").await;
    let others = client.drain().await;
    assert!(others.iter().all(|frame| frame["type"] == "QueueSummary"), "{others:?}");
}

#[tokio::test]
async fn a_submission_is_acknowledged_with_its_revision() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    client.send(&queued("J1", "n1", "r1")).await;
    let done = client.expect("Done").await;
    assert_eq!((&done["ref"], &done["jobId"]), (&json!("r1"), &json!("J1")));
    assert!(done["revision"].as_u64().unwrap() > 0);
    let list = relay.get_json("/q/q1").await;
    assert_eq!(list["data"]["J1"]["namespaces"], json!(["n1"]));
    assert_eq!(list["data"]["J1"]["state"], "Queued");
}

#[tokio::test]
async fn a_watch_brings_all_its_jobs_at_once_and_null_for_the_unknown() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    client.send(&queued("J1", "", "r")).await;
    client.expect("Done").await;
    client.send(&watch(&["J1", "unknown"])).await;
    let update = client.expect("JobStateUpdates").await;
    assert_eq!(update["isSubset"], true);
    assert_eq!(update["state"]["jobs"]["J1"]["state"], "Queued");
    assert_eq!(update["state"]["jobs"].get("unknown"), Some(&Value::Null));
    client.send(&queued("unknown", "", "r")).await;
    client.expect_state("unknown", "Queued").await;
}

#[tokio::test]
async fn jobs_in_different_states_come_in_one_message_too() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let mut client = relay.client("q1").await;
    client.send(&queued("done", "", "r")).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["a line\n"])).await;
    worker.send(&finish(&lease, "x")).await;
    worker.expect("LeaseFinished").await;
    client.send(&queued("runs", "", "r")).await;
    worker.expect("LeaseGrant").await;
    client.send(&queued("waits", "", "r")).await;
    for _ in 0..3 {
        client.expect("Done").await;
    }
    client.send(&watch(&["done", "runs", "waits", "unknown"])).await;
    let told = client.expect("JobStateUpdates").await["state"]["jobs"].take();
    let states = ["done", "runs", "waits"].map(|job| told[job]["state"].as_str().unwrap());
    assert_eq!(states, ["Finished", "Queued", "Queued"]);
    assert_eq!((&told["unknown"], told.as_object().unwrap().len()), (&Value::Null, 4));
    assert_eq!(client.expect("JobStatusPayload").await["logs"], json!([["a line\n", 3]]));
    // Who asks for ended jobs alone may leave once they are told: their lines come before.
    client.drain().await;
    client.send(&watch(&["done"])).await;
    assert_eq!(client.next().await["type"], "JobStatusPayload");
    assert_eq!(client.next().await["type"], "JobStateUpdates");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_its_ref() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    let mut odd = [queued("", "", "r"), queued("a", "*", "r"), queued("a", "", "r"), watch(&[""])];
    odd[2]["payload"]["value"]["enqueued"]["definition"] = json!("a text");
    odd[3]["payload"]["ref"] = json!("r");
    for message in odd {
        client.send(&message).await;
        let done = client.expect("Done").await;
        assert_eq!((&done["ref"], &done["error"]["code"]), (&json!("r"), &json!("message-unreadable")));
    }
    assert_eq!(relay.get_json("/q/q1").await["data"], json!({}));
}

#[tokio::test]
async fn endings_without_result_are_told_and_revisions_grow() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    client.send(&watch(&["J1"])).await;
    client.send(&queued("J1", "n1", "r")).await;
    let first = client.expect_state("J1", "Queued").await;
    client.send(&ended("J1", "Cancelled", Some("n1"))).await;
    let cancelled = client.expect_state("J1", "Finished").await;
    assert_eq!(cancelled["finishedReason"], "Cancelled");
    client.send(&queued("J1", "n1", "r")).await;
    let again = client.expect_state("J1", "Queued").await;
    client.send(&ended("J1", "Deleted", Some("n1"))).await;
    let deleted = client.expect_state("J1", "Finished").await;
    assert_eq!(deleted["finishedReason"], "Deleted");
    let revisions = [&first, &cancelled, &again, &deleted].map(|job| job["revision"].as_u64().unwrap());
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
}

#[tokio::test]
async fn what_a_client_may_not_say_is_refused_with_a_reason_and_changes_nothing() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    client.send(&queued("J1", "", "r")).await;
    client.expect("Done").await;
    for reason in ["Success", "Error", "TimedOut", "WorkerLost"] {
        client.send(&ended("J1", reason, None)).await;
        assert_eq!(client.expect("Done").await["error"]["code"], "not-for-clients", "{reason}");
    }
    let mut without = queued("J2", "", "r");
    without["payload"]["value"]["enqueued"].as_object_mut().unwrap().remove("definition");
    client.send(&without).await;
    assert_eq!(client.expect("Done").await["error"]["code"], "definition-missing");
    let list = relay.get_json("/q/q1").await;
    assert_eq!(list["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["J1"]);
}

#[tokio::test]
async fn too_many_watched_are_refused_whole() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    client.send(&watch(&["J1"])).await;
    client.expect("JobStateUpdates").await;
    let many: Vec<String> = (0..257).map(|number| format!("N{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    client.send(&watch(&many)).await;
    assert_eq!(client.expect("Done").await["error"]["code"], "too-many-watched");
    client.send(&queued("J1", "", "r")).await;
    client.expect_state("J1", "Queued").await;
}

#[tokio::test]
async fn a_reconnect_brings_the_missing_lines_and_no_others() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["0\n", "1\n", "2\n"])).await;
    worker.drain().await;
    let mut client = relay.client("q1").await;
    client.send(&json!({"type": "Watch", "payload": {"jobs": {(&id): {"run": 2}}}})).await;
    let lines = client.expect("JobStatusPayload").await;
    assert_eq!((&lines["from"], &lines["logs"]), (&json!(2), &json!([["2\n", 3]])));
    worker.send(&logs(&lease, 3, &["3\n"])).await;
    assert_eq!(client.expect("JobStatusPayload").await["from"], 3);
}

#[tokio::test]
async fn a_cancel_without_namespace_is_for_those_that_this_socket_submitted() {
    let relay = TestRelay::start().await;
    let mut mine = relay.client("q1").await;
    let mut other = relay.client("q1").await;
    mine.send(&queued("J1", "mine", "r")).await;
    mine.expect("Done").await;
    other.send(&queued("J1", "theirs", "r")).await;
    other.expect("Done").await;
    mine.send(&ended("J1", "Cancelled", None)).await;
    mine.expect("Done").await;
    let list = relay.get_json("/q/q1").await;
    assert_eq!(list["data"]["J1"]["namespaces"], json!(["theirs"]));
}

#[tokio::test]
async fn odd_frames_are_dropped_and_the_socket_stays() {
    let relay = TestRelay::start().await;
    let mut client = relay.client("q1").await;
    for odd in
        ["", "undefined", "{bad", r#"{"type":"Nope"}"#, r#"{"type":"QueryJob","payload":{"jobId":[1]}}"#]
    {
        client.send_text(odd).await;
    }
    assert_eq!(client.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn bad_paths_are_refused_before_the_upgrade() {
    let relay = TestRelay::start().await;
    for path in ["/", "/q", "/q/x", "/q/x/foo", "/foo", "/q/undefined/client"] {
        assert!(Peer::try_connect(&relay.address, path, &[]).await.is_err(), "{path}");
    }
}
