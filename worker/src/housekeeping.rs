//! Keeping the worker's disk in order while it runs (`worker` 22.2, B9): kept inputs within their bound, images that
//! make room when the disk fills. Jobs' own directories go with their runs; what is nobody's is [`crate::reaper`]'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::disk::Disk;
use crate::executor::Executor;
use crate::metrics;
use crate::unit::Shared;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While no job is taken because the disk is low.
const LOW_EVERY: Duration = Duration::from_secs(10);

/// Until it is dropped. Nothing here is left half done by that.
pub(crate) async fn run<E: Executor>(shared: Arc<Shared<E>>, disk: Disk) {
    let mut looks = interval(LOW_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rest = Duration::ZERO;
    let mut was_low = false;
    loop {
        looks.tick().await;
        let metrics = &shared.sources.metrics;
        #[expect(clippy::cast_precision_loss, reason = "for monitoring: it needs no exact bytes")]
        if let Some(space) = disk.space() {
            metrics.set(&metrics::DISK_FREE, "data", space.free as f64);
        }
        let low = disk.refusal();
        if let Some(why) = low.as_ref().filter(|_| !was_low) {
            warn!("{why}: no jobs are taken until there is room");
        }
        was_low = low.is_some();
        if !was_low && !rest.is_zero() {
            rest = rest.saturating_sub(LOW_EVERY);
            continue;
        }
        rest = LOOK_EVERY.saturating_sub(LOW_EVERY);
        let tidied = shared.executor.tidy().await;
        metrics.add(&metrics::IMAGES_REMOVED, "", tidied.images as u64);
        let cache = shared.sources.cache.clone();
        match tokio::task::spawn_blocking(move || cache.evict()).await {
            #[expect(clippy::cast_precision_loss, reason = "for monitoring: it needs no exact bytes")]
            Ok(Ok(bytes)) => metrics.set(&metrics::INPUT_CACHE, "", bytes as f64),
            Ok(Err(error)) => warn!("kept inputs cannot be listed: {error}"),
            Err(error) => warn!("kept inputs cannot be listed: {error}"),
        }
    }
}
