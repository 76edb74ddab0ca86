//! Garbage collection, once a day.

use std::sync::Arc;
use std::time::Duration;

use crate::error::chain;
use crate::queue::service::{SETTLED, Service};

/// The first one comes soon after the start, so that a relay that is started anew each day collects too, but not
/// while everybody is coming back.
const FIRST: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Where several relays share a store, one of them collects; another may, this much before a day is over.
const TURN: Duration = Duration::from_secs(23 * 3600);

/// Runs until the relay stops.
pub(crate) async fn collect(service: Arc<Service>) {
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
            Ok(Some(collected)) => tracing::info!(
                documents = collected.documents,
                results = collected.results,
                logs = collected.logs,
                files = collected.files,
                workers = collected.workers,
                "what no job needs any more is gone"
            ),
            Err(error) => tracing::error!(error = chain(&error), "what no job needs could not be looked for"),
        }
    }
}
