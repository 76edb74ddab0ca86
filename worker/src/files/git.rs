//! Git repositories as build contexts (`worker` 10.3, 10.4), by the git program of this machine.
//!
//! The repository, its server and the ref come from strangers. So git sees nothing of its owner's settings and keys,
//! goes to the one place that was checked ([`Http::repository`]), runs none of what the repository brings along, and
//! never makes a working tree: it writes the files as one archive, which is unpacked like every other.

mod bounds;
mod command;
mod said;

use std::io;
use std::path::Path;
use std::time::Duration;

use cap_std::fs::Dir;

use self::command::Git;
use crate::build_plan::{Reference, Repository};
use crate::files::context::{ContextError, MAX_UNPACKED_BYTES};
use crate::files::fetch::{Http, HttpError};
use crate::files::names::RelativePath;

/// The oldest git that can be told which address to connect to.
const MAJOR: u32 = 2;
const MINOR: u32 = 37;
/// For what is done at once, here or at the server.
const SHORT_LIMIT: Duration = Duration::from_secs(60);
/// For bringing the files here, and for writing them.
const LONG_LIMIT: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error(
        "this worker has no git program: install git ({MAJOR}.{MINOR} or newer) where the worker runs, or give the address of \
         an archive (.tar.gz or .zip) instead"
    )]
    NoGit,
    #[error(
        "the worker's git is too old ({0}): install {MAJOR}.{MINOR} or newer, or give the address of an archive (.tar.gz or \
         .zip) instead"
    )]
    OldGit(String),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the repository has no branch or tag \"{0}\"")]
    NoReference(String),
    #[error("the repository is empty")]
    Empty,
    #[error("git cannot {what}: {said}")]
    Failed { what: &'static str, said: String },
    #[error("git took longer than {} s to {what}", limit.as_secs())]
    Slow { what: &'static str, limit: Duration },
    #[error("it is larger than {MAX_UNPACKED_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Files(#[from] ContextError),
    #[error("git cannot be run: {0}")]
    Run(#[from] io::Error),
}

/// A repository at its server, with room for what comes from there.
#[derive(Debug)]
pub(crate) struct Remote {
    git: Git,
    /// Without credential.
    address: String,
    reference: Reference,
    directory: Option<RelativePath>,
}

/// What a ref means at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: String,
    /// Whole name of the ref, for servers that give out no commits by their ids.
    name: Option<String>,
}

impl Remote {
    /// Finds the repository. `scratch` is an empty directory of its own.
    pub(crate) async fn find(http: &Http, repository: &Repository, scratch: &Path) -> Result<Self, GitError> {
        let mut git = Git::new(scratch).await?;
        let version = git.run("say its version", &["version"], SHORT_LIMIT).await?;
        check_version(&String::from_utf8_lossy(&version))?;
        let served = http.repository(&repository.url).await?;
        let address = git.goes_to(&served);
        Ok(Self {
            git,
            address,
            reference: repository.reference.clone(),
            directory: repository.directory.clone(),
        })
    }

    /// The commit that is wanted.
    pub(crate) async fn commit(&self) -> Result<Commit, GitError> {
        if let Reference::Commit(id) = &self.reference {
            return Ok(Commit { id: id.clone(), name: None });
        }
        let candidates = self.reference.candidates();
        let mut arguments = vec!["ls-remote", "--quiet", "--", &self.address];
        arguments.extend(candidates.iter().map(String::as_str));
        let listing = self.git.run("read the refs", &arguments, SHORT_LIMIT).await?;
        choose(&String::from_utf8_lossy(&listing), &candidates).ok_or_else(|| match &self.reference {
            Reference::Name(name) => GitError::NoReference(name.clone()),
            Reference::Head | Reference::Commit(_) => GitError::Empty,
        })
    }

    /// Brings the files of a commit here, and nothing of its history. The result is the commit that came: where a ref
    /// has to be asked for, it may have moved.
    pub(crate) async fn fetch(&self, commit: &Commit) -> Result<String, GitError> {
        // Repositories of SHA-256 have longer ids.
        let format = if commit.id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        let init = ["init", "--bare", "--quiet", "--template=", format];
        self.git.run("make a repository", &init, SHORT_LIMIT).await?;
        self.git.leave_files_alone().await?;
        match (self.fetch_one(&commit.id).await, &commit.name) {
            (Ok(()), _) => Ok(commit.id.clone()),
            (Err(GitError::Failed { .. }), Some(name)) => {
                self.fetch_one(name).await?;
                let found = ["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"];
                let found = self.git.run("find what came", &found, SHORT_LIMIT).await?;
                Ok(String::from_utf8_lossy(&found).trim().to_owned())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn fetch_one(&self, what: &str) -> Result<(), GitError> {
        let arguments = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--",
            &self.address,
            what,
        ];
        self.git.run("fetch the repository", &arguments, LONG_LIMIT).await.map(drop)
    }

    /// Writes the files of a commit that was fetched.
    pub(crate) async fn unpack(&self, commit: &str, into: Dir) -> Result<(), GitError> {
        let tree = match &self.directory {
            None => commit.to_owned(),
            Some(directory) => {
                let tree = format!("{commit}:{}", directory.as_str());
                let kind =
                    self.git.run("look for the directory", &["cat-file", "-t", &tree], SHORT_LIMIT).await;
                match kind {
                    Ok(kind) if kind.trim_ascii() == b"tree" => tree,
                    Ok(_) | Err(GitError::Failed { .. }) => {
                        return Err(ContextError::NoFile(format!("directory {}", directory.as_str())).into());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.git.archive(&tree, into, LONG_LIMIT).await
    }
}

/// Of what `git version` says.
fn check_version(said: &str) -> Result<(), GitError> {
    let version = said.trim().trim_start_matches("git version ");
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (MAJOR, MINOR) => Ok(()),
        _ => Err(GitError::OldGit(version.chars().take(40).collect())),
    }
}

/// The first of these names that is in what `git ls-remote` lists.
fn choose(listing: &str, names: &[String]) -> Option<Commit> {
    let is_id = |id: &str| matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let find = |wanted: &str| {
        listing.lines().filter_map(|line| line.split_once('\t')).find_map(|(id, name)| {
            (name == wanted && is_id(id)).then(|| Commit {
                id: id.to_ascii_lowercase(),
                name: Some(name.trim_end_matches("^{}").to_owned()),
            })
        })
    };
    names.iter().find_map(|name| find(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        for fine in [
            "git version 2.47.3\n",
            "git version 2.37.0.windows.1",
            "git version 3.0",
            "git version 2.39.5 (Apple Git-154)",
        ] {
            assert!(check_version(fine).is_ok(), "{fine}");
        }
        for old in ["git version 2.34.1\n", "git version 1.9", "busybox", ""] {
            assert!(matches!(check_version(old), Err(GitError::OldGit(_))), "{old}");
        }
    }

    #[test]
    fn the_most_wanted_ref_of_a_listing_is_chosen() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let names = Reference::Name("v1".into()).candidates();
        let tag = format!("{a}\trefs/tags/v1\n{b}\trefs/tags/v1^{{}}\n");
        let found = choose(&tag, &names).unwrap();
        assert_eq!((found.id, found.name.as_deref()), (b, Some("refs/tags/v1")));
        let both = format!("{tag}{c}\trefs/heads/v1\n{a}\trefs/heads/x/refs/heads/v1\n");
        assert_eq!(choose(&both, &names).unwrap().id, c);
        for listing in ["", "junk", "abc\trefs/heads/v1", &format!("{a}\trefs/heads/v1-x")] {
            assert_eq!(choose(listing, &names), None, "{listing}");
        }
    }
}
