//! Every recorded vector that is a matter of pure functions, answered by this crate. A file that is neither tested
//! here nor named as another part's fails the tests, so that none is forgotten.

mod commands;
mod data_refs;
mod hash_params;
mod ids;
mod job_definition;
mod outputs;
mod resolve;
mod units;

use serde_json::Value;

/// Files that this crate answers, each by the modules named.
const TESTED: &[(&str, &[&str])] = &[
    ("command-argv-fuzz.json", &["commands"]),
    ("command-argv.json", &["commands"]),
    ("dataref.json", &["data_refs"]),
    ("duration-and-bytes.json", &["units"]),
    ("hash-params.json", &["hash_params"]),
    ("job-definition.json", &["ids", "job_definition"]),
    ("job-id-canonical.json", &["ids"]),
    ("job-id.json", &["ids"]),
    ("job-outputs.json", &["outputs"]),
    ("pipe-values.json", &["data_refs"]),
    ("resolve-job.json", &["resolve"]),
    ("worker-misc.json", &["units"]),
];

/// Files that other parts of the project answer, by the beginning of their name, and why they are no matter of
/// pure functions.
const ELSEWHERE: &[(&str, &str)] = &[
    ("relay-http.json", "relay: requests and answers over HTTP"),
    ("relay-socket.json", "relay: conversations over sockets"),
    ("postmessage-trace-", "page: messages between it and its host in a browser"),
    ("reference-app-", "page: its behaviour over time, between host and queue"),
];

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

#[test]
fn every_file_of_vectors_is_tested_or_belongs_elsewhere() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    let tested = |name: &str| TESTED.iter().any(|(file, _)| *file == name);
    let elsewhere = |name: &str| ELSEWHERE.iter().any(|(start, _)| name.starts_with(start));
    for name in &names {
        assert!(tested(name) != elsewhere(name), "{name} must be tested, or belong elsewhere, and not both");
    }
    for (start, reason) in ELSEWHERE {
        assert!(names.iter().any(|name| name.starts_with(start)), "{start} is gone ({reason})");
    }
    for (file, modules) in TESTED {
        assert!(names.iter().any(|name| name == file), "{file} is gone");
        for module in *modules {
            let source = std::fs::read_to_string(format!("{folder}/{module}.rs")).unwrap();
            assert!(source.contains(&format!("load(\"{file}\")")), "{module}.rs does not read {file}");
        }
    }
}

/// The parts of `worker-misc.json` that the worker answers where it needs them.
#[test]
fn every_part_of_a_mixed_file_is_tested_or_belongs_elsewhere() {
    let misc = load("worker-misc.json");
    let parts: Vec<&str> = misc.as_object().unwrap().keys().map(String::as_str).collect();
    // Contexts of builds, lines of pulls, credentials in lines: matters of the worker's images.
    assert_eq!(parts, ["about", "gpu", "githubContext", "progress", "redact"]);
}
