//! The relay over HTTP: blobs, results, log lines. No error of this module shows an address, since addresses hold
//! the queue's name.

use std::time::Duration;

use anyhow::{Context as _, bail};
use dockframe_shared::job::{JobObject, LogLine};
use dockframe_shared::protocol::{LogKind, WATCH_PROTOCOL};
use dockframe_shared::{JobId, QueueKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::QueueArgs;
use super::definition::Upload;

/// What stays as it is in a path's segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// A silent relay is a lost relay.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A relay and a queue of it.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    api: Url,
    queue: QueueKey,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

impl Client {
    pub(crate) fn new(args: QueueArgs) -> anyhow::Result<Self> {
        let QueueArgs { mut api_address, queue } = args;
        if !matches!(api_address.scheme(), "http" | "https") {
            bail!("--api-address must begin with http:// or https://");
        }
        // Joining a relative path replaces what follows the last slash.
        if !api_address.path().ends_with('/') {
            api_address.set_path(&format!("{}/", api_address.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(Self { http, api: api_address, queue })
    }

    /// The relay's address, for people: without queue.
    pub(crate) fn api(&self) -> &Url {
        &self.api
    }

    pub(crate) fn queue(&self) -> &QueueKey {
        &self.queue
    }

    /// Below this address the relay keeps files.
    pub(crate) fn blobs(&self) -> anyhow::Result<Url> {
        Ok(self.api.join("f/")?)
    }

    /// Where to open a watching socket.
    pub(crate) fn socket(&self) -> anyhow::Result<Url> {
        let mut url = self.in_queue(&format!("client?protocol={WATCH_PROTOCOL}"))?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        if url.set_scheme(scheme).is_err() {
            bail!("--api-address must begin with http:// or https://");
        }
        Ok(url)
    }

    fn in_queue(&self, rest: &str) -> anyhow::Result<Url> {
        let queue = utf8_percent_encode(self.queue.reveal(), SEGMENT);
        Ok(self.api.join(&format!("q/{queue}/{rest}"))?)
    }

    fn of_job(&self, job: &JobId, rest: &str) -> anyhow::Result<Url> {
        let job = utf8_percent_encode(job.as_str(), SEGMENT);
        self.in_queue(&format!("j/{job}/{rest}"))
    }

    /// Sends a file unless the relay has it.
    pub(crate) async fn upload(&self, upload: &Upload) -> anyhow::Result<()> {
        let name = upload.path.display();
        let address = self.blobs()?.join(&upload.hash.to_string())?;
        let exists = Url::parse(&format!("{address}/exists"))?;
        let known = self.http.get(exists).send().await.map_err(reqwest::Error::without_url);
        if known.with_context(|| format!("cannot ask the relay for {name}"))?.status() == StatusCode::OK {
            return Ok(());
        }
        let file =
            tokio::fs::File::open(&upload.path).await.with_context(|| format!("cannot read {name}"))?;
        let length = file.metadata().await?.len();
        let body = Body::wrap_stream(tokio_util::io::ReaderStream::new(file));
        let request = self.http.put(address).header("content-length", length).body(body);
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        check(sent.with_context(|| format!("cannot upload {name}"))?)
            .await
            .with_context(|| format!("the relay did not take {name}"))?;
        Ok(())
    }

    /// The finished job with its result; `None` while the relay has none.
    pub(crate) async fn result(&self, job: &JobId) -> anyhow::Result<Option<JobObject>> {
        let answer: Data<Option<JobObject>> = self.json(self.of_job(job, "result.json")?).await?;
        Ok(answer.data)
    }

    /// The lines of one kind from number `since` on.
    pub(crate) async fn lines(&self, job: &JobId, kind: LogKind, since: u64) -> anyhow::Result<Vec<LogLine>> {
        let name = match kind {
            LogKind::Build => "build-logs.json",
            LogKind::Run => "run-logs.json",
        };
        let answer: Data<Vec<LogLine>> =
            self.json(self.of_job(job, &format!("{name}?since={since}"))?).await?;
        Ok(answer.data)
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, url: Url) -> anyhow::Result<T> {
        let answer = self.http.get(url).send().await.map_err(reqwest::Error::without_url)?;
        Ok(check(answer).await?.json().await.map_err(reqwest::Error::without_url)?)
    }

    /// Any address that a data reference names.
    pub(crate) async fn get(&self, url: Url) -> anyhow::Result<Response> {
        let answer = self.http.get(url).send().await.map_err(reqwest::Error::without_url)?;
        check(answer).await
    }
}

/// A status that is no success becomes an error with what the relay says.
async fn check(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let said: String = text.chars().take(300).collect();
    bail!("the relay answers {status}: {said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_one_segment_of_the_address() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let args = QueueArgs {
            api_address: "https://relay.example/base".parse().unwrap(),
            queue: QueueKey::new("a b/c?d").unwrap(),
        };
        let client = Client::new(args).unwrap();
        assert_eq!(
            client.socket().unwrap().as_str(),
            "wss://relay.example/base/q/a%20b%2Fc%3Fd/client?protocol=watch/1"
        );
        assert_eq!(client.blobs().unwrap().as_str(), "https://relay.example/base/f/");
    }
}
