//! What is too much is refused with a status that says so (`relay-protocol` R-27).

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::receiver::Receiver;
use crate::support::*;

/// A request of which only the beginning is sent.
async fn begin(relay: &TestRelay, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&relay.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_413() {
    let relay = TestRelay::start().await;
    let definition = json!({ "definition": { "image": "a", "command": "x".repeat(33 << 20) } });
    let answer = relay.post("/q/lab1", &definition).await;
    assert_eq!(answer.status(), 413);
    let told: Value = answer.json().await.unwrap();
    assert!(told["error"].as_str().unwrap().contains("upload its files"), "{told}");
    // Longer than any body may be: known from its announced length, before it is read.
    let head = "POST /q/lab1 HTTP/1.1\r\nHost: h\r\nContent-Length: 67108865\r\n\r\n";
    let mut answer = vec![0; 12];
    begin(&relay, head).await.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn more_long_bodies_than_there_is_room_for_come_again_later_and_short_ones_pass() {
    let relay = TestRelay::start().await;
    let head = "POST /q/lab1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(begin(&relay, head).await);
    }
    let long = json!({ "definition": { "image": "a", "command": "x".repeat(2 << 20) } });
    // The others may not have come in yet.
    let refused = loop {
        let answer = relay.post("/q/lab1", &long).await;
        if answer.status() == 429 {
            break answer;
        }
    };
    assert_eq!(refused.headers()["retry-after"], "5");
    assert!(refused.json::<Value>().await.unwrap()["error"].is_string());
    relay.submit("lab1", json!({ "definition": { "image": "a" } })).await;
    drop(open);
    loop {
        if relay.post("/q/lab1", &long).await.status() == 200 {
            break;
        }
    }
}

#[tokio::test]
async fn a_job_submitted_over_a_socket_is_told_of_under_the_address_that_the_socket_used() {
    let relay = TestRelay::start_with(|config| config.allow_private_callbacks = true).await;
    let mut receiver = Receiver::start().await;
    let mut socket = Peer::connect(
        &relay.address,
        "/q/lab1/client?protocol=watch/1",
        &[("x-forwarded-host", "relay.example"), ("x-forwarded-proto", "https")],
    )
    .await;
    let mut frame = queued("j1", "_", "r");
    frame["payload"]["value"]["enqueued"]["control"]["callbacks"] =
        json!({ "finished": { "url": receiver.url } });
    socket.send(&frame).await;
    socket.expect("Done").await;
    let mut worker = relay.worker("lab1", "w").await;
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&finish(&lease, "end")).await;
    let told = receiver.next().await.json();
    assert_eq!(told["resultUrl"], "https://relay.example/q/lab1/j/j1/result.json");
}
