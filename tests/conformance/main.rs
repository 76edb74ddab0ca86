//! `dockframe-conformance relay URL`: does a relay keep the promises of the protocol?
//! `dockframe-conformance page URL`: is a page a metaframe of the protocol ([`page`])?
//!
//! Black box: it drives nothing but the wire (HTTP, client sockets, worker sockets) and plays the workers itself, so
//! it needs no container, no browser and no knowledge of the relay's insides. Each test belongs to a numbered item
//! of the checklists (`relay-protocol` 7, `jobs-and-states` 10) or to a row of the weaknesses (`relay-protocol` 6,
//! `jobs-and-states` 12), and is either *compat* (any relay of the protocol keeps it) or *dockframe* (beyond it).
//!
//! [`registry`] is the list of tests, [`runner`] runs them side by side, [`report`] prints what came out. The tests
//! are in [`items`], one file a subject; [`peers`] are the programs they play; [`replay`] plays recorded exchanges.

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

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::registry::Mark;
use crate::test::Relay;

/// Checks that a relay keeps the promises of the protocol, from outside.
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
    /// Shows that a page is a metaframe: it is loaded into a real host in Chromium, and shakes hands.
    Page {
        /// Address of the page, such as `http://127.0.0.1:8000/`.
        url: url::Url,
    },
    /// Prints the tests without running them.
    List(Selection),
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
    /// Only these items, such as `14c`, `7.18` or `R-3`.
    #[arg(long)]
    item: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    // One provider for the process; that it is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match Arguments::parse().command {
            Command::List(selection) => {
                report::list(&registry::selected(selection.only, &selection.item))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Relay(arguments) => relay(*arguments).await,
            Command::Page { url } => page::run(&url).await,
        }
    })
}

async fn relay(arguments: RelayArguments) -> anyhow::Result<ExitCode> {
    let mut known = known::Known::default();
    for path in &arguments.known {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        known.read(&text).with_context(|| format!("in {}", path.display()))?;
    }
    let items = registry::selected(arguments.selection.only, &arguments.selection.item);
    anyhow::ensure!(!items.is_empty(), "no test is selected: `dockframe-conformance list` prints them");
    let relay = Relay::new(&arguments.url, arguments.second.as_ref(), &arguments.queue)?
        .with_private_callbacks(arguments.private_callbacks);
    relay.is_there().await?;
    let begin = std::time::Instant::now();
    let outcomes = runner::run(&items, &relay, usize::from(arguments.parallel), &known).await?;
    let verdict = report::total(&outcomes, begin.elapsed())?;
    Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
