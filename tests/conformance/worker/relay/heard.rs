//! What the scripted relay heard, and waiting for it.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use super::Relay;

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

impl Relay {
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

fn is_lease_of(lease: &Value, job: &str) -> bool {
    let name = lease.as_str().and_then(|lease| lease.strip_prefix("lease-"));
    name.and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == job)
}
