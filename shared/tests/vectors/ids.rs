//! Identity: `job-id.json`, `job-id-canonical.json`, and the ids of `job-definition.json`.

use dockframe_shared::job::Definition;
use dockframe_shared::job::digest::{canonical_definition, job_id};
use serde_json::Value;

use crate::{Differences, entries, load, text};

fn definition(entry: &Value) -> Definition {
    serde_json::from_value(entry["definition"].clone()).expect("a definition")
}

#[test]
fn ids_are_those_of_the_reference() {
    let mut differences = Differences::default();
    for entry in entries(&load("job-id.json")) {
        let id = job_id(&definition(entry));
        differences.check(text(entry, "note"), &id.as_str(), &text(entry, "jobId"));
    }
    for entry in entries(&load("job-definition.json")["ids"]) {
        let id = job_id(&definition(entry));
        differences.check(text(entry, "name"), &id.as_str(), &text(entry, "id"));
    }
}

#[test]
fn canonical_texts_are_those_of_the_reference() {
    let mut differences = Differences::default();
    for entry in entries(&load("job-id-canonical.json")) {
        let definition = definition(entry);
        let note = text(entry, "note");
        differences.check(note, &canonical_definition(&definition).as_str(), &text(entry, "canonical"));
        differences.check(note, &job_id(&definition).as_str(), &text(entry, "jobId"));
    }
}
