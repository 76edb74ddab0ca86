//! Log lines over HTTP (`relay-protocol` 2.10, `jobs-and-states` 3.4, 10.17).

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::http::Http;
use crate::peers::worker::{Worker, result};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.15",
            Compat,
            "Lines are read from a cursor on, split into build and run, and say when they are final.",
            cursors
        ),
        item!("7.15b", Dockframe, "Of a parameter that comes twice the first counts.", first_counts),
        item!(
            "10.17",
            Dockframe,
            "A long log keeps its tail, numbered without a gap, and a new run begins without old lines.",
            long_and_new
        ),
        item!(
            "R-17",
            Dockframe,
            "Both forms of the path show the same lines at any time, and every end is final.",
            both_forms
        ),
        item!("J-7", Dockframe, "A cancel of one of two namespaces keeps all lines.", cancel_keeps_lines),
        item!("J-8", Dockframe, "A log of more than 64 KiB is kept whole.", long_log),
        item!(
            "J-24",
            Dockframe,
            "After a deletion and a new submission none of the old lines is read.",
            deleted_lines
        ),
    ]
}

async fn lines_are(http: &Http, path: &str, n: usize) -> anyhow::Result<Value> {
    wait::until(&format!("{n} lines at {path}"), SOON, async || {
        let answer = http.get(path).await.map_err(|error| error.to_string())?;
        let body = answer.json().map_err(|error| error.to_string())?;
        if body["nextCursor"] == n { Ok(body) } else { Err(body.to_string()) }
    })
    .await
}

async fn first_counts(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let path = format!("/q/{queue}/j/none/run-logs.json");
    let started = http.get(&format!("{path}?since=1&since=x")).await?.is(200)?.json()?;
    same_json("start", &started["sliceStart"], &json!(1))?;
    http.get(&format!("{path}?since=x&since=1")).await?.refuses(400)?;
    let id = http.submit_in(&queue, &Test::job(), "one").await?;
    let cancelled = http.cancel(&queue, &id, "?namespace=one&namespace=two").await?;
    cancelled.says(200, &json!({ "success": true, "jobId": id, "namespace": "one" }))?;
    same("the list", &http.list(&queue).await?.get(&id), &None)
}

async fn cursors(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let empty = json!({ "data": [], "sliceStart": 0, "nextCursor": 0, "isFinal": false });
    http.get(&format!("/q/{queue}/j/none/run-logs.json")).await?.says(200, &empty)?;
    http.get("/j/none/build-logs.json?since=").await?.says(200, &empty)?;
    let id = http.submit(&queue, &Test::job()).await?;
    let (run, build) =
        (format!("/q/{queue}/j/{id}/run-logs.json"), format!("/q/{queue}/j/{id}/build-logs.json"));
    http.get(&run).await?.says(200, &empty)?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&id).await?;
    for step in ["docker image pull", "cloning repo", "docker build", "docker image push"] {
        worker.log(&id, step, &json!([[step, 1]])).await?;
    }
    worker.log(&id, "Running", &json!([["r1\n", 2], ["e1\n", 3, true]])).await?;
    worker.log(&id, "something else", &json!([["r2\n", 4]])).await?;
    let all = lines_are(&http, &run, 3).await?;
    same_json("run lines", &all["data"], &json!([["r1\n", 2], ["e1\n", 3, true], ["r2\n", 4]]))?;
    same("build lines", &lines_are(&http, &build, 4).await?["data"].as_array().map(Vec::len), &Some(4))?;
    worker.finish(&id, "Success", &result("out")).await?;
    let tail = json!([["e1\n", 3, true], ["r2\n", 4]]);
    let cases = [
        ("1", tail.clone(), 1),
        ("1.9", tail, 1),
        ("-4.5", all["data"].clone(), 0),
        ("", all["data"].clone(), 0),
        ("3", json!([]), 3),
        ("9", json!([]), 9),
    ];
    for (since, data, start) in cases {
        let body = json!({ "data": data, "sliceStart": start, "nextCursor": 3, "isFinal": true });
        http.get(&format!("{run}?since={since}")).await?.says(200, &body)?;
        http.get(&format!("/j/{id}/run-logs.json?since={since}")).await?.says(200, &body)?;
    }
    http.get(&format!("{run}?since=x")).await?.says(400, &json!({ "error": "`since` must be a number" }))
}

async fn both_forms(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["r1\n", 1], ["r2\n", 2]])).await?;
    let by_queue = lines_are(&http, &format!("/q/{queue}/j/{id}/run-logs.json"), 2).await?;
    let alone = http.get(&format!("/j/{id}/run-logs.json")).await?.is(200)?.json()?;
    same_json("lines without the queue", &alone, &by_queue)?;
    http.get(&format!("/q/{queue}/j/{id}/run-logs.json?since=Infinity")).await?.is(400)?;
    http.cancel(&queue, &id, "").await?.is(200)?;
    let after = http.run_logs(&queue, &id, "").await?;
    same("isFinal of a cancelled job", &after["isFinal"], &json!(true))?;
    same_json("its lines", &after["data"], &by_queue["data"])
}

async fn cancel_keeps_lines(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit_in(&queue, &definition, "a").await?;
    http.submit_in(&queue, &definition, "b").await?;
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["before\n", 1]])).await?;
    client.message(0, "JobStatusPayload").await?;
    client.end(&id, "Cancelled", Some("a")).await?;
    let cancelled = client.until_table("one namespace", SOON, |table| {
        (table.get(&id)?["namespaces"] == json!(["b"])).then_some(())
    });
    cancelled.await?;
    worker.log(&id, "Running", &json!([["after\n", 2]])).await?;
    worker.finish(&id, "Success", &result("out")).await?;
    let came = http.run_logs(&queue, &id, "").await?;
    same_json("lines", &came["data"], &json!([["before\n", 1], ["after\n", 2]]))
}

async fn long_log(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&id).await?;
    // 200 lines of 1 KiB.
    let lines: Vec<_> = (0..200).map(|n| json!([format!("{n:04}{}\n", "x".repeat(1019)), n])).collect();
    worker.log(&id, "Running", &json!(lines)).await?;
    worker.finish(&id, "Success", &result("out")).await?;
    same_json("lines", &http.run_logs(&queue, &id, "").await?["data"], &json!(lines))
}

async fn deleted_lines(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&definition, None).await?;
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["old 1\n", 1], ["old 2\n", 2]])).await?;
    worker.finish(&id, "Success", &result("out")).await?;
    client.state(&id, "Finished").await?;
    client.end(&id, "Deleted", None).await?;
    client.submit(&definition, None).await?;
    let came = http.run_logs(&queue, &id, "").await?;
    same_json("lines before the new run", &came["data"], &json!([]))?;
    same("nextCursor", &came["nextCursor"], &json!(0))?;
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["new\n", 3]])).await?;
    worker.finish(&id, "Success", &result("out")).await?;
    same_json("lines", &http.run_logs(&queue, &id, "").await?["data"], &json!([["new\n", 3]]))
}

async fn long_and_new(t: Test) -> anyhow::Result<()> {
    const ALL: u64 = 10_500;
    const KEPT: u64 = 10_000;
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&id).await?;
    for begin in (0..ALL).step_by(500) {
        let lines: Vec<_> = (begin..begin + 500).map(|n| json!([format!("{n}\n"), n])).collect();
        worker.log(&id, "Running", &json!(lines)).await?;
    }
    worker.finish(&id, "Success", &result("out")).await?;
    let came = http.run_logs(&queue, &id, "").await?;
    same("nextCursor: all lines ever seen", &came["nextCursor"], &json!(ALL))?;
    let start = came["sliceStart"].as_u64().unwrap_or(ALL);
    that("at least the last 10,000 lines", start <= ALL - KEPT, &start)?;
    let lines = came["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    same("number of lines from the first kept one", &(lines.len() as u64), &(ALL - start))?;
    for (n, line) in (start..).zip(lines) {
        same("a line's number", &line[1], &json!(n))?;
    }
    let tail = http.run_logs(&queue, &id, &format!("?since={}", ALL - 1)).await?;
    same_json("the last line", &tail["data"], &json!([[format!("{}\n", ALL - 1), ALL - 1]]))
}
