//! `job-definition.json`: addresses and inputs, and the jobs that they give.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::load;
use crate::check::{same, same_json};
use crate::page::relay::{Relay, SOON, Way, What};
use crate::page::setup::Test;

/// Where the specification wants something else than was recorded: entry, place in `enqueued`, value.
fn ours_instead(name: &str) -> Option<(&'static str, Value)> {
    match name {
        // An older frame's object is the bytes it stands for (4.3).
        "inputs that are datarefs already" => {
            Some(("/definition/inputs/refc", json!({ "value": "aGk=", "type": "base64" })))
        }
        // A boolean is a file like any other value (5.5).
        "inputs of every kind" => {
            Some(("/definition/inputs/bool.x", json!({ "value": true, "type": "json" })))
        }
        // The setting has an effect (5.1).
        "system params never reach env" => Some(("/control/maxDuration", json!("10m"))),
        _ => None,
    }
}

pub(crate) async fn replay(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    let elsewhere = relay.url();
    let vectors = load("job-definition.json", &elsewhere)?;
    let bench = test.scripted(relay, "", &Value::Null).await?;
    for entry in vectors["vectors"].as_array().context("no vectors")? {
        let name = entry["name"].as_str().unwrap_or_default();
        one(&bench.host, &bench.relay, entry, name).await.with_context(|| name.to_owned())?;
    }
    Ok(())
}

async fn one(host: &crate::page::host::Host, relay: &Relay, entry: &Value, name: &str) -> anyhow::Result<()> {
    let url = entry["url"].as_str().context("no url")?;
    let (_, fragment) = url.split_once('#').unwrap_or_default();
    let queue = entry["queue"].as_str().unwrap_or_default();
    // What leads away from this machine or to a fixed port is shown by item 34.
    let is_elsewhere = queue == "local" || queue.starts_with("http");
    let separator = if fragment.contains('?') { "&" } else { "?" };
    let hash = format!("#{fragment}{separator}autostart=true");
    // The page of the entry before may still be speaking.
    let before = relay.mark();
    host.load("about:blank", &Value::Null).await?;
    if relay.open_sockets() > 0 {
        relay
            .awaits("the end of the page before", before, SOON, |what| {
                matches!(what, What::Closed { .. }).then_some(())
            })
            .await?;
    }
    let mark = relay.mark();
    let inputs = revived(&entry["inputs"]);
    host.load(&format!("{}/{hash}", relay.url()), &json!({ "state": { "inputs": inputs } })).await?;
    let expected = &entry["job"];
    if expected.is_null() || is_elsewhere {
        host.says("SetupIframeServerResponseAck", 0).await?;
        return relay.stays_quiet(mark, Duration::from_millis(700)).await;
    }
    let came = relay.submission(mark).await?;
    let mut definition = expected["definition"].clone();
    let mut control = expected["control"].clone();
    if let Some((place, value)) = ours_instead(name) {
        if let Some(place) = place.strip_prefix("/definition/inputs/") {
            definition["inputs"][place] = value;
        } else {
            control["maxDuration"] = value;
        }
    }
    same_json("the definition", &came["definition"], &definition)?;
    same_json("control", &came["control"], &control)?;
    same("debug", &(came["debug"] == true), &(expected["debug"] == true))?;
    // Uploads are at this relay, so the id of a job with one is another than recorded.
    same("the id", &came["id"], &json!(crate::test::job_id(&definition)?))?;
    let path = relay
        .awaits("a socket", mark, SOON, |what| match what {
            What::Opened { path, .. } => path.split('?').next().map(str::to_owned),
            _ => None,
        })
        .await?;
    same("the queue", &path, &format!("/q/{queue}/client"))?;
    let mut wanted: Vec<String> = entry["uploads"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|upload| Some(upload["url"].as_str()?.rsplit_once("/f/")?.1.to_owned()))
        .collect();
    wanted.retain(|sha256| relay.blob(sha256).is_none());
    same("uploads that did not come", &wanted, &Vec::new())
}

/// In the markers of the scripted host.
fn revived(inputs: &Value) -> Value {
    use base64::Engine as _;
    let mut inputs = if inputs.is_object() { inputs.clone() } else { json!({}) };
    for value in inputs.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        if let Some(text) = value["$text"].as_str() {
            value["$base64"] = json!(base64::engine::general_purpose::STANDARD.encode(text));
        }
    }
    inputs
}
