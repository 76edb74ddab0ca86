//! Messages: inputs, and the input `job` (`metaframe` 1.6, 5.5, 5.7; items 7 to 9, 31, 48, 54, 55).

use std::time::{Duration, Instant};

use dockframe_tests::hash as codec;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use super::inputs_of;
use crate::check::{same, same_json, that};
use crate::page::relay::{SOON, Way, id_of, with_outputs};
use crate::page::setup::{Hash, Scripted, Test};
use crate::registry::{Item, item};

/// As long as a submission may still come from something that happened before.
const AFTERWARDS: Duration = Duration::from_millis(1500);

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("7", Compat, "Changed inputs are merged, undefined deletes, several make one job.", merges),
        item!("8", Compat, "Equal inputs start no second job.", equal_inputs),
        item!("9", Compat, "After a reload by the host the answer's inputs alone are enough.", reload),
        item!(
            "31",
            Compat,
            "The input job is used only with allowsetjob, is written to the hash, and is never a file.",
            job_input
        ),
        item!(
            "48",
            Dockframe,
            "A bad input is reported at that input and holds up nothing else.",
            bad_inputs
        ),
        item!(
            "54",
            Dockframe,
            "While inputs change without pause something is submitted every second.",
            steady_changes
        )
        .long(),
        item!(
            "55",
            Dockframe,
            "The input job does not undo the user's edits, null changes nothing, text and references are read.",
            job_input_and_edits
        ),
    ]
}

async fn automatic(test: &Test, way: Way) -> anyhow::Result<(Scripted, String)> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(way).await?, &hash, &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    Ok((bench, first))
}

fn text(value: &str) -> Value {
    json!({ "type": "utf8", "value": value })
}

async fn merges(test: Test) -> anyhow::Result<()> {
    let (bench, first) = automatic(&test, Way::Old).await?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "a": "1", "b": "2", "n": null })).await?;
    let both = bench.relay.submission_of_another(&first, mark).await?;
    same_json("both", &inputs_of(&both), &json!({ "a": text("1"), "b": text("2") }))?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({})).await?;
    bench.relay.submits_no_other(&id_of(&both)?, mark, AFTERWARDS).await?;
    bench.host.inputs(json!({ "a": { "$undefined": true }, "b": "3" })).await?;
    let one = bench.relay.submission_of_another(&id_of(&both)?, mark).await?;
    same_json("b alone", &inputs_of(&one), &json!({ "b": text("3") }))?;
    // Jobs, not messages: the queue takes a repeated submission for one.
    let mut ids: Vec<String> = bench.relay.submissions(0).iter().filter_map(|all| id_of(all).ok()).collect();
    ids.dedup();
    same("jobs", &ids.len(), &3)
}

async fn equal_inputs(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let inputs = json!({ "a.txt": "same", "d": { "x": [1] } });
    let hosted = test.hosted_with(test.relay(Way::Old).await?, &hash, &inputs).await?;
    let id = hosted.relay.runs_to_the_end(0, with_outputs(&json!({}))).await?;
    hosted.page.shows_one(super::screen::COMPLETE).await?;
    let mark = hosted.relay.mark();
    hosted.host.set_inputs(&json!({ "mf": inputs })).await?;
    hosted.relay.submits_no_other(&id, mark, AFTERWARDS).await
}

async fn reload(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let relay = test.relay(Way::Old).await?;
    let answers = json!({ "state": { "inputs": { "a.txt": "held" } } });
    let bench = test.scripted(relay, &hash, &answers).await?;
    bench.relay.submission(0).await?;
    let mark = bench.relay.mark();
    bench.host.goto(&format!("{}/?reload=1{hash}", bench.relay.url())).await?;
    bench.host.says("SetupIframeServerResponseAck", 1).await?;
    let said = bench.host.said().await?;
    let requests: Vec<_> = said.iter().filter(|said| said.is("SetupIframeClientRequest")).collect();
    same("the id of the reloaded page's first message", &requests[requests.len() - 1].data["id"], &json!(1))?;
    let again = bench.relay.submission(mark).await?;
    same_json("the inputs", &inputs_of(&again), &json!({ "a.txt": text("held") }))
}

async fn job_input(test: Test) -> anyhow::Result<()> {
    let given = json!({ "command": format!("echo given {}", test.queue()), "image": "alpine:3.19" });
    let (bench, first) = automatic(&test, Way::Old).await?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "job": given })).await?;
    bench.relay.submits_no_other(&first, mark, AFTERWARDS).await?;
    bench.host.inputs(json!({ "x": "1" })).await?;
    let without = bench.relay.submission_of_another(&first, mark).await?;
    same_json("no file of this name", &inputs_of(&without), &json!({ "x": text("1") }))?;
    same("the job of the address", &without["definition"]["command"], &test.job()["command"])?;

    let hash = Hash::auto(&test.queue(), &test.job()).with("allowsetjob", "true").text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    bench.host.inputs(json!({ "job": given, "x": "1" })).await?;
    let set = bench.relay.submission_of_another(&first, 0).await?;
    same("the given command", &set["definition"]["command"], &given["command"])?;
    same_json("no file of this name", &inputs_of(&set), &json!({ "x": text("1") }))?;
    let told = bench.host.says("HashParamsUpdate", 0).await?;
    let told = told["params"]["hash"].as_str().unwrap_or_default().to_owned();
    that("the job in the hash", told.contains(&format!("job={}", codec::json(&given))), &told)
}

async fn bad_inputs(test: Test) -> anyhow::Result<()> {
    let (bench, first) = automatic(&test, Way::Watch).await?;
    bench
        .host
        .inputs(json!({
            "good.txt": "good", "bad.uri": "data:text/plain,%E0%A4%A", "big": { "$bigint": "7" },
            "i64": { "$type": "BigInt64Array", "$base64": "AQAAAAAAAAA=" },
            "view": { "$type": "DataView", "$base64": "AAECAwQF", "offset": 1, "length": 3 },
            "odd": { "nested": { "$bigint": "7" } },
        }))
        .await?;
    let all = bench.relay.submission_of_another(&first, 0).await?;
    let base64 = |value: &str| json!({ "type": "base64", "value": value });
    let expected = json!({
        "good.txt": text("good"), "bad.uri": text("data:text/plain,%E0%A4%A"),
        "i64": base64("AQAAAAAAAAA="), "view": base64("AQID"),
    });
    same_json("what can be a file", &inputs_of(&all), &expected)?;
    bench.page.press_starting("Inputs").await?;
    for name in ["bad.uri", "big", "odd"] {
        bench.page.shows(name).await?;
    }
    // A binary of 1 MB, raw, as only an answer brings it.
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let answers = json!({ "state": { "inputs": { "large.bin": { "$zeros": 1_000_000 } } } });
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash, &answers).await?;
    let large = bench.relay.submission(0).await?;
    let entry = &large["definition"]["inputs"]["large.bin"];
    let sha256 = entry["hash"].as_str().unwrap_or_default();
    same("its place", &entry["type"], &json!("url"))?;
    that("its content", bench.relay.blob(sha256).is_some_and(|blob| blob.len() == 1_000_000), entry)
}

async fn steady_changes(test: Test) -> anyhow::Result<()> {
    let (bench, _) = automatic(&test, Way::Watch).await?;
    let mark = bench.relay.mark();
    // In the page, so that no pause of the driver comes between.
    let script = "let n = 0; window.steady = setInterval(() => host.send('InputsUpdate', \
        { inputs: { n: String(n++) }, parentId: host.id }), 100)";
    let begin = Instant::now();
    bench.host.run(script).await?;
    let mut from = mark;
    for nth in 1..=4 {
        bench.relay.submission(from).await?;
        from = bench.relay.mark();
        let limit = Duration::from_millis(1700) * nth;
        that(&format!("{nth} submissions within {limit:?}"), begin.elapsed() < limit, &begin.elapsed())?;
    }
    bench.host.run("clearInterval(window.steady)").await
}

async fn job_input_and_edits(test: Test) -> anyhow::Result<()> {
    let command =
        |word: &str| json!({ "image": "alpine:3.19", "command": format!("echo {word} {}", test.queue()) });
    let hash = Hash::auto(&test.queue(), &test.job()).with("allowsetjob", "true");
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash.text(), &no_inputs()).await?;
    let first = id_of(&bench.relay.submission(0).await?)?;
    // As text, then as a reference.
    bench.host.inputs(json!({ "job": command("text").to_string() })).await?;
    let by_text = bench.relay.submission_of_another(&first, 0).await?;
    same("the text's command", &by_text["definition"]["command"], &command("text")["command"])?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "job": { "type": "json", "value": command("reference") } })).await?;
    let by_reference = bench.relay.submission_of_another(&id_of(&by_text)?, mark).await?;
    same(
        "the reference's command",
        &by_reference["definition"]["command"],
        &command("reference")["command"],
    )?;
    // The user edits; later messages lack the input, or hold null.
    let mark = bench.relay.mark();
    let edited = hash.with_json("job", &command("edited")).text();
    bench.page.frame().run("location.hash = arguments[0]", &[json!(edited)]).await?;
    let edit = bench.relay.submission_of_another(&id_of(&by_reference)?, mark).await?;
    same("the user's command", &edit["definition"]["command"], &command("edited")["command"])?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "x": "1" })).await?;
    bench.host.inputs(json!({ "job": null, "x": "2" })).await?;
    let later = bench
        .relay
        .awaits("a submission with the later input", mark, SOON, |what| {
            let (_, value) = what.change("Queued")?;
            let enqueued = &value["enqueued"];
            (inputs_of(enqueued)["x"] == text("2")).then(|| enqueued.clone())
        })
        .await?;
    same("still the user's command", &later["definition"]["command"], &command("edited")["command"])
}
