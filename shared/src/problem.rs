//! A refusal in words: the relay speaks them, the page and the CLI show them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What went wrong, for programs (`code`) and for people (`title`, `detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// Stable, kebab-case: `definition-missing`, `too-many-watched`.
    pub code: Cow<'static, str>,
    /// One short sentence, the same for every occurrence of the code.
    pub title: Cow<'static, str>,
    /// What exactly, why, and what to do about it. Never holds a queue's name.
    pub detail: String,
}

impl Problem {
    #[must_use]
    pub fn new(code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), title: Cow::Borrowed(title), detail: detail.into() }
    }
}
