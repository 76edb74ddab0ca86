//! A job's outputs, after its end: which files there are, and bringing them to the relay (`worker` 14).
//!
//! The container that wrote them is gone, so nothing changes under our hands; but what it left may be links, pipes
//! and names of any kind. Only regular files inside the tree are outputs, read through a handle of its directory.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use dockframe_shared::ContentHash;
use dockframe_shared::javascript::base64;
use dockframe_shared::job::result::SkippedOutput;
use dockframe_shared::metaframe::data_ref::{DataRef, DataRefKind};
use futures_util::{StreamExt as _, stream};
use percent_encoding::percent_encode_byte;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tracing::debug;

use super::fetch::{Http, HttpError, backoff};
use crate::metrics::{self, Metrics};
use crate::result::Outputs;

/// Files up to this size travel in the result itself.
const INLINE_BYTES: u64 = 200;
const MAX_FILES: usize = 10_000;
const MAX_FILE_BYTES: u64 = 5 << 30;
pub(crate) const MAX_TOTAL_BYTES: u64 = 20 << 30;
const MAX_NAME_BYTES: usize = 1024;
const MAX_DEPTH: usize = 256;
/// Directory entries looked at, whatever they are.
pub(crate) const MAX_ENTRIES: usize = 200_000;
/// Skipped files that are named one by one.
const MAX_SKIPPED: usize = 20;
/// Uploads at a time.
const PARALLEL: usize = 4;
/// `O_NONBLOCK | O_NOFOLLOW`: a pipe that has taken a file's place must not make us wait.
const SAFE_FLAGS: i32 = 0o4000 | 0o400_000;

/// Outputs could not be brought away; those that were are listed all the same.
#[derive(Debug)]
pub(crate) struct OutputsError {
    pub(crate) error: String,
    pub(crate) outputs: Outputs,
}

/// Where uploaded files will be found, and how to bring them there.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    pub(crate) http: Http,
    /// Base address to write into results, where it differs from the one that is uploaded to.
    pub(crate) external_address: Option<String>,
    pub(crate) metrics: Metrics,
}

#[derive(Debug)]
struct Found {
    name: String,
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Listing {
    files: Vec<Found>,
    skipped: Vec<SkippedOutput>,
    n_skipped: usize,
    total_bytes: u64,
    n_entries: usize,
}

impl Uploader {
    /// Collects everything below `path`, for at most `limit`.
    pub(crate) async fn collect(&self, path: &Path, limit: Duration) -> Result<Outputs, OutputsError> {
        let nothing = |error: String| OutputsError { error, outputs: Outputs::default() };
        let directory = Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|error| nothing(format!("the outputs directory cannot be read: {error}")))?;
        let handle = directory.try_clone().map_err(|error| nothing(error.to_string()))?;
        let (listing, failure) = tokio::task::spawn_blocking(move || {
            let mut listing = Listing::default();
            let failure = listing.walk(&handle, Path::new(""), 0).err();
            (listing, failure)
        })
        .await
        .map_err(|error| nothing(error.to_string()))?;

        let mut skipped = listing.skipped;
        if listing.n_skipped > MAX_SKIPPED {
            let more = listing.n_skipped - MAX_SKIPPED;
            skipped.push(SkippedOutput {
                name: format!("{more} more"),
                why: "not listed one by one".to_owned(),
            });
        }
        let mut outputs = Outputs { files: BTreeMap::new(), skipped };
        let until = tokio::time::Instant::now() + limit;
        let mut error = failure;
        let results = stream::iter(listing.files)
            .map(|file| {
                let directory = directory.try_clone();
                async move {
                    let brought = async { self.bring(directory?, &file, until).await }.await;
                    (file.name, brought)
                }
            })
            .buffer_unordered(PARALLEL);
        tokio::pin!(results);
        while let Some((name, brought)) = results.next().await {
            match brought {
                Ok(reference) => drop(outputs.files.insert(name, reference)),
                Err(failure) => drop(error.get_or_insert_with(|| format!("output {name}: {failure}"))),
            }
        }
        match error {
            None => Ok(outputs),
            Some(error) => Err(OutputsError { error, outputs }),
        }
    }

    /// Brings bytes into the relay's store, and says where they are.
    pub(crate) async fn bring_bytes(&self, bytes: Vec<u8>, limit: Duration) -> Result<DataRef, HttpError> {
        let file = tokio::task::spawn_blocking(move || {
            use std::io::Write as _;
            let mut file = tempfile_in_memory()?;
            file.write_all(&bytes)?;
            Ok::<_, io::Error>((file, ContentHash::of(&bytes), bytes.len() as u64))
        });
        let (file, hash, size) = file.await.map_err(io::Error::other)??;
        self.upload(&file, hash, size, tokio::time::Instant::now() + limit).await
    }

    async fn bring(
        &self,
        directory: Dir,
        found: &Found,
        until: tokio::time::Instant,
    ) -> Result<DataRef, HttpError> {
        let path = found.path.clone();
        let bytes = found.bytes;
        let read = move || -> io::Result<Read> {
            let mut file = open(&directory, &path)?;
            if bytes <= INLINE_BYTES {
                let mut content = Vec::new();
                (&mut file).take(INLINE_BYTES + 1).read_to_end(&mut content)?;
                if content.len() as u64 <= INLINE_BYTES {
                    return Ok(Read::Inline(content));
                }
                use std::io::Seek as _;
                file.rewind()?;
            }
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; 256 << 10];
            let mut size = 0;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                size += count as u64;
                hasher.update(&buffer[..count]);
            }
            Ok(Read::Hashed { file, hash: ContentHash::from_bytes(hasher.finalize().into()), size })
        };
        match tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?? {
            Read::Inline(content) => {
                self.metrics.add(&metrics::OUTPUT_BYTES, "inline", content.len() as u64);
                let value = Value::String(base64::encode(&content));
                Ok(DataRef { value, kind: Some(DataRefKind::Base64), hash: None })
            }
            Read::Hashed { file, hash, size } => self.upload(&file, hash, size, until).await,
        }
    }

    /// Until the deadline, over restarts of the relay.
    async fn upload(
        &self,
        file: &std::fs::File,
        hash: ContentHash,
        size: u64,
        until: tokio::time::Instant,
    ) -> Result<DataRef, HttpError> {
        let key = hash.to_string();
        let mut attempt = 0;
        loop {
            let once = async {
                let is_there = self.http.exists(&key).await?;
                if !is_there {
                    self.http.upload(&key, file, size).await?;
                }
                Ok(is_there)
            };
            match once.await {
                Ok(was_there) => {
                    let label = if was_there { "deduplicated" } else { "uploaded" };
                    self.metrics.add(&metrics::OUTPUT_BYTES, label, size);
                    break;
                }
                Err(error @ HttpError::File(_)) => return Err(error),
                Err(error) if tokio::time::Instant::now() >= until => return Err(error),
                Err(HttpError::Status(status)) if status.is_client_error() && attempt >= 5 => {
                    return Err(HttpError::Status(status));
                }
                Err(error) => {
                    debug!("an upload failed and is tried again: {error}");
                    self.metrics.add(&metrics::UPLOAD_RETRIES, "", 1);
                    sleep(backoff(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
            }
        }
        let address = match &self.external_address {
            Some(base) => format!("{}/f/{key}", base.trim_end_matches('/')),
            None => self.http.key_address(&key),
        };
        Ok(DataRef { value: Value::String(address), kind: Some(DataRefKind::Url), hash: None })
    }
}

enum Read {
    Inline(Vec<u8>),
    Hashed { file: std::fs::File, hash: ContentHash, size: u64 },
}

/// A file without a name.
fn tempfile_in_memory() -> io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("dockframe-{}", uuid::Uuid::new_v4().simple()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Opens a regular file inside the tree; a link is followed only as far as it stays inside.
fn open(directory: &Dir, path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(SAFE_FLAGS & !0o400_000);
    let file = directory.open_with(resolve(directory, path)?, &options)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file.into_std())
}

/// A link to an absolute path below `/outputs` stays inside, as its container saw it.
fn resolve(directory: &Dir, path: &Path) -> io::Result<PathBuf> {
    if directory.symlink_metadata(path)?.is_symlink()
        && let Ok(target) = directory.read_link_contents(path)
        && let Ok(inside) = target.strip_prefix("/outputs")
    {
        return Ok(inside.to_owned());
    }
    Ok(path.to_owned())
}

impl Listing {
    fn walk(&mut self, directory: &Dir, path: &Path, depth: usize) -> Result<(), String> {
        let unreadable = |error: io::Error| format!("outputs cannot be listed: {error}");
        if depth > MAX_DEPTH {
            return Err(format!("outputs too large: deeper than {MAX_DEPTH} directories"));
        }
        let here = if depth == 0 { directory.try_clone() } else { directory.open_dir(path) };
        for entry in here.and_then(|dir| dir.entries()).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            self.n_entries += 1;
            if self.n_entries > MAX_ENTRIES {
                return Err(format!("outputs too large: more than {MAX_ENTRIES} directory entries"));
            }
            let path = path.join(entry.file_name());
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                self.walk(directory, &path, depth + 1)?;
            } else if kind.is_file() {
                let bytes = entry.metadata().map_err(unreadable)?.len();
                self.add(path, bytes)?;
            } else if kind.is_symlink() {
                match open(directory, &path).and_then(|file| file.metadata()) {
                    Ok(metadata) => self.add(path, metadata.len())?,
                    Err(_) => self.skip(&path, "a link that leads to no regular file inside /outputs"),
                }
            } else {
                self.skip(&path, "neither a regular file nor a directory");
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, bytes: u64) -> Result<(), String> {
        let name = name(&path);
        if name.len() > MAX_NAME_BYTES {
            self.skip(&path, "its name is longer than 1024 bytes");
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            return Err(format!("outputs too large: more than {MAX_FILES} files"));
        }
        if bytes > MAX_FILE_BYTES {
            return Err(format!(
                "outputs too large: {name} has {bytes} bytes, the limit is {MAX_FILE_BYTES}"
            ));
        }
        self.total_bytes += bytes;
        if self.total_bytes > MAX_TOTAL_BYTES {
            return Err(format!("outputs too large: more than {MAX_TOTAL_BYTES} bytes in all"));
        }
        self.files.push(Found { name, path, bytes });
        Ok(())
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.n_skipped += 1;
        if self.skipped.len() < MAX_SKIPPED {
            let name: String = name(path).chars().take(MAX_NAME_BYTES).collect();
            self.skipped.push(SkippedOutput { name, why: why.to_owned() });
        }
    }
}

/// The path as a text; bytes that are no UTF-8 are percent-encoded.
fn name(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut name = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        name.push_str(chunk.valid());
        name.extend(chunk.invalid().iter().map(|byte| percent_encode_byte(*byte)));
    }
    name
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn list(directory: &Path) -> Listing {
        let handle = Dir::open_ambient_dir(directory, ambient_authority()).unwrap();
        let mut listing = Listing::default();
        listing.walk(&handle, Path::new(""), 0).unwrap();
        listing.files.sort_by(|a, b| a.name.cmp(&b.name));
        listing
    }

    fn names(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn files_of_every_depth_are_found_and_empty_directories_vanish() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        for name in ["x", ".hidden", "a/b/ü 日", "a/:odd"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let bad = std::ffi::OsStr::from_bytes(b"bad\xffname");
        std::fs::write(directory.path().join(bad), "").unwrap();
        assert_eq!(names(&list(directory.path())), [".hidden", "a/:odd", "a/b/ü 日", "bad%FFname", "x"]);
    }

    #[test]
    fn links_out_of_the_tree_and_pipes_are_skipped_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "content").unwrap();
        symlink("file", path("inside")).unwrap();
        symlink("/outputs/file", path("inside-as-the-container-saw-it")).unwrap();
        symlink("/etc/passwd", path("outside")).unwrap();
        symlink("../../../../../../etc/passwd", path("outside-relative")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        symlink(".", path("directory")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        let listing = list(directory.path());
        assert_eq!(names(&listing), ["file", "inside", "inside-as-the-container-saw-it"]);
        let mut skipped: Vec<_> = listing.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, ["dangling", "directory", "loop", "outside", "outside-relative", "pipe"]);
    }

    #[tokio::test]
    async fn small_files_travel_in_the_result() {
        crate::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("empty"), "").unwrap();
        std::fs::write(directory.path().join("small"), "x".repeat(200)).unwrap();
        let http = Http::new("http://localhost:1", false, false, 1000).unwrap();
        let uploader = Uploader { http, external_address: None, metrics: Metrics::default() };
        let outputs = uploader.collect(directory.path(), Duration::from_secs(1)).await.unwrap();
        let empty = &outputs.files["empty"];
        assert_eq!((&empty.value, empty.kind), (&Value::String(String::new()), Some(DataRefKind::Base64)));
        assert_eq!(outputs.files["small"].value, Value::String(base64::encode("x".repeat(200).as_bytes())));
    }
}
