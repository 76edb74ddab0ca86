//! Time spans such as `5m`, `1h30`, `2 days` (`worker` 2.6).
//!
//! The grammar is lenient and fixed: saved jobs rely on it. [`parse`] is the grammar alone; [`parse_limit`] is
//! what a time limit must be.

use std::time::Duration;

use serde_json::Value;

use super::decimal;
use crate::javascript::json;

/// A text that is no time limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration \"{text}\": {why} (write a number and a unit, such as `30s`, `5m`, `1h30m`, `2d`)")]
pub struct InvalidDuration {
    /// What was given, shortened to [`InvalidDuration::SHOWN`] characters.
    pub text: String,
    why: &'static str,
}

impl InvalidDuration {
    /// How much of the text is repeated in the message.
    pub const SHOWN: usize = 100;

    fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.chars().take(Self::SHOWN).collect(), why }
    }
}

const MINUTE: f64 = 60.0 * 1000.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
const YEAR: f64 = 365.25 * DAY;

/// Milliseconds of each unit, largest first, with its names; each may also have an `s`.
const UNITS: [(f64, &[&str]); 10] = [
    (YEAR, &["y", "yr", "year"]),
    (YEAR / 12.0, &["mo", "mth", "month"]),
    (7.0 * DAY, &["w", "wk", "week"]),
    (DAY, &["d", "day"]),
    (HOUR, &["h", "hr", "hour"]),
    (MINUTE, &["m", "min", "minute"]),
    (1000.0, &["s", "sec", "second"]),
    (1.0, &["ms", "millisec", "millisecond"]),
    (1e-3, &["us", "µs", "μs", "microsec", "microsecond"]),
    (1e-6, &["ns", "nanosec", "nanosecond"]),
];

/// Place of milliseconds in [`UNITS`]: what a bare number means.
const MILLISECONDS: usize = 7;

/// Milliseconds: the sum of all pairs of number and unit found anywhere, negated by a leading `-`. None when
/// nothing was recognised.
#[must_use]
pub fn parse(text: &str) -> Option<f64> {
    let characters = without_separators(text);
    let mut sum = None;
    // The unit before, for a number without one.
    let mut earlier: Option<usize> = None;
    let mut at = 0;
    while at < characters.len() {
        let Some(end) = number_end(&characters, at) else {
            at += 1;
            continue;
        };
        let number: String = characters[at..end].iter().collect();
        let rest = end + characters[end..].iter().take_while(|c| c.is_whitespace()).count();
        let name: String = characters[rest..].iter().take_while(|c| c.is_alphabetic()).collect();
        at = if name.is_empty() { end } else { rest + name.chars().count() };
        let unit = if name.is_empty() {
            Some(earlier.map(|unit| unit + 1).filter(|unit| *unit < UNITS.len()).unwrap_or(MILLISECONDS))
        } else {
            unit_named(&name)
        };
        if let (Some(unit), Some(number)) = (unit, decimal(&number)) {
            sum = Some(sum.unwrap_or(0.0) + number * UNITS[unit].0);
        }
        earlier = unit;
    }
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    sum.map(|sum| sum * sign)
}

/// A time limit: more than zero.
///
/// # Errors
/// Nothing recognised, zero, or negative.
pub fn parse_limit(text: &str) -> Result<Duration, InvalidDuration> {
    let millis = parse(text).ok_or_else(|| InvalidDuration::new(text, "no time span found in it"))?;
    if millis <= 0.0 {
        return Err(InvalidDuration::new(text, "a limit must be more than zero"));
    }
    // Too long for a Duration is for ever.
    Ok(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
}

/// A time limit from a job's field: a number counts as its text; missing, `null` and `""` are none.
///
/// # Errors
/// As [`parse_limit`]; also a value that is neither text nor number.
pub fn limit_of(value: Option<&Value>) -> Result<Option<Duration>, InvalidDuration> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => parse_limit(text).map(Some),
        Some(number @ Value::Number(_)) => parse_limit(&json::to_text(number).unwrap_or_default()).map(Some),
        Some(other) => Err(InvalidDuration::new(&json::stringify(other), "neither a text nor a number")),
    }
}

/// Whether the text is a number without unit below a second, which is almost always a forgotten unit.
#[must_use]
pub fn forgets_its_unit(text: &str) -> bool {
    let characters: Vec<char> = text.trim().chars().collect();
    number_end(&characters, 0) == Some(characters.len())
        && decimal(text.trim()).is_some_and(|number| number < 1000.0)
}

/// The span as [`parse_limit`] reads it, to the millisecond: `1d`, `1h 30m`, `2s 500ms`.
#[must_use]
pub fn print(span: Duration) -> String {
    let mut rest = span.as_millis();
    let mut words = Vec::new();
    for (millis, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
        let count = rest / millis;
        rest %= millis;
        if count > 0 {
            words.push(format!("{count}{unit}"));
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// Drops a space, comma or underscore between two digits.
fn without_separators(text: &str) -> Vec<char> {
    let characters: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_digit);
    let separates = |at: usize, character: char| {
        matches!(character, ' ' | ',' | '_') && digit(at.checked_sub(1)) && digit(at.checked_add(1))
    };
    let kept = characters.iter().enumerate().filter(|(at, character)| !separates(*at, **character));
    kept.map(|(_, character)| *character).collect()
}

/// Where the number that begins here ends: digits with an optional fraction, or a fraction alone, and an exponent.
fn number_end(characters: &[char], start: usize) -> Option<usize> {
    let digits = |from: usize| characters.iter().skip(from).take_while(|c| c.is_ascii_digit()).count();
    let is = |at: usize, wanted: &[char]| characters.get(at).is_some_and(|c| wanted.contains(c));
    let mut end = start + digits(start);
    if is(end, &['.']) {
        let fraction = digits(end + 1);
        if fraction > 0 {
            end += 1 + fraction;
        }
    }
    if end == start {
        return None;
    }
    if is(end, &['e', 'E']) {
        let sign = usize::from(is(end + 1, &['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    Some(end)
}

fn unit_named(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    let place = |name: &str| UNITS.iter().position(|(_, names)| names.contains(&name));
    place(&name).or_else(|| place(name.strip_suffix('s')?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_more_than_zero() {
        assert_eq!(parse_limit("1h30").unwrap(), Duration::from_secs(5400));
        for text in ["", "0", "0s", "-5m", "abc", "5x"] {
            let error = parse_limit(text).unwrap_err();
            assert!(error.to_string().starts_with(&format!("invalid duration \"{text}\"")), "{error}");
        }
    }

    #[test]
    fn a_jobs_limit_may_be_missing_a_text_or_a_number() {
        assert_eq!(limit_of(None), Ok(None));
        assert_eq!(limit_of(Some(&json!(""))), Ok(None));
        assert_eq!(limit_of(Some(&json!(90000))), Ok(Some(Duration::from_secs(90))));
        assert_eq!(limit_of(Some(&json!("2 min"))), Ok(Some(Duration::from_secs(120))));
        assert!(limit_of(Some(&json!(["5m"]))).is_err());
        assert!(limit_of(Some(&json!(0))).is_err());
    }

    #[test]
    fn a_forgotten_unit_is_noticed() {
        assert!(forgets_its_unit("300") && !forgets_its_unit("300s") && !forgets_its_unit("5000"));
    }

    #[test]
    fn a_bare_number_takes_the_next_smaller_unit() {
        assert_eq!(parse("1d 12"), Some(1.5 * DAY));
        assert_eq!(parse("1x 12"), Some(12.0));
        assert_eq!(parse("1ns 5"), Some(5.000_001));
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_the_text() {
        assert!(parse_limit(&"x".repeat(100_000)).unwrap_err().to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = (parse(&text), parse_limit(&text), forgets_its_unit(&text));
        }

        #[test]
        fn what_is_printed_reads_the_same(millis in 1..10_000_000_000u64) {
            let span = Duration::from_millis(millis);
            let read = parse_limit(&print(span)).unwrap();
            prop_assert_eq!(read.as_secs_f64().mul_add(1000.0, 0.5).floor(), span.as_secs_f64().mul_add(1000.0, 0.5).floor());
        }
    }
}
