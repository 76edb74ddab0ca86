//! MCP (`relay-protocol` 2.20).

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::check::{same, same_json, that};
use crate::peers::http::{Answer, Http};
use crate::peers::worker::{Worker, result};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.48",
            Compat,
            "MCP answers without a session, with its six tools, and follows a job with progress.",
            tools
        ),
        item!(
            "R-31",
            Dockframe,
            "Malformed MCP requests are answered by JSON-RPC errors, and no socket lists queues.",
            errors
        ),
        item!("R-41", Dockframe, "An uploaded file may have any name.", file_names),
    ]
}

const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

async fn post(http: &Http, body: &Value) -> anyhow::Result<Answer> {
    http.ask(Method::POST, "/mcp", &HEADERS, body.to_string()).await
}

/// The JSON-RPC messages of an answer, in either framing.
fn messages(answer: &Answer) -> anyhow::Result<Vec<Value>> {
    match answer.is(200)?.media().as_str() {
        "text/event-stream" => {
            let text = answer.text();
            text.lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .map(|data| Ok(serde_json::from_str(data)?))
                .collect()
        }
        _ => Ok(vec![answer.json()?]),
    }
}

async fn call(http: &Http, method: &str, params: Value) -> anyhow::Result<Value> {
    let answer =
        post(http, &json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })).await?;
    let last = messages(&answer)?.pop().context("expected a reply; came none")?;
    same_json("id of the reply", &last["id"], &json!(7))?;
    Ok(last)
}

/// The text of a tool's result, which is JSON.
async fn tool(http: &Http, name: &str, arguments: Value) -> anyhow::Result<Value> {
    let reply = call(http, "tools/call", json!({ "name": name, "arguments": arguments })).await?;
    let text = reply["result"]["content"][0]["text"].as_str();
    let text = text.with_context(|| format!("{name}: expected a text; came {reply}"))?;
    serde_json::from_str(text).with_context(|| format!("{name}: expected JSON in {text}"))
}

async fn tools(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let hello = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let begun = call(&http, "initialize", hello).await?;
    same("version", &begun["result"]["protocolVersion"], &json!("2025-03-26"))?;
    same_json("ping", &call(&http, "ping", json!({})).await?["result"], &json!({}))?;
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    post(&http, &notification).await?.is(202)?;
    let listed = call(&http, "tools/list", json!({})).await?;
    let mut names: Vec<_> =
        listed["result"]["tools"].as_array().into_iter().flatten().map(|tool| tool["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    same(
        "tools",
        &Value::Array(names),
        &json!(["cancel_job", "follow_job", "get_job_status", "list_jobs", "submit_job", "upload_file"]),
    )?;
    same("an unknown method", &call(&http, "nope", json!({})).await?["error"]["code"], &json!(-32601))?;
    let unknown = call(&http, "tools/call", json!({ "name": "nope", "arguments": {} })).await?;
    same("an unknown tool", &unknown["error"]["code"], &json!(-32603))?;
    let delete = http.ask(Method::DELETE, "/mcp", &HEADERS, "").await?;
    same("status of DELETE", &delete.status, &200)?;
    http.ask(Method::PATCH, "/mcp", &HEADERS, "").await?.is(405)?;
    work(&t, &http, &queue).await
}

/// One job through all the tools.
async fn work(t: &Test, http: &Http, queue: &str) -> anyhow::Result<()> {
    let arguments = json!({ "queue": queue, "image": "alpine:3.19", "command": Test::nonce(), "inputs": { "a.txt": "x" } });
    let submitted = tool(http, "submit_job", arguments).await?;
    same("success", &submitted["success"], &json!(true))?;
    let id = submitted["jobId"].as_str().context("no jobId")?.to_owned();
    for field in
        ["queue", "viewUrl", "resultUrl", "definition", "namespace", "message", "shareWithUser", "nextStep"]
    {
        that(&format!("the field {field}"), submitted.get(field).is_some(), &submitted)?;
    }
    same("namespaces", &http.list(queue).await?[&id]["namespaces"], &json!(["dev"]))?;
    let listed = tool(http, "list_jobs", json!({ "queue": queue })).await?;
    same("the listed job", &listed["jobs"][0]["jobId"], &json!(id))?;
    let worker = Worker::join(t, queue).await?;
    let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "follow_job",
        "arguments": { "jobId": id, "queue": queue, "timeoutSeconds": 15 }, "_meta": { "progressToken": "p" } } });
    let run = async {
        worker.claim(&id).await?;
        worker.log(&id, "Running", &json!([["line\n", 1]])).await?;
        worker.finish(&id, "Success", &result("out")).await
    };
    let (followed, run) = tokio::join!(post(http, &body), run);
    run?;
    let mut all = messages(&followed?)?;
    let reply = all.pop().context("no reply")?;
    let text: Value =
        serde_json::from_str(reply["result"]["content"][0]["text"].as_str().unwrap_or_default())?;
    same("state", &text["state"], &json!("Finished"))?;
    same("exit code", &text["exitCode"], &json!(0))?;
    same("output files", &text["outputFiles"].as_array().map(Vec::len), &Some(1))?;
    let line = all.iter().find(|message| {
        message["method"] == "notifications/progress"
            && message["params"]["progressToken"] == "p"
            && message["params"]["message"].as_str().is_some_and(|text| text.contains("line"))
    });
    that("a notification with the line", line.is_some(), &all)?;
    let status = tool(http, "get_job_status", json!({ "jobId": id, "queue": queue })).await?;
    same("status code", &status["result"]["statusCode"], &json!(0))?;
    let other =
        tool(http, "submit_job", json!({ "queue": queue, "image": "a", "command": Test::nonce() })).await?;
    let other = other["jobId"].as_str().unwrap_or_default().to_owned();
    let cancelled = tool(http, "cancel_job", json!({ "jobId": other, "queue": queue })).await?;
    same("success of the cancel", &cancelled["success"], &json!(true))?;
    same("the list after the cancel", &http.list(queue).await?.get(&other), &None)?;
    let file = tool(http, "upload_file", json!({ "filename": "f.txt", "content": "hello" })).await?;
    let key = file["key"].as_str().unwrap_or_default();
    http.get(&format!("/f/{key}/exists")).await?.is(200)?;
    let uri = format!("queue://{queue}/jobs");
    let read = call(http, "resources/read", json!({ "uri": uri })).await?;
    same("uri of the resource", &read["result"]["contents"][0]["uri"], &json!(uri))
}

async fn errors(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let broken = http.ask(Method::POST, "/mcp", &HEADERS, "{bad").await?;
    same("code of broken JSON", &broken.is(400)?.json()?["error"]["code"], &json!(-32700))?;
    let no_request = http.ask(Method::POST, "/mcp", &HEADERS, "5").await?;
    same("code of no request", &no_request.is(400)?.json()?["error"]["code"], &json!(-32600))?;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let json_type = ("content-type", "application/json");
    let refused = [
        ([json_type, ("accept", "text/html")], 406),
        ([("content-type", "text/plain"), ("accept", "*/*")], 415),
        ([json_type, ("mcp-protocol-version", "1999-01-01")], 404),
    ];
    for (headers, status) in refused {
        let answer = http.ask(Method::POST, "/mcp", &headers, ping).await?;
        let error = answer.is(status)?.json()?;
        that("an error of JSON-RPC", error["error"]["code"].is_number() && error["id"].is_null(), &error)?;
    }
    match t.socket("/mcp/ws").await {
        Err(_) => Ok(()),
        Ok(socket) => socket.closed(crate::check::SOON).await.map(|_| ()),
    }
}

async fn file_names(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    for name in ["a/b.txt", "what?.txt", "ä #1%.txt"] {
        let file = tool(
            &http,
            "upload_file",
            json!({ "filename": name, "content": "aGVsbG8=", "encoding": "base64" }),
        )
        .await?;
        same("success", &file["success"], &json!(true))?;
        same("size", &file["size"], &json!(5))?;
        let url = file["downloadUrl"].as_str().context("no downloadUrl")?;
        let answer = http.get(url).await?;
        let answer = match answer.header("location") {
            Some(location) => http.get(location).await?,
            None => answer,
        };
        answer.tells(200, "hello")?;
    }
    Ok(())
}
