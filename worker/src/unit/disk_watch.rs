//! Looking after what a running job writes (`worker` 22.1, B8), where the file system sets no bound itself.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::executor::Executor;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The Engine counts a container's own files by looking at each of them: seldom.
const ASK_EVERY: u32 = 15;
/// How long a walk over the files may take. One that is cut may take longer the next time, up to a bound.
const WALK_LIMIT: Duration = Duration::from_millis(50);
const MAX_WALK_LIMIT: Duration = Duration::from_secs(2);

/// Returns when the run's directory and what else its container has written are more than `limit` bytes.
pub(super) async fn exceeded<E: Executor>(executor: &E, name: &str, directory: &Path, limit: u64) -> u64 {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is at once, when there is nothing yet.
    looks.tick().await;
    let (mut elsewhere, mut number, mut walk_limit) = (0, 0_u32, WALK_LIMIT);
    loop {
        looks.tick().await;
        number = number.wrapping_add(1);
        if number.is_multiple_of(ASK_EVERY) {
            elsewhere = executor.own_bytes(name).await.unwrap_or(elsewhere);
        }
        let path = directory.to_owned();
        let until = Instant::now() + walk_limit;
        let walked = tokio::task::spawn_blocking(move || {
            let mut walk = Walk { until, bytes: 0, is_cut: false };
            walk.add(&path);
            walk
        });
        let Ok(walk) = walked.await else { continue };
        if walk.is_cut {
            walk_limit = (walk_limit * 2).min(MAX_WALK_LIMIT);
        }
        let used = walk.bytes.saturating_add(elsewhere);
        if used > limit {
            return used;
        }
    }
}

struct Walk {
    until: Instant,
    bytes: u64,
    is_cut: bool,
}

impl Walk {
    /// Files that go or cannot be read count nothing.
    fn add(&mut self, directory: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if Instant::now() >= self.until {
                self.is_cut = true;
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            self.bytes = self.bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if metadata.is_dir() {
                self.add(&entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_is_counted_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/big"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", directory.path().join("root")).unwrap();
        let mut walk = Walk { until: Instant::now() + Duration::from_secs(60), bytes: 0, is_cut: false };
        walk.add(directory.path());
        assert!((1 << 20..2 << 20).contains(&walk.bytes), "{}", walk.bytes);
        assert!(!walk.is_cut);
        let mut walk = Walk { until: Instant::now(), bytes: 0, is_cut: false };
        walk.add(directory.path());
        assert!(walk.is_cut);
    }
}
