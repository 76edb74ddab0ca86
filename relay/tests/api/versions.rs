//! Makes the samples of stored data that `store` reads in its tests: once for each format, never again.

use std::path::{Path, PathBuf};

use dockframe_relay::StoreAddress;
use serde_json::json;

use crate::redis_server::RedisServer;
use crate::support::*;

/// Everything that a store may hold, in one state or another.
async fn fill(relay: &TestRelay) {
    let control = json!({ "namespace": "n", "priority": 3, "maxDuration": "5m", "callbacks": {
        "queued": { "url": "http://192.0.2.1/queued", "payload": { "u": 7 } },
        "finished": { "url": "http://192.0.2.1/finished" } } });
    let definition = |command: &str| {
        json!({ "image": "a", "command": command, "tags": ["eu"],
        "requirements": { "cpus": 2, "memory": "4G" } })
    };
    let submit = async |id: &str| {
        let control = if id == "waiting" { control.clone() } else { json!({ "namespace": "m" }) };
        relay.submit("sample", json!({ "id": id, "definition": definition(id), "control": control })).await;
    };
    submit("cancelled").await;
    relay.post("/q/sample/j/cancelled/cancel?namespace=*&message=why", &json!({})).await;
    let mut worker = relay.lease_socket("sample").await;
    let mut registration = registration("w", &[]);
    registration["payload"]["cpus"] = json!(4);
    registration["payload"]["tags"] = json!(["eu"]);
    worker.send(&registration).await;
    worker.expect("Hello").await;
    submit("finished").await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "the end")).await;
    worker.expect("LeaseFinished").await;
    // And one whose id is its definition's.
    relay.submit("sample", json!({ "definition": { "image": "a" } })).await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "shared")).await;
    worker.expect("LeaseFinished").await;
    relay.submit("another", json!({ "definition": { "image": "a" } })).await;
    relay
        .post(
            "/q/sample",
            &json!({ "id": "running", "definition": definition("running"), "control": {
        "namespace": "other" } }),
        )
        .await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.drain().await;
    worker.close(4000).await;
    submit("waiting").await;
}

fn sample() -> PathBuf {
    let folder = PathBuf::from(std::env::var("DOCKFRAME_SAMPLE").expect("DOCKFRAME_SAMPLE names a folder"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
#[ignore = "writes a sample of today's format to DOCKFRAME_SAMPLE"]
async fn writes_a_sample_of_the_embedded_store() {
    let relay = TestRelay::start().await;
    fill(&relay).await;
    let store = relay.folder().join("store");
    relay.end().await;
    copy(&store, &sample().join("embedded"));
}

#[tokio::test]
#[ignore = "writes a sample of today's format to DOCKFRAME_SAMPLE"]
async fn writes_a_sample_of_the_redis_store() {
    static ADDRESS: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let mut server = RedisServer::start();
    ADDRESS.get_or_init(|| server.address());
    let relay = TestRelay::start_with(|config| {
        config.store = StoreAddress::Redis(ADDRESS.get().unwrap().clone());
    })
    .await;
    fill(&relay).await;
    relay.end().await;
    server.kill();
    copy(&server.folder().join("appendonlydir"), &sample().join("redis/appendonlydir"));
}
