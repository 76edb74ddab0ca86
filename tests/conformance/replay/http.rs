//! The recorded exchanges over HTTP (`relay-http.json`).

use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;

use super::{Strictness, differences, matches};
use crate::check::same;
use crate::peers::http::{Answer, Http};
use crate::peers::socket::Socket;
use crate::test::{Test, job_id};

const RECORDED: &str = include_str!("../../../shared/tests/vectors/relay-http.json");
/// The job that was recorded without an id of its own.
const RECORDED_ID: &str = "40b526743371642aafffde38df5dcb16267448271336a6970bf8ccdb3326bd7e";
/// What happens at a worker's socket is given this long (`relay-protocol`, table of vectors).
const WORKER_PAUSE: Duration = Duration::from_millis(150);

/// Plays all steps, in order.
///
/// # Errors
/// What came otherwise than recorded or intended, all steps together.
pub(crate) async fn play(t: &Test, strictness: Strictness) -> anyhow::Result<()> {
    // Six characters, because the status cuts ids there, and none of those that are replaced below.
    let own = format!("x{}", &Test::nonce()[..5]);
    let nonce = Test::nonce();
    let queue = t.queue();
    let command = format!("echo {nonce}");
    let id = job_id(&serde_json::json!({ "image": "alpine:3.19", "command": command }))?;
    let text = RECORDED
        .replace(RECORDED_ID, &id)
        .replace("echo hi", &command)
        .replace("vecblob", &format!("vecblob{nonce}"))
        .replace("vecnothing", &format!("vecnothing{nonce}"))
        .replace("/q/other/", &format!("/q/{queue}other/"))
        .replace("vech", &queue)
        .replace("H1", &own)
        .replace("H9", &format!("H9{nonce}"));
    let steps: Vec<Value> = serde_json::from_str(&text)?;
    let player = Player { http: t.http(), own, strictness };
    let mut worker = None;
    let mut wrong = Vec::new();
    for step in &steps {
        let note = step["note"].as_str().context("a step without a note")?;
        let outcome = match (step.get("worker"), step.get("upload")) {
            (Some(Value::Array(frames)), _) => {
                if worker.is_none() {
                    worker = Some(t.socket(&format!("/q/{queue}/worker")).await?);
                }
                tell(worker.as_ref().context("no worker")?, frames).await
            }
            (Some(_), _) => {
                worker = None;
                Ok(())
            }
            (_, Some(upload)) => player.upload(upload).await,
            _ => player.exchange(note, step).await,
        };
        if let Err(error) = outcome {
            wrong.push(format!("{note}: {error:#}"));
        }
    }
    anyhow::ensure!(
        wrong.is_empty(),
        "HTTP: {} of {} steps differ:\n{}",
        wrong.len(),
        steps.len(),
        wrong.join("\n")
    );
    Ok(())
}

async fn tell(worker: &Socket, frames: &[Value]) -> anyhow::Result<()> {
    for frame in frames {
        worker.send(frame).await?;
        worker.settle().await?;
        tokio::time::sleep(WORKER_PAUSE).await;
    }
    Ok(())
}

struct Player {
    http: Http,
    own: String,
    strictness: Strictness,
}

impl Player {
    async fn exchange(&self, note: &str, step: &Value) -> anyhow::Result<()> {
        let (request, recorded) = (&step["request"], &step["response"]);
        let path = request["path"].as_str().context("no path")?;
        let method: Method = request["method"].as_str().context("no method")?.parse()?;
        let headers: Vec<_> = request["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect();
        let body = match request.get("body") {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(json) => json.to_string(),
        };
        if path.ends_with("/stream") {
            return self.stream(path, recorded).await;
        }
        let answer = self.http.ask(method, path, &headers, body).await?;
        self.take_back(note, path, &answer).await?;
        let Some(difference) = differences::of(note) else { return as_recorded(&answer, recorded) };
        if self.strictness == Strictness::Either && as_recorded(&answer, recorded).is_ok() {
            return Ok(());
        }
        (difference.intended)(&answer, &self.own)
            .with_context(|| format!("intended otherwise ({})", difference.reason))
    }

    /// A bare definition that was taken is let go of, because the recording goes on without it.
    async fn take_back(&self, note: &str, path: &str, answer: &Answer) -> anyhow::Result<()> {
        if note == "submit: bare definition" && answer.status == 200 {
            let id = answer.json()?["jobId"].as_str().context("no jobId")?.to_owned();
            self.http.post_text(&format!("{path}/j/{id}/cancel?namespace=_"), "").await?.is(200)?;
        }
        Ok(())
    }

    /// The one recorded stream reads a job with an id of its own under another queue's name: as recorded, or, by
    /// as of a job that is unknown there, which stays silent at first.
    async fn stream(&self, path: &str, recorded: &Value) -> anyhow::Result<()> {
        const SILENT: Duration = Duration::from_secs(2);
        match tokio::time::timeout(SILENT, self.http.get(path)).await {
            Err(_) => Ok(()),
            Ok(answer) if self.strictness == Strictness::Either => as_recorded(&answer?, recorded),
            Ok(answer) => anyhow::bail!("expected silence (R-34, R-11); came {:?}", answer?.text()),
        }
    }

    /// Uploads as the recorded redirect was followed.
    async fn upload(&self, upload: &Value) -> anyhow::Result<()> {
        let (key, body) =
            (upload["key"].as_str().context("no key")?, upload["body"].as_str().context("no body")?);
        let answer = self.http.ask(Method::PUT, &format!("/f/{key}"), &[], body.to_owned()).await?;
        let answer = match answer.header("location") {
            Some(location) => self.http.ask(Method::PUT, location, &[], body.to_owned()).await?,
            None => answer,
        };
        anyhow::ensure!((200..300).contains(&answer.status), "expected 2xx; came {}", answer.status);
        Ok(())
    }
}

fn as_recorded(answer: &Answer, recorded: &Value) -> anyhow::Result<()> {
    let status =
        recorded["status"].as_u64().and_then(|status| u16::try_from(status).ok()).context("no status")?;
    answer.is(status)?;
    if let Some(content_type) = recorded["contentType"].as_str().filter(|_| !matches!(status, 204 | 302)) {
        let media = content_type.split(';').next().unwrap_or_default().to_ascii_lowercase();
        same("media type", &answer.media(), &media)?;
    }
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        let (came, wanted) = (answer.header(name).unwrap_or_default(), value.as_str().unwrap_or_default());
        // `<storage>/KEY?<signature>`: an address that ends in the key.
        let good = match wanted.strip_prefix("<storage>").and_then(|rest| rest.strip_suffix("?<signature>")) {
            Some(key) => came.starts_with("http") && came.contains(key),
            None => came == wanted,
        };
        anyhow::ensure!(good, "header {name}: expected {wanted:?}; came {came:?}");
    }
    match &recorded["body"] {
        // Texts of 500 answers need not be matched.
        _ if status == 500 => Ok(()),
        Value::String(text) if text.starts_with('<') && text.ends_with('>') && text.contains(' ') => Ok(()),
        Value::String(text) => same("body", &answer.text(), text),
        json => matches("body", &answer.json()?, json),
    }
}
