//! `submit_job`: a container and what it needs, as a job.

use std::collections::BTreeMap;

use dockframe_shared::Namespace;
use dockframe_shared::javascript::uri::encode_component;
use dockframe_shared::job::{Control, Definition};
use dockframe_shared::metaframe::hash_params::encode_json;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, PUBLIC_QUEUE, arguments, queue_key, result_url, tool, view_url};
use crate::http::mcp::Caller;
use crate::queue::service::Submission;

const COMMAND: &str = "echo 'Hello World'";
const MAX_DURATION: &str = "30m";
const NAMESPACE: &str = "dev";
/// Addresses that are longer do not survive being passed on.
const MAX_URL_CHARS: usize = 32_768;

const TROUBLESHOOTING: &[&str] = &[
    "Name exactly one source: `image`, or `gitRepo` (with an optional `dockerfile` and `buildContext`), or `dockerfile`.",
    "`inputs` and `env` are objects of texts: {\"name\": \"text\"}. Upload binary or large files with upload_file.",
    "`command` is one command line; wrap shell syntax as: sh -c '…'. The job reads /inputs and writes /outputs.",
    "`maxDuration` is a duration such as 30s, 5m or 1h.",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    queue: Option<String>,
    image: Option<String>,
    git_repo: Option<String>,
    dockerfile: Option<String>,
    build_context: Option<String>,
    command: Option<String>,
    inputs: Option<BTreeMap<String, String>>,
    env: Option<BTreeMap<String, String>>,
    max_duration: Option<String>,
    namespace: Option<String>,
}

pub(super) fn schema() -> Value {
    let texts = json!({ "type": "string" });
    tool(
        "submit_job",
        "Run a Docker container as a job on a queue's machines. Give `image`, or build one from `gitRepo` or an inline \
         `dockerfile`. Files of `inputs` are at /inputs; what the job writes to /outputs is its result. The same job \
         submitted again is answered by its stored result. Then call follow_job with the jobId.",
        &json!({
            "queue": { "type": "string", "description": "Name of the queue whose machines run it", "default": PUBLIC_QUEUE },
            "image": { "type": "string", "description": "Docker image, such as python:3.12-slim" },
            "gitRepo": { "type": "string", "description": "Address of a git repository to build the image from" },
            "dockerfile": { "type": "string", "description": "Content of a Dockerfile to build the image from" },
            "buildContext": { "type": "string", "description": "Folder in the repository that is the build's context" },
            "command": { "type": "string", "description": "Command line to run", "default": COMMAND },
            "inputs": { "type": "object", "description": "Files for /inputs: name to text", "additionalProperties": texts, "default": {} },
            "env": { "type": "object", "description": "Environment variables", "additionalProperties": texts, "default": {} },
            "maxDuration": { "type": "string", "description": "Longest run, such as 30s, 5m or 1h", "default": MAX_DURATION },
            "namespace": { "type": "string", "description": "A newer job replaces the running older one of its namespace", "default": NAMESPACE },
        }),
        &[],
    )
}

pub(super) async fn submit(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let submitted = submit_inner(caller, given).await;
    submitted.map_err(|failure| Failure { troubleshooting: Some(TROUBLESHOOTING), ..failure })
}

async fn submit_inner(caller: &Caller, given: Map<String, Value>) -> Result<Value, Failure> {
    let given: Arguments = arguments(given)?;
    let name = given.queue.as_deref().filter(|queue| !queue.is_empty()).unwrap_or(PUBLIC_QUEUE);
    let key = queue_key(name)?;
    let namespace = given.namespace.as_deref().unwrap_or(NAMESPACE);
    let namespace =
        Namespace::new(namespace).map_err(|error| Failure::new("Invalid namespace", error.to_string()))?;
    let definition = definition(&given)?;

    let service = &caller.app.service;
    let queue = service.open(&key).await?;
    let control = Control { namespace: Some(namespace.clone()), ..Control::default() };
    let submission = Submission {
        id: None,
        definition: definition.clone(),
        control,
        debug: None,
        origin: Some(caller.origin.clone()),
    };
    let (job, _) = service.submit(&queue, submission).await?;

    let view = view_url(caller, &key, &job);
    let mut text = json!({ "success": true, "jobId": job, "queue": key.reveal(), "viewUrl": view });
    let contained = format!(
        "{}/#?job={}&queue={}",
        caller.origin,
        encode_json(&Value::Object(definition.0.clone())),
        encode_component(key.reveal())
    );
    if contained.len() <= MAX_URL_CHARS {
        text["selfContainedUrl"] = json!(contained);
    }
    text["resultUrl"] = json!(result_url(caller, &key, &job));
    let mut shown = Map::new();
    if let Some(image) = definition.get("image") {
        shown.insert("image".to_owned(), image.clone());
    }
    let has_dockerfile = given.dockerfile.as_deref().is_some_and(|text| !text.is_empty());
    shown.insert("hasDockerfile".to_owned(), json!(has_dockerfile));
    shown.insert("hasBuild".to_owned(), json!(definition.get("build").is_some()));
    for name in ["command", "maxDuration"] {
        shown.insert(name.to_owned(), json!(definition.get(name)));
    }
    shown.insert("filesCount".to_owned(), json!(given.inputs.as_ref().map_or(0, BTreeMap::len)));
    shown.insert("envCount".to_owned(), json!(given.env.as_ref().map_or(0, BTreeMap::len)));
    text["definition"] = Value::Object(shown);
    text["namespace"] = json!(namespace);
    text["message"] = json!(format!("Job {job} is submitted"));
    text["shareWithUser"] = json!(format!("Watch the job and see its results: {view}"));
    text["nextStep"] = json!(format!(
        "Call follow_job with jobId \"{job}\" and this queue to wait for the end and get the log"
    ));
    Ok(text)
}

/// Exactly one source of the image; everything else as given.
fn definition(given: &Arguments) -> Result<Definition, Failure> {
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let (image, git, dockerfile) = (text(&given.image), text(&given.git_repo), text(&given.dockerfile));
    if image.is_some() && git.is_some() {
        let message = "Give either `image` or `gitRepo`, not both.";
        return Err(Failure::new("Image and gitRepo given", message));
    }
    let inputs = given.inputs.iter().flatten();
    let inputs: Map<String, Value> =
        inputs.map(|(name, text)| (name.clone(), json!({ "value": text, "type": "utf8" }))).collect();
    let mut fields = Map::new();
    fields.insert("command".to_owned(), json!(given.command.as_deref().unwrap_or(COMMAND)));
    fields.insert("inputs".to_owned(), Value::Object(inputs));
    fields.insert("env".to_owned(), json!(given.env.clone().unwrap_or_default()));
    fields.insert("maxDuration".to_owned(), json!(given.max_duration.as_deref().unwrap_or(MAX_DURATION)));
    match (image, git, dockerfile) {
        (_, Some(git), dockerfile) => {
            let mut build = json!({ "context": git });
            if let Some(context) = text(&given.build_context).filter(|context| context != ".") {
                build["buildContext"] = json!(context);
            }
            if let Some(dockerfile) = dockerfile {
                build["dockerfile"] = json!(dockerfile);
            }
            fields.insert("build".to_owned(), build);
        }
        (_, None, Some(dockerfile)) => {
            fields.insert("build".to_owned(), json!({ "dockerfile": dockerfile }));
        }
        (Some(image), None, None) => {
            fields.insert("image".to_owned(), json!(image));
        }
        (None, None, None) => {
            let message = "Give `image`, `gitRepo` or `dockerfile`.";
            return Err(Failure::new("No image", message));
        }
    }
    Ok(fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(given: Value) -> Value {
        let given: Arguments = serde_json::from_value(given).unwrap();
        definition(&given).map_or_else(|failure| json!(failure.error), |definition| json!(definition))
    }

    #[test]
    fn a_definition_has_defaults_and_one_source() {
        assert_eq!(
            built(json!({"image": "a", "inputs": {"f": "x"}})),
            json!({"command": COMMAND, "inputs": {"f": {"value": "x", "type": "utf8"}}, "env": {},
                "maxDuration": "30m", "image": "a"})
        );
        assert_eq!(
            built(json!({"gitRepo": "g", "buildContext": ".", "dockerfile": "d"}))["build"],
            json!({"context": "g", "dockerfile": "d"})
        );
        assert_eq!(built(json!({"gitRepo": "g", "buildContext": "b"}))["build"]["buildContext"], "b");
        let with_both = built(json!({"image": "a", "dockerfile": "d"}));
        assert_eq!((&with_both["build"], with_both.get("image")), (&json!({"dockerfile": "d"}), None));
        assert_eq!(built(json!({"image": "a", "gitRepo": "g"})), "Image and gitRepo given");
        assert_eq!(built(json!({"image": ""})), "No image");
    }
}
