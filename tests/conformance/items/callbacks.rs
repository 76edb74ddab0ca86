//! Callbacks (`jobs-and-states` 7). The receiver listens on loopback, so most need a relay that may call there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, same, same_json, that};
use crate::peers::client::{Client, queued};
use crate::peers::receiver::{Call, Receiver};
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::{Test, job_id, skip};
use dockframe_tests::wait;

/// The reference calls again after a minute.
const AGAIN: Duration = Duration::from_secs(80);

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.47",
            Compat,
            "The queued callback is made for HTTP, socket and copy, with the definition readable inside.",
            made
        ),
        item!("10.13", Compat, "A callback is repeated until it is taken.", repeated).long(),
        item!(
            "10.13",
            Dockframe,
            "The finished callback is made once, and a retry keeps its webhook id.",
            finished
        ),
        item!(
            "R-25",
            Dockframe,
            "A submission waits for no callback, and private targets are not called.",
            guarded
        ),
        item!(
            "J-15",
            Dockframe,
            "Added namespaces and answers from the cache get their callback.",
            every_holder
        ),
    ]
}

fn control(receiver: &Receiver, namespace: &str, payload: &Value) -> Value {
    json!({ "namespace": namespace, "callbacks": { "queued": { "url": receiver.url, "payload": payload } } })
}

fn is_for(namespace: &str) -> impl Fn(&Call) -> bool {
    let namespace = namespace.to_owned();
    move |call| call.body["namespace"] == namespace && call.body.get("state").is_none()
}

async fn made(t: Test) -> anyhow::Result<()> {
    t.callbacks()?;
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let probe = format!("{}/j/{{jobId}}/definition.json", http.base());
    let receiver = Receiver::start(0, Some(probe), Duration::ZERO).await?;
    let body =
        json!({ "definition": definition, "control": control(&receiver, "by http", &json!({ "u": 7 })) });
    let id = http.submit_body(&queue, &body).await?;
    let call = receiver.call(LIST_PERIOD, is_for("by http")).await?;
    same_json(
        "body",
        &call.body,
        &json!({ "jobId": id, "queue": queue, "namespace": "by http", "config": { "u": 7 } }),
    )?;
    let media = call.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    that("JSON", media.starts_with("application/json"), &media)?;
    same_json("definition inside", &call.probed.unwrap_or_default(), &json!({ "data": definition }))?;
    let client = Client::join(&t, &queue).await?;
    let definition = Test::job();
    let socket_id = job_id(&definition)?;
    let mut change = queued(&socket_id, &definition, None);
    change["payload"]["value"]["enqueued"]["control"] =
        json!({ "namespace": "by socket", "callbacks": { "queued": { "url": receiver.url } } });
    client.send(&change).await?;
    let call = receiver.call(LIST_PERIOD, is_for("by socket")).await?;
    same_json(
        "body",
        &call.body,
        &json!({ "jobId": socket_id, "queue": queue, "namespace": "by socket", "config": {} }),
    )?;
    let target = t.queue();
    let copy = json!({ "queue": target, "control": control(&receiver, "by copy", &json!([1])) });
    http.post(&format!("/j/{id}/copy"), &copy).await?.is(200)?;
    let call = receiver.call(LIST_PERIOD, is_for("by copy")).await?;
    same_json(
        "body",
        &call.body,
        &json!({ "jobId": id, "queue": target, "namespace": "by copy", "config": [1] }),
    )
}

async fn repeated(t: Test) -> anyhow::Result<()> {
    t.callbacks()?;
    let receiver = Receiver::start(1, None, Duration::ZERO).await?;
    let body = json!({ "definition": Test::job(), "control": control(&receiver, "n", &json!({})) });
    t.http().submit_body(&t.queue(), &body).await?;
    wait::until("a second call", AGAIN, async || {
        let n = receiver.calls().len();
        if n >= 2 { Ok(()) } else { Err(format!("{n} calls")) }
    })
    .await?;
    let calls = receiver.calls();
    same_json("the second body", &calls[1].body, &calls[0].body)
}

async fn finished(t: Test) -> anyhow::Result<()> {
    t.callbacks()?;
    let (http, queue) = (t.http(), t.queue());
    let receiver = Receiver::start(1, None, Duration::ZERO).await?;
    let callback = json!({ "url": receiver.url, "payload": { "u": 1 } });
    let body = json!({ "definition": Test::job(), "control": { "namespace": "n", "callbacks": { "finished": callback } } });
    let id = http.submit_body(&queue, &body).await?;
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    wait::until("a second call", LIST_PERIOD, async || {
        let n = receiver.calls().len();
        if n >= 2 { Ok(()) } else { Err(format!("{n} calls")) }
    })
    .await?;
    let calls = receiver.calls();
    let mut came = calls[1].body.clone();
    let address = came["resultUrl"].take();
    that("an address of the result", address.as_str().is_some_and(|url| url.contains(&id)), &address)?;
    same_json(
        "body",
        &came,
        &json!({ "jobId": id, "queue": queue, "namespace": "n", "config": { "u": 1 },
        "state": "Finished", "reason": "Success", "statusCode": 0, "resultUrl": null }),
    )?;
    let hook = |call: &Call| call.headers.get("webhook-id").cloned();
    same("webhook-id of the retry", &hook(&calls[1]), &hook(&calls[0]))?;
    // Once it is taken it is not made again.
    tokio::time::sleep(Duration::from_secs(4)).await;
    same("number of calls", &receiver.calls().len(), &2)
}

async fn guarded(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let receiver = Receiver::start(0, None, Duration::from_secs(12)).await?;
    let body = json!({ "definition": Test::job(), "control": control(&receiver, "n", &json!({})) });
    let answer = http.post(&format!("/q/{queue}"), &body).await?;
    answer.is(200)?;
    that("an answer that waits for nothing", answer.took < Duration::from_secs(8), &answer.took)?;
    if t.has_private_callbacks() {
        return skip(
            "the relay may call private addresses here: the guard is shown without --private-callbacks",
        );
    }
    let name = receiver.url.replace("127.0.0.1", "localhost");
    let other = receiver.url.replace("127.0.0.1", "[::ffff:127.0.0.1]");
    for url in [name, other] {
        let control = json!({ "callbacks": { "queued": { "url": url } } });
        http.submit_body(&queue, &json!({ "definition": Test::job(), "control": control })).await?;
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    same("calls of a private address", &receiver.calls().len(), &0)
}

async fn every_holder(t: Test) -> anyhow::Result<()> {
    t.callbacks()?;
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let receiver = Receiver::start(0, None, Duration::ZERO).await?;
    let submit = async |queue: &str, namespace: &str| {
        let body = json!({ "definition": definition, "control": control(&receiver, namespace, &json!({})) });
        let id = http.submit_body(queue, &body).await?;
        receiver.call(LIST_PERIOD, is_for(namespace)).await?;
        anyhow::Ok(id)
    };
    let id = submit(&queue, "first").await?;
    submit(&queue, "added").await?;
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    submit(&queue, "cached").await?;
    submit(&t.queue(), "shared").await?;
    same("number of calls", &receiver.calls().len(), &4)
}
