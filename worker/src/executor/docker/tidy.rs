//! Making room on the Engine's disk (`worker` 22.2, B9): images that this worker brought here and has not used for
//! longest, and BuildKit's cache. Never an image that a container uses, that was used a moment ago, or that is the
//! owner's.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, PruneBuildOptionsBuilder, RemoveImageOptionsBuilder,
};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::client::call;
use super::image::Images;
use crate::clock;
use crate::disk::Disk;
use crate::executor::Tidied;

/// A job may be about to use what was used so recently.
const RECENT_MS: i64 = 2 * 60_000;
/// What BuildKit may keep, in bytes.
const BUILD_CACHE_BYTES: i64 = 10 << 30;
const PRUNE_LIMIT: Duration = Duration::from_secs(120);

impl Images {
    pub(super) async fn tidy(&self, disk: &Disk) -> Tidied {
        if let Err(error) = self.ledger.save() {
            warn!("it cannot be written down which images were brought here: {error}");
        }
        let rules = *disk.rules();
        let used = || disk.space().map_or(0, |space| space.used_percent());
        if used() < rules.images_from_percent {
            return Tidied::default();
        }
        let mut tidied = Tidied { build_cache_bytes: self.prune_build_cache().await, ..Tidied::default() };
        // Without knowing what runs, nothing goes.
        let Some(busy) = self.in_use().await else { return tidied };
        for reference in candidates(self.ledger.oldest_first(), clock::now().as_millis(), &self.pinned) {
            if used() <= rules.images_to_percent {
                break;
            }
            let is_busy = match self.local(&reference, None).await {
                Ok(Some(image)) => image.id.is_none_or(|id| busy.contains(&id)) || busy.contains(&reference),
                Ok(None) => {
                    self.ledger.forget(&reference);
                    continue;
                }
                Err(_) => return tidied,
            };
            // Nobody may begin to use it while it goes.
            let lock = self.lock(&reference);
            let Ok(_held) = lock.try_lock() else { continue };
            if is_busy {
                continue;
            }
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            match call(self.engine.remove_image(&reference, Some(options), None)).await {
                Ok(_) => {
                    info!("removed an image to make room: {reference}");
                    self.doubt();
                    self.ledger.forget(&reference);
                    tidied.images += 1;
                }
                Err(error) => debug!("an image stays: {error}"),
            }
        }
        tidied
    }

    /// Ids and names of the images of all containers.
    async fn in_use(&self) -> Option<HashSet<String>> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let containers = call(self.engine.list_containers(Some(options))).await.ok()?;
        Some(
            containers
                .into_iter()
                .flat_map(|container| container.image_id.into_iter().chain(container.image))
                .collect(),
        )
    }

    async fn prune_build_cache(&self) -> u64 {
        let filters = HashMap::from([("unused-for", vec!["24h"])]);
        let options =
            PruneBuildOptionsBuilder::default().reserved_space(BUILD_CACHE_BYTES).filters(&filters).build();
        match timeout(PRUNE_LIMIT, self.engine.prune_build(Some(options))).await {
            Ok(Ok(answer)) => answer.space_reclaimed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            Ok(Err(error)) => {
                debug!("the build cache cannot be pruned: {error}");
                0
            }
            Err(_) => 0,
        }
    }
}

/// What may go, in this order.
fn candidates(
    oldest_first: Vec<(String, i64)>,
    now_ms: i64,
    pinned: &HashSet<String>,
) -> impl Iterator<Item = String> {
    let may_go = move |(name, at): &(String, i64)| now_ms - at >= RECENT_MS && !pinned.contains(name);
    oldest_first.into_iter().filter(may_go).map(|(reference, _)| reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_a_moment_ago_stays() {
        let entries = vec![("old".to_owned(), 0), ("edge".to_owned(), 1000), ("new".to_owned(), 1001)];
        let names: Vec<_> = candidates(entries, 1000 + RECENT_MS, &HashSet::new()).collect();
        assert_eq!(names, ["old", "edge"]);
    }

    #[test]
    fn what_the_owner_wants_ahead_stays() {
        let entries = vec![("a:1".to_owned(), 0), ("b:1".to_owned(), 0)];
        let pinned = HashSet::from(["a:1".to_owned()]);
        assert_eq!(candidates(entries, 1 << 40, &pinned).collect::<Vec<_>>(), ["b:1"]);
    }
}
