//! `dockframe job`: a client of any relay, with the same job in a link or on a queue.

mod client;
mod definition;
mod follow;
mod link;
mod outputs;
mod run;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use url::Url;

pub(crate) use definition::DefinitionArgs;
pub(crate) use link::queue_parameter;

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Debug, Subcommand)]
enum JobCommand {
    /// Run a job and wait: its output is this command's output, its exit code this command's exit code
    ///
    /// Other exit codes: 124 timed out, 125 could not be run, 130 cancelled or replaced, 1 the relay cannot be
    /// reached, 2 wrong usage.
    Run(run::RunArgs),
    /// Print the link that opens a job on the page
    Link(link::LinkArgs),
}

/// Where the queue is.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// The relay
    #[arg(
        long,
        short,
        value_name = "URL",
        env = "DOCKFRAME_API_ADDRESS",
        default_value = "http://localhost:8000"
    )]
    api_address: Url,

    /// The queue
    #[arg(
        long,
        short,
        value_name = "QUEUE",
        env = "DOCKFRAME_QUEUE",
        hide_env_values = true,
        default_value = "local"
    )]
    queue: dockframe_shared::QueueKey,
}

pub(crate) async fn job(args: JobArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        JobCommand::Run(args) => run::run(args).await,
        JobCommand::Link(args) => link::link(args).await,
    }
}
