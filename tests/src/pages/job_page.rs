//! The page that carries a job: alone, or as a metaframe.
//!
//! Found by what is written on it and by roles, never by the names that the style sheet uses: any page that keeps
//! the promises can be tested with this.

use serde_json::json;

use crate::browser::Frame;
use crate::wait;

/// The visible buttons whose text or label is the argument.
const BUTTON: &str = r"
    const words = (element) => {
      const copy = element.cloneNode(true);
      copy.querySelectorAll('[aria-hidden=true]').forEach((decoration) => decoration.remove());
      return copy.textContent;
    };
    const name = (element) => (element.getAttribute('aria-label') ?? words(element)).trim();
    const shown = (element) => element.getClientRects().length > 0;
    return [...document.querySelectorAll('button')].find((e) => name(e) === arguments[0] && shown(e)) ?? null;
";

#[derive(Debug, Clone)]
pub struct JobPage(Frame);

impl JobPage {
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        Self(frame)
    }

    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.0
    }

    /// All that is written on the page.
    ///
    /// # Errors
    /// There is no such frame.
    pub async fn words(&self) -> anyhow::Result<String> {
        Ok(self.0.text("body").await?.unwrap_or_default())
    }

    /// Waits until something is written on the page.
    ///
    /// # Errors
    /// It does not come; the message has what is written instead.
    pub async fn shows(&self, text: &str) -> anyhow::Result<()> {
        wait::until(&format!("{text:?} on the page"), wait::PATIENT, async || match self.words().await {
            Ok(words) if words.contains(text) => Ok(()),
            Ok(words) => Err(words),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Waits for a line of the job's own output.
    ///
    /// # Errors
    /// It does not come; the message has the log.
    pub async fn logs(&self, line: &str) -> anyhow::Result<()> {
        wait::until(&format!("{line:?} in the log"), wait::PATIENT, async || {
            match self.0.texts("[role=log]").await {
                Ok(logs) if logs.iter().any(|log| log.lines().any(|shown| shown.trim_end() == line)) => {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Presses a button by its text or label.
    ///
    /// # Errors
    /// There is none that can be pressed.
    pub async fn press(&self, button: &str) -> anyhow::Result<()> {
        self.0.press(&format!("the button {button:?}"), BUTTON, &[json!(button)]).await
    }
}
