//! From address and inputs to a job: `job-definition.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_shared::job::Definition;
use dockframe_shared::job::digest::job_id;
use dockframe_shared::metaframe::hash_params::HashParams;
use dockframe_shared::metaframe::inputs::{PipeValue, Staged};
use dockframe_shared::metaframe::job_input::{JOB_INPUT, job_from_input};
use dockframe_shared::metaframe::job_url::{NoJob, PageJob, Source, page_job};
use serde_json::{Map, Value, json};
use url::Url;

use crate::{Differences, entries, load, text};

const PAGE: &str = "https://container.mtfm.io";

/// Where ours is meant to do better than the recorded program: entry, place in the job, and what ours gives.
/// The id is then that of the changed definition.
fn ours_instead() -> [(&'static str, &'static str, Value); 3] {
    [
        // An older frame's object is the bytes it stands for, not their description (`metaframe` 4.3).
        (
            "inputs that are datarefs already",
            "/definition/inputs/refc",
            json!({"value": "aGk=", "type": "base64"}),
        ),
        // A boolean is a file like any other value (`metaframe` 5.5).
        ("inputs of every kind", "/definition/inputs/bool.x", json!({"value": true, "type": "json"})),
        // The setting has an effect (`metaframe` 5.1).
        ("system params never reach env", "/control/maxDuration", json!("10m")),
    ]
}

fn pipe_value(value: &Value) -> PipeValue {
    let Some(kind) = value.get("$type") else { return PipeValue::Json(value.clone()) };
    let bytes = match (&value["$base64"], &value["$text"]) {
        (Value::String(encoded), _) => STANDARD.decode(encoded).expect("base64"),
        (_, Value::String(text)) => text.clone().into_bytes(),
        _ => panic!("{kind} without content"),
    };
    PipeValue::Bytes(bytes)
}

fn compute(entry: &Value) -> PageJob {
    let url = Url::parse(text(entry, "url")).expect("a URL");
    let mut params = HashParams::parse(url.fragment().unwrap_or_default());
    let empty = Map::new();
    let inputs = entry["inputs"].as_object().unwrap_or(&empty);
    let values: Vec<(&str, PipeValue)> =
        inputs.iter().map(|(name, value)| (name.as_str(), pipe_value(value))).collect();
    // The page writes the input into its address before it computes.
    if params.boolean("allowsetjob")
        && let Some((_, value)) = values.iter().find(|(name, _)| *name == JOB_INPUT)
        && let Some(job) = job_from_input(value).expect("a job")
    {
        params.set_json("job", &Value::Object(job));
    }
    let staged: Vec<(&str, Staged)> =
        values.into_iter().map(|(name, value)| (name, Staged::from(value))).collect();
    page_job(&params, PAGE, Source::Hash, staged.iter().map(|(name, staged)| (*name, staged)))
}

fn insert_at(job: &mut Value, place: &str, value: Value) {
    let (parent, name) = place.rsplit_once('/').expect("a place");
    job.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").insert(name.to_owned(), value);
    let definition: Definition = serde_json::from_value(job["definition"].clone()).expect("a definition");
    job["id"] = json!(job_id(&definition).as_str());
}

#[test]
fn addresses_and_inputs_give_the_jobs_of_the_reference() {
    let mut differences = Differences::default();
    let mut exceptions = ours_instead().to_vec();
    for entry in entries(&load("job-definition.json")["vectors"]) {
        let name = text(entry, "name");
        let page = compute(entry);
        let mut expected = entry["job"].clone();
        exceptions.retain(|(exception, place, value)| {
            if *exception == name {
                insert_at(&mut expected, place, value.clone());
            }
            *exception != name
        });
        let ours = match &page.job {
            Ok(job) => json!({
                "id": job.id.as_str(),
                "definition": job.definition,
                "control": page.settings.control,
                "debug": page.settings.debug,
            }),
            Err(NoJob::Missing | NoJob::NothingToRun) => Value::Null,
            Err(other) => panic!("{name}: {other}"),
        };
        differences.check(name, &ours, &expected);

        let uploads = page.job.map(|job| job.uploads).unwrap_or_default();
        let mut ours: Vec<Value> = uploads
            .iter()
            .map(|upload| json!({"method": "PUT", "url": upload.url, "bytes": upload.blob.bytes.len()}))
            .collect();
        let mut theirs = entry["uploads"].as_array().cloned().unwrap_or_default();
        ours.sort_by_key(Value::to_string);
        theirs.sort_by_key(Value::to_string);
        // Keys of both are compared as objects, whatever their order.
        differences.check(format_args!("{name}: uploads"), &ours, &theirs);

        let theirs = text(entry, "queue");
        let queue = page.settings.queue.expect("a queue");
        // The recorded program names the queue by its whole address.
        let ours = if theirs.starts_with("http") {
            format!("{}/{}", queue.api_origin(), queue.key().reveal())
        } else {
            queue.key().reveal().to_owned()
        };
        differences.check(format_args!("{name}: queue"), &ours.as_str(), &theirs);
    }
    assert!(exceptions.is_empty(), "exceptions that match nothing: {exceptions:?}");
}

#[test]
fn the_readmes_address_gives_its_queue_and_its_id() {
    let vectors = load("job-definition.json");
    let page = compute(&vectors["vectors"][0]);
    assert_eq!(page.settings.queue.unwrap().key().reveal(), "public1");
    assert_eq!(
        page.job.unwrap().id.as_str(),
        "0e43af301efde5067c447c76b6d62220324da99d61f8e7ede84efe16c36e6996"
    );
}
