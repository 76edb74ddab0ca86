//! Metrics and health over HTTP, for the owner's monitoring alone: off unless an address is given.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::{CONNECTED, DRAINING, Metrics};
use crate::executor::Executor;
use crate::unit::Shared;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Binds before the worker starts, so that a taken port is told at once.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("--metrics-listen: {address}: {error}"))
}

/// Serves until it is dropped.
pub(crate) async fn serve<E: Executor>(listener: TcpListener, shared: Arc<Shared<E>>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics::<E>))
        .route("/healthz", get(|| async { "OK\n" }))
        .route("/readyz", get(ready::<E>))
        .with_state(shared);
    axum::serve(listener, router).await
}

async fn metrics<E: Executor>(State(shared): State<Arc<Shared<E>>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT)], shared.sources.metrics.render())
}

/// Whether jobs can come and run.
async fn ready<E: Executor>(State(shared): State<Arc<Shared<E>>>) -> (StatusCode, &'static str) {
    let metrics: &Metrics = &shared.sources.metrics;
    if metrics.number(&DRAINING) > 0.0 {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if metrics.number(&CONNECTED) < 1.0 {
        (StatusCode::SERVICE_UNAVAILABLE, "no relay is connected\n")
    } else if !shared.executor.is_well().await {
        (StatusCode::SERVICE_UNAVAILABLE, "the Docker Engine does not answer\n")
    } else {
        (StatusCode::OK, "OK\n")
    }
}
