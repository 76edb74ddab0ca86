//! What the screen shows, derived from [`crate::state::State`] by plain functions: the words of every state are
//! here, and tested without a browser. Components only draw what they are given.

pub mod failure;
pub mod header;
pub mod links;
pub mod lists;
pub mod share;
pub mod trouble;
pub mod zip;

/// What a colour repeats after the words have said it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Idle,
    Run,
    Wait,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// Its name in the style sheet.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Run => "run",
            Self::Wait => "wait",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}
