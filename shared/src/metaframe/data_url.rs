//! Data URLs: what pipes between frames carry (`metaframe` 1.9, 4.2).
//!
//! Any size can be written and read. What a data URL means as a file of a job is [`super::data_ref`]'s business.

use std::borrow::Cow;

use serde_json::Value;

use crate::javascript::base64::{self, NotBase64};
use crate::javascript::json;
use crate::javascript::uri::{self, MalformedPercent, encode_component};

const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";
const URL: &str = "text/x-uri";

/// A data URL taken apart: `data:<media type>;<parameter>…,<payload>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataUrl<'a> {
    header: &'a str,
    /// All after the first comma, as it stands.
    pub payload: &'a str,
}

/// Why a data URL's content cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadContent {
    #[error(transparent)]
    Base64(#[from] NotBase64),
    #[error(transparent)]
    Percent(#[from] MalformedPercent),
    #[error("the content is not JSON: {0}")]
    Json(String),
    #[error("the data URL names no typed array")]
    NoArray,
    #[error("{length} bytes are no whole number of the {size}-byte items of a {array}")]
    Length { array: &'static str, size: usize, length: usize },
}

impl<'a> DataUrl<'a> {
    /// None for a text that does not begin with `data:` or has no comma: a plain text.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (header, payload) = text.strip_prefix("data:")?.split_once(',')?;
        Some(Self { header, payload })
    }

    /// The media type; `application/octet-stream` when it is left out.
    #[must_use]
    pub fn media_type(&self) -> &'a str {
        match self.header.split(';').next() {
            None | Some("") => OCTETS,
            Some(media_type) => media_type,
        }
    }

    /// The parameters as they stand, `base64` among them.
    pub fn parameters(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.header.split(';').skip(1)
    }

    /// The value of the parameter `name=value`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters().find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
    }

    #[must_use]
    pub fn is_base64(&self) -> bool {
        self.parameters().any(|parameter| parameter == "base64")
    }

    #[must_use]
    pub fn is_json(&self) -> bool {
        self.media_type() == JSON
    }

    /// Whether the content is an address.
    #[must_use]
    pub fn is_url(&self) -> bool {
        self.media_type() == URL
    }

    /// The content as bytes.
    ///
    /// # Errors
    /// [`BadContent::Base64`], [`BadContent::Percent`].
    pub fn bytes(&self) -> Result<Vec<u8>, BadContent> {
        if !self.is_base64() {
            return Ok(self.percent_decoded()?.into_owned().into_bytes());
        }
        // Base64 has no `%`, but links may have been encoded on their way.
        let payload =
            if self.payload.contains('%') { self.percent_decoded()? } else { Cow::Borrowed(self.payload) };
        Ok(base64::decode(&payload)?)
    }

    /// The content as a text; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&self) -> Result<Cow<'a, str>, BadContent> {
        if self.is_base64() {
            return Ok(Cow::Owned(String::from_utf8_lossy(&self.bytes()?).into_owned()));
        }
        Ok(self.percent_decoded()?)
    }

    /// The content as JSON, whatever the media type.
    ///
    /// # Errors
    /// As [`Self::bytes`], and [`BadContent::Json`].
    pub fn json(&self) -> Result<Value, BadContent> {
        serde_json::from_str(&self.text()?).map_err(|error| BadContent::Json(error.to_string()))
    }

    /// The address, if it is one.
    ///
    /// # Errors
    /// [`BadContent::Percent`].
    pub fn url(&self) -> Result<Option<Cow<'a, str>>, BadContent> {
        Ok(if self.is_url() { Some(self.percent_decoded()?) } else { None })
    }

    /// Which typed array it is, and its bytes.
    ///
    /// # Errors
    /// As [`Self::bytes`]; [`BadContent::NoArray`], [`BadContent::Length`].
    pub fn typed_array(&self) -> Result<(TypedArray, Vec<u8>), BadContent> {
        let array = self.parameter("type").and_then(TypedArray::named).ok_or(BadContent::NoArray)?;
        let bytes = self.bytes()?;
        let (length, size) = (bytes.len(), array.item_bytes());
        if length % size != 0 {
            return Err(BadContent::Length { array: array.name(), size, length });
        }
        Ok((array, bytes))
    }

    fn percent_decoded(&self) -> Result<Cow<'a, str>, MalformedPercent> {
        uri::decode_component(self.payload)
    }
}

/// The typed arrays of JavaScript; their bytes are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypedArray {
    Int8,
    Uint8,
    Uint8Clamped,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Float32,
    Float64,
    BigInt64,
    BigUint64,
}

impl TypedArray {
    /// All of them, with the name of the constructor and the size of an item in bytes.
    const ALL: [(Self, &'static str, usize); 11] = [
        (Self::Int8, "Int8Array", 1),
        (Self::Uint8, "Uint8Array", 1),
        (Self::Uint8Clamped, "Uint8ClampedArray", 1),
        (Self::Int16, "Int16Array", 2),
        (Self::Uint16, "Uint16Array", 2),
        (Self::Int32, "Int32Array", 4),
        (Self::Uint32, "Uint32Array", 4),
        (Self::Float32, "Float32Array", 4),
        (Self::Float64, "Float64Array", 8),
        (Self::BigInt64, "BigInt64Array", 8),
        (Self::BigUint64, "BigUint64Array", 8),
    ];

    /// By the name of its constructor, such as `Float32Array`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(array, _, _)| *array)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    #[must_use]
    pub fn item_bytes(self) -> usize {
        self.entry().2
    }

    fn entry(self) -> (Self, &'static str, usize) {
        // The table is in the order of the variants; a test checks that.
        Self::ALL[self as usize]
    }
}

/// `data:text/plain;charset=utf-8,…`
#[must_use]
pub fn of_text(text: &str) -> String {
    format!("data:text/plain;charset=utf-8,{}", encode_component(text))
}

/// `data:application/json;charset=utf-8,…`
#[must_use]
pub fn of_json(value: &Value) -> String {
    format!("data:{JSON};charset=utf-8,{}", encode_component(&json::stringify(value)))
}

/// `data:<media type>;base64,…`; an empty media type is `application/octet-stream`.
#[must_use]
pub fn of_bytes(media_type: &str, bytes: &[u8]) -> String {
    with_header(or_octets(media_type), bytes)
}

/// `data:application/octet-stream;type=<array>;base64,…`
#[must_use]
pub fn of_typed_array(array: TypedArray, bytes: &[u8]) -> String {
    with_header(&format!("{OCTETS};type={}", array.name()), bytes)
}

/// `data:<media type>;blob=true;base64,…`: what hosts turn into a `Blob`.
#[must_use]
pub fn of_blob(media_type: &str, bytes: &[u8]) -> String {
    with_header(&format!("{};blob=true", or_octets(media_type)), bytes)
}

/// `data:<media type>;file=true;name=…;lastModified=…;base64,…`: what hosts turn into a `File`.
#[must_use]
pub fn of_file(name: &str, media_type: &str, last_modified_millis: i64, bytes: &[u8]) -> String {
    let (media_type, name) = (or_octets(media_type), encode_component(name));
    with_header(&format!("{media_type};file=true;name={name};lastModified={last_modified_millis}"), bytes)
}

/// `data:text/x-uri;charset=utf-8,…`: the content is at that address.
#[must_use]
pub fn of_url(url: &str) -> String {
    format!("data:{URL};charset=utf-8,{}", encode_component(url))
}

fn or_octets(media_type: &str) -> &str {
    if media_type.is_empty() { OCTETS } else { media_type }
}

fn with_header(header: &str, bytes: &[u8]) -> String {
    format!("data:{header};base64,{}", base64::encode(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_arrays_is_in_the_order_of_the_variants() {
        for (place, (array, name, size)) in TypedArray::ALL.into_iter().enumerate() {
            assert_eq!(array as usize, place);
            assert_eq!((TypedArray::named(name), array.item_bytes()), (Some(array), size));
        }
    }

    #[test]
    fn parameters_may_follow_base64() {
        let url = DataUrl::parse("data:text/plain;base64;type=Blob,aGk=").unwrap();
        assert!(url.is_base64());
        assert_eq!((url.parameter("type"), url.bytes()), (Some("Blob"), Ok(b"hi".to_vec())));
    }

    #[test]
    fn content_larger_than_what_browsers_pass_to_one_call_is_written() {
        let bytes = vec![7; 1 << 20];
        let url = of_typed_array(TypedArray::Uint8, &bytes);
        assert_eq!(DataUrl::parse(&url).unwrap().typed_array(), Ok((TypedArray::Uint8, bytes)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(header in any::<String>(), payload in any::<String>()) {
            let text = format!("data:{header},{payload}");
            let url = DataUrl::parse(&text).unwrap();
            let _ = (url.bytes(), url.text(), url.json(), url.url(), url.typed_array(), url.media_type());
        }

        #[test]
        fn texts_bytes_and_addresses_come_back(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let (plain, address, octets) = (of_text(&text), of_url(&text), of_blob("", &bytes));
            prop_assert_eq!(&*DataUrl::parse(&plain).unwrap().text().unwrap(), text.as_str());
            let there = DataUrl::parse(&address).unwrap().url().unwrap();
            prop_assert_eq!(there.as_deref(), Some(text.as_str()));
            prop_assert_eq!(DataUrl::parse(&octets).unwrap().bytes().unwrap(), bytes);
        }
    }
}
