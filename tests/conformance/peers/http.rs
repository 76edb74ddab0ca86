//! An HTTP client that follows no redirect and unpacks nothing: what is on the wire is what is checked.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use crate::check::{same, same_json};

/// The longest that an answer may take; much longer than any promise.
const ANSWER: Duration = Duration::from_secs(20);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Method and path, for messages.
    asked: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) took: Duration,
}

impl Answer {
    /// # Errors
    /// Another status.
    pub(crate) fn is(&self, status: u16) -> anyhow::Result<&Self> {
        anyhow::ensure!(
            self.status == status,
            "{}: expected status {status}; came {} {:?}",
            self.asked,
            self.status,
            self.short()
        );
        Ok(self)
    }

    /// # Errors
    /// Another status, or another JSON body.
    pub(crate) fn says(&self, status: u16, body: &Value) -> anyhow::Result<()> {
        self.is(status)?;
        same("media type", &self.media(), &"application/json".to_owned()).context(self.asked.clone())?;
        same_json(&self.asked, &self.json()?, body)
    }

    /// # Errors
    /// Another status, or another text.
    pub(crate) fn tells(&self, status: u16, text: &str) -> anyhow::Result<()> {
        same(&self.asked, &self.is(status)?.text(), &text.to_owned())
    }

    /// A refusal as section 6 wants it: a status, and JSON with a text under `error`.
    ///
    /// # Errors
    /// Another status or shape.
    pub(crate) fn refuses(&self, status: u16) -> anyhow::Result<()> {
        let body = self.is(status)?.json()?;
        anyhow::ensure!(
            body["error"].is_string(),
            "{}: expected {{\"error\":text}}; came {body}",
            self.asked
        );
        Ok(())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The content type without its parameters.
    pub(crate) fn media(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Errors
    /// The body is no JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: expected JSON; came {:?}", self.asked, self.short()))
    }

    fn short(&self) -> String {
        self.text().chars().take(300).collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Http {
    base: String,
    client: reqwest::Client,
}

impl Http {
    /// # Errors
    /// No client can be made.
    pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
        let redirects = reqwest::redirect::Policy::none();
        Ok(reqwest::Client::builder().timeout(ANSWER).redirect(redirects).build()?)
    }

    pub(crate) fn new(base: &str, client: reqwest::Client) -> Self {
        Self { base: base.to_owned(), client }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// No answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Answer> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let asked = format!("{method} {}", path.chars().take(200).collect::<String>());
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let begin = Instant::now();
        let answer = request.send().await.with_context(|| format!("{asked}: no answer"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.with_context(|| format!("{asked}: no whole body"))?.to_vec();
        Ok(Answer { asked, status, headers, body, took: begin.elapsed() })
    }

    /// An answer whose body is read piece by piece, for event streams.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn open(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let request = self.client.get(format!("{}{path}", self.base)).timeout(Duration::from_secs(120));
        request.send().await.with_context(|| format!("GET {path}: no answer"))
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, &[], body.to_owned()).await
    }

    /// What stands under `data`.
    ///
    /// # Errors
    /// No answer, another status than 200.
    pub(crate) async fn data(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.get(path).await?.is(200)?.json()?["data"].take())
    }

    /// Submits what stands in `body` and gives the id.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn submit_body(&self, queue: &str, body: &Value) -> anyhow::Result<String> {
        let answer = self.post(&format!("/q/{queue}"), body).await?;
        let answer = answer.is(200)?.json()?;
        let id = answer["jobId"].as_str().filter(|_| answer["success"] == true);
        Ok(id.with_context(|| format!("expected success and jobId; came {answer}"))?.to_owned())
    }

    /// Submits into the default namespace.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn submit(&self, queue: &str, definition: &Value) -> anyhow::Result<String> {
        self.submit_body(queue, &json!({ "definition": definition })).await
    }

    /// Submits into a namespace.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn submit_in(
        &self,
        queue: &str,
        definition: &Value,
        namespace: &str,
    ) -> anyhow::Result<String> {
        let control = json!({ "namespace": namespace });
        self.submit_body(queue, &json!({ "definition": definition, "control": control })).await
    }

    /// The list of the queue.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn list(&self, queue: &str) -> anyhow::Result<Map<String, Value>> {
        let data = self.data(&format!("/q/{queue}")).await?;
        data.as_object().cloned().with_context(|| format!("expected a map under data; came {data}"))
    }

    /// A cancel; `query` with its question mark, or empty.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn cancel(&self, queue: &str, id: &str, query: &str) -> anyhow::Result<Answer> {
        self.post_text(&format!("/q/{queue}/j/{id}/cancel{query}"), "").await
    }

    /// The finished job, or `null`.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn result(&self, queue: &str, id: &str) -> anyhow::Result<Value> {
        self.data(&format!("/q/{queue}/j/{id}/result.json")).await
    }

    /// The namespaces of a job.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn namespaces(&self, queue: &str, id: &str) -> anyhow::Result<Value> {
        self.data(&format!("/q/{queue}/j/{id}/namespaces.json")).await
    }

    /// The run lines of a job, with their cursors.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn run_logs(&self, queue: &str, id: &str, query: &str) -> anyhow::Result<Value> {
        self.get(&format!("/q/{queue}/j/{id}/run-logs.json{query}")).await?.is(200)?.json()
    }
}
