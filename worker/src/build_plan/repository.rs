//! Addresses of git repositories: `git+https://host/path[#ref[:directory]]`, and `https://host/path.git` in the same
//! way (`worker` 10.3). Pure.
//!
//! What leaves this module can be given to the git program as arguments: an address begins with its scheme, and a ref
//! is no option, no expression and no pattern.

use percent_encoding::percent_decode_str;
use url::Url;

use super::BuildPlanError;
use crate::files::names::RelativePath;
use crate::plan::shorten;

const MAX_REF_BYTES: usize = 255;

/// A directory of a git repository at a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// With its credential, if it has one.
    pub(crate) url: Url,
    pub(crate) reference: Reference,
    /// What counts as the root.
    pub(crate) directory: Option<RelativePath>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// What the repository calls its own.
    Head,
    /// A branch, a tag, or a whole name below `refs/`.
    Name(String),
    /// The whole id of a commit, whose files never change.
    Commit(String),
}

/// Why a ref cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReference {
    #[error("it is longer than {MAX_REF_BYTES} bytes")]
    TooLong,
    #[error("no ref begins with `-`")]
    Option,
    #[error("no ref has spaces, control characters, `..`, `@{{`, `//` or any of ~ ^ : ? * [ \\")]
    Character,
    #[error("no ref begins with `/`, or ends with `/`, `.` or `.lock`")]
    Edge,
    #[error("it is not UTF-8")]
    Encoding,
}

/// Whether the address is read as that of a git repository. GitHub's are served as archives, unless they begin with
/// `git+`.
pub(super) fn is_repository(address: &str) -> bool {
    if address.starts_with("git+") || is_ssh(address) {
        return true;
    }
    let (place, _) = split(address);
    let is_github =
        || Url::parse(place).is_ok_and(|url| url.scheme() == "https" && url.host_str() == Some("github.com"));
    (place.starts_with("https://") || place.starts_with("http://")) && place.ends_with(".git") && !is_github()
}

/// Of the kinds that need a key: `ssh://…`, and `git@host:path`.
fn is_ssh(address: &str) -> bool {
    let is_short = || {
        let user = address.split_once('@').map(|(user, _)| user);
        user.is_some_and(|user| !user.is_empty() && !user.contains([':', '/']))
    };
    ["ssh:", "git+ssh:", "ssh+git:"].iter().any(|scheme| address.starts_with(scheme)) || is_short()
}

fn split(address: &str) -> (&str, &str) {
    address.split_once('#').unwrap_or((address, ""))
}

impl Repository {
    /// `shown` is the address without its credential.
    pub(super) fn parse(address: &str, shown: &str) -> Result<Self, BuildPlanError> {
        if is_ssh(address) {
            return Err(BuildPlanError::Ssh);
        }
        let unsupported = || BuildPlanError::Scheme(shorten(shown));
        let (place, fragment) = split(address);
        let place = place.strip_prefix("git+").unwrap_or(place);
        let url = Url::parse(place).map_err(|_| unsupported())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unsupported());
        }
        let bad = |why| BuildPlanError::Reference { text: shorten(fragment), why };
        let fragment = percent_decode_str(fragment).decode_utf8().map_err(|_| bad(BadReference::Encoding))?;
        let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let directory = match directory {
            "" | "." | "./" | "/" => None,
            path => Some(
                RelativePath::parse(path).map_err(|why| BuildPlanError::Path { field: "context", why })?,
            ),
        };
        Ok(Self { url, reference: Reference::parse(reference)?, directory })
    }
}

impl Reference {
    fn parse(text: &str) -> Result<Self, BuildPlanError> {
        if matches!(text, "" | "HEAD") {
            return Ok(Self::Head);
        }
        if text.starts_with("${") {
            return Err(BuildPlanError::MissingRef(shorten(text)));
        }
        // Of SHA-1, or of SHA-256.
        if matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self::Commit(text.to_ascii_lowercase()));
        }
        match fault(text) {
            Some(why) => Err(BuildPlanError::Reference { text: shorten(text), why }),
            None => Ok(Self::Name(text.to_owned())),
        }
    }

    /// The whole names that it may have, the most wanted first. A tag of its own kind names a commit by `^{}`.
    pub(crate) fn candidates(&self) -> Vec<String> {
        match self {
            Self::Head => vec!["HEAD".to_owned()],
            Self::Name(name) if name.starts_with("refs/") => vec![format!("{name}^{{}}"), name.clone()],
            // Branches first, as for `git checkout`.
            Self::Name(name) => vec![
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}^{{}}"),
                format!("refs/tags/{name}"),
            ],
            Self::Commit(_) => Vec::new(),
        }
    }
}

/// By the rules of `git check-ref-format`, and a little stricter.
fn fault(text: &str) -> Option<BadReference> {
    let is_odd = |c: char| {
        c.is_control() || c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    if text.len() > MAX_REF_BYTES {
        Some(BadReference::TooLong)
    } else if text.starts_with('-') {
        Some(BadReference::Option)
    } else if text.contains(is_odd) || ["..", "@{", "//"].iter().any(|part| text.contains(part)) {
        Some(BadReference::Character)
    } else if text.starts_with('/') || ["/", ".", ".lock"].iter().any(|end| text.ends_with(end)) {
        Some(BadReference::Edge)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<Repository, BuildPlanError> {
        assert!(is_repository(address), "{address}");
        Repository::parse(address, &super::super::redact(address))
    }

    #[test]
    fn repositories_are_read_with_ref_and_directory() {
        let commit = "a80273ca1417f0cf29eaf1cee3c1eb5d79bfc4df";
        let name = |name: &str| Reference::Name(name.to_owned());
        for (address, url, reference, directory) in [
            ("git+https://h/a/b", "https://h/a/b", Reference::Head, None),
            ("git+http://h:81/b.git#dev", "http://h:81/b.git", name("dev"), None),
            ("https://h/b.git#v1.2:sub/x", "https://h/b.git", name("v1.2"), Some("sub/x")),
            ("https://u:t@h/b.git#:sub", "https://u:t@h/b.git", Reference::Head, Some("sub")),
            ("http://h/b.git#feature/x:/", "http://h/b.git", name("feature/x"), None),
            ("git+https://github.com/o/r#a%23b", "https://github.com/o/r", name("a#b"), None),
            ("https://h/b.git#v1.zip", "https://h/b.git", name("v1.zip"), None),
            (
                &format!("https://h/b.git#{commit}:s"),
                "https://h/b.git",
                Reference::Commit(commit.into()),
                Some("s"),
            ),
        ] {
            let read = parse(address).unwrap();
            assert_eq!((read.url.as_str(), read.reference), (url, reference), "{address}");
            assert_eq!(read.directory.as_ref().map(RelativePath::as_str), directory, "{address}");
        }
        for address in [
            "https://github.com/o/r.git",
            "https://github.com/o/r.git#x",
            "https://h/b.git?x",
            "https://h/b.git/archive.zip",
            "https://user:secret@h/x",
            "ftp://u@h/x.git",
        ] {
            assert!(!is_repository(address), "{address}");
        }
    }

    #[test]
    fn what_needs_a_key_is_refused() {
        for address in ["ssh://git@h/x.git", "git+ssh://h/x", "git@github.com:me/tool.git", "me@h:x.git"] {
            let error = parse(address).unwrap_err();
            assert_eq!(error, BuildPlanError::Ssh);
            assert!(error.to_string().contains("use https"), "{error}");
        }
        for address in ["git+file:///etc", "git+ext::sh -c x", "git+https:", "git+git://h/x"] {
            assert!(matches!(parse(address), Err(BuildPlanError::Scheme(_))), "{address}");
        }
    }

    #[test]
    fn refs_that_could_be_anything_else_are_refused() {
        for text in [
            "--upload-pack=x",
            "-",
            "a b",
            "a\u{7}",
            "a%0ab",
            "a..b",
            "a~1",
            "a^",
            "a*",
            "a[b",
            "a\\b",
            "a@{1}",
            "a//b",
            "/a",
            "a/",
            "a.lock",
            "%ff",
            &"x".repeat(256),
        ] {
            let error = parse(&format!("https://h/x.git#{text}")).unwrap_err();
            assert!(matches!(error, BuildPlanError::Reference { .. }), "{text}: {error:?}");
            assert!(error.to_string().len() < 400, "{error}");
        }
        assert!(matches!(parse("https://h/x.git#${sha}"), Err(BuildPlanError::MissingRef(_))));
        for path in ["../x", "a/../../b", "%2e%2e/x"] {
            let error = parse(&format!("https://h/x.git#main:{path}")).unwrap_err();
            assert!(matches!(error, BuildPlanError::Path { field: "context", .. }), "{path}: {error:?}");
        }
    }

    #[test]
    fn a_branch_goes_before_a_tag_and_a_tag_means_its_commit() {
        assert_eq!(
            Reference::Name("v1".into()).candidates(),
            ["refs/heads/v1", "refs/tags/v1^{}", "refs/tags/v1"]
        );
        assert_eq!(Reference::Name("refs/pull/1/head".into()).candidates()[1], "refs/pull/1/head");
        assert_eq!(Reference::Head.candidates(), ["HEAD"]);
    }
}
