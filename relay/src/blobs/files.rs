//! Uploaded files in a local directory.
//!
//! A file is written under a temporary name while its digest is taken, synced, and renamed into place: it is there
//! whole or not at all. A key of 64 hex digits is a promise about the content and is checked; any other key of
//! one segment is taken as it is.
//!
//! A file's time of change is when it was last wanted: uploaded, asked for, or named by a submission. Four weeks
//! later it may go, unless a job still needs it; so there is all that time between an upload and its submission.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dockframe_shared::Timestamp;
use dockframe_shared::ids::hex;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use super::shards::{LATELY, clear_incoming, remove_untouched, system_time, touch, untouched};
use crate::clock::Clock;

/// Name of an uploaded file: one segment, no control characters, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct BlobKey(String);

impl BlobKey {
    pub(crate) const MAX_BYTES: usize = 255;

    pub(crate) fn new(text: &str) -> Option<Self> {
        let fine = !text.is_empty()
            && text.len() <= Self::MAX_BYTES
            && !matches!(text, "." | "..")
            && !text.chars().any(|c| matches!(c, '/' | '\\') || c.is_control());
        fine.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key is the digest of the content.
    pub(crate) fn is_digest(&self) -> bool {
        dockframe_shared::ContentHash::parse(&self.0).is_ok()
    }

    /// The file's name on disk: the key's digest, so that no file system's rules on names or letters' case matter.
    pub(crate) fn file_name(&self) -> String {
        if self.is_digest() {
            self.0.clone()
        } else {
            format!("k-{}", hex(&Sha256::digest(self.0.as_bytes())))
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("the file is longer than {limit} bytes, the limit of this relay")]
    TooLarge { limit: u64 },
    #[error("the content's SHA-256 is {actual}, not the one in its address: it was damaged on its way")]
    WrongDigest { actual: String },
    #[error("the upload broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the file cannot be written")]
    Disk(#[source] std::io::Error),
}

/// A stored file, to be served.
#[derive(Debug)]
pub(crate) struct BlobFile {
    pub path: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    incoming: PathBuf,
    limit: u64,
    clock: Clock,
}

/// An upload is summed and written in pieces of this size about, while the next one comes.
const PIECE_BYTES: usize = 512 << 10;
/// An upload that has not grown for so long is over.
const BROKEN_OFF_MS: i64 = 3_600_000;

impl Blobs {
    pub(crate) fn open(root: &Path, limit: u64, clock: Clock) -> std::io::Result<Self> {
        let (folder, incoming) = (root.join("files"), root.join("incoming"));
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&incoming)?;
        // What a crash left half written is of no use to anybody; what another relay is writing is.
        clear_incoming(&incoming, system_time(clock.now().plus_millis(-BROKEN_OFF_MS)))?;
        Ok(Self { folder, incoming, limit, clock })
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        let name = key.file_name();
        // Two levels keep directories small.
        self.folder.join(shard_of(&name)).join(name)
    }

    /// Says that the file is wanted; whether it is there.
    pub(crate) async fn touch(&self, key: &BlobKey) -> std::io::Result<bool> {
        let (path, now) = (self.path(key), system_time(self.clock.now()));
        unblocked(move || touch(&path, now, LATELY)).await
    }

    /// Says that these files are wanted, as far as they are here.
    pub(crate) async fn touch_all(&self, keys: HashSet<BlobKey>) -> std::io::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let paths: Vec<PathBuf> = keys.iter().map(|key| self.path(key)).collect();
        let now = system_time(self.clock.now());
        unblocked(move || paths.iter().try_for_each(|path| touch(path, now, LATELY).map(|_| ()))).await
    }

    /// The files in one part of the folder that nobody wanted since: their names on disk.
    pub(crate) async fn unwanted(&self, shard: &str, since: Timestamp) -> std::io::Result<Vec<String>> {
        let (folder, shard) = (self.folder.clone(), shard.to_owned());
        unblocked(move || untouched(&folder, &shard, system_time(since))).await
    }

    pub(crate) async fn remove_unwanted(&self, name: &str, since: Timestamp) -> std::io::Result<bool> {
        let (path, incoming) = (self.folder.join(shard_of(name)).join(name), self.incoming.clone());
        unblocked(move || remove_untouched(&path, &incoming, system_time(since))).await
    }

    /// Uploads that broke off with their relay go.
    pub(crate) async fn clear_incoming(&self) -> std::io::Result<()> {
        let incoming = self.incoming.clone();
        let before = system_time(self.clock.now().plus_millis(-BROKEN_OFF_MS));
        unblocked(move || clear_incoming(&incoming, before)).await
    }

    /// How many bytes there are in how many files. Reads all folders.
    pub(crate) async fn size(&self) -> std::io::Result<(u64, u64)> {
        let folder = self.folder.clone();
        unblocked(move || {
            let (mut files, mut bytes) = (0, 0);
            for shard in super::shards() {
                let Ok(entries) = std::fs::read_dir(folder.join(shard)) else { continue };
                for metadata in entries.flatten().filter_map(|entry| entry.metadata().ok()) {
                    files += 1;
                    bytes += metadata.len();
                }
            }
            Ok((files, bytes))
        })
        .await
    }

    pub(crate) async fn exists(&self, key: &BlobKey) -> std::io::Result<bool> {
        self.touch(key).await
    }

    pub(crate) async fn get(&self, key: &BlobKey) -> std::io::Result<Option<BlobFile>> {
        Ok(self.touch(key).await?.then(|| BlobFile { path: self.path(key) }))
    }

    /// Takes a stream in; its length. `declared`: the length that the sender said, if it did.
    pub(crate) async fn put<S, E>(
        &self,
        key: &BlobKey,
        declared: Option<u64>,
        mut content: S,
    ) -> Result<u64, PutError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limit = self.limit;
        if declared.is_some_and(|length| length > limit) {
            return Err(PutError::TooLarge { limit });
        }
        let temporary = Temporary::new(self.incoming.join(uuid::Uuid::new_v4().simple().to_string()));
        let path = temporary.path.clone();
        let digest = key.is_digest().then(Sha256::new);
        let mut writing = tokio::task::spawn_blocking(move || Ok((File::create(path)?, digest)));
        let mut length: u64 = 0;
        let mut is_last = false;
        while !is_last {
            // Gathered while the last piece is summed and written.
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while bytes < PIECE_BYTES {
                let Some(chunk) = content.next().await else {
                    is_last = true;
                    break;
                };
                let chunk = chunk.map_err(|error| PutError::Broken(error.into()))?;
                bytes += chunk.len();
                length += chunk.len() as u64;
                if length > limit {
                    return Err(PutError::TooLarge { limit });
                }
                piece.push(chunk);
            }
            let (mut file, mut digest) = ended(writing).await.map_err(PutError::Disk)?;
            writing = tokio::task::spawn_blocking(move || {
                for chunk in piece {
                    digest.iter_mut().for_each(|digest| digest.update(&chunk));
                    file.write_all(&chunk)?;
                }
                Ok((file, digest))
            });
        }
        if declared.is_some_and(|declared| declared != length) {
            return Err(PutError::Broken("fewer bytes came than were announced".into()));
        }
        let (file, digest) = ended(writing).await.map_err(PutError::Disk)?;
        if let Some(digest) = digest {
            let actual = hex(&digest.finalize());
            if actual != key.as_str() {
                return Err(PutError::WrongDigest { actual });
            }
        }
        let wanted = system_time(self.clock.now());
        let synced = unblocked(move || {
            file.sync_all()?;
            file.set_modified(wanted)
        });
        synced.await.map_err(PutError::Disk)?;
        publish(temporary, &self.path(key)).await.map_err(PutError::Disk)?;
        Ok(length)
    }
}

fn shard_of(name: &str) -> &str {
    name.trim_start_matches("k-").get(..2).unwrap_or("__")
}

/// Work on files, where it may block.
pub(super) async fn unblocked<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    ended(tokio::task::spawn_blocking(work)).await
}

/// The outcome of such work that was begun before.
async fn ended<T>(work: JoinHandle<std::io::Result<T>>) -> std::io::Result<T> {
    work.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// A file that goes unless it is published.
struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn new(path: PathBuf) -> Self {
        Self { path, published: false }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // A later sweep empties the folder if this fails.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

async fn publish(mut temporary: Temporary, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).await?;
        fs::rename(&temporary.path, to).await?;
        temporary.published = true;
        // The name is durable once its folder is.
        fs::File::open(folder).await?.sync_all().await?;
    }
    Ok(())
}

/// Writes a whole small file the same careful way.
pub(super) async fn write_whole(incoming: &Path, to: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = Temporary::new(incoming.join(uuid::Uuid::new_v4().simple().to_string()));
    let mut file = fs::File::create(&temporary.path).await?;
    file.write_all(content).await?;
    file.flush().await?;
    file.sync_all().await?;
    drop(file);
    publish(temporary, to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 10;

    async fn put(blobs: &Blobs, key: &str, content: &'static [u8]) -> Result<u64, PutError> {
        let chunks = content.chunks(3).map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk)));
        let chunks: Vec<_> = chunks.collect();
        blobs.put(&BlobKey::new(key).unwrap(), None, futures_util::stream::iter(chunks)).await
    }

    fn files_under(folder: &Path) -> usize {
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn a_key_that_is_a_digest_is_a_promise() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), LIMIT, Clock::start()).unwrap();
        let key = dockframe_shared::ContentHash::of(b"hello").to_string();
        put(&blobs, &key, b"hello").await.unwrap();
        let error = put(&blobs, &key, b"hellO").await.unwrap_err();
        assert!(matches!(error, PutError::WrongDigest { .. }));
        let kept = blobs.get(&BlobKey::new(&key).unwrap()).await.unwrap().unwrap();
        assert_eq!(std::fs::read(kept.path).unwrap(), b"hello");
        assert_eq!(files_under(&folder.path().join("incoming")), 0);
    }

    #[tokio::test]
    async fn the_limit_holds_at_its_edge_and_one_past_it() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), LIMIT, Clock::start()).unwrap();
        put(&blobs, "ten", b"0123456789").await.unwrap();
        let error = put(&blobs, "eleven", b"0123456789x").await.unwrap_err();
        assert!(matches!(error, PutError::TooLarge { limit: 10 }));
        assert!(!blobs.exists(&BlobKey::new("eleven").unwrap()).await.unwrap());
    }

    #[test]
    fn keys_are_single_segments() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0b", &"x".repeat(256)] {
            assert_eq!(BlobKey::new(bad), None, "{bad:?}");
        }
        for good in ["a", "9f.tar.gz", "1795-abc-my file.txt", "ä", &"x".repeat(255)] {
            assert!(BlobKey::new(good).is_some(), "{good:?}");
        }
    }
}
