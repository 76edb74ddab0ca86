//! `reference-app-*`: the existing page in a real host, with a stand-in for the relay.
//!
//! What host and relay said is played, in the recorded order; what the page said to both is awaited and compared, to
//! each in its order. [`skipped`] are the intended differences.

use std::time::Duration;

use anyhow::Context as _;
use dockframe_tests::wait;
use serde_json::{Value, json};

use super::load;
use crate::check::same_json;
use crate::page::host::{Host, ID, Said, methods};
use crate::page::items::screen::{RUN, STOP};
use crate::page::relay::{Answer, Relay, Way, What, in_short};
use crate::page::setup::{Scripted, Test};

pub(super) const FILES: [&str; 12] = [
    "reference-app-allowsetjob.json",
    "reference-app-already-finished.json",
    "reference-app-autostart-inputs.json",
    "reference-app-autostart.json",
    "reference-app-cancel.json",
    "reference-app-delete-autostart.json",
    "reference-app-delete.json",
    "reference-app-exit-code.json",
    "reference-app-failure.json",
    "reference-app-large-input.json",
    "reference-app-manual.json",
    "reference-app-resolverefs.json",
];

/// How long the page may take for what it does because of the step before.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn all(test: Test) -> anyhow::Result<()> {
    for file in FILES {
        let relay = test.relay(Way::Old).await?;
        // The recording answers.
        relay.set(|settings| {
            (settings.greets, settings.records) = (false, false);
            // A page may ask again for a job that was in the list before it knew its id.
            settings.answers_queries = file.contains("already-finished");
        });
        let recording = with_ids(&load(file, &relay.url())?)?;
        let hash = recording["hash"].as_str().context("no hash")?;
        let bench = test.scripted(relay, hash, &Value::Null).await?;
        let mut player =
            Player { bench: &bench, heard: 0, at_relay: 0, submitted: Vec::new(), deleted: false };
        let events = recording["events"].as_array().context("no events")?;
        for (n, event) in events.iter().enumerate() {
            let rest = &events[n + 1..];
            player.step(event, rest).await.with_context(|| format!("{file}, event {n}: {}", brief(event)))?;
        }
    }
    Ok(())
}

/// Uploads are at this relay, so the id of a job with one is another than recorded.
fn with_ids(recording: &Value) -> anyhow::Result<Value> {
    let mut text = recording.to_string();
    for event in recording["events"].as_array().into_iter().flatten() {
        let enqueued = &event["data"]["payload"]["value"]["enqueued"];
        if let Some(id) = enqueued["id"].as_str() {
            text = text.replace(id, &crate::test::job_id(&enqueued["definition"])?);
        }
    }
    Ok(serde_json::from_str(&text)?)
}

fn brief(event: &Value) -> String {
    event.to_string().chars().take(300).collect()
}

struct Player<'a> {
    bench: &'a Scripted,
    /// How many of the page's messages to the host are compared.
    heard: usize,
    /// The place in the relay's list up to which it is compared.
    at_relay: usize,
    /// Jobs that were submitted and not deleted since.
    submitted: Vec<String>,
    deleted: bool,
}

/// Why a recorded frame to the relay is not awaited.
fn skipped(frame: &Value, player: &Player<'_>) -> Option<&'static str> {
    let payload = &frame["payload"];
    let job = payload["job"].as_str().unwrap_or_default();
    match frame["type"].as_str() {
        Some("text: undefined") => Some("a page never sends this text (`metaframe` 5.2)"),
        Some("QueryJob") => Some("the full list and the submission ask as well (`metaframe` 5.4, 5.6)"),
        Some("StateChange")
            if payload["state"] == "Queued" && player.submitted.iter().any(|known| known == job) =>
        {
            Some("a job is submitted once (`metaframe` 5.4)")
        }
        Some("StateChange") if payload["value"]["reason"] == "Deleted" && player.deleted => {
            Some("Deleted is sent once (`metaframe` 5.6)")
        }
        _ => None,
    }
}

impl Player<'_> {
    async fn step(&mut self, event: &Value, rest: &[Value]) -> anyhow::Result<()> {
        let relay = &self.bench.relay;
        let data = &event["data"];
        match (event["kind"].as_str(), event["direction"].as_str(), event["ws"].as_str()) {
            (Some("post"), Some("host->metaframe"), _) => self.bench.host.post(&addressed(data)).await,
            (Some("post"), _, _) => {
                let said = nth(&self.bench.host, self.heard).await?;
                self.heard += 1;
                compare(&said, data)
            }
            (Some("action"), _, _) => match event["click"].as_str() {
                Some(button) => {
                    let names = match button.split('-').next() {
                        Some("Run") => RUN,
                        Some("Stop") => STOP,
                        _ => &["Delete"],
                    };
                    self.bench.page.press_one(names).await
                }
                // The message that it led to is the next event.
                None => Ok(()),
            },
            (_, _, Some("open")) => {
                relay
                    .awaits("a socket", 0, LIMIT, |what| matches!(what, What::Opened { .. }).then_some(()))
                    .await
            }
            (_, _, Some("queue->app")) => {
                prepare(relay, data, rest);
                relay.say(data);
                Ok(())
            }
            (_, _, Some("app->queue")) => self.expects_at_relay(data).await,
            _ => match event["http"].as_str() {
                Some(request) => awaits_request(relay, request).await,
                None => anyhow::bail!("an event of no known kind"),
            },
        }
    }

    async fn expects_at_relay(&mut self, frame: &Value) -> anyhow::Result<()> {
        if skipped(frame, self).is_some() {
            return Ok(());
        }
        let relay = &self.bench.relay;
        let from = self.at_relay;
        let (place, came) = wait::until("the frame to the relay", LIMIT, async || {
            let since = relay.since(from);
            let found = since
                .iter()
                .enumerate()
                .find_map(|(n, what)| Some((n, what.payload("StateChange")?.clone())));
            found.ok_or_else(|| in_short(&since))
        })
        .await?;
        self.at_relay = from + place + 1;
        let recorded = &frame["payload"];
        let job = recorded["job"].as_str().unwrap_or_default();
        match recorded["value"]["reason"].as_str() {
            None => self.submitted.push(job.to_owned()),
            Some("Deleted") => {
                self.deleted = true;
                self.submitted.retain(|known| known != job);
            }
            Some(_) => {}
        }
        same_json("the change", &timeless(&came), &timeless(recorded))
    }
}

/// Without times, and without what a page of ours says beyond the recorded one: its namespace in an ending (5.6).
fn timeless(payload: &Value) -> Value {
    let mut payload = payload.clone();
    payload["value"]["time"] = json!(0);
    if payload["state"] == "Finished"
        && let Some(value) = payload["value"].as_object_mut()
    {
        value.remove("namespace");
    }
    if let Some(payload) = payload.as_object_mut() {
        payload.remove("ref");
    }
    if let Some(enqueued) = payload["value"]["enqueued"].as_object_mut()
        && enqueued.get("debug") == Some(&json!(false))
    {
        enqueued.remove("debug");
    }
    payload
}

async fn nth(host: &Host, n: usize) -> anyhow::Result<Value> {
    let once = |said: Vec<Said>| -> Vec<Said> {
        let mut first = true;
        let mut kept = said;
        kept.retain(|said| !said.is("SetupIframeClientRequest") || std::mem::take(&mut first));
        kept
    };
    let said = wait::until("the message to the host", LIMIT, async || {
        let said = once(host.said().await.map_err(|error| error.to_string())?);
        said.get(n).cloned().ok_or_else(|| format!("{:?}", methods(&said)))
    })
    .await?;
    Ok(said.data)
}

fn addressed(data: &Value) -> Value {
    let mut data = data.clone();
    data["parentId"] = json!(ID);
    data["params"]["parentId"] = json!(ID);
    data
}

fn compare(came: &Value, recorded: &Value) -> anyhow::Result<()> {
    same_json("method", &came["method"], &recorded["method"])?;
    let (mut came, mut recorded) = (came["params"].clone(), recorded["params"].clone());
    for params in [&mut came, &mut recorded] {
        let Some(params) = params.as_object_mut() else { continue };
        for value in params.values_mut() {
            // Of Blobs the recorded page sends a wrong size, and nothing of what it fetched (5.8).
            if value["_c"] == "Blob" {
                *value = json!("a Blob");
            }
        }
    }
    same_json("params", &came, &recorded)
}

/// Requests for results may name the queue (5.8).
async fn awaits_request(relay: &Relay, request: &str) -> anyhow::Result<()> {
    let (method, path) = request.split_once(' ').context("no method")?;
    let path = path.to_owned();
    relay
        .awaits(request, 0, LIMIT, |what| {
            let came = what.request(method)?;
            (came == path || came == format!("/q/q1{path}")).then_some(())
        })
        .await
}

/// Serves the result that the next `Finished` stands for, as the recorded outputs show it.
fn prepare(relay: &Relay, frame: &Value, rest: &[Value]) {
    let Some(jobs) = frame["payload"]["state"]["jobs"].as_object() else { return };
    let Some((id, entry)) = jobs.iter().find(|(_, entry)| entry["state"] == "Finished") else { return };
    // The one after the result was fetched.
    let fetched = rest
        .iter()
        .position(|event| event["http"].as_str().is_some_and(|http| http.ends_with("result.json")));
    let after = &rest[fetched.unwrap_or_default()..];
    let next = after.iter().find(|event| event["data"]["method"] == "OutputsUpdate");
    let params = next.map(|event| event["data"]["params"].clone()).unwrap_or_default();
    let mut outputs = serde_json::Map::new();
    for (name, value) in
        params.as_object().into_iter().flatten().filter(|(name, _)| *name != "job/result.json")
    {
        let reference = match (value["_c"].as_str(), name.as_str()) {
            (Some(_), "small.txt") => json!({ "type": "base64", "value": "aGk=" }),
            (Some(_), _) => json!({ "type": "url", "value": format!("{}/f/abcd", relay.url()) }),
            (None, _) => value.clone(),
        };
        outputs.insert(name.clone(), reference);
    }
    relay.put_blob("abcd", "twelve bytes");
    let mut result =
        json!({ "StatusCode": 0, "duration": 1234, "isTimedOut": false, "logs": [], "outputs": outputs });
    let sent = &params["job/result.json"];
    if sent.is_object() {
        let defined =
            |name: &str| if sent[name]["$undefined"] == true { Value::Null } else { sent[name].clone() };
        let mut logs: Vec<Value> = ["stdout", "stderr"]
            .iter()
            .flat_map(|name| sent[*name].as_array().cloned().unwrap_or_default())
            .collect();
        logs.sort_by_key(|line| line[1].as_u64());
        let fields = [
            ("StatusCode", defined("statusCode")),
            ("error", defined("error")),
            ("duration", defined("duration")),
            ("isTimedOut", defined("isTimedOut")),
            ("logs", json!(logs)),
        ];
        for (name, value) in fields {
            if value.is_null() {
                result.as_object_mut().map(|result| result.remove(name));
            } else {
                result[name] = value;
            }
        }
    }
    relay.set(|settings| settings.result = Answer::Honest);
    relay.put(id, entry.clone(), Some(result));
}
