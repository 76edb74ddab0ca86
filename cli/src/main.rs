//! `dockframe`: relay, worker, page and client in one binary.
//!
//! This crate only parses, composes the libraries and prints: what a command is asked to give goes to stdout,
//! everything else to stderr. Exit codes are in [`exit`].

mod doctor;
mod exit;
mod init;
mod job;
mod page;
mod relay;
mod run;
mod stop;
mod telemetry;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run any container from a web page, on computers of your own.
#[derive(Debug, Parser)]
#[command(name = "dockframe", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on this computer: page, relay and a worker of the queue `local`
    Up(up::UpArgs),
    /// Only the relay, with the page: the meeting point of pages and workers
    Relay(relay::RelayArgs),
    /// A worker: takes the jobs of a queue and runs them in containers
    Run(Box<run::RunCommand>),
    /// Whether this computer can run jobs: what a worker with the same options would find
    Doctor(Box<dockframe_worker::RunArgs>),
    /// Run jobs, or make links to them
    Job(job::JobArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if init::is_first() && !matches!(cli.command, Command::Job(_)) {
        return init::run().unwrap_or_else(|error| exit::failure(&error));
    }
    // One provider for all TLS of the process; a second installation could only be our own mistake.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let (default_log, threads) = match &cli.command {
        Command::Job(_) | Command::Doctor(_) => ("warn", 1),
        Command::Up(_) | Command::Relay(_) | Command::Run(_) => ("info", 2),
    };
    telemetry::init(default_log);

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(cores())).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&anyhow::Error::new(error).context("cannot start")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::up(args).await,
            Command::Relay(args) => relay::relay(args).await,
            Command::Run(args) => Box::pin(run::run(*args)).await,
            Command::Doctor(args) => Ok(Box::pin(doctor::examine(*args)).await),
            Command::Job(args) => Box::pin(job::job(args)).await,
        }
    });
    // A blocking read of a slow disk must not hold up the exit.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| exit::failure(&error))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_existing_workers_line_parses_as_it_stands() {
        let cli = Cli::try_parse_from(["dockframe", "run", "--cpus=4", "--gpus=0", "public1"]).unwrap();
        assert!(matches!(cli.command, Command::Run(_)));
    }
}
