//! From the address and the inputs to a job (`metaframe` 4, 5.3; items 21, 24, 25, 49).

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::handshake::no_inputs;
use super::inputs_of;
use super::screen::RUN;
use crate::check::{same, same_json, that};
use crate::page::relay::{Way, What, id_of};
use crate::page::replay::jobs;
use crate::page::setup::{Hash, Test};
use crate::registry::{Item, item};

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("21", Compat, "Every recorded address gives its job: definition, id, uploads and queue.", jobs::replay).long(),
        item!("24", Compat, "Large inputs are uploaded under their SHA-256, once, before the job is queued, redirects followed.", uploads),
        item!("25", Compat, "Data URLs and references among the inputs are read by their kind.", references),
        item!("49", Dockframe, "An upload that failed is said, disables Run, and can be tried again; the former job is not run in its place.", failed_upload).long(),
    ]
}

fn sha256(content: &str) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn uploads(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let relay = test.relay(Way::Old).await?;
    relay.set(|settings| settings.redirects = true);
    let large = format!("large {} ", test.queue()).repeat(10);
    let answers = json!({ "state": { "inputs": { "a": large, "edge": "x".repeat(200) } } });
    let bench = test.scripted(relay, &hash, &answers).await?;
    let first = bench.relay.submission(0).await?;
    let sha256 = sha256(&large);
    let place = format!("{}/f/{sha256}", bench.relay.url());
    let reference = json!({ "type": "url", "value": place, "hash": sha256 });
    let inputs = inputs_of(&first);
    same_json("the large one", &inputs["a"], &reference)?;
    same("the one of 200 characters", &inputs["edge"]["type"], &json!("utf8"))?;
    same("the content", &bench.relay.blob(&sha256).as_deref(), &Some(large.as_bytes()))?;
    let came = bench.relay.since(0);
    let put = came.iter().position(|what| what.request("PUT").is_some());
    let queued = came.iter().position(|what| what.change("Queued").is_some());
    that("the upload before the submission", put < queued, &(put, queued))?;
    // The same content by another name: no second upload.
    bench.host.inputs(json!({ "b": large })).await?;
    let second = bench.relay.submission_of_another(&id_of(&first)?, 0).await?;
    same_json("the same content", &inputs_of(&second)["b"], &reference)?;
    let path = format!("/f/{sha256}");
    let puts = bench.relay.since(0).iter().filter(|what| what.request("PUT") == Some(&path)).count();
    same("uploads of it", &puts, &1)
}

async fn references(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let base64 = |value: &str| json!({ "type": "base64", "value": value });
    let kinds = [
        ("data:text/plain;charset=utf-8,a%20b", json!({ "type": "utf8", "value": "a b" })),
        (
            "data:application/json;charset=utf-8,%7B%22a%22%3A1%7D",
            json!({ "type": "json", "value": { "a": 1 } }),
        ),
        ("data:application/json,%7Bbroken", json!({ "type": "utf8", "value": "{broken" })),
        ("data:application/octet-stream;base64,aGk=", base64("aGk=")),
        ("data:application/octet-stream;type=Uint8Array;base64,AQI=", base64("AQI=")),
        ("data:text/plain;base64;type=Blob,aGk=", base64("aGk=")),
        (
            "data:text/x-uri;charset=utf-8,https%3A%2F%2Fexample.org%2Fx",
            json!({ "type": "url", "value": "https://example.org/x" }),
        ),
        (
            "data:text/x-uri,https%3A%2F%2Fexample.org%2Fy",
            json!({ "type": "url", "value": "https://example.org/y" }),
        ),
        ("data:no comma", json!({ "type": "utf8", "value": "data:no comma" })),
        ("DATA:text/plain,x", json!({ "type": "utf8", "value": "DATA:text/plain,x" })),
    ];
    let mut inputs = json!({
        "object": { "type": "base64", "value": "aGk=" }, "old": { "_s": true, "_c": "Blob", "value": "aGk=", "size": 2 },
        "/abs/one": "x", "dir/two": 2, "list": [1],
    });
    let mut expected = json!({
        "object": base64("aGk="), "old": base64("aGk="), "abs/one": { "type": "utf8", "value": "x" },
        "dir/two": { "type": "utf8", "value": "2" }, "list": { "type": "json", "value": [1] },
    });
    for (n, (given, wanted)) in kinds.into_iter().enumerate() {
        inputs[format!("in{n}")] = json!(given);
        expected[format!("in{n}")] = wanted;
    }
    // By InputsUpdate: what the answer holds a real library has decoded.
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    bench.host.inputs(inputs).await?;
    let next = inputs_of(&bench.relay.submission_of_another(&first, 0).await?);
    for (name, wanted) in expected.as_object().into_iter().flatten() {
        same_json(name, &next[name], wanted)?;
    }
    same(
        "how many",
        &next.as_object().map(serde_json::Map::len),
        &expected.as_object().map(serde_json::Map::len),
    )
}

async fn failed_upload(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash, &no_inputs()).await?;
    bench.page.has_one(RUN, Some(true)).await?;
    bench.relay.set(|settings| settings.takes_uploads = false);
    bench.host.inputs(json!({ "large.txt": "failing ".repeat(100) })).await?;
    bench.page.has_one(RUN, Some(false)).await?;
    // Nine tries take 25.5 s; then it is said.
    wait::until("the failure", Duration::from_secs(45), async || {
        bench.page.has_one(&["Try again"], Some(true)).await.map_err(|error| error.to_string())
    })
    .await?;
    bench.page.has_one(RUN, Some(false)).await?;
    that("nothing submitted", bench.relay.submissions(0).is_empty(), &bench.relay.submissions(0))?;
    bench.relay.set(|settings| settings.takes_uploads = true);
    bench.page.press("Try again").await?;
    bench.page.has_one(RUN, Some(true)).await?;
    bench.page.press_one(RUN).await?;
    let submitted: Value = inputs_of(&bench.relay.submission(0).await?);
    same("the input", &submitted["large.txt"]["type"], &json!("url"))?;
    let puts = bench
        .relay
        .since(0)
        .iter()
        .filter(|what| matches!(what, What::Request { method, .. } if method == "PUT"))
        .count();
    same("tries", &puts, &10)
}
