//! `postmessage-trace-*`: what a real host sent to a metaframe that answers each input with an output.
//!
//! The page under test is such a metaframe with a job whose outputs are its inputs, so the same kinds of messages are
//! to come, in the same order. Values are files here: a number comes back as its text.

use std::time::Duration;

use anyhow::Context as _;
use dockframe_tests::wait;
use serde_json::{Value, json};

use super::load;
use crate::check::that;
use crate::page::host::{Host, ID, Said, methods};
use crate::page::relay::Way;
use crate::page::setup::{Hash, Test};

pub(super) const FILES: [&str; 12] = [
    "postmessage-trace-binary.json",
    "postmessage-trace-debug.json",
    "postmessage-trace-hash-change-by-host.json",
    "postmessage-trace-hash-change-by-metaframe.json",
    "postmessage-trace-input-update.json",
    "postmessage-trace-output-update.json",
    "postmessage-trace-pipe.json",
    "postmessage-trace-reload-by-host.json",
    "postmessage-trace-retry.json",
    "postmessage-trace-set-inputs-by-metaframe.json",
    "postmessage-trace-setup-initial-inputs.json",
    "postmessage-trace-setup.json",
];

/// A recorded message that the page under test does not send, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    pub(super) file: &'static str,
    pub(super) seq: u64,
    pub(super) reason: &'static str,
}

pub(super) const DIFFERENCES: [Difference; 2] = [
    Difference {
        file: "postmessage-trace-setup-initial-inputs.json",
        seq: 7,
        reason: "Equal inputs start no second job, so their result is not sent again (`metaframe` 1.6).",
    },
    Difference {
        file: "postmessage-trace-set-inputs-by-metaframe.json",
        seq: 7,
        reason: "A page of jobs stores no inputs of its own (`metaframe` 1.6).",
    },
];

pub(crate) async fn all(test: Test) -> anyhow::Result<()> {
    for file in FILES {
        let recording = load(file, "https://page.example")?;
        let trace = recording["trace"].as_array().context("no trace")?;
        let mut frames: Vec<&str> = trace.iter().filter_map(|event| event["frame"].as_str()).collect();
        frames.sort_unstable();
        frames.dedup();
        for frame in frames {
            let events: Vec<&Value> = trace.iter().filter(|event| event["frame"] == frame).collect();
            replay(&test, file, frame, &events, &recording)
                .await
                .with_context(|| format!("{file}, {frame}"))?;
        }
    }
    Ok(())
}

/// The hash of a recorded address, with a job that runs by itself.
fn hash_of(recording: &Value, frame: &str, test: &Test) -> String {
    let url = recording["definition"]["metaframes"][frame]["url"].as_str().unwrap_or_default();
    let more = Hash::auto(&test.queue(), &test.job()).with("resolverefs", "true").text();
    match url.split_once('#') {
        Some((_, hash)) => format!("#{hash}&{}", more.trim_start_matches("#?")),
        None => more,
    }
}

async fn replay(
    test: &Test,
    file: &str,
    frame: &str,
    events: &[&Value],
    recording: &Value,
) -> anyhow::Result<()> {
    let relay = test.relay(Way::Old).await?;
    // One recording is of a metaframe that answers nothing.
    let echoes = events.iter().any(|event| event["data"]["params"].to_string().contains("\"echo/"));
    relay.set(|settings| settings.echoes = echoes);
    let hash = hash_of(recording, frame, test);
    let bench = test.scripted_as(frame, relay, &hash, &Value::Null).await?;
    // How many messages of the page are compared; requests that were repeated count as one.
    let mut heard = 0;
    for (n, event) in events.iter().enumerate() {
        let data = &event["data"];
        if event["direction"] == "host->metaframe" {
            bench.host.post(&addressed(data)).await?;
            continue;
        }
        if DIFFERENCES.iter().any(|known| known.file == file && event["seq"] == known.seq) {
            continue;
        }
        if data["method"] == "HashParamsUpdate" {
            change_hash(&bench.host, file, &hash, &bench.relay.url()).await?;
        }
        // A second handshake is that of a reloaded page.
        if data["method"] == "SetupIframeClientRequest" {
            let is_repeated = n > 0 && events[n - 1]["data"]["method"] == "SetupIframeClientRequest";
            if is_repeated {
                continue;
            }
            if n > 0 {
                bench.host.goto(&format!("{}/?x=1{hash}", bench.relay.url())).await?;
            }
        }
        let said = wait::until(&format!("message {}", event["seq"]), Duration::from_secs(20), async || {
            let said = without_repetitions(bench.host.said().await.map_err(|error| error.to_string())?);
            said.get(heard).cloned().ok_or_else(|| format!("{:?}", methods(&said)))
        })
        .await?;
        heard += 1;
        compare(&said.data, data)?;
    }
    wait::stays("the messages", Duration::from_millis(600), async || {
        let said = without_repetitions(bench.host.said().await.map_err(|error| error.to_string())?);
        let intended: Vec<_> =
            DIFFERENCES.iter().filter(|known| known.file == file).map(|known| known.reason).collect();
        if said.len() == heard {
            Ok(())
        } else {
            Err(format!("{:?}, {heard} recorded, {intended:?}", methods(&said)))
        }
    })
    .await
}

/// The recorded change, by whom it was made.
async fn change_hash(host: &Host, file: &str, hash: &str, origin: &str) -> anyhow::Result<()> {
    if file.contains("by-host") {
        return host.goto(&format!("{origin}/{}", hash.replace("greeting=one", "greeting=two"))).await;
    }
    let changed = hash.replace("#/queue/1?", "#/queue/1?greeting=hi&");
    host.frame().run("location.hash = arguments[0]", &[json!(changed)]).await?;
    Ok(())
}

/// A message of the recorded host, as the scripted one sends it.
fn addressed(data: &Value) -> Value {
    let mut data = data.clone();
    data["parentId"] = json!(ID);
    if !data["params"]["parentId"].is_null() {
        data["params"]["parentId"] = json!(ID);
    }
    data
}

/// Requests are repeated until they are answered, as often as it takes.
fn without_repetitions(said: Vec<Said>) -> Vec<Said> {
    let mut kept: Vec<Said> = Vec::new();
    for one in said {
        let is_repeated = one.is("SetupIframeClientRequest")
            && kept.last().is_some_and(|last| last.is("SetupIframeClientRequest"));
        if !is_repeated {
            kept.push(one);
        }
    }
    kept
}

fn compare(came: &Value, recorded: &Value) -> anyhow::Result<()> {
    that(&format!("{}", recorded["method"]), came["method"] == recorded["method"], came)?;
    let (came, recorded) = (&came["params"], &recorded["params"]);
    if let Some(hash) = recorded["hash"].as_str() {
        let parameter = if hash.contains("two") { "greeting=two" } else { "greeting=hi" };
        return that(parameter, came["hash"].as_str().is_some_and(|hash| hash.contains(parameter)), came);
    }
    for (name, value) in recorded.as_object().into_iter().flatten() {
        // What the recorded metaframe had set by itself, and what is deleted or no file.
        let is_none = value.is_null() || value["$undefined"] == true || !name.starts_with("echo/");
        if is_none {
            continue;
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let wanted = text(value);
        let content = |text: &str| text.split_once("base64,").map(|(_, content)| content.to_owned());
        let came = &came[name];
        let fits = match came {
            Value::Object(blob) if blob.contains_key("_s") => {
                let bytes = content(&wanted).or_else(|| value["$base64"].as_str().map(str::to_owned));
                bytes.as_deref() == came["value"].as_str()
            }
            other => text(other) == wanted,
        };
        that(&format!("{name} with {wanted}"), fits, came)?;
    }
    Ok(())
}
