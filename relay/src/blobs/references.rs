//! Which uploaded files a definition or a result speaks of.
//!
//! Whatever may be a reference counts as one: a file too many is kept for a while, a file too few would be lost.

use std::collections::HashSet;

use memchr::memmem;
use percent_encoding::percent_decode;
use serde_json::Value;

use super::BlobKey;

/// How an address says that a key follows (`relay-protocol` 2.13, R-21).
const MARKS: [&[u8]; 3] = [b"/f/", b"/download/", b"/upload/"];
const DIGEST: usize = 64;

/// The keys that a JSON document names: in addresses, as digests, as references of type `key`.
pub(crate) fn keys_in(document: &[u8]) -> HashSet<BlobKey> {
    let mut keys = HashSet::new();
    for mark in MARKS {
        for at in memmem::find_iter(document, mark) {
            keys.extend(segment(&document[at + mark.len()..]));
        }
    }
    keys.extend(digests(document));
    if memmem::find(document, b"\"key\"").is_some()
        && let Ok(value) = serde_json::from_slice::<Value>(document)
    {
        by_type(&value, &mut keys);
    }
    keys
}

/// The rest of a segment of an address, decoded.
fn segment(text: &[u8]) -> Option<BlobKey> {
    let ends = |byte: &u8| {
        matches!(byte, b'"' | b'\\' | b'/' | b'?' | b'#' | b'&' | b'\'' | b'<' | b'>' | b')')
            || byte.is_ascii_whitespace()
    };
    let length = text.iter().take(3 * BlobKey::MAX_BYTES).position(ends).unwrap_or(text.len());
    BlobKey::new(&percent_decode(&text[..length]).decode_utf8().ok()?)
}

/// Runs of exactly 64 hex digits.
fn digests(text: &[u8]) -> impl Iterator<Item = BlobKey> {
    text.split(|byte| !byte.is_ascii_hexdigit())
        .filter(|run| run.len() == DIGEST)
        .filter_map(|run| BlobKey::new(std::str::from_utf8(run).ok()?))
}

fn by_type(value: &Value, keys: &mut HashSet<BlobKey>) {
    match value {
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("key") {
                keys.extend(fields.get("value").and_then(Value::as_str).and_then(BlobKey::new));
            }
            fields.values().for_each(|value| by_type(value, keys));
        }
        Value::Array(items) => items.iter().for_each(|value| by_type(value, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_file_is_seen() {
        let digest = "0123456789abcdef".repeat(4);
        let document = json!({
            "inputs": {
                "a": { "type": "url", "value": format!("https://relay.example/sub/f/{digest}?x=1") },
                "b": { "type": "url", "value": "http://h/api/v1/download/1795-abc-my%20file.txt" },
                "c": { "type": "key", "value": "a \"quoted\" key" },
                "d": { "value": "", "hash": digest.replace('0', "9") },
            },
            "build": { "context": "https://relay.example/f/context.tar.gz" },
            "command": "curl 'http://relay/f/other' | sh",
            "env": { "LIST": ["see http://relay/f/last"] },
        });
        let found = keys_in(document.to_string().as_bytes());
        let mut found: Vec<&str> = found.iter().map(BlobKey::as_str).collect();
        found.sort_unstable();
        let other = digest.replace('0', "9");
        let mut wanted = [
            &*digest,
            "1795-abc-my file.txt",
            "a \"quoted\" key",
            &*other,
            "context.tar.gz",
            "other",
            "last",
        ];
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_no_document_names_nothing_and_panics_never() {
        for odd in [&b""[..], b"/f/", b"\"key\"", b"/f/%zz%", b"/f/\xff\"", b"{\"type\":\"key\"}"] {
            assert!(keys_in(odd).len() <= 1);
        }
    }
}
