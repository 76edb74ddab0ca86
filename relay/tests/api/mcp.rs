//! Tools of language models (`relay-protocol` 2.20).

use serde_json::{Value, json};

use crate::support::*;

/// All messages that one post is answered with.
async fn post(relay: &TestRelay, body: &Value) -> Vec<Value> {
    let answer = http()
        .post(relay.url("/mcp"))
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

async fn call(relay: &TestRelay, name: &str, arguments: Value) -> (bool, Value) {
    let params = json!({"name": name, "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let answer = post(relay, &body).await.pop().unwrap();
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    (answer["result"]["isError"] != true, serde_json::from_str(text).unwrap())
}

#[tokio::test]
async fn any_call_is_answered_without_a_session() {
    let relay = TestRelay::start().await;
    let initialize = json!({"jsonrpc": "2.0", "id": "a", "method": "initialize",
        "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let answer = post(&relay, &initialize).await.pop().unwrap();
    assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!("a"), &json!("2025-03-26")));
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "nope"},
    ]);
    let answers = post(&relay, &batch).await;
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["result"], json!({}));
    let tools: Vec<&str> = answers[1]["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        tools,
        ["submit_job", "follow_job", "get_job_status", "list_jobs", "cancel_job", "upload_file"]
    );
    assert_eq!(answers[2]["error"]["code"], -32_601);
}

#[tokio::test]
async fn odd_requests_get_the_answers_of_json_rpc() {
    let relay = TestRelay::start().await;
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let answer = relay.post("/mcp", &notification).await;
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (202, "null".to_owned()));
    let broken = http().post(relay.url("/mcp")).body("{").send().await.unwrap();
    assert_eq!(broken.status(), 400);
    assert_eq!(broken.json::<Value>().await.unwrap()["error"]["code"], -32_700);
    let patch = http().patch(relay.url("/mcp")).send().await.unwrap();
    assert_eq!(
        (patch.status().as_u16(), patch.headers()["allow"].to_str().unwrap()),
        (405, "GET, POST, DELETE")
    );
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "nope"}});
    let answer = post(&relay, &unknown).await.pop().unwrap();
    assert_eq!(answer["error"], json!({"code": -32_603, "message": "Unknown tool: nope"}));
}

#[tokio::test]
async fn a_model_submits_follows_and_reads_a_job() {
    let relay = TestRelay::start().await;
    let arguments =
        json!({"queue": "q 1", "image": "alpine", "command": "cat /inputs/a", "inputs": {"a": "hi"}});
    let (fine, submitted) = call(&relay, "submit_job", arguments).await;
    assert!(fine, "{submitted}");
    let id = submitted["jobId"].as_str().unwrap().to_owned();
    assert_eq!(submitted["viewUrl"], format!("http://{}/j/{id}#?queue=q%201", relay.address));
    assert_eq!((&submitted["definition"]["filesCount"], &submitted["namespace"]), (&json!(1), &json!("dev")));

    let mut worker = relay.worker("q%201", "w1").await;
    let grant = worker.expect("LeaseGrant").await;
    assert_eq!(grant["definition"]["inputs"]["a"], json!({"value": "hi", "type": "utf8"}));
    let lease = grant["leaseId"].as_str().unwrap().to_owned();
    worker.send(&accept(&lease)).await;
    worker.send(&logs(&lease, 0, &["hi\n"])).await;
    worker.drain().await;
    let (_, running) = call(&relay, "get_job_status", json!({"jobId": id, "queue": "q 1"})).await;
    assert_eq!((&running["status"]["state"], &running["result"]), (&json!("Running"), &Value::Null));
    let follow = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": "follow_job", "arguments": {"jobId": id, "queue": "q 1"}, "_meta": {"progressToken": "p"}}});
    let (followed, ()) = tokio::join!(post(&relay, &follow), async {
        worker.send(&finish(&lease, "hi\n")).await;
        worker.expect("LeaseFinished").await;
    });
    let (last, notices) = followed.split_last().unwrap();
    let told: Vec<&str> =
        notices.iter().map(|notice| notice["params"]["message"].as_str().unwrap()).collect();
    assert_eq!(told.first(), Some(&"hi"), "lines of a round precede its state");
    assert_eq!(told.last(), Some(&"▸ Finished (Success)"));
    let summary: Value =
        serde_json::from_str(last["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&summary["exitCode"], &summary["programSucceeded"]), (&json!(0), &json!(true)));
    assert_eq!((&summary["logs"], &summary["outputFiles"]), (&json!(["hi"]), &json!(["o.txt"])));

    let (_, list) = call(&relay, "list_jobs", json!({"queue": "q 1", "state": "Finished"})).await;
    assert_eq!((&list["totalJobs"], &list["jobs"][0]["jobId"]), (&json!(1), &json!(id)));
    let (fine, cancelled) = call(&relay, "cancel_job", json!({"jobId": id, "queue": "q 1"})).await;
    assert!(fine && cancelled["success"] == true);
}

#[tokio::test]
async fn a_model_that_asks_for_nonsense_is_told_so() {
    let relay = TestRelay::start().await;
    let (fine, told) = call(&relay, "submit_job", json!({"image": "a", "gitRepo": "b"})).await;
    assert!(!fine && told["success"] == false && told["troubleshooting"].is_array(), "{told}");
    let (fine, _) = call(&relay, "submit_job", json!({"command": "x"})).await;
    assert!(!fine);
}

#[tokio::test]
async fn a_followed_job_that_goes_on_says_so() {
    let relay = TestRelay::start().await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let arguments = json!({"jobId": id, "queue": "q1", "timeoutSeconds": 0.2});
    let (fine, told) = call(&relay, "follow_job", arguments).await;
    assert!(fine && told["state"] == "Following stopped" && told["note"].is_string(), "{told}");
}

#[tokio::test]
async fn a_file_is_stored_whatever_its_name() {
    let relay = TestRelay::start().await;
    let arguments = json!({"filename": "a/b ?.txt", "content": "aGk=", "encoding": "base64"});
    let (fine, told) = call(&relay, "upload_file", arguments).await;
    assert!(fine && told["size"] == 2, "{told}");
    let url = told["downloadUrl"].as_str().unwrap();
    assert_eq!(http().get(url).send().await.unwrap().text().await.unwrap(), "hi");
}

#[tokio::test]
async fn a_queue_is_a_resource() {
    let relay = TestRelay::start().await;
    relay.submit("q1", json!({"id": "J1", "definition": {"image": "a"}})).await;
    let read =
        json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "queue://q1/jobs"}});
    let answer = post(&relay, &read).await.pop().unwrap();
    let text = answer["result"]["contents"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["data"]["J1"].is_object());
}

/// Status, content type, and the body as JSON.
async fn ask(request: reqwest::RequestBuilder) -> (u16, String, Value) {
    let answer = request.send().await.unwrap();
    let kind = answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    (answer.status().as_u16(), kind, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

fn ping(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

#[tokio::test]
async fn a_caller_that_takes_no_events_gets_plain_json() {
    let relay = TestRelay::start().await;
    let post = |body: Value| {
        let request = http().post(relay.url("/mcp")).header("accept", "application/json");
        request.header("content-type", "application/json; charset=utf-8").body(body.to_string())
    };
    let (status, kind, body) = ask(post(ping(1))).await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert_eq!(body, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    let (_, _, body) = ask(post(json!([ping(1)]))).await;
    assert_eq!(body, json!([{"jsonrpc": "2.0", "id": 1, "result": {}}]));
    let (_, _, body) = ask(post(json!([ping(1), ping(2)]))).await;
    assert_eq!(body.as_array().map(Vec::len), Some(2));
    // Following without anybody to tell works too.
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let follow = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "follow_job",
        "arguments": {"jobId": id, "queue": "q1", "timeoutSeconds": 0.1}, "_meta": {"progressToken": 1}}});
    let (status, _, body) = ask(post(follow)).await;
    assert_eq!((status, &body["id"]), (200, &json!(1)));
}

#[tokio::test]
async fn requests_outside_the_protocol_are_refused_as_json_rpc_errors() {
    let relay = TestRelay::start().await;
    let post = |name: &'static str, value: &'static str| {
        http().post(relay.url("/mcp")).header(name, value).body(ping(1).to_string())
    };
    let initialize = json!({"jsonrpc": "2.0", "id": 2, "method": "initialize"});
    let batch = http().post(relay.url("/mcp")).body(json!([ping(1), initialize]).to_string());
    for (request, status, code) in [
        (post("content-type", "text/plain"), 415, -32_000),
        (post("accept", "text/html"), 406, -32_000),
        (post("mcp-protocol-version", "1999-01-01"), 404, -32_000),
        (http().get(relay.url("/mcp")).header("accept", "application/json"), 406, -32_000),
        (batch, 400, -32_600),
        (http().post(relay.url("/mcp")).body("5"), 400, -32_600),
        (http().post(relay.url("/mcp")).body("[]"), 400, -32_600),
        (http().post(relay.url("/mcp")).body(r#"{"id":1,"method":"ping"}"#), 400, -32_600),
    ] {
        let (came, _, body) = ask(request).await;
        assert_eq!((came, &body["error"]["code"], &body["id"]), (status, &json!(code), &Value::Null));
    }
    let fine = post("mcp-protocol-version", "2025-06-18").send().await.unwrap();
    assert_eq!(fine.status(), 200);
}

#[tokio::test]
async fn the_other_ways_in_are_answered() {
    let relay = TestRelay::start().await;
    let stream = http().get(relay.url("/mcp")).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(
        (stream.status().as_u16(), &stream.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(stream.headers()["cache-control"], "no-cache");
    let deleted = http().delete(relay.url("/mcp")).send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), deleted.text().await.unwrap()), (200, String::new()));
    assert_eq!(relay.get_json("/mcp/health").await["status"], "healthy");
    assert_eq!(relay.get_json("/mcp/info").await["tools"].as_array().map(Vec::len), Some(6));
    let error = Peer::try_connect(&relay.address, "/mcp/ws", &[]).await.err();
    assert!(error.is_some(), "no socket lists queues");
}

#[tokio::test]
async fn what_cannot_be_followed_is_an_error_of_the_call_and_an_unknown_job_has_no_state() {
    let relay = TestRelay::start().await;
    for arguments in [json!({}), json!({"jobId": "J1"}), json!({"jobId": "J1", "queue": ""})] {
        let params = json!({"name": "follow_job", "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let answer = post(&relay, &body).await.pop().unwrap();
        assert_eq!(answer["error"]["code"], -32_603, "{answer}");
    }
    let (fine, status) = call(&relay, "get_job_status", json!({"jobId": "nobody", "queue": "q1"})).await;
    assert!(fine);
    assert_eq!((&status["status"], &status["result"]), (&json!({}), &Value::Null));
    let (_, listed) = call(&relay, "list_jobs", json!({"queue": "q1", "limit": 500})).await;
    assert_eq!(listed["filters"], json!({"limit": 500}), "a limit is not clamped");
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let (fine, cancelled) = call(&relay, "cancel_job", json!({"jobId": id, "queue": "q1"})).await;
    assert!(fine && cancelled["success"] == true);
    assert_eq!(relay.get_json("/q/q1").await, json!({"data": {}}));
}
