//! The hash of a page's address, written as any other client would write it (`metaframe` 3.3), without a line of the
//! product's own codec: one checks the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What JavaScript's `encodeURIComponent` leaves as it is, beside letters and digits.
const ENCODE_URI_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// JSON as a parameter: base64 of the percent-encoded text.
#[must_use]
pub fn json(value: &Value) -> String {
    STANDARD.encode(utf8_percent_encode(&value.to_string(), ENCODE_URI_COMPONENT).to_string())
}

/// Parameters to a hash, `#?` included.
#[must_use]
pub fn hash(parameters: &[(&str, &str)]) -> String {
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("#?{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_writes_what_the_existing_service_wrote() {
        let job = serde_json::json!({"command": "python -c 'print(\"help\")'", "image": "python:3.12.1-alpine3.19"});
        let written = json(&job);
        assert!(written.starts_with("JTdC") && written.ends_with("N0Q="), "{written}");
    }
}
