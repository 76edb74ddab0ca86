//! The sources of an image (`worker` 10.4): an archive, or a git repository. First it is found out what they are, which
//! decides whether anything is to be built; then they are brought.

use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dockframe_shared::protocol::LogStep;
use url::Url;

use super::build::say;
use crate::build_plan::{Context, Repository, Source};
use crate::executor::BuildLines;
use crate::files::context::{ContextError, unpack};
use crate::files::fetch::{Http, HttpError};
use crate::files::git::{Commit, GitError, Remote};

/// Sources that are known, and here or within reach.
pub(super) struct Found {
    /// Of the context, for people.
    name: String,
    what: What,
}

enum What {
    Archive { file: PathBuf, hash: String },
    Commit { remote: Box<Remote>, commit: Commit },
}

/// Sources that lie in their directory.
pub(super) struct Brought {
    /// What they are: other files, another id.
    pub(super) id: String,
    /// The directory that counts as their root, relative to theirs.
    pub(super) root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// Another time it may be different.
    #[error("the build context {name} cannot be fetched: {why}")]
    Fetch { name: String, why: String },
    #[error("the build context cannot be used: {0}")]
    Use(#[from] ContextError),
}

impl Found {
    /// Finds out what a context is at the moment. `scratch` is a directory for it.
    pub(super) async fn find(
        http: &Http,
        context: &Context,
        scratch: &Path,
        lines: &BuildLines,
    ) -> Result<Self, SourceError> {
        let name = context.name.clone();
        let doing = match &context.source {
            Source::Archive(_) => "downloading",
            Source::Git(_) => "cloning",
        };
        say(lines, LogStep::CloningRepo, format!("{doing} {name}")).await;
        let found = match &context.source {
            Source::Archive(addresses) => archive(http, addresses, scratch.join("archive")).await,
            Source::Git(repository) => {
                commit(http, repository, &scratch.join("git")).await.map_err(|error| error.to_string())
            }
        };
        match found {
            Ok(what) => Ok(Self { name, what }),
            Err(why) => Err(SourceError::Fetch { name, why }),
        }
    }

    /// What the sources are, in the same words as of those that an image was built from.
    pub(super) fn id(&self) -> &str {
        match &self.what {
            What::Archive { hash, .. } => hash,
            What::Commit { commit, .. } => &commit.id,
        }
    }

    /// Puts the files into an empty directory.
    pub(super) async fn bring(self, into: &Path) -> Result<Brought, SourceError> {
        let directory = Dir::open_ambient_dir(into, ambient_authority()).map_err(ContextError::from)?;
        match self.what {
            What::Archive { file, hash } => {
                let unpacked = tokio::task::spawn_blocking(move || unpack(&file, &directory)).await;
                let root = unpacked.map_err(|error| ContextError::Read(std::io::Error::other(error)))??;
                Ok(Brought { id: hash, root })
            }
            What::Commit { remote, commit } => {
                let failed = |error| match error {
                    GitError::Files(error) => SourceError::Use(error),
                    error => SourceError::Fetch { name: self.name.clone(), why: error.to_string() },
                };
                let id = remote.fetch(&commit).await.map_err(failed)?;
                remote.unpack(&id, directory).await.map_err(failed)?;
                Ok(Brought { id, root: PathBuf::new() })
            }
        }
    }
}

/// The first address that has something.
async fn archive(http: &Http, addresses: &[Url], file: PathBuf) -> Result<What, String> {
    let mut last = None;
    for address in addresses {
        match http.fetch(address, &file).await {
            Ok(fetched) => return Ok(What::Archive { file, hash: fetched.hash.to_string() }),
            Err(error @ HttpError::Status(_)) => last = Some(error),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(last.map(|error| error.to_string()).unwrap_or_default())
}

async fn commit(http: &Http, repository: &Repository, scratch: &Path) -> Result<What, GitError> {
    let remote = Remote::find(http, repository, scratch).await?;
    let commit = remote.commit().await?;
    Ok(What::Commit { remote: Box::new(remote), commit })
}
