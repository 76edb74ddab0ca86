//! What a client may change, whichever way it speaks: submit, cancel, delete (`jobs-and-states` 3.7).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use dockframe_shared::job::{FinishReason, Finished};
use dockframe_shared::protocol::{Change, StateChange};
use dockframe_shared::{JobId, Namespace, NamespaceSelector, Problem};

use crate::error::chain;
use crate::limits::{MAX_MESSAGE_BYTES, cut};
use crate::metrics::Refused;
use crate::queue::command::{Reply, Who};
use crate::queue::open::OpenQueue;
use crate::queue::record::EndReason;
use crate::queue::service::{self, Service, Submission};

/// A socket submits so many jobs before what it submitted is forgotten for R-39.
const MAX_OWN: usize = 1024;

/// The changes of one socket.
pub(super) struct Changes {
    service: Arc<Service>,
    queue: Arc<OpenQueue>,
    /// Where the peer reached this relay.
    origin: String,
    /// Under which namespaces this socket submitted a job.
    own: Mutex<HashMap<JobId, Vec<Namespace>>>,
}

impl Changes {
    pub(super) fn new(service: Arc<Service>, queue: Arc<OpenQueue>, origin: String) -> Self {
        Self { service, queue, origin, own: Mutex::default() }
    }

    /// Whether this socket submitted the job.
    pub(super) fn submitted(&self, job: &JobId) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains_key(job)
    }

    /// Makes the change; the record's revision once it is durable, or why nothing changed.
    pub(super) async fn make(&self, change: StateChange) -> Result<u64, Problem> {
        let StateChange { job, change, .. } = change;
        let outcome = match change {
            Change::Queued { enqueued, .. } => match enqueued.definition {
                Some(definition) => {
                    let control = enqueued.control.unwrap_or_default();
                    self.remember(&job, control.namespace());
                    let submission = Submission {
                        id: Some(job.clone()),
                        definition,
                        control,
                        debug: enqueued.debug,
                        origin: Some(self.origin.clone()),
                    };
                    self.service.submit(&self.queue, submission).await.map(|(_, revision)| revision)
                }
                None => {
                    let detail = "a submission needs a `definition`";
                    Err(Problem::new("definition-missing", "No definition", detail).into())
                }
            },
            Change::Finished(finished) => self.let_go(&job, *finished).await,
            Change::Running { .. } | Change::Removed => Err(not_for_clients()),
        };
        outcome.map_err(|error| match error {
            service::Error::Refused(problem) | service::Error::Busy { problem, .. } => {
                self.service.metrics.refused(Refused::Change);
                tracing::debug!(%problem, job.id = %job, "a change was refused");
                problem
            }
            error => {
                tracing::error!(error = chain(&error), job.id = %job, "a change failed");
                Problem::new("unavailable", "Not possible now", "the relay cannot write: send it again")
            }
        })
    }

    async fn let_go(&self, job: &JobId, finished: Finished) -> Result<u64, service::Error> {
        let why = match finished.reason {
            FinishReason::Cancelled | FinishReason::JobReplacedByClient => EndReason::Cancelled,
            FinishReason::Deleted => EndReason::Deleted,
            FinishReason::Success
            | FinishReason::Error
            | FinishReason::TimedOut
            | FinishReason::WorkerLost => {
                return Err(not_for_clients());
            }
        };
        let who = self.who(job, finished.namespace).await?;
        let message = finished.message.map(|message| cut(&message, MAX_MESSAGE_BYTES).to_owned());
        match self.service.let_go(&self.queue, job, why, who, message).await? {
            Reply::Done { revision } | Reply::AlreadyEnded { revision } => Ok(revision),
            _ => Ok(0),
        }
    }

    /// No namespace means the default one; where the job is not in it, those under which this socket submitted the
    /// job.
    async fn who(&self, job: &JobId, named: Option<NamespaceSelector>) -> Result<Who, service::Error> {
        if let Some(named) = named {
            return Ok(Who::These(named));
        }
        let held = self.service.namespaces(&self.queue, job).await?;
        if held.is_empty() || held.iter().any(Namespace::is_default) {
            return Ok(Who::These(NamespaceSelector::One(Namespace::default())));
        }
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Who::Own(own.get(job).cloned().unwrap_or_default()))
    }

    fn remember(&self, job: &JobId, namespace: Namespace) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= MAX_OWN && !own.contains_key(job) {
            own.clear();
        }
        let namespaces = own.entry(job.clone()).or_default();
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
}

fn not_for_clients() -> service::Error {
    let detail = "clients submit, cancel and delete; workers run jobs";
    Problem::new("not-for-clients", "Not a client's to say", detail).into()
}
