//! What a `build` block means (`worker` 10.3, 10.4). Pure.

mod context;
mod repository;

use dockframe_shared::ids::hex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::Url;

pub(crate) use self::context::{Context, Source};
use self::repository::BadReference;
pub(crate) use self::repository::{Reference, Repository};
use crate::files::names::{BadFileName, RelativePath};

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
    #[error(
        "build.context: git over ssh is not done here, since the worker lends no keys of its owner to a job's \
         author; use https"
    )]
    Ssh,
    #[error("build.context: the ref \"{text}\" cannot be used: {why}")]
    Reference { text: String, why: BadReference },
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
    // What follows is an address of its own.
    let inner = address.trim_start_matches("git+");
    let outer = &address[..address.len() - inner.len()];
    format!("{outer}{}", redact_inner(inner))
}

fn redact_inner(address: &str) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn read(block: Value) -> Result<BuildPlan, BuildPlanError> {
        let Value::Object(block) = block else { panic!("an object") };
        BuildPlan::read(&block)
    }

    #[test]
    fn credentials_are_not_shown_however_the_address_is_written() {
        for address in [
            "https://user:secret-token@h/x",
            "https:user:secret-token@h/x",
            "https:\\\\user:secret-token@h/x",
            "https:/user:secret-token@github.com/o/r",
            "https://a@user:secret-token@h/x",
            "git+https://user:secret-token@h/x.git#main",
            "git+https:///user:secret-token@h/x.git",
            "git+https:user:secret-token@h/x.git",
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
        let repository = |address: &str| key(json!({ "context": address }));
        let first = repository("git+https://h/x#main");
        assert_eq!(first, repository("git+https://user:tok@h/x#main"));
        assert_ne!(first, repository("git+https://h/x#main:sub"));
    }

    /// The recorded vectors, shared with the crate that reads the others.
    pub(super) fn vectors(kind: &str) -> Vec<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/tests/vectors/worker-misc.json");
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let list = all[kind].as_array().unwrap().clone();
        assert!(!list.is_empty());
        list
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
