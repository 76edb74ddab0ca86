//! The names of things, parsed once at the edge and never doubted after.
//!
//! Every name is a text with a bound. Two of them carry more than that: [`QueueKey`] is a secret and never
//! prints itself, [`Namespace`] knows its default. Nothing here gives a meaning to a name's characters: a job id
//! is usually a SHA-256, but clients may choose their own (`jobs-and-states` 2).
//!
//! Names go into many messages, keys and indexes: a copy of one is a count, not another text.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Why a text cannot be the name of something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a {what} must not be empty")]
    Empty { what: &'static str },
    #[error("a {what} must have at most {max} bytes, this one has {actual}")]
    TooLong { what: &'static str, max: usize, actual: usize },
    #[error("a {what} must not hold control characters")]
    ControlCharacter { what: &'static str },
    #[error("`*` means all namespaces and cannot be the name of one")]
    Wildcard,
    #[error("a {what} must have 64 lower-case hex digits")]
    NotHex { what: &'static str },
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty { what });
    }
    if text.len() > max {
        return Err(BadName::TooLong { what, max, actual: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(BadName::ControlCharacter { what });
    }
    Ok(())
}

/// Lower-case hex of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest accepted name, in bytes of UTF-8.
            pub const MAX_BYTES: usize = $max;

            /// # Errors
            /// An empty text, one over [`Self::MAX_BYTES`], or one with control characters.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
                let text = text.as_ref();
                check($what, text, Self::MAX_BYTES)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_name!(
    /// Names a job: lower-case hex SHA-256 of its definition's canonical form, or a text of the client's own.
    JobId, "job id", 512
);
text_name!(
    /// Names a worker process's place: stable over restarts (`worker` 2.5).
    WorkerId, "worker id", 256
);
text_name!(
    /// Random for each start of a worker process (`jobs-and-states` 8.1).
    InstanceId, "worker instance", 256
);
text_name!(
    /// The fence of one run: unique for ever, unguessable, seen by its worker alone (`jobs-and-states` 8.3).
    LeaseId, "lease id", 128
);

impl JobId {
    /// From the 32 bytes of a SHA-256.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(hex(digest).into())
    }

    /// Whether the id has the form of a digest. It may still be a text of the client's own.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        is_sha256_hex(&self.0)
    }
}

/// The name of a queue, and the only secret there is: whoever knows it can run jobs on its machines.
///
/// It has no `Display`, and its `Debug` shows only the digest's beginning, so that no log, error or metric can
/// show it by accident. Stores use [`QueueKey::digest`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct QueueKey(Box<str>);

impl QueueKey {
    /// Longest accepted name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 1024;

    /// # Errors
    /// An empty text, one over [`Self::MAX_BYTES`], or one with control characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
        let text = text.as_ref();
        check("queue name", text, Self::MAX_BYTES)?;
        Ok(Self(text.into()))
    }

    /// The name itself, for addresses of the queue and messages to those who named it. Never for logs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn digest(&self) -> QueueDigest {
        QueueDigest(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl std::str::FromStr for QueueKey {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl fmt::Debug for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueKey({})", self.digest())
    }
}

/// SHA-256 of a queue's name: what stores, logs and metrics may hold in its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueDigest([u8; 32]);

impl QueueDigest {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hex digits, for keys of stores. `Display` gives the first twelve, for people.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for QueueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

impl fmt::Debug for QueueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of some bytes: the name of a blob.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// # Errors
    /// Anything but 64 lower-case hex digits.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let not_hex = || BadName::NotHex { what: "content hash" };
        if !is_sha256_hex(text) {
            return Err(not_hex());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| not_hex())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| not_hex())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A slot of a queue that holds at most one live job; `_`, the default, holds any number (`jobs-and-states` 4).
///
/// Ordered by UTF-8 bytes, as lists on the wire are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Longest accepted name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 512;

    /// The empty text is the default namespace.
    ///
    /// # Errors
    /// `*`, a text over [`Self::MAX_BYTES`], or one with control characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
        let text = text.as_ref();
        match text {
            "" | "_" => return Ok(Self::default()),
            "*" => return Err(BadName::Wildcard),
            _ => {}
        }
        check("namespace", text, Self::MAX_BYTES)?;
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The default namespace is shared by everybody and replaces nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        &*self.0 == "_"
    }
}

impl std::str::FromStr for Namespace {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        // Nearly every job is in it: one text for all of them.
        static DEFAULT: OnceLock<Arc<str>> = OnceLock::new();
        Self(Arc::clone(DEFAULT.get_or_init(|| "_".into())))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Namespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

/// Which namespaces an ending is for: one, or all of the queue (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceSelector {
    One(Namespace),
    All,
}

impl NamespaceSelector {
    /// # Errors
    /// As [`Namespace::new`], but `*` is all.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
        match text.as_ref() {
            "*" => Ok(Self::All),
            name => Namespace::new(name).map(Self::One),
        }
    }

    #[must_use]
    pub fn covers(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == namespace,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::One(one) => one.as_str(),
            Self::All => "*",
        }
    }
}

impl Serialize for NamespaceSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for NamespaceSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_key_never_prints_itself() {
        let key = QueueKey::new("very-secret").unwrap();
        assert!(!format!("{key:?} {:#?} {}", key, key.digest()).contains("secret"));
        assert_eq!(key.digest().to_hex().len(), 64);
    }

    #[test]
    fn names_are_bounded_at_the_edge_and_one_past_it() {
        assert!(JobId::new("x".repeat(JobId::MAX_BYTES)).is_ok());
        assert_eq!(
            JobId::new("x".repeat(JobId::MAX_BYTES + 1)),
            Err(BadName::TooLong { what: "job id", max: 512, actual: 513 })
        );
        assert_eq!(JobId::new(""), Err(BadName::Empty { what: "job id" }));
        assert!(JobId::new("a\0b").is_err());
        assert!(JobId::new("constructor").is_ok());
    }

    #[test]
    fn the_empty_namespace_is_the_default_and_the_wildcard_is_none() {
        assert!(Namespace::new("").unwrap().is_default());
        assert_eq!(Namespace::new("*"), Err(BadName::Wildcard));
        assert_eq!(NamespaceSelector::new("*"), Ok(NamespaceSelector::All));
    }

    #[test]
    fn content_hashes_parse_what_they_print() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(ContentHash::parse(&hash.to_string()), Ok(hash));
        assert!(ContentHash::parse(&hash.to_string().to_uppercase()).is_err());
    }
}
