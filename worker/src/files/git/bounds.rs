//! The end of whatever git does: its processes, their memory, the room that they take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::time::sleep;

use crate::files::context::MAX_UNPACKED_BYTES;

/// Address space of each process. Packs that unfold are written by strangers too.
const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// How often the room that is taken is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// The processes of one call: all of them end when nobody waits any more.
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(leader: Option<Pid>) -> Self {
        Self(leader)
    }

    pub(super) fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // All may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Limits a process, and those that it starts. It has hardly begun; where it is over already, nothing is left to limit.
pub(super) fn bound(process: Option<Pid>) {
    let limits =
        [(Resource::As, MAX_MEMORY_BYTES), (Resource::Fsize, MAX_UNPACKED_BYTES), (Resource::Core, 0)];
    for (resource, most) in limits {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        if process.is_some() {
            let _ = prlimit(process, resource, limit);
        }
    }
}

/// Returns when the directory has more in it than a context may have.
pub(super) async fn outgrown(directory: &Path) {
    loop {
        sleep(WATCH_EVERY).await;
        let directory = directory.to_owned();
        let size = tokio::task::spawn_blocking(move || size(directory)).await.unwrap_or_default();
        if size > MAX_UNPACKED_BYTES {
            return;
        }
    }
}

/// Of all files in a directory. Those that come and go meanwhile do not matter.
fn size(directory: PathBuf) -> u64 {
    let (mut size, mut left) = (0, vec![directory]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => size += metadata.len(),
                Err(_) => {}
            }
        }
    }
    size
}
