//! Where a build's files come from: an archive, one of GitHub's, or a git repository (`worker` 10.4). Pure.

use url::Url;

use super::repository::{Reference, Repository, is_repository};
use super::{BuildPlanError, redact};
use crate::plan::shorten;

/// Where the files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) source: Source,
    /// For people: without credentials.
    pub(crate) name: String,
    /// Names a commit, whose files never change.
    pub(crate) is_pinned: bool,
}

/// How the files come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Addresses of the same archive, to be tried in this order.
    Archive(Vec<Url>),
    Git(Repository),
}

impl Context {
    pub(super) fn read(address: &str) -> Result<Self, BuildPlanError> {
        let name = redact(address);
        if is_repository(address) {
            let repository = Repository::parse(address, &name)?;
            let is_pinned = matches!(repository.reference, Reference::Commit(_));
            return Ok(Self { source: Source::Git(repository), name, is_pinned });
        }
        let is_archive = [".tar.gz", ".tgz", ".zip"].iter().any(|end| address.ends_with(end));
        if !is_archive && address.starts_with("https://") && address.contains("github.com") {
            return Self::github(address, name);
        }
        let url = Url::parse(address).map_err(|_| BuildPlanError::Scheme(shorten(&name)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BuildPlanError::Scheme(shorten(&name)));
        }
        Ok(Self { source: Source::Archive(vec![url]), name, is_pinned: false })
    }

    fn github(address: &str, name: String) -> Result<Self, BuildPlanError> {
        let bad = || BuildPlanError::GitHub(shorten(&name));
        let GitHub { owner, repository, reference, credential } = GitHub::parse(address).ok_or_else(bad)?;
        if reference.starts_with("${") {
            return Err(BuildPlanError::MissingRef(shorten(&reference)));
        }
        // `user:token` means the token; a token alone stands before the `@`.
        let credential =
            credential.as_deref().map(|text| text.split_once(':').map_or(text, |(_, token)| token));
        let mut tails = vec![format!("refs/heads/{reference}"), reference.clone()];
        if reference == "main" {
            tails.push("refs/heads/master".to_owned());
        }
        let addresses = tails.into_iter().map(|tail| {
            let mut url = Url::parse("https://github.com").map_err(|_| bad())?;
            url.set_path(&format!("/{owner}/{repository}/archive/{tail}.zip"));
            if let Some(credential) = credential {
                url.set_username(credential).map_err(|()| bad())?;
            }
            Ok(url)
        });
        let is_pinned = reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        let addresses = addresses.collect::<Result<_, BuildPlanError>>()?;
        Ok(Self { source: Source::Archive(addresses), name, is_pinned })
    }
}

/// A repository of GitHub's at a branch, tag or commit.
#[derive(Debug, PartialEq, Eq)]
struct GitHub {
    owner: String,
    repository: String,
    reference: String,
    /// As written before the `@`.
    credential: Option<String>,
}

impl GitHub {
    fn parse(address: &str) -> Option<Self> {
        let url = Url::parse(address).ok()?;
        if url.scheme() != "https" || url.host_str() != Some("github.com") {
            return None;
        }
        let mut segments = url.path().trim_matches('/').splitn(4, '/');
        let (owner, repository) = (segments.next()?, segments.next()?.replacen(".git", "", 1));
        let is_name = |name: &str, max: usize| {
            !name.is_empty()
                && name.len() <= max
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        if !is_name(owner, 39) || !is_name(&repository, 100) {
            return None;
        }
        let reference = match (segments.next(), segments.next()) {
            (Some("tree" | "commit"), Some(reference)) => {
                percent_encoding::percent_decode_str(reference).decode_utf8().ok()?.into_owned()
            }
            _ => "main".to_owned(),
        };
        let credential = match (url.username(), url.password()) {
            ("", None) => None,
            (user, None) => Some(user.to_owned()),
            (user, Some(password)) => Some(format!("{user}:{password}")),
        };
        Some(Self { owner: owner.to_owned(), repository, reference, credential })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{read, vectors};
    use super::*;

    fn addresses(context: &str) -> Vec<String> {
        match read(json!({"context": context})).unwrap().context.unwrap().source {
            Source::Archive(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Source::Git(repository) => panic!("a repository: {}", repository.url),
        }
    }

    #[test]
    fn github_contexts_are_read_as_recorded() {
        for vector in vectors("githubContext") {
            let address = vector["in"].as_str().unwrap();
            let read = GitHub::parse(address);
            let Some(expected) = vector["out"].as_object() else {
                assert_eq!(read, None, "{address}");
                continue;
            };
            let text = |name: &str| expected.get(name).and_then(Value::as_str).map(str::to_owned);
            let expected = GitHub {
                owner: text("owner").unwrap(),
                repository: text("repo").unwrap(),
                reference: text("ref").unwrap(),
                credential: text("userPat"),
            };
            assert_eq!(read, Some(expected), "{address}");
        }
    }

    #[test]
    fn a_repository_is_pinned_by_a_commit_alone_and_shown_without_its_credential() {
        let context = |context: &str| read(json!({"context": context})).unwrap().context.unwrap();
        let branch = context("git+https://user:secret@h/x#main:sub");
        assert!(matches!(branch.source, Source::Git(_)) && !branch.is_pinned);
        assert_eq!(branch.name, "git+https://h/x#main:sub");
        assert!(context("https://h/x.git#a80273ca1417f0cf29eaf1cee3c1eb5d79bfc4df").is_pinned);
        // Another host's repository, whatever its path is called.
        assert!(matches!(context("https://h/mirror/github.com/x.git").source, Source::Git(_)));
    }

    #[test]
    fn github_addresses_become_archives() {
        assert_eq!(
            addresses("https://github.com/me/tool.git"),
            [
                "https://github.com/me/tool/archive/refs/heads/main.zip",
                "https://github.com/me/tool/archive/main.zip",
                "https://github.com/me/tool/archive/refs/heads/master.zip",
            ]
        );
        assert_eq!(
            addresses("https://user:tok@github.com/me/tool/tree/feature/x"),
            [
                "https://tok@github.com/me/tool/archive/refs/heads/feature/x.zip",
                "https://tok@github.com/me/tool/archive/feature/x.zip",
            ]
        );
        assert_eq!(
            addresses("https://github.com/me/tool/")[1],
            "https://github.com/me/tool/archive/main.zip"
        );
        let pinned = "https://github.com/me/tool/commit/a80273ca1417f0cf29eaf1cee3c1eb5d79bfc4df";
        assert!(read(json!({"context": pinned})).unwrap().context.unwrap().is_pinned);
        assert_eq!(addresses("http://x.example/a/archive?y"), ["http://x.example/a/archive?y"]);
        for context in [
            "https://github.com/me",
            "https://github.com.evil.example/a/b",
            "git@github.com:me/tool.git",
            "/etc",
            "ftp://x/y.zip",
        ] {
            assert!(read(json!({"context": context})).is_err(), "{context}");
        }
        let missing = read(json!({"context": "https://github.com/me/tool/tree/${sha}"}));
        assert!(matches!(missing, Err(BuildPlanError::MissingRef(_))));
        let long = "x".repeat(5_000);
        for context in [format!("{long}:"), format!("ftp://{long}/"), format!("https://github.com/{long}")] {
            let error = read(json!({ "context": context })).err().map(|error| error.to_string());
            assert!(error.is_some_and(|text| text.len() < 400), "{context}");
        }
    }
}
