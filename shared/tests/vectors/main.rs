//! Every recorded vector that is a matter of pure functions, answered by this crate.

mod commands;
mod hash_params;
mod ids;
mod job_definition;
mod outputs;
mod resolve;
mod units;

use serde_json::Value;

/// A file of vectors.
fn load(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name} is not JSON: {error}"))
}

/// The entries of a list, which must not be empty: a test over nothing proves nothing.
fn entries(list: &Value) -> &[Value] {
    let entries = list.as_array().expect("a list of vectors");
    assert!(!entries.is_empty());
    entries
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_else(|| panic!("`{field}` is no text in {entry}"))
}

/// Collects differences, so that one run shows them all.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: impl std::fmt::Display, ours: &T, theirs: &T) {
        if ours != theirs {
            self.0.push(format!("{what}\n   ours:   {ours:?}\n   theirs: {theirs:?}"));
        }
    }
}

impl Drop for Differences {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

fn is_undefined(value: &Value) -> bool {
    value.get("$undefined").is_some()
}
