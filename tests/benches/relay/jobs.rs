//! Jobs without containers: workers that accept and finish at once, so that the relay's part is all there is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::Scenario;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::submits::micros;
use crate::support::process::processor_time;
use crate::support::socket::{Socket, accept, field, finish, submission};
use crate::support::table::{Aim, row, title};
use crate::support::times::{Times, per_second};

const WORKERS: usize = 4;
const SUBMITTERS: usize = 8;
const LIVES: usize = 10_000;
const GRANTS: usize = 300;

pub(crate) async fn measure(scenario: &Arc<Scenario>, bare: f64) -> anyhow::Result<()> {
    let relay = Relay::start_with(scenario, "jobs", &Store::Embedded).await?;
    grants(relay.address()).await?;
    let pid = relay.process().pid();
    let before = processor_time(pid)?;
    let took = lives(relay.address()).await?;
    title(&format!("Whole lives of jobs, {WORKERS} scripted workers: submit, grant, accept, finish"));
    let rate = per_second(LIVES, took);
    row("jobs", rate, "/s", Aim::AtLeast(2500.0));
    row("ratio to the bare server", rate / bare, "", Aim::None);
    row(
        "relay's processor time a job",
        micros(processor_time(pid)? - before, LIVES),
        "µs",
        Aim::AtMost(200.0),
    );
    relay.stop().await
}

/// From the submission to the worker's receipt of the grant, one after the other.
async fn grants(address: SocketAddr) -> anyhow::Result<()> {
    let mut worker = Socket::worker(address, "grants", "w-grants", 4).await?;
    let mut client = Socket::client(address, "grants").await?;
    let (mut granted, mut acknowledged) = (Times::default(), Times::default());
    for n in 0..GRANTS {
        let sent = Instant::now();
        client.send(submission(&format!("g{n}"), "true")).await?;
        let lease = loop {
            let frame = worker.next().await?;
            if frame.contains("\"LeaseGrant\"") {
                granted.add(sent.elapsed());
                break field(&frame, "leaseId").unwrap_or_default().to_owned();
            }
        };
        while !client.next().await?.contains("\"Done\"") {}
        acknowledged.add(sent.elapsed());
        worker.send_all([accept(&lease), finish(&lease, "w-grants")]).await?;
        while !worker.next().await?.contains("\"LeaseFinished\"") {}
    }
    title("One job at a time, over sockets");
    row("submission to acknowledgement, or grant if that is later: p50", acknowledged.p50(), "ms", Aim::None);
    row("submission to the worker's receipt of the grant: p50", granted.p50(), "ms", Aim::AtMost(3.0));
    row("submission to the worker's receipt of the grant: p99", granted.p99(), "ms", Aim::None);
    Ok(())
}

/// How long it takes until all of [`LIVES`] are recorded.
async fn lives(address: SocketAddr) -> anyhow::Result<Duration> {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..WORKERS {
        let ended = ended.clone();
        let id = format!("w{n}");
        let mut worker = Socket::worker(address, "lives", &id, 64).await?;
        tasks.spawn(async move {
            loop {
                let frame = worker.next().await?;
                if frame.contains("\"LeaseFinished\"") {
                    anyhow::ensure!(
                        frame.contains("\"recorded\":true"),
                        "a result was not recorded: {frame}"
                    );
                    ended.send(())?;
                } else if let Some(lease) =
                    field(&frame, "leaseId").filter(|_| frame.contains("\"LeaseGrant\""))
                {
                    worker.send_all([accept(lease), finish(lease, &id)]).await?;
                }
            }
        });
    }
    let begin = Instant::now();
    for submitter in 0..SUBMITTERS {
        let mut client = Socket::client(address, "lives").await?;
        tasks.spawn(async move {
            // A few on their way at once, as a page with several frames has them.
            const AHEAD: usize = 16;
            for first in (0..LIVES / SUBMITTERS).step_by(AHEAD) {
                let last = (first + AHEAD).min(LIVES / SUBMITTERS);
                client
                    .send_all((first..last).map(|n| submission(&format!("l{submitter}-{n}"), "true")))
                    .await?;
                let mut open = last - first;
                while open > 0 {
                    open -= usize::from(client.next().await?.contains("\"Done\""));
                }
            }
            // The socket stays open until the end.
            std::future::pending::<anyhow::Result<()>>().await
        });
    }
    let mut open = LIVES;
    while open > 0 {
        tokio::select! {
            Some(()) = ends.recv() => open -= 1,
            Some(task) = tasks.join_next() => task??,
        }
    }
    Ok(begin.elapsed())
}
