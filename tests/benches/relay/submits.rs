//! Submissions over HTTP, each acknowledged when it is durable; and answers from a result that stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::redis::Redis;
use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::Scenario;
use tokio::process::Command;

use crate::support::http::Connection;
use crate::support::process::{processor_time, resident_kb};
use crate::support::socket::{Socket, accept, field, finish};
use crate::support::table::{Aim, note, row, title};
use crate::support::times::{Times, per_second};
use crate::{CLIENTS, closed_loop};

/// Jobs that wait in one queue at the end.
const QUEUED: usize = 100_000;
/// However slow the machine is, no longer than this.
const LONGEST: Duration = Duration::from_secs(60);

fn body(client: usize, n: usize) -> String {
    format!(r#"{{"definition":{{"image":"alpine:3.19","command":"echo hi","env":{{"N":"{client}-{n}"}}}}}}"#)
}

fn job(client: usize, n: usize) -> (&'static str, String, String) {
    ("POST", "/q/bench-queue".to_owned(), body(client, n))
}

/// Fills one queue, then asks for what is known.
pub(crate) async fn embedded(scenario: &Arc<Scenario>, bare: f64) -> anyhow::Result<()> {
    let relay = Relay::start_with(scenario, "submits", &Store::Embedded).await?;
    let (address, pid) = (relay.address(), relay.process().pid());
    let idle = resident_kb(pid)?;
    let before = processor_time(pid)?;
    let (times, took) = fill(address).await?;
    let count = times.len();
    title(&format!("Durable submissions, embedded store, {CLIENTS} clients"));
    report(&times, took, bare, Aim::AtLeast(6000.0), Aim::AtMost(15.0));
    row("relay's processor time a submission", micros(processor_time(pid)? - before, count), "µs", Aim::None);
    row("resident memory before", idle / 1024.0, "MiB", Aim::AtMost(15.0));
    let most = if count >= QUEUED { Aim::AtMost(40.0) } else { Aim::None };
    row(&format!("resident memory with {count} queued"), resident_kb(pid)? / 1024.0, "MiB", most);
    known(address, bare).await?;
    let stopped = std::time::Instant::now();
    relay.stop().await?;
    row("stop, with all of them queued", stopped.elapsed().as_secs_f64() * 1000.0, "ms", Aim::None);
    let started = std::time::Instant::now();
    relay.start_again().await?;
    row("start again", started.elapsed().as_secs_f64() * 1000.0, "ms", Aim::AtMost(100.0));
    relay.stop().await
}

/// [`QUEUED`] jobs, or as many as go into [`LONGEST`].
async fn fill(address: SocketAddr) -> anyhow::Result<(Times, Duration)> {
    let begin = tokio::time::Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut times = Times::default();
            for n in 0..QUEUED.div_ceil(CLIENTS) {
                let asked = tokio::time::Instant::now();
                if asked - begin > LONGEST {
                    break;
                }
                connection.ask("POST", "/q/bench-queue", &body(client, n)).await?;
                times.add(asked.elapsed());
            }
            anyhow::Ok(times)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut all = Times::default();
    for client in clients {
        all.extend(client.await??);
    }
    Ok((all, begin.elapsed()))
}

/// A job with a result, submitted again: in this queue, where nobody has to write anything.
async fn known(address: SocketAddr, bare: f64) -> anyhow::Result<()> {
    let mut worker = Socket::worker(address, "known", "w-known", 1).await?;
    let path = "/q/known".to_owned();
    let mut connection = Connection::open(address).await?;
    connection.ask("POST", &path, &body(0, 0)).await?;
    loop {
        let frame = worker.next().await?;
        if frame.contains("\"LeaseFinished\"") {
            break;
        }
        if let Some(lease) = field(&frame, "leaseId").filter(|_| frame.contains("\"LeaseGrant\"")) {
            worker.send_all([accept(lease), finish(lease, "w-known")]).await?;
        }
    }
    let mut times = Times::default();
    for _ in 0..500 {
        let asked = tokio::time::Instant::now();
        connection.ask("POST", &path, &body(0, 0)).await?;
        times.add(asked.elapsed());
    }
    title("A job whose result is there, submitted again");
    row("one client: p50", times.p50(), "ms", Aim::AtMost(1.0));
    row("one client: p99", times.p99(), "ms", Aim::None);
    let again = |_, _| ("POST", "/q/known".to_owned(), body(0, 0));
    let (times, took) = closed_loop(address, Duration::from_secs(3), again).await?;
    report(&times, took, bare, Aim::None, Aim::None);
    Ok(())
}

/// Counts what reaches the disk, where there is strace.
pub(crate) async fn syncs(scenario: &Arc<Scenario>) -> anyhow::Result<()> {
    title("Syncs, counted by strace");
    if Command::new("strace").arg("-V").output().await.is_err() {
        note("no strace on this machine: not counted");
        return Ok(());
    }
    let trace = scenario.folder().join("syncs.txt");
    let words =
        ["-D", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync,msync,sync_file_range", "-o"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push(trace.display().to_string());
    let relay = Relay::start_under(scenario, "syncs", "strace", &words).await?;
    let count =
        || anyhow::Ok(std::fs::read_to_string(&trace)?.lines().filter(|line| line.contains("sync(")).count());
    let before = count()?;
    let (times, _) = closed_loop(relay.address(), Duration::from_secs(3), job).await?;
    let syncs = count()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    row("submissions a sync", times.len() as f64 / syncs.max(1) as f64, "", Aim::AtLeast(8.0));
    relay.stop().await
}

pub(crate) async fn redis(scenario: &Arc<Scenario>, bare: f64) -> anyhow::Result<()> {
    let server = Redis::start(scenario.folder()).await?;
    let relay = Relay::start_with(scenario, "on-redis", &Store::from(&server)).await?;
    let before = processor_time(relay.process().pid())?;
    let (times, took) = closed_loop(relay.address(), Duration::from_secs(4), job).await?;
    title(&format!("Durable submissions, Redis with appendfsync always, {CLIENTS} clients"));
    report(&times, took, bare, Aim::None, Aim::None);
    let used = processor_time(relay.process().pid())? - before;
    row("relay's processor time a submission", micros(used, times.len()), "µs", Aim::None);
    relay.stop().await?;
    server.process().kill().await
}

fn report(times: &Times, took: Duration, bare: f64, rate: Aim, p99: Aim) {
    let reached = per_second(times.len(), took);
    row("answers", reached, "/s", rate);
    row("ratio to the bare server", reached / bare, "", Aim::None);
    row("p50", times.p50(), "ms", Aim::None);
    row("p99", times.p99(), "ms", p99);
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
pub(crate) fn micros(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}
