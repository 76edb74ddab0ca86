//! How fast submissions are acknowledged, durable, by each store. Measurements, not promises: run on demand with
//! `cargo test --release -p dockframe-relay --test api measure -- --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "its numbers are what it is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_relay::StoreAddress;
use serde_json::json;
use tokio::sync::Mutex;

use crate::redis_server::RedisServer;
use crate::several::Node;
use crate::support::*;

const CLIENTS: usize = 32;
const SUBMISSIONS: usize = 4_000;

async fn measure(name: &str, relay: &TestRelay) {
    let url = relay.url("/q/q1");
    let numbers = Arc::new(Mutex::new(0..SUBMISSIONS));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (url, numbers) = (url.clone(), Arc::clone(&numbers));
            let http = http();
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let Some(number) = numbers.lock().await.next() else { return times };
                    let body = json!({"definition": {"image": "a", "command": number.to_string()}});
                    let sent = Instant::now();
                    let answer = http.post(&url).body(body.to_string()).send().await.unwrap();
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.unwrap();
                    times.push(sent.elapsed());
                }
            })
        })
        .collect();
    let mut times: Vec<Duration> = Vec::new();
    for client in clients {
        times.extend(client.await.unwrap());
    }
    let took = begun.elapsed();
    times.sort_unstable();
    let rate = SUBMISSIONS as f64 / took.as_secs_f64();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{name}: {rate:.0} submits/s, p50 {p50:?}, p99 {p99:?}, {CLIENTS} clients");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn submits_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = StoreAddress::Embedded(folder.path().join("store"));
    measure("embedded", &Node::start(embedded, folder.path()).await.relay).await;
    let server = RedisServer::start();
    let redis = || server.address().parse::<StoreAddress>().unwrap();
    let one = Node::start(redis(), folder.path()).await;
    measure("redis, appendfsync always", &one.relay).await;
}
