//! What a test of a page works with: one Chromium for all, a window and relays of its own, and an end that closes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use dockframe_tests::browser::{Browser, Frame};
use dockframe_tests::hash;
use dockframe_tests::metapage::Metapage;
use dockframe_tests::pages::JobPage;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::{Host, NAME};
use super::relay::{Relay, Way};
use crate::registry::Context;

/// What is under test, and the browser for it.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Address of the page, without search and hash.
    page: url::Url,
    http: reqwest::Client,
    browser: Arc<Browser>,
    _folder: TempDir,
}

impl Setup {
    /// # Errors
    /// The page is not there, or there is no Chromium.
    pub(crate) async fn new(page: &url::Url) -> anyhow::Result<Self> {
        let mut page = page.clone();
        page.set_query(None);
        page.set_fragment(None);
        // Nothing follows redirects or unpacks: the browser does.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let answer = http.get(page.clone()).send().await.context("there is no page")?;
        anyhow::ensure!(answer.status().is_success(), "the page answers {}", answer.status());
        let folder = tempfile::Builder::new().prefix("dockframe-conformance-").tempdir()?;
        let browser = Arc::new(Browser::start(folder.path(), 0).await?);
        Ok(Self { page, http, browser, _folder: folder })
    }

    /// Ends the browser.
    pub(crate) async fn end(&self) {
        self.browser.close().await;
    }
}

/// The context of one test.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    setup: Arc<Setup>,
    nonce: String,
    windows: Arc<Mutex<Vec<Frame>>>,
}

/// Parameters of the page's hash: texts as they are, `true` if switched on, everything else as encoded JSON.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hash(BTreeMap<String, String>);

impl Hash {
    /// A job that runs by itself.
    pub(crate) fn auto(queue: &str, job: &Value) -> Self {
        Self::manual(queue, job).with("autostart", "true")
    }

    /// A job that waits for *Run Job*.
    pub(crate) fn manual(queue: &str, job: &Value) -> Self {
        Self::default().with("queue", queue).with_json("job", job)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn with_json(self, name: &str, value: &Value) -> Self {
        self.with(name, &hash::json(value))
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// With `#?`.
    pub(crate) fn text(&self) -> String {
        let all: Vec<_> = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        hash::hash(&all)
    }
}

/// A page in the real host.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) relay: Relay,
    pub(crate) host: Metapage,
    pub(crate) page: JobPage,
}

/// A page in the scripted host.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) relay: Relay,
    pub(crate) host: Host,
    pub(crate) page: JobPage,
    /// Serves the host's page.
    _servers: Metapage,
}

impl Test {
    pub(crate) fn new(setup: &Arc<Setup>) -> Self {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        Self { setup: setup.clone(), nonce, windows: Arc::default() }
    }

    /// A queue that nobody else uses.
    pub(crate) fn queue(&self) -> String {
        format!("conformance-{}", self.nonce)
    }

    /// A job that nobody else runs.
    pub(crate) fn job(&self) -> Value {
        json!({ "image": "alpine:3.18.5", "command": format!("echo {}", self.nonce) })
    }

    /// # Errors
    /// No port is free.
    pub(crate) async fn relay(&self, way: Way) -> anyhow::Result<Relay> {
        Relay::start(&self.setup.page, self.setup.http.clone(), way).await
    }

    /// A window that is closed with the test.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn window(&self) -> anyhow::Result<Frame> {
        let window = self.setup.browser.window().await?;
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).push(window.clone());
        Ok(window)
    }

    /// The page in the real host.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn hosted(&self, way: Way, hash: &str) -> anyhow::Result<Hosted> {
        self.hosted_with(self.relay(way).await?, hash, &json!({})).await
    }

    /// The page in the real host, which holds inputs for it before it has loaded.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn hosted_with(
        &self,
        relay: Relay,
        hash: &str,
        inputs: &Value,
    ) -> anyhow::Result<Hosted> {
        let host = Metapage::open_in(self.window().await?).await?;
        let url = format!("{}/{}", relay.url(), hash);
        host.load_with(&json!({ NAME: { "url": url } }), &json!({ NAME: inputs })).await?;
        let page = JobPage::new(host.frame(NAME));
        Ok(Hosted { relay, host, page })
    }

    /// The page in the scripted host, whose answers have these fields; `null`: it does not answer.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn scripted(
        &self,
        relay: Relay,
        hash: &str,
        answers: &Value,
    ) -> anyhow::Result<Scripted> {
        self.scripted_as(NAME, relay, hash, answers).await
    }

    /// The same, by another name of the frame.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn scripted_as(
        &self,
        name: &str,
        relay: Relay,
        hash: &str,
        answers: &Value,
    ) -> anyhow::Result<Scripted> {
        Self::scripted_in(self.window().await?, name, relay, hash, answers).await
    }

    /// The same, in a window that is there.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn scripted_in(
        window: Frame,
        name: &str,
        relay: Relay,
        hash: &str,
        answers: &Value,
    ) -> anyhow::Result<Scripted> {
        let servers = Metapage::open_in(window).await?;
        let host = Host::open(servers.host(), servers.origin(), name).await?;
        host.load(&format!("{}/{hash}", relay.url()), answers).await?;
        let page = JobPage::new(host.frame());
        Ok(Scripted { relay, host, page, _servers: servers })
    }

    /// An address of the page's own server.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn page_url(&self, path: &str) -> anyhow::Result<url::Url> {
        let base = self.setup.page.as_str().trim_end_matches('/');
        Ok(url::Url::parse(&format!("{base}/{path}"))?)
    }

    /// The page alone.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn alone(&self, relay: &Relay, hash: &str) -> anyhow::Result<JobPage> {
        let window = self.window().await?;
        window.open(&format!("{}/{}", relay.url(), hash)).await?;
        Ok(JobPage::new(window))
    }
}

impl Context for Test {
    /// All recorded hosts one after the other, in a browser, take 40 s on an idle machine.
    const LIMIT: Duration = Duration::from_secs(240);

    /// Closes the windows.
    async fn end(self) -> anyhow::Result<()> {
        let windows = std::mem::take(&mut *self.windows.lock().unwrap_or_else(PoisonError::into_inner));
        for window in windows {
            window.close_window().await?;
        }
        Ok(())
    }
}
