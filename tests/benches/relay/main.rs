//! The relay from outside, beside a bare axum server in the same run: `make bench`. Prints tables; fails on nothing but
//! a relay that does not answer.
//!
//! Clients and relay share the processors, so absolute figures are of this machine and this moment. The ratio to the
//! bare server, measured the same way a moment before, says more.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

mod blobs;
mod jobs;
mod sockets;
mod start;
mod submits;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dockframe_tests::scenario;

use crate::support::http::Connection;
use crate::support::table::{Aim, row, title};
use crate::support::times::{Times, per_second};

/// Clients that ask at once.
const CLIENTS: usize = 32;
/// All of it together, on a slow machine.
const LIMIT: Duration = Duration::from_secs(420);

fn main() {
    // `hello ADDRESS`: the bare server, in a process of its own as the relay is.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, address] = arguments.as_slice()
        && word == "hello"
    {
        return hello(address);
    }
    // Any of the parts by name; else all.
    let wanted = |part: &str| {
        let named: Vec<&String> = arguments.iter().skip(1).filter(|word| !word.starts_with('-')).collect();
        named.is_empty() || named.iter().any(|name| *name == part)
    };
    scenario::run_within("bench_relay", LIMIT, async |scenario| {
        let bare = bare_server(&scenario).await?;
        if wanted("start") {
            start::measure(&scenario).await?;
        }
        if wanted("submits") {
            submits::embedded(&scenario, bare).await?;
            submits::syncs(&scenario).await?;
            submits::redis(&scenario, bare).await?;
        }
        if wanted("jobs") {
            jobs::measure(&scenario, bare).await?;
        }
        if wanted("sockets") {
            sockets::measure(&scenario).await?;
        }
        if wanted("blobs") {
            blobs::measure(&scenario).await?;
        }
        Ok(())
    });
}

fn hello(address: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
        let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
        axum::serve(listener, router).await.expect("a server");
    });
}

/// Starts the bare server; how many requests a second it answers.
async fn bare_server(scenario: &Arc<scenario::Scenario>) -> anyhow::Result<f64> {
    let address = dockframe_tests::ports::free()?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(["hello", &address.to_string()]);
    let process = scenario.start("hello", command)?;
    dockframe_tests::wait::until("the bare server", dockframe_tests::wait::SOON, async || {
        Connection::open(address).await.map_err(|error| error.to_string()).map(drop)
    })
    .await?;
    let (times, took) =
        closed_loop(address, Duration::from_secs(3), |_, _| ("GET", "/".to_owned(), String::new())).await?;
    let rate = per_second(times.len(), took);
    title(&format!("A bare axum server, {CLIENTS} clients on kept connections"));
    row("answers", rate, "/s", Aim::None);
    row("p50", times.p50(), "ms", Aim::None);
    row("p99", times.p99(), "ms", Aim::None);
    process.kill().await?;
    Ok(rate)
}

/// Each client asks again as soon as it was answered, for so long. The request is made from the client's number and
/// how many it has made.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    span: Duration,
    request: impl Fn(usize, usize) -> (&'static str, String, String) + Send + Sync + Copy + 'static,
) -> anyhow::Result<(Times, Duration)> {
    let begin = tokio::time::Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        tokio::spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut times = Times::default();
            for n in 0.. {
                let asked = tokio::time::Instant::now();
                if asked - begin >= span {
                    break;
                }
                let (method, path, body) = request(client, n);
                connection.ask(method, &path, &body).await?;
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
