//! A job's inputs, written before it starts (`worker` 7).
//!
//! Everything is written relative to a handle of the run's directory, so that no name and no link can lead out of it.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use url::Url;
use uuid::Uuid;

use super::cache::{CacheError, InputCache, Wanted};
use super::content::Content;
use super::fetch::Http;
use super::names::RelativePath;
use crate::metrics::Metrics;
use crate::plan::{InputFile, MountedFile};
use crate::state::RunDirectory;

/// Transfers at a time.
const PARALLEL: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("input {name}: {source}")]
    Fetch { name: String, source: CacheError },
    #[error("the inputs are larger than the limit of {0} bytes in all")]
    TooLarge(u64),
    #[error("input {name}: cannot be written: {source}")]
    Write { name: String, source: io::Error },
    #[error("the run's directory cannot be used: {0}")]
    Directory(io::Error),
}

/// Who owns the files; `None` leaves them to the worker's own user.
pub(crate) type Owner = Option<(u32, u32)>;

/// Where content comes from that a job only names.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) http: Http,
    pub(crate) cache: InputCache,
    /// Of all files of one job together.
    pub(crate) max_bytes: u64,
    pub(crate) metrics: Metrics,
}

/// Writes everything that a run needs to have before it starts.
pub(crate) async fn write_all(
    sources: &Sources,
    directory: &RunDirectory,
    inputs: Vec<InputFile>,
    mounted: Vec<MountedFile>,
    owner: Owner,
) -> Result<(), InputError> {
    let mounted = mounted.into_iter().enumerate().filter_map(|(number, file)| {
        let path = RelativePath::parse(&number.to_string()).ok()?;
        Some(InputFile { name: file.target, path, content: file.content })
    });
    let budget = AtomicU64::new(sources.max_bytes);
    write_into(sources, &budget, &directory.inputs(), inputs, owner).await?;
    write_into(sources, &budget, &directory.mounted(), mounted.collect(), owner).await
}

async fn write_into(
    sources: &Sources,
    budget: &AtomicU64,
    path: &Path,
    files: Vec<InputFile>,
    owner: Owner,
) -> Result<(), InputError> {
    if files.is_empty() {
        return Ok(());
    }
    let directory = Dir::open_ambient_dir(path, ambient_authority()).map_err(InputError::Directory)?;
    let (inline, remote): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| matches!(file.content, Content::Bytes(_)));
    let here = directory.try_clone().map_err(InputError::Directory)?;
    tokio::task::spawn_blocking(move || write_inline(&here, inline, owner))
        .await
        .map_err(|error| InputError::Directory(io::Error::other(error)))??;
    stream::iter(remote)
        .map(|file| fetch(sources, budget, path, &directory, file, owner))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await
}

fn write_inline(directory: &Dir, files: Vec<InputFile>, owner: Owner) -> Result<(), InputError> {
    for file in files {
        let Content::Bytes(bytes) = &file.content else { continue };
        let write = || {
            use std::io::Write as _;
            make_parents(directory, &file.path, owner)?;
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o644);
            let mut opened = directory.open_with(file.path.as_path(), &options)?.into_std();
            opened.write_all(bytes)?;
            own(&opened, owner)
        };
        write().map_err(|source| InputError::Write { name: file.name.clone(), source })?;
    }
    Ok(())
}

async fn fetch(
    sources: &Sources,
    budget: &AtomicU64,
    path: &Path,
    directory: &Dir,
    file: InputFile,
    owner: Owner,
) -> Result<(), InputError> {
    let http = &sources.http;
    let (url, hint) = match &file.content {
        Content::Bytes(_) => return Ok(()),
        Content::Url { url, hash } => (url.clone(), *hash),
        Content::Key(key) => (
            Url::parse(&http.key_address(key)).map_err(|error| InputError::Write {
                name: file.name.clone(),
                source: io::Error::other(error),
            })?,
            None,
        ),
    };
    let wanted = match http.under_our_name(&url).await {
        Some((own, hash)) => Wanted { url: own, promised: Some(hash), hint: None },
        None => Wanted { promised: http.promised_hash(&url), url, hint },
    };
    // Beside the directory, on the same file system: the file appears whole, under its name, or not at all.
    let fresh = format!(".{}", Uuid::new_v4().simple());
    let beside = path.with_file_name(&fresh);
    let brought = sources.cache.bring(http, &wanted, &beside).await;
    let (fetched, origin) =
        brought.map_err(|source| InputError::Fetch { name: file.name.clone(), source })?;
    sources.metrics.input(origin, fetched.bytes);
    let spent = budget.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(fetched.bytes));
    spent.map_err(|_| InputError::TooLarge(sources.max_bytes))?;
    let place = || {
        make_parents(directory, &file.path, owner)?;
        let opened = std::fs::File::open(&beside)?;
        opened.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        own(&opened, owner)?;
        let parent = path.parent().unwrap_or(path);
        let parent = Dir::open_ambient_dir(parent, ambient_authority())?;
        parent.rename(&fresh, directory, file.path.as_path())
    };
    place().map_err(|source| InputError::Write { name: file.name.clone(), source })
}

fn make_parents(directory: &Dir, path: &RelativePath, owner: Owner) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut so_far = std::path::PathBuf::new();
    for segment in parent.components() {
        so_far.push(segment);
        let mut builder = DirBuilder::new();
        builder.mode(0o755);
        match directory.create_dir_with(&so_far, &builder) {
            Ok(()) => own(&directory.open_dir(&so_far)?.into_std_file(), owner)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn own(file: &std::fs::File, owner: Owner) -> io::Result<()> {
    match owner {
        None => Ok(()),
        Some((uid, gid)) => match fchown(file, Some(uid), Some(gid)) {
            // A worker that is not root cannot give files away; they stay readable.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> InputFile {
        InputFile {
            name: name.to_owned(),
            path: RelativePath::parse(name).unwrap(),
            content: Content::Bytes(text.to_owned().into()),
        }
    }

    async fn write(path: &Path, files: Vec<InputFile>) -> Result<(), InputError> {
        crate::install_crypto();
        let elsewhere = tempfile::tempdir().unwrap();
        let sources = Sources {
            http: Http::new("http://localhost:1", false, false, 1000).unwrap(),
            cache: InputCache::open(elsewhere.path(), 1000).unwrap(),
            max_bytes: 1000,
            metrics: Metrics::default(),
        };
        write_into(&sources, &AtomicU64::new(1000), path, files, None).await
    }

    #[tokio::test]
    async fn nested_and_odd_names_are_written_with_plain_modes() {
        let directory = tempfile::tempdir().unwrap();
        let files =
            vec![file("a/b/ü 日.txt", "x"), file("a/empty", ""), file(".hidden", "h"), file("-rf", "r")];
        write(directory.path(), files).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(
            [read("a/b/ü 日.txt"), read("a/empty"), read(".hidden"), read("-rf")],
            ["x", "", "h", "r"]
        );
        let mode = std::fs::metadata(directory.path().join(".hidden")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[tokio::test]
    async fn a_link_in_the_way_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.path().join("a")).unwrap();
        let refused = write(directory.path(), vec![file("a/x", "x")]).await;
        assert!(refused.is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
