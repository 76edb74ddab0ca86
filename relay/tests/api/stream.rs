//! A job as a stream of events (`relay-protocol` 2.11).

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::support::*;

/// Events as they come, until the stream ends.
struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Events {
    async fn open(relay: &TestRelay, path: &str) -> Self {
        let answer = relay.get(path).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Self { bytes: Box::pin(answer.bytes_stream()), text: String::new() }
    }

    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                let (kind, data) = (field("event: "), field("data: "));
                self.text = rest.to_owned();
                if !kind.is_empty() {
                    return Some((kind, serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            match self.bytes.next().await {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap()),
                None => return None,
            }
        }
    }
}

fn event(kind: &str, data: Value) -> Option<(String, Value)> {
    Some((kind.to_owned(), data))
}

#[tokio::test]
async fn a_stream_tells_lines_and_states_as_they_come_and_ends_with_the_job() {
    let relay = TestRelay::start().await;
    let mut worker = relay.worker("q1", "w1").await;
    let id = "J1";
    let mut events = Events::open(&relay, "/q/q1/j/J1/stream").await;
    relay.submit("q1", json!({"id": id, "definition": {"image": "a"}})).await;
    assert_eq!(events.next().await, event("state", json!({"state": "Queued"})), "known only after it began");
    let lease = worker.expect("LeaseGrant").await["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    assert_eq!(events.next().await, event("state", json!({"state": "Running"})));
    worker.send(&logs(&lease, 0, &["hi\n"])).await;
    assert_eq!(events.next().await, event("run-log", json!({"lines": [["hi\n", 3]], "cursor": 1})));
    worker.send(&finish(&lease, "x")).await;
    let end = json!({"state": "Finished", "reason": "Success"});
    assert_eq!(events.next().await, event("state", end.clone()));
    assert_eq!(events.next().await, event("final", end));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_cancelled_job_ends_its_stream() {
    let relay = TestRelay::start().await;
    relay.submit("q1", json!({"id": "J1", "definition": {"image": "a"}})).await;
    let mut events = Events::open(&relay, "/q/q1/j/J1/stream").await;
    assert_eq!(events.next().await, event("state", json!({"state": "Queued"})));
    relay.post("/q/q1/j/J1/cancel", &Value::Null).await;
    let end = json!({"state": "Finished", "reason": "Cancelled"});
    assert_eq!(events.next().await, event("state", end.clone()));
    assert_eq!(events.next().await, event("final", end));
    assert_eq!(events.next().await, None);
}
