//! Data references: a file's content, or where it is (`metaframe` 4).
//!
//! Values that come in another form are read here too: data URLs (4.2) and the objects of older frames (4.3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::data_url::{BadContent, DataUrl};
use crate::ids::ContentHash;
use crate::javascript::json::is_truthy;
use crate::javascript::uri::{self, MalformedPercent};
use crate::javascript::{base64, json};

/// First-generation reference: the form inside jobs and results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DataRef {
    #[serde(default)]
    pub value: Value,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DataRefKind>,
    /// SHA-256 of the content when known, hex; a hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataRefKind {
    Utf8,
    Json,
    Base64,
    Url,
    Key,
}

impl DataRefKind {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "utf8" => Self::Utf8,
            "json" => Self::Json,
            "base64" => Self::Base64,
            "url" => Self::Url,
            "key" => Self::Key,
            _ => return None,
        })
    }
}

/// What a reference comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// The reference holds it.
    Bytes(Cow<'a, [u8]>),
    /// The body of a GET, redirects followed. Never a `data:` URL; the scheme is for the caller to judge.
    At(Cow<'a, str>),
    /// A key in the relay's blob store: `<API origin>/f/<key>`.
    Key(&'a str),
}

/// A reference that names no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDataRef {
    #[error("the value of a {0} reference must be a text")]
    NotText(&'static str),
    #[error("an object or a list is no text (use the type `json` for it)")]
    NoText,
    #[error(transparent)]
    Content(#[from] BadContent),
}

impl DataRef {
    fn new(kind: DataRefKind, value: impl Into<Value>) -> Self {
        Self { value: value.into(), kind: Some(kind), hash: None }
    }

    #[must_use]
    pub fn utf8(text: impl Into<String>) -> Self {
        Self::new(DataRefKind::Utf8, text.into())
    }

    #[must_use]
    pub fn json(value: Value) -> Self {
        Self::new(DataRefKind::Json, value)
    }

    /// `encoded` is base64 already.
    #[must_use]
    pub fn base64(encoded: impl Into<String>) -> Self {
        Self::new(DataRefKind::Base64, encoded.into())
    }

    /// The bytes, inline.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::base64(base64::encode(bytes))
    }

    #[must_use]
    pub fn url(url: impl Into<String>) -> Self {
        Self::new(DataRefKind::Url, url.into())
    }

    /// Content that was stored at a relay under its hash.
    #[must_use]
    pub fn stored(url: impl Into<String>, hash: &ContentHash) -> Self {
        Self { hash: Some(hash.to_string()), ..Self::url(url) }
    }

    /// A text by the rule for pipe values (`metaframe` 4.2): none if it is not a data URL.
    ///
    /// # Errors
    /// A percent sequence that cannot be decoded; such a text is taken as it stands, and reported.
    pub fn from_data_url(text: &str) -> Result<Option<Self>, MalformedPercent> {
        let Some(url) = DataUrl::parse(text) else { return Ok(None) };
        let decoded = || uri::decode_component(url.payload).map(Cow::into_owned);
        Ok(Some(if url.is_url() {
            Self::url(decoded()?)
        } else if url.is_base64() {
            Self::base64(url.payload)
        } else {
            let text = decoded()?;
            match url.is_json().then(|| serde_json::from_str(&text)) {
                Some(Ok(value)) => Self::json(value),
                _ => Self::utf8(text),
            }
        }))
    }

    /// An object that is a reference by `metaframe` 4.1 (a known `type` and a truthy `value`) or 4.3 (the objects
    /// of older frames). Every other object is plain JSON.
    #[must_use]
    pub fn from_object(object: &Map<String, Value>) -> Option<Self> {
        let value = object.get("value").filter(|value| is_truthy(value))?;
        let kind = |field| object.get(field).and_then(Value::as_str).and_then(DataRefKind::named);
        if let Some(kind) = kind("type") {
            let hash = object.get("hash").and_then(Value::as_str).map(str::to_owned);
            return Some(Self { hash, ..Self::new(kind, value.clone()) });
        }
        if object.get("_s") == Some(&Value::Bool(true)) && value.is_string() {
            return Some(Self::new(DataRefKind::Base64, value.clone()));
        }
        kind("ref").map(|kind| Self::new(kind, value.clone()))
    }

    /// An entry of a job's `inputs` or `configFiles`, if it is a reference at all. Unknown fields are left out.
    #[must_use]
    pub fn try_from_entry(entry: &Value) -> Option<Self> {
        Self::deserialize(entry.as_object()?).ok()
    }

    /// What the reference comes to (`worker` 7.1).
    ///
    /// A missing value is an empty file. Without a type a text is a text, unless it is a data URL, and everything
    /// else is JSON.
    ///
    /// # Errors
    /// [`BadDataRef`]: a value of the wrong type, or one that does not decode.
    pub fn content(&self) -> Result<Content<'_>, BadDataRef> {
        let text = |kind| self.value.as_str().ok_or(BadDataRef::NotText(kind));
        let owned = |bytes: Vec<u8>| Content::Bytes(Cow::Owned(bytes));
        match (self.kind, &self.value) {
            (None, Value::String(text)) => match DataUrl::parse(text) {
                None => Ok(Content::Bytes(Cow::Borrowed(text.as_bytes()))),
                Some(url) => content_of(&url),
            },
            (None | Some(DataRefKind::Utf8), Value::Null) => Ok(Content::Bytes(Cow::Borrowed(&[]))),
            (None | Some(DataRefKind::Json), value) => Ok(owned(json::stringify(value).into_bytes())),
            (Some(DataRefKind::Utf8), Value::String(text)) => {
                Ok(Content::Bytes(Cow::Borrowed(text.as_bytes())))
            }
            (Some(DataRefKind::Utf8), value) => {
                json::to_text(value).map(|text| owned(text.into_bytes())).ok_or(BadDataRef::NoText)
            }
            (Some(DataRefKind::Base64), _) => {
                Ok(owned(base64::decode(text("base64")?).map_err(BadContent::from)?))
            }
            (Some(DataRefKind::Url), _) => {
                let url = text("url")?;
                DataUrl::parse(url).map_or(Ok(Content::At(Cow::Borrowed(url))), |url| content_of(&url))
            }
            (Some(DataRefKind::Key), _) => Ok(Content::Key(text("key")?)),
        }
    }
}

fn content_of<'a>(url: &DataUrl<'a>) -> Result<Content<'a>, BadDataRef> {
    match url.url()? {
        // One step only: an address inside an address inside an address leads nowhere.
        Some(address) => Ok(Content::At(address)),
        None => Ok(Content::Bytes(Cow::Owned(url.bytes()?))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bytes(reference: Value) -> Result<Vec<u8>, BadDataRef> {
        let reference: DataRef = serde_json::from_value(reference).unwrap();
        match reference.content()? {
            Content::Bytes(bytes) => Ok(bytes.into_owned()),
            other => panic!("{other:?} holds no bytes"),
        }
    }

    #[test]
    fn every_inline_form_gives_its_bytes() {
        for (reference, expected) in [
            (json!({"type": "utf8", "value": "é"}), "é"),
            (json!({"type": "utf8"}), ""),
            (json!({"type": "utf8", "value": 1.0}), "1"),
            (json!({"type": "json", "value": {"b": 1, "1": [null]}}), r#"{"1":[null],"b":1}"#),
            (json!({"type": "base64", "value": " aGk"}), "hi"),
            (json!({"value": "plain"}), "plain"),
            (json!({"value": "data:,a%20b"}), "a b"),
            (json!({"value": "data:nocomma"}), "data:nocomma"),
            (json!({"value": [1, 2]}), "[1,2]"),
            (json!({"type": "url", "value": "data:;base64,aGk="}), "hi"),
        ] {
            assert_eq!(bytes(reference.clone()).as_deref(), Ok(expected.as_bytes()), "{reference}");
        }
    }

    #[test]
    fn a_reference_that_names_no_content_says_why() {
        for reference in [
            json!({"type": "base64", "value": "a"}),
            json!({"type": "base64"}),
            json!({"type": "url", "value": {}}),
            json!({"type": "key", "value": 1}),
            json!({"type": "utf8", "value": {}}),
            json!({"value": "data:,%"}),
        ] {
            assert!(bytes(reference.clone()).is_err(), "{reference}");
        }
    }

    #[test]
    fn addresses_and_keys_are_left_to_the_caller() {
        assert_eq!(DataRef::url("https://h/f").content(), Ok(Content::At("https://h/f".into())));
        let in_data = DataRef { value: json!("data:text/x-uri,https%3A%2F%2Fh"), ..DataRef::default() };
        assert_eq!(in_data.content(), Ok(Content::At("https://h".into())));
        assert_eq!(DataRef::new(DataRefKind::Key, "k").content(), Ok(Content::Key("k")));
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "(data:)?\\PC*", kind in prop::sample::select(vec!["utf8", "json", "base64", "url", "key"])) {
            let _ = DataRef::from_data_url(&text);
            let reference = DataRef { kind: DataRefKind::named(kind), ..DataRef::utf8(text) };
            let _ = reference.content();
        }
    }
}
