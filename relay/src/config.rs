//! How a relay is set up: where it keeps things, and what it allows.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use dockframe_shared::QueueKey;
use url::Url;

use crate::callbacks::WebhookSecret;
use crate::limits::MAX_BLOB_BYTES;
use crate::origins::Origins;

/// All that a relay is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    pub store: StoreAddress,
    pub blobs: BlobAddress,
    /// The address under which pages and workers reach this relay; missing: that of each request.
    pub public_url: Option<Url>,
    /// Whether a queue may be answered by a result that another queue computed. Default: yes.
    pub shared_results: bool,
    /// Signs callbacks as Standard Webhooks are signed. Default: they are not signed.
    pub webhook_secret: Option<WebhookSecret>,
    /// Whether callbacks may go to private and loopback addresses. Default: no.
    pub allow_private_callbacks: bool,
    /// Where the relay's metrics can be asked for: by everybody who reaches that address, so one that only the
    /// operator reaches. Default: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The one queue of a relay that has no others: `/metrics` means it. Default: none.
    pub local_queue: Option<QueueKey>,
    /// Which web pages are answered. Default: all.
    pub origins: Origins,
    /// Longest uploaded file, in bytes. Default: 16 GiB.
    pub max_blob_bytes: u64,
}

impl Config {
    #[must_use]
    pub fn new(store: StoreAddress, blobs: BlobAddress) -> Self {
        Self {
            store,
            blobs,
            public_url: None,
            shared_results: true,
            webhook_secret: None,
            allow_private_callbacks: false,
            metrics_listen: None,
            local_queue: None,
            origins: Origins::Any,
            max_blob_bytes: MAX_BLOB_BYTES,
        }
    }
}

/// An address that names nothing the relay can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

/// Where queues are kept. An address may hold a password, so `Debug` prints none of it but the server.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// `embedded:DIR`: a database in this folder, for one relay.
    Embedded(PathBuf),
    /// `redis://…`: for several relays.
    Redis(String),
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(folder) => f.debug_tuple("Embedded").field(folder).finish(),
            Self::Redis(address) => {
                let url = Url::parse(address).ok();
                let server = url.as_ref().and_then(Url::host_str).unwrap_or_default();
                f.debug_tuple("Redis").field(&server).finish()
            }
        }
    }
}

impl FromStr for StoreAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Some(folder) = text.strip_prefix("embedded:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Embedded(folder.into()));
        }
        if text.starts_with("redis://") || text.starts_with("rediss://") {
            return Ok(Self::Redis(text.to_owned()));
        }
        Err(BadAddress("a store is `embedded:FOLDER` or `redis://HOST:PORT`".to_owned()))
    }
}

/// Where files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobAddress {
    /// `file:DIR`: in this folder.
    Directory(PathBuf),
    /// `s3://bucket/prefix`.
    S3(String),
}

impl FromStr for BlobAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Some(folder) = text.strip_prefix("file:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Directory(folder.into()));
        }
        if text.starts_with("s3://") {
            return Ok(Self::S3(text.to_owned()));
        }
        Err(BadAddress("files are kept in `file:FOLDER` or `s3://BUCKET/PREFIX`".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        for address in ["redis://user:hunter2@host:1/2", "redis://:hunter2@host", "redis://hunter2@"] {
            let config =
                Config::new(StoreAddress::Redis(address.to_owned()), BlobAddress::Directory("d".into()));
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
    }

    #[test]
    fn addresses_are_read_and_others_are_refused_with_a_sentence() {
        assert_eq!("embedded:/d".parse(), Ok(StoreAddress::Embedded("/d".into())));
        assert_eq!("file:d".parse(), Ok(BlobAddress::Directory("d".into())));
        assert!("redis://h:1".parse::<StoreAddress>().is_ok());
        for bad in ["", "embedded:", "sqlite:x"] {
            assert!(bad.parse::<StoreAddress>().unwrap_err().to_string().contains("embedded:FOLDER"));
        }
    }
}
