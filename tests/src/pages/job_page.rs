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

/// The visible field under the label that begins with the argument.
const FIELD: &str = r"
    const shown = (element) => element.getClientRects().length > 0;
    const label = [...document.querySelectorAll('label')]
      .find((e) => e.textContent.trim().startsWith(arguments[0]) && shown(e));
    return label?.querySelector('input, textarea, select') ?? null;
";

/// The visible editor whose label contains the argument, be it a field or an element that is edited as a whole, also
/// inside open shadow roots.
const EDITOR: &str = r"
    const shown = (element) => element.getClientRects().length > 0;
    const all = (root) => [...root.querySelectorAll('*')].flatMap((e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
    const edits = (e) => e.matches('textarea, [contenteditable=true]');
    const label = (e) => e.getAttribute('aria-label') ?? '';
    return all(document).find((e) => edits(e) && label(e).includes(arguments[0]) && shown(e)) ?? null;
";

/// Keys without a letter, as WebDriver writes them.
const CONTROL: char = '\u{e009}';
const DELETE: char = '\u{e017}';

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

    /// Waits until one of these is written on the page: programs say the same in different words.
    ///
    /// # Errors
    /// None comes; the message has what is written instead.
    pub async fn shows_one(&self, texts: &[&str]) -> anyhow::Result<()> {
        wait::until(&format!("one of {texts:?} on the page"), wait::PATIENT, async || {
            match self.words().await {
                Ok(words) if texts.iter().any(|text| words.contains(text)) => Ok(()),
                Ok(words) => Err(words),
                Err(error) => Err(error.to_string()),
            }
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

    /// Presses the button of one of these names: programs say the same in different words.
    ///
    /// # Errors
    /// There is none that can be pressed.
    pub async fn press_one(&self, names: &[&str]) -> anyhow::Result<()> {
        let script = BUTTON.replace("name(e) === arguments[0]", "arguments[0].includes(name(e))");
        self.0.press(&format!("a button of {names:?}"), &script, &[json!(names)]).await
    }

    /// Waits for a button of one of these names, or for there being none, or one that is disabled.
    ///
    /// # Errors
    /// It stays otherwise.
    pub async fn has_one(&self, names: &[&str], wanted: Option<bool>) -> anyhow::Result<()> {
        let test = BUTTON.replace("name(e) === arguments[0]", "arguments[0].includes(name(e))");
        let script = format!(
            "const found = (function () {{ {test} }}).apply(null, arguments); return found ? !found.disabled : null"
        );
        let what = match wanted {
            Some(true) => "there",
            Some(false) => "disabled",
            None => "gone",
        };
        wait::until(&format!("a button of {names:?} to be {what}"), wait::SOON, async || {
            match self.0.run(&script, &[json!(names)]).await {
                Ok(found) if found.as_bool() == wanted => Ok(()),
                Ok(found) => Err(format!("{found}; {}", self.words().await.unwrap_or_default())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Presses the first button whose text or label begins with this; a count may follow.
    ///
    /// # Errors
    /// There is none that can be pressed.
    pub async fn press_starting(&self, begin: &str) -> anyhow::Result<()> {
        let script = BUTTON.replace("name(e) === arguments[0]", "name(e).startsWith(arguments[0])");
        self.0.press(&format!("the button {begin:?}…"), &script, &[json!(begin)]).await
    }

    /// Presses the first button that begins with this, in letters of either case.
    ///
    /// # Errors
    /// There is none that can be pressed.
    pub async fn press_ignoring_case(&self, begin: &str) -> anyhow::Result<()> {
        let test = "name(e).toLowerCase().startsWith(arguments[0].toLowerCase())";
        let script = BUTTON.replace("name(e) === arguments[0]", test);
        self.0.press(&format!("the button {begin:?}"), &script, &[json!(begin)]).await
    }

    /// Waits for a line that contains this in the job's log.
    ///
    /// # Errors
    /// It does not come; the message has the log.
    pub async fn logs_containing(&self, text: &str) -> anyhow::Result<()> {
        // Also what is folded.
        let script =
            "return [...document.querySelectorAll('[role=log]')].map((log) => log.textContent).join()";
        wait::until(&format!("{text:?} in the log"), wait::PATIENT, async || {
            match self.0.run(script, &[]).await {
                Ok(log) if log.as_str().is_some_and(|log| log.contains(text)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Opens a panel by its button, unless it is open.
    ///
    /// # Errors
    /// There is no such button.
    pub async fn open_panel(&self, name: &str) -> anyhow::Result<()> {
        let script = format!(
            "const found = (function () {{ {} }}).apply(null, arguments); \
             return found?.getAttribute('aria-pressed') ?? found?.getAttribute('aria-selected') ?? null",
            BUTTON.replace("name(e) === arguments[0]", "name(e).startsWith(arguments[0])")
        );
        if self.0.run(&script, &[json!(name)]).await? == "true" {
            return Ok(());
        }
        self.press_starting(name).await
    }

    /// The text of a field, by the beginning of its label.
    ///
    /// # Errors
    /// It does not come.
    pub async fn field(&self, label: &str) -> anyhow::Result<String> {
        let script = format!("return (function () {{ {FIELD} }}).apply(null, arguments)?.value ?? null");
        wait::until(&format!("the field {label:?}"), wait::SOON, async || {
            let value = self.0.run(&script, &[json!(label)]).await.map_err(|error| format!("{error:#}"))?;
            value.as_str().map(str::to_owned).ok_or_else(|| "it is not there".to_owned())
        })
        .await
    }

    /// Sets a field's text as if it were typed and the field left.
    ///
    /// # Errors
    /// It does not come.
    pub async fn set_field(&self, label: &str, text: &str) -> anyhow::Result<()> {
        let script = format!(
            "const field = (function () {{ {FIELD} }}).call(null, arguments[0]); if (!field) return false; \
             field.focus(); field.value = arguments[1]; \
             for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {{ bubbles: true }})); \
             field.blur(); return true"
        );
        wait::until(&format!("the field {label:?}"), wait::SOON, async || {
            match self.0.run(&script, &[json!(label), json!(text)]).await {
                Ok(done) if done == true => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Chooses a radio button or switch by the beginning of its label.
    ///
    /// # Errors
    /// It does not come.
    pub async fn choose(&self, label: &str) -> anyhow::Result<()> {
        self.0.press(&format!("the choice {label:?}"), FIELD, &[json!(label)]).await
    }

    /// Types into the editor of a file: what is there is replaced.
    ///
    /// # Errors
    /// There is none, or it does not take the keys.
    pub async fn type_into_editor(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let content = format!(
            "const found = (function () {{ {EDITOR} }}).call(null, arguments[0]); \
            return found && (found.value ?? found.innerText)"
        );
        // A page may put a better editor into the place of the one that is typed into: then it is typed again.
        wait::until(&format!("{text:?} in the editor of {file:?}"), wait::PATIENT, async || {
            let typed = async {
                self.0.press(&format!("the editor of {file:?}"), EDITOR, &[json!(file)]).await?;
                self.0.press_chord(CONTROL, 'a').await?;
                self.0.type_keys(&format!("{DELETE}{text}")).await?;
                self.0.run(&content, &[json!(file)]).await
            };
            match typed.await {
                Ok(content) if content.as_str().is_some_and(|content| content.trim_end() == text) => Ok(()),
                Ok(content) => Err(format!("its content is {content}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }
}
