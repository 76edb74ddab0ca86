//! Results that are too long for the store: one file for each run, named by its lease, which nobody but its worker
//! knows and which no public address reaches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dockframe_shared::ids::hex;
use dockframe_shared::{LeaseId, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::fs;

use super::files::{unblocked, write_whole};
use super::shards::{remove_untouched, system_time, touch, untouched};

#[derive(Debug)]
pub(crate) struct Documents {
    folder: PathBuf,
    incoming: PathBuf,
}

/// A lease's id as the name of a file or folder: its digest, whatever characters are in it.
pub(crate) fn run_name(run: &LeaseId) -> String {
    hex(&Sha256::digest(run.as_str().as_bytes()))
}

impl Documents {
    pub(crate) fn open(root: &Path) -> std::io::Result<Self> {
        let folder = root.join("results");
        let incoming = root.join("incoming");
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&incoming)?;
        Ok(Self { folder, incoming })
    }

    fn path(&self, run: &LeaseId) -> PathBuf {
        let name = run_name(run);
        self.folder.join(&name[..2]).join(name)
    }

    /// The first document of a run stays: a result that was recorded never changes.
    pub(crate) async fn put(&self, run: &LeaseId, content: &[u8]) -> std::io::Result<()> {
        if fs::try_exists(self.path(run)).await? {
            return Ok(());
        }
        write_whole(&self.incoming, &self.path(run), content).await
    }

    pub(crate) async fn get(&self, run: &LeaseId) -> std::io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(run)).await {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Another job will need this document; whether it is there.
    pub(crate) fn name(&self, run: &LeaseId, now: Timestamp) -> std::io::Result<bool> {
        touch(&self.path(run), system_time(now), Duration::ZERO)
    }

    /// The documents in one part of the folder that were not named since: by [`run_name`].
    pub(crate) async fn unnamed(&self, shard: &str, since: Timestamp) -> std::io::Result<Vec<String>> {
        let (folder, shard) = (self.folder.clone(), shard.to_owned());
        unblocked(move || untouched(&folder, &shard, system_time(since))).await
    }

    pub(crate) async fn remove_unnamed(
        &self,
        shard: &str,
        name: &str,
        since: Timestamp,
    ) -> std::io::Result<bool> {
        let (path, incoming) = (self.folder.join(shard).join(name), self.incoming.clone());
        unblocked(move || remove_untouched(&path, &incoming, system_time(since))).await
    }

    pub(crate) async fn remove(&self, run: &LeaseId) -> std::io::Result<()> {
        match fs::remove_file(self.path(run)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
