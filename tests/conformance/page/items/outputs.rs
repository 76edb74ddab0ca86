//! What the page sends when a job has finished (`metaframe` 5.8; items 10, 29, 30, 32, 42, 50, 52).

use std::time::Duration;

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::handshake::no_inputs;
use super::screen::{COMPLETE, QUEUED, RUN, RUNNING};
use crate::check::{same, same_json, that};
use crate::page::host::{NAME, Said};
use crate::page::relay::{Answer, SOON, Way, id_of, with_outputs};
use crate::page::replay::results;
use crate::page::setup::{Hash, Scripted, Test};
use crate::registry::{Item, item};

pub(super) fn items() -> Vec<Item<Test>> {
    vec![
        item!("10", Compat, "A finished job sends one message with its outputs alone.", one_message),
        item!(
            "29",
            Compat,
            "Every recorded result gives its outputs; a job without result sends nothing.",
            results::replay
        )
        .long(),
        item!(
            "30",
            Compat,
            "job/result.json is sent exactly with allowsetjob, for success, failure and timeout.",
            result_as_output
        ),
        item!(
            "32",
            Compat,
            "A result that comes late for an older job is neither shown nor sent.",
            late_result
        ),
        item!(
            "42",
            Dockframe,
            "A kept result is shown as kept, sends nothing, and gives way to what the relay says.",
            kept_result
        )
        .long(),
        item!(
            "50",
            Dockframe,
            "A result that fails to load is fetched until it comes, and holds up nothing; results of other jobs are not fetched.",
            failing_result
        ),
        item!(
            "52",
            Dockframe,
            "Outputs are sent again for another time, not for the same; switching a parameter sends what it changes.",
            sent_again
        ),
    ]
}

fn file(value: &str) -> Value {
    json!({ "type": "utf8", "value": value })
}

/// All outputs that were sent, but for the first message of the handshake.
pub(super) async fn sent(bench: &Scripted) -> anyhow::Result<Vec<Value>> {
    let said = bench.host.said().await?;
    let updates = said.iter().filter(|said| said.is("OutputsUpdate")).skip(1);
    Ok(updates.map(|said: &Said| said.data["params"].clone()).collect())
}

async fn stays_sent(bench: &Scripted, how_many: usize) -> anyhow::Result<()> {
    wait::stays("the outputs sent so far", Duration::from_millis(1500), async || {
        let sent = sent(bench).await.map_err(|error| error.to_string())?;
        if sent.len() == how_many { Ok(()) } else { Err(format!("{} messages: {}", sent.len(), json!(sent))) }
    })
    .await
}

async fn one_message(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    let (first, second) = (json!({ "a": file("1"), "b": file("2") }), json!({ "b": file("3") }));
    let id = bench.relay.runs_to_the_end(0, with_outputs(&first)).await?;
    same_json("the first", &bench.host.says("OutputsUpdate", 1).await?["params"], &first)?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "n": 1 })).await?;
    bench.relay.submission_of_another(&id, mark).await?;
    bench.relay.runs_to_the_end(mark, with_outputs(&second)).await?;
    same_json("the second", &bench.host.says("OutputsUpdate", 2).await?["params"], &second)?;
    stays_sent(&bench, 2).await
}

async fn result_as_output(test: Test) -> anyhow::Result<()> {
    let logs = json!([["out 1\n", 1], ["err 1  \n", 2, true]]);
    let results = [
        (
            "Success",
            json!({ "StatusCode": 3, "duration": 12, "isTimedOut": false, "logs": logs, "outputs": {} }),
        ),
        ("Error", json!({ "error": "it broke", "logs": logs })),
        ("TimedOut", json!({ "error": "Timeout", "isTimedOut": true, "logs": logs, "duration": 5000 })),
    ];
    for (n, (reason, result)) in results.iter().enumerate() {
        for allow in [false, true] {
            let mut hash = Hash::auto(&test.queue(), &test.job()).with("N", &n.to_string());
            if allow {
                hash = hash.with("allowsetjob", "true");
            }
            let bench = test.scripted(test.relay(Way::Old).await?, &hash.text(), &no_inputs()).await?;
            let id = id_of(&bench.relay.submission(0).await?)?;
            bench.relay.runs(&id);
            bench.relay.finishes(&id, reason, result.clone());
            let params = bench.host.says("OutputsUpdate", 1).await?["params"].take();
            if !allow {
                same_json(&format!("outputs of {reason} without allowsetjob"), &params, &json!({}))?;
                continue;
            }
            let sent = &params["job/result.json"];
            same_json("stdout", &sent["stdout"], &json!([["out 1", 1]]))?;
            same_json("stderr", &sent["stderr"], &json!([["err 1", 2, true]]))?;
            let or_undefined = |value: &Value| {
                if value.is_null() { json!({ "$undefined": true }) } else { value.clone() }
            };
            same_json("statusCode", &sent["statusCode"], &or_undefined(&result["StatusCode"]))?;
            same_json("error", &sent["error"], &or_undefined(&result["error"]))?;
            same_json("duration", &sent["duration"], &or_undefined(&result["duration"]))?;
            let url = format!("{}/q/{}/j/{id}", bench.relay.url(), test.queue());
            same_json("url", &sent["url"], &json!(url))?;
        }
    }
    Ok(())
}

async fn late_result(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job()).text();
    let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
    bench.relay.set(|settings| settings.result = Answer::Honest);
    bench.relay.set(|settings| settings.result_delay = Duration::from_secs(2));
    let id = bench.relay.runs_to_the_end(0, with_outputs(&json!({ "old": file("old") }))).await?;
    bench
        .relay
        .awaits("a request for the result", 0, SOON, |what| {
            what.request("GET").filter(|path| path.ends_with("result.json")).map(str::to_owned)
        })
        .await?;
    let mark = bench.relay.mark();
    bench.host.inputs(json!({ "n": 1 })).await?;
    let next = id_of(&bench.relay.submission_of_another(&id, mark).await?)?;
    bench.relay.runs(&next);
    bench.page.shows_one(RUNNING).await?;
    wait::stays("the older job's outputs unsent and unshown", Duration::from_secs(3), async || {
        let sent = sent(&bench).await.map_err(|error| error.to_string())?;
        if sent.is_empty() { Ok(()) } else { Err(json!(sent).to_string()) }
    })
    .await?;
    bench.page.shows_one(RUNNING).await
}

async fn kept_result(test: Test) -> anyhow::Result<()> {
    let hash = Hash::manual(&test.queue(), &test.job()).text();
    let outputs = json!({ "a.txt": file("kept") });
    for then in ["Queued", "Running", "another", "unknown"] {
        let hash = format!("{hash}&K={then}");
        let bench = test.scripted(test.relay(Way::Watch).await?, &hash, &no_inputs()).await?;
        bench.page.press_one(RUN).await?;
        let id = bench.relay.runs_to_the_end(0, with_outputs(&outputs)).await?;
        bench.host.says("OutputsUpdate", 1).await?;
        // Again, while the relay says nothing.
        bench.relay.set(|settings| settings.greets = false);
        bench.host.goto(&format!("{}/?again=1{hash}", bench.relay.url())).await?;
        bench.host.says("SetupIframeServerResponseAck", 1).await?;
        bench.page.shows("Kept result").await?;
        let before = bench.host.said().await?.len();
        match then {
            "Queued" | "Running" => {
                let entry = crate::page::relay::entry(then, crate::test::now(), json!({}));
                bench.relay.put(&id, entry, None);
            }
            "another" => {
                let time = crate::test::now() + 5;
                let result = with_outputs(&json!({ "a.txt": file("fresh") }));
                bench.relay.put(&id, crate::page::relay::finished("Success", time), Some(result));
            }
            _ => bench.relay.forget(&id),
        }
        let said = bench.host.said().await?;
        that(
            "no outputs of a kept result",
            !said[before..].iter().any(|said| said.is("OutputsUpdate")),
            &crate::page::host::methods(&said),
        )?;
        bench.relay.set(|settings| settings.greets = true);
        bench.relay.cut();
        match then {
            "Queued" => bench.page.shows_one(QUEUED).await?,
            "Running" => bench.page.shows_one(RUNNING).await?,
            "another" => {
                bench
                    .host
                    .awaits("the fresh outputs", SOON, |said| {
                        said.iter()
                            .any(|said| {
                                said.is("OutputsUpdate") && said.data["params"]["a.txt"]["value"] == "fresh"
                            })
                            .then_some(())
                    })
                    .await?;
            }
            _ => {
                wait::until("no kept result any more", SOON, async || match bench.page.words().await {
                    Ok(words) if !words.contains("Kept result") => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await?;
                bench.page.has_one(RUN, Some(true)).await?;
            }
        }
    }
    Ok(())
}

async fn failing_result(test: Test) -> anyhow::Result<()> {
    for (n, answer) in
        [Answer::Status(500), Answer::Status(404), Answer::Null, Answer::Cut].into_iter().enumerate()
    {
        let hash = Hash::auto(&test.queue(), &test.job()).with("N", &n.to_string()).text();
        let bench = test.scripted(test.relay(Way::Old).await?, &hash, &no_inputs()).await?;
        bench.relay.set(|settings| settings.result = answer);
        let other = format!("{n:064}");
        bench.relay.becomes(&other, &crate::page::relay::finished("Success", 1), Some(json!({})));
        let outputs = json!({ "a.txt": file("late") });
        bench.relay.runs_to_the_end(0, with_outputs(&outputs)).await?;
        let asked = |what: &crate::page::relay::What| {
            what.request("GET").filter(|path| path.ends_with("result.json")).map(str::to_owned)
        };
        bench.relay.awaits("a request for the result", 0, SOON, asked).await?;
        bench.page.shows_one(&["Finished", "Job Finished"]).await?;
        bench.relay.set(|settings| settings.result = Answer::Honest);
        same_json("the outputs", &bench.host.says("OutputsUpdate", 1).await?["params"], &outputs)?;
        let others = bench.relay.since(0).iter().filter_map(asked).find(|path| path.contains(&other));
        same("requests for results of others", &others, &None)?;
    }
    Ok(())
}

async fn sent_again(test: Test) -> anyhow::Result<()> {
    let hash = Hash::auto(&test.queue(), &test.job());
    let bench = test.scripted(test.relay(Way::Watch).await?, &hash.text(), &no_inputs()).await?;
    let outputs = json!({ "a.txt": file("1") });
    let id = bench.relay.runs_to_the_end(0, with_outputs(&outputs)).await?;
    bench.host.says("OutputsUpdate", 1).await?;
    // The same again, as after a reconnect.
    let entry = bench.relay.entry(&id);
    bench.relay.becomes(&id, &entry, Some(with_outputs(&outputs)));
    stays_sent(&bench, 1).await?;
    // Another time, from Finished to Finished.
    let time = crate::test::now() + 1000;
    let fresh = json!({ "a.txt": file("2") });
    bench.relay.becomes(&id, &crate::page::relay::finished("Success", time), Some(with_outputs(&fresh)));
    same_json("the re-run's", &bench.host.says("OutputsUpdate", 2).await?["params"], &fresh)?;
    bench.page.shows_one(COMPLETE).await?;
    let set = hash.with("allowsetjob", "true").text();
    bench.page.frame().run("location.hash = arguments[0]", &[json!(set)]).await?;
    let more = bench.host.says("OutputsUpdate", 3).await?;
    that("job/result.json", more["params"]["job/result.json"].is_object(), &more)?;
    let set = format!("{set}&resolverefs=true");
    bench.page.frame().run("location.hash = arguments[0]", &[json!(set)]).await?;
    same_json("the content", &bench.host.says("OutputsUpdate", 4).await?["params"]["a.txt"], &json!("2"))?;
    that("nothing runs again", bench.relay.submissions(0).iter().all(|all| all["id"] == json!(id)), &NAME)
}
