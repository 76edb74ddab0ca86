//! A headless Chromium of the scenario's own, driven over WebDriver.
//!
//! What a user does goes through real clicks and keys; what a page shows is read by a script. Every message that a
//! frame receives is recorded in it before any script of the page runs ([`Frame::messages`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, Locator, WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::process::Process;
use crate::wait;

/// Runs first in every frame: keeps what the frame receives, in a form that is JSON.
const RECORDER: &str = r"
    window.__messages = [];
    window.addEventListener('message', (event) => {
      const plain = JSON.parse(JSON.stringify(event.data ?? null, (key, value) =>
        ArrayBuffer.isView(value) || value instanceof ArrayBuffer ? { $binary: value.byteLength } : value));
      const at = performance.timeOrigin + performance.now();
      window.__messages.push({ at, fromParent: event.source === window.parent && window !== window.top, data: plain });
    }, true);
";

/// A name that is this computer's address too, and as foreign to it as any site's.
pub const FOREIGN_HOST: &str = "foreign.example";

/// The size of a usual window, in CSS pixels.
const WINDOW: (u32, u32) = (1280, 860);

#[derive(Debug)]
pub struct Browser {
    /// `None` after the end. Locked for one action at a time: which frame is meant is a state of the session.
    client: Mutex<Option<Client>>,
    /// The window that is there from the beginning, and stays.
    first: WindowHandle,
    driver: Process,
    profile: PathBuf,
}

impl Browser {
    /// Starts one; its profile and its logs lie in the folder.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start(folder: &Path, number: usize) -> anyhow::Result<Self> {
        let profile = folder.join(format!("chromium-{number}"));
        std::fs::create_dir_all(&profile)?;
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let driver = Process::start(&format!("chromedriver-{number}"), command, folder)
            .context("chromedriver cannot be started: run `scripts/setup --test`")?;
        let said = driver.says("started successfully on port ", wait::SOON).await?;
        let port = said.split("started successfully on port ").nth(1).and_then(|rest| rest.split('.').next());
        let port: u16 =
            port.and_then(|text| text.trim().parse().ok()).context("chromedriver names no port")?;

        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&profile)?)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .context("Chromium does not start")?;
        record(&client).await?;
        let first = client.window().await?;
        Ok(Self { first, client: Mutex::new(Some(client)), driver, profile })
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// The page cannot be loaded.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.session().await?.goto(url).await.with_context(|| format!("cannot open {url}"))
    }

    /// The address as it is now.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn address(&self) -> anyhow::Result<url::Url> {
        Ok(self.session().await?.current_url().await?)
    }

    /// The page itself.
    #[must_use]
    pub fn page(self: &Arc<Self>) -> Frame {
        Frame { browser: self.clone(), window: None, name: None }
    }

    /// A new window, for those who use several side by side. Then nobody may use [`Browser::page`], which is the
    /// window of whoever came last.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn window(self: &Arc<Self>) -> anyhow::Result<Frame> {
        let session = self.session().await?;
        // The one before may be closed.
        session.switch_to_window(self.first.clone()).await?;
        let window = session.new_window(false).await?.handle;
        session.switch_to_window(window.clone()).await?;
        record(&session).await?;
        Ok(Frame { browser: self.clone(), window: Some(window), name: None })
    }

    /// A frame of the page, by the name of its element.
    #[must_use]
    pub fn frame(self: &Arc<Self>, name: &str) -> Frame {
        self.page().frame(name)
    }

    /// The window's inner size, in CSS pixels, is set to about this.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        Ok(self.session().await?.set_window_size(width, height).await?)
    }

    /// A command of Chromium's own protocol.
    ///
    /// # Errors
    /// Chromium refuses it.
    pub async fn chromium(&self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        Ok(self.session().await?.issue_cmd(Post("goog/cdp/execute", cdp(method, parameters))).await?)
    }

    /// What pages wrote to the console since the last call, a line each.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn console(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.session().await?.issue_cmd(Post("se/log", json!({ "type": "browser" }))).await?;
        let line = |entry: &Value| {
            format!(
                "{} {}",
                entry["level"].as_str().unwrap_or_default(),
                entry["message"].as_str().unwrap_or_default()
            )
        };
        Ok(entries.as_array().map(|entries| entries.iter().map(line).collect()).unwrap_or_default())
    }

    /// Writes a picture of the page.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn screenshot(&self, file: &Path) -> anyhow::Result<()> {
        let png = self.session().await?.screenshot().await?;
        Ok(std::fs::write(file, png)?)
    }

    /// Keeps a picture and the console for a report.
    pub(crate) async fn keep(&self, folder: &Path, number: usize) -> anyhow::Result<String> {
        let console = self.console().await?.join("\n");
        std::fs::write(folder.join(format!("console-{number}.txt")), &console)?;
        self.screenshot(&folder.join(format!("screen-{number}.png"))).await?;
        Ok(console)
    }

    /// Ends Chromium, then the driver: a driver that is killed leaves its Chromium running.
    pub async fn close(&self) {
        if let Some(client) = self.client.lock().await.take() {
            let _ = tokio::time::timeout(Duration::from_secs(10), client.close()).await;
        }
        let _ = self.driver.stop(Duration::from_secs(5)).await;
        end_those_with(&self.profile).await;
    }

    async fn session(&self) -> anyhow::Result<Session<'_>> {
        let guard = self.client.lock().await;
        anyhow::ensure!(guard.is_some(), "the browser has ended");
        Ok(Session(guard))
    }
}

/// The locked session. Only made when there is one.
struct Session<'a>(MutexGuard<'a, Option<Client>>);

impl std::ops::Deref for Session<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.0.as_ref().expect("checked when the session was locked")
    }
}

/// A document in the browser: the page, or one of its frames.
#[derive(Debug, Clone)]
pub struct Frame {
    browser: Arc<Browser>,
    /// `None`: the only one.
    window: Option<WindowHandle>,
    name: Option<String>,
}

impl Frame {
    #[must_use]
    pub fn browser(&self) -> &Arc<Browser> {
        &self.browser
    }

    /// A frame of this page, by the name of its element.
    #[must_use]
    pub fn frame(&self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self.clone() }
    }

    /// Goes to an address, in this window.
    ///
    /// # Errors
    /// The page cannot be loaded.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        let page = Self { name: None, ..self.clone() };
        page.within(async |client| client.goto(url).await.with_context(|| format!("cannot open {url}"))).await
    }

    /// Closes the window of this document, which must be one of its own.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn close_window(&self) -> anyhow::Result<()> {
        let page = Self { name: None, ..self.clone() };
        page.within(async |client| Ok(client.close_window().await?)).await
    }

    /// A command of Chromium's own protocol, for this window.
    ///
    /// # Errors
    /// Chromium refuses it.
    pub async fn chromium(&self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        let page = Self { name: None, ..self.clone() };
        page.within(async |client| {
            Ok(client.issue_cmd(Post("goog/cdp/execute", cdp(method, parameters))).await?)
        })
        .await
    }

    /// Runs a script's text as the body of a function; `arguments` are its arguments. A promise is awaited.
    ///
    /// # Errors
    /// The script throws, or there is no such frame.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> anyhow::Result<Value> {
        self.within(async |client| Ok(client.execute(script, arguments.to_vec()).await?)).await
    }

    /// The visible text of the first element that matches; `None` when there is none.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn text(&self, css: &str) -> anyhow::Result<Option<String>> {
        let text =
            self.run("return document.querySelector(arguments[0])?.innerText ?? null", &[json!(css)]).await?;
        Ok(text.as_str().map(str::to_owned))
    }

    /// The visible text of all elements that match.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn texts(&self, css: &str) -> anyhow::Result<Vec<String>> {
        let script =
            "return [...document.querySelectorAll(arguments[0])].map((element) => element.innerText)";
        let texts = self.run(script, &[json!(css)]).await?;
        Ok(serde_json::from_value(texts)?)
    }

    /// Clicks the first element that matches, as soon as it is there.
    ///
    /// # Errors
    /// It does not come, or cannot be clicked.
    pub async fn click(&self, css: &str) -> anyhow::Result<()> {
        self.attempt(&format!("a click on {css}"), css, async |element| element.click().await).await
    }

    /// Clicks what a script finds, as soon as it finds something.
    ///
    /// # Errors
    /// It finds nothing, or what it finds cannot be clicked.
    pub async fn press(&self, what: &str, script: &str, arguments: &[Value]) -> anyhow::Result<()> {
        wait::until(&format!("a click on {what}"), wait::SOON, async || {
            let done = self
                .within(async |client| {
                    let found = client.execute(script, arguments.to_vec()).await?;
                    anyhow::ensure!(!found.is_null(), "it is not there");
                    let element: WebElement = serde_json::from_value(found)?;
                    Ok(Element::from_element_id(client.clone(), element.id.into()).click().await?)
                })
                .await;
            done.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// Replaces the text of a field, by keys.
    ///
    /// # Errors
    /// It does not come, or takes no text.
    pub async fn fill(&self, css: &str, text: &str) -> anyhow::Result<()> {
        self.attempt(&format!("a text in {css}"), css, async |element| {
            element.clear().await?;
            element.send_keys(text).await
        })
        .await
    }

    /// Sends keys to an element as it is.
    ///
    /// # Errors
    /// It does not come, or takes no keys.
    pub async fn keys(&self, css: &str, keys: &str) -> anyhow::Result<()> {
        self.attempt(&format!("keys in {css}"), css, async |element| element.send_keys(keys).await).await
    }

    /// Sends keys to whatever has the focus.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn keys_to_page(&self, keys: &str) -> anyhow::Result<()> {
        self.within(async |client| Ok(client.active_element().await?.send_keys(keys).await?)).await
    }

    /// Types whatever has the focus, key by key as a keyboard does: also where the element with the focus is inside a
    /// shadow root, which [`Frame::keys`] does not find.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn type_keys(&self, keys: &str) -> anyhow::Result<()> {
        let strokes = keys
            .chars()
            .flat_map(|value| [KeyAction::Down { value }, KeyAction::Up { value }])
            .collect::<Vec<_>>();
        self.press_keys(strokes).await
    }

    /// Presses a key while another is held.
    ///
    /// # Errors
    /// The browser does not answer.
    pub async fn press_chord(&self, held: char, value: char) -> anyhow::Result<()> {
        let strokes = [
            KeyAction::Down { value: held },
            KeyAction::Down { value },
            KeyAction::Up { value },
            KeyAction::Up { value: held },
        ];
        self.press_keys(strokes.to_vec()).await
    }

    async fn press_keys(&self, strokes: Vec<KeyAction>) -> anyhow::Result<()> {
        let keys = strokes.into_iter().fold(KeyActions::new("keyboard".to_owned()), KeyActions::then);
        self.within(async |client| Ok(client.perform_actions(keys).await?)).await
    }

    /// All messages that the document has received since it was loaded: `{at, fromParent, data}` each, `at` in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn messages(&self) -> anyhow::Result<Vec<Value>> {
        let messages = self.run("return window.__messages", &[]).await?;
        Ok(serde_json::from_value(messages)?)
    }

    async fn attempt(
        &self,
        what: &str,
        css: &str,
        mut act: impl AsyncFnMut(&Element) -> Result<(), fantoccini::error::CmdError>,
    ) -> anyhow::Result<()> {
        wait::until(what, wait::SOON, async || {
            let done = self
                .within(async |client| {
                    let element = client.find(Locator::Css(css)).await?;
                    Ok(act(&element).await?)
                })
                .await;
            done.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// Does something in this document and goes back to the page, whatever came of it.
    async fn within<T>(&self, act: impl AsyncFnOnce(&Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let session = self.browser.session().await?;
        if let Some(window) = &self.window {
            session.switch_to_window(window.clone()).await?;
        }
        let Some(name) = &self.name else {
            return act(&session).await;
        };
        let css = format!("iframe[name=\"{name}\"]");
        let element = session.find(Locator::Css(&css)).await.with_context(|| format!("no frame {name}"))?;
        element.enter_frame().await?;
        let outcome = act(&session).await;
        session.enter_parent_frame().await?;
        outcome
    }
}

/// The messages that documents of the client's window receive are recorded from now on.
async fn record(client: &Client) -> anyhow::Result<()> {
    let source = json!({ "source": RECORDER });
    client.issue_cmd(Post("goog/cdp/execute", cdp("Page.addScriptToEvaluateOnNewDocument", &source))).await?;
    Ok(())
}

fn capabilities(profile: &Path) -> anyhow::Result<Capabilities> {
    let arguments = [
        "--headless".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-quic".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        format!("--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1"),
        // Of several windows none is in the background: there clocks go slower.
        "--disable-background-timer-throttling".to_owned(),
        "--disable-backgrounding-occluded-windows".to_owned(),
        "--disable-renderer-backgrounding".to_owned(),
        format!("--window-size={},{}", WINDOW.0, WINDOW.1),
        format!("--user-data-dir={}", profile.display()),
    ];
    let mut options = json!({ "args": arguments });
    if let Some(chromium) = std::env::var_os("CHROMIUM") {
        options["binary"] = json!(chromium.to_str().context("CHROMIUM is no text")?);
    }
    let capabilities = json!({
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
        "unhandledPromptBehavior": "accept",
    });
    Ok(serde_json::from_value(capabilities)?)
}

fn cdp(method: &str, parameters: &Value) -> Value {
    json!({ "cmd": method, "params": parameters })
}

/// An element as scripts give it.
#[derive(Debug, serde::Deserialize)]
struct WebElement {
    #[serde(rename = "element-6066-11e4-a52e-4f735466cecf")]
    id: String,
}

/// A command that WebDriver itself does not have: its path below the session, and its body.
#[derive(Debug)]
struct Post(&'static str, Value);

impl WebDriverCompatibleCommand for Post {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.1.to_string()))
    }
}

/// The net below [`Browser::close`]: ends what still runs with this profile, which nobody else uses.
async fn end_those_with(profile: &Path) {
    let Some(profile) = profile.to_str() else { return };
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Ok(words) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let name = entry.file_name();
        if String::from_utf8_lossy(&words).contains(profile)
            && let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        {
            let _ = Command::new("kill").args(["-KILL", pid]).status().await;
        }
    }
}
