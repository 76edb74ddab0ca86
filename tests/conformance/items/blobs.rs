//! Blobs (`relay-protocol` 2.13, 2.14).

use std::process::Stdio;

use reqwest::Method;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::check::{same, same_json, that};
use crate::peers::http::{Answer, Http};
use crate::peers::raw;
use crate::registry::{Item, item};
use crate::test::{Test, skip};

/// More redirects than any upload needs.
const MOST_REDIRECTS: usize = 4;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.20",
            Compat,
            "An upload by curl or by a fetch that follows redirects can be read at once.",
            upload
        ),
        item!("7.21", Compat, "Whether a blob exists is answered by status and body.", exists),
        item!(
            "7.22",
            Compat,
            "Browsers may read and write blobs with a content type, along the whole way.",
            preflight
        ),
        item!("7.23", Compat, "Any single segment is a key.", any_key),
        item!("7.24", Compat, "The old upload and download addresses are handed out.", old_routes),
        item!("7.24b", Dockframe, "Addresses name the relay as it was asked, over HTTP/2 too.", over_http_2),
        item!("7.55", Dockframe, "A blob key can never read or write documents of the relay.", no_documents),
        item!(
            "R-10",
            Dockframe,
            "A blob under a hash is verified, and an aborted upload leaves nothing.",
            verified
        ),
        item!("R-10b", Dockframe, "A part of a blob is of the version that was asked for.", parts),
        item!("R-21", Dockframe, "Addresses of older releases still work.", aliases),
        item!("R-30", Dockframe, "Old upload addresses keep the scheme of the relay.", scheme),
        item!(
            "R-37",
            Dockframe,
            "Keys with slashes, dots alone, control characters or too many bytes are refused.",
            bad_keys
        ),
    ]
}

/// Sends the same request again wherever it is redirected, as curl and fetch do for PUT.
async fn follow(
    http: &Http,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let mut at = path.to_owned();
    for _ in 0..MOST_REDIRECTS {
        let answer = http.ask(method.clone(), &at, headers, body.to_vec()).await?;
        match answer.header("location") {
            Some(location) if matches!(answer.status, 301 | 302 | 307 | 308) => location.clone_into(&mut at),
            _ => return Ok(answer),
        }
    }
    anyhow::bail!("expected an end of the redirects from {path}; came {at}")
}

async fn put(http: &Http, key: &str, body: &[u8]) -> anyhow::Result<()> {
    let answer = follow(http, &Method::PUT, &format!("/f/{key}"), &[], body).await?;
    that(
        &format!("2xx for the upload of {key}"),
        (200..300).contains(&answer.status),
        &(answer.status, answer.text()),
    )
}

async fn reads(http: &Http, key: &str, body: &[u8]) -> anyhow::Result<()> {
    let answer = follow(http, &Method::GET, &format!("/f/{key}"), &[], &[]).await?;
    same("the bytes", &answer.is(200)?.body, &body.to_vec())?;
    http.get(&format!("/f/{key}/exists")).await?.says(200, &json!({ "exists": true }))
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn upload(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let content = format!("content {}", Test::nonce()).into_bytes();
    let key = hash(&content);
    put(&http, &key, &content).await?;
    reads(&http, &key, &content).await?;
    // Again: nothing changes.
    put(&http, &key, &content).await?;
    reads(&http, &key, &content).await?;
    // As workers and scripts do it.
    let content = vec![7_u8; 300_000];
    let key = format!("{}.tar.gz", Test::nonce());
    let mut curl = tokio::process::Command::new("curl");
    let url = format!("{}/f/{key}", http.base());
    curl.args(["--silent", "--show-error", "--fail-with-body", "-X", "PUT", "--location", "--upload-file"]);
    let file = tempfile::NamedTempFile::new()?;
    tokio::fs::File::create(file.path()).await?.write_all(&content).await?;
    std::fs::write(file.path(), &content)?;
    let child = curl.arg(file.path()).arg(url).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let Ok(output) = child else { return skip("curl is not installed") };
    that("success of curl", output.status.success(), &String::from_utf8_lossy(&output.stderr))?;
    reads(&http, &key, &content).await
}

async fn parts(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let key = Test::nonce();
    let path = format!("/f/{key}");
    put(&http, &key, b"first version").await?;
    let ask = |headers: Vec<(&'static str, String)>| {
        let (http, path) = (&http, &path);
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            follow(http, &Method::GET, path, &headers, &[]).await
        }
    };
    let part = ask(vec![("range", "bytes=6-".to_owned())]).await?;
    same("the part", &part.is(206)?.text(), &"version".to_owned())?;
    same("its place", &part.header("content-range"), &Some("bytes 6-12/13"))?;
    let version = part.header("etag").unwrap_or_default().to_owned();
    let of_version = |range: &str| vec![("range", range.to_owned()), ("if-range", version.clone())];
    same("the same part", &ask(of_version("bytes=0-4")).await?.is(206)?.text(), &"first".to_owned())?;
    put(&http, &key, b"another").await?;
    let other = ask(of_version("bytes=0-4")).await?;
    same("all of another version", &other.is(200)?.text(), &"another".to_owned())?;
    for ignored in ["bytes=x", "items=0-1", "bytes=3-1", "bytes=0-0,2-3"] {
        let all = ask(vec![("range", ignored.to_owned())]).await?;
        let what = format!("the answer to {ignored}");
        same(&what, &all.is(200)?.text(), &"another".to_owned())?;
    }
    ask(vec![("range", "bytes=100-".to_owned())]).await?.is(416)?;
    put(&http, &key, b"").await?;
    same("all of nothing", &ask(vec![("range", "bytes=0-".to_owned())]).await?.is(200)?.body.len(), &0)
}

async fn exists(t: Test) -> anyhow::Result<()> {
    let (http, key) = (t.http(), Test::nonce());
    http.get(&format!("/f/{key}/exists")).await?.says(404, &json!({ "exists": false }))?;
    put(&http, &key, b"x").await?;
    http.get(&format!("/f/{key}/exists")).await?.says(200, &json!({ "exists": true }))
}

/// A storage behind a redirect may name the origin that asks.
fn allows_origin(answer: &Answer) -> anyhow::Result<()> {
    let origin = answer.header("access-control-allow-origin").unwrap_or_default();
    that("an allowed origin", matches!(origin, "*" | "https://a.example"), &origin)
}

async fn preflight(t: Test) -> anyhow::Result<()> {
    let (http, key) = (t.http(), Test::nonce());
    for method in [Method::PUT, Method::GET] {
        let mut at = format!("/f/{key}");
        for _ in 0..MOST_REDIRECTS {
            let ask = [
                ("origin", "https://a.example"),
                ("access-control-request-method", method.as_str()),
                ("access-control-request-headers", "content-type"),
            ];
            let allowed = http.ask(Method::OPTIONS, &at, &ask, "").await?;
            that("2xx for the preflight", (200..300).contains(&allowed.status), &allowed.status)?;
            allows_origin(&allowed)?;
            let headers =
                allowed.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
            that(
                "content-type among the allowed headers",
                headers.contains("content-type") || headers == "*",
                &headers,
            )?;
            let methods = allowed.header("access-control-allow-methods").unwrap_or_default();
            that("the method is allowed", methods.contains(method.as_str()), &methods)?;
            let headers = [("origin", "https://a.example"), ("content-type", "application/octet-stream")];
            let body = if method == Method::PUT { "blob" } else { "" };
            let answer = http.ask(method.clone(), &at, &headers, body).await?;
            allows_origin(&answer)?;
            match answer.header("location") {
                Some(location) => location.clone_into(&mut at),
                None => {
                    that("2xx at the end", (200..300).contains(&answer.status), &answer.status)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn any_key(t: Test) -> anyhow::Result<()> {
    let (http, nonce) = (t.http(), Test::nonce());
    for key in [
        nonce.clone(),
        format!("{}.tar.gz", hash(nonce.as_bytes())),
        format!("1795461439920-abc123-{nonce} ä.txt"),
    ] {
        let escaped = key.replace(' ', "%20").replace('ä', "%C3%A4");
        put(&http, &escaped, key.as_bytes()).await?;
        reads(&http, &escaped, key.as_bytes()).await?;
    }
    Ok(())
}

async fn old_routes(t: Test) -> anyhow::Result<()> {
    let (http, key) = (t.http(), Test::nonce());
    let up = http.get(&format!("/upload/{key}")).await?.is(200)?.json()?;
    same_json("ref of the upload", &up["ref"], &json!({ "value": key, "type": "key" }))?;
    that("an absolute address", up["url"].as_str().is_some_and(|url| url.starts_with("http")), &up)?;
    let down = http.get(&format!("/download/{key}")).await?.is(200)?.json()?;
    same_json("ref of the download", &down["ref"], &json!({ "value": down["url"], "type": "url" }))?;
    that("an absolute address", down["url"].as_str().is_some_and(|url| url.starts_with("http")), &down)
}

async fn scheme(t: Test) -> anyhow::Result<()> {
    let (http, key) = (t.http(), Test::nonce());
    let wanted = http.base().split("://").next().unwrap_or_default().to_owned() + "://";
    let up = http.get(&format!("/upload/{key}")).await?.is(200)?.json()?;
    let url = up["url"].as_str().unwrap_or_default();
    that(&format!("an address that begins {wanted}"), url.starts_with(&wanted), &url)?;
    let answer = follow(&http, &Method::PUT, url, &[], b"old").await?;
    that("2xx for the upload", (200..300).contains(&answer.status), &answer.status)?;
    let down = http.get(&format!("/download/{key}")).await?.is(200)?.json()?;
    let answer = follow(&http, &Method::GET, down["url"].as_str().unwrap_or_default(), &[], &[]).await?;
    answer.tells(200, "old")
}

async fn over_http_2(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let client = reqwest::Client::builder().http2_prior_knowledge().build()?;
    let over_2 = Http::new(http.base(), client);
    let path = format!("/upload/{}", Test::nonce());
    let (first, second) = (http.get(&path).await?, over_2.get(&path).await?);
    same_json("the answer over HTTP/2", &second.is(200)?.json()?, &first.is(200)?.json()?)
}

async fn no_documents(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit(&queue, &definition).await?;
    for name in ["definition.json", "result.json"] {
        let path = format!("/f/j%2F{id}%2F{name}");
        http.ask(Method::PUT, &path, &[], r#"{"image":"forged"}"#).await?.is(400)?;
        http.get(&path).await?.is(400)?;
        http.get(&format!("{path}/exists")).await?.is(400)?;
    }
    same_json("definition", &http.data(&format!("/j/{id}/definition.json")).await?, &definition)
}

async fn verified(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let content = Test::nonce().into_bytes();
    let key = hash(&content);
    let wrong = http.ask(Method::PUT, &format!("/f/{key}"), &[], "something else").await?;
    that("a refusal of other bytes", (400..500).contains(&wrong.status), &wrong.status)?;
    http.get(&format!("/f/{key}/exists")).await?.says(404, &json!({ "exists": false }))?;
    // The connection is cut after half of the bytes.
    let half = tokio::time::timeout(
        std::time::Duration::from_secs(1),
        raw::request(http.base(), &format!("PUT /f/{key}"), &["Content-Length: 32"]),
    )
    .await;
    if let Ok(Ok((status, _))) = half {
        that("no success for half of the bytes", !(200..300).contains(&status), &status)?;
    }
    http.get(&format!("/f/{key}/exists")).await?.says(404, &json!({ "exists": false }))?;
    put(&http, &key, &content).await?;
    reads(&http, &key, &content).await
}

async fn aliases(t: Test) -> anyhow::Result<()> {
    let (http, key, queue) = (t.http(), Test::nonce(), t.queue());
    put(&http, &key, b"old").await?;
    let answer = follow(&http, &Method::GET, &format!("/api/v1/download/{key}"), &[], &[]).await?;
    answer.tells(200, "old")?;
    http.get(&format!("/api/v1/exists/{key}")).await?.says(200, &json!({ "exists": true }))?;
    let up = http.get(&format!("/api/v1/upload/{key}")).await?.is(200)?.json()?;
    same_json("ref of the upload", &up["ref"], &json!({ "value": key, "type": "key" }))?;
    let id = http.submit(&queue, &Test::job()).await?;
    http.get(&format!("/{queue}/j/{id}/result.json")).await?.says(200, &json!({ "data": null }))
}

async fn bad_keys(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let long = "k".repeat(256);
    for key in ["a%2Fb", "a%5Cb", "a%00b", "a%0Ab", long.as_str()] {
        for method in [Method::PUT, Method::GET] {
            http.ask(method, &format!("/f/{key}"), &[], "x").await?.is(400)?;
        }
    }
    // A client's library would resolve these.
    for key in ["..", ".", "%2e%2e"] {
        let (status, _) = raw::request(http.base(), &format!("GET /f/{key}"), &[]).await?;
        same(&format!("status of the key {key}"), &status, &400)?;
    }
    let longest = "k".repeat(255 - 32) + &Test::nonce();
    put(&http, &longest, b"x").await?;
    reads(&http, &longest, b"x").await
}
