//! What a `build` block means (`worker` 10.3, 10.4). Pure.

use dockframe_shared::ids::hex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::Url;

use crate::files::names::{BadFileName, RelativePath};
use crate::plan::shorten;

const MAX_BUILD_ARGUMENTS: usize = 1000;

/// How to make an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuildPlan {
    /// Same for the same block: 32 hex digits.
    pub(crate) key: String,
    pub(crate) context: Option<Context>,
    /// Text of the Dockerfile, over what the context has.
    pub(crate) dockerfile: Option<String>,
    pub(crate) filename: RelativePath,
    /// Directory of the context that is built in.
    pub(crate) subdirectory: Option<RelativePath>,
    pub(crate) target: Option<String>,
    pub(crate) arguments: Vec<(String, String)>,
    pub(crate) platform: Option<String>,
}

/// Where the files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// To be tried in this order.
    pub(crate) addresses: Vec<Url>,
    /// For people: without credentials.
    pub(crate) name: String,
    /// Names a commit, whose files never change.
    pub(crate) is_pinned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildPlanError {
    #[error(
        "Missing Dockerfile or context: give build.dockerfile (its text), build.context (an address), or both"
    )]
    Nothing,
    #[error("build.{field} must be {expected}")]
    Type { field: &'static str, expected: &'static str },
    #[error("build.{field}: {why}")]
    Path { field: &'static str, why: BadFileName },
    #[error("Invalid GitHub URL: {0}")]
    GitHub(String),
    #[error("build.context: the commit was to be filled in for `{0}` and was not")]
    MissingRef(String),
    #[error("Unsupported download link: {0} (use http or https)")]
    Scheme(String),
    #[error("build.buildArgs has more than {MAX_BUILD_ARGUMENTS} entries")]
    TooManyArguments,
}

impl BuildPlan {
    /// Name of the image, of this machine alone.
    pub(crate) fn tag(&self) -> String {
        format!("dockframe-build:{}", self.key)
    }

    pub(crate) fn read(block: &Map<String, Value>) -> Result<Self, BuildPlanError> {
        let text = |field: &'static str| match block.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(BuildPlanError::Type { field, expected: "a text" }),
        };
        let path = |field: &'static str| match text(field)? {
            None => Ok(None),
            Some(name) if matches!(name.as_str(), "." | "./" | "/") => Ok(None),
            Some(name) => {
                RelativePath::parse(&name).map(Some).map_err(|why| BuildPlanError::Path { field, why })
            }
        };
        let context = text("context")?.map(|address| Context::read(&address)).transpose()?;
        let dockerfile = text("dockerfile")?;
        if context.is_none() && dockerfile.is_none() {
            return Err(BuildPlanError::Nothing);
        }
        let default =
            RelativePath::parse("Dockerfile").map_err(|why| BuildPlanError::Path { field: "filename", why });
        Ok(Self {
            key: key(block),
            context,
            dockerfile,
            filename: path("filename")?.map_or(default, Ok)?,
            subdirectory: path("buildContext")?,
            target: text("target")?,
            arguments: arguments(block.get("buildArgs"))?,
            platform: text("platform")?,
        })
    }
}

/// SHA-256 of the block with sorted keys and without credentials: these change, and what they open does not.
fn key(block: &Map<String, Value>) -> String {
    let mut block = block.clone();
    if let Some(Value::String(context)) = block.get_mut("context") {
        *context = redact(context);
    }
    let mut value = Value::Object(block);
    value.sort_all_objects();
    hex(&Sha256::digest(value.to_string().as_bytes())).chars().take(32).collect()
}

/// The address without user and password.
pub(crate) fn redact(address: &str) -> String {
    let shown = match address.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            rest[..end]
                .rfind('@')
                .map_or_else(|| address.to_owned(), |at| format!("{scheme}://{}", &rest[at + 1..]))
        }
        None => address.to_owned(),
    };
    // `https:user@host` and `https:\\user@host` are addresses too: then they are shown as they are understood.
    match Url::parse(&shown) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            match url.set_username("").and_then(|()| url.set_password(None)) {
                Ok(()) => url.into(),
                Err(()) => url.scheme().to_owned(),
            }
        }
        _ => shown,
    }
}

fn arguments(value: Option<&Value>) -> Result<Vec<(String, String)>, BuildPlanError> {
    let wrong = || BuildPlanError::Type {
        field: "buildArgs",
        expected: "a list of KEY=VALUE, or an object of texts",
    };
    let arguments: Vec<(String, String)> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                let (name, value) = item.as_str()?.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(name, value)| Some((name.clone(), dockframe_shared::javascript::json::to_text(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    if arguments.len() > MAX_BUILD_ARGUMENTS {
        return Err(BuildPlanError::TooManyArguments);
    }
    Ok(arguments)
}

impl Context {
    fn read(address: &str) -> Result<Self, BuildPlanError> {
        let name = redact(address);
        let is_archive = [".tar.gz", ".tgz", ".zip"].iter().any(|end| address.ends_with(end));
        if !is_archive && address.starts_with("https://") && address.contains("github.com") {
            return Self::github(address, name);
        }
        let url = Url::parse(address).map_err(|_| BuildPlanError::Scheme(shorten(&name)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BuildPlanError::Scheme(shorten(&name)));
        }
        Ok(Self { addresses: vec![url], name, is_pinned: false })
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
        Ok(Self { addresses: addresses.collect::<Result<_, BuildPlanError>>()?, name, is_pinned })
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
    use serde_json::json;

    use super::*;

    fn read(block: Value) -> Result<BuildPlan, BuildPlanError> {
        let Value::Object(block) = block else { panic!("an object") };
        BuildPlan::read(&block)
    }

    fn addresses(context: &str) -> Vec<String> {
        let context = read(json!({"context": context})).unwrap().context.unwrap();
        context.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn credentials_are_not_shown_however_the_address_is_written() {
        for address in [
            "https://user:secret-token@h/x",
            "https:user:secret-token@h/x",
            "https:\\\\user:secret-token@h/x",
            "https:/user:secret-token@github.com/o/r",
            "https://a@user:secret-token@h/x",
        ] {
            let shown = redact(address);
            assert!(!shown.contains("secret") && !shown.contains("user"), "{address}: {shown}");
        }
        assert_eq!(redact("https://github.com/o/r"), "https://github.com/o/r");
    }

    #[test]
    fn the_key_is_the_block_alone_without_credentials() {
        let key = |block: Value| read(block).unwrap().key;
        let context = "https://github.com/me/tool";
        let first = key(json!({"context": context, "target": "a"}));
        assert_eq!(first.len(), 32);
        assert_eq!(first, key(json!({"target": "a", "context": "https://user:tok@github.com/me/tool"})));
        assert_ne!(first, key(json!({"context": context, "target": "b"})));
    }

    /// The recorded vectors, shared with the crate that reads the others.
    fn vectors(kind: &str) -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/tests/vectors/worker-misc.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let list = all[kind].as_array().unwrap().clone();
        assert!(!list.is_empty());
        list
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
    fn credentials_are_removed_as_recorded_and_from_other_hosts_too() {
        for vector in vectors("redact") {
            let (address, recorded) = (vector["in"].as_str().unwrap(), vector["out"].as_str().unwrap());
            match recorded.contains("u:p@") {
                // The existing worker shows those of other hosts.
                true => assert!(!redact(address).contains("u:p"), "{address}"),
                false => assert_eq!(redact(address), recorded),
            }
        }
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

    #[test]
    fn names_stay_in_the_context_and_nothing_secret_is_shown() {
        for block in [
            json!({"dockerfile": "FROM a", "filename": "../x"}),
            json!({"dockerfile": "FROM a", "buildContext": "../.."}),
            json!({"dockerfile": "FROM a", "buildArgs": 5}),
            json!({"dockerfile": 5}),
            json!({"filename": "x"}),
        ] {
            assert!(read(block.clone()).is_err(), "{block}");
        }
        let error = read(json!({"context": "https://me:s3cret@github.com/one"})).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        let plan =
            read(json!({"dockerfile": "FROM a", "buildArgs": {"A": 1, "B": "x=y"}, "buildContext": "./"}))
                .unwrap();
        assert_eq!(plan.arguments, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x=y".to_owned())]);
        assert_eq!((plan.subdirectory, plan.filename.as_str()), (None, "Dockerfile"));
        let list = read(json!({"dockerfile": "FROM a", "buildArgs": ["A=1"]})).unwrap();
        assert_eq!(list.arguments, [("A".to_owned(), "1".to_owned())]);
    }
}
