//! The tools: arguments in, a text of JSON out. They call the service directly.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dockframe_shared::job::{Control, Definition, JobObject, StateName};
use dockframe_shared::{JobId, Namespace, NamespaceSelector, QueueKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::super::App;
use super::super::blobs::SEGMENT;
use super::describe::DEFAULT_QUEUE;
use super::follow;
use crate::blobs::BlobKey;
use crate::error::chain;
use crate::queue::command::{Reply, Who};
use crate::queue::record::EndReason;
use crate::queue::service::{self, Scope, Submission};

pub(super) const INTERNAL: i64 = -32_603;
/// Longer addresses are left out.
const MAX_URL: usize = 32_768;
/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Who calls, and where progress goes.
pub(super) struct Caller {
    pub app: Arc<App>,
    pub origin: String,
    pub notices: mpsc::Sender<Value>,
}

/// A JSON-RPC error.
#[derive(Debug)]
pub(super) struct RpcError {
    pub code: i64,
    pub message: String,
}

/// Why a tool did not do what was asked: told to the model.
#[derive(Debug)]
pub(super) struct Failure {
    error: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn new(error: &'static str, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

impl From<service::Error> for Failure {
    fn from(error: service::Error) -> Self {
        match error {
            service::Error::Refused(problem) => Self::new("refused", problem.to_string()),
            error => {
                tracing::error!(error = chain(&error), "a tool failed");
                Self::new("unavailable", "the relay cannot do this now: try again later")
            }
        }
    }
}

type Outcome = Result<Value, Failure>;

pub(super) async fn call(caller: &Caller, params: &Value) -> Result<Value, RpcError> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
    let empty = Map::new();
    let given = Arguments(params.get("arguments").and_then(Value::as_object).unwrap_or(&empty));
    let outcome = match name {
        "submit_job" => submit(caller, &given).await,
        "follow_job" => {
            let (Some(job), Some(queue)) = (given.job(), given.text("queue")) else {
                return Err(RpcError {
                    code: INTERNAL,
                    message: "follow_job needs jobId and queue".to_owned(),
                });
            };
            let token = params.get("_meta").and_then(|meta| meta.get("progressToken")).cloned();
            follow::follow(caller, &given, job, queue, token).await
        }
        "get_job_status" => status(caller, &given).await,
        "list_jobs" => list(caller, &given).await,
        "cancel_job" => cancel(caller, &given).await,
        "upload_file" => upload(caller, &given).await,
        _ => return Err(RpcError { code: INTERNAL, message: format!("Unknown tool: {name}") }),
    };
    Ok(match outcome {
        Ok(answer) => json!({ "content": [{ "type": "text", "text": pretty(&answer) }] }),
        Err(Failure { error, message }) => {
            let mut told = json!({ "success": false, "error": error, "message": message });
            if name == "submit_job" {
                told["troubleshooting"] = json!(
                    "Give `image`, or `gitRepo`, or `dockerfile`; `image` not together with `gitRepo`."
                );
            }
            json!({ "content": [{ "type": "text", "text": pretty(&told) }], "isError": true })
        }
    })
}

pub(super) async fn read_resource(caller: &Caller, params: &Value) -> Result<Value, RpcError> {
    let uri = params.get("uri").and_then(Value::as_str).unwrap_or_default();
    let unknown = || RpcError { code: INTERNAL, message: format!("Unknown resource: {uri}") };
    let name =
        uri.strip_prefix("queue://").and_then(|rest| rest.strip_suffix("/jobs")).ok_or_else(unknown)?;
    let name = percent_decode_str(name).decode_utf8().map_err(|_| unknown())?;
    let key = QueueKey::new(&*name).map_err(|_| unknown())?;
    let failed = |_| RpcError { code: INTERNAL, message: "the queue cannot be read now".to_owned() };
    let queue = caller.app.service.open(&key).await.map_err(failed)?;
    let jobs = json!({ "data": caller.app.service.list(&queue) });
    Ok(json!({ "contents": [{ "uri": uri, "mimeType": "application/json", "text": pretty(&jobs) }] }))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// What the caller gave.
pub(super) struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64).filter(|number| number.is_finite())
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    pub(super) fn job(&self) -> Option<JobId> {
        JobId::new(self.text("jobId")?).ok()
    }

    fn texts(&self, name: &str) -> Map<String, Value> {
        self.0.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    fn needed_job(&self) -> Result<JobId, Failure> {
        self.job().ok_or_else(|| Failure::new("jobId missing", "the job's id is needed"))
    }
}

pub(super) fn key(name: &str) -> Result<QueueKey, Failure> {
    QueueKey::new(name).map_err(|error| Failure::new("bad queue", error.to_string()))
}

impl Caller {
    pub(super) fn view_url(&self, job: &JobId, queue: &str) -> String {
        let queue = utf8_percent_encode(queue, COMPONENT);
        format!("{}/j/{}#?queue={queue}", self.origin, utf8_percent_encode(job.as_str(), SEGMENT))
    }

    pub(super) fn result_url(&self, job: &JobId, queue: &str) -> String {
        let job = utf8_percent_encode(job.as_str(), SEGMENT);
        format!("{}/q/{}/j/{job}/result.json", self.origin, utf8_percent_encode(queue, SEGMENT))
    }

    /// The page with the whole job in its address, if that is not too long.
    fn self_contained_url(&self, definition: &Definition, queue: &str) -> Option<String> {
        let text = serde_json::to_string(definition).ok()?;
        let job = STANDARD.encode(utf8_percent_encode(&text, COMPONENT).to_string());
        let job = utf8_percent_encode(&job, COMPONENT);
        let url = format!("{}/#?job={job}&queue={}", self.origin, utf8_percent_encode(queue, COMPONENT));
        (url.len() <= MAX_URL).then_some(url)
    }
}

pub(super) fn share(url: &str) -> String {
    format!("Share this link with the user, to watch the job and see its outputs: {url}")
}

async fn submit(caller: &Caller, given: &Arguments<'_>) -> Outcome {
    let (image, repository, dockerfile) =
        (given.text("image"), given.text("gitRepo"), given.text("dockerfile"));
    if image.is_some() && repository.is_some() {
        return Err(Failure::new("image and gitRepo", "give an image or a repository, not both"));
    }
    let command = given.text("command").unwrap_or("echo 'Hello World'");
    let max_duration = given.text("maxDuration").unwrap_or("30m");
    let (inputs, env) = (given.texts("inputs"), given.texts("env"));
    let (files_count, env_count) = (inputs.len(), env.len());
    let mut definition = Map::new();
    match (repository, dockerfile, image) {
        (Some(repository), dockerfile, _) => {
            let mut build = json!({ "context": repository });
            if let Some(folder) = given.text("buildContext").filter(|folder| *folder != ".") {
                build["buildContext"] = json!(folder);
            }
            if let Some(dockerfile) = dockerfile {
                build["dockerfile"] = json!(dockerfile);
            }
            definition.insert("build".to_owned(), build);
        }
        (None, Some(dockerfile), _) => {
            definition.insert("build".to_owned(), json!({ "dockerfile": dockerfile }));
        }
        (None, None, Some(image)) => {
            definition.insert("image".to_owned(), json!(image));
        }
        (None, None, None) => {
            return Err(Failure::new("nothing to run", "an image, a repository or a Dockerfile is needed"));
        }
    }
    definition.insert("command".to_owned(), json!(command));
    let inputs: Map<String, Value> =
        inputs.into_iter().map(|(name, value)| (name, json!({ "value": value, "type": "utf8" }))).collect();
    definition.insert("inputs".to_owned(), Value::Object(inputs));
    definition.insert("env".to_owned(), Value::Object(env));
    definition.insert("maxDuration".to_owned(), json!(max_duration));
    let definition = Definition::from(definition);

    let name = given.text("queue").unwrap_or(DEFAULT_QUEUE);
    let namespace = Namespace::new(given.text("namespace").unwrap_or("dev"))
        .map_err(|error| Failure::new("bad namespace", error.to_string()))?;
    let service = &caller.app.service;
    let queue = service.open(&key(name)?).await?;
    let control = Control { namespace: Some(namespace.clone()), ..Control::default() };
    let submission = Submission { id: None, definition: definition.clone(), control, debug: None };
    let (job, _) = service.submit(&queue, submission).await?;
    let view = caller.view_url(&job, name);
    let mut summary = json!({
        "hasDockerfile": dockerfile.is_some(), "hasBuild": definition.get("build").is_some(), "command": command,
        "filesCount": files_count, "envCount": env_count, "maxDuration": max_duration,
    });
    if let Some(image) = definition.get("image") {
        summary["image"] = image.clone();
    }
    let mut answer = json!({
        "success": true, "jobId": job, "queue": name, "viewUrl": view,
        "resultUrl": caller.result_url(&job, name), "definition": summary, "namespace": namespace,
        "message": "the job is queued", "shareWithUser": share(&view),
        "nextStep": "call follow_job with this jobId and queue",
    });
    if let Some(url) = caller.self_contained_url(&definition, name) {
        answer["selfContainedUrl"] = json!(url);
    }
    Ok(answer)
}

async fn status(caller: &Caller, given: &Arguments<'_>) -> Outcome {
    let job = given.needed_job()?;
    let name = given.text("queue");
    let service = &caller.app.service;
    let (live, finished): (Option<JobObject>, Option<JobObject>) = match name {
        Some(name) => {
            let queue = service.open(&key(name)?).await?;
            (service.listed(&queue, &job), service.result(Scope::Queue(&queue), &job).await?)
        }
        None => (None, service.result(Scope::Anywhere, &job).await?),
    };
    let mut state = json!({});
    if let Some(known) = live.as_ref().or(finished.as_ref()) {
        state = json!({ "state": known.state, "worker": known.worker, "time": known.time,
            "queuedTime": known.queued_time });
        if let Some(reason) = known.finished_reason {
            state["finishedReason"] = json!(reason);
        }
    }
    let result = finished.and_then(|job| job.finished).and_then(|finished| finished.result);
    let result = result.filter(|_| given.flag("includeResult", true)).map(|result| {
        json!({ "outputs": result["outputs"], "logs": result["logs"], "statusCode": result["StatusCode"],
            "duration": result["duration"], "isTimedOut": result["isTimedOut"] })
    });
    let mut answer = json!({ "success": true, "jobId": job, "status": state, "result": result });
    if let Some(name) = name {
        let view = caller.view_url(&job, name);
        answer["shareWithUser"] = json!(share(&view));
        answer["viewUrl"] = json!(view);
    }
    Ok(answer)
}

async fn list(caller: &Caller, given: &Arguments<'_>) -> Outcome {
    let name = given.text("queue").unwrap_or(DEFAULT_QUEUE);
    let wanted: Option<StateName> = match given.text("state") {
        None => None,
        Some(text) => Some(
            serde_json::from_value(json!(text))
                .map_err(|_| Failure::new("bad state", "a state is Queued, Running or Finished"))?,
        ),
    };
    let limit = given.number("limit").unwrap_or(50.0);
    if !(1.0..=200.0).contains(&limit) {
        return Err(Failure::new("bad limit", "a limit is 1 to 200"));
    }
    let queue = caller.app.service.open(&key(name)?).await?;
    let mut jobs: Vec<(JobId, JobObject)> = caller.app.service.list(&queue).into_iter().collect();
    jobs.retain(|(_, job)| wanted.is_none_or(|wanted| job.state == wanted));
    jobs.sort_by_key(|(_, job)| std::cmp::Reverse(job.queued_time));
    let matching = jobs.len();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 200")]
    jobs.truncate(limit as usize);
    let shown: Vec<Value> = jobs
        .into_iter()
        .map(|(id, job)| {
            let mut shown = json!({ "jobId": id, "state": job.state, "worker": job.worker, "time": job.time,
                "queuedTime": job.queued_time, "namespaces": job.namespaces });
            if let Some(reason) = job.finished_reason {
                shown["finishedReason"] = json!(reason);
            }
            shown
        })
        .collect();
    let mut filters = json!({ "limit": limit });
    if let Some(state) = wanted {
        filters["state"] = json!(state);
    }
    Ok(json!({ "success": true, "queue": name, "totalJobs": shown.len(), "totalMatchingJobs": matching,
        "filters": filters, "jobs": shown }))
}

async fn cancel(caller: &Caller, given: &Arguments<'_>) -> Outcome {
    let job = given.needed_job()?;
    let name = given.text("queue").unwrap_or(DEFAULT_QUEUE);
    let who = NamespaceSelector::new(given.text("namespace").unwrap_or("*"))
        .map_err(|error| Failure::new("bad namespace", error.to_string()))?;
    let queue = caller.app.service.open(&key(name)?).await?;
    let message = Some("Job cancelled by API".to_owned());
    let who = Who::These(who);
    let reply = caller.app.service.let_go(&queue, &job, EndReason::Cancelled, who, message).await?;
    let message = match reply {
        Reply::Unknown => "Job not found",
        Reply::AlreadyEnded { .. } => "Job already Finished|Removed",
        _ => "the job is cancelled",
    };
    Ok(json!({ "success": true, "jobId": job, "queue": name, "message": message }))
}

async fn upload(caller: &Caller, given: &Arguments<'_>) -> Outcome {
    let needed = |name| {
        given.text(name).ok_or_else(|| Failure::new("argument missing", format!("`{name}` is needed")))
    };
    let (filename, content) = (needed("filename")?, needed("content")?);
    let encoding = given.text("encoding").unwrap_or("text");
    let bytes = match encoding {
        "text" => Bytes::copy_from_slice(content.as_bytes()),
        "base64" => {
            let decoded = STANDARD.decode(content);
            decoded.map_err(|_| Failure::new("bad content", "the content is not Base64"))?.into()
        }
        _ => return Err(Failure::new("bad encoding", "an encoding is text or base64")),
    };
    let size = bytes.len();
    let service = &caller.app.service;
    let random = hex_of(rand::random());
    let safe = utf8_percent_encode(filename, SEGMENT).to_string().replace('%', "_");
    let name = format!("{}-{random}-{}", service.now().as_millis(), crate::limits::cut(&safe, 200));
    let key = BlobKey::new(&name).ok_or_else(|| Failure::new("bad filename", "the name cannot be used"))?;
    let length = Some(size as u64);
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)]);
    service
        .blobs
        .put(&key, length, stream)
        .await
        .map_err(|error| Failure::new("not stored", error.to_string()))?;
    Ok(json!({
        "success": true, "filename": filename, "key": key.as_str(),
        "contentType": given.text("contentType").unwrap_or("text/plain"), "encoding": encoding, "size": size,
        "downloadUrl": format!("{}/f/{}", caller.origin, utf8_percent_encode(key.as_str(), SEGMENT)),
        "message": "the file is stored",
    }))
}

/// Six hex digits.
fn hex_of(random: [u8; 3]) -> String {
    dockframe_shared::ids::hex(&random)
}
