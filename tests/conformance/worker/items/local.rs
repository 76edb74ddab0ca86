//! 71 to 74: local mode, the worker that is its own relay.

use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::process::Process;
use dockframe_tests::{ports, wait};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Item;
use crate::check::{same, that};
use crate::registry::item;
use crate::worker::bench::PATIENT;
use crate::worker::setup::{START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("71a", Compat, "Local mode answers health, files, jobs, results and logs.", rows),
        item!("71b", Compat, "Outputs are the bytes themselves, in as many segments as they have.", outputs),
        item!("71c", Dockframe, "Ranges are answered, and inline inputs are decoded.", ranges_and_inputs),
        item!("72", Dockframe, "A key is one segment, and 64 hex digits must be the content's.", keys),
        item!("73", Dockframe, "A foreign page may not use this machine.", foreign_origin),
        item!("74", Compat, "A job goes from POST to its fetched outputs by this program alone.", whole_way),
    ]
}

struct Local {
    base: String,
    http: Client,
    _process: Arc<Process>,
}

async fn local(t: &Test) -> anyhow::Result<Local> {
    let address = ports::free()?;
    let id = t.worker_id("local");
    t.owns_worker(&id);
    let data = t.folder()?.join("local");
    let words = [
        "--mode=local".to_owned(),
        format!("--port={}", address.port()),
        format!("--data-directory={}", data.display()),
        format!("--id={id}"),
    ];
    let process = t.launch_with(&words, &[])?;
    let base = format!("http://localhost:{}", address.port());
    let http = Client::builder().timeout(Duration::from_secs(30)).build()?;
    wait::until("a healthy local mode", START, async || {
        match http.get(format!("{base}/healthz")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
            other => Err(format!("{other:?}; {}", process.output())),
        }
    })
    .await?;
    Ok(Local { base, http, _process: process })
}

impl Local {
    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let (status, text) = self.get(path).await?;
        anyhow::ensure!(status == StatusCode::OK, "{path} answers {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn run(&self, definition: &Value) -> anyhow::Result<(String, Value)> {
        let url = format!("{}/q/local", self.base);
        let answer: Value =
            self.http.post(url).json(&json!({ "definition": definition })).send().await?.json().await?;
        that("success", answer["success"] == true, &answer)?;
        let job = answer["jobId"].as_str().unwrap_or_default().to_owned();
        let result = wait::until("the result", PATIENT, async || {
            let result = self.json(&format!("/q/local/j/{job}/result.json")).await;
            match result.map_err(|error| error.to_string())?["data"].take() {
                Value::Null => Err("none".to_owned()),
                result => Ok(result),
            }
        })
        .await?;
        Ok((job, result))
    }
}

async fn rows(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    same("health", &local.get("/health").await?.0, &StatusCode::OK)?;
    let put = local.http.put(format!("{}/f/some-key", local.base)).body("content").send().await?;
    that("a stored file", put.status().is_success(), &put.status())?;
    same("the file", &local.get("/f/some-key").await?.1.as_str(), &"content")?;
    same(
        "exists",
        &local.get("/f/some-key/exists").await?,
        &(StatusCode::OK, r#"{"exists":true}"#.to_owned()),
    )?;
    same("exists not", &local.get("/f/no-key/exists").await?.0, &StatusCode::NOT_FOUND)?;
    same("no file", &local.get("/f/no-key").await?.0, &StatusCode::NOT_FOUND)?;
    let (job, _) = local.run(&t.sh(&format!("echo {}", t.nonce()))).await?;
    that("the job in the list", local.json("/q/local").await?["data"][&job].is_object(), &job)?;
    that(
        "its definition",
        local.get(&format!("/j/{job}/definition.json")).await?.1.contains(t.nonce()),
        &job,
    )?;
    that(
        "its lines",
        local.get(&format!("/q/local/j/{job}/run-logs.json")).await?.1.contains(t.nonce()),
        &job,
    )?;
    let cancel = local.http.post(format!("{}/q/local/j/nobody/cancel", local.base)).send().await?;
    let said: Value = cancel.json().await?;
    same("cancel of an unknown job", &said["message"], &json!("Job not found"))?;
    let preflight = local
        .http
        .request(reqwest::Method::OPTIONS, format!("{}/q/local", local.base))
        .header("Origin", &local.base)
        .header("Access-Control-Request-Method", "POST")
        .send()
        .await?;
    that("preflight", preflight.status().is_success(), &preflight.status())?;
    let metrics = local.get("/metrics").await?;
    that("metrics", metrics.0 == StatusCode::OK && metrics.1.contains("queue_length"), &metrics)
}

async fn outputs(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    let (job, _) = local
        .run(&t.sh(
            "mkdir -p /outputs/a/b; echo deep > /outputs/a/b/c.txt; head -c 5000 /dev/zero > /outputs/large",
        ))
        .await?;
    let answer = local.http.get(format!("{}/j/{job}/outputs/a/b/c.txt", local.base)).send().await?;
    let kind = answer
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    same("deep", &answer.text().await?.as_str(), &"deep\n")?;
    that("a type by extension", kind.starts_with("text/plain"), &kind)?;
    same("large", &local.get(&format!("/q/local/j/{job}/outputs/large")).await?.1.len(), &5000)?;
    same("none", &local.get(&format!("/j/{job}/outputs/none")).await?.0, &StatusCode::NOT_FOUND)
}

async fn ranges_and_inputs(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    let mut definition = t.sh("head -c 5000 /dev/zero > /outputs/large");
    definition["inputs"] = json!({ "in/line": { "type": "base64", "value": "aGk=" } });
    let (job, _) = local.run(&definition).await?;
    let url = format!("{}/j/{job}/outputs/large", local.base);
    let answer = local.http.get(url).header("Range", "bytes=10-19").send().await?;
    same("status of a range", &answer.status(), &StatusCode::PARTIAL_CONTENT)?;
    same("its bytes", &answer.bytes().await?.len(), &10)?;
    same(
        "an inline input",
        &local.get(&format!("/j/{job}/inputs/in/line")).await?,
        &(StatusCode::OK, "hi".to_owned()),
    )
}

async fn keys(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    let put = async |key: &str, body: &'static str| {
        anyhow::Ok(local.http.put(format!("{}/f/{key}", local.base)).body(body).send().await?.status())
    };
    let hash: String = Sha256::digest(b"content").iter().map(|byte| format!("{byte:02x}")).collect();
    that("a right hash", put(&hash, "content").await?.is_success(), &hash)?;
    that("a name", put("a-name.txt", "content").await?.is_success(), &"a-name.txt")?;
    that("a UUID", put(&uuid::Uuid::new_v4().to_string(), "content").await?.is_success(), &"uuid")?;
    let wrong: String = Sha256::digest(b"others").iter().map(|byte| format!("{byte:02x}")).collect();
    that("a wrong hash refused", put(&wrong, "content").await?.is_client_error(), &wrong)?;
    that("a slash refused", put("..%2Fx", "content").await?.is_client_error(), &"..%2Fx")
}

async fn foreign_origin(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    let answer = local
        .http
        .post(format!("{}/q/local", local.base))
        .header("Origin", "https://evil.example")
        .json(&json!({ "definition": t.sh("true") }))
        .send()
        .await?;
    that("a refusal", answer.status() == StatusCode::FORBIDDEN, &answer.status())
}

async fn whole_way(t: Test) -> anyhow::Result<()> {
    let local = local(&t).await?;
    let definition = t.sh(&format!("echo {n}; echo {n} > /outputs/name; echo out", n = t.nonce()));
    let (_, result) = local.run(&definition).await?;
    let result = &result["finished"]["result"];
    same("exit code", &result["StatusCode"], &json!(0))?;
    let output = &result["outputs"]["name"];
    let bytes = match output["type"].as_str() {
        Some("url") => {
            local.http.get(output["value"].as_str().unwrap_or_default()).send().await?.text().await?
        }
        _ => {
            use base64::Engine as _;
            let bytes =
                base64::prelude::BASE64_STANDARD.decode(output["value"].as_str().unwrap_or_default())?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    same("the output", &bytes, &format!("{}\n", t.nonce()))
}
