//! A relay that does what a test says: queues the old way or leases, blobs, files of any path, and a memory of all
//! that came.
//!
//! It answers as the protocol says (`worker` 5, `jobs-and-states` 8) unless [`Settings`] say otherwise, so a test
//! writes down only what it is about. What came is kept as JSON: a worker is judged by its words, not by how this
//! program would read them.

mod heard;
mod says;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub(crate) use self::heard::{Heard, Line};
pub(crate) use self::says::{lease, queued};

/// How worker and relay share work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Lists for all, and whoever says Running first.
    Old,
    /// `lease/1`.
    Leases,
}

/// How the relay behaves from now on.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) way: Way,
    pub(crate) takes_connections: bool,
    pub(crate) answers_pings: bool,
    /// Full lists, every [`LIST_PERIOD`] and at a registration.
    pub(crate) sends_lists: bool,
    /// Running and Finished of workers change the table.
    pub(crate) records: bool,
    pub(crate) defines: bool,
    pub(crate) answers_finish: bool,
    pub(crate) epoch: String,
    pub(crate) renew_ms: u64,
    pub(crate) max_finish_bytes: u64,
    /// `PUT /f/…` is answered by a redirect with this status.
    pub(crate) redirects: Option<u16>,
    /// How long a `PUT` takes to be answered.
    pub(crate) put_delay: Duration,
    pub(crate) refuses_blobs: bool,
}

/// A little more often than the existing relay does.
pub(crate) const LIST_PERIOD: Duration = Duration::from_secs(5);

/// One connection of a worker.
#[derive(Debug)]
struct Link {
    /// As it came, percent-encoding and all.
    path: String,
    wants_leases: bool,
    way: Way,
    closed: Option<Instant>,
    /// Said by the worker.
    close_code: Option<u16>,
    worker: Option<String>,
    out: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Say(String),
    Close(Option<u16>),
}

/// What a scripted path answers.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Say a length of this many bytes more than there are, and cut.
    pub(crate) cut: bool,
}

impl Page {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), cut: false }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), cut: false }
    }
}

#[derive(Debug)]
struct State {
    settings: Settings,
    links: Vec<Link>,
    heard: Vec<Heard>,
    jobs: BTreeMap<String, Value>,
    definitions: HashMap<String, Value>,
    blobs: HashMap<String, Bytes>,
    /// Answers of a path, in order; the last one stays.
    pages: HashMap<String, Vec<Page>>,
    requests: Vec<(String, String)>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    news: watch::Sender<u64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.news.send_modify(|n| *n += 1);
    }
}

/// The relay. Dropping it ends the server and all connections.
#[derive(Debug)]
pub(crate) struct Relay {
    inner: Arc<Inner>,
    address: std::net::SocketAddr,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.go_down();
    }
}

impl Relay {
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(way: Way) -> anyhow::Result<Self> {
        let settings = Settings {
            way,
            takes_connections: true,
            answers_pings: true,
            sends_lists: true,
            records: true,
            defines: true,
            answers_finish: true,
            epoch: "epoch-1".to_owned(),
            renew_ms: 1000,
            max_finish_bytes: 4 << 20,
            redirects: None,
            put_delay: Duration::ZERO,
            refuses_blobs: false,
        };
        let state = State {
            settings,
            links: Vec::new(),
            heard: Vec::new(),
            jobs: BTreeMap::new(),
            definitions: HashMap::new(),
            blobs: HashMap::new(),
            pages: HashMap::new(),
            requests: Vec::new(),
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), news: watch::Sender::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Some(serve::serve(listener, inner.clone()));
        Ok(Self { inner, address, server })
    }

    /// Ends the server: nothing listens at the address any more, and all connections are gone.
    pub(crate) fn go_down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        self.close(None);
    }

    /// Listens at the same address again.
    ///
    /// # Errors
    /// Somebody else does.
    pub(crate) async fn come_up(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.server = Some(serve::serve(listener, self.inner.clone()));
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn way(&self) -> Way {
        self.inner.state().settings.way
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.inner.state().settings);
        self.inner.tell();
    }
}
