//! The metaframe's definition (`metaframe` 2; items 15, 16).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use crate::check::{same, that};
use crate::page::relay::Way;
use crate::page::setup::{Hash, Test};
use crate::registry::{Item, item};

/// The parameters that a page of this protocol owns (`metaframe` 5.1).
const OWN: [&str; 14] = [
    "allowsetjob",
    "autostart",
    "config",
    "control",
    "debug",
    "definition",
    "ignoreQueueOverride",
    "inputs",
    "job",
    "maxJobDuration",
    "queue",
    "queueOverride",
    "resolverefs",
    "terminal",
];

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!(
            "15",
            Compat,
            "metaframe.json is served across origins and lists what hosts must keep, below any path of the page.",
            file
        ),
        item!(
            "16",
            Dockframe,
            "The settings write a definition with version, allow, inputs and outputs; an empty one is removed.",
            parameter
        ),
    ]
}

async fn file(test: Test) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for path in ["metaframe.json", &format!("j/{}/metaframe.json", "0".repeat(64))] {
        let answer = http.get(test.page_url(path)?).header("origin", "https://host.example").send().await?;
        same(&format!("status of {path}"), &answer.status().as_u16(), &200)?;
        let origin = answer.headers().get("access-control-allow-origin").cloned();
        that("Access-Control-Allow-Origin: *", origin.as_ref().is_some_and(|origin| origin == "*"), &origin)?;
        let definition: Value = answer.json().await?;
        same("version", &definition["version"], &json!("2"))?;
        let allow = definition["allow"].as_str().unwrap_or_default();
        that("allow: clipboard-write", allow.contains("clipboard-write"), &definition)?;
        for name in OWN {
            let listed = match &definition["hashParams"] {
                Value::Array(names) => names.contains(&json!(name)),
                names => names.get(name).is_some(),
            };
            that(&format!("{name} in hashParams"), listed, &definition["hashParams"])?;
        }
    }
    Ok(())
}

/// The definition in a reported hash.
fn definition_in(hash: &str) -> Option<Value> {
    let (_, value) = hash.split_once("definition=")?;
    let value = value.split('&').next()?;
    let bytes = STANDARD.decode(value.replace("%3D", "=")).ok()?;
    let text = percent_encoding::percent_decode(&bytes).decode_utf8().ok()?.into_owned();
    serde_json::from_str(&text).ok()
}

async fn parameter(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job())
        .with_json("definition", &json!({ "version": "2", "own": 1 }));
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash.text(), &no_inputs()).await?;
    bench.page.press_starting("Settings").await?;
    bench.page.press("Definition").await?;
    // The first field for a name in this tab is that of an input.
    bench.page.frame().fill("main form input[type=text]", "points.csv").await?;
    bench.page.frame().keys("main form input[type=text]", "\n").await?;
    let told = bench.host.says("HashParamsUpdate", 0).await?;
    let definition = told["params"]["hash"].as_str().and_then(definition_in).unwrap_or_default();
    same("version", &definition["version"], &json!("2"))?;
    same("a field that the page does not know", &definition["own"], &json!(1))?;
    that("the input", !definition["inputs"]["points.csv"].is_null(), &definition)?;
    that(
        "allow",
        definition["allow"].as_str().is_some_and(|allow| allow.contains("clipboard-write")),
        &definition,
    )
}
