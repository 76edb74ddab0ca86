//! 22 to 28: how inputs become files, and what must not become of them.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Item;
use crate::check::{same, that};
use crate::registry::{item, unseen};
use crate::worker::relay::{Page, Relay, Way};
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "22a",
            Compat,
            "Inputs of every type are files, nested and unicode names and empty ones too.",
            every_type
        ),
        item!(
            "22b",
            Dockframe,
            "A reference without a type, or with a number or boolean, has its plain meaning.",
            loose_types
        ),
        item!(
            "23",
            Dockframe,
            "Names that lead out of the job's directory are Errors, and nothing is written there.",
            bad_names
        ),
        item!(
            "24a",
            Compat,
            "An absolute config file is at its path; a relative one beats an input of its name.",
            config_files
        ),
        item!("24b", Dockframe, "A colon in a config path is part of the name.", colon),
        item!("25", Dockframe, "A job that overwrites its input changes no other job's.", own_copy),
        item!(
            "26a",
            Dockframe,
            "A relay's file whose bytes are not those of its name is an Error.",
            wrong_bytes
        ),
        item!(
            "26b",
            Dockframe,
            "A foreign file with a wrong hash is used, and never taken for what the hash names.",
            wrong_hash
        ),
        item!("26c", Dockframe, "Ten jobs with one file download it once.", one_download),
        item!("27a", Compat, "A key that is refused with 503 twice is fetched all the same.", key_retries),
        item!("27b", Dockframe, "So is a URL.", url_retries),
        item!("27c", Dockframe, "A body that was cut is fetched to its end.", cut_body),
        item!(
            "27d",
            Compat,
            "An input that cannot be had is an Error, and its text the whole log.",
            no_input
        ),
        item!("27e", Dockframe, "That text has the input's name and the status.", no_input_text),
        item!("28a", Dockframe, "The worker's own files are no inputs.", no_file_urls),
        unseen!(
            "28b",
            Dockframe,
            "Private addresses are refused when the relay is public.",
            "the relay here is on a private address"
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn every_type(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let url = bench.relay.page("/files/some", vec![Page::ok("over http")]);
    bench.relay.put_blob("some-key", "by key");
    let script = "for f in a/b/text json base64 url key data 'naïve ü/ß' empty loose; do printf '%s=' \"$f\"; cat \"$JOB_INPUTS/$f\"; echo; done";
    let mut definition = t.sh(script);
    definition["inputs"] = json!({
        "a/b/text": { "type": "utf8", "value": "text é" },
        "json": { "type": "json", "value": { "b": [1, "x"], "a": null } },
        "base64": { "type": "base64", "value": "aGVsbG8=" },
        "loose": { "type": "base64", "value": "aGVs\n bG8" },
        "url": { "type": "url", "value": url },
        "key": { "type": "key", "value": "some-key" },
        "data": { "type": "url", "value": "data:text/plain;base64,ZGF0YQ==" },
        "naïve ü/ß": { "type": "utf8", "value": "unicode" },
        "empty": { "type": "utf8", "value": "" },
    });
    let ended = bench.run(definition).await?.good()?;
    let wanted = "a/b/text=text é\njson={\"b\":[1,\"x\"],\"a\":null}\nbase64=hello\nurl=over http\nkey=by key\ndata=data\nnaïve ü/ß=unicode\nempty=\nloose=hello\n";
    same("the files", &ended.stdout().as_str(), &wanted)
}

async fn loose_types(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let mut definition = t.sh(
        "cd /inputs; for f in text data object number yes nothing; do printf '%s=' $f; cat $f; echo; done",
    );
    definition["inputs"] = json!({
        "text": { "value": "plain" },
        "data": { "value": "data:text/plain,d%20d" },
        "object": { "value": { "a": [1] } },
        "number": { "type": "utf8", "value": 5.5 },
        "yes": { "type": "utf8", "value": true },
        "nothing": { "type": "utf8", "value": null },
    });
    let ended = bench.run(definition).await?.good()?;
    same(
        "the files",
        &ended.stdout().as_str(),
        &"text=plain\ndata=d d\nobject={\"a\":[1]}\nnumber=5.5\nyes=true\nnothing=null\n",
    )?;
    for reference in [
        json!({ "type": "utf8", "value": { "a": 1 } }),
        json!({ "type": "base64", "value": "a_b-" }),
        json!({ "type": "url", "value": "ftp://127.0.0.1/x" }),
    ] {
        let mut definition = t.sh("true");
        definition["inputs"] = json!({ "odd-one": reference });
        let ended = bench.run(definition).await?.failed()?;
        that("an error with the input's name", ended.error().contains("odd-one"), &ended.value)?;
    }
    Ok(())
}

async fn bad_names(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=4"]).await?;
    let file = json!({ "type": "utf8", "value": "out" });
    let mark = format!("escaped-{}", t.nonce());
    let long = "n".repeat(300);
    let deep = "d/".repeat(40) + "x";
    let mut jobs = Vec::new();
    for name in [&*format!("../../../../{mark}"), &format!("a/../../{mark}"), "nul\0byte", &long, &deep] {
        let mut definition = t.sh("true");
        definition["inputs"] = json!({ name: file });
        jobs.push((name.to_owned(), bench.submit(definition)?));
    }
    let mut conflict = t.sh("true");
    conflict["inputs"] = json!({ "a": file, "a/b": file });
    jobs.push(("conflict".to_owned(), bench.submit(conflict)?));
    for name in [&*format!("/../tmp/{mark}"), "/proc/x", "/", "/outputs/x", "/job-cache/x", "../x"] {
        let mut definition = t.sh("true");
        definition["configFiles"] = json!({ name: file });
        jobs.push((format!("config {name}"), bench.submit(definition)?));
    }
    for build in [
        json!({ "dockerfile": "FROM scratch", "filename": "../../x" }),
        json!({ "dockerfile": "FROM scratch", "buildContext": "../.." }),
        json!({ "dockerfile": "FROM scratch", "buildContext": "--output=/tmp" }),
    ] {
        jobs.push((build.to_string(), bench.submit(json!({ "build": build, "command": "true" }))?));
    }
    for (what, job) in &jobs {
        let ended = bench.ended(job).await?;
        that(&format!("an Error for {what}"), ended.reason() == "Error", &ended.value)?;
    }
    // A job id may be any text; it never names a place.
    let odd = format!("../../{mark}");
    bench.relay.submit(&odd, t.sh("true"))?;
    bench.ended(&odd).await?;
    let found = tokio::process::Command::new("find")
        .args(["/tmp", "-maxdepth", "6", "-name", &format!("*{mark}*")])
        .output()
        .await?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    that("nothing outside", found.is_empty(), &found)
}

async fn config_files(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("cat /etc/deep/er/conf; cat /inputs/both; cat /inputs/only");
    let file = |text: &str| json!({ "type": "utf8", "value": text });
    definition["inputs"] = json!({ "both": file("input\n") });
    definition["configFiles"] = json!({ "/etc/deep/er/conf": file("absolute\n"), "both": file("config\n"), "only": file("relative\n") });
    let ended = bench.run(definition).await?.good()?;
    same("the files", &ended.stdout().as_str(), &"absolute\nconfig\nrelative\n")
}

async fn colon(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("cat /etc/a:b; cat '/etc/c:ro'");
    let file = |text: &str| json!({ "type": "utf8", "value": text });
    definition["configFiles"] = json!({ "/etc/a:b": file("one\n"), "/etc/c:ro": file("two\n") });
    let ended = bench.run(definition).await?.good()?;
    same("the files", &ended.stdout().as_str(), &"one\ntwo\n")
}

async fn own_copy(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let content = "the original".repeat(100);
    let hash = hex(content.as_bytes());
    bench.relay.put_blob(&hash, content.clone());
    let url = format!("{}/f/{hash}", bench.relay.url());
    let mut first = t.sh("cd /inputs; echo changed > x; chmod 777 x; ls -la x");
    first["inputs"] = json!({ "x": { "type": "url", "value": url } });
    let mut second = t.sh("cat /inputs/x");
    second["inputs"] = first["inputs"].clone();
    bench.run(first).await?.good()?;
    let ended = bench.run(second).await?.good()?;
    same("the second job's input", &ended.stdout(), &content)
}

async fn wrong_bytes(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let hash = hex(b"the right ones");
    bench.relay.put_blob(&hash, "other bytes");
    let mut definition = t.sh("true");
    let url = format!("{}/f/{hash}", bench.relay.url());
    definition["inputs"] = json!({ "my-input": { "type": "url", "value": url } });
    let ended = bench.run(definition).await?.failed()?;
    let said = ended.error();
    that("an error with name and sha256", said.contains("my-input") && said.contains("sha256"), &ended.value)
}

async fn wrong_hash(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let right = "what the hash names";
    let hash = hex(right.as_bytes());
    // Not of the relay's own addresses: another server.
    let other = Relay::start(Way::Old).await?;
    let url = other.page("/foreign", vec![Page::ok("something else")]);
    let mut first = t.sh("cat /inputs/x");
    first["inputs"] = json!({ "x": { "type": "url", "value": url, "hash": hash } });
    let ended = bench.run(first).await?.good()?;
    same("the bytes that came", &ended.stdout().as_str(), &"something else")?;
    bench.relay.put_blob(&hash, right);
    let mut second = t.sh("cat /inputs/x");
    second["inputs"] = json!({ "x": { "type": "url", "value": format!("{}/f/{hash}", bench.relay.url()) } });
    let ended = bench.run(second).await?.good()?;
    same("what the hash names", &ended.stdout().as_str(), &right)
}

async fn one_download(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=10"]).await?;
    let content = vec![7; 3 << 20];
    let hash = hex(&content);
    bench.relay.put_blob(&hash, content);
    let mut definition = t.sh("wc -c < /inputs/x");
    definition["inputs"] =
        json!({ "x": { "type": "url", "value": format!("{}/f/{hash}", bench.relay.url()) } });
    let jobs: Vec<String> =
        (0..10).map(|_| bench.submit(definition.clone())).collect::<anyhow::Result<_>>()?;
    for job in &jobs {
        let ended = bench.ended(job).await?.good()?;
        same("size", &ended.stdout().trim(), &"3145728")?;
    }
    same("downloads", &bench.relay.n_requests("GET", &format!("/f/{hash}")), &1)
}

async fn key_retries(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.page("/f/shy", vec![Page::status(503), Page::status(503), Page::ok("at last")]);
    let mut definition = t.sh("cat /inputs/x");
    definition["inputs"] = json!({ "x": { "type": "key", "value": "shy" } });
    let ended = bench.run(definition).await?.good()?;
    same("the file", &ended.stdout().as_str(), &"at last")
}

async fn url_retries(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let answers = vec![Page::status(503), Page::status(429), Page::ok("at last")];
    let url = bench.relay.page("/files/shy", answers);
    let mut definition = t.sh("cat /inputs/x");
    definition["inputs"] = json!({ "x": { "type": "url", "value": url } });
    let ended = bench.run(definition).await?.good()?;
    same("the file", &ended.stdout().as_str(), &"at last")
}

async fn cut_body(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let whole = "0123456789".repeat(2000);
    let cut = Page { cut: true, ..Page::ok(whole[..9000].to_owned()) };
    let url = bench.relay.page("/files/cut", vec![cut, Page::ok(whole.clone())]);
    let mut definition = t.sh("cat /inputs/x");
    definition["inputs"] = json!({ "x": { "type": "url", "value": url } });
    let ended = bench.run(definition).await?.good()?;
    same("the whole file", &ended.stdout(), &whole)
}

async fn refused_input(t: &Test) -> anyhow::Result<crate::worker::bench::Ended> {
    let bench = t.bench(Way::Old, &[]).await?;
    let url = bench.relay.page("/files/gone", vec![Page::status(404)]);
    let mut definition = t.sh("true");
    definition["inputs"] = json!({ "wanted": { "type": "url", "value": url } });
    bench.run(definition).await?.failed()
}

async fn no_input(t: Test) -> anyhow::Result<()> {
    let ended = refused_input(&t).await?;
    that("no exit code", ended.code().is_none(), &ended.value)?;
    that(
        "a text as error",
        ended.result()["error"].as_str().is_some_and(|text| !text.is_empty()),
        &ended.value,
    )?;
    let logs = ended.logs();
    that("one line that begins with 💥", logs.len() == 1 && logs[0].text.starts_with('💥'), &logs)
}

async fn no_input_text(t: Test) -> anyhow::Result<()> {
    let ended = refused_input(&t).await?;
    let said = ended.error();
    that("name and status", said.contains("wanted") && said.contains("404"), &ended.value)?;
    that(
        "isTimedOut and outputs",
        ended.result()["isTimedOut"] == false && ended.result()["outputs"] == json!({}),
        &ended.value,
    )
}

async fn no_file_urls(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let path = t.folder()?.join("secret");
    std::fs::write(&path, "hush-hush")?;
    let mut definition = t.sh("cat /inputs/x");
    definition["inputs"] = json!({ "x": { "type": "url", "value": format!("file://{}", path.display()) } });
    let ended = bench.run(definition).await?.failed()?;
    that("nothing of the file", !ended.value.to_string().contains("hush-hush"), &ended.value)
}
