//! HTTP for files: fetching what jobs name, and the relay's store (`worker` 7.4, 14.2, 22.1 B7).
//!
//! Jobs' addresses come from strangers, and this process sits in somebody's network. So every address that leads
//! neither to the relay nor to where the relay redirects is resolved, checked and connected as one: what was checked
//! is what is connected to, at every redirect again.

mod public;
mod repository;

use std::io;
use std::path::Path;
use std::time::Duration;

use dockframe_shared::net::is_public;
use dockframe_shared::{ContentHash, Timestamp};
use percent_encoding::utf8_percent_encode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, IF_RANGE, LOCATION, RANGE};
use reqwest::{Body, Client, Method, Response, StatusCode, redirect};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};
use tokio_util::io::ReaderStream;
use url::{Host, Url};

use self::public::{PRIVATE, PublicOnly};
pub(crate) use self::repository::Served;
use crate::relay_link::SEGMENT;
use crate::{clock, tls};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence within an answer.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MOST_PAUSE: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 256 << 10;

/// What this worker may fetch, and how.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    open: Client,
    guarded: Client,
    relay: Url,
    allow_private: bool,
    ignore_certificates: bool,
    max_bytes: u64,
}

/// A fetched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) hash: ContentHash,
    pub(crate) bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the address leads to a private network, which this worker does not fetch from")]
    Private,
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    #[error("a redirect leads nowhere")]
    BadRedirect,
    #[error("larger than the limit of {0} bytes")]
    TooLarge(u64),
    #[error("nothing came for {} s", IDLE_LIMIT.as_secs())]
    Silent,
    #[error("no git repository is served there over HTTP, or only in the old way without packs")]
    NoRepository,
    #[error("{0}")]
    Transport(String),
    #[error("the file cannot be written or read: {0}")]
    File(#[from] io::Error),
}

impl HttpError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::Silent | Self::Transport(_) => true,
            Self::Private
            | Self::Redirects
            | Self::BadRedirect
            | Self::NoRepository
            | Self::TooLarge(_)
            | Self::File(_) => false,
        }
    }
}

/// A relay's address that cannot be used, or no TLS.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot be set up: {0}")]
pub struct HttpSetupError(String);

impl Http {
    pub(crate) fn new(
        relay: &str,
        allow_private: bool,
        ignore_certificates: bool,
        max_bytes: u64,
    ) -> Result<Self, HttpSetupError> {
        let relay = Url::parse(relay).map_err(|error| HttpSetupError(error.to_string()))?;
        let client = || {
            Client::builder()
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_LIMIT)
                .read_timeout(IDLE_LIMIT)
                .tls_danger_accept_invalid_certs(ignore_certificates)
                .user_agent(concat!("dockframe/", env!("CARGO_PKG_VERSION")))
                .no_proxy()
        };
        let built = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| HttpSetupError(error_chain(&error)))
        };
        // The system's own certificates where it has any.
        let has_certificates = ignore_certificates || client().build().is_ok();
        let client = || match has_certificates {
            true => client(),
            false => client().tls_backend_preconfigured(tls::public_roots()),
        };
        // A relay in the owner's own network means that its files are there too.
        let is_home = match relay.host() {
            Some(Host::Ipv4(ip)) => !is_public(ip.into()),
            Some(Host::Ipv6(ip)) => !is_public(ip.into()),
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            None => false,
        };
        Ok(Self {
            open: built(client())?,
            guarded: built(client().dns_resolver(PublicOnly))?,
            relay,
            allow_private: allow_private || is_home,
            ignore_certificates,
            max_bytes,
        })
    }

    /// Address of a key in the relay's store.
    pub(crate) fn key_address(&self, key: &str) -> String {
        format!("{}/f/{}", self.relay.as_str().trim_end_matches('/'), utf8_percent_encode(key, SEGMENT))
    }

    /// The hash that an address of the relay's store promises.
    pub(crate) fn promised_hash(&self, url: &Url) -> Option<ContentHash> {
        if !self.is_relay(url) {
            return None;
        }
        let (_, last) = url.path().rsplit_once('/')?;
        ContentHash::parse(last).ok()
    }

    /// The relay's own address of a file that is named by another host's, if the relay has it: pages and workers may
    /// know one relay by different names.
    pub(crate) async fn under_our_name(&self, url: &Url) -> Option<(Url, ContentHash)> {
        let hash = ["/f/", "/api/v1/download/"].iter().find_map(|prefix| url.path().strip_prefix(prefix))?;
        let hash = ContentHash::parse(hash).ok().filter(|_| !self.is_relay(url))?;
        let is_there = self.exists(&hash.to_string()).await.unwrap_or(false);
        let own = Url::parse(&self.key_address(&hash.to_string())).ok()?;
        is_there.then_some((own, hash))
    }

    fn is_relay(&self, url: &Url) -> bool {
        url.origin() == self.relay.origin()
    }

    /// Streams the content of `url` into an empty file, trying again and resuming where the server can.
    pub(crate) async fn fetch(&self, url: &Url, into: &Path) -> Result<Fetched, HttpError> {
        let mut download =
            Download { file: File::create(into).await?, hasher: Sha256::new(), bytes: 0, etag: None };
        let mut attempt = 0;
        loop {
            match self.fetch_once(url, &mut download).await {
                Ok(()) => {
                    download.file.flush().await?;
                    let hash = ContentHash::from_bytes(download.hasher.finalize().into());
                    return Ok(Fetched { hash, bytes: download.bytes });
                }
                Err(error) if error.is_transient() && attempt + 1 < ATTEMPTS => {
                    sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn fetch_once(&self, url: &Url, download: &mut Download) -> Result<(), HttpError> {
        let resume = download.etag.clone().filter(|_| download.bytes > 0);
        let response = self.get(url, resume.as_deref().map(|etag| (download.bytes, etag))).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            download.restart().await?;
        }
        download.etag = response
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok())
            .filter(|etag| etag.starts_with('"'))
            .map(str::to_owned);
        let mut response = response;
        loop {
            let chunk = match timeout(IDLE_LIMIT, response.chunk()).await {
                Err(_) => return Err(HttpError::Silent),
                Ok(Err(error)) => return Err(HttpError::Transport(error_chain(&error))),
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(chunk))) => chunk,
            };
            download.bytes += chunk.len() as u64;
            if download.bytes > self.max_bytes {
                return Err(HttpError::TooLarge(self.max_bytes));
            }
            download.hasher.update(&chunk);
            download.file.write_all(&chunk).await?;
        }
    }

    /// GET, with redirects followed by hand so that each is checked.
    async fn get(&self, url: &Url, resume: Option<(u64, &str)>) -> Result<Response, HttpError> {
        let mut url = url.clone();
        // Where the relay redirects to is the relay's own storage, wherever that is.
        let trusted = self.allow_private || self.is_relay(&url);
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                self.client(&url, trusted)?.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some((from, etag)) = resume {
                request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, etag);
            }
            let response = request.send().await.map_err(|error| transport(&error))?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                status if status.is_redirection() => url = next_hop(&url, &response)?,
                status => return Err(HttpError::Status(status)),
            }
        }
        Err(HttpError::Redirects)
    }

    fn client(&self, url: &Url, trusted: bool) -> Result<&Client, HttpError> {
        if trusted {
            return Ok(&self.open);
        }
        // Names are checked when they are resolved; addresses never are resolved.
        let is_denied = match url.host() {
            Some(Host::Ipv4(ip)) => !is_public(ip.into()),
            Some(Host::Ipv6(ip)) => !is_public(ip.into()),
            Some(Host::Domain(_)) => false,
            None => true,
        };
        if is_denied || matches!(url.port(), Some(2375 | 2376)) || !matches!(url.scheme(), "http" | "https") {
            return Err(HttpError::Private);
        }
        Ok(&self.guarded)
    }

    /// Whether the relay's store has the key.
    pub(crate) async fn exists(&self, key: &str) -> Result<bool, HttpError> {
        let url = format!("{}/exists", self.key_address(key));
        let response = self.open.get(url).send().await.map_err(|error| transport(&error))?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(HttpError::Status(status)),
        }
    }

    /// Asks the relay whether it is well: its clock, if it tells.
    pub(crate) async fn relay_clock(&self) -> Result<Option<Timestamp>, HttpError> {
        let address = format!("{}/healthz", self.relay.as_str().trim_end_matches('/'));
        let response = self.open.get(address).send().await.map_err(|error| transport(&error))?;
        match response.status() {
            status if status.is_success() => {
                let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
                Ok(date.and_then(clock::parse_http_date))
            }
            status => Err(HttpError::Status(status)),
        }
    }

    /// Brings a file into the relay's store, which may send the body elsewhere. One attempt.
    pub(crate) async fn upload(&self, key: &str, file: &std::fs::File, bytes: u64) -> Result<(), HttpError> {
        let mut url = Url::parse(&self.key_address(key)).map_err(|_| HttpError::BadRedirect)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut body = File::from_std(file.try_clone()?);
            body.rewind().await?;
            let request = self
                .open
                .request(Method::PUT, url.clone())
                .header(CONTENT_LENGTH, bytes)
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(Body::wrap_stream(ReaderStream::with_capacity(body, BUFFER_BYTES)));
            let response = request.send().await.map_err(|error| transport(&error))?;
            match response.status() {
                status if status.is_success() => return Ok(()),
                status if status.is_redirection() => url = next_hop(&url, &response)?,
                status => return Err(HttpError::Status(status)),
            }
        }
        Err(HttpError::Redirects)
    }
}

/// A download that may be taken up again.
struct Download {
    file: File,
    hasher: Sha256,
    bytes: u64,
    etag: Option<String>,
}

impl Download {
    async fn restart(&mut self) -> io::Result<()> {
        if self.bytes > 0 {
            self.file.set_len(0).await?;
            self.file.rewind().await?;
            self.hasher = Sha256::new();
            self.bytes = 0;
        }
        Ok(())
    }
}

/// Pause after the failed attempt of this number, from 0: doubling, half as much more or less.
pub(crate) fn backoff(attempt: u32) -> Duration {
    use rand::RngExt as _;
    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(20)).min(MOST_PAUSE);
    pause.mul_f64(rand::rng().random_range(0.5..1.5))
}

fn next_hop(url: &Url, response: &Response) -> Result<Url, HttpError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    location.and_then(|location| url.join(location).ok()).ok_or(HttpError::BadRedirect)
}

fn transport(error: &reqwest::Error) -> HttpError {
    let text = error_chain(error);
    if text.contains(PRIVATE) { HttpError::Private } else { HttpError::Transport(text) }
}

/// The error without its address, which may hold secrets, but with its causes.
fn error_chain(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut parts = Vec::new();
    while let Some(inner) = cause {
        parts.push(inner.to_string());
        cause = inner.source();
    }
    if parts.is_empty() { "the request failed".to_owned() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(relay: &str) -> Http {
        crate::install_crypto();
        Http::new(relay, false, false, 1000).unwrap()
    }

    #[test]
    fn a_public_relay_means_that_private_addresses_are_refused() {
        let http = http("https://relay.example");
        for address in [
            "http://127.0.0.1/x",
            "http://[::ffff:10.0.0.1]/",
            "http://[2001::a00:1]/",
            "http://[64:ff9b:1::a00:1]/",
            "http://[4000::1]/",
            "http://169.254.169.254/",
            "http://1.1.1.1:2375/",
        ] {
            let url = Url::parse(address).unwrap();
            assert!(matches!(http.client(&url, false), Err(HttpError::Private)), "{address}");
        }
        assert!(http.client(&Url::parse("https://1.1.1.1/x").unwrap(), false).is_ok());
    }

    #[tokio::test]
    async fn names_that_lead_to_private_addresses_are_refused_when_resolved() {
        let http = http("https://relay.example");
        let directory = tempfile::tempdir().unwrap();
        let url = Url::parse("http://localhost:1/x").unwrap();
        let refused = http.fetch(&url, &directory.path().join("x")).await;
        assert!(matches!(refused, Err(HttpError::Private)), "{refused:?}");
    }

    #[test]
    fn a_relay_at_home_opens_the_home_network() {
        assert!(http("http://localhost:8000").allow_private);
        assert!(http("http://192.168.0.7:8000").allow_private);
        assert!(!http("https://relay.example").allow_private);
    }

    #[test]
    fn only_the_relays_own_addresses_promise_a_hash() {
        let http = http("https://relay.example");
        let hash = ContentHash::of(b"x");
        let url = |base: &str| Url::parse(&format!("{base}/f/{hash}")).unwrap();
        assert_eq!(http.promised_hash(&url("https://relay.example")), Some(hash));
        assert_eq!(http.promised_hash(&url("https://other.example")), None);
        assert_eq!(http.key_address("a b/c"), "https://relay.example/f/a%20b%2Fc");
    }
}
