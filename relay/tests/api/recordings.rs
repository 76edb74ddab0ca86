//! Exchanges recorded with an existing relay, played again (`relay-protocol`, companion files).
//!
//! Where ours answers otherwise it is meant, and stands in a list with its reason; a difference that is not listed
//! fails, and so does a listed one that is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::*;

const HTTP: &str = include_str!("../../../shared/tests/vectors/relay-http.json");
const SOCKET: &str = include_str!("../../../shared/tests/vectors/relay-socket.json");

/// Ours, where it is not theirs: note, status, why.
const HTTP_DIFFERENCES: &[(&str, u16, &str)] = &[
    ("submit: empty body", 400, "R-8: the sender's fault"),
    ("submit: broken", 400, "R-8"),
    ("submit: empty object", 400, "R-8"),
    ("submit: bare definition", 200, "R-8: taken for what it is"),
    ("submit: list", 400, "R-8"),
    ("submit: number", 400, "R-8"),
    ("submit: id without definition", 400, "R-8: nothing to run is refused"),
    ("live logs without queue: nothing yet", 200, "R-17: the same lines by both forms at any time"),
    ("results, other queue", 200, "R-11, R-34: an unverified id's result answers no other queue"),
    ("list shows it without result", 200, "the bare definition taken above is held by a second namespace"),
    ("output nourl", 404, "R-40"),
    ("output k", 302, "R-15: a key is a file of this relay"),
    ("output untyped", 200, "R-15: no type is text"),
    ("output a%20b", 200, "R-13: names are decoded when there is none as it is"),
    ("status there shows it", 200, "R-11: it is queued there, its id being no digest"),
    ("list there does not", 200, "R-38: one view for all"),
    ("cancel there does not find it", 200, "R-38"),
    ("copy, no body", 400, "R-8"),
    ("list after", 200, "the bare definition taken above is still held by the default namespace"),
    ("namespace with a lone percent", 200, "R-23: decoded once"),
    ("metrics", 200, "the bare definition taken above still waits"),
    ("metrics, old form", 200, "the bare definition taken above still waits"),
    ("upload", 200, "R-10: taken directly"),
    ("the upload is done at the redirect's target", 200, "R-10"),
    ("download", 200, "R-10: served directly"),
    ("download of nothing", 404, "R-10"),
    ("key with an encoded slash", 400, "R-37"),
];

/// Times are 0 in the recordings.
fn timeless(mut value: Value) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if matches!(name.as_str(), "time" | "queuedTime") {
                        *value = json!(0);
                    } else {
                        clean(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(clean),
            _ => {}
        }
    }
    clean(&mut value);
    value
}

/// Equal but for placeholders in `<…>`; fields that ours has besides are allowed, as old peers ignore them.
fn alike(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::String(text), Value::String(_)) if text.contains('<') && text.contains('>') => true,
        (Value::Object(theirs), Value::Object(ours)) => {
            theirs.iter().all(|(name, value)| ours.get(name).is_some_and(|ours| alike(value, ours)))
                && ours.keys().all(|name| {
                    theirs.contains_key(name) || matches!(name.as_str(), "attempt" | "finishedReason")
                })
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| alike(a, b))
        }
        _ => theirs == ours,
    }
}

fn media_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// What is not as recorded, in words.
async fn compare(relay: &TestRelay, request: &Value, response: &Value) -> (u16, Vec<String>) {
    let method = request["method"].as_str().unwrap().parse().unwrap();
    let path = request["path"].as_str().unwrap();
    // Under another queue's name there is nothing to be told; what is told under its own is as recorded.
    let path = path.replace("/q/other/j/H1/stream", "/q/vech/j/H1/stream");
    let mut sent = http().request(method, relay.url(&path));
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        sent = sent.header(name, value.as_str().unwrap());
    }
    sent = match &request["body"] {
        Value::Null => sent,
        Value::String(text) => sent.body(text.clone()),
        body => sent.body(body.to_string()),
    };
    let answer = sent.send().await.unwrap();
    let status = answer.status().as_u16();
    let mut differences = Vec::new();
    if response["status"] != status {
        differences.push(format!("status {status}"));
        return (status, differences);
    }
    if let Some(theirs) = response["contentType"].as_str() {
        let ours = answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap());
        if media_type(theirs) != media_type(ours) {
            differences.push(format!("content type {ours}"));
        }
    }
    for (name, theirs) in response["headers"].as_object().into_iter().flatten() {
        let ours = answer.headers().get(name).map(|value| json!(value.to_str().unwrap()));
        if !ours.as_ref().is_some_and(|ours| alike(theirs, ours)) {
            differences.push(format!("header {name}: {ours:?}"));
        }
    }
    let bytes = answer.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (theirs, ours) = match &response["body"] {
        theirs @ Value::String(_) => (theirs.clone(), json!(text)),
        theirs => (timeless(theirs.clone()), timeless(serde_json::from_str(&text).unwrap_or(json!(text)))),
    };
    if !alike(&theirs, &ours) {
        differences.push(format!("body {ours}"));
    }
    (status, differences)
}

#[tokio::test]
async fn http_exchanges_are_as_recorded_or_differ_for_a_reason() {
    let relay = TestRelay::start().await;
    let steps: Vec<Value> = serde_json::from_str(HTTP).unwrap();
    let mut worker: Option<Peer> = None;
    let mut unexpected = Vec::new();
    let mut intended: BTreeMap<&str, u16> =
        HTTP_DIFFERENCES.iter().map(|(note, status, _)| (*note, *status)).collect();
    for step in &steps {
        let note = step["note"].as_str().unwrap();
        if let Some(frames) = step["worker"].as_array() {
            if worker.is_none() {
                worker = Some(Peer::connect(&relay.address, "/q/vech/worker", &[]).await);
            }
            let worker = worker.as_mut().unwrap();
            for frame in frames {
                worker.send(frame).await;
            }
            // Frames of one socket are handled in order: answered means that all before it are done.
            worker.drain().await;
        } else if step["worker"].is_string() {
            worker = None;
        } else if step["upload"].is_object() {
            intended.remove(note);
        } else {
            let (status, differences) = compare(&relay, &step["request"], &step["response"]).await;
            match (differences.is_empty(), intended.remove(note)) {
                (true, None) => {}
                (false, Some(ours)) if ours == status => {}
                (_, ours) => unexpected.push(format!("{note}: {differences:?}, listed {ours:?}")),
            }
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert!(intended.is_empty(), "listed, but not met: {intended:?}");
}

/// Where ours sends other frames than were recorded: note, why.
const SOCKET_DIFFERENCES: &[(&str, &str)] = &[
    ("registration: Workers, then full list, to all", "R-20: a list to the worker alone"),
    ("registration", "R-20"),
    ("submit", "3.13: an update of that job instead of a list"),
    ("the same job from another namespace", "3.13"),
    ("claim by an id that sorts later: no effect", "8.8: a list at once, to that worker"),
    ("submit of a finished job: answered from the cache, namespace added", "3.13"),
    ("cancel of the last namespace while running: empty update", "R-2: a full list instead"),
    ("full list lacks it", "R-20: to the asker alone"),
    ("submit after cancel: queued anew", "3.13"),
    ("delete while running: ClearJobCache, then empty update", "R-2: a full list instead"),
    ("submit after delete: queued anew", "3.13"),
    (
        "delete while queued: no ClearJobCache, shown queued without namespaces",
        "R-3: gone, everywhere, at once",
    ),
    ("submit into namespace m", "3.13; R-3: no trace of the deleted job"),
    ("another job into m: the older one is replaced at once", "3.13, R-2"),
    ("the replaced job again: stays replaced", "J-2: it is queued anew, and replaces the other"),
    ("claim of J4", "J-2: it was replaced by the one before"),
    ("WorkerLost while running, here sent by a client: back to queued", "J-20: not a client's to say"),
    ("path: closed without a code at once", "R-6: refused with 404 before the upgrade"),
];

#[tokio::test]
async fn socket_exchanges_are_as_recorded_or_differ_for_a_reason() {
    let relay = TestRelay::start().await;
    let steps: Vec<Value> = serde_json::from_str(SOCKET).unwrap();
    let mut sockets: BTreeMap<String, Peer> = BTreeMap::new();
    let mut unexpected = Vec::new();
    for step in &steps {
        let note = step["note"].as_str().unwrap();
        let job = step["frame"]["payload"]["job"].as_str().unwrap_or_default();
        let of_job = format!("{note} of {job}");
        let listed = SOCKET_DIFFERENCES.iter().any(|(known, _)| *known == note || *known == of_job);
        if let Some(name) = step["connect"].as_str() {
            match Peer::try_connect(&relay.address, step["path"].as_str().unwrap(), &[]).await {
                Ok(peer) => drop(sockets.insert(name.to_owned(), peer)),
                Err(_) if listed => continue,
                Err(error) => panic!("{note}: {error}"),
            }
        }
        if let Some(from) = step["from"].as_str() {
            let peer = sockets.get_mut(from).unwrap();
            if step["frame"] == "PING" {
                peer.send_text("PING").await;
                let answer = loop {
                    let frame = peer.next().await;
                    if frame.is_string() {
                        break frame;
                    }
                };
                assert_eq!(step["received"][from], json!([answer]), "{note}");
                continue;
            }
            match &step["frame"] {
                Value::String(text) => peer.send_text(text).await,
                frame => peer.send(frame).await,
            }
        }
        // What a step causes anywhere is marked there before its sender is answered.
        let mut got: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let sender = step["from"].as_str().or(step["connect"].as_str());
        for name in sender.into_iter().chain(["c", "w"]) {
            if let Some(peer) = sockets.get_mut(name) {
                got.entry(name).or_default().extend(peer.drain().await);
            }
        }
        for name in ["c", "w"] {
            let theirs: Vec<Value> = step["received"][name].as_array().cloned().unwrap_or_default();
            let theirs: Vec<Value> = theirs
                .into_iter()
                .filter(|frame| !frame.as_str().is_some_and(|word| word.starts_with("PONG")))
                .collect();
            let mut ours = got.remove(name).unwrap_or_default();
            // A list may come at any time; it is looked at where one is expected.
            if !theirs.iter().any(|frame| frame["type"] == "JobStates") {
                ours.retain(|frame| frame["type"] != "JobStates");
            }
            let same = theirs.len() == ours.len()
                && theirs.iter().zip(&ours).all(|(a, b)| alike(&timeless(a.clone()), &timeless(b.clone())));
            if !same && !listed {
                unexpected.push(format!("{note}, at {name}: {}", json!(ours)));
            }
        }
    }
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}
