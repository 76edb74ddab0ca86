//! Callbacks on the wire: where they may go, how they are signed, what an answer means (`jobs-and-states` 7).
//!
//! What is owed is the core's to decide and the store's to keep; this makes one attempt. The body names its queue,
//! which no store may do, and payloads may hold secrets: so address, payload and queue name are kept sealed, and
//! opened for the moment of an attempt (`seal`). With the callback they go.
//!
//! Addresses come from strangers, and the relay stands where they do not: so nothing but the public internet is
//! called unless the operator says so, every redirect is judged anew, and the judged address is the one that is
//! connected to (`target`). One receiver that hangs holds up its own queue's callbacks only (`limits/turns`).

mod seal;
mod secret;
mod target;

use std::path::Path;
use std::time::Duration;

use dockframe_shared::job::definition::Callback;
use dockframe_shared::{JobId, Problem, QueueDigest, QueueKey, Timestamp};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::limits::{MAX_CALLBACK_PAYLOAD_BYTES, MAX_CALLBACK_URL_BYTES};
use crate::queue::record::{Call, Event, Hook};
use crate::queue::timing::CALL_LIMIT;
use seal::{Contents, Seal};
pub use secret::{BadSecret, WebhookSecret};
use target::Client;

/// Redirects that one attempt follows.
const MAX_REDIRECTS: usize = 10;

/// Why callbacks cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Key(#[from] std::io::Error),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// Makes callbacks.
#[derive(Debug)]
pub(crate) struct Callbacks {
    client: Client,
    seal: Seal,
    secret: Option<WebhookSecret>,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It is not to be tried again, and why: what is told to the log, so without addresses.
    Refused(String),
    /// It may work another time.
    Failed(String),
}

impl Callbacks {
    /// `folder` keeps the key under which the contents of open callbacks are sealed.
    pub(crate) fn open(
        folder: &Path,
        secret: Option<WebhookSecret>,
        allow_private: bool,
    ) -> Result<Self, SetupError> {
        Ok(Self { client: Client::new(allow_private)?, seal: Seal::open(folder)?, secret })
    }

    /// What is kept of a callback until it is made. `origin`: where the submitter reached this relay.
    ///
    /// # Errors
    /// Longer than the relay keeps.
    pub(crate) fn hook(
        &self,
        queue: &QueueKey,
        callback: &Callback,
        origin: &str,
    ) -> Result<Option<Hook>, Problem> {
        let Some(url) = callback.url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let payload = callback.payload.clone().unwrap_or_else(|| json!({}));
        let too_long = |what: &str, limit: usize| {
            let detail = format!("the {what} of a callback may have {limit} bytes at most");
            Err(Problem::new("callback-too-large", "Callback too large", detail))
        };
        if url.len() > MAX_CALLBACK_URL_BYTES {
            return too_long("address", MAX_CALLBACK_URL_BYTES);
        }
        if payload.to_string().len() > MAX_CALLBACK_PAYLOAD_BYTES {
            return too_long("payload", MAX_CALLBACK_PAYLOAD_BYTES);
        }
        let contents = Contents {
            queue: queue.reveal().to_owned(),
            url: url.to_owned(),
            payload,
            origin: origin.to_owned(),
        };
        Ok(self.seal.close(queue.digest(), &contents).map(|sealed| Hook { sealed }))
    }

    /// One attempt, in ten seconds at most, redirects included. `status_code`: how the container ended.
    pub(crate) async fn make(
        &self,
        queue: QueueDigest,
        job: &JobId,
        call: &Call,
        status_code: Option<i64>,
        now: Timestamp,
    ) -> Outcome {
        let Some(contents) = self.seal.open_sealed(queue, &call.hook.sealed) else {
            let why = "what was kept of it cannot be opened: the relay's key for callbacks has changed";
            return Outcome::Refused(why.to_owned());
        };
        let body = body(&contents, job, call, status_code).to_string();
        let limit = Duration::from_millis(CALL_LIMIT.unsigned_abs());
        match tokio::time::timeout(limit, self.post(&contents.url, &call.id, body, now)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("no answer within {} s", limit.as_secs())),
        }
    }

    async fn post(&self, address: &str, id: &str, body: String, now: Timestamp) -> Outcome {
        let Ok(mut url) = Url::parse(address) else {
            return Outcome::Refused("its address cannot be read".to_owned());
        };
        let mut method = Method::POST;
        for _ in 0..=MAX_REDIRECTS {
            let request = match self.client.request(method.clone(), &url) {
                Ok(request) => request,
                Err(refusal) => return Outcome::Refused(refusal.to_string()),
            };
            let request = if method == Method::POST {
                self.sign(request, id, &body, now).header(CONTENT_TYPE, "application/json").body(body.clone())
            } else {
                request
            };
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return target::failure(&error),
            };
            let status = response.status();
            if status.is_success() {
                return Outcome::Delivered;
            }
            if status == StatusCode::GONE {
                return Outcome::Refused("the receiver says that it is gone".to_owned());
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location.filter(|_| status.is_redirection()).and_then(|location| url.join(location).ok()) {
                Some(next) => url = next,
                None => return Outcome::Failed(format!("answered with {}", status.as_u16())),
            }
            if status == StatusCode::SEE_OTHER {
                method = Method::GET;
            }
        }
        Outcome::Failed(format!("more than {MAX_REDIRECTS} redirects"))
    }

    /// As Standard Webhooks say; the id and the time are of use without a signature too.
    fn sign(
        &self,
        request: reqwest::RequestBuilder,
        id: &str,
        body: &str,
        now: Timestamp,
    ) -> reqwest::RequestBuilder {
        let seconds = now.as_millis() / 1_000;
        let request = request.header("webhook-id", id).header("webhook-timestamp", seconds);
        match &self.secret {
            Some(secret) => request.header("webhook-signature", secret.sign(id, seconds, body)),
            None => request,
        }
    }
}

/// `{jobId, queue, namespace, config}`, and for an end how it was.
fn body(contents: &Contents, job: &JobId, call: &Call, status_code: Option<i64>) -> Value {
    let mut body = json!({
        "jobId": job,
        "queue": contents.queue,
        "namespace": call.namespace,
        "config": contents.payload,
    });
    if let Event::Finished { reason, .. } = &call.event {
        body["state"] = json!("Finished");
        body["reason"] = json!(reason);
        if let Some(status_code) = status_code {
            body["statusCode"] = json!(status_code);
        }
        if let Some(url) = result_url(contents, job) {
            body["resultUrl"] = json!(url.as_str());
        }
    }
    body
}

fn result_url(contents: &Contents, job: &JobId) -> Option<Url> {
    let mut url = Url::parse(&contents.origin).ok()?;
    let segments = ["q", &contents.queue, "j", job.as_str(), "result.json"];
    url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
    Some(url)
}

#[cfg(test)]
mod tests {
    use dockframe_shared::job::FinishReason;
    use dockframe_shared::{LeaseId, Namespace};

    use super::*;

    fn call(event: Event) -> Call {
        Call {
            id: "1".to_owned(),
            namespace: Namespace::default(),
            event,
            hook: Hook { sealed: String::new() },
            since: Timestamp::default(),
            attempts: 1,
            next: Timestamp::default(),
        }
    }

    fn contents() -> Contents {
        Contents {
            queue: "a b".to_owned(),
            url: "https://example.com/".to_owned(),
            payload: json!({"u": 7}),
            origin: "https://relay.example".to_owned(),
        }
    }

    #[test]
    fn the_body_of_a_queued_job_has_four_fields() {
        let job = JobId::new("J1").unwrap();
        assert_eq!(
            body(&contents(), &job, &call(Event::Queued), Some(1)).to_string(),
            r#"{"jobId":"J1","queue":"a b","namespace":"_","config":{"u":7}}"#
        );
    }

    #[test]
    fn the_body_of_an_end_says_how_it_was_and_where_the_result_is() {
        let event = Event::Finished {
            reason: FinishReason::Success,
            run: Some(LeaseId::new("never shown").unwrap()),
        };
        let body = body(&contents(), &JobId::new("J1").unwrap(), &call(event), Some(3));
        assert_eq!(body["state"], "Finished");
        assert_eq!((&body["reason"], &body["statusCode"]), (&json!("Success"), &json!(3)));
        assert_eq!(body["resultUrl"], "https://relay.example/q/a%20b/j/J1/result.json");
        assert!(!body.to_string().contains("never shown"));
    }
}
