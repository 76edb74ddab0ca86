//! The parameters in an address's fragment (`metaframe` 3): `#prefix?key=value&…`.
//!
//! Keys and values are neither percent-decoded when read nor encoded when written. Writing sorts the parameters;
//! prefix and unknown parameters survive. What the parameters mean is the business of [`super::settings`].

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use crate::javascript::base64::{self, NotBase64};
use crate::javascript::json;
use crate::javascript::text::{NameOrder, sort_by_name};
use crate::javascript::uri::{self, MalformedPercent};
use crate::job::canonical::canonical_json;

/// The parameters of one fragment.
///
/// `Display` gives the fragment without `#`, or exactly the text that was parsed while nothing was changed. It is for
/// addresses alone: the queue's name in it is a secret, so `Debug` shows only the names of the parameters.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HashParams {
    text: String,
    prefix: String,
    /// In order of first appearance, each key once, with its last value.
    params: Vec<(String, String)>,
}

/// Why the value of a parameter cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error(transparent)]
    Base64(#[from] NotBase64),
    #[error(transparent)]
    Percent(#[from] MalformedPercent),
    #[error("the decoded text is not JSON: {0}")]
    Json(String),
    /// It can be read, but is not what this parameter must be.
    #[error("{0}")]
    Shape(String),
}

impl HashParams {
    /// Takes a fragment apart, with or without its `#`. Every text is a fragment.
    #[must_use]
    pub fn parse(hash: &str) -> Self {
        let (prefix, segments) = hash
            .trim_start_matches('#')
            .split_once('?')
            .unwrap_or_else(|| (hash.trim_start_matches('#'), ""));
        let mut params: Vec<(String, String)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for segment in segments.split('&').filter(|segment| !segment.is_empty()) {
            let (key, value) = segment.split_once('=').unwrap_or((segment, ""));
            let place = *places.entry(key).or_insert(params.len());
            match params.get_mut(place) {
                Some((_, earlier)) => value.clone_into(earlier),
                None => params.push((key.to_owned(), value.to_owned())),
            }
        }
        Self { text: hash.to_owned(), prefix: prefix.to_owned(), params }
    }

    /// Everything before the first `?`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The value as it stands in the address, undecoded.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All parameters in order of first appearance.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Exactly `true` is true; everything else is false.
    #[must_use]
    pub fn boolean(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }

    /// A text that was written as base64. Missing and empty are none.
    ///
    /// # Errors
    /// [`BadValue::Base64`], [`BadValue::Percent`].
    pub fn base64(&self, key: &str) -> Result<Option<String>, BadValue> {
        self.get(key).filter(|value| !value.is_empty()).map(decode_text).transpose()
    }

    /// A JSON value. Missing and empty are none.
    ///
    /// # Errors
    /// As [`Self::base64`], and [`BadValue::Json`].
    pub fn json(&self, key: &str) -> Result<Option<Value>, BadValue> {
        self.get(key).filter(|value| !value.is_empty()).map(decode_json).transpose()
    }

    /// Sets the parameter, or deletes it. An equal value changes nothing, not even the order; everything else
    /// writes the fragment anew, sorted. Whether the text changed.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> bool {
        if value.is_some() && self.get(key) == value {
            return false;
        }
        let mut params: Vec<(&str, &str)> = self.iter().filter(|(name, _)| *name != key).collect();
        params.extend(value.map(|value| (key, value)));
        sort_by_name(&mut params, NameOrder::Utf16, |(name, _)| name);
        let mut written = self.prefix.clone();
        for (index, (key, value)) in params.into_iter().enumerate() {
            written.push(if index == 0 { '?' } else { '&' });
            written.push_str(key);
            written.push('=');
            written.push_str(value);
        }
        let changed = written != self.text;
        // Read back, since a value that holds `&` becomes several parameters in the address.
        *self = Self::parse(&written);
        changed
    }

    /// [`Self::set`] with base64 of the percent-encoded text.
    pub fn set_base64(&mut self, key: &str, value: &str) -> bool {
        self.set(key, Some(&encode_text(value)))
    }

    /// [`Self::set`] with the value's canonical JSON; `null`, `false`, `0` and `""` delete.
    pub fn set_json(&mut self, key: &str, value: &Value) -> bool {
        let encoded = json::is_truthy(value).then(|| encode_json(value));
        self.set(key, encoded.as_deref())
    }

    /// [`Self::set`] with `true`; false deletes.
    pub fn set_boolean(&mut self, key: &str, value: bool) -> bool {
        self.set(key, value.then_some("true"))
    }
}

impl fmt::Display for HashParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HashParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.params.iter().map(|(key, _)| key)).finish()
    }
}

/// Base64 of `encodeURIComponent(text)`.
#[must_use]
pub fn encode_text(text: &str) -> String {
    base64::encode(uri::encode_component(text).as_bytes())
}

/// What [`encode_text`] wrote; also if the result was percent-encoded once more.
///
/// # Errors
/// [`BadValue::Base64`], [`BadValue::Percent`]: those of the second way of reading.
pub fn decode_text(encoded: &str) -> Result<String, BadValue> {
    decode_plain(encoded).or_else(|_| decode_plain(&uri::decode_component(encoded)?))
}

fn decode_plain(encoded: &str) -> Result<String, BadValue> {
    // A browser's `atob` gives one character per byte, and that is what gets percent-decoded.
    let text: String = base64::decode(encoded)?.into_iter().map(char::from).collect();
    Ok(uri::decode_component(&text)?.into_owned())
}

/// [`encode_text`] of the value's canonical JSON.
#[must_use]
pub fn encode_json(value: &Value) -> String {
    encode_text(&canonical_json(value))
}

/// What [`encode_json`] wrote.
///
/// # Errors
/// As [`decode_text`], and [`BadValue::Json`].
pub fn decode_json(encoded: &str) -> Result<Value, BadValue> {
    serde_json::from_str(&decode_text(encoded)?).map_err(|error| BadValue::Json(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn prefix_and_unknown_parameters_survive_an_edit() {
        let mut params = HashParams::parse("#/queue/1?z=%20&B=1&queue=a");
        assert!(params.set("queue", Some("b")));
        assert_eq!(params.to_string(), "/queue/1?B=1&queue=b&z=%20");
        assert!(!params.set("queue", Some("b")));
    }

    #[test]
    fn values_are_not_shown_by_accident() {
        assert_eq!(format!("{:?}", HashParams::parse("/secret?queue=secret&a=secret")), r#"{"queue", "a"}"#);
    }

    #[test]
    fn an_equal_value_leaves_the_text_as_it_was() {
        let mut params = HashParams::parse("#?b=2&a=1");
        assert!(!params.set("a", Some("1")));
        assert_eq!(params.to_string(), "#?b=2&a=1");
    }

    #[test]
    fn a_repeated_name_stands_at_its_first_place_with_its_last_value() {
        let params = HashParams::parse("?a=1&b=2&a=3");
        assert_eq!(params.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let params = HashParams::parse("?a=!!!&b=%25%25%25&c=bm90anNvbg==&d=&e=JQ==");
        assert!(matches!(params.json("a"), Err(BadValue::Base64(_))));
        assert!(matches!(params.json("b"), Err(BadValue::Base64(_))));
        assert!(matches!(params.json("c"), Err(BadValue::Json(_))));
        assert_eq!(params.json("d"), Ok(None));
        assert!(matches!(params.base64("e"), Err(BadValue::Base64(_) | BadValue::Percent(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_fragment_and_is_kept(hash in any::<String>(), key in any::<String>()) {
            let params = HashParams::parse(&hash);
            prop_assert_eq!(params.to_string(), hash);
            let _ = (params.boolean(&key), params.base64(&key), params.json(&key));
        }

        #[test]
        fn what_is_written_reads_the_same(hash in "[#/?a-c=&%é]{0,24}", key in "[a-cé]{1,2}", value in "[a-c=?#%é]{0,6}") {
            let mut params = HashParams::parse(&hash);
            let others: Vec<_> = params.iter().filter(|(name, _)| *name != key).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            params.set(&key, Some(&value));
            let again = HashParams::parse(&params.to_string());
            prop_assert_eq!(again.get(&key), Some(value.as_str()));
            let before = HashParams::parse(&hash);
            prop_assert_eq!(again.prefix(), before.prefix());
            for (name, value) in others {
                prop_assert_eq!(again.get(&name), Some(value.as_str()));
            }
        }

        #[test]
        fn texts_come_back_as_they_went_in(text in any::<String>()) {
            prop_assert_eq!(decode_text(&encode_text(&text)), Ok(text.clone()));
            // Links are sometimes encoded once more on their way.
            prop_assert_eq!(decode_text(&uri::encode_component(&encode_text(&text))), Ok(text));
        }

        #[test]
        fn no_text_makes_decoding_panic(text in any::<String>()) {
            let _ = decode_json(&text);
        }

        #[test]
        fn json_comes_back_as_it_went_in(text in ".{0,8}", number in -1e9..1e9f64) {
            let value = json!({"b": text, "a": [number, null, true]});
            prop_assert_eq!(decode_json(&encode_json(&value)), Ok(value));
        }
    }
}
