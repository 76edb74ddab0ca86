//! Namespaces (`jobs-and-states` 4).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

/// Scripts wait 6 to 15 s for a replacement (`relay-protocol` 5).
const REPLACED: Duration = Duration::from_secs(15);

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.45",
            Compat,
            "One job in several namespaces is one entry; removing one keeps it, a star takes all.",
            one_entry
        ),
        item!(
            "7.46",
            Compat,
            "A named namespace keeps only the newest job, the default one keeps all.",
            newest
        ),
        item!("10.8a", Compat, "The default namespace never replaces.", default_keeps_all).long(),
        item!("10.8b", Compat, "Another namespace keeps only the newest job.", newest),
        item!("10.8c", Compat, "A replaced job that another namespace holds goes on.", goes_on),
        item!("10.8d", Compat, "The same namespace in two queues is two.", two_queues),
        item!("10.8e", Compat, "A missing and an empty namespace are the default one.", empty_is_default),
        item!("10.8f", Dockframe, "Replacements are delayed by age, and the last submission wins.", delays)
            .long(),
        item!(
            "J-1",
            Dockframe,
            "A job older than 20 s is replaced too, and so is one whose successor came from the cache.",
            old_and_cached
        )
        .long(),
        item!("J-2", Dockframe, "A, B, A in one namespace ends with A.", back_again),
    ]
}

async fn one_entry(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let mut id = String::new();
    for namespace in ["n2", "n1", "n3"] {
        id = http.submit_in(&queue, &definition, namespace).await?;
    }
    let list = http.list(&queue).await?;
    same("number of entries", &list.len(), &1)?;
    same("namespaces", &list[&id]["namespaces"], &json!(["n1", "n2", "n3"]))?;
    let client = Client::join(&t, &queue).await?;
    client.end(&id, "Cancelled", Some("n2")).await?;
    let left = client.until_table("two namespaces", SOON, |table| {
        (table.get(&id)?["namespaces"] == json!(["n1", "n3"])).then_some(())
    });
    left.await?;
    http.cancel(&queue, &id, "?namespace=*").await?.is(200)?;
    same("the list", &http.list(&queue).await?.get(&id), &None)
}

async fn left_alone(t: &Test, queue: &str, namespace: &str, id: &str) -> anyhow::Result<()> {
    let http = t.http();
    wait::until(&format!("one job in {namespace}"), REPLACED, async || {
        let list = http.list(queue).await.map_err(|error| error.to_string())?;
        let here = list.iter().filter(|(_, job)| {
            job["namespaces"].as_array().is_some_and(|names| names.contains(&json!(namespace)))
        });
        let here: Vec<_> = here.map(|(id, _)| id.clone()).collect();
        if here == [id] { Ok(()) } else { Err(format!("{here:?}")) }
    })
    .await
}

async fn newest(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let kept = http.submit(&queue, &Test::job()).await?;
    let mut newest = String::new();
    for _ in 0..3 {
        // The newest is the one with the later millisecond.
        tokio::time::sleep(Duration::from_millis(5)).await;
        newest = http.submit_in(&queue, &Test::job(), "n").await?;
    }
    left_alone(&t, &queue, "n", &newest).await?;
    client
        .until_table("the newest and the default one", REPLACED, |table| {
            let mut ids: Vec<_> = table.keys().cloned().collect();
            let mut wanted = vec![kept.clone(), newest.clone()];
            ids.sort();
            wanted.sort();
            (ids == wanted).then_some(())
        })
        .await
}

async fn default_keeps_all(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(http.submit(&queue, &Test::job()).await?);
    }
    // Longer than the check of conflicts.
    wait::stays("all jobs of the default namespace", Duration::from_secs(12), async || {
        client.settle().await.map_err(|error| error.to_string())?;
        let list = http.list(&queue).await.map_err(|error| error.to_string())?;
        let missing: Vec<_> = ids.iter().filter(|id| !list.contains_key(*id)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are gone")) }
    })
    .await
}

async fn goes_on(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&definition, Some("a")).await?;
    client.submit(&definition, Some("b")).await?;
    worker.claim(&id).await?;
    let other = client.submit(&Test::job(), Some("a")).await?;
    let job = client.until_table("the other namespace alone", REPLACED, |table| {
        table.get(&id).filter(|job| job["namespaces"] == json!(["b"])).cloned()
    });
    same("state", &job.await?["state"], &json!("Running"))?;
    same("namespaces of the newer one", &client.state(&other, "Queued").await?["namespaces"], &json!(["a"]))?;
    worker.finish(&id, "Success", &crate::peers::worker::result("out")).await?;
    same("reason", &t.http().result(&queue, &id).await?["finishedReason"], &json!("Success"))
}

async fn two_queues(t: Test) -> anyhow::Result<()> {
    let (http, first, second) = (t.http(), t.queue(), t.queue());
    let _clients = [Client::join(&t, &first).await?, Client::join(&t, &second).await?];
    let one = http.submit_in(&first, &Test::job(), "n").await?;
    let other = http.submit_in(&second, &Test::job(), "n").await?;
    wait::stays("both jobs", Duration::from_secs(3), async || {
        for (queue, id) in [(&first, &one), (&second, &other)] {
            let list = http.list(queue).await.map_err(|error| error.to_string())?;
            if !list.contains_key(id) {
                return Err("one is gone".to_owned());
            }
        }
        Ok(())
    })
    .await
}

async fn empty_is_default(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for control in [Value::Null, json!({}), json!({ "namespace": "" }), json!({ "namespace": null })] {
        let mut body = json!({ "definition": Test::job() });
        if !control.is_null() {
            body["control"] = control;
        }
        let id = http.submit_body(&queue, &body).await?;
        same_json(&format!("namespaces of {body}"), &http.namespaces(&queue, &id).await?, &json!(["_"]))?;
        http.cancel(&queue, &id, "").await?.is(200)?;
        same("the list", &http.list(&queue).await?.get(&id), &None)?;
    }
    Ok(())
}

async fn back_again(t: Test) -> anyhow::Result<()> {
    let (http, queue, a) = (t.http(), t.queue(), Test::job());
    let client = Client::join(&t, &queue).await?;
    let id = http.submit_in(&queue, &a, "n").await?;
    let other = http.submit_in(&queue, &Test::job(), "n").await?;
    client.gone(&id, SOON).await?;
    http.submit_in(&queue, &a, "n").await?;
    client.gone(&other, SOON).await?;
    left_alone(&t, &queue, "n", &id).await?;
    same("state", &http.list(&queue).await?[&id]["state"], &json!("Queued"))
}

/// How long a job of some age is still there after its successor came.
async fn replaced_after(t: &Test, age: Duration) -> anyhow::Result<Duration> {
    let queue = t.queue();
    let (client, http) = (Client::join(t, &queue).await?, t.http());
    let id = http.submit_in(&queue, &Test::job(), "n").await?;
    client.state(&id, "Queued").await?;
    let begin = Instant::now();
    while begin.elapsed() < age {
        // A peer that never speaks would be taken for dead.
        client.settle().await?;
        tokio::time::sleep(Duration::from_secs(1).min(age.saturating_sub(begin.elapsed()))).await;
    }
    let came = Instant::now();
    http.submit_in(&queue, &Test::job(), "n").await?;
    client.gone(&id, REPLACED).await?;
    Ok(came.elapsed())
}

async fn delays(t: Test) -> anyhow::Result<()> {
    let seconds = Duration::from_secs;
    let (young, middle, old) = tokio::join!(
        replaced_after(&t, Duration::ZERO),
        replaced_after(&t, seconds(22)),
        replaced_after(&t, seconds(62)),
    );
    let (young, middle, old) = (young?, middle?, old?);
    // Measured from before the submission, so never too short; due work is found once a second, and more late on a
    // busy machine.
    that("a young job replaced at once", young < seconds(4), &young)?;
    that("a job older than 20 s replaced after 4 s", middle >= seconds(4) && middle < seconds(8), &middle)?;
    that("a job older than 60 s replaced after 8 s", old >= seconds(8) && old < seconds(14), &old)
}

async fn old_and_cached(t: Test) -> anyhow::Result<()> {
    let (queue, done) = (t.queue(), Test::job());
    let old = replaced_after(&t, Duration::from_secs(22)).await?;
    that("an old job replaced", old < REPLACED, &old)?;
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let cached = client.submit(&done, Some("m")).await?;
    worker.do_job(&cached, "out").await?;
    let running = client.submit(&Test::job(), Some("n")).await?;
    worker.claim(&running).await?;
    client.submit(&done, Some("n")).await?;
    client.gone(&running, SOON).await?;
    same("the cached answer", &client.state(&cached, "Finished").await?["namespaces"], &json!(["m", "n"]))?;
    // A finished job is never replaced.
    client.submit(&Test::job(), Some("n")).await?;
    client.settle().await?;
    same("result", &t.http().result(&queue, &cached).await?["finishedReason"], &json!("Success"))?;
    same("state", &client.state(&cached, "Finished").await?["finishedReason"], &json!("Success"))
}
