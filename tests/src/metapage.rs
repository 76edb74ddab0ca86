//! A page that hosts metaframes with the library that real hosts use, and a plain metaframe to connect with.
//!
//! Host and plain metaframe are served from two origins, as in life. The library comes from `node_modules`.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_http::cors::CorsLayer;
use tower_http::services::{ServeDir, ServeFile};

use crate::browser::{Browser, Frame};
use crate::scenario::Scenario;
use crate::{tests_folder, wait};

/// The host page, open in a browser.
#[derive(Debug)]
pub struct Metapage {
    page: Frame,
    origin: String,
    plain: String,
    _servers: JoinSet<()>,
}

impl Metapage {
    /// Serves the pages and opens the host, without metaframes yet.
    ///
    /// # Errors
    /// The library is not installed, or there is no browser.
    pub async fn open(scenario: &Scenario) -> anyhow::Result<Self> {
        Self::open_in(scenario.browser().await?.page()).await
    }

    /// Serves the pages and opens the host in a window that is there.
    ///
    /// # Errors
    /// The library is not installed.
    pub async fn open_in(page: Frame) -> anyhow::Result<Self> {
        let library = tests_folder().join("node_modules/@metapages/metapage/dist/index.js");
        anyhow::ensure!(
            library.is_file(),
            "the metapage library is not installed: run `scripts/setup --test`"
        );
        let mut servers = JoinSet::new();
        let mut serve = async || {
            let pages = Router::new()
                .route_service("/metapage.js", ServeFile::new(&library))
                .fallback_service(ServeDir::new(tests_folder().join("host")))
                .layer(CorsLayer::permissive());
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let origin = format!("http://{}", listener.local_addr()?);
            servers.spawn(async move {
                // Ends with the scenario, which drops it.
                let _ = axum::serve(listener, pages).await;
            });
            anyhow::Ok(origin)
        };
        let host = serve().await?;
        let plain = serve().await?;
        let page = Self { page, origin: host, plain: format!("{plain}/plain/"), _servers: servers };
        page.open_again(&page.origin).await?;
        Ok(page)
    }

    /// Opens the host anew, from this origin of the same server.
    ///
    /// # Errors
    /// It does not come.
    pub async fn open_again(&self, origin: &str) -> anyhow::Result<()> {
        self.page.open(&format!("{origin}/host.html")).await?;
        wait::until("the host page", wait::SOON, async || {
            match self.host().run("return Boolean(window.host)", &[]).await {
                Ok(Value::Bool(true)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    #[must_use]
    pub fn browser(&self) -> &Arc<Browser> {
        self.page.browser()
    }

    /// Where the host's own pages come from.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The address of the plain metaframe.
    #[must_use]
    pub fn plain_url(&self) -> &str {
        &self.plain
    }

    /// The host's own document.
    #[must_use]
    pub fn host(&self) -> Frame {
        self.page.clone()
    }

    /// The document of one metaframe.
    #[must_use]
    pub fn frame(&self, id: &str) -> Frame {
        self.page.frame(id)
    }

    /// Loads metaframes: their ids, addresses and pipes as in a metapage definition.
    ///
    /// # Errors
    /// The library refuses the definition.
    pub async fn load(&self, metaframes: &Value) -> anyhow::Result<()> {
        self.load_with(metaframes, &json!({})).await
    }

    /// Loads metaframes; the host holds inputs for them (frame → name → value) before any has loaded.
    ///
    /// # Errors
    /// The library refuses the definition.
    pub async fn load_with(&self, metaframes: &Value, inputs: &Value) -> anyhow::Result<()> {
        let definition = json!({ "version": "2", "metaframes": metaframes });
        let arguments = [definition, inputs.clone()];
        self.host().run("return window.host.load(arguments[0], arguments[1])", &arguments).await?;
        Ok(())
    }

    /// Sets inputs as the host: frame → name → value.
    ///
    /// # Errors
    /// The library refuses them.
    pub async fn set_inputs(&self, inputs: &Value) -> anyhow::Result<()> {
        self.host().run("window.host.setInputs(arguments[0])", std::slice::from_ref(inputs)).await?;
        Ok(())
    }

    /// All outputs that a metaframe has sent so far, merged.
    ///
    /// # Errors
    /// The page does not answer.
    pub async fn outputs(&self, id: &str) -> anyhow::Result<Value> {
        self.host().run("return window.host.outputs[arguments[0]] ?? {}", &[json!(id)]).await
    }

    /// The definition as the host would save it.
    ///
    /// # Errors
    /// The page does not answer.
    pub async fn definition(&self) -> anyhow::Result<Value> {
        self.host().run("return window.host.definition()", &[]).await
    }

    /// Waits for an output of a metaframe.
    ///
    /// # Errors
    /// It did not come, or has another value.
    pub async fn output_is(&self, id: &str, name: &str, wanted: &Value) -> anyhow::Result<()> {
        wait::until(&format!("{name} of {id} to be {wanted}"), wait::PATIENT, async || {
            match self.outputs(id).await {
                Ok(outputs) if outputs[name] == *wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// What the host received from one metaframe: the `data` of each message, in order.
    ///
    /// # Errors
    /// The page does not answer.
    pub async fn said_by(&self, id: &str) -> anyhow::Result<Vec<Value>> {
        let messages = self.host().messages().await?;
        Ok(messages.into_iter().map(|mut m| m["data"].take()).filter(|data| data["iframeId"] == id).collect())
    }

    /// What one metaframe received from the host: the `data` of each message, in order.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn heard_by(&self, id: &str) -> anyhow::Result<Vec<Value>> {
        let messages = self.frame(id).messages().await?;
        let from_host = messages.into_iter().filter(|message| message["fromParent"] == true);
        Ok(from_host.map(|mut message| message["data"].take()).collect())
    }

    /// Waits for a message of a metaframe to the host, and gives it.
    ///
    /// # Errors
    /// It did not come.
    pub async fn says(&self, id: &str, method: &str) -> anyhow::Result<Value> {
        wait::until(&format!("{method} from {id}"), wait::PATIENT, async || {
            let said = self.said_by(id).await.map_err(|error| error.to_string())?;
            let found = said.iter().find(|message| message["method"] == method).cloned();
            found.ok_or_else(|| format!("{said:?}"))
        })
        .await
    }
}

/// The plain metaframe: a field for what it sends, a list of what it got.
#[derive(Debug, Clone)]
pub struct Plain(Frame);

impl Plain {
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// Sends an output, by its form.
    ///
    /// # Errors
    /// The form is not there.
    pub async fn send(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.0.fill("#name", name).await?;
        self.0.fill("#value", value).await?;
        self.0.click("#send").await
    }

    /// What it shows for an input; `None` when it has none of this name.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn shows(&self, name: &str) -> anyhow::Result<Option<String>> {
        let shown = self.0.text("#inputs").await?.context("the plain metaframe shows no list")?;
        let inputs: Value = serde_json::from_str(&shown)?;
        Ok(inputs.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    }

    /// Waits for an input.
    ///
    /// # Errors
    /// It did not come, or has another value.
    pub async fn gets(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        wait::until(&format!("{name} with {wanted:?} at the plain metaframe"), wait::PATIENT, async || {
            match self.shows(name).await {
                Ok(Some(value)) if value == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}
