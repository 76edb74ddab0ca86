//! Garbage collection, once a day.

use std::sync::Arc;
use std::time::Duration;

use crate::error::chain;
use crate::metrics;
use crate::queue::service::{Collected, SETTLED, Service};

/// The first one comes soon after the start, so that a relay that is started anew each day collects too, but not
/// while everybody is coming back.
const FIRST: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Where several relays share a store, one of them collects; another may, this much before a day is over.
const TURN: Duration = Duration::from_secs(23 * 3600);

/// Runs until the relay stops.
pub(crate) async fn collect(service: Arc<Service>) {
    count_files(&service).await;
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = service.stopping().cancelled() => return,
        }
        let collected = async {
            let turn = i64::try_from(TURN.as_millis()).unwrap_or(i64::MAX);
            if !service.store.collect().take_turn(turn).await? {
                return Ok(None);
            }
            service.collect(SETTLED).await.map(Some)
        };
        // It may be left anywhere: what is not taken away now is taken away tomorrow.
        let collected = tokio::select! {
            collected = collected => collected,
            () = service.stopping().cancelled() => return,
        };
        match collected {
            Ok(None) => {}
            Ok(Some(collected)) => {
                tell(&service, collected);
                count_files(&service).await;
            }
            Err(error) => tracing::error!(error = chain(&error), "what no job needs could not be looked for"),
        }
    }
}

async fn count_files(service: &Service) {
    match service.blobs.size().await {
        Ok((files, bytes)) => {
            service.metrics.files.set(i64::try_from(files).unwrap_or(i64::MAX));
            service.metrics.file_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        Err(error) => tracing::error!(%error, "the uploaded files could not be counted"),
    }
}

fn tell(service: &Service, collected: Collected) {
    service.metrics.collections.inc();
    for (kind, count) in [
        (metrics::Collected::Document, collected.documents),
        (metrics::Collected::Result, collected.results),
        (metrics::Collected::Log, collected.logs),
        (metrics::Collected::File, collected.files),
        (metrics::Collected::Worker, collected.workers),
    ] {
        service.metrics.collected(kind, count);
    }
    tracing::info!(
        documents = collected.documents,
        results = collected.results,
        logs = collected.logs,
        files = collected.files,
        workers = collected.workers,
        "what no job needs any more is gone"
    );
}
