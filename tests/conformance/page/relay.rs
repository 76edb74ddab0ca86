//! A relay that does what a test says, and the web server of the page under test.
//!
//! The page is loaded through it (what it does not answer itself comes from the page's own address), so plain names of
//! queues, short addresses and every request of the page lead here, and all of it is remembered in one list, in the
//! order it came. Queue, table and endings follow `relay-protocol` 3 unless [`Settings`] say otherwise: a test writes
//! down only what it is about. [`table`] is what the relay says, [`serve`] is the wire.

mod serve;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Bytes;
use dockframe_tests::wait;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub(crate) use self::table::{Job, entry, finished};

/// How long anything may take that the page does at once, its loading included, on a machine that is busy with other
/// tests' browsers and fork bombs.
pub(crate) const SOON: Duration = Duration::from_secs(45);

/// How the relay speaks with pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Lists for all (`relay-protocol` 3.8).
    Old,
    /// `watch/1` for who asks for it (3.13).
    Watch,
}

/// What an old relay says of a submission or an ending: three kinds are in use (`metaframe`, introduction).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A full list after a submission; an empty update after an ending, and a full list later.
    Lists,
    /// A full list at once for both.
    ListsAtOnce,
    /// Updates, and an entry `Finished`/`Cancelled`: what the recorded stand-in did.
    Updates,
}

/// How the relay behaves from now on.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) way: Way,
    pub(crate) style: Style,
    pub(crate) takes_connections: bool,
    pub(crate) answers_pings: bool,
    /// What comes first on a socket: `Hello`, or `Workers` and the full list.
    pub(crate) greets: bool,
    /// Submissions, cancels and deletions change the table, and are told of.
    pub(crate) records: bool,
    pub(crate) answers_queries: bool,
    /// A job with inputs finishes at once, and its outputs are they, below `echo/`.
    pub(crate) echoes: bool,
    /// A submission with `control.rerun` runs a job again whose result has that time.
    pub(crate) knows_rerun: bool,
    /// `Done` is refused with this text.
    pub(crate) refuses: Option<String>,
    pub(crate) takes_uploads: bool,
    /// `PUT /f/…` is answered by a redirect.
    pub(crate) redirects: bool,
    pub(crate) upload_delay: Duration,
    /// What `result.json` answers instead of the result.
    pub(crate) result: Answer,
    pub(crate) result_delay: Duration,
    pub(crate) workers: Vec<Value>,
}

/// An answer to a request for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Honest,
    Status(u16),
    /// `{"data":null}`.
    Null,
    /// The connection is cut.
    Cut,
}

/// Something that the page did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// A socket was opened: path with query, as it came.
    Opened {
        socket: usize,
        path: String,
    },
    Closed {
        socket: usize,
    },
    /// A frame; what is no JSON object is a JSON text.
    Frame {
        socket: usize,
        frame: Value,
    },
    Request {
        method: String,
        path: String,
        referer: Option<String>,
    },
}

impl What {
    /// The payload of a message of this type.
    pub(crate) fn payload(&self, kind: &str) -> Option<&Value> {
        match self {
            Self::Frame { frame, .. } if frame["type"] == kind => Some(&frame["payload"]),
            _ => None,
        }
    }

    /// The value of a `StateChange` to this state, with its job.
    pub(crate) fn change(&self, state: &str) -> Option<(&str, &Value)> {
        let payload = self.payload("StateChange").filter(|payload| payload["state"] == state)?;
        Some((payload["job"].as_str()?, &payload["value"]))
    }

    /// The path of a request by this method.
    pub(crate) fn request(&self, wanted: &str) -> Option<&str> {
        match self {
            Self::Request { method, path, .. } if method == wanted => Some(path),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Socket {
    watches: bool,
    is_open: bool,
    watched: Vec<String>,
    out: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Say(String),
    Close,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    sockets: Vec<Socket>,
    events: Vec<What>,
    jobs: BTreeMap<String, Job>,
    definitions: BTreeMap<String, Value>,
    blobs: BTreeMap<String, Bytes>,
    revision: u64,
}

#[derive(Debug)]
struct Inner {
    /// Address of the page under test.
    page: url::Url,
    http: reqwest::Client,
    state: Mutex<State>,
    news: watch::Sender<u64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self, what: What) {
        self.state().events.push(what);
        self.news.send_modify(|n| *n += 1);
    }
}

/// The relay. Dropping it ends the server and all connections.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    inner: Arc<Inner>,
    address: std::net::SocketAddr,
    _server: Arc<Server>,
}

#[derive(Debug)]
struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(page: &url::Url, http: reqwest::Client, way: Way) -> anyhow::Result<Self> {
        let settings = Settings {
            way,
            style: Style::Lists,
            takes_connections: true,
            answers_pings: true,
            greets: true,
            records: true,
            answers_queries: true,
            echoes: false,
            knows_rerun: true,
            refuses: None,
            takes_uploads: true,
            redirects: false,
            upload_delay: Duration::ZERO,
            result: Answer::Honest,
            result_delay: Duration::ZERO,
            workers: vec![json!({
                "id": "worker1", "version": "0.54.85", "cpus": 4, "gpus": 0,
                "time": crate::test::now(), "maxJobDuration": "5m",
            })],
        };
        let state = State {
            settings,
            sockets: Vec::new(),
            events: Vec::new(),
            jobs: BTreeMap::new(),
            definitions: BTreeMap::new(),
            blobs: BTreeMap::new(),
            revision: 1,
        };
        let inner = Arc::new(Inner {
            page: page.clone(),
            http,
            state: Mutex::new(state),
            news: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server(serve::serve(listener, inner.clone())));
        Ok(Self { inner, address, _server: server })
    }

    /// Its origin, which is the page's too.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.inner.state().settings);
    }

    // --- what came ---

    /// What came since this many events.
    pub(crate) fn since(&self, seen: usize) -> Vec<What> {
        self.inner.state().events.iter().skip(seen).cloned().collect()
    }

    /// How many events there are: the place to look from later.
    pub(crate) fn mark(&self) -> usize {
        self.inner.state().events.len()
    }

    /// Waits until something in the list fits, beginning with this place; gives what the probe made of it.
    ///
    /// # Errors
    /// It did not come in time; what came instead.
    pub(crate) async fn awaits<T>(
        &self,
        expected: &str,
        from: usize,
        limit: Duration,
        probe: impl Fn(&What) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.inner.news.subscribe();
        let wait = async {
            loop {
                news.borrow_and_update();
                let found = self.inner.state().events.iter().skip(from).find_map(&probe);
                if let Some(found) = found {
                    return found;
                }
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let Ok(found) = tokio::time::timeout(limit, wait).await else {
            let came = self.since(from);
            anyhow::bail!("expected {expected} at the relay within {limit:?}; came {}", in_short(&came));
        };
        Ok(found)
    }

    /// Waits for a submission, and gives `value.enqueued` of it.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn submission(&self, from: usize) -> anyhow::Result<Value> {
        self.awaits("a submission", from, SOON, |what| {
            what.change("Queued").map(|(_, value)| value["enqueued"].clone())
        })
        .await
    }

    /// Waits for a submission with this parameter `N`: the page that was here before may still be speaking.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn submission_numbered(&self, n: &str, from: usize) -> anyhow::Result<Value> {
        self.awaits(&format!("a submission with N={n}"), from, SOON, |what| {
            let (_, value) = what.change("Queued")?;
            (value["enqueued"]["definition"]["env"]["N"] == n).then(|| value["enqueued"].clone())
        })
        .await
    }

    /// Waits for the submission of a job other than this one.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn submission_of_another(&self, id: &str, from: usize) -> anyhow::Result<Value> {
        self.awaits("a submission of another job", from, SOON, |what| {
            let (job, value) = what.change("Queued")?;
            (job != id).then(|| value["enqueued"].clone())
        })
        .await
    }

    /// Waits for a submission and lets the job finish with this result; gives its id.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn runs_to_the_end(&self, from: usize, result: Value) -> anyhow::Result<String> {
        let id = id_of(&self.submission(from).await?)?;
        self.runs(&id);
        self.finishes(&id, "Success", result);
        Ok(id)
    }

    /// Waits for the page's wish to end a job, and gives `value`.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn ending(&self, reason: &str, from: usize) -> anyhow::Result<Value> {
        self.awaits(&format!("Finished/{reason}"), from, SOON, |what| {
            let (_, value) = what.change("Finished")?;
            (value["reason"] == reason).then(|| value.clone())
        })
        .await
    }

    /// That nothing is submitted for a while.
    ///
    /// # Errors
    /// Something is.
    pub(crate) async fn stays_quiet(&self, from: usize, how_long: Duration) -> anyhow::Result<()> {
        wait::stays("no submission", how_long, async || match &*self.submissions(from) {
            [] => Ok(()),
            some => Err(format!("{}", json!(some))),
        })
        .await
    }

    /// That no job but this one is submitted for a while: a repetition is nothing to the queue.
    ///
    /// # Errors
    /// Another is.
    pub(crate) async fn submits_no_other(
        &self,
        id: &str,
        from: usize,
        how_long: Duration,
    ) -> anyhow::Result<()> {
        wait::stays("no other submission", how_long, async || {
            match self.submissions(from).into_iter().find(|enqueued| enqueued["id"] != id) {
                None => Ok(()),
                Some(other) => Err(other.to_string()),
            }
        })
        .await
    }

    /// All submissions since this place.
    pub(crate) fn submissions(&self, from: usize) -> Vec<Value> {
        let since = self.since(from);
        since.iter().filter_map(|what| Some(what.change("Queued")?.1["enqueued"].clone())).collect()
    }

    /// The content of an uploaded blob.
    pub(crate) fn blob(&self, sha256: &str) -> Option<Bytes> {
        self.inner.state().blobs.get(sha256).cloned()
    }

    /// Closes all sockets.
    pub(crate) fn cut(&self) {
        for socket in &self.inner.state().sockets {
            // One that is closed hears nothing.
            let _ = socket.out.send(Order::Close);
        }
    }

    /// How many sockets are open.
    pub(crate) fn open_sockets(&self) -> usize {
        self.inner.state().sockets.iter().filter(|socket| socket.is_open).count()
    }

    /// A frame to all open sockets, as it is.
    pub(crate) fn say(&self, frame: &Value) {
        let state = self.inner.state();
        for n in 0..state.sockets.len() {
            state.say(n, frame);
        }
    }

    /// Serves content under `/f/KEY`.
    pub(crate) fn put_blob(&self, key: &str, content: impl Into<Bytes>) {
        self.inner.state().blobs.insert(key.to_owned(), content.into());
    }

    /// Serves a definition under `/j/ID/definition.json`.
    pub(crate) fn define(&self, id: &str, definition: Value) {
        self.inner.state().definitions.insert(id.to_owned(), definition);
    }
}

/// The id in `enqueued`.
///
/// # Errors
/// It has none.
pub(crate) fn id_of(enqueued: &Value) -> anyhow::Result<String> {
    Ok(enqueued["id"].as_str().with_context(|| format!("no id in {enqueued}"))?.to_owned())
}

/// A result with these outputs: file name → reference.
pub(crate) fn with_outputs(outputs: &Value) -> Value {
    json!({ "StatusCode": 0, "duration": 1234, "isTimedOut": false, "logs": [["done\n", 1]], "outputs": outputs })
}

/// Events in a form that fits into a report.
pub(crate) fn in_short(events: &[What]) -> String {
    let short = |what: &What| match what {
        What::Opened { path, .. } => format!("opened {path}"),
        What::Closed { .. } => "closed".to_owned(),
        What::Frame { frame, .. } => {
            let text = frame.to_string();
            text.chars().take(240).collect()
        }
        What::Request { method, path, .. } => format!("{method} {path}"),
    };
    let pings = |what: &&What| !matches!(what, What::Frame { frame, .. } if frame == "PING");
    let all: Vec<String> = events.iter().filter(pings).map(short).collect();
    let skipped = all.len().saturating_sub(14);
    format!("[{}]", all[skipped..].join(", "))
}
