//! Canonical JSON: one text for all ways of writing a value (`jobs-and-states` 2, step 2).
//!
//! Keys are sorted by UTF-16 code units at every level, lists keep their order, there are no spaces, strings and
//! numbers are written as JavaScript writes them. No Unicode normalisation.

use serde_json::Value;

use crate::javascript::json;
use crate::javascript::text::NameOrder;

/// The canonical text of a value. Also the text inside JSON hash parameters (`metaframe` 3.3).
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    json::write(&mut out, value, NameOrder::Utf16);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level_and_lists_keep_their_order() {
        let value: Value =
            serde_json::from_str(r#"{"～":1,"😀":2,"b":[{"y":1,"x":2},3],"10":0,"9":0}"#).unwrap();
        assert_eq!(canonical_json(&value), r#"{"10":0,"9":0,"b":[{"x":2,"y":1},3],"😀":2,"～":1}"#);
    }
}
