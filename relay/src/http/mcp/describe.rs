//! What can be called, as language models read it.

use serde_json::{Map, Value, json};

pub(super) const DEFAULT_QUEUE: &str = "public1";

/// Name, type, description, default.
type Field = (&'static str, &'static str, &'static str, Option<Value>);

fn schema(required: &[&str], fields: Vec<Field>) -> Value {
    let properties: Map<String, Value> = fields
        .into_iter()
        .map(|(name, kind, description, default)| {
            let mut field = match kind {
                "texts" => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                kind => json!({ "type": kind }),
            };
            field["description"] = json!(description);
            if let Some(default) = default {
                field["default"] = default;
            }
            (name.to_owned(), field)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn tool(name: &str, description: &str, input: impl Into<Value>) -> Value {
    let input = input.into();
    json!({ "name": name, "description": description, "inputSchema": input })
}

pub(super) fn tools() -> Vec<Value> {
    let queue = || ("queue", "string", "Name of the queue", Some(json!(DEFAULT_QUEUE)));
    let job = || ("jobId", "string", "The job's id", None);
    vec![
        tool(
            "submit_job",
            "Runs a container: from an image, from a git repository with a Dockerfile, or from a Dockerfile's text. Files in /outputs become outputs. Follow it with follow_job.",
            schema(
                &[],
                vec![
                    queue(),
                    ("image", "string", "Image to run; not together with gitRepo", None),
                    ("gitRepo", "string", "Repository to build from", None),
                    ("dockerfile", "string", "A Dockerfile's text to build from", None),
                    ("buildContext", "string", "Folder in the repository", None),
                    ("command", "string", "What to run", Some(json!("echo 'Hello World'"))),
                    ("inputs", "texts", "Files in /inputs: name to text", Some(json!({}))),
                    ("env", "texts", "Environment variables", Some(json!({}))),
                    ("maxDuration", "string", "Time limit such as 30m", Some(json!("30m"))),
                    (
                        "namespace",
                        "string",
                        "Slot of the queue that keeps only its newest job",
                        Some(json!("dev")),
                    ),
                ],
            ),
        ),
        tool(
            "follow_job",
            "Waits for a job's end and tells its log, its exit code and its outputs.",
            schema(
                &["jobId", "queue"],
                vec![
                    job(),
                    ("queue", "string", "Name of the queue", None),
                    ("timeoutSeconds", "number", "How long to wait", Some(json!(600))),
                    ("includeBuildLogs", "boolean", "Tell lines of the build too", Some(json!(true))),
                ],
            ),
        ),
        tool(
            "get_job_status",
            "State and result of a job, at once.",
            schema(
                &["jobId"],
                vec![
                    job(),
                    ("queue", "string", "Name of the queue, for the state of a job that has not ended", None),
                    ("includeResult", "boolean", "Tell the result too", Some(json!(true))),
                ],
            ),
        ),
        tool(
            "list_jobs",
            "Jobs of a queue, the newest first.",
            schema(
                &[],
                vec![
                    queue(),
                    ("limit", "number", "How many, 1 to 200", Some(json!(50))),
                    ("state", "string", "Only Queued, Running or Finished", None),
                ],
            ),
        ),
        tool(
            "cancel_job",
            "Cancels a job.",
            schema(
                &["jobId"],
                vec![
                    job(),
                    queue(),
                    ("namespace", "string", "For one namespace; * for all", Some(json!("*"))),
                ],
            ),
        ),
        tool(
            "upload_file",
            "Stores a file for jobs to refer to.",
            schema(
                &["filename", "content"],
                vec![
                    ("filename", "string", "Its name", None),
                    ("content", "string", "Its content", None),
                    ("contentType", "string", "Its type", Some(json!("text/plain"))),
                    ("encoding", "string", "text or base64", Some(json!("text"))),
                ],
            ),
        ),
    ]
}

pub(super) fn resource() -> Value {
    json!({ "uri": format!("queue://{DEFAULT_QUEUE}/jobs"), "name": "Public Queue Jobs",
        "description": "All jobs of a queue; any queue's name may stand in the address", "mimeType": "application/json" })
}
