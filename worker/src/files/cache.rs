//! Inputs that were fetched before, kept by their content (`worker` 7.4).
//!
//! A file here has the name of its SHA-256 and was hashed while it came; it is never changed, and no job ever sees it:
//! jobs get copies, which cost nothing where the file system can share blocks. Whoever wants what is on its way
//! already waits for it instead of fetching it again. Several workers of a host share the directory: a file appears
//! under its name whole, or not at all.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dockframe_shared::ContentHash;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{debug, warn};
use url::Url;
use uuid::Uuid;

use super::fetch::{Fetched, Http, HttpError};

/// What a process that fell has left half done is older than this.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The inputs of a data directory.
#[derive(Debug, Clone)]
pub(crate) struct InputCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    /// By what is fetched. Who waits for the lock finds in it what the one before has fetched.
    flights: Mutex<HashMap<String, Flight>>,
}

type Flight = Arc<AsyncMutex<Option<ContentHash>>>;

/// Where a file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Cache,
    Network,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(transparent)]
    Fetch(#[from] HttpError),
    #[error("sha256 mismatch: its address promises other bytes than came")]
    Mismatch,
    #[error("it cannot be kept: {0}")]
    File(#[from] io::Error),
}

/// What a job says of a file that it names.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) url: Url,
    /// The address itself promises these bytes: others are an error.
    pub(crate) promised: Option<ContentHash>,
    /// The job believes so: if it is wrong, the bytes are used and not kept under it.
    pub(crate) hint: Option<ContentHash>,
}

impl InputCache {
    pub(crate) fn open(data_directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let directory = data_directory.join("f");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join("tmp"))?;
        let inner = Inner { directory, max_bytes, flights: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Brings the file to `into`, which does not exist yet and is on any file system.
    pub(crate) async fn bring(
        &self,
        http: &Http,
        wanted: &Wanted,
        into: &Path,
    ) -> Result<(Fetched, Origin), CacheError> {
        let claim = wanted.promised.or(wanted.hint);
        if let Some(found) = self.copy_kept(claim, into).await? {
            return Ok((found, Origin::Cache));
        }
        let flight = self.flight(&claim.map_or_else(|| wanted.url.to_string(), |hash| hash.to_string()));
        let mut landed = flight.lock().await;
        // Somebody may have fetched it meanwhile.
        if let Some(found) = self.copy_kept(claim.or(*landed), into).await? {
            return Ok((found, Origin::Cache));
        }
        let fresh = self.inner.directory.join("tmp").join(Uuid::new_v4().simple().to_string());
        let fresh = Fresh(fresh);
        let fetched = http.fetch(&wanted.url, &fresh.0).await?;
        if wanted.promised.is_some_and(|promised| promised != fetched.hash) {
            return Err(CacheError::Mismatch);
        }
        if wanted.hint.is_some_and(|hint| hint != fetched.hash) {
            debug!("an input has other content than its job believes");
        }
        // Without a name to find it by it is only of use to those who wait for it now.
        if claim == Some(fetched.hash) || Arc::strong_count(&flight) > 2 {
            self.keep(&fresh.0, fetched.hash).await?;
            *landed = Some(fetched.hash);
            if self.copy_kept(Some(fetched.hash), into).await?.is_some() {
                return Ok((fetched, Origin::Network));
            }
        }
        move_file(&fresh.0, into).await?;
        Ok((fetched, Origin::Network))
    }

    fn flight(&self, what: &str) -> Flight {
        let Ok(mut flights) = self.inner.flights.lock() else { return Flight::default() };
        // Those that nobody waits for any more are of no use.
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        flights.entry(what.to_owned()).or_default().clone()
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        let name = hash.to_string();
        self.inner.directory.join(&name[..2]).join(name)
    }

    async fn copy_kept(&self, hash: Option<ContentHash>, into: &Path) -> io::Result<Option<Fetched>> {
        let Some(hash) = hash else { return Ok(None) };
        let (kept, into) = (self.path(hash), into.to_owned());
        let copying = tokio::task::spawn_blocking(move || {
            let source = match File::open(&kept) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            // Its last use: the oldest go first when room is needed.
            let _ = source.set_times(FileTimes::new().set_modified(SystemTime::now()));
            copy(&source, &into).map(|bytes| Some(Fetched { hash, bytes }))
        });
        copying.await.map_err(io::Error::other)?
    }

    async fn keep(&self, fresh: &Path, hash: ContentHash) -> io::Result<()> {
        let (fresh, path) = (fresh.to_owned(), self.path(hash));
        let keeping = tokio::task::spawn_blocking(move || {
            let file = File::options().write(true).open(&fresh)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&fresh, &path)
        });
        keeping.await.map_err(io::Error::other)?
    }

    /// Removes the least recently used until the rest is within the bound. Bytes that are left. Blocking.
    pub(crate) fn evict(&self) -> io::Result<u64> {
        let mut files = Vec::new();
        for directory in fs::read_dir(&self.inner.directory)?.flatten() {
            let is_scratch = directory.file_name() == "tmp";
            for file in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
                let Ok(metadata) = file.metadata() else { continue };
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if !is_scratch {
                    files.push(Kept {
                        path: file.path(),
                        used,
                        bytes: metadata.blocks().saturating_mul(512),
                    });
                } else if used.elapsed().is_ok_and(|age| age > STALE) {
                    fs::remove_file(file.path())?;
                }
            }
        }
        let mut left: u64 = files.iter().map(|file| file.bytes).sum();
        for file in to_evict(files, self.inner.max_bytes) {
            match fs::remove_file(&file.path) {
                Ok(()) => left = left.saturating_sub(file.bytes),
                // Another worker was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!("a kept input cannot be removed: {error}"),
            }
        }
        Ok(left)
    }
}

/// A file on its way, gone when this is dropped.
struct Fresh(PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        // Moved away is the usual case.
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// The least recently used of the files, as many as are over the bound.
fn to_evict(mut files: Vec<Kept>, max_bytes: u64) -> Vec<Kept> {
    files.sort_by_key(|file| file.used);
    let mut over = files.iter().map(|file| file.bytes).sum::<u64>().saturating_sub(max_bytes);
    files
        .into_iter()
        .take_while(|file| {
            let is_over = over > 0;
            over = over.saturating_sub(file.bytes);
            is_over
        })
        .collect()
}

/// Shares blocks where the file system can.
fn copy(mut source: &File, into: &Path) -> io::Result<u64> {
    let mut target = File::create_new(into)?;
    match rustix::fs::ioctl_ficlone(&target, source) {
        Ok(()) => source.metadata().map(|metadata| metadata.len()),
        Err(_) => io::copy(&mut source, &mut target),
    }
}

async fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match tokio::fs::rename(from, to).await {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            tokio::fs::copy(from, to).await.map(drop)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;

    use super::*;

    /// A server that counts, and answers slowly enough for others to come meanwhile.
    async fn server(content: &'static str) -> (String, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let handler = move |State(count): State<Arc<AtomicUsize>>| async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            content
        };
        let router = Router::new().route("/{*path}", get(handler)).with_state(Arc::clone(&count));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (address, count)
    }

    fn http(relay: &str) -> Http {
        crate::install_crypto();
        Http::new(relay, false, false, 1000).unwrap()
    }

    fn wanted(url: &str, promised: Option<ContentHash>, hint: Option<ContentHash>) -> Wanted {
        Wanted { url: Url::parse(url).unwrap(), promised, hint }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_who_want_the_same_cause_one_download() {
        let (address, count) = server("content").await;
        let directory = tempfile::tempdir().unwrap();
        let cache = InputCache::open(directory.path(), 1000).unwrap();
        let http = http(&address);
        let hash = ContentHash::of(b"content");
        let promised = wanted(&format!("{address}/f/{hash}"), Some(hash), None);
        let plain = wanted(&format!("{address}/plain"), None, None);
        for (round, what) in [promised.clone(), plain].iter().enumerate() {
            let all = (0..10).map(|number| {
                let into = directory.path().join(format!("{round}-{number}"));
                let (cache, http) = (&cache, &http);
                async move {
                    cache.bring(http, what, &into).await.unwrap();
                    assert_eq!(fs::read(into).unwrap(), b"content");
                }
            });
            futures_util::future::join_all(all).await;
            assert_eq!(count.swap(0, Ordering::SeqCst), 1, "{what:?}");
        }
        let (_, origin) = cache.bring(&http, &promised, &directory.path().join("again")).await.unwrap();
        assert_eq!((origin, count.load(Ordering::SeqCst)), (Origin::Cache, 0));
    }

    #[tokio::test]
    async fn a_wrong_promise_is_an_error_and_a_wrong_belief_is_not_kept() {
        let (address, count) = server("content").await;
        let directory = tempfile::tempdir().unwrap();
        let cache = InputCache::open(directory.path(), 1000).unwrap();
        let http = http(&address);
        let other = ContentHash::of(b"other");
        let promised = wanted(&format!("{address}/f/{other}"), Some(other), None);
        let refused = cache.bring(&http, &promised, &directory.path().join("a")).await;
        assert!(matches!(refused, Err(CacheError::Mismatch)), "{refused:?}");
        let hinted = wanted(&format!("{address}/x"), None, Some(other));
        for name in ["b", "c"] {
            cache.bring(&http, &hinted, &directory.path().join(name)).await.unwrap();
            assert_eq!(fs::read(directory.path().join(name)).unwrap(), b"content");
        }
        assert_eq!(count.load(Ordering::SeqCst), 3, "nothing was kept");
        assert_eq!(
            fs::read_dir(directory.path().join("f/tmp")).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[tokio::test]
    async fn a_job_that_changes_its_copy_changes_nobody_elses() {
        let (address, _) = server("content").await;
        let directory = tempfile::tempdir().unwrap();
        let cache = InputCache::open(directory.path(), 1000).unwrap();
        let hash = ContentHash::of(b"content");
        let what = wanted(&format!("{address}/f/{hash}"), Some(hash), None);
        let http = http(&address);
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        cache.bring(&http, &what, &first).await.unwrap();
        fs::write(&first, "changed").unwrap();
        cache.bring(&http, &what, &second).await.unwrap();
        assert_eq!(fs::read(second).unwrap(), b"content");
    }

    #[test]
    fn the_least_recently_used_go_first_and_only_as_many_as_must() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let kept = |name: &str, seconds, bytes| Kept { path: name.into(), used: at(seconds), bytes };
        let names = |max| -> Vec<String> {
            let files = vec![kept("b", 2, 10), kept("a", 1, 10), kept("c", 3, 10)];
            to_evict(files, max).iter().map(|file| file.path.display().to_string()).collect()
        };
        assert_eq!(names(30), [""; 0]);
        assert_eq!(names(29), ["a"]);
        assert_eq!(names(10), ["a", "b"]);
        assert_eq!(names(0), ["a", "b", "c"]);
    }
}
