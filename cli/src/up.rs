//! `dockframe up`: page, relay and worker in one process, for one computer.
//!
//! Relay and worker talk over a real socket of the loopback interface, so that there is one path, tested everywhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dockframe_relay::{BlobAddress, Config, Origins, Relay, StoreAddress};
use dockframe_shared::QueueKey;
use dockframe_worker::{RunArgs, Worker};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::job::queue_parameter;
use crate::{page, relay, stop};

/// The queue that `up` serves (`metaframe` 5.2).
const QUEUE: &str = "local";
/// A Docker Engine that is starting is given this long: somebody waits at a terminal.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", env = "DOCKFRAME_LISTEN", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// Where queues, files and the worker's data are kept
    #[arg(long, value_name = "DIR", env = "DOCKFRAME_DATA_DIR", default_value = "/tmp/dockframe")]
    data_dir: PathBuf,

    /// How many jobs run at once [default: the number of cores]
    #[arg(long, short, value_name = "N", env = "DOCKFRAME_CPUS")]
    cpus: Option<u32>,

    /// GPUs for jobs: a number, `all`, or `device=0,1`
    #[arg(long, short, value_name = "GPUS", default_value = "0")]
    gpus: String,

    #[command(flatten)]
    pages: PageArgs,
}

/// Which web pages may run containers on this computer, besides its own. The queue's name does not guard it:
/// everybody knows `local`.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Lets pages of this site run containers here, besides this computer's own and the existing service's
    #[arg(long, value_name = "URL", env = "DOCKFRAME_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<Url>,
}

/// Links of the existing service name the queue `local`, and mean this computer (`worker` 18).
const EXISTING_SERVICE: &str = "https://container.mtfm.io";

impl PageArgs {
    fn origins(&self) -> anyhow::Result<Origins> {
        let existing = Url::parse(EXISTING_SERVICE)?;
        Ok(Origins::own(self.allow_origin.iter().chain([&existing])))
    }
}

pub(crate) async fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let cpus = args.cpus.map_or_else(crate::cores, |cpus| cpus as usize);
    let worker = RunArgs { cpus: Some(cpus.to_string()), gpus: Some(args.gpus), ..RunArgs::default() };
    // The surroundings of this command are not a worker's: only where the Engine is counts.
    let env = |name: &str| name.starts_with("DOCKER_").then(|| std::env::var(name).ok()).flatten();
    serve(args.listen, args.data_dir, &args.pages, worker, env).await
}

/// A relay, and a worker that takes its jobs from it. Of `worker`, queue, relay and folder are set here.
pub(crate) async fn serve(
    listen: SocketAddr,
    data_dir: PathBuf,
    pages: &PageArgs,
    worker: RunArgs,
    env: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<ExitCode> {
    let signals = stop::on_signal()?;
    relay::make_folder(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;

    let listener = relay::listen(listen).await?;
    let address = reachable(listener.local_addr()?);
    let store = StoreAddress::Embedded(data_dir.join("store"));
    let blobs = BlobAddress::Directory(data_dir.join("blobs"));
    let config = Config {
        origins: pages.origins()?,
        local_queue: Some(QueueKey::new(QUEUE)?),
        ..Config::new(store, blobs)
    };
    let relay = Relay::open(config, page::page()).await?;

    let worker_args = RunArgs {
        queues: vec![QUEUE.to_owned()],
        mode: Some("remote".to_owned()),
        api_address: Some(format!("http://{address}")),
        data_directory: Some(data_dir.join("worker").display().to_string()),
        ..worker
    };
    let mut worker_config = dockframe_worker::Config::resolve(worker_args, env)?;
    worker_config.engine_patience = ENGINE_PATIENCE;

    // The relay outlives the worker, so that what the worker has to say at its end is heard.
    let relay_stop = CancellationToken::new();
    let mut serving = tokio::spawn(relay.serve(listener, relay_stop.clone()));
    let working = async {
        let worker = Worker::start(worker_config).await?;
        // This queue is no secret: only this computer serves it.
        let page = Url::parse(&format!("http://{address}/"))?;
        let queue = queue_parameter(&page, &QueueKey::new(QUEUE)?);
        tracing::info!("ready: open {page}#?queue={queue}");
        let hurry = worker.hurry();
        let hurrying = async {
            signals.now.cancelled().await;
            hurry.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = worker.run(signals.stop.clone()) => ended?,
            () = hurrying => {}
        }
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        outcome = working => outcome,
        // The relay never ends by itself but by a fault of its own.
        served = &mut serving => return Ok(served?.map(|()| ExitCode::FAILURE)?),
    };
    relay_stop.cancel();
    serving.await??;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The address by which this computer reaches a listener that may be open to all interfaces.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_listener_is_reached_by_loopback() {
        assert_eq!(reachable("0.0.0.0:8000".parse().unwrap()), "127.0.0.1:8000".parse().unwrap());
        assert_eq!(reachable("127.0.0.2:1".parse().unwrap()), "127.0.0.2:1".parse().unwrap());
    }
}
