//! What must hold for whatever a store or a network brings. The fuzz targets (`fuzz/`) try these promises on bytes of
//! their own making, and the tests here on every seed. Built for these two alone.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use dockframe_shared::job::{Control, Definition};
use dockframe_shared::protocol::LogStep;
use dockframe_shared::{JobId, QueueDigest, QueueKey, Timestamp, WorkerId};
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::page::{Asset, Page};
use crate::queue::command::Command;
use crate::queue::record::{Record, Slot, WorkerRecord};
use crate::queue::service::{Finishing, SharedRecord, Submission};
use crate::store::codec::{decode, encode};
use crate::{BlobAddress, Config, Relay, StoreAddress, blobs, store};

/// A queue's name that must come back in no refusal.
const SECRET: &str = "canary-7Qw5T2r8";
/// Longest answer to a short question.
const MOST: usize = 1 << 20;
/// Whoever waits longer is a stream, or waits for a job.
const PATIENCE: Duration = Duration::from_millis(50);
/// Requests to one relay: what they leave in its folder is bounded.
const REQUESTS: usize = 20_000;

/// Records, keys and messages of the stores, and lines of log files; the first letter says which.
pub fn record(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind {
        b'j' => is_kept::<Record>(bytes),
        b'n' => is_kept::<Slot>(bytes),
        b'w' => is_kept::<WorkerRecord>(bytes),
        b'r' => is_kept::<JobId>(bytes),
        b's' => is_kept::<SharedRecord>(bytes),
        b'k' => store::fuzzing::keys(bytes),
        b'm' => store::fuzzing::message(QueueDigest::from_bytes([7; 32]), bytes),
        b'l' => blobs::fuzzing::log_file(bytes),
        _ => {}
    }
}

/// What can be read is written so that it is read as the same again.
fn is_kept<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else { return };
    let Ok(written) = encode(&value) else { panic!("what was read cannot be written") };
    let again = decode::<T>(&written).and_then(|value| encode(&value));
    assert!(again.is_ok_and(|again| again == written), "what was written is read as something else");
}

/// A request: first line `METHOD TARGET`, then headers, an empty line, the body.
#[derive(Debug)]
pub struct Routes {
    runtime: tokio::runtime::Runtime,
    router: Router,
    left: usize,
}

impl Routes {
    /// A relay that keeps its things in this folder, and knows one finished job and one that waits.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self::try_open(folder).expect("a relay opens in an empty folder")
    }

    fn try_open(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        static PAGE: &[Asset] = &[Asset {
            path: "index.html",
            content_type: "text/html; charset=utf-8",
            immutable: false,
            identity: b"<!doctype html><head></head>",
            brotli: None,
            gzip: None,
        }];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = StoreAddress::Embedded(folder.join("store"));
        let mut config = Config::new(store, BlobAddress::Directory(folder.join("blobs")));
        config.max_blob_bytes = 1 << 10;
        let router = runtime.block_on(async {
            let relay = Relay::open(config, Page { assets: PAGE }).await?;
            fill(&relay).await?;
            Ok::<_, Box<dyn std::error::Error>>(crate::http::router::router(relay.app))
        })?;
        Ok(Self { runtime, router, left: REQUESTS })
    }

    /// Whether so much has been asked that another one should be opened in another folder: what is uploaded stays.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.left == 0
    }

    pub fn try_one(&mut self, data: &[u8]) {
        let Some((request, names_secret)) = request(data) else { return };
        self.left = self.left.saturating_sub(1);
        let router = self.router.clone();
        let answer = async {
            let Ok(response) = router.oneshot(request).await;
            check(response, names_secret).await;
        };
        // A timeout is no fault: streams have no end, and following a job waits for it.
        let _ = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await });
    }
}

fn request(data: &[u8]) -> Option<(Request<Body>, bool)> {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (head, body) = (std::str::from_utf8(&data[..end]).ok()?, data.get(end + 2..).unwrap_or_default());
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?);
    }
    // The name may stand there escaped; only as it is can it be found again. A second time it may be part of another
    // name, which a refusal may repeat.
    let names_secret = target.matches(SECRET).count() == 1;
    Some((request.body(Body::from(body.to_vec())).ok()?, names_secret))
}

async fn check(response: Response, names_secret: bool) {
    let status = response.status();
    let is_ours = !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED;
    let open =
        response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*");
    assert!(open, "an answer that other sites cannot read: {response:?}");
    let kind =
        response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    if kind.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return;
    }
    let Ok(body) = to_bytes(response.into_body(), MOST).await else {
        panic!("an answer without end, or cut")
    };
    let text = String::from_utf8_lossy(&body);
    assert!(is_ours, "{status}: {text}");
    let tells =
        names_secret && (status.is_client_error() || status.is_server_error()) && text.contains(SECRET);
    assert!(!tells, "a refusal tells the queue's name: {text}");
    if kind.as_deref().is_some_and(|kind| kind.starts_with("application/json")) && !body.is_empty() {
        assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{status}: no JSON: {text}");
    }
}

/// Jobs for the routes to find: `done` has logs, inputs and outputs, `waits` is queued.
async fn fill(relay: &Relay) -> Result<(), Box<dyn std::error::Error>> {
    let service = &relay.app.service;
    let queue = service.open(&QueueKey::new(SECRET)?).await?;
    let definition = |value: Value| serde_json::from_value::<Definition>(value);
    let submission = |id: JobId, definition: Definition| Submission {
        id: Some(id),
        definition,
        control: Control::default(),
        debug: None,
        origin: None,
    };
    let (done, waits) = (JobId::new("done")?, JobId::new("waits")?);
    let inputs = json!({
        "image": "a",
        "inputs": {
            "text.txt": {"value": "hi"},
            "dir/data.json": {"type": "json", "value": {"a": [1]}},
            "bytes": {"type": "base64", "value": "AAEC"},
            "far": {"type": "url", "value": "https://example.com/x"},
        },
    });
    service.submit(&queue, submission(waits, definition(json!({"image": "b"}))?)).await?;
    service.submit(&queue, submission(done.clone(), definition(inputs)?)).await?;
    let worker = WorkerId::new("w")?;
    service.execute(&queue, &Command::OldWorker { worker: worker.clone(), first: true }).await?;
    let claim = Command::Claim { job: done.clone(), worker: worker.clone(), time: Timestamp::from_millis(1) };
    service.execute(&queue, &claim).await?;
    let line = serde_json::from_value(json!(["hello\n", 1]))?;
    service.claim_lines(&queue, &worker, &done, &LogStep::Running, vec![line]).await?;
    let result = json!({
        "type": "Finished", "reason": "Success", "worker": "w", "time": 2,
        "result": {
            "StatusCode": 0, "logs": [["hello\n", 1]], "duration": 1,
            "outputs": {"out.txt": {"value": "o", "type": "utf8"}, "d/b": {"value": "AAEC", "type": "base64"}},
        },
    });
    service.claim_finish(&queue, &worker, &done, &Finishing::read(&result)).await?;
    Ok(())
}

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_records_holds() {
        seeds::of("record").iter().for_each(|seed| record(seed));
    }

    #[test]
    fn every_seed_of_routes_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut routes = Routes::open(folder.path());
        seeds::of("route").iter().for_each(|seed| routes.try_one(seed));
    }

    #[test]
    fn the_routes_find_the_jobs_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let routes = Routes::open(folder.path());
        let status = |target: &str| {
            let (request, _) = request(format!("GET {target}").as_bytes()).unwrap();
            let router = routes.router.clone();
            routes.runtime.block_on(async { router.oneshot(request).await.unwrap().status().as_u16() })
        };
        assert_eq!(status(&format!("/q/{SECRET}/j/done/outputs/d/b")), 200);
        assert_eq!(status("/j/done/inputs/dir/data.json"), 200);
        assert_eq!(status(&format!("/q/{SECRET}/j/waits/definition.json")), 200);
    }
}
