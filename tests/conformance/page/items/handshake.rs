//! Messages: the handshake and what the page accepts (`metaframe` 1.2 to 1.5; items 1 to 6, 13, 40).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::inputs_of;
use crate::check::{same, same_json, that};
use crate::page::host::{ID, NAME, Said, methods};
use crate::page::relay::{Way, id_of, with_outputs};
use crate::page::setup::{Hash, Test};
use crate::registry::{Item, item};

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("1", Compat, "Each message has the envelope, numbered from 1, and is an object.", envelope),
        item!("2", Compat, "The request is repeated with pauses from 0.2 s to 5 s until it is answered, then no more.", retries).long(),
        item!("3", Compat, "The first answer names the host; later ones are ignored.", first_answer_counts),
        item!("4", Compat, "The answer's inputs are used, raw binary values among them, and may be missing.", answers_inputs),
        item!("5", Compat, "The answer is acknowledged with a version, then all outputs so far are sent in one message.", acknowledges),
        item!("6", Compat, "What is no message of the host's is ignored.", ignores_the_rest),
        item!("13", Compat, "No MessageAck is awaited, and binary outputs of any size are sent whole.", large_binary_output),
        item!("40", Dockframe, "Nothing runs before the host answered, whose inputs are in the only job; a silent host is given up after 10 s.", waits_for_the_host).long(),
    ]
}

/// An answer without inputs.
pub(crate) fn no_inputs() -> Value {
    json!({ "state": { "inputs": {} } })
}

async fn envelope(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let outputs = json!({ "a.txt": { "type": "utf8", "value": "text" } });
    bench.relay.runs_to_the_end(0, with_outputs(&outputs)).await?;
    bench.host.says("OutputsUpdate", 1).await?;
    bench.page.frame().run("location.hash = location.hash + '&later=1'", &[]).await?;
    bench.host.says("HashParamsUpdate", 0).await?;
    let said = bench.host.said().await?;
    let mut parent = json!({ "$undefined": true });
    for (n, Said { data, .. }) in said.iter().enumerate() {
        if data["method"] == "SetupIframeServerResponseAck" {
            parent = json!(ID);
        }
        let fields = json!({ "jsonrpc": "2.0", "id": n + 1, "iframeId": NAME, "parentId": parent });
        for (name, wanted) in fields.as_object().into_iter().flatten() {
            same_json(&format!("{name} of message {}", n + 1), &data[name], wanted)?;
        }
        that("a method and params", data["method"].is_string() && data["params"].is_object(), data)?;
    }
    Ok(())
}

async fn retries(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &Value::Null).await?;
    let times = bench
        .host
        .awaits("seven requests", Duration::from_secs(25), |said| {
            let requests: Vec<f64> =
                said.iter().filter(|said| said.is("SetupIframeClientRequest")).map(|said| said.ms).collect();
            (requests.len() >= 7).then_some(requests)
        })
        .await?;
    let nominal = [200.0, 400.0, 800.0, 1600.0, 3200.0, 5000.0];
    // While the page still loads the first messages wait for each other.
    let first = times[2] - times[0];
    that("the first three within a second or so", first < 1500.0, &times)?;
    for (pair, wanted) in times.windows(2).zip(nominal).skip(2) {
        let pause = pair[1] - pair[0];
        let fits = pause > wanted - 40.0 && pause < wanted + 700.0;
        that(&format!("a pause of about {wanted} ms"), fits, &times)?;
    }
    bench.host.answers(&no_inputs()).await?;
    bench.host.says("SetupIframeServerResponseAck", 0).await?;
    let requests = |said: &[Said]| said.iter().filter(|said| said.is("SetupIframeClientRequest")).count();
    let before = requests(&bench.host.said().await?);
    dockframe_tests::wait::stays("no more requests", Duration::from_secs(6), async || {
        let now = requests(&bench.host.said().await.map_err(|error| error.to_string())?);
        if now == before { Ok(()) } else { Err(format!("{now} requests, {before} when it was answered")) }
    })
    .await
}

async fn first_answer_counts(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    let other = json!({ "iframeId": NAME, "parentId": "other001", "version": "2",
        "state": { "inputs": { "wrong.txt": "wrong" } } });
    let envelope = json!({ "jsonrpc": "2.0", "id": "_", "iframeId": NAME, "parentId": "other001",
        "method": "SetupIframeServerResponse", "params": other });
    bench.host.post(&envelope).await?;
    bench.host.inputs(json!({ "right.txt": "right" })).await?;
    let next = bench.relay.submission_of_another(&first, 0).await?;
    same_json(
        "the inputs",
        &inputs_of(&next),
        &json!({ "right.txt": { "type": "utf8", "value": "right" } }),
    )?;
    let said = bench.host.said().await?;
    let acks = said.iter().filter(|said| said.is("SetupIframeServerResponseAck")).count();
    same("acknowledgements", &acks, &1)
}

async fn answers_inputs(test: Test) -> anyhow::Result<()> {
    let raw = |kind: &str| json!({ "$type": kind, "$base64": "AQIDBA==" });
    let inputs = json!({
        "u8": raw("Uint8Array"), "i16": raw("Int16Array"), "buffer": raw("ArrayBuffer"),
        "blob": { "$type": "Blob", "mime": "text/plain", "$base64": "aGk=" },
        "file": { "$type": "File", "name": "x.txt", "mime": "text/plain", "$base64": "aGk=" },
        "text": "hi", "data": "data:application/octet-stream;base64,aGk=",
    });
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let relay = test.relay(Way::Old).await?;
    let bench = test.scripted(relay, &hash, &json!({ "state": { "inputs": inputs } })).await?;
    let base64 = |value: &str| json!({ "type": "base64", "value": value });
    let expected = json!({
        "u8": base64("AQIDBA=="), "i16": base64("AQIDBA=="), "buffer": base64("AQIDBA=="),
        "blob": base64("aGk="), "file": base64("aGk="), "data": base64("aGk="),
        "text": { "type": "utf8", "value": "hi" },
    });
    same_json("the inputs", &inputs_of(&bench.relay.submission(0).await?), &expected)?;

    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &json!({})).await?;
    same_json("inputs without a state", &inputs_of(&bench.relay.submission(0).await?), &Value::Null)
}

async fn acknowledges(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job()).text();
    let hosted = test.hosted(Way::Old, &hash).await?;
    hosted.host.says(NAME, "OutputsUpdate").await?;
    let said = hosted.host.said_by(NAME).await?;
    let said: Vec<Said> = said.into_iter().map(|data| Said { ms: 0.0, data }).collect();
    let requests = said.iter().take_while(|said| said.is("SetupIframeClientRequest")).count();
    that("a request first", requests >= 1, &methods(&said))?;
    let [ack, outputs] = &said[requests..requests + 2] else { unreachable!("two were awaited") };
    same("after the request", &ack.data["method"], &json!("SetupIframeServerResponseAck"))?;
    let version = ack.data["params"]["version"].as_str().unwrap_or_default();
    that("a version that is not empty", !version.is_empty(), &ack.data)?;
    same("after the acknowledgement", &outputs.data["method"], &json!("OutputsUpdate"))?;
    same_json("what was set before", &outputs.data["params"], &json!({}))
}

async fn ignores_the_rest(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    let wrong = json!({ "inputs": { "wrong.txt": "wrong" }, "parentId": ID });
    let message = |change: &str, value: Value| {
        let mut message = json!({ "jsonrpc": "2.0", "id": "_", "iframeId": NAME, "parentId": ID,
            "method": "InputsUpdate", "params": wrong });
        message[change] = value;
        message
    };
    let strange = [
        json!("text"),
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!(message("x", json!(1)).to_string()),
        message("jsonrpc", json!("1.0")),
        message("parentId", json!("other001")),
        message("iframeId", json!("other")),
        message("method", json!("Foreign")),
        message("method", json!({})),
        message("params", json!(null)),
        message("params", json!({ "inputs": 7 })),
    ];
    for data in &strange {
        bench.host.post(data).await?;
    }
    // From the frame's own window, which is not the host.
    bench.page.frame().run("window.postMessage(arguments[0], '*')", &[message("id", json!("_"))]).await?;
    bench.host.inputs(json!({ "right.txt": "right" })).await?;
    let next = bench.relay.submission_of_another(&first, 0).await?;
    same_json("the inputs", &inputs_of(&next), &json!({ "right.txt": { "type": "utf8", "value": "right" } }))
}

async fn large_binary_output(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).with("resolverefs", "true").text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let content: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    bench.relay.put_blob("large", content.clone());
    let url = format!("{}/f/large", bench.relay.url());
    let result = with_outputs(&json!({ "large.bin": { "type": "url", "value": url } }));
    bench.relay.runs_to_the_end(0, result).await?;
    let sent = bench.host.says("OutputsUpdate", 1).await?["params"]["large.bin"].take();
    // Either form of a Blob (`metaframe` 1.9, 5.8).
    let encoded = match &sent {
        Value::String(text) => text.split_once("base64,").map(|(_, encoded)| encoded.to_owned()),
        object => object["value"].as_str().map(str::to_owned),
    };
    let bytes = STANDARD.decode(encoded.unwrap_or_default())?;
    that("the whole content", bytes == content, &bytes.len())
}

async fn waits_for_the_host(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    // A host that answers late: one job, with its inputs.
    let late = test.scripted(test.relay(Way::Watch).await?, &hash, &Value::Null).await?;
    late.relay.stays_quiet(0, Duration::from_secs(3)).await?;
    late.host.answers(&json!({ "state": { "inputs": { "a.txt": "early" } } })).await?;
    late.host
        .send(
            "SetupIframeServerResponse",
            &json!({
                "iframeId": NAME, "parentId": ID, "version": "2", "state": { "inputs": { "a.txt": "early" } },
            }),
        )
        .await?;
    let only = late.relay.submission(0).await?;
    same_json("the inputs", &inputs_of(&only), &json!({ "a.txt": { "type": "utf8", "value": "early" } }))?;
    // Alone: at once.
    let relay = test.relay(Way::Watch).await?;
    test.alone(&relay, &hash).await?;
    relay.submission(0).await?;
    // A host that never answers: after 10 s, without inputs.
    let begin = std::time::Instant::now();
    let silent = test.scripted(test.relay(Way::Watch).await?, &hash, &Value::Null).await?;
    silent.relay.stays_quiet(0, Duration::from_secs(8)).await?;
    silent.relay.submission(0).await?;
    that("about 10 s", begin.elapsed() < Duration::from_secs(25), &begin.elapsed())?;
    same("submissions with the late host", &late.relay.submissions(0).len(), &1)
}
