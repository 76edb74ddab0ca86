//! A store that was away, or is another one than before; and room that several relays give away at once.

use serde_json::{Value, json};

use crate::several::Pair;
use crate::support::*;

#[tokio::test]
async fn an_old_worker_that_could_not_register_is_sent_back() {
    let mut pair = Pair::start().await;
    let relay = &pair.a.relay;
    let registration = json!({"type": "WorkerRegistration", "payload": {
        "time": 1, "version": "0.54", "id": "old", "cpus": 1, "gpus": 0, "maxJobDuration": "20m"}});
    let connect = async || Peer::connect(&relay.address, "/q/q1/worker", &[]).await;
    let mut worker = connect().await;
    worker.expect("JobStates").await;
    pair.server.kill();
    worker.send(&registration).await;
    assert_eq!(worker.expect_close().await, Some(1013), "it would be deaf for ever");
    pair.server.start_again();
    let mut worker = loop {
        // The relay finds its way back to the store by itself; until then sockets end at once.
        let mut worker = connect().await;
        worker.send(&registration).await;
        if worker.expect_word_or_end("PONG old").await {
            break worker;
        }
    };
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    worker.expect_state(&id, "Queued").await;
}

#[tokio::test]
async fn a_store_that_was_emptied_has_another_epoch_and_everybody_comes_back() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let id = a.submit("q1", json!({"definition": {"image": "a"}})).await;
    let hello = async |relay: &TestRelay| {
        let mut worker = relay.lease_socket("q1").await;
        worker.send(&registration("w", &[])).await;
        let epoch = worker.expect("Hello").await["epoch"].clone();
        (worker, epoch)
    };
    let (mut worker, before) = hello(a).await;
    worker.expect("LeaseGrant").await;
    let mut client = b.client("q1").await;
    pair.server.empty();
    assert_eq!(worker.expect_close().await, Some(1012));
    assert_eq!(client.expect_close().await, Some(1012));
    let (_worker, after) = hello(a).await;
    assert_ne!(after, before);
    assert_eq!(hello(b).await.1, after);
    assert_eq!(a.get_json("/q/q1").await["data"], json!({}), "what is gone is not shown");
    assert_eq!(b.submit("q1", json!({"definition": {"image": "a"}})).await, id);
    let mut again = a.client("q1").await;
    again.send(&watch(&[&id])).await;
    assert!(again.expect("JobStateUpdates").await["state"]["jobs"][&id].is_object());
}

/// Each relay counts what it grants itself (`jobs-and-states` 8.1). What is too much is declined, and nothing is lost.
#[tokio::test]
async fn what_two_relays_grant_beyond_a_workers_room_waits_for_it() {
    let pair = Pair::start().await;
    let (a, b) = (&pair.a.relay, &pair.b.relay);
    let (mut on_a, mut on_b) = (a.worker("q1", "w").await, b.worker("q2", "w").await);
    let lease = |grant: &Value| grant["leaseId"].as_str().unwrap().to_owned();
    a.submit("q1", json!({"definition": {"image": "first"}})).await;
    let first = lease(&on_a.expect("LeaseGrant").await);
    on_a.send(&accept(&first)).await;
    let second = b.submit("q2", json!({"definition": {"image": "second"}})).await;
    let third = b.submit("q2", json!({"definition": {"image": "third"}})).await;
    let full = lease(&on_b.expect("LeaseGrant").await);
    on_b.send(&json!({"type": "LeaseDecline", "payload": {
        "leaseId": full, "why": "no room just now", "retry": "soon"}}))
        .await;
    // One grant too many for each renewal, and no more: the relay takes the worker for full until it registers again.
    for _ in 0..10 {
        let heard = on_b.drain().await;
        assert!(heard.iter().all(|frame| frame["type"] != "LeaseGrant"), "{heard:?}");
    }
    on_a.send(&finish(&first, "done")).await;
    on_a.expect("LeaseFinished").await;
    on_b.send(&registration("w", &[])).await;
    let grant = on_b.expect("LeaseGrant").await;
    assert_eq!(grant["jobId"], *second, "the first in line is still the first");
    on_b.send(&accept(&lease(&grant))).await;
    on_b.send(&finish(&lease(&grant), "done")).await;
    assert_eq!(on_b.expect("LeaseGrant").await["jobId"], *third);
}
