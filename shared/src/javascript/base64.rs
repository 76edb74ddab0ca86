//! Base64 as browsers read and write it: `btoa`, `atob` ("forgiving base64" of the Infra standard).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{self, GeneralPurpose, GeneralPurposeConfig};

/// Padding may be missing, and what the last character carries beyond the last byte is ignored.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A text that is not base64: JavaScript throws an `InvalidCharacterError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is not base64 (letters, digits, `+`, `/`, and `=` at the end)")]
pub struct NotBase64;

/// Standard alphabet, padded.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}

/// Length of what [`encode`] gives for so many bytes.
#[must_use]
pub const fn encoded_length(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

/// ASCII white space is dropped and padding may be missing; wrong padding, the URL-safe alphabet and all other
/// characters are errors.
///
/// # Errors
/// [`NotBase64`].
pub fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    let is_space = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0c | b'\r' | b' ');
    let stripped: Vec<u8>;
    let bytes = if text.bytes().any(|byte| is_space(&byte)) {
        stripped = text.bytes().filter(|byte| !is_space(byte)).collect();
        stripped.as_slice()
    } else {
        text.as_bytes()
    };
    FORGIVING.decode(bytes).map_err(|_| NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_forgives_what_browsers_forgive() {
        for text in ["aGVsbG8=", "aGVsbG8", "aGVs\n bG8=\t", "aGVsbG9="] {
            assert_eq!(decode(text).as_deref(), Ok(b"hello".as_slice()), "{text:?}");
        }
        assert_eq!(decode(" "), Ok(vec![]));
    }

    #[test]
    fn decoding_refuses_what_browsers_refuse() {
        for text in
            ["a", "aGVsbG8==", "aGVsbG8=x", "aGVs=", "=", "====", "aGVs-G8_", "!!!", "é", "aGVsb\u{a0}G8="]
        {
            assert_eq!(decode(text), Err(NotBase64), "{text:?}");
        }
    }

    #[test]
    fn the_encoded_length_is_known_beforehand() {
        for length in 0..40 {
            assert_eq!(encode(&vec![7; length]).len(), encoded_length(length));
        }
    }
}
