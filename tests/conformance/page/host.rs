//! A host that speaks the protocol by itself and does what a test says, also what the library of real hosts never does.

use std::time::Duration;

use dockframe_tests::browser::Frame;
use dockframe_tests::wait;
use serde_json::{Value, json};

/// The name of the metaframe in every test.
pub(crate) const NAME: &str = "mf";
/// The id of the scripted host.
pub(crate) const ID: &str = "host0001";

/// The scripted host, open in a window.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    page: Frame,
    /// Of the frame.
    name: String,
}

/// A message of the metaframe: since when, and what.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Said {
    /// Milliseconds since the frame was made.
    pub(crate) ms: f64,
    pub(crate) data: Value,
}

impl Said {
    pub(crate) fn is(&self, method: &str) -> bool {
        self.data["method"] == method
    }
}

/// The methods of messages, in order.
pub(crate) fn methods(said: &[Said]) -> Vec<String> {
    said.iter().map(|said| said.data["method"].as_str().unwrap_or_default().to_owned()).collect()
}

impl Host {
    /// Opens it at an origin that serves `host/`.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn open(page: Frame, origin: &str, name: &str) -> anyhow::Result<Self> {
        page.open(&format!("{origin}/scripted.html")).await?;
        wait::until("the scripted host", wait::SOON, async || {
            match page.run("return Boolean(window.host)", &[]).await {
                Ok(Value::Bool(true)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        Ok(Self { page, name: name.to_owned() })
    }

    /// Makes the frame. `answers`: what each request is answered beside the ids, `null`: nothing.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn load(&self, url: &str, answers: &Value) -> anyhow::Result<()> {
        let confirms = !answers.is_null();
        let how =
            json!({ "name": self.name, "url": url, "id": ID, "answers": answers, "confirms": confirms });
        self.call("open", &[how]).await
    }

    /// The metaframe's document.
    pub(crate) fn frame(&self) -> Frame {
        self.page.frame(&self.name)
    }

    /// From now on requests are answered like this.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn answers(&self, answers: &Value) -> anyhow::Result<()> {
        self.page.run("window.host.answers = arguments[0]", std::slice::from_ref(answers)).await?;
        Ok(())
    }

    /// A message in the envelope of this host.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn send(&self, method: &str, params: &Value) -> anyhow::Result<()> {
        self.call("send", &[json!(method), params.clone()]).await
    }

    /// A message as it is.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn post(&self, data: &Value) -> anyhow::Result<()> {
        self.call("post", std::slice::from_ref(data)).await
    }

    /// `InputsUpdate` with these.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn inputs(&self, inputs: Value) -> anyhow::Result<()> {
        self.send("InputsUpdate", &json!({ "inputs": inputs, "parentId": ID })).await
    }

    /// Sets the frame's address.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn goto(&self, url: &str) -> anyhow::Result<()> {
        self.call("goto", &[json!(url)]).await
    }

    /// The frame gets this size, in CSS pixels.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn size(&self, width: u32, height: u32) -> anyhow::Result<()> {
        self.call("size", &[json!(width), json!(height)]).await
    }

    /// All messages of the frame since it was made, each once.
    ///
    /// # Errors
    /// The page does not answer.
    pub(crate) async fn said(&self) -> anyhow::Result<Vec<Said>> {
        Ok(serde_json::from_value(self.page.run("return window.host.heard()", &[]).await?)?)
    }

    /// Waits until what the frame said fits.
    ///
    /// # Errors
    /// It did not come in time; what came instead.
    pub(crate) async fn awaits<T>(
        &self,
        expected: &str,
        limit: Duration,
        probe: impl Fn(&[Said]) -> Option<T>,
    ) -> anyhow::Result<T> {
        wait::until(&format!("expected {expected}; it"), limit, async || {
            let said = self.said().await.map_err(|error| format!("{error:#}"))?;
            probe(&said).ok_or_else(|| {
                let last = &said[said.len().saturating_sub(4)..];
                format!(
                    "{:?}, the last: {}",
                    methods(&said),
                    json!(last.iter().map(|s| &s.data).collect::<Vec<_>>())
                )
            })
        })
        .await
    }

    /// Waits for the nth message (from 0) of a method, and gives it.
    ///
    /// # Errors
    /// It did not come in time.
    pub(crate) async fn says(&self, method: &str, nth: usize) -> anyhow::Result<Value> {
        let what = format!("{method} number {nth} from the page");
        self.awaits(&what, wait::SOON, |said| {
            said.iter().filter(|said| said.is(method)).nth(nth).map(|said| said.data.clone())
        })
        .await
    }

    /// A script in the host's own document.
    ///
    /// # Errors
    /// It throws.
    pub(crate) async fn run(&self, script: &str) -> anyhow::Result<()> {
        self.page.run(script, &[]).await?;
        Ok(())
    }

    async fn call(&self, function: &str, arguments: &[Value]) -> anyhow::Result<()> {
        let script = format!("window.host.{function}(...arguments)");
        self.page.run(&script, arguments).await?;
        Ok(())
    }
}
