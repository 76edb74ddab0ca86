//! What a test of a relay works with: the relay's addresses, a queue of its own, peers, and fresh work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::peers::http::Http;
use crate::peers::socket::Socket;
use crate::registry::Context;

/// A test that says by this error why it cannot show its item here.
#[derive(Debug, thiserror::Error)]
#[error("skipped: {0}")]
pub(crate) struct Skipped(pub(crate) String);

/// # Errors
/// Always: that is how a test is skipped.
pub(crate) fn skip<T>(why: &str) -> anyhow::Result<T> {
    Err(Skipped(why.to_owned()).into())
}

/// The deployment under test.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    /// Without a slash at the end; one or two.
    addresses: Vec<String>,
    prefix: String,
    private_callbacks: bool,
    http: reqwest::Client,
}

impl Relay {
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn new(url: &url::Url, second: Option<&url::Url>, prefix: &str) -> anyhow::Result<Self> {
        let addresses = std::iter::once(url).chain(second);
        let addresses = addresses.map(|url| url.as_str().trim_end_matches('/').to_owned()).collect();
        Ok(Self { addresses, prefix: prefix.to_owned(), private_callbacks: false, http: Http::client()? })
    }

    /// That something answers at each address: otherwise every test would fail for the same reason.
    ///
    /// # Errors
    /// Nothing does.
    pub(crate) async fn is_there(&self) -> anyhow::Result<()> {
        for address in &self.addresses {
            Http::new(address, self.http.clone()).get("/healthz").await.context("there is no relay")?;
        }
        Ok(())
    }

    pub(crate) fn with_private_callbacks(mut self, allowed: bool) -> Self {
        self.private_callbacks = allowed;
        self
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Test {
    relay: Relay,
    turn: Arc<AtomicUsize>,
}

impl Context for Test {
    async fn end(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Test {
    pub(crate) fn new(relay: &Relay) -> Self {
        Self { relay: relay.clone(), turn: Arc::default() }
    }

    /// A text that nobody has used before.
    pub(crate) fn nonce() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }

    /// A queue that nobody has used before.
    pub(crate) fn queue(&self) -> String {
        format!("{}-{}", self.relay.prefix, Self::nonce())
    }

    /// A definition that nobody has run before.
    pub(crate) fn job() -> Value {
        json!({ "image": "alpine:3.19", "command": format!("echo {}", Self::nonce()) })
    }

    /// The address of the next connection: with two instances every second one goes to the other.
    pub(crate) fn address(&self) -> &str {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.relay.addresses[turn % self.relay.addresses.len()]
    }

    /// The two instances, for what must be shown across them.
    ///
    /// # Errors
    /// There is one: the test is skipped.
    pub(crate) fn both(&self) -> anyhow::Result<(Http, Http)> {
        match &*self.relay.addresses {
            [first, second] => Ok((self.http_at(first), self.http_at(second))),
            _ => skip("needs a second instance of the deployment: --second URL"),
        }
    }

    /// # Errors
    /// The relay is not said to call private addresses: the test is skipped.
    pub(crate) fn callbacks(&self) -> anyhow::Result<()> {
        if self.relay.private_callbacks {
            return Ok(());
        }
        skip("needs a relay that may call this machine: --private-callbacks")
    }

    pub(crate) fn has_private_callbacks(&self) -> bool {
        self.relay.private_callbacks
    }

    pub(crate) fn http(&self) -> Http {
        self.http_at(self.address())
    }

    pub(crate) fn http_at(&self, address: &str) -> Http {
        Http::new(address, self.relay.http.clone())
    }

    /// A socket on the next instance.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn socket(&self, path: &str) -> anyhow::Result<Socket> {
        Ok(Socket::open(self.address(), path, &[]).await?)
    }
}

/// Now, as the protocol counts: milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The id that a definition has by its content (`jobs-and-states` 2).
pub(crate) fn job_id(definition: &Value) -> anyhow::Result<String> {
    let definition: dockframe_shared::job::Definition = serde_json::from_value(definition.clone())?;
    Ok(dockframe_shared::job::digest::job_id(&definition).to_string())
}
