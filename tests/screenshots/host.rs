//! The sheet that the frames stand on: a host that answers their handshake.

use std::sync::Arc;

use dockframe_tests::browser::{Browser, Frame};
use dockframe_tests::wait;
use serde_json::{Value, json};

/// Where a frame stands, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The sheet, open in a browser.
#[derive(Debug)]
pub(crate) struct Sheet(Arc<Browser>);

impl Sheet {
    /// Opens an empty sheet at an origin that serves it.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn open(browser: Arc<Browser>, origin: &str) -> anyhow::Result<Self> {
        let sheet = Self(browser);
        sheet.move_to(origin).await?;
        Ok(sheet)
    }

    /// Opens an empty sheet at another origin.
    ///
    /// # Errors
    /// It does not come.
    pub(crate) async fn move_to(&self, origin: &str) -> anyhow::Result<()> {
        self.0.open(&format!("{origin}/sheet.html")).await?;
        wait::until("the sheet", wait::SOON, async || {
            match self.page().run("return Boolean(window.sheet)", &[]).await {
                Ok(Value::Bool(true)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Its own document.
    pub(crate) fn page(&self) -> Frame {
        self.0.page()
    }

    pub(crate) fn frame(&self, name: &str) -> Frame {
        self.0.frame(name)
    }

    /// What all frames get as inputs.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn has_inputs(&self, inputs: &Value) -> anyhow::Result<()> {
        self.page().run("window.sheet.inputs = arguments[0]", std::slice::from_ref(inputs)).await?;
        Ok(())
    }

    /// Loads a frame.
    ///
    /// # Errors
    /// The browser does not answer.
    pub(crate) async fn load(&self, name: &str, url: &str, place: Place) -> anyhow::Result<()> {
        let place =
            json!({ "left": place.left, "top": place.top, "width": place.width, "height": place.height });
        self.page().run("window.sheet.load(...arguments)", &[json!(name), json!(url), place]).await?;
        Ok(())
    }
}
