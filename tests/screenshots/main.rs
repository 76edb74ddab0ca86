//! `dockframe-screenshots FOLDER`: a picture of every state of the page, in a strip, a small and a wide frame side by
//! side, light and dark. `make screenshots` keeps `docs/screenshots/` by it.
//!
//! The page is the built one in `dist/`; the relay behind it is the stand-in, since most states last for moments in
//! life. What is in each state is written down in [`states`] and [`panels`].

mod host;
mod panels;
mod samples;
mod stage;
mod stand_in;
mod states;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use dockframe_tests::browser::Browser;
use serde_json::json;

use crate::host::{Place, Sheet};
use crate::stage::{Stage, State};
use crate::stand_in::StandIn;

/// The frames of a picture: a strip in a dense metapage, a small frame, a wide one.
const FRAMES: [(&str, Place); 3] = [
    ("strip", Place { left: 12, top: 12, width: 380, height: 64 }),
    ("small", Place { left: 12, top: 88, width: 380, height: 520 }),
    ("wide", Place { left: 404, top: 12, width: 1000, height: 596 }),
];
const SHEET: (u32, u32) = (1416, 620);
/// Text stays readable and a picture stays below 50 kB.
const QUALITY: u8 = 70;

/// Draws every state of the page.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the pictures go.
    folder: PathBuf,
    /// Only states whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// Lossless, for a close look.
    #[arg(long)]
    png: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let browser = Arc::new(Browser::start(folder.path(), 0).await?);
        let drawn = draw(&browser, &arguments).await;
        browser.close().await;
        drawn
    })
}

/// The sheet's size, and the theme that the system asks for.
async fn emulate(browser: &Browser, is_dark: bool) -> anyhow::Result<()> {
    let size = json!({ "width": SHEET.0, "height": SHEET.1, "deviceScaleFactor": 1, "mobile": false });
    browser.chromium("Emulation.setDeviceMetricsOverride", &size).await?;
    let scheme = if is_dark { "dark" } else { "light" };
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.chromium("Emulation.setEmulatedMedia", &media).await?;
    Ok(())
}

async fn draw(browser: &Arc<Browser>, arguments: &Arguments) -> anyhow::Result<()> {
    std::fs::create_dir_all(&arguments.folder)?;
    emulate(browser, false).await?;
    let (mut bytes, mut failures) = (0, Vec::new());
    for state in states::all() {
        if arguments.only.as_ref().is_some_and(|only| !state.name.contains(only.as_str())) {
            continue;
        }
        match draw_one(browser, &state, arguments).await {
            Ok(size) => bytes += size,
            Err(error) => failures.push(format!("{}: {error:#}", state.name)),
        }
    }
    anyhow::ensure!(failures.is_empty(), "not drawn:\n{}", failures.join("\n"));
    #[expect(clippy::print_stdout, reason = "this is what the program says")]
    {
        println!("{} kB in {}", bytes / 1000, arguments.folder.display());
    }
    Ok(())
}

async fn draw_one(browser: &Arc<Browser>, state: &State, arguments: &Arguments) -> anyhow::Result<usize> {
    let relay = StandIn::start().await?;
    let host = Sheet::open(browser.clone(), relay.origin()).await?;
    let stage = Stage { relay, host };
    (state.before)(&stage).await?;
    let hash = (state.hash)(&stage);
    for (name, place) in FRAMES {
        stage.host.load(name, &format!("{}/{hash}", stage.relay.origin()), place).await?;
    }
    (state.then)(&stage).await?;
    let mut bytes = 0;
    for is_dark in [false, true] {
        emulate(browser, is_dark).await?;
        stage.settle().await?;
        let theme = if is_dark { "dark" } else { "light" };
        let format = if arguments.png { "png" } else { "webp" };
        let wish = json!({ "format": format, "quality": QUALITY });
        let answer = browser.chromium("Page.captureScreenshot", &wish).await?;
        let picture = STANDARD.decode(answer["data"].as_str().context("no picture")?)?;
        bytes += picture.len();
        std::fs::write(arguments.folder.join(format!("{}-{theme}.{format}", state.name)), picture)?;
    }
    emulate(browser, false).await?;
    Ok(bytes)
}
