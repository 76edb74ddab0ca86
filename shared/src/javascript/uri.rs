//! `encodeURIComponent` and `decodeURIComponent`.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What `encodeURIComponent` writes as `%XX`: all but letters, digits and `- _ . ! ~ * ' ( )`.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A `%` that does not begin the encoding of a character: JavaScript throws a `URIError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`%` is not followed by the percent-encoding of a character (write a bare `%` as `%25`)")]
pub struct MalformedPercent;

/// `encodeURIComponent(text)`.
#[must_use]
pub fn encode_component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

/// `decodeURIComponent(text)`.
///
/// # Errors
/// A `%` without two hex digits, or bytes that are not UTF-8.
pub fn decode_component(text: &str) -> Result<Cow<'_, str>, MalformedPercent> {
    let bytes = text.as_bytes();
    let well_formed = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !well_formed {
        return Err(MalformedPercent);
    }
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| MalformedPercent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_are_encoded_and_marks_stay() {
        assert_eq!(encode_component("a b&=?#/é'()*!~-_."), "a%20b%26%3D%3F%23%2F%C3%A9'()*!~-_.");
    }

    #[test]
    fn malformed_sequences_are_errors() {
        for text in ["%", "%2", "%zz", "100%", "%C3", "%ff", "%ed%a0%80", "%+1"] {
            assert_eq!(decode_component(text), Err(MalformedPercent), "{text}");
        }
        assert_eq!(decode_component("a+b%20%C3%a9").unwrap(), "a+b é");
    }
}
