//! `dockframe run`: a worker, or in local mode its own relay as well.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use dockframe_worker::config::Mode;
use dockframe_worker::{Config, RunArgs};

use crate::up::{self, PageArgs};

#[derive(Debug, Args)]
pub(crate) struct RunCommand {
    #[command(flatten)]
    worker: RunArgs,

    #[command(flatten)]
    local: LocalArgs,
}

/// What concerns local mode alone.
#[derive(Debug, Args)]
struct LocalArgs {
    /// Local mode: where to listen [default: this computer alone; in a container all that can reach it]
    #[arg(long, value_name = "ADDR", env = "DOCKFRAME_LISTEN_LOCAL")]
    listen: Option<IpAddr>,

    #[command(flatten)]
    pages: PageArgs,
}

pub(crate) async fn run(args: RunCommand) -> anyhow::Result<ExitCode> {
    let RunCommand { worker, local } = args;
    let env = |name: &str| std::env::var(name).ok();
    // What cannot be resolved is reported by the worker, which knows how long to wait before it ends.
    if let Ok(Config { mode: Mode::Local { port }, data_directory, .. }) =
        Config::resolve(worker.clone(), env)
    {
        let listen = SocketAddr::new(local.listen.unwrap_or_else(usual_interface), port);
        return up::serve(listen, data_directory, &local.pages, worker, env).await;
    }
    // The worker has said what went wrong by the time it ends.
    Ok(dockframe_worker::run(worker).await.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// In a container nobody would reach a loopback listener; what is published there is the choice of who starts it.
fn usual_interface() -> IpAddr {
    if !Path::new("/.dockerenv").exists() {
        return IpAddr::V4(Ipv4Addr::LOCALHOST);
    }
    tracing::warn!(
        "in a container, local mode listens on all its interfaces: publish its port to this computer alone, as \
         with `-p 127.0.0.1:8000:8000`, for whoever reaches it can run containers here"
    );
    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}
