//! What names a job: the SHA-256 of its definition's canonical form (`jobs-and-states` 2).
//!
//! A fixed list of fields is taken, so that what pages and tools add does not change a job's name. Types are not
//! checked: a `command` given as a list has an id too. Peers and saved addresses depend on every byte.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::definition::Definition;
use crate::ids::JobId;
use crate::javascript::json::{is_truthy, write, write_entries};
use crate::javascript::text::NameOrder;
use crate::javascript::url::HttpUrl;

/// Fields taken as they are unless `null`.
const SCALARS: [&str; 8] =
    ["v", "image", "command", "entrypoint", "workdir", "shmSize", "maxDuration", "tags"];
const BUILD: [&str; 7] =
    ["context", "buildContext", "filename", "target", "dockerfile", "buildArgs", "platform"];
const REQUIREMENTS: [&str; 4] = ["cpus", "gpus", "maxDuration", "memory"];

/// From here on a URL is a signature that differs each time.
const PRESIGNED: &str = "/presignedurl/";
/// The one host whose search is a signature.
const PRESIGNING_HOST: &str = "https://metaframe-asman-test.s3.us-west-1.amazonaws.com";

/// The job's id: lower-case hex SHA-256 of [`canonical_definition`].
#[must_use]
pub fn job_id(definition: &Definition) -> JobId {
    let digest: [u8; 32] = Sha256::digest(canonical_definition(definition).as_bytes()).into();
    JobId::from_digest(&digest)
}

/// Names of environment variables that embedding pages add to an address; some differ on every load.
#[must_use]
pub fn is_parent_name(name: &str) -> bool {
    name.starts_with("mp-")
        || name.starts_with("mp_")
        || matches!(name, "channel" | "CHANNEL" | "readonly" | "edit" | "parent-metapage-id" | "fs-path")
}

/// The canonical text that the id is the hash of.
#[must_use]
pub fn canonical_definition(definition: &Definition) -> String {
    let scalars = SCALARS.map(|name| (name, definition.get(name).map(Part::Whole)));
    let objects = [
        ("build", picked(definition.get("build"), &BUILD)),
        ("requirements", picked(definition.get("requirements"), &REQUIREMENTS)),
        ("env", env(definition.get("env"))),
        ("inputs", files(definition.get("inputs"))),
        ("configFiles", files(definition.get("configFiles"))),
    ];
    let parts = scalars.into_iter().chain(objects);
    let parts = parts.filter_map(|(name, part)| Some((name, part?))).collect();
    let mut out = String::new();
    write_entries(&mut out, parts, NameOrder::Utf16, |out, part| part.write(out));
    out
}

/// A field of the canonical object.
enum Part<'a> {
    Whole(&'a Value),
    Fields(Vec<(&'a str, &'a Value)>),
    Files(Vec<(&'a str, File<'a>)>),
}

impl Part<'_> {
    fn write(self, out: &mut String) {
        match self {
            Self::Whole(value) => write(out, value, NameOrder::Utf16),
            Self::Fields(fields) => write_fields(out, fields),
            Self::Files(files) => write_entries(out, files, NameOrder::Utf16, |out, file| {
                let value = file.value.as_deref().map(|value| ("value", value));
                let kind = file.kind.map(|kind| ("type", kind));
                write_fields(out, value.into_iter().chain(kind).collect());
            }),
        }
    }
}

fn write_fields(out: &mut String, fields: Vec<(&str, &Value)>) {
    write_entries(out, fields, NameOrder::Utf16, |out, value| write(out, value, NameOrder::Utf16));
}

/// An entry of `inputs` or `configFiles`: its hash, and all else, is dropped.
struct File<'a> {
    value: Option<Cow<'a, Value>>,
    kind: Option<&'a Value>,
}

fn picked<'a>(object: Option<&'a Value>, names: &[&'a str]) -> Option<Part<'a>> {
    let object = object.filter(|value| is_truthy(value))?;
    let field = |name: &&'a str| Some((*name, object.get(*name).filter(|value| !value.is_null())?));
    let fields: Vec<_> = names.iter().filter_map(field).collect();
    (!fields.is_empty()).then_some(Part::Fields(fields))
}

fn env(env: Option<&Value>) -> Option<Part<'_>> {
    let names = env?.as_object()?.iter().filter(|(name, _)| !is_parent_name(name));
    let fields: Vec<_> = names.map(|(name, value)| (name.as_str(), value)).collect();
    (!fields.is_empty()).then_some(Part::Fields(fields))
}

fn files(files: Option<&Value>) -> Option<Part<'_>> {
    let files: Vec<_> =
        files?.as_object()?.iter().map(|(name, entry)| (name.as_str(), file(entry))).collect();
    (!files.is_empty()).then_some(Part::Files(files))
}

fn file(entry: &Value) -> File<'_> {
    let kind = entry.get("type").filter(|kind| !kind.is_null());
    let value = entry.get("value").map(|value| match value.as_str() {
        Some(url) if kind.and_then(Value::as_str) == Some("url") => match without_signature(url) {
            Cow::Borrowed(same) if same.len() == url.len() => Cow::Borrowed(value),
            shorter => Cow::Owned(Value::from(shorter)),
        },
        _ => Cow::Borrowed(value),
    });
    File { value, kind }
}

/// The part of a URL that names the content. Only these two forms are known; other URLs stay whole.
fn without_signature(url: &str) -> Cow<'_, str> {
    if let Some((content, _)) = url.split_once(PRESIGNED) {
        return Cow::Borrowed(content);
    }
    if url.starts_with(PRESIGNING_HOST)
        && let Some(HttpUrl { origin, path }) = HttpUrl::parse(url)
        // Otherwise it was the name of a user at another host.
        && origin.starts_with(PRESIGNING_HOST)
    {
        return Cow::Owned(origin + &path);
    }
    Cow::Borrowed(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    fn id(value: &Value) -> JobId {
        job_id(&Definition(value.as_object().unwrap().clone()))
    }

    #[test]
    fn nothing_but_the_content_of_a_url_counts() {
        let with = |url: &str| json!({"inputs": {"f": {"type": "url", "value": url}}});
        assert_eq!(id(&with("https://h/f/1/presignedurl/a")), id(&with("https://h/f/1/presignedurl/b?c#d")));
        assert_eq!(
            id(&with(&format!("{PRESIGNING_HOST}/a b?sig=1#x"))),
            id(&with(&format!("{PRESIGNING_HOST}/a%20b")))
        );
        assert_ne!(id(&with("https://h/f?a")), id(&with("https://h/f?b")));
    }

    #[test]
    fn wrong_types_have_an_id_and_do_not_panic() {
        for odd in [json!(null), json!("text"), json!(7), json!(true), json!([1]), json!({"a": [null, "x"]})]
        {
            for field in ["v", "build", "requirements", "env", "inputs", "configFiles"] {
                assert!(id(&json!({ field: odd })).is_digest());
            }
            assert!(id(&json!({"inputs": {"f": odd}})).is_digest());
            assert!(id(&json!({"inputs": {"f": {"type": "url", "value": odd}}})).is_digest());
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn any_definition() -> impl Strategy<Value = Map<String, Value>> {
        let name = prop::sample::select(vec![
            "v",
            "image",
            "command",
            "tags",
            "build",
            "requirements",
            "env",
            "inputs",
            "configFiles",
            "maxDuration",
        ]);
        let file = (any_json(), prop::sample::select(vec!["url", "utf8", "json"]))
            .prop_map(|(value, kind)| json!({"value": value, "type": kind}));
        let files = prop::collection::vec((".{0,4}", file), 0..4)
            .prop_map(|entries| Value::Object(entries.into_iter().collect()));
        prop::collection::vec((name, prop_oneof![any_json(), files]), 0..8)
            .prop_map(|entries| entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect(),
            ),
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(definition in any_definition()) {
            let value = Value::Object(definition);
            prop_assert_eq!(id(&value), id(&reversed(&value)));
        }

        #[test]
        fn unknown_fields_and_nulls_do_not_matter(definition in any_definition(), extra in any_json()) {
            let before = job_id(&Definition(definition.clone()));
            let mut more = definition;
            for name in ["control", "debug", "id", "unknown", "Image"] {
                more.insert(name.to_owned(), extra.clone());
            }
            more.entry("workdir").or_insert(Value::Null);
            prop_assert_eq!(job_id(&Definition(more)), before);
        }

        #[test]
        fn the_canonical_text_is_json_and_its_own_canonical_form(value in any_json()) {
            let text = crate::job::canonical::canonical_json(&value);
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(crate::job::canonical::canonical_json(&back), text);
        }

        #[test]
        fn another_command_is_another_job(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(id(&json!({"command": a})) == id(&json!({"command": b})), a == b);
        }
    }
}
