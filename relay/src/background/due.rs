//! The due sweep: once a second, all that is due goes to the core.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, MissedTickBehavior};

use crate::error::chain;
use crate::queue::command::DueKind;
use crate::queue::service::{Error, Service};
use crate::store::DueEntry;

const EVERY: Duration = Duration::from_secs(1);
/// A sweep that comes later than this counts as a gap: nobody is judged by what was not heard meanwhile.
const GAP: Duration = Duration::from_secs(5);
/// Entries of one sweep, and how many are dealt with at once.
const BATCH: usize = 1000;
const AT_ONCE: usize = 64;
/// Unused queues are let go so often.
const TIDY: Duration = Duration::from_secs(60);

/// Runs until the relay stops.
pub(crate) async fn sweep(service: Arc<Service>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    let mut tidied = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = service.stopping().cancelled() => return,
        }
        if last.elapsed() > GAP {
            service.was_unhealthy();
        }
        match sweep_once(&service).await {
            Ok(()) => last = Instant::now(),
            Err(error) => {
                tracing::error!(error = chain(&error), "the sweep could not reach the store");
                service.was_unhealthy();
            }
        }
        if tidied.elapsed() > TIDY {
            tidied = Instant::now();
            service.close_idle();
        }
    }
}

pub(crate) async fn sweep_once(service: &Arc<Service>) -> Result<(), Error> {
    loop {
        let entries = service.store.due(service.now(), BATCH).await?;
        let full = entries.len() == BATCH;
        let outcomes: Vec<Result<(), Error>> =
            stream::iter(entries).map(|entry| step(service, entry)).buffer_unordered(AT_ONCE).collect().await;
        for outcome in outcomes {
            outcome?;
        }
        if !full {
            return Ok(());
        }
    }
}

async fn step(service: &Arc<Service>, entry: DueEntry) -> Result<(), Error> {
    let DueEntry { queue, due } = entry;
    let queue = service.open_digest(queue).await?;
    match due.what {
        DueKind::Look => service.look(&queue, due).await,
        DueKind::Share => service.share_again(&queue, due).await,
        DueKind::Callbacks => service.call_due(&queue, due).await,
    }
}
