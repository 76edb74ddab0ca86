//! JSON text as `JSON.stringify` writes it, with the keys of objects in JavaScript's order or sorted.
//!
//! Numbers are JavaScript's: an integer beyond 2⁵³ is rounded as its double is. Recursion goes as deep as the
//! value, which readers of JSON bound (128 levels).

use serde_json::{Map, Number, Value};

use super::number;
use super::text::{NameOrder, sort_by_name};

/// `JSON.stringify(value)`: compact; of an object's keys the array indices come first, then the others as they
/// stand.
#[must_use]
pub fn stringify(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, NameOrder::Properties);
    out
}

pub(crate) fn write(out: &mut String, value: &Value, keys: NameOrder) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, item, keys);
            }
            out.push(']');
        }
        Value::Object(fields) => write_object(out, fields, keys),
    }
}

fn write_object(out: &mut String, fields: &Map<String, Value>, keys: NameOrder) {
    let entries = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
    write_entries(out, entries, keys, |out, value| write(out, value, keys));
}

/// An object with these entries.
pub(crate) fn write_entries<V>(
    out: &mut String,
    mut entries: Vec<(&str, V)>,
    keys: NameOrder,
    write_value: impl Fn(&mut String, V),
) {
    sort_by_name(&mut entries, keys, |(name, _)| name);
    out.push('{');
    for (index, (name, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

fn write_number(out: &mut String, number: &Number) {
    // Without arbitrary precision every number has a double; `null` is what JavaScript writes for none.
    match number.as_f64() {
        Some(double) if double.is_finite() => out.push_str(&number::to_text(double)),
        _ => out.push_str("null"),
    }
}

/// Escaped are `"`, `\` and U+0000 to U+001F; all else stays as it is.
fn write_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        // All escaped bytes are ASCII, so both ends are character borders.
        out.push_str(&text[written..at]);
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        } else {
            out.push_str(escape);
        }
        written = at + 1;
    }
    out.push_str(&text[written..]);
    out.push('"');
}

/// Whether JavaScript takes the value for true.
#[must_use]
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64().is_some_and(|double| double != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// `String(value)` of a value that has a sensible one: none for objects and lists.
#[must_use]
pub fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => number.as_f64().map(number::to_text),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn stringify_lists_keys_as_javascript_does() {
        let value = read(r#"{ "b": 1, "10": [2.0, null], "9": {"z": true, "a": "x"} }"#);
        assert_eq!(stringify(&value), r#"{"9":{"z":true,"a":"x"},"10":[2,null],"b":1}"#);
    }

    #[test]
    fn strings_are_escaped_as_javascript_does() {
        let text = "\u{0}\u{1f}\u{8}\u{c}\n\r\t\"\\/\u{7f}\u{2028}é😀";
        assert_eq!(
            stringify(&Value::from(text)),
            "\"\\u0000\\u001f\\b\\f\\n\\r\\t\\\"\\\\/\u{7f}\u{2028}é😀\""
        );
    }

    #[test]
    fn integers_beyond_two_to_the_53_round_as_doubles_do() {
        assert_eq!(stringify(&read("9007199254740993")), "9007199254740992");
        assert_eq!(stringify(&read("18446744073709551615")), "18446744073709552000");
        assert_eq!(stringify(&read("-0")), "0");
    }
}
