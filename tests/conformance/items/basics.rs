//! What every answer has in common, and the site (`relay-protocol` 1 and 2.17, 2.18).

use reqwest::Method;
use serde_json::json;

use crate::check::{same, that};
use crate::peers::raw;
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.1",
            Compat,
            "Every answer, errors included, may be read by any origin, and OPTIONS is answered anywhere.",
            any_origin
        ),
        item!("7.2", Compat, "A JSON body is read whatever its content type says.", any_content_type),
        item!("7.3", Compat, "GET /healthz says OK.", healthz),
        item!(
            "7.28",
            Compat,
            "The job page, metaframe.json, llms.txt and the way to the docs are served.",
            site
        ),
        item!(
            "R-9",
            Dockframe,
            "A mistyped API path is a 404, and the start page is for navigation alone.",
            unknown_paths
        ),
        item!(
            "R-36",
            Dockframe,
            "An answer that there is no result yet is never cached.",
            no_result_is_not_cached
        ),
        item!(
            "R-42",
            Dockframe,
            "Upgrade is compared without case, and a malformed upgrade is a 400.",
            upgrade_case
        ),
    ]
}

async fn any_origin(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let paths = [
        (Method::GET, "/healthz".to_owned(), ""),
        (Method::GET, format!("/q/{queue}"), ""),
        (Method::GET, format!("/q/{queue}/j/none"), ""),
        (Method::GET, format!("/q/{queue}/j/none/run-logs.json?since=x"), ""),
        (Method::GET, "/j/none/outputs/x".to_owned(), ""),
        (Method::GET, "/f/none/exists".to_owned(), ""),
        (Method::GET, "/metaframe.json".to_owned(), ""),
        (Method::POST, format!("/q/{queue}"), "null"),
        (Method::POST, format!("/q/{queue}"), "{bad"),
        (Method::POST, format!("/q/{queue}/status"), ""),
        (Method::DELETE, "/f/none".to_owned(), ""),
        (Method::GET, "/f/none".to_owned(), ""),
    ];
    for (method, path, body) in paths {
        let what = format!("{method} {path}");
        let answer = http.ask(method, &path, &[], body).await?;
        let origin = answer.header("access-control-allow-origin");
        same(&format!("Access-Control-Allow-Origin of {what}"), &origin, &Some("*"))?;
    }
    for path in ["/q/x", "/f/key", "/nothing/at/all", "/healthz"] {
        let headers =
            [("access-control-request-headers", "content-type, x-a"), ("origin", "https://a.example")];
        let answer = http.ask(Method::OPTIONS, path, &headers, "").await?;
        same("body of OPTIONS", &answer.is(204)?.text(), &String::new())?;
        same("origin", &answer.header("access-control-allow-origin"), &Some("*"))?;
        let methods = answer.header("access-control-allow-methods");
        same("methods", &methods, &Some("GET,HEAD,PUT,POST,DELETE,PATCH"))?;
        same("headers", &answer.header("access-control-allow-headers"), &Some("content-type,x-a"))?;
        same("vary", &answer.header("vary"), &Some("Access-Control-Request-Headers"))?;
    }
    let plain = http.ask(Method::OPTIONS, "/q/x", &[], "").await?;
    same("headers that nobody asked for", &plain.is(204)?.header("access-control-allow-headers"), &None)
}

async fn any_content_type(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let types = [
        None,
        Some("text/plain"),
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("no type at all"),
    ];
    for content_type in types {
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let body = json!({ "definition": Test::job() }).to_string();
        let answer = http.ask(Method::POST, &format!("/q/{queue}"), &headers, body).await?;
        same(&format!("success with {content_type:?}"), &answer.is(200)?.json()?["success"], &json!(true))?;
    }
    Ok(())
}

async fn healthz(t: Test) -> anyhow::Result<()> {
    let answer = t.http().get("/healthz").await?;
    answer.tells(200, "OK")?;
    same("media type", &answer.media(), &"text/plain".to_owned())
}

async fn site(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let page = http.get(&format!("/j/{}", Test::nonce())).await?;
    same("media type of the job page", &page.is(200)?.media(), &"text/html".to_owned())?;
    let text = page.text();
    that("`<base href=\"/\"` in the job page", text.contains("<base href=\"/\""), &"none")?;
    let metaframe = http.get("/metaframe.json").await?;
    same("media type of metaframe.json", &metaframe.is(200)?.media(), &"application/json".to_owned())?;
    that("an object", metaframe.json()?.is_object(), &metaframe.text())?;
    let llms = http.get("/llms.txt").await?;
    same("media type of llms.txt", &llms.is(200)?.media(), &"text/plain".to_owned())?;
    let docs = http.get("/docs").await?;
    let location = docs.is(301)?.header("location").unwrap_or_default();
    that("a way to /docs/", location.ends_with("/docs/"), &location)?;
    let start = http.get("/").await?;
    same("media type of the start page", &start.is(200)?.media(), &"text/html".to_owned())
}

async fn unknown_paths(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let html = [("accept", "text/html,application/xhtml+xml")];
    for path in [
        format!("/q/{queue}/nothing/here"),
        "/f/a/b/c".to_owned(),
        "/mcp/nothing".to_owned(),
        "/j/x/nothing".to_owned(),
        "/j/x/copy".to_owned(),
        format!("/q/{queue}/j/x/cancel"),
    ] {
        let answer = http.ask(Method::GET, &path, &html, "").await?;
        same(&format!("media type of {path}"), &answer.is(404)?.media(), &"application/json".to_owned())?;
    }
    http.ask(Method::GET, "/assets/nothing.js", &html, "").await?.is(404)?;
    http.ask(Method::GET, "/nothing", &[("accept", "application/json")], "").await?.is(404)?;
    let page = http.ask(Method::GET, "/some/page", &html, "").await?;
    same("media type of a page that is navigated to", &page.is(200)?.media(), &"text/html".to_owned())
}

async fn no_result_is_not_cached(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let answer = http.get(&format!("/q/{queue}/j/{id}/result.json")).await?;
    answer.says(200, &json!({ "data": null }))?;
    let cache = answer.header("cache-control").unwrap_or_default();
    that("Cache-Control: no-store", cache.contains("no-store"), &cache)
}

async fn upgrade_case(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let line = format!("GET /q/{}/client", t.queue());
    let (key, version) = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13");
    let upgrade = "Upgrade: WebSocket";
    let (status, _) =
        raw::request(http.base(), &line, &[upgrade, "Connection: upgrade", key, version]).await?;
    same("status of `Upgrade: WebSocket`", &status, &101)?;
    let (status, _) =
        raw::request(http.base(), &line, &["Upgrade: websocket", "Connection: Upgrade", version]).await?;
    same("status of an upgrade without a key", &status, &400)
}
