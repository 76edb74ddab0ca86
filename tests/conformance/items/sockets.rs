//! Opening sockets, words, and what is ignored (`relay-protocol` 3.1 to 3.5).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::check::{SOON, same, that};
use crate::peers::client::{Client, queued};
use crate::peers::socket::{Frame, NotOpened, Socket};
use crate::peers::worker::{Worker, registration};
use crate::registry::{Item, item};
use crate::test::{Test, job_id};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("7.29", Compat, "Sockets open with and without /q, and a bad path never stays open.", paths),
        item!(
            "7.29b",
            Compat,
            "A socket that its peer closes is closed in return, with the same code.",
            closed_in_return
        ),
        item!(
            "7.31",
            Compat,
            "PING is answered, to a worker with its id, and nothing but JSON comes unasked.",
            words
        ),
        item!(
            "7.32",
            Compat,
            "Binary, malformed and unknown frames are ignored, and the socket stays open.",
            ignored
        ),
        item!("7.33", Compat, "Frames of one socket about one job take effect in order.", in_order),
        item!("7.53", Compat, "PONG comes within a second while the relay is busy.", pong_under_load),
        item!(
            "R-5",
            Dockframe,
            "Frames sent right after the upgrade of a queue's first socket count.",
            first_frames
        ),
        item!("R-6", Dockframe, "A bad path is refused at the upgrade.", refused),
        item!(
            "R-7",
            Dockframe,
            "Simultaneous first connections to a queue see each other's jobs.",
            one_queue
        ),
        item!("R-22", Dockframe, "A queue's name is decoded alike over HTTP and on sockets.", one_name),
    ]
}

const BAD_PATHS: [&str; 6] = ["/", "/q", "/q/x", "/q/x/foo", "/foo", "/q//"];

async fn paths(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let id = t.http().submit(&queue, &Test::job()).await?;
    for role in ["browser", "client", "worker"] {
        for path in
            [format!("/q/{queue}/{role}"), format!("/{queue}/{role}"), format!("/q/{queue}/{role}/more?x=1")]
        {
            let socket = t.socket(&path).await?;
            socket.state(&id, "Queued").await.map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        }
    }
    let bad = BAD_PATHS.into_iter().chain(["/q/undefined/client", "/q/null/browser"]);
    for path in bad {
        match Socket::open(t.address(), path, &[]).await {
            Err(NotOpened::Refused { .. }) => {}
            Err(other) => return Err(other.into()),
            Ok(socket) => {
                let closed = socket.closed(SOON).await;
                closed.map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
                same(&format!("messages on {path}"), &socket.payloads(0, "JobStates"), &vec![])?;
            }
        }
    }
    Ok(())
}

async fn closed_in_return(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    for role in ["client", "worker"] {
        let socket = t.socket(&format!("/q/{queue}/{role}")).await?;
        socket.message(0, "JobStates").await?;
        socket.close(1000).await?;
        same(&format!("code of the {role}'s close"), &socket.closed(SOON).await?, &Some(1000))?;
    }
    Ok(())
}

async fn words(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let mark = client.mark();
    client.say("PING").await?;
    client.word(mark, "PONG").await?;
    let worker = t.socket(&format!("/q/{queue}/worker")).await?;
    worker.say("PING").await?;
    worker.word(0, "PONG unknown").await?;
    worker.send(&registration("w-one")).await?;
    worker.say("PING").await?;
    worker.word(0, "PONG w-one").await?;
    let silent = Client::join(&t, &queue).await?;
    let id = client.submit(&Test::job(), None).await?;
    silent.state(&id, "Queued").await?;
    let strange: Vec<_> =
        silent.frames(0).into_iter().filter(|frame| !matches!(frame, Frame::Json(_))).collect();
    same("frames that are no JSON", &strange, &vec![])
}

async fn ignored(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let sockets =
        [t.socket(&format!("/q/{queue}/client")).await?, t.socket(&format!("/q/{queue}/worker")).await?];
    for socket in &sockets {
        socket.message(0, "JobStates").await?;
        let mark = socket.mark();
        let texts = [
            "",
            "undefined",
            "hello",
            "{bad",
            "[]",
            "null",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"Nope"}"#,
            r#"{"type":"StateChange"}"#,
            r#"{"type":"StateChange","payload":null}"#,
            r#"{"type":"WorkerRegistration"}"#,
            r#"{"type":"QueryJob","payload":{}}"#,
            r#"{"type":"JobStatusLogs","payload":{}}"#,
        ];
        for text in texts {
            socket.say(text).await?;
        }
        socket.send_binary(vec![1, 2, 3]).await?;
        socket.settle().await?;
        let kinds = socket.kinds(mark);
        // A regular full list may fall into the time of the test.
        let answers: Vec<_> =
            kinds.iter().filter(|kind| !kind.starts_with("PONG") && *kind != "JobStates").collect();
        same("answers to frames that mean nothing", &answers, &vec![])?;
    }
    Ok(())
}

async fn in_order(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    // Ten rounds of submit and cancel, the last one a submit: the order decides what is left.
    for _ in 0..3 {
        let definition = Test::job();
        let id = job_id(&definition)?;
        for _ in 0..10 {
            client.send(&queued(&id, &definition, Some("n"))).await?;
            client.end(&id, "Cancelled", Some("n")).await?;
        }
        client.send(&queued(&id, &definition, Some("last"))).await?;
        let job = client.until_table("the last submission", SOON, |table| {
            table.get(&id).filter(|job| job["namespaces"] == json!(["last"])).cloned()
        });
        same("state", &job.await?["state"], &json!("Queued"))?;
    }
    Ok(())
}

async fn pong_under_load(t: Test) -> anyhow::Result<()> {
    const PROMISED: Duration = Duration::from_secs(1);
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let mut longest = Duration::ZERO;
    // The machine may be busy with something else for a while: that is no fault of the relay.
    for _ in 0..5 {
        let load = async {
            let submit = async |_| http.submit(&queue, &Test::job()).await;
            let all = futures_util::future::join_all((0..30).map(submit)).await;
            all.into_iter().collect::<anyhow::Result<Vec<_>>>()
        };
        let pings = async {
            let mut longest = Duration::ZERO;
            for _ in 0..10 {
                let begin = Instant::now();
                client.settle().await?;
                longest = longest.max(begin.elapsed());
            }
            anyhow::Ok(longest)
        };
        let (load, pings) = tokio::join!(load, pings);
        load?;
        longest = pings?;
        if longest < PROMISED {
            return Ok(());
        }
    }
    that("PONG within a second, in one of five rounds", longest < PROMISED, &longest)
}

async fn first_frames(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let id = job_id(&definition)?;
    let client = t.socket(&format!("/q/{queue}/client")).await?;
    client.send(&queued(&id, &definition, None)).await?;
    client.state(&id, "Queued").await?;
    let queue = t.queue();
    let worker = t.socket(&format!("/q/{queue}/worker")).await?;
    worker.send(&registration("w-early")).await?;
    worker.say("PING").await?;
    worker.word(0, "PONG w-early").await
}

async fn refused(t: Test) -> anyhow::Result<()> {
    let wanted = BAD_PATHS.into_iter().map(|path| (path, 404));
    let nobody = [("/q/undefined/client", 400), ("/q/null/browser", 400)];
    for (path, wanted) in wanted.chain(nobody) {
        // No queue at all may be called either.
        let allowed = if path == "/q//" { vec![400, 404] } else { vec![wanted] };
        match Socket::open(t.address(), path, &[]).await {
            Err(NotOpened::Refused { status, .. }) if allowed.contains(&status) => {}
            other => anyhow::bail!(
                "{path}: expected a refusal with {wanted}; came {:?}",
                other.map(|_| "a socket")
            ),
        }
    }
    Ok(())
}

async fn one_queue(t: Test) -> anyhow::Result<()> {
    for _ in 0..3 {
        let queue = t.queue();
        let joins = (0..8).map(|_| Client::join(&t, &queue));
        let clients =
            futures_util::future::join_all(joins).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for client in &clients {
            let id = client.submit(&Test::job(), None).await?;
            for other in &clients {
                other.state(&id, "Queued").await?;
            }
        }
    }
    Ok(())
}

async fn one_name(t: Test) -> anyhow::Result<()> {
    let queue = format!("{} ä%2F", t.queue());
    let escaped = queue.replace('%', "%25").replace(' ', "%20").replace('ä', "%C3%A4");
    let id = t.http().submit(&escaped, &Test::job()).await?;
    for path in [format!("/q/{escaped}/client"), format!("/{escaped}/client")] {
        t.socket(&path).await?.state(&id, "Queued").await?;
    }
    Worker::join(&t, &escaped).await?.do_job(&id, "out").await
}
