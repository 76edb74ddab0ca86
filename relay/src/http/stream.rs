//! A job's lines and states as server-sent events (`relay-protocol` 2.11).
//!
//! Pushed on change: the stream watches the job as a watching client does, and pulls what is new. A comment every
//! 15 s keeps proxies from closing it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use dockframe_shared::job::StateName;
use dockframe_shared::protocol::LogKind;
use dockframe_shared::{JobId, LeaseId};
use http::{HeaderValue, Version, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::App;
use super::extract::InQueue;
use crate::error::{ApiError, chain};
use crate::limits::LATER_S;
use crate::metrics::{Peer, Refused};
use crate::queue::open::{OpenQueue, SocketId};
use crate::queue::outbox::Outbox;
use crate::queue::service::{self, Scope, Service};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest that a stream is open.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How long a job may stay unknown.
const UNKNOWN: Duration = Duration::from_secs(60);
/// Lines of one event.
const LINES: usize = 1_000;

pub(crate) async fn stream(
    State(app): State<Arc<App>>,
    InQueue(queue, job): InQueue,
    version: Version,
) -> Result<Response, ApiError> {
    let digest = queue.digest();
    let place = app.service.sockets.take_one(digest).ok_or_else(|| {
        app.service.metrics.refused(Refused::Sockets);
        ApiError::Busy("too many sockets and streams of this queue are open".to_owned(), LATER_S)
    })?;
    let held = (place, app.service.metrics.connected(Peer::Stream));
    let queue = app.service.open(&queue).await?;
    let follower = Follower::new(Arc::clone(&app.service), queue, job);
    let events = futures_util::stream::unfold((follower, held), |(mut follower, held)| async move {
        let (name, data) = follower.next().await?;
        let event = Event::default().event(name).data(data.to_string());
        Some((Ok::<_, Infallible>(event), (follower, held)))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("ping");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    Ok(response)
}

/// Name and data of an event.
pub(super) type Told = (&'static str, Value);

/// One reader of one job.
pub(super) struct Follower {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    job: JobId,
    outbox: Arc<Outbox>,
    socket: SocketId,
    started: Instant,
    ready: VecDeque<Told>,
    told: Option<Value>,
    run: Option<LeaseId>,
    build: u64,
    lines: u64,
    over: bool,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.queue.sockets().unwatch(&self.job, self.socket);
    }
}

impl Follower {
    pub(super) fn new(service: Arc<Service>, queue: Arc<OpenQueue>, job: JobId) -> Self {
        let outbox = Arc::new(Outbox::default());
        let socket = {
            let mut sockets = queue.sockets();
            let socket = sockets.new_id();
            sockets.watch(job.clone(), socket, &outbox);
            socket
        };
        // All that is known already is told first.
        outbox.job_changed(&job);
        Self {
            service,
            queue,
            job,
            outbox,
            socket,
            started: Instant::now(),
            ready: VecDeque::new(),
            told: None,
            run: None,
            build: 0,
            lines: 0,
            over: false,
        }
    }

    /// What comes next: lines, a state, the end; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let limit = if self.told.is_none() { UNKNOWN } else { LONGEST };
            let changed = tokio::select! {
                _ = self.outbox.take() => true,
                () = tokio::time::sleep_until(self.started + limit) => false,
                () = self.service.stopping().cancelled() => return None,
            };
            let looked = if changed { self.look().await } else { self.time_is_up(limit).await };
            if let Err(error) = looked {
                tracing::error!(error = chain(&error), job.id = %self.job, "a stream ended");
                return None;
            }
        }
    }

    fn push(&mut self, name: &'static str, data: &Value) {
        self.ready.push_back((name, data.clone()));
    }

    fn end(&mut self, data: &Value) {
        self.push("final", data);
        self.over = true;
    }

    async fn time_is_up(&mut self, limit: Duration) -> Result<(), service::Error> {
        let known = self.told.is_some()
            || self.service.definition(Scope::Queue(&self.queue), &self.job).await?.is_some();
        if limit == LONGEST || self.started.elapsed() >= LONGEST {
            self.end(&json!({ "state": "Timeout", "reason": "Stream max duration exceeded" }));
        } else if known {
            // It may be submitted here later: from now on only the longest time counts.
            self.told = Some(Value::Null);
        } else {
            self.end(&json!({ "state": "Unknown", "reason": "Job not found" }));
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), service::Error> {
        let Some((object, run)) = self.service.followed(&self.queue, &self.job).await? else { return Ok(()) };
        if self.run != run {
            // A new run: both logs begin again (J-24).
            (self.build, self.lines) = (0, 0);
            self.run = run;
        }
        self.pull(LogKind::Build).await?;
        self.pull(LogKind::Run).await?;
        let mut state = json!({ "state": object.state });
        if let Some(reason) = object.finished_reason {
            state["reason"] = json!(reason);
        }
        if self.told.as_ref() != Some(&state) {
            self.push("state", &state);
            self.told = Some(state.clone());
        }
        if object.state == StateName::Finished {
            self.end(&state);
        }
        Ok(())
    }

    async fn pull(&mut self, kind: LogKind) -> Result<(), service::Error> {
        let Some(run) = self.run.clone() else { return Ok(()) };
        loop {
            let since = match kind {
                LogKind::Build => self.build,
                LogKind::Run => self.lines,
            };
            let found = self.service.lines_of_run(&run, kind, since, LINES).await?;
            if found.lines.is_empty() {
                return Ok(());
            }
            let cursor = found.start + found.lines.len() as u64;
            let lines: Vec<_> = found.lines.iter().map(|(_, line)| line).collect();
            let name = match kind {
                LogKind::Build => {
                    self.build = cursor;
                    "build-log"
                }
                LogKind::Run => {
                    self.lines = cursor;
                    "run-log"
                }
            };
            self.push(name, &json!({ "lines": lines, "cursor": cursor }));
        }
    }
}
