//! `dockframe relay`: the meeting point of pages and workers.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use dockframe_relay::{BlobAddress, Config, Relay, StoreAddress, WebhookSecret};
use tokio::net::TcpListener;
use url::Url;

use crate::{page, stop};

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", env = "DOCKFRAME_LISTEN", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,

    /// Where queues are kept: `embedded:DIR` or `redis://…`
    #[arg(long, value_name = "STORE", env = "DOCKFRAME_STORE")]
    store: StoreAddress,

    /// Where files are kept: `file:DIR` or `s3://bucket/prefix`
    #[arg(long, value_name = "BLOBS", env = "DOCKFRAME_BLOBS")]
    blobs: BlobAddress,

    /// The address under which pages and workers reach this relay, if it is not that of their requests
    #[arg(long, value_name = "URL", env = "DOCKFRAME_PUBLIC_URL")]
    public_url: Option<Url>,

    /// Whether a queue may be answered by a result that another queue computed
    #[arg(long, value_name = "on|off", env = "DOCKFRAME_SHARED_RESULTS", default_value = "on", action = ArgAction::Set, value_parser = on_off)]
    shared_results: bool,

    /// Signs callbacks as Standard Webhooks are: `whsec_…`, or any text of at least 16 bytes
    #[arg(long, value_name = "SECRET", env = "DOCKFRAME_WEBHOOK_SECRET", hide_env_values = true)]
    webhook_secret: Option<WebhookSecret>,

    /// Lets callbacks go to loopback and private networks
    #[arg(long, env = "DOCKFRAME_ALLOW_PRIVATE_CALLBACKS")]
    allow_private_callbacks: bool,

    /// Where the relay's metrics can be asked for, at `/metrics`: an address that only you reach, such as
    /// `127.0.0.1:9463` [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", env = "DOCKFRAME_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("say `on` or `off`".to_owned()),
    }
}

pub(crate) async fn relay(args: RelayArgs) -> anyhow::Result<ExitCode> {
    let signals = stop::on_signal()?;
    let config = Config {
        public_url: args.public_url,
        shared_results: args.shared_results,
        webhook_secret: args.webhook_secret,
        allow_private_callbacks: args.allow_private_callbacks,
        metrics_listen: args.metrics_listen,
        ..Config::new(args.store, args.blobs)
    };
    let listener = listen(args.listen).await?;
    let address = listener.local_addr()?;
    let relay = Relay::open(config, page::page()).await?;
    tracing::info!("relay and page at http://{address}/");
    tokio::select! {
        served = relay.serve(listener, signals.stop) => served?,
        // What was acknowledged is on disk: ending at once loses nothing.
        () = signals.now.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Binds, and says what to do when the port is taken.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} of {} is in use: stop the program that has it, or choose another with --listen {}:PORT",
            address.port(),
            address.ip(),
            address.ip()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot listen at {address}")),
    })
}

/// Checks that the folder is there, or makes it.
pub(crate) fn make_folder(path: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the folder {}: choose another with --data-dir", path.display()))
}
