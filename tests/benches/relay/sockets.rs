//! Sockets that mostly wait: what each costs, and how soon all of them hear of a change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::Scenario;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::http::Connection;
use crate::support::process::{processor_time, resident_kb};
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::Times;

/// Changes that all watchers are told, each after the one before has reached everybody.
const CHANGES: usize = 20;

pub(crate) async fn measure(scenario: &Arc<Scenario>) -> anyhow::Result<()> {
    for (count, aim) in [(200, Aim::AtMost(8.0)), (5_000, Aim::None)] {
        title(&format!("{count} sockets that watch one job"));
        let relay = Relay::start_with(scenario, &format!("sockets-{count}"), &Store::Embedded).await?;
        sockets(&relay, count, aim).await?;
        relay.stop().await?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
async fn sockets(relay: &Relay, count: usize, aim: Aim) -> anyhow::Result<()> {
    let (address, pid) = (relay.address(), relay.process().pid());
    let mut connection = Connection::open(address).await?;
    let definition = json!({"definition": {"image": "a", "command": "watched"}}).to_string();
    let answer: serde_json::Value =
        serde_json::from_slice(connection.ask("POST", "/q/watched", &definition).await?)?;
    let job = answer["jobId"].as_str().unwrap_or_default().to_owned();
    // What the first one costs is not a socket's price.
    let first = watcher(address, &job).await?;
    let before = resident_kb(pid)?;
    let opened: Vec<Socket> = futures_util::stream::iter(0..count)
        .map(|_| watcher(address, &job))
        .buffer_unordered(32)
        .try_collect()
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cost = (resident_kb(pid)? - before) / count as f64;
    row("resident memory of a socket", cost, "KiB", Aim::AtMost(12.0));

    let bytes = Arc::new(AtomicUsize::new(0));
    let (heard, mut hears) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for mut socket in opened {
        let (heard, bytes) = (heard.clone(), Arc::clone(&bytes));
        tasks.spawn(async move {
            while let Ok(frame) = socket.next().await {
                let now = Instant::now();
                if frame.contains("\"JobStateUpdates\"") {
                    bytes.fetch_add(frame.len(), Ordering::Relaxed);
                    if heard.send(now).is_err() {
                        break;
                    }
                }
            }
        });
    }
    let cpu = processor_time(pid)?;
    let mut times = Times::default();
    let cancel = format!("/q/watched/j/{job}/cancel");
    for change in 0..CHANGES {
        let begin = Instant::now();
        if change % 2 == 0 {
            connection.ask("POST", &cancel, "{}").await?;
        } else {
            connection.ask("POST", "/q/watched", &definition).await?;
        }
        for _ in 0..count {
            let heard = tokio::time::timeout(Duration::from_secs(20), hears.recv()).await?;
            times.add(heard.unwrap_or(begin) - begin);
        }
    }
    drop(first);
    tasks.shutdown().await;
    row("change to its receipt by a watcher: p50", times.p50(), "ms", Aim::None);
    row("change to its receipt by a watcher: p99", times.p99(), "ms", aim);
    let told = (CHANGES * count) as f64;
    row(
        "bytes of a change for a watcher",
        bytes.load(Ordering::Relaxed) as f64 / told,
        "B",
        Aim::AtMost(2048.0),
    );
    let used = (processor_time(pid)? - cpu).as_secs_f64() * 1e6;
    row("relay's processor time a change and watcher", used / told, "µs", Aim::None);
    Ok(())
}

/// A socket that has been told how its job stands.
async fn watcher(address: SocketAddr, job: &str) -> anyhow::Result<Socket> {
    let mut socket = Socket::client(address, "watched").await?;
    socket.send(format!(r#"{{"type":"Watch","payload":{{"jobs":{{"{job}":{{}}}}}}}}"#)).await?;
    while !socket.next().await?.contains("\"JobStateUpdates\"") {}
    Ok(socket)
}
