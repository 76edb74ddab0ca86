//! The relay: queues of jobs between those who want them run and those who run them.
//!
//! `queue` decides (pure) and does (its service); `store` keeps queues, `blobs` keeps bytes; `http` and `ws` speak to
//! the outside, `background` does what is due by time. Dependencies point from the edges to `queue`.

mod background;
mod blobs;
mod callbacks;
mod clock;
mod config;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod limits;
mod metrics;
mod origins;
pub mod page;
mod queue;
mod store;
mod ws;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::blobs::{Blobs, Documents, LogStore, Logs};
use crate::callbacks::Callbacks;
pub use crate::callbacks::{BadSecret, WebhookSecret};
pub use crate::config::{BadAddress, BlobAddress, Config, StoreAddress};
use crate::limits::{MAX_LONG_BODIES, MAX_UPLOADS};
pub use crate::origins::Origins;
use crate::page::Page;
use crate::queue::service::{Service, Settings};
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
pub use crate::store::embedded::OpenStoreError;
pub use crate::store::redis::OpenRedisError;
use crate::store::redis::RedisStore;

/// How the relay names itself to its peers.
const NAME: &str = concat!("dockframe/", env!("CARGO_PKG_VERSION"));

/// Why a relay cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("callbacks cannot be set up: {0}")]
    Callbacks(String),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error(transparent)]
    Redis(#[from] OpenRedisError),
    #[error("this relay cannot keep files in S3 yet: use --blobs file:FOLDER")]
    NoS3,
    #[error("cannot listen for metrics at {address}: {cause}: choose another with --metrics-listen")]
    Metrics { address: SocketAddr, cause: std::io::Error },
    #[error("cannot use the folder for files, {path}: {cause}")]
    Files { path: String, cause: std::io::Error },
}

/// Why a relay ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot go on listening")]
    Listen(#[source] std::io::Error),
}

/// A relay that is ready to serve.
#[derive(Debug)]
pub struct Relay {
    app: Arc<http::App>,
    /// Where metrics are asked for.
    metrics: Option<TcpListener>,
}

impl Relay {
    /// Opens what the relay keeps.
    ///
    /// # Errors
    /// A store or folder that cannot be used, is used by another relay, or is of a newer program.
    pub async fn open(config: Config, page: Page) -> Result<Self, OpenError> {
        let files = match &config.blobs {
            BlobAddress::Directory(files) => files.clone(),
            BlobAddress::S3(_) => return Err(OpenError::NoS3),
        };
        let limit = config.max_blob_bytes;
        install_crypto();
        let (secret, allow_private) = (config.webhook_secret, config.allow_private_callbacks);
        let (store, redis_logs): (Arc<dyn Store>, Option<Box<dyn Logs>>) = match config.store {
            StoreAddress::Embedded(folder) => {
                let store = blocking(move || EmbeddedStore::open(&folder)).await?;
                (Arc::new(store), None)
            }
            // What all relays of a server must read lies on the server.
            StoreAddress::Redis(address) => {
                let store = RedisStore::open(&address).await?;
                let logs = store.logs();
                (Arc::new(store), Some(Box::new(logs)))
            }
        };
        let clock = store.clock();
        let opened = blocking(move || {
            let of_files = |cause| OpenError::Files { path: files.display().to_string(), cause };
            let blobs = Blobs::open(&files, limit, clock).map_err(of_files)?;
            let documents = Documents::open(&files).map_err(of_files)?;
            let logs = match redis_logs {
                Some(logs) => logs,
                None => Box::new(LogStore::open(&files).map_err(of_files)?),
            };
            let callbacks = Callbacks::open(&files, secret, allow_private)
                .map_err(|error| OpenError::Callbacks(error::chain(&error)))?;
            Ok::<_, OpenError>((blobs, documents, logs, callbacks))
        });
        let (blobs, documents, logs, callbacks) = opened.await?;
        let settings = Settings { shared_results: config.shared_results, callbacks: Arc::new(callbacks) };
        let service = Service::new(store, blobs, documents, logs, settings);
        let metrics = match config.metrics_listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|cause| OpenError::Metrics { address, cause })?)
            }
            None => None,
        };
        let app = http::App {
            service: Arc::new(service),
            page,
            public_url: config.public_url,
            origins: config.origins,
            local_queue: config.local_queue,
            long_bodies: Semaphore::new(MAX_LONG_BODIES),
            uploads: Semaphore::new(MAX_UPLOADS),
        };
        Ok(Self { app: Arc::new(app), metrics })
    }

    /// Serves until `stop`: then sockets are closed with 1012, so that their peers resume elsewhere, requests under
    /// way are finished, and the store is let go.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), ServeError> {
        let service = Arc::clone(&self.app.service);
        let own = match &self.app.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default(),
        };
        service.own_origin.get_or_init(|| own);
        service.tasks().spawn(background::sweep(Arc::clone(&service)));
        service.tasks().spawn(background::collect(Arc::clone(&service)));
        if let Some(listener) = self.metrics {
            let service = Arc::clone(&service);
            service.tasks().clone().spawn(async move {
                metrics::serve(&service, listener, service.stopping().clone()).await;
            });
        }
        service.tasks().spawn(Arc::clone(&service).hear());
        service.tasks().spawn(Arc::clone(&service).look_for_missed_news());
        let stopping = service.stopping().clone();
        // A frame or an answer leaves at once: else the second of two waits for the peer's word that the first has come,
        // which peers hold back for 40 ms.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection cannot be told to send at once");
            }
        });
        let served = axum::serve(listener, http::router::router(self.app))
            .with_graceful_shutdown(async move {
                stop.cancelled().await;
                stopping.cancel();
            })
            .await;
        service.stopping().cancel();
        service.tasks().close();
        service.tasks().wait().await;
        served.map_err(ServeError::Listen)
    }
}

/// The TLS code that callbacks use; another part of the process may have chosen one before.
fn install_crypto() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Work on files, where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
