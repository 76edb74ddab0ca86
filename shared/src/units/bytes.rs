//! Sizes such as `2g`, `64 MiB`, `512` (`worker` 8.2).
//!
//! All units are powers of 1024. An existing program read `2g` as two bytes; here it is what its writer meant.

use serde_json::Value;

use super::decimal;
use crate::javascript::json;

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size \"{text}\": {why} (write a number and a unit, such as `512m`, `2g`, `64 MiB`)")]
pub struct InvalidSize {
    /// What was given, shortened to [`InvalidSize::SHOWN`] characters.
    pub text: String,
    why: &'static str,
}

impl InvalidSize {
    /// How much of the text is repeated in the message.
    pub const SHOWN: usize = 100;

    fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.chars().take(Self::SHOWN).collect(), why }
    }
}

/// Largest size that the Engine can take: it counts in signed 64-bit integers.
const MAX: f64 = i64::MAX as f64;

/// Bytes, more than zero: a number (an optional sign, digits, an optional fraction), spaces, and one of
/// `b k kb ki kib m mb … p pb pi pib` in any case; without unit bytes.
///
/// # Errors
/// Anything else; zero and negative sizes; 2⁶³ and more.
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number = signed(number).ok_or_else(|| InvalidSize::new(text, "it does not begin with a number"))?;
    let unit = unit_bytes(unit.trim_start()).ok_or_else(|| InvalidSize::new(text, "unknown unit"))?;
    let bytes = (number * unit).floor();
    if bytes < 1.0 {
        return Err(InvalidSize::new(text, "a size must be at least one byte"));
    }
    if bytes >= MAX {
        return Err(InvalidSize::new(text, "too large"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, between 1 and 2^63")]
    Ok(bytes as u64)
}

/// A size from a job's field: a number is bytes; missing, `null` and `""` are none.
///
/// # Errors
/// As [`parse`]; also a value that is neither text nor number.
pub fn size_of(value: Option<&Value>) -> Result<Option<u64>, InvalidSize> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => parse(text).map(Some),
        Some(number @ Value::Number(_)) => parse(&json::to_text(number).unwrap_or_default()).map(Some),
        Some(other) => Err(InvalidSize::new(&json::stringify(other), "neither a text nor a number")),
    }
}

/// The size as [`parse`] reads it, exactly: in the largest unit that divides it.
#[must_use]
pub fn print(bytes: u64) -> String {
    let units = ["PiB", "TiB", "GiB", "MiB", "KiB"];
    for (power, unit) in (1..=5).rev().zip(units) {
        let size = 1024u64.pow(power);
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{} {unit}", bytes / size);
        }
    }
    format!("{bytes} B")
}

/// `-`, `+` or nothing, digits, and a fraction with digits if there is a point.
fn signed(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    decimal(digits).map(|size| sign * size)
}

fn unit_bytes(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return None,
    };
    Some(1024f64.powi(power))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn units_mean_what_people_mean() {
        for text in ["2g", "2G", "2gb", "2 GiB", " 2gi ", "2147483648", "2097152k", "+2g"] {
            assert_eq!(parse(text), Ok(2 << 30), "{text}");
        }
        assert_eq!(parse("1.5m"), Ok(3 << 19));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "abc", "0", "-1mb", "1,5gb", "1e3", "1.", ".5g", "2 g b", "2gx", "9999999999p", "--1"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("8191p").is_ok() && parse("8192p").is_err());
    }

    #[test]
    fn a_jobs_size_may_be_missing_a_text_or_a_number() {
        assert_eq!(size_of(None), Ok(None));
        assert_eq!(size_of(Some(&json!(null))), Ok(None));
        assert_eq!(size_of(Some(&json!(512))), Ok(Some(512)));
        assert_eq!(size_of(Some(&json!("64m"))), Ok(Some(64 << 20)));
        assert!(size_of(Some(&json!(true))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_printed_reads_the_same(bytes in 1..1u64 << 53) {
            prop_assert_eq!(parse(&print(bytes)), Ok(bytes));
        }
    }
}
