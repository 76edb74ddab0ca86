//! The HTTP surface (`relay-protocol` 2).

use serde_json::{Value, json};

use crate::support::*;

const HI: &str = "40b526743371642aafffde38df5dcb16267448271336a6970bf8ccdb3326bd7e";

#[tokio::test]
async fn every_answer_may_be_read_by_every_site() {
    let relay = TestRelay::start().await;
    for path in ["/healthz", "/q/x", "/f/none", "/j/none/result.json", "/nope", "/q/x/j/none", "/"] {
        let answer = relay.get(path).await;
        assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{path}");
    }
    let preflight = http()
        .request(reqwest::Method::OPTIONS, relay.url("/anything/at/all"))
        .header("Access-Control-Request-Headers", "content-type, x-a")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-methods"], "GET,HEAD,PUT,POST,DELETE,PATCH");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "content-type,x-a");
}

#[tokio::test]
async fn a_submission_without_id_gets_the_one_of_its_definition() {
    let relay = TestRelay::start().await;
    let body = json!({"definition": {"image": "alpine:3.19", "command": "echo hi"}, "control": {"namespace": "ns1"}});
    assert_eq!(relay.submit("q1", body).await, HI);
    let list = relay.get_json("/q/q1/j").await;
    assert_eq!(list["data"][HI]["namespaces"], json!(["ns1"]));
    assert_eq!(list["data"][HI]["worker"], "");
    assert_eq!(list["data"][HI]["queuedTime"], list["data"][HI]["time"]);
    let job = relay.get_json(&format!("/j/{HI}.json")).await;
    assert_eq!(job, json!({"data": {"definition": {"image": "alpine:3.19", "command": "echo hi"}}}));
    assert_eq!(relay.get_json(&format!("/q/q1/j/{HI}/namespaces.json")).await, json!({"data": ["ns1"]}));
}

#[tokio::test]
async fn bad_submissions_are_refused_with_a_reason() {
    let relay = TestRelay::start().await;
    let texts = [
        "",
        "{bad",
        "null",
        "false",
        "\"\"",
        "5",
        "[]",
        "{}",
        r#"{"id":"H9"}"#,
        r#"{"definition":"x"}"#,
        r#"{"definition":{"image":"a","inputs":{"x":null}}}"#,
        r#"{"definition":{"image":"a"},"control":{"namespace":"*"}}"#,
        r#"{"definition":{"image":"a"},"control":{"namespace":["x"]}}"#,
    ];
    for text in texts {
        let answer = http().post(relay.url("/q/q1")).body(text).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{text}");
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{text}");
    }
    assert_eq!(relay.get_json("/q/q1").await, json!({"data": {}}));
}

#[tokio::test]
async fn what_is_unknown_is_answered_as_such() {
    let relay = TestRelay::start().await;
    let missing = relay.get("/q/q1/j/none").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.json::<Value>().await.unwrap(), json!({"error": "Job not found"}));
    for path in ["/j/none/definition.json", "/q/q1/j/none/result.json", "/j/none/results.json"] {
        assert_eq!(relay.get_json(path).await, json!({"data": null}), "{path}");
    }
    let cancel: Value = relay.post("/q/q1/j/none/cancel", &json!(null)).await.json().await.unwrap();
    assert_eq!(cancel, json!({"message": "Job not found"}));
    let logs = relay.get_json("/j/none/build-logs.json?since=").await;
    assert_eq!(logs, json!({"data": [], "sliceStart": 0, "nextCursor": 0, "isFinal": false}));
    let bad = relay.get("/q/q1/j/none/run-logs.json?since=x").await;
    assert_eq!(bad.status(), 400);
}

#[tokio::test]
async fn inputs_are_served_as_files() {
    let relay = TestRelay::start().await;
    let definition = json!({"image": "a", "inputs": {
        "in.txt": {"type": "utf8", "value": "hey"}, "d/e.json": {"type": "json", "value": [1]},
        "b.png": {"type": "base64", "value": "AAEC"}, "a b.txt": {"value": "spaced"},
        "u": {"type": "url", "value": "https://example.org/data/file.bin"},
    }});
    let id = relay.submit("q1", json!({"definition": definition})).await;
    let text = |path: String| {
        let relay = &relay;
        async move { relay.get(&path).await.text().await.unwrap() }
    };
    assert_eq!(text(format!("/j/{id}/inputs/in.txt")).await, "hey");
    assert_eq!(text(format!("/q/q1/j/{id}/inputs/d/e.json")).await, "[1]");
    assert_eq!(text(format!("/j/{id}/inputs/a%20b.txt")).await, "spaced");
    let png = relay.get(&format!("/j/{id}/inputs/b.png")).await;
    assert_eq!(png.headers()["content-type"], "image/png");
    assert_eq!(png.bytes().await.unwrap().as_ref(), [0, 1, 2]);
    let elsewhere = relay.get(&format!("/j/{id}/inputs/u")).await;
    assert_eq!(elsewhere.status(), 302);
    assert_eq!(elsewhere.headers()["location"], "https://example.org/data/file.bin");
    let empty = relay.get(&format!("/j/{id}/inputs/")).await;
    assert_eq!((empty.status().as_u16(), empty.text().await.unwrap()), (400, "Missing filename".to_owned()));
    let missing = relay.get(&format!("/j/{id}/inputs/nope")).await;
    assert_eq!(missing.text().await.unwrap(), "Input file 'nope' not found");
    let output = relay.get(&format!("/j/{id}/outputs/x")).await;
    assert_eq!(output.text().await.unwrap(), "Finished job not found");
}

#[tokio::test]
async fn files_go_in_and_come_out_whole_or_in_part() {
    let relay = TestRelay::start().await;
    let absent = relay.get("/f/vecblob/exists").await;
    assert_eq!(
        (absent.status().as_u16(), absent.json::<Value>().await.unwrap()),
        (404, json!({"exists": false}))
    );
    let put = http().put(relay.url("/f/vecblob")).body("hello").send().await.unwrap();
    assert_eq!(put.status(), 200);
    assert_eq!(relay.get_json("/f/vecblob/exists").await, json!({"exists": true}));
    assert_eq!(relay.get("/f/vecblob").await.text().await.unwrap(), "hello");
    let part = http().get(relay.url("/f/vecblob")).header("Range", "bytes=1-3").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap()), (206, "ell".to_owned()));
    let wrong = http().put(relay.url(&format!("/f/{}", "0".repeat(64)))).body("x").send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert_eq!(relay.get("/f/a%2Fb").await.status(), 400);
    assert_eq!(relay.get("/f/none").await.status(), 404);
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(
        http().put(relay.url(&format!("/f/{digest}"))).body("hello").send().await.unwrap().status(),
        200
    );
    let known = http().get(relay.url(&format!("/f/{digest}")));
    let known = known.header("If-None-Match", format!("\"{digest}\"")).send().await.unwrap();
    assert_eq!(known.status(), 304, "what a digest names never changes");
}

#[tokio::test]
async fn an_address_that_means_nothing_is_refused_wherever_it_points() {
    let relay = TestRelay::start().await;
    for path in ["/q/%zz", "/f/%zz", "/f/%zz/exists", "/j/%", "/upload/%1", "/q/%zz/client"] {
        let answer = relay.get(path).await;
        assert_eq!(answer.status(), 400, "{path}");
        assert!(answer.json::<Value>().await.unwrap()["error"].is_string(), "{path}");
    }
    let page = http().get(relay.url("/docs/x")).header("Accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 404, "there is no documentation here");
    assert_eq!(relay.get("/q/x?limit=&after=").await.status(), 200);
    assert_eq!(relay.get("/q/x?limit=many").await.status(), 400);
}

#[tokio::test]
async fn inline_files_are_read_as_browsers_read_them() {
    let relay = TestRelay::start().await;
    let inputs = json!({"a": {"type": "base64", "value": "AAE"}, "b": {"type": "base64", "value": "AA\nEC"},
        "100%": {"value": "whole"}, "c": {"type": "base64", "value": "?"}});
    let id = relay.submit("q1", json!({"definition": {"image": "a", "inputs": inputs}})).await;
    let file = async |name: &str| {
        let answer = relay.get(&format!("/q/q1/j/{id}/inputs/{name}")).await;
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    };
    assert_eq!(file("a").await, (200, vec![0, 1]), "without padding");
    assert_eq!(file("b").await, (200, vec![0, 1, 2]), "in lines");
    assert_eq!(file("100%25").await, (200, b"whole".to_vec()));
    assert_eq!(file("c").await.0, 400);
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_before_it_is_read() {
    let relay = TestRelay::start_with(|config| config.max_blob_bytes = 4).await;
    assert_eq!(http().put(relay.url("/f/a")).body("1234").send().await.unwrap().status(), 200);
    assert_eq!(http().put(relay.url("/f/b")).body("12345").send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn the_page_is_served_compressed_cached_and_embeddable() {
    let relay = TestRelay::start().await;
    let script = http()
        .get(relay.url("/app-0123456789abcdef.js"))
        .header("Accept-Encoding", "gzip, br")
        .send()
        .await
        .unwrap();
    assert_eq!(script.headers()["content-encoding"], "br");
    assert_eq!(script.headers()["cache-control"], "public, max-age=31536000, immutable");
    assert_eq!(script.text().await.unwrap(), "as brotli");
    let page = relay.get("/").await;
    let headers = page.headers().clone();
    assert_eq!(headers["cache-control"], "no-cache");
    assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors *"));
    assert!(!headers.contains_key("x-frame-options"));
    let job_page = relay.get("/j/whatever").await.text().await.unwrap();
    assert!(job_page.contains("<head><base href=\"/\">"), "{job_page}");
    assert_eq!(relay.get_json("/metaframe.json").await, json!({"version": "1"}));
    // Hosts ask below the address that they embed, also a short one.
    let below = format!("/j/{}/metaframe.json", "0".repeat(64));
    assert_eq!(relay.get_json(&below).await, json!({"version": "1"}));
    let navigation = http().get(relay.url("/some/where")).header("Accept", "text/html").send().await.unwrap();
    assert_eq!(navigation.status(), 200);
    assert_eq!(relay.get("/missing.js").await.status(), 404);
    assert_eq!(relay.get("/q/x/j/y/z").await.status(), 404);
}

#[tokio::test]
async fn status_and_metrics_count_what_is_there() {
    let relay = TestRelay::start().await;
    let id = relay.submit("q1", json!({"definition": {"image": "a"}})).await;
    let metrics = relay.get("/q/q1/metrics").await.text().await.unwrap();
    assert!(metrics.ends_with("\nqueue_length 1\n"), "{metrics}");
    let _worker = relay.worker("q1", "w1").await;
    let status = relay.get_json("/q/q1/status").await;
    assert_eq!(status["jobs"][&id], json!({"state": "Queued"}));
    assert_eq!(status["localWorkers"]["w1"]["cpus"], 1);
    assert_eq!(status["queueInfo"]["address"], "q1");
}

#[tokio::test]
async fn a_cancel_lets_go_of_one_namespace_and_the_last_one_ends_the_job() {
    let relay = TestRelay::start().await;
    let submit = |namespace: &str| json!({"definition": {"image": "a"}, "control": {"namespace": namespace}});
    let id = relay.submit("q1", submit("a")).await;
    relay.submit("q1", submit("b/ü %")).await;
    relay.post(&format!("/q/q1/j/{id}/cancel?namespace=a"), &json!(null)).await;
    assert_eq!(relay.get_json("/q/q1").await["data"][&id]["namespaces"], json!(["b/ü %"]));
    let nothing: Value = relay
        .post(&format!("/q/q1/j/{id}/cancel?namespace=nobody"), &json!(null))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(nothing["success"], true);
    relay.post(&format!("/q/q1/j/{id}/cancel?namespace=*"), &json!(null)).await;
    assert_eq!(relay.get_json("/q/q1").await, json!({"data": {}}));
    let again: Value = relay.post(&format!("/q/q1/j/{id}/cancel"), &json!(null)).await.json().await.unwrap();
    assert_eq!(again, json!({"message": "Job already Finished|Removed"}));
}

#[tokio::test]
async fn a_list_can_be_read_in_pages() {
    let relay = TestRelay::start().await;
    for number in 0..5 {
        relay.submit("q1", json!({"id": format!("J{number}"), "definition": {"image": "a"}})).await;
    }
    let first = relay.get_json("/q/q1?limit=3").await;
    assert_eq!(first["data"].as_object().unwrap().len(), 3);
    let next = first["next"].as_str().unwrap();
    let second = relay.get_json(&format!("/q/q1?limit=3&after={next}")).await;
    assert_eq!(second["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["J3", "J4"]);
    assert_eq!(second.get("next"), None);
}
