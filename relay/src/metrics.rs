//! What the relay counts for its operator, as OpenMetrics text at an address of its own (`--metrics-listen`).
//!
//! Labels are types: no queue name, digest, job id, worker id or address can become one. What can be told from what
//! is there anyway (open queues, their jobs, syncs of the store) is looked up when it is asked for.

use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, EncodeMetric as _, text::encode};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::queue::service::Service;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Committed {
    Ok,
    Conflict,
    Failed,
}

/// How a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Peer {
    Client,
    OldClient,
    Worker,
    OldWorker,
    Stream,
}

/// What became of a run that a worker reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Finish {
    Recorded,
    /// It was not the current lease, or could not be read.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Callback {
    Delivered,
    /// It is tried again.
    Failed,
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Collected {
    Document,
    Result,
    Log,
    File,
    Worker,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Refused {
    /// A frame that cannot be read, or is not for this kind of socket.
    Frame,
    /// A change that its sender may not make, or that is not right.
    Change,
    Sockets,
    Jobs,
    Submissions,
    Bodies,
    Uploads,
}

/// One label, of a kind whose values are these.
type By<T> = [(&'static str, T); 1];

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    commits: Family<By<Committed>, Counter>,
    pub submissions: Counter,
    pub grants: Counter,
    pub leases_expired: Counter,
    finishes: Family<By<Finish>, Counter>,
    sockets: Family<By<Peer>, Gauge>,
    callbacks: Family<By<Callback>, Counter>,
    collected: Family<By<Collected>, Counter>,
    pub collections: Counter,
    refused: Family<By<Refused>, Counter>,
    http: Family<By<u16>, Counter>,
    pub uploaded_bytes: Counter,
    pub files: Gauge,
    pub file_bytes: Gauge,
}

/// One socket is counted as long as this is held.
#[derive(Debug)]
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn committed(&self, outcome: Committed) {
        self.commits.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn finished(&self, outcome: Finish) {
        self.finishes.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn connected(&self, kind: Peer) -> Connected {
        let gauge = self.sockets.get_or_create(&[("kind", kind)]).clone();
        gauge.inc();
        Connected(gauge)
    }

    pub(crate) fn called(&self, outcome: Callback) {
        self.callbacks.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn collected(&self, kind: Collected, count: u64) {
        self.collected.get_or_create(&[("kind", kind)]).inc_by(count);
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&[("why", why)]).inc();
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        self.http.get_or_create(&[("class", status.as_u16() / 100)]).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("commits", "Commits that this relay asked of its store", self.commits.clone());
        registry.register("submissions", "Submissions that were accepted", self.submissions.clone());
        registry.register("grants", "Leases granted to workers", self.grants.clone());
        registry.register(
            "leases_expired",
            "Leases and claims whose worker was lost",
            self.leases_expired.clone(),
        );
        registry.register("finishes", "Ends of runs that workers reported", self.finishes.clone());
        registry.register("sockets", "Sockets and event streams that are open", self.sockets.clone());
        registry.register("callbacks", "Attempts of callbacks", self.callbacks.clone());
        registry.register("collections", "Garbage collections made", self.collections.clone());
        registry.register("collected", "Things that no job needed any more", self.collected.clone());
        registry.register("refused", "What was not done, and why", self.refused.clone());
        registry.register("http_responses", "HTTP answers by their first digit", self.http.clone());
        registry.register("uploaded_bytes", "Bytes of files that were uploaded", self.uploaded_bytes.clone());
        registry.register("files", "Uploaded files, as counted last", self.files.clone());
        registry.register("file_bytes", "Their bytes", self.file_bytes.clone());
    }
}

/// What is looked up when it is asked for.
#[derive(Debug)]
struct Looked(Weak<Service>);

impl Collector for Looked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(service) = self.0.upgrade() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: usize| {
            let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)
        };
        let totals = service.totals();
        gauge("queues", "Queues that are open here", totals.queues)?;
        gauge("jobs_queued", "Waiting jobs of these queues", totals.queued)?;
        gauge("jobs_running", "Running jobs of these queues", totals.running)?;
        let syncs = ConstCounter::new(service.store.syncs());
        let metric = encoder.encode_descriptor(
            "store_syncs",
            "Syncs of the embedded store to its disk",
            None,
            syncs.metric_type(),
        )?;
        syncs.encode(metric)
    }
}

/// Serves the metrics until `stop`.
pub(crate) async fn serve(service: &Arc<Service>, listener: TcpListener, stop: CancellationToken) {
    let mut registry = Registry::with_prefix("dockframe_relay");
    registry.register("build", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    service.metrics.register(&mut registry);
    registry.register_collector(Box::new(Looked(Arc::downgrade(service))));
    let routes = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(registry));
    if let Ok(address) = listener.local_addr() {
        tracing::info!("metrics at http://{address}/metrics");
    }
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
