//! From the page's address and the host's inputs to a job and its id (`metaframe` 5.3).
//!
//! A pure computation, done anew at every change. Uploads are given as data: the page puts the bytes where the
//! plan says and submits the job afterwards; the id is known before.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::data_ref::DataRef;
use super::hash_params::{BadValue, HashParams};
use super::inputs::{Blob, InputProblem, Staged, StagedFile, file_name, stage};
use super::job_input::JOB_INPUT;
use super::queue::QueueAddress;
use super::settings::{BadParam, Settings};
use crate::ids::JobId;
use crate::javascript::json::is_truthy;
use crate::job::definition::{Definition, Enqueued};
use crate::job::digest::job_id;

/// What the address and the inputs come to.
#[derive(Debug, Clone, PartialEq)]
pub struct PageJob {
    pub settings: Settings,
    pub job: Result<Job, NoJob>,
    /// What is wrong with single inputs, by the name of the pipe or file.
    pub problems: Vec<(String, InputProblem)>,
}

/// A job that can be submitted once its uploads are done.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub definition: Definition,
    /// Content that must be at the relay first. The same content may be asked for by several files.
    pub uploads: Vec<Upload>,
}

/// Content to be `PUT`, as `application/octet-stream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Which file needs it.
    pub part: Part,
    pub name: String,
    pub url: String,
    pub blob: Blob,
}

/// The two kinds of files of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Inputs,
    ConfigFiles,
}

impl Part {
    /// Its field in the definition.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::ConfigFiles => "configFiles",
        }
    }
}

/// Why there is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoJob {
    #[error("the address holds no job")]
    Missing,
    #[error("the job has neither an image nor a build, so there is nothing to run")]
    NothingToRun,
    #[error(transparent)]
    Unreadable(#[from] BadParam),
    #[error("the job cannot be read: its field `{0}` must be an object")]
    Shape(&'static str),
    #[error("no queue is chosen")]
    NoQueue,
}

/// Where the job's definition comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// The parameter `job`.
    Hash,
    /// What a relay keeps under the id of a short address, `/j/<id>`; the parameter `job` is not read.
    Stored(&'a Definition),
}

/// Computes the page's job. `inputs` are all inputs received so far by pipe name, in the order in which the host
/// lists them; of two that give one file the later counts.
#[must_use]
pub fn page_job<'a>(
    params: &HashParams,
    page_origin: &str,
    source: Source<'_>,
    inputs: impl IntoIterator<Item = (&'a str, &'a Staged)>,
) -> PageJob {
    let settings = Settings::read(params, page_origin);
    let mut problems = Vec::new();
    let mut upstream = BTreeMap::new();
    for (pipe, staged) in inputs.into_iter().filter(|(pipe, _)| *pipe != JOB_INPUT) {
        let name = file_name(pipe);
        let file = staged.file.as_ref().filter(|_| !name.is_empty());
        upstream.extend(file.map(|file| (name, file)));
        let problem = if name.is_empty() { Some(InputProblem::NoName) } else { staged.problem.clone() };
        problems.extend(problem.map(|problem| (pipe.to_owned(), problem)));
    }
    let job = definition(&settings, source).and_then(|definition| {
        let queue = settings.queue.as_ref().ok_or(NoJob::NoQueue)?;
        complete(definition, queue, upstream)
    });
    PageJob { settings, job, problems }
}

impl PageJob {
    /// The job as it is submitted, with the address's `control` and `debug` as they are now.
    #[must_use]
    pub fn enqueued(&self) -> Option<Enqueued> {
        let job = self.job.as_ref().ok()?;
        Some(Enqueued {
            id: job.id.clone(),
            definition: Some(job.definition.clone()),
            control: Some(self.settings.control.clone()),
            debug: self.settings.debug.then_some(true),
        })
    }
}

/// The definition before its files are looked at.
fn definition(settings: &Settings, source: Source<'_>) -> Result<Map<String, Value>, NoJob> {
    // Without its files, or in another namespace than its page wants, the job would be a different one.
    let needed: &[&str] = match source {
        Source::Hash => &["job", "inputs", "control"],
        Source::Stored(_) => &["inputs", "control"],
    };
    if let Some(problem) = needed.iter().find_map(|name| settings.problem(name)) {
        return Err(problem.clone().into());
    }
    let mut job = match source {
        Source::Hash => settings.job.clone().ok_or(NoJob::Missing)?,
        Source::Stored(definition) => definition.0.clone(),
    };
    let present = |field: &str| job.get(field).is_some_and(is_truthy);
    if !present("image") && !present("build") {
        return Err(NoJob::NothingToRun);
    }
    let mut env = take_object(&mut job, "env")?;
    for (name, value) in &settings.env {
        env.insert(name.clone(), Value::from(value.as_str()));
        fill(&mut job, "command", name, value);
        if let Some(Value::Object(build)) = job.get_mut("build") {
            fill(build, "context", name, value);
        }
    }
    job.insert("env".to_owned(), Value::Object(env));
    if let Some(files) = &settings.files {
        job.insert(Part::ConfigFiles.field().to_owned(), Value::Object(config_files(files)?));
    }
    Ok(job)
}

/// Replaces the first `${name}` in a field by the value, taken literally.
fn fill(object: &mut Map<String, Value>, field: &str, name: &str, value: &str) {
    if let Some(Value::String(text)) = object.get_mut(field) {
        *text = text.replacen(&format!("${{{name}}}"), value, 1);
    }
}

/// The files of the parameter `inputs`.
fn config_files(files: &Map<String, Value>) -> Result<Map<String, Value>, NoJob> {
    let entry = |(name, text): (&String, &Value)| match text {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            Ok((name.clone(), serde_json::json!({"type": "utf8", "value": text})))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let problem = BadValue::Shape(format!("the content of the file `{name}` must be a text"));
            Err(NoJob::Unreadable(BadParam { name: "inputs", problem }))
        }
    };
    files.iter().map(entry).collect()
}

/// Takes a field that must be an object if it is there.
fn take_object(job: &mut Map<String, Value>, field: &'static str) -> Result<Map<String, Value>, NoJob> {
    match job.get_mut(field).map(Value::take) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(NoJob::Shape(field)),
    }
}

/// Puts the files in their place and names the job.
fn complete(
    mut job: Map<String, Value>,
    queue: &QueueAddress,
    upstream: BTreeMap<&str, &StagedFile>,
) -> Result<Job, NoJob> {
    let mut files = Files { queue, uploads: Vec::new() };
    let mut own = take_object(&mut job, Part::Inputs.field())?;
    own.retain(|name, _| !upstream.contains_key(name.as_str()));
    let mut inputs = files.own(Part::Inputs, own);
    for (name, file) in upstream {
        inputs.insert(name.to_owned(), files.placed(Part::Inputs, name, file.clone()));
    }
    let config = take_object(&mut job, Part::ConfigFiles.field())?;
    let config = files.own(Part::ConfigFiles, config);
    for (part, entries) in [(Part::Inputs, inputs), (Part::ConfigFiles, config)] {
        if entries.is_empty() {
            job.remove(part.field());
        } else {
            job.insert(part.field().to_owned(), Value::Object(entries));
        }
    }
    let definition = Definition(job);
    Ok(Job { id: job_id(&definition), definition, uploads: files.uploads })
}

/// Where files go, and what is to be uploaded for them.
struct Files<'a> {
    queue: &'a QueueAddress,
    uploads: Vec<Upload>,
}

impl Files<'_> {
    /// The entry of a staged file.
    fn placed(&mut self, part: Part, name: &str, file: StagedFile) -> Value {
        let reference = match file {
            StagedFile::Inline(reference) => reference,
            StagedFile::Large(blob) => {
                let url = self.queue.blob(&blob.hash);
                let reference = DataRef::stored(url.clone(), &blob.hash);
                self.uploads.push(Upload { part, name: name.to_owned(), url, blob });
                reference
            }
        };
        // A reference holds nothing that JSON lacks.
        serde_json::to_value(reference).unwrap_or_default()
    }

    /// The files that the job brings itself: long ones are uploaded, the others stay exactly as they are. What is
    /// wrong with one is for the worker to say, since it is part of the job.
    fn own(&mut self, part: Part, entries: Map<String, Value>) -> Map<String, Value> {
        let mut placed = |(name, entry): (String, Value)| {
            let entry = match DataRef::try_from_entry(&entry).map(stage) {
                Some(Ok(file @ StagedFile::Large(_))) => self.placed(part, &name, file),
                Some(Ok(StagedFile::Inline(_)) | Err(_)) | None => entry,
            };
            (name, entry)
        };
        entries.into_iter().map(&mut placed).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::hash_params::encode_json;
    use super::super::inputs::PipeValue;
    use super::*;

    const PAGE: &str = "https://page.example";

    fn page(hash: &str, inputs: &[(&str, Value)]) -> PageJob {
        let staged: Vec<(&str, Staged)> =
            inputs.iter().map(|(name, value)| (*name, PipeValue::Json(value.clone()).into())).collect();
        page_job(
            &HashParams::parse(hash),
            PAGE,
            Source::Hash,
            staged.iter().map(|(name, staged)| (*name, staged)),
        )
    }

    fn with_job(job: &Value, more: &str) -> String {
        format!("?job={}&queue=q{more}", encode_json(job))
    }

    fn definition_of(page: &PageJob) -> Value {
        serde_json::to_value(&page.job.as_ref().unwrap().definition).unwrap()
    }

    #[test]
    fn a_page_without_a_job_says_why() {
        let reason = |hash: &str| page(hash, &[]).job.unwrap_err();
        assert_eq!(reason("?queue=q"), NoJob::Missing);
        assert_eq!(reason(&with_job(&json!({"command": "ls", "image": ""}), "")), NoJob::NothingToRun);
        assert_eq!(reason(&with_job(&json!({"image": "a", "env": ["A=1"]}), "")), NoJob::Shape("env"));
        assert_eq!(reason(&with_job(&json!({"image": "a", "inputs": "x"}), "")), NoJob::Shape("inputs"));
        assert_eq!(reason(&format!("?job={}", encode_json(&json!({"image": "a"})))), NoJob::NoQueue);
        for (param, more) in [("job", "&job=!"), ("inputs", "&inputs=!"), ("control", "&control=!")] {
            let NoJob::Unreadable(problem) = reason(&with_job(&json!({"image": "a"}), more)) else {
                panic!()
            };
            assert_eq!(problem.name, param);
        }
        let nested = format!("&inputs={}", encode_json(&json!({"a.txt": {"b": 1}})));
        let message = reason(&with_job(&json!({"image": "a"}), &nested)).to_string();
        assert!(message.contains("`a.txt`"), "{message}");
    }

    #[test]
    fn one_bad_input_holds_nothing_up() {
        let inputs =
            [("good", json!("x")), ("", json!("no name")), ("bad", json!({"type": "url", "value": 1}))];
        let page = page(&with_job(&json!({"image": "a"}), ""), &inputs);
        assert_eq!(definition_of(&page)["inputs"], json!({"good": {"value": "x", "type": "utf8"}}));
        let names: Vec<_> = page.problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["", "bad"]);
    }

    #[test]
    fn what_is_wrong_with_inputs_is_said_without_a_job_too() {
        assert_eq!(page("", &[("a", json!("data:,%"))]).problems.len(), 1);
    }

    #[test]
    fn of_two_inputs_for_one_file_the_later_counts() {
        let page = page(&with_job(&json!({"image": "a"}), ""), &[("a", json!("1")), ("/a", json!("2"))]);
        assert_eq!(definition_of(&page)["inputs"]["a"]["value"], "2");
    }

    #[test]
    fn values_are_put_into_the_command_literally() {
        let job = json!({"image": "a", "command": "${A} ${B} ${A}", "build": {"context": "h/${B}"}});
        let page = page(&with_job(&job, "&B=$&&A=${B}"), &[]);
        assert_eq!(definition_of(&page)["command"], "${B} $ ${A}");
        assert_eq!(definition_of(&page)["build"]["context"], "h/$");
    }

    #[test]
    fn the_jobs_own_long_files_are_uploaded_and_odd_ones_are_left_to_the_worker() {
        let long = "x".repeat(201);
        let job = json!({"image": "a", "inputs": {
            "long": {"type": "utf8", "value": long, "hash": "0"},
            "odd": {"type": "novel", "value": 1},
            "bad": {"type": "base64", "value": "!".repeat(300)},
            "text": "no reference",
        }});
        let page = page(&with_job(&job, ""), &[]);
        let inputs = &definition_of(&page)["inputs"];
        assert_eq!(inputs["long"]["type"], "url");
        for name in ["odd", "bad", "text"] {
            assert_eq!(inputs[name], job["inputs"][name]);
        }
        let uploads = page.job.unwrap().uploads;
        assert_eq!((uploads.len(), uploads[0].name.as_str()), (1, "long"));
        assert_eq!(uploads[0].url, format!("{PAGE}/f/{}", uploads[0].blob.hash));
    }

    #[test]
    fn a_stored_definition_takes_the_place_of_the_parameter() {
        let stored = Definition(
            json!({"image": "stored", "configFiles": {"a": {"value": "1"}}}).as_object().unwrap().clone(),
        );
        let params = HashParams::parse("?job=!&queue=q&FOO=1");
        let page = page_job(&params, PAGE, Source::Stored(&stored), []);
        let expected = json!({"image": "stored", "configFiles": {"a": {"value": "1"}}, "env": {"FOO": "1"}});
        assert_eq!(definition_of(&page), expected);
    }

    #[test]
    fn a_submission_carries_what_the_address_says_now() {
        let enqueued =
            page(&with_job(&json!({"image": "a"}), "&debug=true&maxJobDuration=2h"), &[]).enqueued();
        let enqueued = serde_json::to_value(enqueued.unwrap()).unwrap();
        assert_eq!(enqueued["control"], json!({"namespace": "_", "maxDuration": "2h"}));
        assert_eq!(enqueued["debug"], true);
    }

    proptest! {
        #[test]
        fn no_address_and_no_input_makes_it_panic(hash in "[?&=a-c]{0,9}\\PC{0,20}", name in "\\PC{0,4}", value in "\\PC{0,9}") {
            let job = json!({"image": "a", "command": value, "env": {&name: value}, "inputs": {&name: {"value": value}}});
            let _ = page(&hash, &[(&name, json!(value))]);
            let _ = page(&with_job(&job, &format!("&{name}={value}")), &[(&name, json!(value))]);
        }
    }
}
