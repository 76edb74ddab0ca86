//! Messages of states and when they come (`relay-protocol` 3.4, 3.8, 3.9).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::socket::{Frame, Socket};
use crate::peers::worker::{Worker, finished, registration, result, running};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

/// How long a finished job stays listed.
const LISTED: Duration = Duration::from_secs(60);

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.30",
            Compat,
            "A client first gets Workers, then the full list; a worker the full list first.",
            on_connect
        ),
        item!("7.34", Compat, "A full list says that it is whole, an update that it is not.", subset),
        item!("7.35", Compat, "A finished job is listed without its result for a minute.", listed_a_minute)
            .long(),
        item!(
            "7.36",
            Compat,
            "An enqueued job, its claim and its end reach all clients and workers.",
            reaches_all
        ),
        item!(
            "7.36b",
            Compat,
            "A job that is submitted again is told to everybody again, though nothing changed.",
            told_again
        ),
        item!(
            "7.37",
            Compat,
            "Full lists come at least every ten seconds, of an empty queue too.",
            regular_lists
        )
        .long(),
        item!("7.38", Compat, "Each state is shown in order, Running before the first line.", in_order),
        item!(
            "7.38b",
            Dockframe,
            "A claim, a line and a result that come in one breath are told in this order.",
            in_one_breath
        ),
        item!("7.38", Dockframe, "A line sent right after the claim is not lost.", line_after_claim),
        item!(
            "7.39",
            Compat,
            "QueryJob answers for one job, empty for an unknown one, and finds what has left the queue.",
            query_job
        ),
        item!("7.40", Compat, "QueryJobStates is answered with a full list.", query_all),
        item!("7.57", Compat, "A change reaches everybody, a losing change nobody.", losing_change),
        item!(
            "10.10",
            Compat,
            "A success is listed for a minute, and full lists come every ten seconds.",
            listed_a_minute
        )
        .long(),
        item!(
            "10.10",
            Dockframe,
            "Every ending leaves the list after a minute, and QueryJob still finds it.",
            leaves
        )
        .long(),
        item!("J-6", Dockframe, "The list over HTTP and the one on sockets show the same.", one_view),
        item!("R-20", Dockframe, "A full list that one peer asked for reaches nobody else.", only_asker),
    ]
}

async fn on_connect(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let id = t.http().submit(&queue, &Test::job()).await?;
    for role in ["client", "browser"] {
        let client = t.socket(&format!("/q/{queue}/{role}")).await?;
        client.state(&id, "Queued").await?;
        same(
            "the first messages",
            &client.kinds(0)[..2].to_vec(),
            &vec!["Workers".to_owned(), "JobStates".to_owned()],
        )?;
    }
    let worker = t.socket(&format!("/q/{queue}/worker")).await?;
    worker.state(&id, "Queued").await?;
    same("the first message", &worker.kinds(0)[0], &"JobStates".to_owned())
}

async fn subset(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let id = client.submit(&Test::job(), None).await?;
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    client.state(&id, "Finished").await?;
    let (whole, parts) = (client.payloads(0, "JobStates"), client.payloads(0, "JobStateUpdates"));
    that("both kinds of message", !whole.is_empty() && !parts.is_empty(), &client.kinds(0))?;
    for payload in whole {
        same("isSubset of JobStates", &payload["isSubset"], &json!(false))?;
    }
    for payload in parts {
        same("isSubset of JobStateUpdates", &payload["isSubset"], &json!(true))?;
    }
    Ok(())
}

async fn listed_a_minute(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let worker = Worker::join(&t, &queue).await?;
    let (good, bad) = (client.submit(&Test::job(), None).await?, client.submit(&Test::job(), None).await?);
    worker.do_job(&good, "out").await?;
    worker.claim(&bad).await?;
    worker.finish(&bad, "Error", &result("out")).await?;
    let end = Instant::now();
    client.state(&good, "Finished").await?;
    client.state(&bad, "Finished").await?;
    // The relay's minute began a little before ours.
    let nearly = LISTED.checked_sub(Duration::from_secs(3)).unwrap_or_default();
    let left = nearly.saturating_sub(end.elapsed());
    wait::stays("both jobs in the table", left, async || {
        let table = client.table();
        for id in [&good, &bad] {
            match table.get(id) {
                Some(job) if job["state"] == "Finished" && job.get("finished").is_none() => {}
                other => return Err(format!("{id} is {other:?}")),
            }
        }
        // A peer that never speaks would be taken for dead.
        client.settle().await.map_err(|error| error.to_string())
    })
    .await?;
    let list = http.list(&queue).await?;
    that("both in the list over HTTP", list.contains_key(&good) && list.contains_key(&bad), &list)?;
    lists_are_regular(&client)
}

/// Full lists since the connection, none of them later than the period after the one before.
fn lists_are_regular(socket: &Socket) -> anyhow::Result<()> {
    let arrivals = socket.arrivals("JobStates");
    let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
    let since_last = arrivals.last().map(Instant::elapsed);
    let longest = gaps.chain(since_last).max().unwrap_or(Duration::MAX);
    that("full lists at most 10 s apart", longest < LIST_PERIOD, &longest)
}

async fn reaches_all(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let clients = [Client::join(&t, &queue).await?, Client::join(&t, &queue).await?];
    let workers = [Worker::join(&t, &queue).await?, Worker::join(&t, &queue).await?];
    let by_socket = clients[0].submit(&Test::job(), Some("n")).await?;
    let by_http = t.http().submit(&queue, &Test::job()).await?;
    let all = || clients.iter().map(|one| &**one).chain(workers.iter().map(|one| &**one));
    for socket in all() {
        socket.state(&by_socket, "Queued").await?;
        socket.state(&by_http, "Queued").await?;
    }
    workers[0].claim(&by_http).await?;
    let marks: Vec<_> = all().map(Socket::mark).collect();
    for socket in all() {
        same("worker", &socket.state(&by_http, "Running").await?["worker"], &json!(workers[0].id))?;
    }
    workers[0].finish(&by_http, "Success", &result("out")).await?;
    for (socket, mark) in all().zip(marks) {
        let update = socket.message_that(mark, "JobStateUpdates", "an update with the end", |payload| {
            payload["state"]["jobs"][&by_http]["state"] == "Finished"
        });
        let job = update.await?["state"]["jobs"][&by_http].take();
        same("reason", &job["finishedReason"], &json!("Success"))?;
        same("the result in the update", &job.get("finished"), &None)?;
    }
    Ok(())
}

async fn regular_lists(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    // Old peers say PING every few seconds, and so do these.
    wait::stays("open sockets", Duration::from_secs(33), async || {
        for socket in [&*client, &*worker] {
            socket.settle().await.map_err(|error| error.to_string())?;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    })
    .await?;
    for socket in [&*client, &*worker] {
        lists_are_regular(socket)?;
        let n = socket.arrivals("JobStates").len();
        that("at least three full lists in 33 s", n >= 3, &n)?;
    }
    Ok(())
}

async fn told_again(t: Test) -> anyhow::Result<()> {
    // Of one instance: nothing is written, so there is no news for another.
    let (address, queue) = (t.address().to_owned(), t.queue());
    let http = t.http_at(&address);
    let client = Socket::open(&address, &format!("/q/{queue}/client"), &[]).await?;
    let worker = Socket::open(&address, &format!("/q/{queue}/worker"), &[]).await?;
    worker.send(&registration("w")).await?;
    let definition = Test::job();
    let id = http.submit(&queue, &definition).await?;
    for socket in [&client, &worker] {
        socket.state(&id, "Queued").await?;
        socket.settle().await?;
    }
    let marks = [client.mark(), worker.mark()];
    http.submit(&queue, &definition).await?;
    for (socket, mark) in [&client, &worker].into_iter().zip(marks) {
        socket
            .until("the job once more", mark, Duration::from_secs(3), |frames| {
                crate::peers::table::fold(frames).contains_key(&id).then_some(())
            })
            .await?;
    }
    Ok(())
}

async fn in_order(t: Test) -> anyhow::Result<()> {
    shown_in_order(&t, true).await
}

/// The line is sent in the same breath as the claim: what it follows must be in force by then.
async fn line_after_claim(t: Test) -> anyhow::Result<()> {
    shown_in_order(&t, false).await
}

async fn shown_in_order(t: &Test, waits: bool) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(t, &queue).await?, Worker::join(t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    if waits {
        worker.claim(&id).await?;
    } else {
        worker.state(&id, "Queued").await?;
        worker.send(&running(&id, &worker.id)).await?;
    }
    worker.log(&id, "Running", &json!([["first\n", 1]])).await?;
    client.message(0, "JobStatusPayload").await?;
    worker.finish(&id, "Success", &result("out")).await?;
    client.state(&id, "Finished").await?;
    let mut states: Vec<_> = client.jobs(0, &id).iter().map(|job| job["state"].to_string()).collect();
    states.dedup();
    let expected = ["\"Queued\"", "\"Running\"", "\"Finished\""].map(str::to_owned).to_vec();
    same("states as shown", &states, &expected)?;
    let shown = client.until("Running and a line", 0, SOON, |frames| {
        let place = |wanted: &dyn Fn(&Value) -> bool| {
            frames
                .iter()
                .position(|frame| matches!(frame, crate::peers::socket::Frame::Json(value) if wanted(value)))
        };
        let running = place(&|value| value["payload"]["state"]["jobs"][&id]["state"] == "Running")?;
        let line = place(&|value| value["type"] == "JobStatusPayload")?;
        Some((running, line))
    });
    let (running, line) = shown.await?;
    that("Running before the first line", running < line, &(running, line))
}

/// The client does not read meanwhile as fast as the worker talks: what it is told is still the whole story.
async fn in_one_breath(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    for _ in 0..20 {
        let id = client.submit(&Test::job(), None).await?;
        worker.state(&id, "Queued").await?;
        client.settle().await?;
        let mark = client.mark();
        worker.send(&running(&id, &worker.id)).await?;
        worker.log(&id, "Running", &json!([["first\n", 1]])).await?;
        worker.send(&finished(&id, &worker.id, "Success", &result("out"))).await?;
        client.state(&id, "Finished").await?;
        let told: Vec<String> = client
            .frames(mark)
            .into_iter()
            .filter_map(|frame| match frame {
                Frame::Json(frame) if frame["type"] == "JobStatusPayload" => Some("line".to_owned()),
                Frame::Json(frame) if frame["type"] == "JobStateUpdates" => {
                    frame["payload"]["state"]["jobs"][&id]["state"].as_str().map(str::to_owned)
                }
                _ => None,
            })
            .collect();
        same("what the client is told", &told, &["Running", "line", "Finished"].map(str::to_owned).to_vec())?;
    }
    Ok(())
}

async fn query_job(t: Test) -> anyhow::Result<()> {
    let (queue, other) = (t.queue(), t.queue());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    same("state", &client.query(&id).await?[&id]["state"], &json!("Queued"))?;
    same_json("an unknown job", &client.query(&Test::nonce()).await?, &json!({}))?;
    worker.do_job(&id, "out").await?;
    client.state(&id, "Finished").await?;
    let stranger = Client::join(&t, &other).await?;
    let job = stranger.query(&id).await?[&id].take();
    same("state where it never was queued", &job["state"], &json!("Finished"))?;
    same("the result in the update", &job.get("finished"), &None)
}

async fn query_all(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let id = t.http().submit(&queue, &Test::job()).await?;
    client.state(&id, "Queued").await?;
    for message in [json!({ "type": "QueryJobStates" }), json!({ "type": "QueryJobStates", "payload": {} })] {
        let mark = client.mark();
        client.send(&message).await?;
        let list = client.message(mark, "JobStates").await?;
        that("the job in the list", list["state"]["jobs"].get(&id).is_some(), &list)?;
    }
    Ok(())
}

async fn losing_change(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let (first, second) =
        (Worker::join_as(&t, &queue, "a-first").await?, Worker::join_as(&t, &queue, "b-second").await?);
    let id = client.submit(&Test::job(), None).await?;
    first.claim(&id).await?;
    second.state(&id, "Running").await?;
    client.state(&id, "Running").await?;
    let marks = [client.mark(), first.mark(), second.mark()];
    second.send(&running(&id, "b-second")).await?;
    second.settle().await?;
    client
        .send(
            &json!({ "type": "StateChange", "payload": { "tag": "", "state": "Finished", "job": Test::nonce(),
        "value": { "type": "Finished", "reason": "Success", "time": 1, "worker": "x", "result": {} } } }),
        )
        .await?;
    client.settle().await?;
    first.settle().await?;
    for (socket, mark) in [&*client, &*first, &*second].into_iter().zip(marks) {
        same("updates of a losing change", &socket.payloads(mark, "JobStateUpdates"), &vec![])?;
        same("worker", &socket.table()[&id]["worker"], &json!("a-first"))?;
    }
    Ok(())
}

async fn leaves(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let (good, bad) = (client.submit(&Test::job(), None).await?, client.submit(&Test::job(), None).await?);
    worker.do_job(&good, "out").await?;
    worker.claim(&bad).await?;
    worker.finish(&bad, "Error", &result("out")).await?;
    let limit = LISTED + LIST_PERIOD;
    for id in [&good, &bad] {
        wait::until("its end in the list over HTTP", limit, async || {
            // Sockets that never speak are closed after half a minute.
            client.settle().await.map_err(|error| error.to_string())?;
            let list = http.list(&queue).await.map_err(|error| error.to_string())?;
            if list.contains_key(id) { Err("it is listed".to_owned()) } else { Ok(()) }
        })
        .await?;
        client.gone(id, LIST_PERIOD).await?;
        same("QueryJob", &client.query(id).await?[id]["state"], &json!("Finished"))?;
        same("result", &http.result(&queue, id).await?["state"], &json!("Finished"))?;
    }
    Ok(())
}

async fn one_view(t: Test) -> anyhow::Result<()> {
    let (first, queue, definition) = (t.queue(), t.queue(), Test::job());
    let id = t.http().submit(&first, &definition).await?;
    Worker::join(&t, &first).await?.do_job(&id, "out").await?;
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    client.submit(&definition, None).await?;
    let running = client.submit(&Test::job(), None).await?;
    worker.claim(&running).await?;
    let queued = client.submit(&Test::job(), Some("n")).await?;
    client.state(&running, "Running").await?;
    client.state(&queued, "Queued").await?;
    let ids = |table: &serde_json::Map<String, Value>| {
        let mut ids: Vec<_> = table.iter().map(|(id, job)| format!("{id} {}", job["state"])).collect();
        ids.sort();
        ids
    };
    same("the list over HTTP", &ids(&t.http().list(&queue).await?), &ids(&client.table()))
}

async fn only_asker(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (asker, other, worker) =
        (Client::join(&t, &queue).await?, Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    // The first registration is news to everybody, on another instance a moment later.
    let knows_worker = |list: &Value| {
        list["workers"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == worker.id.as_str()))
    };
    for peer in [&*other, &*worker] {
        peer.message_that(0, "Workers", "Workers with the new one", knows_worker).await?;
    }
    other.settle().await?;
    let marks = [other.mark(), worker.mark()];
    for _ in 0..3 {
        let mark = asker.mark();
        asker.send(&json!({ "type": "QueryJobStates" })).await?;
        asker.message(mark, "JobStates").await?;
        worker.register().await?;
    }
    other.settle().await?;
    worker.settle().await?;
    // One regular list may fall into the time of the test.
    let n = other.payloads(marks[0], "JobStates").len();
    that("no list that somebody else asked for", n <= 1, &n)?;
    let n = worker.payloads(marks[1], "JobStates").len();
    that("no list for a registration that changes nothing but the time", n <= 1, &n)?;
    let n = other.payloads(marks[0], "Workers").len();
    same("Workers for a registration that changes nothing but the time", &n, &0)
}
