//! `dockframe run`: a worker, or in local mode its own relay as well.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use dockframe_worker::config::Mode;
use dockframe_worker::{Config, RunArgs};

use crate::up;

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let env = |name: &str| std::env::var(name).ok();
    // What cannot be resolved is reported by the worker, which knows how long to wait before it ends.
    if let Ok(Config { mode: Mode::Local { port }, data_directory, .. }) = Config::resolve(args.clone(), env)
    {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        return up::serve(listen, data_directory, args, env).await;
    }
    // The worker has said what went wrong by the time it ends.
    Ok(dockframe_worker::run(args).await.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}
