//! What a data reference of a job means: bytes at hand, or an address to fetch (`worker` 7.1). Pure.

use bytes::Bytes;
use dockframe_shared::ContentHash;
use dockframe_shared::javascript::base64::{self, NotBase64};
use dockframe_shared::javascript::json::{stringify, to_text};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

/// Content of a file, or where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Bytes(Bytes),
    /// To be fetched with GET; `hash` is what the job's author believes the content to be.
    Url {
        url: Url,
        hash: Option<ContentHash>,
    },
    /// In the relay's store under this key.
    Key(String),
}

/// Why a reference has no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadContent {
    #[error("it must be an object such as {{\"type\":\"utf8\",\"value\":\"…\"}}")]
    NotAReference,
    #[error("its type `{0}` is unknown: use utf8, json, base64, url or key")]
    UnknownType(String),
    #[error("its `type` must be a text")]
    TypeNotText,
    #[error("a value of type {kind} must be {expected}")]
    ValueType { kind: &'static str, expected: &'static str },
    #[error("its value cannot be read: {0}")]
    Base64(#[from] NotBase64),
    #[error("its data: address cannot be read")]
    DataUrl,
    #[error("its address cannot be read: {0}")]
    Url(String),
    #[error("addresses of scheme `{0}` are not fetched: use http, https or data")]
    Scheme(String),
    #[error("its key must be one path segment of at most 1024 bytes")]
    Key,
}

/// Longest accepted key of the relay's store.
const MAX_KEY_BYTES: usize = 1024;

impl Content {
    /// Reads one entry of `inputs` or `configFiles`.
    pub(crate) fn read(reference: &Value) -> Result<Self, BadContent> {
        let Value::Object(fields) = reference else { return Err(BadContent::NotAReference) };
        let given = fields.get("value");
        let value = given.unwrap_or(&Value::Null);
        let hash = fields.get("hash").and_then(Value::as_str).and_then(|text| ContentHash::parse(text).ok());
        match fields.get("type").filter(|kind| !kind.is_null()) {
            None => match value {
                Value::String(text) if text.starts_with("data:") => Self::data_url_text(text),
                Value::Object(_) | Value::Array(_) | Value::Number(_) => {
                    Ok(Self::Bytes(stringify(value).into()))
                }
                _ => utf8(given.filter(|value| !value.is_null())),
            },
            Some(Value::String(kind)) => match kind.as_str() {
                "utf8" => utf8(given),
                "json" => Ok(Self::Bytes(stringify(value).into())),
                "base64" => Ok(Self::Bytes(base64::decode(text(value, "base64")?)?.into())),
                "url" => Self::url(text(value, "url")?, hash),
                "key" => {
                    let key = text(value, "key")?;
                    let is_segment =
                        !key.is_empty() && key.len() <= MAX_KEY_BYTES && !matches!(key, "." | "..");
                    if is_segment { Ok(Self::Key(key.to_owned())) } else { Err(BadContent::Key) }
                }
                other => Err(BadContent::UnknownType(other.chars().take(40).collect())),
            },
            Some(_) => Err(BadContent::TypeNotText),
        }
    }

    fn url(text: &str, hash: Option<ContentHash>) -> Result<Self, BadContent> {
        let url = Url::parse(text).map_err(|error| BadContent::Url(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Url { url, hash }),
            "data" => data_url(text).ok_or(BadContent::DataUrl),
            other => Err(BadContent::Scheme(other.to_owned())),
        }
    }

    /// A text that begins `data:`: by the reading rule of pipes (`metaframe` 4.2). What is no such address is text.
    fn data_url_text(text: &str) -> Result<Self, BadContent> {
        let Some((head, payload)) = text["data:".len()..].split_once(',') else {
            return Ok(Self::Bytes(text.to_owned().into()));
        };
        if head.split(';').next() == Some("text/x-uri") {
            let address = percent_decode_str(payload).decode_utf8().map_err(|_| BadContent::DataUrl)?;
            return Self::url(&address, None);
        }
        Ok(data_url(text).unwrap_or_else(|| Self::Bytes(text.to_owned().into())))
    }
}

fn text<'a>(value: &'a Value, kind: &'static str) -> Result<&'a str, BadContent> {
    value.as_str().ok_or(BadContent::ValueType { kind, expected: "a text" })
}

/// The value as JavaScript would print it; a missing one is an empty file.
fn utf8(value: Option<&Value>) -> Result<Content, BadContent> {
    match value {
        None => Ok(Content::Bytes(Bytes::new())),
        Some(other) => to_text(other).map(|text| Content::Bytes(text.into())).ok_or(BadContent::ValueType {
            kind: "utf8",
            expected: "a text (use json for objects and lists)",
        }),
    }
}

fn data_url(text: &str) -> Option<Content> {
    let (head, payload) = text.strip_prefix("data:")?.split_once(',')?;
    let bytes = if head.split(';').skip(1).any(|parameter| parameter.trim() == "base64") {
        let decoded: Vec<u8> = percent_decode_str(payload).collect();
        base64::decode(std::str::from_utf8(&decoded).ok()?).ok()?.into()
    } else {
        percent_decode_str(payload).collect::<Vec<u8>>().into()
    };
    Some(Content::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(reference: &Value) -> Result<String, BadContent> {
        match Content::read(reference)? {
            Content::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            other => panic!("not bytes: {other:?}"),
        }
    }

    #[test]
    fn every_kind_of_inline_content_is_read() {
        for (reference, expected) in [
            (json!({"type": "utf8", "value": "hä"}), "hä"),
            (json!({"type": "utf8"}), ""),
            (json!({"type": "utf8", "value": 5}), "5"),
            (json!({"type": "utf8", "value": 1.5}), "1.5"),
            (json!({"type": "utf8", "value": true}), "true"),
            (json!({"type": "utf8", "value": null}), "null"),
            (json!({"value": null}), ""),
            (json!({"type": "json", "value": {"a": [1, null]}}), r#"{"a":[1,null]}"#),
            (json!({"type": "json"}), "null"),
            (json!({"type": "base64", "value": "aGk="}), "hi"),
            (json!({"type": "base64", "value": " aG\nk "}), "hi"),
            (json!({"value": "plain"}), "plain"),
            (json!({"value": {"a": 1}}), r#"{"a":1}"#),
            (json!({"value": [1]}), "[1]"),
            (json!({"value": "data:text/plain;charset=utf-8,a%20b"}), "a b"),
            (json!({"value": "data:application/octet-stream;base64,aGk="}), "hi"),
            (json!({"value": "data: no comma"}), "data: no comma"),
            (json!({"type": "url", "value": "data:text/plain,x%2Cy"}), "x,y"),
        ] {
            assert_eq!(bytes(&reference).as_deref(), Ok(expected), "{reference}");
        }
    }

    #[test]
    fn addresses_are_read_and_only_fetchable_ones_taken() {
        let hash = ContentHash::of(b"x");
        let reference = json!({"type": "url", "value": "https://a.example/x?y=1", "hash": hash.to_string()});
        let url = Url::parse("https://a.example/x?y=1").unwrap();
        assert_eq!(Content::read(&reference), Ok(Content::Url { url: url.clone(), hash: Some(hash) }));
        let pipe = json!({"value": "data:text/x-uri;charset=utf-8,https%3A%2F%2Fa.example%2Fx%3Fy%3D1"});
        assert_eq!(Content::read(&pipe), Ok(Content::Url { url, hash: None }));
        assert_eq!(Content::read(&json!({"type": "key", "value": "k"})), Ok(Content::Key("k".into())));
        for scheme in ["file:///etc/passwd", "ftp://a/b", "unix:///var/run/docker.sock"] {
            let refused = Content::read(&json!({"type": "url", "value": scheme}));
            assert!(matches!(refused, Err(BadContent::Scheme(_))), "{scheme}: {refused:?}");
        }
    }

    #[test]
    fn what_has_no_content_is_refused_with_a_reason() {
        for reference in [
            json!("text"),
            json!(5),
            json!({"type": "utf8", "value": {"a": 1}}),
            json!({"type": "utf8", "value": []}),
            json!({"type": "base64", "value": 5}),
            json!({"type": "base64", "value": "aGk=="}),
            json!({"type": "base64", "value": "a-_k"}),
            json!({"type": "base64", "value": "ä"}),
            json!({"type": "url", "value": "nonsense"}),
            json!({"type": "key", "value": ".."}),
            json!({"type": "nope", "value": ""}),
            json!({"type": 7}),
        ] {
            let refused = Content::read(&reference);
            assert!(refused.is_err(), "{reference}: {refused:?}");
        }
    }
}
