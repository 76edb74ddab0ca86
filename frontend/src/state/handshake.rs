//! Whether the host has spoken. Until it has, nothing is computed and nothing runs (`metaframe` 5.6).

/// How long a silent host holds the page up, in milliseconds.
pub const LIMIT_MS: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Not in an iframe: there is no host.
    Standalone,
    Waiting,
    /// The host did not answer in time; the page went on without inputs.
    Silent,
    Done,
}

impl Handshake {
    /// Whether jobs may be computed and submitted.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting)
    }

    /// Whether the host has answered: only then its updates count.
    #[must_use]
    pub fn has_answered(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether there is a page around this one.
    #[must_use]
    pub fn is_embedded(self) -> bool {
        !matches!(self, Self::Standalone)
    }

    /// Whether outputs have a receiver, be it one that answers late.
    #[must_use]
    pub fn has_host(self) -> bool {
        matches!(self, Self::Silent | Self::Done)
    }
}
