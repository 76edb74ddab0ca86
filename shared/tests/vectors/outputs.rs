//! From a result to outputs: `job-outputs.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_shared::ids::JobId;
use dockframe_shared::metaframe::outputs::{OutputValue, outputs};
use dockframe_shared::metaframe::queue::QueueAddress;
use dockframe_shared::metaframe::settings::Settings;
use serde_json::{Map, Value, json};

use crate::{Differences, entries, load, text};

/// In the notation of the recording.
fn recorded(value: OutputValue) -> Value {
    match value {
        OutputValue::Plain(value) => value,
        OutputValue::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| json!({"$undefined": true}))))
            .collect(),
    }
}

/// The recorded program sends blobs with a wrong size, and empty ones for what it fetched: a defect that ours
/// must not have (`metaframe` 5.8). `fetched` is the content at every address of this test.
fn repaired(mut output: Value, fetched: &[u8]) -> Value {
    if output.get("_c") == Some(&json!("Blob")) {
        if output["value"] == "" {
            assert_eq!(output["size"], json!(fetched.len()));
            output["value"] = json!(STANDARD.encode(fetched));
        } else {
            let bytes = STANDARD.decode(text(&output, "value")).expect("base64");
            output["size"] = json!(bytes.len());
        }
    }
    output
}

#[test]
fn results_give_the_outputs_of_the_reference() {
    let fetched = *b"twelve bytes";
    let mut differences = Differences::default();
    for entry in entries(&load("job-outputs.json")["vectors"]) {
        let name = text(entry, "name");
        let flag = |field: &str| entry[field].as_bool().expect("a flag");
        let settings = Settings {
            allow_set_job: flag("allowsetjob"),
            resolve_refs: flag("resolverefs"),
            ..Settings::default()
        };
        let queue =
            QueueAddress::resolve(text(entry, "queue"), "https://container.mtfm.io").expect("a queue");
        let id = JobId::new(text(entry, "jobId")).expect("an id");
        let finished = &entry["finished"];
        let reason = serde_json::from_value(finished["reason"].clone()).expect("a reason");
        let sent = outputs(reason, finished.get("result"), &queue, &id, &settings).expect("outputs");
        let mut ours: Map<String, Value> =
            sent.ready.into_iter().map(|(name, value)| (name, recorded(value))).collect();
        for fetch in sent.fetch {
            assert!(fetch.url.starts_with("https://container.mtfm.io/f/"), "{}", fetch.url);
            ours.insert(fetch.name, recorded(OutputValue::blob(&fetched)));
        }
        let theirs = entry["outputs"].as_object().expect("outputs").clone();
        let theirs: Map<String, Value> =
            theirs.into_iter().map(|(name, output)| (name, repaired(output, &fetched))).collect();
        differences.check(name, &ours, &theirs);
    }
}
