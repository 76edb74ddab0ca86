//! The existing page's recorded sessions (`reference-app-*.json`) played to ours: the same host and the same stand-in
//! for a relay say the same, and ours must come to the same jobs, questions, addresses and outputs.
//!
//! What is compared leaves out what the specification calls a quirk of the existing page: the text `undefined`, a
//! submission or deletion that is sent again, an ending without `namespace`, contents that are resolved to nothing.

use std::collections::BTreeSet;

use dockframe_shared::javascript::json::stringify;
use dockframe_shared::job::canonical::canonical_json;

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/tests/vectors");

/// What came of a session.
#[derive(Debug, Default, PartialEq)]
struct Came {
    /// Submissions and endings in their order, without repeats.
    changes: Vec<(String, String)>,
    asked: BTreeSet<String>,
    hashes: Vec<String>,
    outputs: Vec<Value>,
}

impl Came {
    fn change(&mut self, kind: &str, job: &str) {
        let change = (kind.to_owned(), job.to_owned());
        if self.changes.last() != Some(&change) {
            self.changes.push(change);
        }
    }
}

/// What the recorded page sent.
fn recorded(session: &Value) -> Came {
    let mut came = Came::default();
    for event in session["events"].as_array().unwrap() {
        let data = &event["data"];
        match (event["ws"].as_str(), data["type"].as_str(), data["method"].as_str()) {
            (Some("app->queue"), Some("QueryJob"), _) => {
                came.asked.insert(data["payload"]["jobId"].as_str().unwrap().to_owned());
            }
            (Some("app->queue"), Some("StateChange"), _) => {
                let (value, job) = (&data["payload"]["value"], data["payload"]["job"].as_str().unwrap());
                let kind = value["reason"].as_str().unwrap_or("Queued").to_owned();
                let definition = canonical_json(&value["enqueued"]["definition"]);
                came.change(&if kind == "Queued" { definition } else { kind }, job);
            }
            (None, _, Some("OutputsUpdate")) => {
                let outputs = &data["params"];
                if outputs.as_object().is_some_and(|map| !map.is_empty()) {
                    came.outputs.push(outputs.clone());
                }
            }
            (None, _, Some("HashParamsUpdate")) => {
                came.hashes.push(data["params"]["hash"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    came
}

/// What ours does in the same session.
fn played(name: &str, session: &Value) -> Came {
    let mut page = Page::new(true, session["hash"].as_str().unwrap());
    page.state.place.origin = "https://app.example".into();
    page.send(Message::HashChanged { hash: session["hash"].as_str().unwrap().into() });
    let mut came = Came::default();
    let mut uploading = Vec::new();
    let answer = |time| answer(name, session, time).to_string();
    let mut clock = 0;
    for event in session["events"].as_array().unwrap() {
        let ms = event["ms"].as_i64().unwrap();
        page.pass(ms - clock);
        clock = ms;
        look(&mut page, &mut came, &mut uploading, &answer);
        if event["kind"] == "post" && event["direction"] == "host->metaframe" {
            hear_host(&mut page, &event["data"]);
        } else if event["ws"] == "open" {
            page.send(Message::SocketOpened { socket: page.state.connection.socket });
        } else if event["ws"] == "queue->app" {
            page.frame(&event["data"].to_string());
        } else if let Some(http) = event["http"].as_str() {
            if http.starts_with("PUT ") {
                for url in uploading.drain(..) {
                    page.send(Message::Uploaded { url, outcome: Ok(()) });
                }
            }
        } else if let Some(click) = event["click"].as_str() {
            page.user(match click {
                "Run-job" => Intent::Run,
                "Stop-job" => Intent::Stop,
                "Re-queue" => Intent::Delete,
                other => panic!("a click on {other}"),
            });
        }
        look(&mut page, &mut came, &mut uploading, &answer);
    }
    page.pass(3_000);
    look(&mut page, &mut came, &mut uploading, &answer);
    came
}

fn hear_host(page: &mut Page, message: &Value) {
    let params = &message["params"];
    let pipe = |value: &Value| PipeValue::Json(value.clone());
    if message["method"] == "SetupIframeServerResponse" {
        let inputs = params["state"]["inputs"].as_object().cloned().unwrap_or_default();
        let inputs = inputs.iter().map(|(name, value)| (name.clone(), pipe(value))).collect();
        page.send(Message::HostAnswered { origin: "http://localhost".into(), inputs, stopped: Vec::new() });
    } else {
        let inputs = params["inputs"].as_object().cloned().unwrap_or_default();
        let inputs = inputs.iter().map(|(name, value)| (name.clone(), Some(pipe(value))));
        page.send(Message::InputsUpdated(inputs.collect()));
    }
}

/// Takes note of what was done outside since the last look.
fn look(page: &mut Page, came: &mut Came, uploading: &mut Vec<String>, answer: &dyn Fn(Timestamp) -> String) {
    for effect in std::mem::take(&mut page.effects) {
        match effect {
            Effect::WriteHash(hash) => came.hashes.push(format!("#{}", hash.trim_start_matches('#'))),
            Effect::PostOutputs(outputs) => {
                let outputs = outputs.iter().map(|(name, value)| (name.clone(), shown(value)));
                came.outputs.push(Value::Object(outputs.collect()));
            }
            Effect::ResolveOutputs { job, time, outputs } => {
                // The only content that is elsewhere is three bytes long.
                let mut ready = outputs.ready;
                ready.extend(outputs.fetch.into_iter().map(|fetch| (fetch.name, OutputValue::blob(b"abc"))));
                page.send(Message::OutputsResolved { job, time, outputs: ready });
                look(page, came, uploading, answer);
            }
            Effect::FetchResult { job, time, .. } => {
                let text = answer(time);
                let outcome = read_result(&text).map(Box::new);
                page.send(Message::ResultLoaded { job, time, text, outcome });
                look(page, came, uploading, answer);
            }
            Effect::Upload { url, .. } => uploading.push(url),
            Effect::Send(text) => match ClientMessage::read(&text) {
                Ok(ClientMessage::QueryJob { job_id }) => {
                    came.asked.insert(job_id.to_string());
                }
                Ok(ClientMessage::StateChange(change)) => {
                    let kind = match &change.change {
                        Change::Queued { enqueued, .. } => {
                            canonical_json(&serde_json::to_value(&enqueued.definition).unwrap())
                        }
                        Change::Finished(finished) => {
                            assert!(finished.namespace.is_some(), "an ending names its namespace");
                            finished.reason.as_str().to_owned()
                        }
                        _ => panic!("{text}"),
                    };
                    came.change(&kind, change.job.as_str());
                }
                Ok(_) | Err(_) => assert_eq!(text, "PING", "nothing else is said"),
            },
            _ => {}
        }
    }
}

/// An output in the notation of the vectors.
fn shown(value: &OutputValue) -> Value {
    match value {
        OutputValue::Plain(value) => value.clone(),
        OutputValue::Object(fields) => {
            let undefined = || json!({ "$undefined": true });
            let fields = fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone().unwrap_or_else(undefined)));
            Value::Object(fields.collect())
        }
    }
}

/// The stand-in's `result.json`, made of what the session says came of it.
fn answer(name: &str, session: &Value, time: Timestamp) -> Value {
    let file = &session["outputs"]["job/result.json"];
    let reason = if name.contains("failure") { "Error" } else { "Success" };
    let result = if name.contains("failure") {
        json!({"error": file["error"], "logs": [["pull failed\n", 1, true]], "duration": 3, "isTimedOut": false, "outputs": {}})
    } else {
        let outputs = if name.contains("already") {
            json!({"o.txt": {"type": "base64", "value": "aGk="}})
        } else {
            json!({"small.txt": {"type": "base64", "value": "aGk="}, "dir/big.bin": {"type": "key", "value": "abcd"}})
        };
        let code = if name.contains("exit-code") { 3 } else { 0 };
        json!({
            "StatusCode": code, "duration": 400, "isTimedOut": false, "outputs": outputs,
            "logs": [["hello out\n", 2], ["hello err\n", 3, true]],
        })
    };
    json!({"data": {"state": "Finished", "finishedReason": reason,
        "finished": {"type": "Finished", "reason": reason, "time": time, "result": result}}})
}

/// Reads a session. The recording names its server `app.example` afterwards; where that is part of a definition, the id
/// is made anew.
fn session(name: &str) -> Value {
    let mut text = std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
    let session: Value = serde_json::from_str(&text).unwrap();
    for event in session["events"].as_array().unwrap() {
        let enqueued = &event["data"]["payload"]["value"]["enqueued"];
        if enqueued["definition"].to_string().contains("https://app.example/f/") {
            let definition = serde_json::from_value(enqueued["definition"].clone()).unwrap();
            let id = dockframe_shared::job::digest::job_id(&definition);
            text = text.replace(enqueued["id"].as_str().unwrap(), id.as_str());
        }
    }
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_recorded_session_comes_to_the_same() {
    let mut names: Vec<_> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("reference-app-"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 12, "{names:?}");
    for name in names {
        let session = session(&name);
        let (mut wanted, came) = (recorded(&session), played(&name, &session));
        if name.contains("resolverefs") {
            // The existing page sends nothing for what is elsewhere, and no sizes (`metaframe` 5.8).
            wanted.outputs = vec![json!({
                "small.txt": shown(&OutputValue::blob(b"hi")), "dir/big.bin": shown(&OutputValue::blob(b"abc")),
            })];
        }
        let text = |came: &Came| came.outputs.iter().map(stringify).collect::<Vec<_>>();
        assert_eq!(came.changes, wanted.changes, "{name}: changes");
        assert_eq!(came.asked, wanted.asked, "{name}: questions");
        assert_eq!(came.hashes, wanted.hashes, "{name}: addresses");
        assert_eq!(came.outputs, wanted.outputs, "{name}: outputs, {:?}", text(&came));
    }
}
