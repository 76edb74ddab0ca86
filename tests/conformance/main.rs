//! `dockframe-conformance relay URL`: does a relay keep the promises of the protocol?
//! `dockframe-conformance worker -- COMMAND…`: does a worker?
//! `dockframe-conformance page URL`: does a page, as a metaframe?
//!
//! Black box. Of a relay it drives nothing but the wire (HTTP, client sockets, worker sockets) and plays the workers
//! itself, so it needs no container, no browser and no knowledge of the relay's insides. Of a worker it knows the
//! command line and the wire, and looks at the Docker Engine; the relay is scripted ([`worker::relay`]). Of a page it sees
//! what a host, a relay and a user see, in Chromium; the relay is scripted ([`page::relay`]). Each test
//! belongs to a numbered item of the checklists (`relay-protocol` 7, `jobs-and-states` 10, `worker` 25, `metaframe` 9)
//! or to a row of the weaknesses (`relay-protocol` 6, `jobs-and-states` 12, `worker` 20), and is either *compat* (any
//! relay, worker or page of the protocol keeps it) or *dockframe* (beyond it).
//!
//! [`registry`] is the list of tests, [`runner`] runs them side by side, [`report`] prints what came out. The tests of
//! relays are in [`items`], one file a subject; [`peers`] are the programs they play; [`replay`] plays recorded
//! exchanges. All that is about workers is in [`worker`], about pages in [`page`].

mod check;
mod items;
mod known;
mod page;
mod peers;
mod registry;
mod replay;
mod report;
mod runner;
mod test;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::registry::{About, Mark};
use crate::test::{Relay, Test};
use crate::worker::setup::Setup;

/// Checks that a relay, a worker or a page keeps the promises of the protocol, from outside.
#[derive(Debug, Parser)]
#[command(name = "dockframe-conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the tests against a relay.
    Relay(Box<RelayArguments>),
    /// Runs the tests against a worker.
    Worker(Box<WorkerArguments>),
    /// Runs the tests against a page, in Chromium.
    Page(Box<PageArguments>),
    /// Prints the tests without running them.
    List(ListArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    /// The tests of workers instead of those of relays.
    #[arg(long)]
    worker: bool,
    /// The tests of pages instead of those of relays.
    #[arg(long, conflicts_with = "worker")]
    page: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, clap::Args)]
struct WorkerArguments {
    /// What starts a worker, such as `dockframe run`. `{queue}`, `{relay}` and `{data}` in it are replaced by the
    /// queue, the relay's address and the data directory; what is not there is appended as argument or option. A
    /// container must share this machine's network, `/tmp` and the Engine's socket.
    #[arg(last = true, required = true)]
    command: Vec<String>,
    /// An image with a shell and the usual small tools that the worker can pull, or has.
    #[arg(long, default_value = "busybox:1.36")]
    image: String,
    /// How many tests run side by side.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// A list of tests that are known to fail, each with its reason. One that passes is an error too. May be given
    /// several times.
    #[arg(long)]
    known: Vec<PathBuf>,
    /// Keep the folder of each failed test, with the worker's log.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, clap::Args)]
struct PageArguments {
    /// Address of the page, such as `http://127.0.0.1:8000/`. It is loaded through a relay that the tests script.
    url: url::Url,
    /// How many tests run side by side, each in a window of one Chromium.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    parallel: u16,
    /// A list of tests that are known to fail, each with its reason. One that passes is an error too. May be given
    /// several times.
    #[arg(long)]
    known: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, clap::Args)]
struct RelayArguments {
    /// Address of the relay, such as `http://127.0.0.1:8000`.
    url: url::Url,
    /// Each test works on a queue of its own, whose name begins with this.
    #[arg(long, default_value = "conformance")]
    queue: String,
    /// Address of another instance of the same deployment. Every second connection goes there.
    #[arg(long)]
    second: Option<url::Url>,
    /// The relay may call private addresses: run the tests of callbacks, which listen on this machine.
    #[arg(long)]
    private_callbacks: bool,
    /// How many tests run side by side.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// A list of tests that are known to fail, each with its reason. One that passes is an error too. May be given
    /// several times.
    #[arg(long)]
    known: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// Only what any relay keeps, or only what goes beyond.
    #[arg(long)]
    only: Option<Mark>,
    /// Only these items, such as `14c`, `7.18` or `R-3`; several with commas between.
    #[arg(long, value_delimiter = ',')]
    item: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    // One provider for the process; that it is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match Arguments::parse().command {
            Command::List(ListArguments { worker, page, selection }) => {
                let about = |all: Vec<About>| report::list(all.into_iter());
                let Selection { only, item } = selection;
                if worker {
                    let chosen = registry::selected(worker::items::all(), only, &item);
                    about(chosen.iter().map(|item| item.about).collect())?;
                } else if page {
                    let chosen = registry::selected(page::items::all(), only, &item);
                    about(chosen.iter().map(|item| item.about).collect())?;
                } else {
                    let chosen = registry::selected(items::all(), only, &item);
                    about(chosen.iter().map(|item| item.about).collect())?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Relay(arguments) => relay(*arguments).await,
            Command::Worker(arguments) => worker(*arguments).await,
            Command::Page(arguments) => page(*arguments).await,
        }
    })
}

/// Reads the lists of known failures.
fn known(paths: &[PathBuf], all: &[About]) -> anyhow::Result<known::Known> {
    let mut known = known::Known::default();
    for path in paths {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        known.read(&text, all).with_context(|| format!("in {}", path.display()))?;
    }
    Ok(known)
}

async fn relay(arguments: RelayArguments) -> anyhow::Result<ExitCode> {
    let all = items::all();
    let known = known(&arguments.known, &all.iter().map(|item| item.about).collect::<Vec<_>>())?;
    let chosen = registry::selected(all, arguments.selection.only, &arguments.selection.item);
    anyhow::ensure!(!chosen.is_empty(), "no test is selected: `dockframe-conformance list` prints them");
    let relay = Relay::new(&arguments.url, arguments.second.as_ref(), &arguments.queue)?
        .with_private_callbacks(arguments.private_callbacks);
    relay.is_there().await?;
    let begin = std::time::Instant::now();
    let parallel = usize::from(arguments.parallel);
    let outcomes = runner::run(&chosen, || Test::new(&relay), parallel, &known).await?;
    verdict(&outcomes, begin)
}

async fn worker(arguments: WorkerArguments) -> anyhow::Result<ExitCode> {
    let all = worker::items::all();
    let known = known(&arguments.known, &all.iter().map(|item| item.about).collect::<Vec<_>>())?;
    let chosen = registry::selected(all, arguments.selection.only, &arguments.selection.item);
    anyhow::ensure!(
        !chosen.is_empty(),
        "no test is selected: `dockframe-conformance list --worker` prints them"
    );
    let setup = Setup::new(arguments.command, arguments.image, arguments.keep);
    setup.is_possible().await?;
    let setup = std::sync::Arc::new(setup);
    let begin = std::time::Instant::now();
    let parallel = usize::from(arguments.parallel);
    let outcomes = runner::run(&chosen, || worker::setup::Test::new(&setup), parallel, &known).await?;
    verdict(&outcomes, begin)
}

async fn page(arguments: PageArguments) -> anyhow::Result<ExitCode> {
    let all = page::items::all();
    let known = known(&arguments.known, &all.iter().map(|item| item.about).collect::<Vec<_>>())?;
    let chosen = registry::selected(all, arguments.selection.only, &arguments.selection.item);
    anyhow::ensure!(
        !chosen.is_empty(),
        "no test is selected: `dockframe-conformance list --page` prints them"
    );
    let setup = std::sync::Arc::new(page::setup::Setup::new(&arguments.url).await?);
    let begin = std::time::Instant::now();
    let parallel = usize::from(arguments.parallel);
    let outcomes = runner::run(&chosen, || page::setup::Test::new(&setup), parallel, &known).await;
    setup.end().await;
    verdict(&outcomes?, begin)
}

fn verdict(outcomes: &[runner::Outcome], begin: std::time::Instant) -> anyhow::Result<ExitCode> {
    let is_good = report::total(outcomes, begin.elapsed())?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
