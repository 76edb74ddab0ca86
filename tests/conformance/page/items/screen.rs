//! What is shown (`metaframe` 5.9; items 36 to 39, 51, 57, 58, 60, 61). Words are those of the existing page or of ours.

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use crate::check::{same, same_json, that};
use crate::page::relay::{SOON, Way, entry, id_of, with_outputs};
use crate::page::setup::{Hash, Scripted, Test};
use crate::registry::{Item, item};
use crate::test::now;

/// How pages say that a job waits, runs, has ended well.
pub(super) const QUEUED: &[&str] = &["Waiting", "Job Queued"];
pub(crate) const RUNNING: &[&str] = &["Running", "Job Running"];
pub(super) const COMPLETE: &[&str] = &["Finished in", "Finished", "Job Complete", "Stored result"];

/// The job button's words.
pub(crate) const RUN: &[&str] = &["Run Job", "Run"];
pub(crate) const STOP: &[&str] = &["Stop Job", "Stop"];
const SAVE_AND_RUN: &[&str] = &["Save+Run", "Save and run"];

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!(
            "36",
            Compat,
            "Each state is shown in words, with the workers, and a hint without queue or worker.",
            states
        )
        .long(),
        item!("37", Compat, "Log lines stream, by kind, with ANSI colours, and never as HTML.", log),
        item!("38", Compat, "Each output and input can be saved, all outputs as one archive.", downloads),
        item!(
            "39",
            Compat,
            "What the settings show is in the address, which alone restores it.",
            settings_in_address
        ),
        item!(
            "51",
            Dockframe,
            "Lines that come right after Running or before it are shown, and stay after Stop.",
            lines_around_running
        ),
        item!("57", Dockframe, "Saving one setting changes only that one.", one_setting),
        item!(
            "58",
            Dockframe,
            "Save+Run is offered for every unsaved change, before the first run too, and runs what was saved.",
            save_and_run
        ),
        item!(
            "60",
            Dockframe,
            "Cancel in the list of jobs ends the own job, others' only after confirmation.",
            cancel_in_list
        ),
        item!(
            "61",
            Dockframe,
            "An error's text is shown, and an exit code is the program's alone.",
            error_text
        ),
    ]
}

async fn started(test: &Test, way: Way, more: &str) -> anyhow::Result<(Scripted, String)> {
    let hash = format!("{}{more}", Hash::auto(&test.queue(), &test.job()).text());
    let bench = test.scripted(test.relay(way).await?, &hash, &no_inputs()).await?;
    let id = id_of(&bench.relay.submission(0).await?)?;
    Ok((bench, id))
}

async fn states(test: Test) -> anyhow::Result<()> {
    let ends = [
        ("Success", json!({ "StatusCode": 0, "duration": 1200, "logs": [], "outputs": {} }), COMPLETE),
        (
            "Success",
            json!({ "StatusCode": 3, "duration": 1200, "logs": [], "outputs": {} }),
            &["Exit 3", "Exit Code: 3"],
        ),
        ("Error", json!({ "error": "it broke", "logs": [] }), &["Failed", "Job Failed"]),
        (
            "TimedOut",
            json!({ "error": "Timeout", "isTimedOut": true, "logs": [] }),
            &["Timed out", "Job Timed Out"],
        ),
    ];
    for (n, (reason, result, words)) in ends.into_iter().enumerate() {
        let way = if n % 2 == 0 { Way::Old } else { Way::Watch };
        let (bench, id) = started(&test, way, &format!("&N={n}")).await?;
        bench.page.shows_one(QUEUED).await?;
        bench.page.shows_one(&["1 worker", "1"]).await?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        bench.relay.logs(&id, "docker build", &[json!(["Step 1\n", 1])]);
        bench.page.shows_one(&["Building image", "Job Building"]).await?;
        bench.relay.logs(&id, "Running", &[json!(["first\n", 2])]);
        bench.page.shows_one(RUNNING).await?;
        bench.relay.finishes(&id, reason, result);
        bench.page.shows_one(words).await?;
    }
    let relay = test.relay(Way::Watch).await?;
    let page = test.alone(&relay, &Hash::default().with_json("job", &test.job()).text()).await?;
    page.shows("queue").await?;
    relay.set(|settings| settings.workers.clear());
    let page = test.alone(&relay, &Hash::auto(&test.queue(), &test.job()).text()).await?;
    // The command that starts one.
    page.shows(&test.queue()).await
}

/// Text, colour and parts of the log's line with this text.
const LINE: &str = r"
    const log = [...document.querySelectorAll('[role=log]')];
    const walk = log.flatMap((e) => [...e.querySelectorAll('*')]).filter((e) => e.textContent.includes(arguments[0]));
    const inner = walk[walk.length - 1];
    if (!inner) return null;
    const classes = [];
    for (let e = inner; e && e.getAttribute?.('role') !== 'log'; e = e.parentElement) classes.push(e.className);
    return { text: inner.textContent, colour: getComputedStyle(inner).color, classes: classes.join(' ') };
";

async fn log(test: Test) -> anyhow::Result<()> {
    for way in [Way::Old, Way::Watch] {
        let (bench, id) = started(&test, way, "").await?;
        bench.relay.runs(&id);
        bench.page.shows_one(RUNNING).await?;
        bench.page.frame().run("window.hit = 0", &[]).await?;
        bench.relay.logs(&id, "docker image pull", &[json!(["pulled\n", 1])]);
        bench.relay.logs(
            &id,
            "Running",
            &[
                json!(["plain out\n", 2]),
                json!(["plain err\n", 3, true]),
                json!(["\u{1b}[31mred text\u{1b}[0m\n", 4]),
                json!(["<img src=x onerror='window.hit=1'><b>bold</b>\n", 5]),
                json!(["see https://example.org/page here\n", 6]),
            ],
        );
        bench.page.logs_containing("<b>bold</b>").await?;
        let line = async |text: &str| bench.page.frame().run(LINE, &[json!(text)]).await;
        let (out, err, red) = (line("plain out").await?, line("plain err").await?, line("red text").await?);
        that(
            "stderr unlike stdout",
            out["classes"] != err["classes"] || out["colour"] != err["colour"],
            &(&out, &err),
        )?;
        that("a colour by ANSI", out["colour"] != red["colour"], &(&out, &red))?;
        same("no escape left", &red["text"], &json!("red text"))?;
        let build = line("pulled").await?;
        that("build lines unlike others", build["classes"] != out["classes"], &(&build, &out))?;
        let parts = "return document.querySelectorAll('[role=log] b, [role=log] img').length + window.hit";
        same("no HTML from a log", &bench.page.frame().run(parts, &[]).await?, &json!(0))?;
        let link = "return [...document.querySelectorAll('[role=log] a')].map((a) => a.href)";
        same("a link", &bench.page.frame().run(link, &[]).await?, &json!(["https://example.org/page"]))?;
    }
    Ok(())
}

async fn downloads(test: Test) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (bench, id) = started(&test, Way::Old, "").await?;
    bench.host.inputs(json!({ "in.txt": "an input" })).await?;
    let id = id_of(&bench.relay.submission_of_another(&id, 0).await?)?;
    bench.relay.runs(&id);
    bench.relay.put_blob("large", "by reference");
    let outputs = json!({
        "small.txt": { "type": "base64", "value": "aGk=" },
        "dir/large.bin": { "type": "url", "value": format!("{}/f/large", bench.relay.url()) },
    });
    bench.relay.finishes(&id, "Success", with_outputs(&outputs));
    let allow = json!({ "behavior": "allow", "downloadPath": folder.path().to_str() });
    bench.page.frame().chromium("Page.setDownloadBehavior", &allow).await?;
    bench.page.shows_one(COMPLETE).await?;
    let saved = async |name: &str| {
        wait::until(&format!("{name} to be saved"), SOON, async || {
            let content = std::fs::read(folder.path().join(name)).map_err(|error| error.to_string())?;
            if content.is_empty() { Err("it is empty".to_owned()) } else { Ok(content) }
        })
        .await
    };
    bench.page.open_panel("Outputs").await?;
    bench.page.press_starting("Download small.txt").await?;
    same("the output", &saved("small.txt").await?, &b"hi".to_vec())?;
    bench.page.press_ignoring_case("Download all").await?;
    let archive = saved("all-outputs-downloaded-files.zip").await?;
    for part in ["small.txt", "dir/large.bin", "by reference"] {
        let is_in = archive.windows(part.len()).any(|window| window == part.as_bytes());
        that(&format!("{part} in the archive"), is_in, &archive.len())?;
    }
    bench.page.open_panel("Inputs").await?;
    bench.page.press_starting("Download in.txt").await?;
    same("the input", &saved("in.txt").await?, &b"an input".to_vec())
}

async fn settings_in_address(test: Test) -> anyhow::Result<()> {
    let relay = test.relay(Way::Watch).await?;
    let page = test.alone(&relay, &Hash::manual(&test.queue(), &test.job()).text()).await?;
    page.open_panel("Settings").await?;
    page.press("Configure").await?;
    page.set_field("Working directory", "/work place").await?;
    page.set_field("CPUs", "2").await?;
    let url = wait::until("both in the address", SOON, async || {
        let url = page.frame().run("return location.href", &[]).await.map_err(|error| error.to_string())?;
        let url = url.as_str().unwrap_or_default().to_owned();
        let job = job_in(&url);
        let is_there = job["workdir"] == "/work place" && job["requirements"]["cpus"] == 2;
        if is_there { Ok(url) } else { Err(format!("{job}")) }
    })
    .await?;
    let window = test.window().await?;
    window.open(&url).await?;
    let restored = dockframe_tests::pages::JobPage::new(window);
    restored.open_panel("Settings").await?;
    restored.press("Configure").await?;
    same("the field", &restored.field("CPUs").await?, &"2".to_owned())?;
    same("the directory", &restored.field("Working directory").await?, &"/work place".to_owned())
}

/// The job in an address.
fn job_in(url: &str) -> Value {
    use base64::Engine as _;
    let decode = || {
        let (_, value) = url.split_once("job=")?;
        let value = value.split('&').next()?.replace("%3D", "=");
        let bytes = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
        let text = percent_encoding::percent_decode(&bytes).decode_utf8().ok()?.into_owned();
        serde_json::from_str(&text).ok()
    };
    decode().unwrap_or(Value::Null)
}

async fn lines_around_running(test: Test) -> anyhow::Result<()> {
    let (bench, id) = started(&test, Way::Old, "").await?;
    bench.page.shows_one(QUEUED).await?;
    bench.relay.logs(&id, "docker image pull", &[json!(["before it runs\n", 1])]);
    bench.relay.runs(&id);
    bench.relay.logs(&id, "Running", &[json!(["right after\n", 2])]);
    bench.page.logs_containing("right after").await?;
    bench.page.logs_containing("before it runs").await?;
    bench.relay.logs(&"f".repeat(64), "Running", &[json!(["of another job\n", 3])]);
    bench.page.press_one(STOP).await?;
    bench.relay.ending("Cancelled", 0).await?;
    bench.relay.list();
    bench.page.has_one(RUN, Some(true)).await?;
    bench.page.logs_containing("right after").await?;
    let words = bench.page.words().await?;
    that("no lines of other jobs", !words.contains("of another job"), &words)
}

async fn one_setting(test: Test) -> anyhow::Result<()> {
    let job = json!({
        "image": "alpine:3.18.5", "command": "ls", "workdir": "/w", "requirements": { "gpus": 2, "memory": "4G" },
        "env": { "A": "x=y", "EMPTY": "" }, "unknown": { "stays": true },
    });
    let bench = test
        .scripted(test.relay(Way::Watch).await?, &Hash::manual(&test.queue(), &job).text(), &no_inputs())
        .await?;
    bench.page.open_panel("Settings").await?;
    bench.page.press("Configure").await?;
    bench.page.set_field("CPUs", "3").await?;
    let told = bench.host.says("HashParamsUpdate", 0).await?;
    let mut expected = job.clone();
    expected["requirements"]["cpus"] = json!(3);
    same_json("the job", &job_in(told["params"]["hash"].as_str().unwrap_or_default()), &expected)?;
    bench.page.set_field("Working directory", "").await?;
    let told = bench.host.says("HashParamsUpdate", 1).await?;
    if let Some(job) = expected.as_object_mut() {
        job.remove("workdir");
    }
    same_json("the job", &job_in(told["params"]["hash"].as_str().unwrap_or_default()), &expected)?;
    // Building instead takes effect with Save.
    bench.page.press("Image").await?;
    bench.page.choose("Build the image").await?;
    wait::stays("the address", Duration::from_secs(1), async || {
        let said = bench.host.said().await.map_err(|error| error.to_string())?;
        let reports = said.iter().filter(|said| said.is("HashParamsUpdate")).count();
        if reports == 2 { Ok(()) } else { Err(format!("{reports} reports")) }
    })
    .await
}

async fn save_and_run(test: Test) -> anyhow::Result<()> {
    let hash =
        Hash::manual(&test.queue(), &test.job()).with_json("inputs", &json!({ "script.sh": "echo 1" }));
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash.text(), &no_inputs()).await?;
    bench.page.has_one(RUN, Some(true)).await?;
    bench.page.open_panel("Inputs").await?;
    bench.page.type_into_editor("script.sh", "echo 2").await?;
    bench.page.press_one(SAVE_AND_RUN).await?;
    let first = bench.relay.submission(0).await?;
    same("the saved text", &first["definition"]["configFiles"]["script.sh"]["value"], &json!("echo 2"))?;
    let id = id_of(&first)?;
    bench.relay.runs(&id);
    // Beside Stop while a job runs, and for an emptied file.
    bench.page.type_into_editor("script.sh", "").await?;
    bench.page.has_one(SAVE_AND_RUN, Some(true)).await?;
    bench.page.has_one(STOP, Some(true)).await?;
    bench.page.press_one(SAVE_AND_RUN).await?;
    let second = bench.relay.submission_of_another(&id, 0).await?;
    same("the emptied file", &second["definition"]["configFiles"]["script.sh"]["value"], &json!(""))
}

async fn cancel_in_list(test: Test) -> anyhow::Result<()> {
    let (bench, id) = started(&test, Way::Old, "").await?;
    bench.relay.runs(&id);
    let other = "e".repeat(64);
    bench.relay.becomes(&other, &entry("Running", now(), json!({ "namespaces": ["theirs"] })), None);
    bench.page.shows_one(RUNNING).await?;
    bench.page.frame().click("footer .queue-button, footer button:last-of-type").await?;
    let press = r"
        const row = [...document.querySelectorAll('li, tr')].find((e) => e.innerText.includes(arguments[0]));
        return [...(row?.querySelectorAll('button') ?? [])].find((e) => e.getClientRects().length > 0) ?? null;
    ";
    bench.page.frame().press("Cancel of another's job", press, &[json!("eeeee")]).await?;
    wait::stays("the other's job", Duration::from_millis(800), async || {
        let ended = bench.relay.since(0).into_iter().find(|what| what.change("Finished").is_some());
        ended.map_or(Ok(()), |what| Err(format!("{what:?}")))
    })
    .await?;
    bench.page.frame().press("the confirmation", press, &[json!("eeeee")]).await?;
    let cancel = bench
        .relay
        .awaits("the other's end", 0, SOON, |what| {
            let (job, value) = what.change("Finished")?;
            (job == other).then(|| value.clone())
        })
        .await?;
    same("reason", &cancel["reason"], &json!("Cancelled"))?;
    bench.page.frame().press("Cancel of the own job", press, &[json!("this job")]).await?;
    let cancel = bench
        .relay
        .awaits("the own end", 0, SOON, |what| {
            let (job, value) = what.change("Finished")?;
            (job == id).then(|| value.clone())
        })
        .await?;
    same("namespace", &cancel["namespace"], &json!("_"))
}

async fn error_text(test: Test) -> anyhow::Result<()> {
    let errors = [
        (json!("the disk is full of marbles"), "the disk is full of marbles"),
        (json!({ "statusCode": 404, "json": { "message": "no such marble" } }), "no such marble"),
    ];
    for (n, (error, words)) in errors.into_iter().enumerate() {
        let (bench, id) = started(&test, Way::Watch, &format!("&N={n}")).await?;
        bench.relay.runs(&id);
        bench.relay.finishes(&id, "Error", json!({ "error": error, "logs": [] }));
        bench.page.shows(words).await?;
        let shown = bench.page.words().await?.to_lowercase();
        let is_code =
            shown.contains("exit 404") || shown.contains("exit code: 404") || shown.contains("exit code 404");
        that("no exit code of the Engine's", !is_code, &shown)?;
    }
    Ok(())
}
