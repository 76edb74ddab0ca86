//! How long the page takes between host and relay: `make bench`. Prints a table; compares nothing, fails nothing.
//!
//! Two ways are measured in a real host in real Chromium: from the change of an input in the host to the submission at
//! the relay, and from *Finished* at the relay to the outputs at the next metaframe. The relay is a part of this program
//! that answers at once, so that the page's own time is what remains. Beside it stands a bare metaframe that does the
//! same and draws nothing: what it takes is the browser's and the host's. All clocks are the machine's, and nothing
//! is asked of the browser while a change is under way.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{State, WebSocketUpgrade};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use dockframe_tests::metapage::Metapage;
use dockframe_tests::relay::Relay;
use dockframe_tests::{hash, scenario, wait};
use serde_json::{Value, json};

/// Changes measured, after the first few.
const N_CHANGES: usize = 60;
const N_WARM: usize = 5;
/// Between two changes, so that none is collected with the one before.
const PAUSE: Duration = Duration::from_millis(400);

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

/// When each submission came, and when its *Finished* was sent, by the input's value.
type Times = Arc<Mutex<Vec<(String, f64, f64)>>>;

/// Watching alone: a submission is answered by *Finished*, the result holds the input.
async fn speak(mut socket: WebSocket, times: Times) {
    let say =
        |kind: &str, payload: Value| Message::text(json!({ "type": kind, "payload": payload }).to_string());
    let hello = json!({ "relay": "bench", "epoch": "1", "maxWatched": 256, "maxFrameBytes": 4 << 20 });
    let _ = socket.send(say("Hello", hello)).await;
    let mut revision = 0;
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        if text.as_str() == "PING" {
            let _ = socket.send(Message::text("PONG")).await;
            continue;
        }
        let came = now();
        let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
        let payload = &frame["payload"];
        let tell =
            |jobs: Value| say("JobStateUpdates", json!({ "state": { "jobs": jobs }, "isSubset": true }));
        match frame["type"].as_str() {
            Some("Watch") => {
                let jobs = payload["jobs"].as_object().cloned().unwrap_or_default();
                let unknown: serde_json::Map<_, _> =
                    jobs.into_iter().map(|(id, _)| (id, Value::Null)).collect();
                let _ = socket.send(tell(unknown.into())).await;
            }
            Some("StateChange") => {
                revision += 1;
                let id = payload["job"].as_str().unwrap_or_default().to_owned();
                let value = payload["value"]["enqueued"]["definition"]["inputs"]["n"]["value"].clone();
                let done = json!({ "ref": payload["ref"], "jobId": id, "revision": revision });
                let _ = socket.send(say("Done", done)).await;
                let Some(value) = value.as_str() else { continue };
                let entry = json!({
                    "state": "Finished", "finishedReason": "Success", "queuedTime": 1, "time": revision,
                    "worker": "bench", "namespaces": ["_"], "revision": revision,
                });
                // Known before it is sent: the page may be faster than this program.
                times.lock().unwrap_or_else(PoisonError::into_inner).push((value.to_owned(), came, now()));
                let _ = socket.send(tell(json!({ id: entry }))).await;
            }
            _ => {}
        }
    }
}

async fn result(State(times): State<Times>) -> axum::Json<Value> {
    let value = times.lock().unwrap_or_else(PoisonError::into_inner).last().map(|(value, ..)| value.clone());
    let outputs = json!({ "n": { "type": "utf8", "value": value } });
    let result =
        json!({ "StatusCode": 0, "duration": 1, "isTimedOut": false, "logs": [], "outputs": outputs });
    axum::Json(json!({ "data": { "state": "Finished", "finishedReason": "Success",
        "finished": { "type": "Finished", "reason": "Success", "time": 1, "result": result } } }))
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let place = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[place]
}

fn row(what: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    println!("{what:<55} {:>8.1} {:>8.1}", quantile(&millis, 0.5), quantile(&millis, 0.95));
}

/// Changes the input of a metaframe in a moment, when the awaiting script below is in place; keeps when it did.
const CHANGE: &str = "setTimeout(() => {
    window.changedAt = performance.timeOrigin + performance.now();
    window.host.setInputs({ [arguments[0]]: { n: arguments[1] } });
}, 100)";

/// When the frame received this value.
const ARRIVAL: &str = "return new Promise((resolve) => {
    const find = () => window.__messages.findLast(({ data }) => data?.params?.inputs?.n === arguments[0]);
    const look = () => {
        const found = find();
        if (found) resolve(found.at);
        else window.addEventListener('message', look, { once: true });
    };
    look();
})";

/// The measured times of one metaframe, in milliseconds.
#[derive(Default)]
struct Measured {
    submissions: Vec<f64>,
    outputs: Vec<f64>,
}

/// Changes the input of a metaframe again and again; its outputs arrive at the frame `next`.
async fn measure(metapage: &Metapage, id: &str, next: &str, times: &Times) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    for n in 0..N_WARM + N_CHANGES {
        let value = format!("{id} {n}");
        metapage.host().run(CHANGE, &[json!(id), json!(value)]).await?;
        let arrived = metapage.frame(next).run(ARRIVAL, &[json!(value)]).await?.as_f64().context("a time")?;
        let at = metapage.host().run("return window.changedAt", &[]).await?.as_f64().context("a time")?;
        let known = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (_, came, finished) =
            known.iter().find(|(known, ..)| *known == value).context("no submission")?;
        if n >= N_WARM {
            measured.submissions.push(came - at);
            measured.outputs.push(arrived - finished);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(measured)
}

fn main() {
    scenario::run("bench_page", async |scenario| {
        let page_server = Relay::start(&scenario).await?;
        let times = Times::default();
        let socket = {
            let times = times.clone();
            async move |upgrade: WebSocketUpgrade| {
                upgrade.on_upgrade(async move |socket| speak(socket, times).await)
            }
        };
        let router = axum::Router::new()
            .route("/q/{queue}/client", get(socket))
            .route("/q/{queue}/j/{id}/result.json", get(result))
            .layer(tower_http::cors::CorsLayer::permissive())
            .with_state(times.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        // As relays do: else the second of two small frames waits 40 ms for the first one's acknowledgement.
        let listener = listener.tap_io(|stream| {
            // A stream that refuses is one that has ended.
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            // Ends with the scenario.
            let _ = axum::serve(listener, router).await;
        });

        let metapage = Metapage::open(&scenario).await?;
        let (queue, job) =
            (format!("{origin}/bench"), hash::json(&json!({ "image": "alpine", "command": "bench" })));
        let parameters = [("autostart", "true"), ("job", &*job), ("queue", &queue), ("resolverefs", "true")];
        let bare = metapage.plain_url().replace("/plain/", "/bare/");
        let after =
            |id: &str| json!({ "url": metapage.plain_url(), "inputs": [{ "metaframe": id, "source": "n" }] });
        metapage
            .load(&json!({
                "ours": { "url": format!("{}/{}", page_server.url(), hash::hash(&parameters)) },
                "after ours": after("ours"),
                "bare": { "url": format!("{bare}#{origin}/bare") },
                "after bare": after("bare"),
            }))
            .await?;
        metapage.says("ours", "OutputsUpdate").await?;
        for plain in ["bare", "after ours", "after bare"] {
            metapage.says(plain, "SetupIframeServerResponseAck").await?;
        }
        wait::until("the bare metaframe's socket", wait::SOON, async || {
            match metapage.frame("bare").text("body").await {
                Ok(Some(text)) if text == "open" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        let ours = measure(&metapage, "ours", "after ours", &times).await?;
        let bare = measure(&metapage, "bare", "after bare", &times).await?;
        server.abort();
        println!("{:<55} {:>8} {:>8}", "milliseconds", "p50", "p95");
        row("change of an input in the host → submission at the relay", ours.submissions);
        row("    of which 20 ms wait for more changes; bare metaframe", bare.submissions);
        row("Finished at the relay → outputs at the next metaframe", ours.outputs);
        row("    bare metaframe", bare.outputs);
        Ok(())
    });
}
