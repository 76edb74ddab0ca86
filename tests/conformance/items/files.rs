//! Inputs and outputs as files (`relay-protocol` 2.9).

use serde_json::{Value, json};

use crate::check::{same, same_json, that};
use crate::peers::http::Http;
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("7.14", Compat, "Inputs and outputs are read by path under both prefixes.", paths),
        item!(
            "R-12",
            Dockframe,
            "A reference elsewhere is followed to where it points, never to a key of the relay's own.",
            elsewhere
        ),
        item!("R-13", Dockframe, "Names with spaces and letters beyond ASCII can be reached.", decoded_names),
        item!("R-14", Dockframe, "A second /outputs/ in a name is part of the name.", second_marker),
        item!(
            "R-15",
            Dockframe,
            "Text is typed by its name, but never as something that runs in a browser.",
            typed
        ),
        item!("R-16", Dockframe, "A file name cannot break out of its header.", header_name),
        item!("R-40", Dockframe, "A reference that is no URL is a 404.", no_url),
    ]
}

/// A job with these inputs, finished with these outputs.
async fn finished(t: &Test, queue: &str, inputs: &Value, outputs: &Value) -> anyhow::Result<(Http, String)> {
    let http = t.http();
    let mut definition = Test::job();
    definition["inputs"] = inputs.clone();
    let id = http.submit(queue, &definition).await?;
    let worker = Worker::join(t, queue).await?;
    worker.claim(&id).await?;
    let result =
        json!({ "StatusCode": 0, "logs": [], "duration": 1, "isTimedOut": false, "outputs": outputs });
    worker.finish(&id, "Success", &result).await?;
    Ok((http, id))
}

async fn paths(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let http = t.http();
    http.get("/j/none/inputs/x").await?.tells(404, "Job not found")?;
    http.get("/j/none/outputs/x").await?.tells(404, "Finished job not found")?;
    let key = format!("{}.bin", Test::nonce());
    let all = json!({
        "in.txt": { "type": "utf8", "value": "hey" },
        "d/e.json": { "type": "json", "value": { "a": [1] } },
        "b.png": { "type": "base64", "value": "AAEC" },
        "noext": { "type": "base64", "value": "AAEC" },
        "bad": { "type": "base64", "value": "!!" },
        "own": { "type": "url", "value": format!("{}/f/{key}", http.base()) },
        "root": { "type": "url", "value": "https://example.org/" },
    });
    let (http, id) = finished(&t, &queue, &all, &all).await?;
    for (kind, name) in [("inputs", "Input"), ("outputs", "Output")] {
        for prefix in [format!("/j/{id}/{kind}"), format!("/q/{queue}/j/{id}/{kind}")] {
            let text = http.get(&format!("{prefix}/in.txt")).await?;
            text.tells(200, "hey")?;
            same("media type", &text.media(), &"text/plain".to_owned())?;
            http.get(&format!("{prefix}/d/e.json")).await?.says(200, &json!({ "a": [1] }))?;
            let image = http.get(&format!("{prefix}/b.png")).await?;
            same("bytes", &image.is(200)?.body, &vec![0, 1, 2])?;
            same("media type", &image.media(), &"image/png".to_owned())?;
            let disposition = image.header("content-disposition").unwrap_or_default();
            that(
                "an attachment with its name",
                disposition.starts_with("attachment; filename=\"b.png\""),
                &disposition,
            )?;
            same("Content-Length", &image.header("content-length"), &Some("3"))?;
            let plain = http.get(&format!("{prefix}/noext")).await?;
            same("media type", &plain.is(200)?.media(), &"application/octet-stream".to_owned())?;
            http.get(&format!("{prefix}/bad"))
                .await?
                .says(400, &json!({ "error": "Invalid base64 data" }))?;
            let own = http.get(&format!("{prefix}/own")).await?;
            let location = own.is(302)?.header("location").unwrap_or_default();
            that("a way to the blob", location.contains(&key) && location.starts_with("http"), &location)?;
            let root = http.get(&format!("{prefix}/root")).await?;
            same("Location", &root.is(302)?.header("location"), &Some("https://example.org/"))?;
            let unknown = http.get(&format!("{prefix}/nope")).await?;
            unknown.tells(404, &format!("{name} file 'nope' not found"))?;
            for empty in [prefix.clone(), format!("{prefix}/")] {
                http.get(&empty).await?.tells(400, "Missing filename")?;
            }
        }
    }
    Ok(())
}

async fn elsewhere(t: Test) -> anyhow::Result<()> {
    let outputs = json!({
        "other": { "type": "url", "value": "https://example.org/data/file.bin?x=1" },
        "deep": { "type": "url", "value": "https://example.org/f/short" },
        "script": { "type": "url", "value": "javascript:alert(1)" },
        "file": { "type": "url", "value": "file:///etc/passwd" },
    });
    let (http, id) = finished(&t, &t.queue(), &json!({}), &outputs).await?;
    let other = http.get(&format!("/j/{id}/outputs/other")).await?;
    same("Location", &other.is(302)?.header("location"), &Some("https://example.org/data/file.bin?x=1"))?;
    let deep = http.get(&format!("/j/{id}/outputs/deep")).await?;
    same("Location", &deep.is(302)?.header("location"), &Some("https://example.org/f/short"))?;
    for name in ["script", "file"] {
        http.get(&format!("/j/{id}/outputs/{name}")).await?.is(404)?;
    }
    Ok(())
}

async fn decoded_names(t: Test) -> anyhow::Result<()> {
    let outputs = json!({
        "a b": { "type": "utf8", "value": "space" },
        "ä/ö.txt": { "type": "utf8", "value": "letters" },
        "raw%20name": { "type": "utf8", "value": "raw" },
    });
    let (http, id) = finished(&t, &t.queue(), &json!({}), &outputs).await?;
    for (path, text) in [("a%20b", "space"), ("%C3%A4/%C3%B6.txt", "letters"), ("raw%20name", "raw")] {
        http.get(&format!("/j/{id}/outputs/{path}")).await?.tells(200, text)?;
    }
    Ok(())
}

async fn second_marker(t: Test) -> anyhow::Result<()> {
    let files = json!({ "a/outputs/b": { "type": "utf8", "value": "x" }, "a/inputs/b": { "type": "utf8", "value": "y" } });
    let (http, id) = finished(&t, &t.queue(), &files, &files).await?;
    for kind in ["inputs", "outputs"] {
        http.get(&format!("/j/{id}/{kind}/a/outputs/b")).await?.tells(200, "x")?;
        http.get(&format!("/j/{id}/{kind}/a/inputs/b")).await?.tells(200, "y")?;
    }
    Ok(())
}

async fn typed(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let key = Test::nonce();
    let put = http.ask(reqwest::Method::PUT, &format!("/f/{key}"), &[], "blob").await?;
    that("an upload taken directly", put.status < 300, &put.status)?;
    let text = |value: &str| json!({ "type": "utf8", "value": value });
    let outputs = json!({ "a.csv": text("a,b"), "a.html": text("<b>"), "a.svg": text("<svg>"), "a.js": text("x"),
        "k": { "type": "key", "value": key }, "untyped": { "value": "x" } });
    let (http, id) = finished(&t, &t.queue(), &json!({}), &outputs).await?;
    same(
        "media type of a.csv",
        &http.get(&format!("/j/{id}/outputs/a.csv")).await?.media(),
        &"text/csv".to_owned(),
    )?;
    for name in ["a.html", "a.svg", "a.js"] {
        let answer = http.get(&format!("/j/{id}/outputs/{name}")).await?;
        let disposition = answer.is(200)?.header("content-disposition").unwrap_or_default();
        let safe = answer.media() == "text/plain"
            || (disposition.starts_with("attachment")
                && answer.header("x-content-type-options") == Some("nosniff"));
        that(&format!("{name} as plain text or as an attachment"), safe, &answer.headers)?;
    }
    http.get(&format!("/j/{id}/outputs/untyped")).await?.tells(200, "x")?;
    let by_key = http.get(&format!("/j/{id}/outputs/k")).await?;
    match by_key.status {
        302 => that(
            "a way to the blob",
            by_key.header("location").is_some_and(|to| to.contains(&key)),
            &by_key.headers,
        ),
        _ => by_key.tells(200, "blob"),
    }
}

async fn header_name(t: Test) -> anyhow::Result<()> {
    let outputs = json!({ "a\"; x=\"ü\\.bin": { "type": "base64", "value": "AAEC" } });
    let (http, id) = finished(&t, &t.queue(), &json!({}), &outputs).await?;
    let answer = http.get(&format!("/j/{id}/outputs/a%22%3B%20x%3D%22%C3%BC%5C.bin")).await?;
    let disposition = answer.is(200)?.header("content-disposition").unwrap_or_default();
    that("filename*", disposition.contains("filename*=UTF-8''"), &disposition)?;
    let quoted = disposition.split("filename=\"").nth(1).unwrap_or_default();
    that("no bare quote within the name", !quoted.starts_with("a\";"), &disposition)
}

async fn no_url(t: Test) -> anyhow::Result<()> {
    let outputs = json!({ "nourl": { "type": "url", "value": "not a url" } });
    let (http, id) = finished(&t, &t.queue(), &json!({}), &outputs).await?;
    http.get(&format!("/j/{id}/outputs/nourl")).await?.tells(404, "Output file 'nourl' not found")?;
    same_json(
        "the reference as it was",
        &http.data(&format!("/j/{id}/result.json")).await?["finished"]["result"]["outputs"],
        &outputs,
    )
}
