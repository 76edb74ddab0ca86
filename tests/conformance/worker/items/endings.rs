//! 50, 52 and 53: what each end of a program becomes.

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::relay::Way;
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("50a", Compat, "Exit code 0 is Success, with the program's text alone.", exit_zero),
        item!("50b", Compat, "Exit code 137 is Success with a line about it.", exit_137),
        item!(
            "50c",
            Compat,
            "A failed build is an Error with the build's text, and no line of the program.",
            failed_build
        ),
        item!(
            "50d",
            Compat,
            "Neither image nor build, no Dockerfile, and a context that cannot be had are Errors.",
            nothing_to_run
        ),
        item!(
            "50e",
            Dockframe,
            "Every Error says what failed, and has isTimedOut and outputs.",
            errors_speak
        ),
        item!(
            "50f",
            Dockframe,
            "A field of a wrong type is an Error that names it, and the worker lives.",
            wrong_types
        ),
        item!("50g", Dockframe, "The result tells digest, platform, worker, version and phases.", what_ran),
        item!(
            "52a",
            Dockframe,
            "Out of memory is told by oomKilled and a line with the limit.",
            out_of_memory
        ),
        item!("52b", Dockframe, "137 of a killed child is not called out of memory.", killed_child),
        item!("53", Compat, "Another exit code is Success too, with its lines and its outputs.", other_code),
    ]
}

async fn exit_zero(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("echo one")).await?.good()?;
    same("the log", &ended.text().as_str(), &"one\n")?;
    same_json("outputs", &ended.result()["outputs"], &json!({}))?;
    same_json("isTimedOut", &ended.result()["isTimedOut"], &json!(false))?;
    that("no error", ended.result()["error"].is_null(), ended.result())
}

async fn exit_137(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("echo x > /outputs/x; exit 137")).await?;
    same("reason", &ended.reason(), &"Success")?;
    same("exit code", &ended.code(), &Some(137))?;
    that("the output", ended.outputs() == ["x"], &ended.value)?;
    let last = ended.logs().pop();
    that(
        "a last line on stderr",
        last.is_some_and(|line| line.is_stderr && line.text.contains("StatusCode: 137")),
        &ended.logs(),
    )
}

async fn failed_build(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let text = format!("FROM {}\nLABEL {}\nRUN echo so-far && false\n", t.image(), t.image_label());
    let ended = bench.run(json!({ "build": { "dockerfile": text }, "command": "true" })).await?.failed()?;
    that("no exit code", ended.code().is_none(), &ended.value)?;
    that("the build's text", ended.text().contains("so-far"), &ended.text())?;
    same_json("outputs", &ended.result()["outputs"], &json!({}))?;
    let steps: Vec<String> = bench.relay.logs(&ended.job).into_iter().map(|logs| logs.step).collect();
    that("an empty run log", !steps.iter().any(|step| step == "Running"), &steps)
}

async fn nothing_to_run(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let gone = format!("{}/archives/gone.tar.gz", bench.relay.url());
    for definition in [
        json!({ "command": "true" }),
        json!({ "command": "true", "build": { "filename": "Dockerfile" } }),
        json!({ "command": "true", "build": { "context": gone } }),
        json!({ "command": "true", "build": { "context": "ftp://127.0.0.1/x.zip" } }),
    ] {
        let what = definition.to_string();
        let ended = bench.run(definition).await?;
        that(
            &format!("an Error for {what}"),
            ended.reason() == "Error" && ended.code().is_none(),
            &ended.value,
        )?;
    }
    Ok(())
}

async fn errors_speak(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=4"]).await?;
    let failing = format!("FROM {}\nRUN false\n", t.image());
    let gone = format!("{}/archives/gone.tar.gz", bench.relay.url());
    for definition in [
        json!({ "command": "true" }),
        json!({ "command": "true", "build": { "dockerfile": failing } }),
        json!({ "command": "true", "build": { "context": gone } }),
        t.job(json!({ "command": "no-such-program" })),
        t.job(json!({ "command": "true", "workdir": "relative" })),
        t.job(json!({ "command": "true", "inputs": { "x": { "type": "novel", "value": 1 } } })),
    ] {
        let what = definition.to_string();
        let ended = bench.run(definition).await?.failed()?;
        let (result, error) = (ended.result(), ended.error());
        that(&format!("an error that speaks for {what}"), error.len() > 8 && error != "{}", result)?;
        same_json("isTimedOut", &result["isTimedOut"], &json!(false))?;
        same_json("outputs", &result["outputs"], &json!({}))?;
        that("no undefined", !ended.text().contains("undefined"), &ended.text())?;
    }
    Ok(())
}

async fn wrong_types(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=4"]).await?;
    let mut jobs = Vec::new();
    for (field, value) in [
        ("command", json!(5)),
        ("command", json!({ "a": 1 })),
        ("command", json!(["sh", 5])),
        ("entrypoint", json!(true)),
        ("env", json!([1])),
        ("env", json!("A=B")),
        ("workdir", json!(1)),
        ("maxDuration", json!([1])),
        ("shmSize", json!({})),
        ("inputs", json!("x")),
        ("inputs", json!([1])),
        ("configFiles", json!(7)),
        ("requirements", json!("many")),
        ("build", json!("Dockerfile")),
        ("image", json!(["busybox"])),
    ] {
        let job = bench.submit(t.job(json!({ "command": "true", field: value.clone() })))?;
        jobs.push((field, value, job));
    }
    for (field, value, job) in jobs {
        let ended = bench.ended(&job).await?;
        let is_named = ended.reason() == "Error" && ended.error().contains(field);
        that(&format!("an Error that names {field} = {value}"), is_named, &ended.value)?;
    }
    bench.run(t.sh("true")).await?.good()?;
    Ok(())
}

async fn what_ran(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("true")).await?.good()?;
    let result = ended.result();
    that(
        "a digest",
        result["imageDigest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")),
        result,
    )?;
    that(
        "a platform",
        result["platform"].as_str().is_some_and(|platform| platform.starts_with("linux/")),
        result,
    )?;
    same_json("worker", &result["worker"], &json!(bench.worker.id))?;
    let version = bench.registered().await?["version"].clone();
    same_json("version", &result["workerVersion"], &version)?;
    for phase in ["inputs", "image", "start", "run", "outputs"] {
        that(phase, result["phases"][phase].is_number(), result)?;
    }
    Ok(())
}

async fn out_of_memory(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let definition = t.job(json!({ "command": ["tail", "/dev/zero"], "requirements": { "memory": "32M" } }));
    let ended = bench.run(definition).await?;
    same("reason", &ended.reason(), &"Success")?;
    same("exit code", &ended.code(), &Some(137))?;
    same_json("oomKilled", &ended.result()["oomKilled"], &Value::Bool(true))?;
    that("a line about memory", ended.text().contains("memory"), &ended.text())
}

async fn killed_child(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("sleep 100 & kill -9 $!; wait $!")).await?;
    same("exit code", &ended.code(), &Some(137))?;
    that("not called out of memory", ended.result()["oomKilled"] != true, ended.result())?;
    that("no such line", !ended.text().contains("out of memory"), &ended.text())
}

async fn other_code(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let ended = bench.run(t.sh("echo out; echo kept > /outputs/kept; exit 3")).await?;
    same("reason", &ended.reason(), &"Success")?;
    same("exit code", &ended.code(), &Some(3))?;
    same("output", &ended.inline("kept")?, &b"kept\n".to_vec())?;
    let logs = ended.logs();
    let last: Vec<(&str, bool)> =
        logs.iter().rev().take(2).rev().map(|line| (line.text.trim_end(), line.is_stderr)).collect();
    same(
        "the last two lines",
        &last,
        &vec![("⚠️ Container exited with status code: 3", true), ("💥 StatusCode: 3", true)],
    )
}
