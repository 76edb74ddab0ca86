//! A relay that does what a test says: queues the old way or leases, blobs, files of any path, and a memory of all
//! that came.
//!
//! It answers as the protocol says (`worker` 5, `jobs-and-states` 8) unless [`Settings`] say otherwise, so a test
//! writes down only what it is about. What came is kept as JSON: a worker is judged by its words, not by how this
//! program would read them.

mod serve;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::test::now;

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

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Which connection, from 0.
    pub(crate) link: usize,
    pub(crate) at: Instant,
    /// A bare word is a JSON text.
    pub(crate) frame: Value,
}

impl Heard {
    /// The payload of a message of this type.
    pub(crate) fn payload(&self, kind: &str) -> Option<&Value> {
        (self.frame["type"] == kind).then(|| &self.frame["payload"])
    }
}

/// One tuple of a log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) time: u64,
    pub(crate) is_stderr: bool,
}

impl Line {
    /// The tuples of a JSON list.
    pub(crate) fn all(tuples: &Value) -> Vec<Self> {
        let one = |tuple: &Value| Self {
            text: tuple[0].as_str().unwrap_or_default().to_owned(),
            time: tuple[1].as_u64().unwrap_or(0),
            is_stderr: tuple[2] == true,
        };
        tuples.as_array().into_iter().flatten().map(one).collect()
    }
}

/// Log lines of one message.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    pub(crate) link: usize,
    pub(crate) at: Instant,
    pub(crate) step: String,
    pub(crate) from: Option<u64>,
    pub(crate) lines: Vec<Line>,
}

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

    // --- what it says ---

    /// Puts a job into the queue, or grants it to the worker of the newest connection.
    ///
    /// # Errors
    /// Leases: no worker is connected.
    pub(crate) fn submit(&self, job: &str, definition: Value) -> anyhow::Result<()> {
        if self.inner.state().settings.way == Way::Leases {
            return self.grant(job, 1, definition);
        }
        self.define(job, definition);
        self.put(job, queued(now()));
        Ok(())
    }

    /// Grants a job under the lease id `lease-JOB-ATTEMPT`.
    ///
    /// # Errors
    /// No worker is connected.
    pub(crate) fn grant(&self, job: &str, attempt: u32, definition: Value) -> anyhow::Result<()> {
        self.grant_with(job, attempt, definition, json!({}))
    }

    /// As [`Relay::grant`], with `control`.
    ///
    /// # Errors
    /// No worker is connected.
    pub(crate) fn grant_with(
        &self,
        job: &str,
        attempt: u32,
        definition: Value,
        control: Value,
    ) -> anyhow::Result<()> {
        let mut payload = json!({
            "leaseId": lease(job, attempt), "jobId": job, "attempt": attempt, "deadlineMs": 3_600_000,
        });
        payload["definition"] = definition;
        payload["control"] = control;
        self.say(&json!({ "type": "LeaseGrant", "payload": payload }))
    }

    /// # Errors
    /// No worker is connected.
    pub(crate) fn revoke(&self, job: &str, attempt: u32, why: &str, grace_ms: u64) -> anyhow::Result<()> {
        let payload = json!({ "leaseId": lease(job, attempt), "why": why, "graceMs": grace_ms });
        self.say(&json!({ "type": "LeaseRevoke", "payload": payload }))
    }

    /// Changes the table, and tells it by an update.
    pub(crate) fn put(&self, job: &str, object: Value) {
        let mut state = self.inner.state();
        let update = json!({ job: object });
        state.jobs.insert(job.to_owned(), object);
        serve::tell_all(&state, &serve::update(&update));
    }

    /// Changes many at once, and tells it by one update.
    pub(crate) fn put_all(&self, objects: serde_json::Map<String, Value>) {
        let mut state = self.inner.state();
        let update = serde_json::Value::Object(objects.clone());
        state.jobs.extend(objects);
        serve::tell_all(&state, &serve::update(&update));
    }

    /// Knows a definition without telling of the job.
    pub(crate) fn define(&self, job: &str, definition: Value) {
        self.inner.state().definitions.insert(job.to_owned(), definition);
    }

    /// Takes a job out of the table without a word: the next full list lacks it.
    pub(crate) fn remove(&self, job: &str) {
        self.inner.state().jobs.remove(job);
    }

    /// A full list, now.
    pub(crate) fn list(&self) {
        let state = self.inner.state();
        serve::tell_all(&state, &serve::full_list(&state));
    }

    /// To the newest open connection.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn say(&self, message: &Value) -> anyhow::Result<()> {
        let state = self.inner.state();
        let link = state.links.iter().rev().find(|link| link.closed.is_none());
        let link = link.context("no worker is connected")?;
        link.out.send(Order::Say(words(message))).context("the connection is gone")
    }

    /// To a certain connection.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) fn say_on(&self, link: usize, message: &Value) -> anyhow::Result<()> {
        let state = self.inner.state();
        let link = state.links.get(link).context("no such connection")?;
        link.out.send(Order::Say(words(message))).context("the connection is gone")
    }

    /// Closes all connections with this code, or cuts them.
    pub(crate) fn close(&self, code: Option<u16>) {
        for link in self.inner.state().links.iter().filter(|link| link.closed.is_none()) {
            let _ = link.out.send(Order::Close(code));
        }
    }

    pub(crate) fn put_blob(&self, key: &str, content: impl Into<Bytes>) {
        self.inner.state().blobs.insert(key.to_owned(), content.into());
    }

    pub(crate) fn blob(&self, key: &str) -> Option<Bytes> {
        self.inner.state().blobs.get(key).cloned()
    }

    /// Scripts the answers of a path, and gives its address.
    pub(crate) fn page(&self, path: &str, answers: Vec<Page>) -> String {
        self.inner.state().pages.insert(path.to_owned(), answers);
        format!("{}{path}", self.url())
    }

    // --- what it heard ---

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.inner.state().heard.clone()
    }

    /// Paths of all upgrades, as they came.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.inner.state().links.iter().map(|link| link.path.clone()).collect()
    }

    pub(crate) fn n_links(&self) -> usize {
        self.inner.state().links.len()
    }

    /// Whether a connection's upgrade asked for leases.
    pub(crate) fn wanted_leases(&self, link: usize) -> bool {
        self.inner.state().links.get(link).is_some_and(|link| link.wants_leases)
    }

    /// The code with which the worker closed a connection.
    pub(crate) fn close_code(&self, link: usize) -> Option<u16> {
        self.inner.state().links.get(link)?.close_code
    }

    /// Methods and paths of all HTTP requests but upgrades.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.inner.state().requests.clone()
    }

    /// How many requests of this method came for a path.
    pub(crate) fn n_requests(&self, method: &str, path: &str) -> usize {
        let state = self.inner.state();
        state.requests.iter().filter(|(how, what)| how == method && what == path).count()
    }

    /// Payloads of all messages of a type.
    pub(crate) fn payloads(&self, kind: &str) -> Vec<Value> {
        self.inner.state().heard.iter().filter_map(|heard| heard.payload(kind).cloned()).collect()
    }

    /// Waits until `look` finds something in what was heard, at once or later.
    ///
    /// # Errors
    /// It did not within the limit; the message has what came last.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.inner.news.subscribe();
        let found = async {
            loop {
                news.borrow_and_update();
                if let Some(found) = look(self) {
                    return found;
                }
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(limit, found).await {
            Ok(found) => Ok(found),
            Err(_) => anyhow::bail!("expected {what} within {limit:?}; came {}", self.tail()),
        }
    }

    /// As [`Relay::until`], for one message of a type.
    ///
    /// # Errors
    /// None came.
    pub(crate) async fn message(
        &self,
        kind: &str,
        limit: Duration,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Heard> {
        self.until(kind, limit, |relay| {
            let heard = relay.heard().into_iter();
            heard.filter(|heard| heard.frame["type"] == kind).find(|heard| is_wanted(&heard.frame["payload"]))
        })
        .await
    }

    /// Looks for a while that something does not come.
    ///
    /// # Errors
    /// It came.
    pub(crate) async fn never<T: std::fmt::Debug>(
        &self,
        what: &str,
        how_long: Duration,
        look: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<()> {
        match self.until(what, how_long, look).await {
            Ok(found) => anyhow::bail!("expected no {what}; came {found:?}"),
            Err(_) => Ok(()),
        }
    }

    /// The first registration.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn registration(&self, limit: Duration) -> anyhow::Result<Value> {
        Ok(self.message("WorkerRegistration", limit, |_| true).await?.frame["payload"].clone())
    }

    /// The first registration on connection `link` or a later one.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn registered_on(&self, link: usize, limit: Duration) -> anyhow::Result<Heard> {
        self.until(&format!("a registration on connection {link}"), limit, |relay| {
            let heard = relay.heard().into_iter();
            heard
                .filter(|heard| heard.payload("WorkerRegistration").is_some())
                .find(|heard| heard.link >= link)
        })
        .await
    }

    /// Changes of a job to this state: payloads.
    pub(crate) fn changes(&self, job: &str, state: &str) -> Vec<Value> {
        let of_job = |change: &Value| change["job"] == job && change["state"] == state;
        self.payloads("StateChange").into_iter().filter(of_job).collect()
    }

    /// Waits for the claim (old way) or the accept of a job.
    ///
    /// # Errors
    /// None comes.
    pub(crate) async fn claimed(&self, job: &str, limit: Duration) -> anyhow::Result<Value> {
        self.until(&format!("a claim of {job}"), limit, |relay| {
            let old = relay.changes(job, "Running").into_iter().next();
            old.or_else(|| {
                let accepts = relay.payloads("LeaseAccept").into_iter();
                accepts.into_iter().find(|accept| is_lease_of(&accept["leaseId"], job))
            })
        })
        .await
    }

    /// The value of Finished that a worker reported for a job, either way.
    pub(crate) fn finish(&self, job: &str) -> Option<Value> {
        self.finishes(job).into_iter().next()
    }

    /// All reports of a job's end. `WorkerLost` gives a claim back and is none.
    pub(crate) fn finishes(&self, job: &str) -> Vec<Value> {
        let old = self.changes(job, "Finished").into_iter().map(|change| change["value"].clone());
        let old = old.filter(|value| value["reason"] != "WorkerLost");
        let leased = self.payloads("LeaseFinish").into_iter();
        let leased = leased.filter(|finish| is_lease_of(&finish["leaseId"], job));
        old.chain(leased.map(|finish| finish["value"].clone())).collect()
    }

    /// Waits for the end of a job.
    ///
    /// # Errors
    /// It is not reported.
    pub(crate) async fn finished(&self, job: &str, limit: Duration) -> anyhow::Result<Value> {
        self.until(&format!("the end of {job}"), limit, |relay| relay.finish(job)).await
    }

    /// Log messages of a job.
    pub(crate) fn logs(&self, job: &str) -> Vec<Logs> {
        let of_job = |heard: &Heard| {
            let payload = heard.payload("JobStatusLogs")?;
            (payload["jobId"] == job).then(|| Logs {
                link: heard.link,
                at: heard.at,
                step: payload["step"].as_str().unwrap_or_default().to_owned(),
                from: payload["from"].as_u64(),
                lines: Line::all(&payload["logs"]),
            })
        };
        self.inner.state().heard.iter().filter_map(of_job).collect()
    }

    /// The program's text so far, both streams.
    pub(crate) fn text(&self, job: &str) -> String {
        let run = self.logs(job).into_iter().filter(|logs| logs.step == "Running");
        run.flat_map(|logs| logs.lines).map(|line| line.text).collect()
    }

    /// Text about pulling and building so far, a line each.
    pub(crate) fn build_text(&self, job: &str) -> String {
        let build = self.logs(job).into_iter().filter(|logs| logs.step != "Running");
        build
            .flat_map(|logs| logs.lines)
            .map(|line| format!("{}\n", line.text.trim_end_matches('\n')))
            .collect()
    }

    /// Waits until the program has printed this.
    ///
    /// # Errors
    /// It has not.
    pub(crate) async fn prints(&self, job: &str, text: &str, limit: Duration) -> anyhow::Result<()> {
        self.until(&format!("{text:?} of {job}"), limit, |relay| relay.text(job).contains(text).then_some(()))
            .await
    }

    /// The last frames, short.
    fn tail(&self) -> String {
        let heard = self.heard();
        let begin = heard.len().saturating_sub(6);
        let mut shown = format!("{} connections, {} frames", self.n_links(), heard.len());
        for heard in &heard[begin..] {
            let text: String = heard.frame.to_string().chars().take(400).collect();
            shown.push_str(&format!("\n  {}: {text}", heard.link));
        }
        shown
    }
}

/// A queued job as lists show it.
pub(crate) fn queued(time: u64) -> Value {
    json!({ "queuedTime": time, "state": "Queued", "time": time, "worker": "" })
}

/// The id of a job's lease.
pub(crate) fn lease(job: &str, attempt: u32) -> String {
    format!("lease-{job}-{attempt}")
}

fn is_lease_of(lease: &Value, job: &str) -> bool {
    let name = lease.as_str().and_then(|lease| lease.strip_prefix("lease-"));
    name.and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == job)
}

/// A JSON text is a bare word.
fn words(message: &Value) -> String {
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}
