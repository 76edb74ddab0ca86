//! Watching (`relay-protocol` 3.13).

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json, that};
use crate::peers::client::{Client, ended, queued};
use crate::peers::socket::Frame;
use crate::peers::watcher::Watcher;
use crate::peers::worker::{Worker, finished, result, running};
use crate::registry::{Item, item};
use crate::test::{Test, job_id};

/// More jobs than a list to an old peer holds.
const MANY: usize = 1_100;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.58",
            Dockframe,
            "A watcher gets Hello first and nothing unasked but the summary, and hears of no other job.",
            quiet
        ),
        item!(
            "7.59",
            Dockframe,
            "A Watch brings all its jobs and lines at once, then each change once, with growing revisions.",
            watched
        ),
        item!("7.60", Dockframe, "Done says that a change stands, or why it is refused.", done),
        item!("7.61", Dockframe, "A reconnect with numbers loses no line and gets none twice.", reconnect),
        item!(
            "7.62",
            Dockframe,
            "A large queue costs watchers nothing, and old peers get bounded lists.",
            large_queue
        ),
    ]
}

async fn quiet(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let old = t.socket(&format!("/q/{queue}/client?protocol=other/9")).await?;
    old.message(0, "JobStates").await?;
    same("Hello without the query", &old.payloads(0, "Hello"), &vec![])?;
    let watcher = Watcher::join(&t, &queue).await?;
    same("the first frame", &watcher.kinds(0).first().map(String::as_str), &Some("Hello"))?;
    let hello = &watcher.hello;
    that("relay and epoch", hello["relay"].is_string() && hello["epoch"].is_string(), hello)?;
    that(
        "maxWatched and maxFrameBytes",
        hello["maxWatched"].is_u64() && hello["maxFrameBytes"].is_u64(),
        hello,
    )?;
    let worker = Worker::join(&t, &queue).await?;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(t.http().submit(&queue, &Test::job()).await?);
    }
    worker.do_job(&ids[0], "out").await?;
    // Longer than the period of the lists to old peers.
    dockframe_tests::wait::stays("a quiet socket", Duration::from_secs(11), async || {
        let strange: Vec<_> = watcher.kinds(1).into_iter().filter(|kind| kind != "QueueSummary").collect();
        if strange.is_empty() { Ok(()) } else { Err(format!("{strange:?}")) }
    })
    .await?;
    let text = format!("{:?}", watcher.frames(0));
    that("no id of another's job", !ids.iter().any(|id| text.contains(id.as_str())), &text)?;
    let arrivals = watcher.arrivals("QueueSummary");
    that("a summary", !arrivals.is_empty(), &watcher.tail(0))?;
    let least = arrivals.windows(2).skip(1).map(|pair| pair[1] - pair[0]).min();
    that(
        "summaries at most once a second",
        least.is_none_or(|gap| gap > Duration::from_millis(700)),
        &least,
    )?;
    let last = watcher.payloads(0, "QueueSummary").pop().unwrap_or_default();
    same("queued", &last["queued"], &json!(19))?;
    same("workers", &last["workers"], &json!(1))?;
    that(
        "numbers",
        ["running", "cpus", "gpus", "freeCpus", "freeGpus"].iter().all(|name| last[name].is_number()),
        &last,
    )
}

async fn watched(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let worker = Worker::join(&t, &queue).await?;
    let watcher = Watcher::join(&t, &queue).await?;
    let id = http.submit_in(&queue, &Test::job(), "n").await?;
    let other = http.submit(&queue, &Test::job()).await?;
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["l0\n", 1], ["l1\n", 2]])).await?;
    worker.settle().await?;
    let unknown = Test::nonce();
    watcher.watch(&json!({ &id: { "run": 1 }, &unknown: {}, &other: {} })).await?;
    let first = watcher.payloads(0, "JobStateUpdates").remove(0);
    same("isSubset", &first["isSubset"], &json!(true))?;
    let jobs = first["state"]["jobs"].as_object().cloned().unwrap_or_default();
    same("the jobs of the first message", &jobs.len(), &3)?;
    same("an unknown job", &jobs[&unknown], &Value::Null)?;
    that("a revision", jobs[&id]["revision"].is_u64(), &jobs[&id])?;
    same("place of the job in line", &jobs[&other]["place"], &json!(1))?;
    let lines = watcher.has_lines(&id, 1).await?;
    same_json("the wanted lines", &json!(lines), &json!([[1, ["l1\n", 2]]]))?;
    worker.log(&id, "Running", &json!([["l2\n", 3]])).await?;
    watcher.has_lines(&id, 2).await?;
    worker.finish(&id, "Success", &result("out")).await?;
    watcher.state(&id, "Finished").await?;
    http.cancel(&queue, &other, "").await?.is(200)?;
    let ending = watcher.state(&other, "Finished").await?;
    same("an ending without result", &ending["finishedReason"], &json!("Cancelled"))?;
    for id in [&id, &other] {
        let revisions: Vec<_> = watcher.jobs(0, id).iter().map(|job| job["revision"].as_u64()).collect();
        that("growing revisions", revisions.windows(2).all(|pair| pair[0] < pair[1]), &revisions)?;
    }
    // A new set ends the old one.
    let next = http.submit(&queue, &Test::job()).await?;
    watcher.watch(&json!({ &next: {} })).await?;
    let mark = watcher.mark();
    http.submit(&queue, &Test::job()).await?;
    http.cancel(&queue, &next, "").await?.is(200)?;
    watcher.state(&next, "Finished").await?;
    let only: Vec<_> = watcher
        .payloads(mark, "JobStateUpdates")
        .iter()
        .flat_map(|payload| payload["state"]["jobs"].as_object().cloned().unwrap_or_default())
        .map(|(id, _)| id)
        .filter(|id| *id != next)
        .collect();
    same("jobs that are no longer watched", &only, &vec![])?;
    // Too many are refused whole.
    let most = watcher.hello["maxWatched"].as_u64().unwrap_or(256);
    let jobs: serde_json::Map<_, _> = (0..=most).map(|n| (format!("j{n}"), json!({}))).collect();
    let mark = watcher.mark();
    watcher.send(&json!({ "type": "Watch", "payload": { "jobs": jobs, "ref": "too many" } })).await?;
    let refused = watcher.message(mark, "Done").await?;
    same("ref", &refused["ref"], &json!("too many"))?;
    that(
        "an error with code, title and detail",
        ["code", "title", "detail"].iter().all(|name| refused["error"][name].is_string()),
        &refused,
    )
}

async fn done(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let watcher = Watcher::join(&t, &queue).await?;
    let id = job_id(&definition)?;
    watcher.watch(&json!({ &id: {} })).await?;
    let mut revisions = Vec::new();
    for change in [
        queued(&id, &definition, Some("a")),
        queued(&id, &definition, Some("b")),
        ended(&id, "Cancelled", Some("a")),
    ] {
        let answer = watcher.done(change).await?;
        same("jobId", &answer["jobId"], &json!(id))?;
        same("error", &answer.get("error"), &None)?;
        revisions.push(answer["revision"].as_u64());
    }
    that("growing revisions", revisions.windows(2).all(|pair| pair[0] < pair[1]), &revisions)?;
    same("namespaces when it was done", &http.list(&queue).await?[&id]["namespaces"], &json!(["b"]))?;
    // A repeat is done too, and changes nothing.
    let repeated = watcher.done(ended(&id, "Cancelled", Some("a"))).await?;
    same("error of a repeat", &repeated.get("error"), &None)?;
    let refused = [
        running(&id, "nobody"),
        finished(&id, "nobody", "Success", &result("forged")),
        ended(&id, "WorkerLost", None),
        queued("", &definition, None),
        queued(&Test::nonce(), &json!("no definition"), None),
        queued(&id, &definition, Some("*")),
    ];
    for change in refused {
        let answer =
            watcher.done(change.clone()).await.map_err(|error| anyhow::anyhow!("{change}: {error:#}"))?;
        that(
            "code, title, detail",
            ["code", "title", "detail"].iter().all(|name| answer["error"][name].is_string()),
            &answer,
        )?;
    }
    same("namespaces after refusals", &http.list(&queue).await?[&id]["namespaces"], &json!(["b"]))?;
    // Without a reference nothing is answered.
    let mark = watcher.mark();
    watcher.send(&ended(&id, "Cancelled", Some("b"))).await?;
    watcher.state(&id, "Finished").await?;
    same("Done without a reference", &watcher.payloads(mark, "Done"), &vec![])
}

async fn reconnect(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let worker = Worker::join(&t, &queue).await?;
    let id = http.submit(&queue, &Test::job()).await?;
    worker.claim(&id).await?;
    let mut lines = Vec::new();
    let mut sent = 0_u64;
    for _ in 0..4 {
        let watcher = Watcher::join(&t, &queue).await?;
        watcher.watch(&json!({ &id: { "run": lines.len() } })).await?;
        for _ in 0..5 {
            worker
                .log(
                    &id,
                    "Running",
                    &json!([[format!("{sent}\n"), sent], [format!("{}\n", sent + 1), sent + 1]]),
                )
                .await?;
            sent += 2;
        }
        // Some are seen, the rest comes after the reconnect.
        lines.extend(watcher.has_lines(&id, 4).await?);
    }
    worker.finish(&id, "Success", &result("out")).await?;
    let watcher = Watcher::join(&t, &queue).await?;
    watcher.watch(&json!({ &id: { "run": lines.len() } })).await?;
    if lines.len() < usize::try_from(sent)? {
        lines.extend(watcher.has_lines(&id, usize::try_from(sent)? - lines.len()).await?);
    }
    watcher.state(&id, "Finished").await?;
    let numbers: Vec<_> = lines.iter().map(|(n, _)| *n).collect();
    same("numbers of the lines", &numbers, &(0..sent).collect::<Vec<_>>())?;
    that("each line under its number", lines.iter().all(|(n, line)| line[1] == *n), &lines)
}

async fn large_queue(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let mine = http.submit(&queue, &Test::job()).await?;
    let watcher = Watcher::join(&t, &queue).await?;
    watcher.watch(&json!({ &mine: {} })).await?;
    let old = Client::join(&t, &queue).await?;
    let old_mark = old.mark();
    let mark = watcher.mark();
    let submit = async |_| http.submit(&queue, &Test::job()).await;
    let work = futures_util::stream::iter((0..MANY).map(submit));
    let ids: Vec<_> =
        futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(work, 16)).await;
    let ids = ids.into_iter().collect::<anyhow::Result<Vec<String>>>()?;
    let bytes: usize = watcher
        .frames(mark)
        .iter()
        .map(|frame| match frame {
            Frame::Json(value) if value["type"] != "QueueSummary" => value.to_string().len(),
            _ => 0,
        })
        .sum();
    // Its own job's place in line may change, nothing else.
    that("nothing for a watcher of another job", bytes < 2_000, &bytes)?;
    let updates = old.until("an update of each job", old_mark, SOON, |_| {
        let n = old.payloads(old_mark, "JobStateUpdates").len();
        (n >= MANY / 2).then_some(n)
    });
    updates.await?;
    for list in old.payloads(old_mark, "JobStates") {
        let n = list["state"]["jobs"].as_object().map_or(0, serde_json::Map::len);
        that("at most 1,000 jobs in a list", n <= 1_000, &n)?;
    }
    // Oldest first, to workers.
    let worker = Worker::join(&t, &queue).await?;
    let first = worker.table();
    that("at most 1,000 jobs", first.len() <= 1_000, &first.len())?;
    that("the oldest among them", first.contains_key(&mine), &first.len())?;
    // All of them in pages.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/q/{queue}?limit=400{after}")).await?.is(200)?.json()?;
        let jobs = page["data"].as_object().cloned().unwrap_or_default();
        that("at most 400 jobs on a page", jobs.len() <= 400, &jobs.len())?;
        seen.extend(jobs.into_iter().map(|(id, _)| id));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
        that("an end of the pages", seen.len() <= MANY * 2, &seen.len())?;
    }
    let n = seen.len();
    seen.sort();
    seen.dedup();
    same("jobs on all pages", &n, &(ids.len() + 1))?;
    same("each once", &seen.len(), &n)
}
