//! What clients change: submissions, cancels, deletions; and results coming in.

use std::sync::Arc;

use dockframe_shared::job::definition::Callback;
use dockframe_shared::job::{Control, Definition, Finished, digest};
use dockframe_shared::{JobId, LeaseId, Problem};
use serde_json::Value;

use super::execute::With;
use super::{Error, Service};
use crate::blobs::keys_in;
use crate::limits::{
    LATER_S, MAX_DEFINITION_BYTES, MAX_HOLDERS, MAX_JOBS_OF_A_QUEUE, SUBMISSIONS_PER_SECOND,
};
use crate::metrics::Refused;
use crate::queue::command::{Command, Ending, Reply, Submit};
use crate::queue::open::OpenQueue;
use crate::queue::record::{EndReason, Holder, Hook, Needs};
use crate::store::DocumentKey;

/// One submission, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// The sender's own id for it.
    pub id: Option<JobId>,
    pub definition: Definition,
    pub control: Control,
    pub debug: Option<bool>,
    /// Scheme, host and port under which the submitter reached this relay, if that is known.
    pub origin: Option<String>,
}

/// A result as a worker sends it: read, or why it cannot be.
#[derive(Debug, Clone)]
pub(crate) struct Finishing {
    ending: Ending,
    document: Vec<u8>,
}

impl Finishing {
    pub(crate) fn unreadable(why: &str) -> Self {
        Self { ending: Ending::Unreadable(why.to_owned()), document: Vec::new() }
    }

    /// Reads the value of a finish. What is no result is answered as such (`jobs-and-states` 8.6).
    pub(crate) fn read(value: &Value) -> Self {
        match serde_json::from_value::<Finished>(value.clone()) {
            Err(error) => Self::unreadable(&format!("the value of the finish cannot be read: {error}")),
            Ok(finished) => match finished.reason.as_result() {
                None => Self::unreadable("a run ends with Success, Error or TimedOut"),
                Some(reason) => Self {
                    ending: Ending::Result { reason, time: finished.time },
                    document: value.to_string().into_bytes(),
                },
            },
        }
    }

    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }
}

impl Service {
    /// Queues a job, or adds a namespace to it, or answers it by a result that stands. Durable when it returns.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        submission: Submission,
    ) -> Result<(JobId, u64), Error> {
        let Submission { id, definition, control, debug, origin } = submission;
        if let Err(retry_after_s) = queue.submissions.take(self.now()) {
            self.metrics.refused(Refused::Submissions);
            let detail =
                format!("a queue takes {SUBMISSIONS_PER_SECOND} submissions a second: send them slower");
            let problem = Problem::new("too-many-submissions", "Too many submissions", detail);
            return Err(Error::Busy { problem, retry_after_s });
        }
        let bytes = serde_json::to_vec(&definition).map_err(|error| {
            Problem::new("definition-unreadable", "Definition not readable", error.to_string())
        })?;
        if bytes.len() > MAX_DEFINITION_BYTES {
            return Err(Error::Refused(Problem::new(
                "definition-too-large",
                "Definition too large",
                format!(
                    "the definition has {} bytes, the limit is {MAX_DEFINITION_BYTES}: upload its files and refer to them",
                    bytes.len()
                ),
            )));
        }
        check_files(&definition)?;
        self.blobs.touch_all(keys_in(&bytes)).await?;
        let computed = digest::job_id(&definition);
        let verified = id.as_ref().is_none_or(|id| *id == computed);
        let job = id.unwrap_or(computed);
        let namespace = control.namespace();
        let key = if verified {
            DocumentKey::Definition(job.clone())
        } else {
            DocumentKey::OwnDefinition(queue.digest, job.clone())
        };
        let home = queue.digest.as_bytes().to_vec();
        let documents = vec![(key, bytes), (DocumentKey::Home(job.clone()), home)];
        if self.has_too_many_holders(queue, &job) {
            return Err(Error::Refused(Problem::new(
                "too-many-namespaces",
                "Too many namespaces",
                format!("a job can be held by {MAX_HOLDERS} namespaces: cancel it in some of them"),
            )));
        }
        if queue.is_full_for(&job) {
            self.metrics.refused(Refused::Jobs);
            let detail = format!(
                "the queue has {MAX_JOBS_OF_A_QUEUE} jobs, the limit: wait until some have ended, or cancel some"
            );
            let problem = Problem::new("too-many-jobs", "Too many jobs", detail);
            return Err(Error::Busy { problem, retry_after_s: LATER_S });
        }
        let shared = if verified { self.shared_answer(queue, &job).await? } else { None };
        let field = |name: &str| definition.get(name).cloned();
        let callbacks = control.callbacks.as_ref();
        let hook = |callback| self.hook(queue, callback, origin.as_deref());
        // The secrets in the control's `outputs` were never read.
        let submit = Submit {
            verified,
            namespace,
            holder: Holder {
                priority: control.priority(),
                max_duration: control.max_duration.clone().into(),
                finished_callback: hook(callbacks.and_then(|all| all.finished.as_ref()))?.map(Box::new),
                ..Holder::default()
            },
            queued_callback: hook(callbacks.and_then(|all| all.queued.as_ref()))?,
            rerun: control.rerun,
            debug,
            tags: field("tags"),
            requirements: field("requirements"),
            needs: Needs::read(&definition.requirements(), definition.tags(), definition.text("maxDuration")),
            shared,
            job: job.clone(),
        };
        let with = With { documents, done: None };
        let reply = self.execute_with(queue, &Command::Submit(Box::new(submit)), with).await?;
        let Reply::Done { revision } = reply else { return Err(Error::Overtaken) };
        self.metrics.submissions.inc();
        Ok((job, revision))
    }

    /// What is kept of a callback until it is made.
    fn hook(
        &self,
        queue: &OpenQueue,
        callback: Option<&Callback>,
        origin: Option<&str>,
    ) -> Result<Option<Hook>, Problem> {
        let (Some(callback), Some(key)) = (callback, queue.name()) else { return Ok(None) };
        let own = || self.own_origin.get().map_or("", String::as_str);
        self.settings.callbacks.hook(key, callback, origin.unwrap_or_else(own))
    }

    fn has_too_many_holders(&self, queue: &OpenQueue, job: &JobId) -> bool {
        let cache = queue.cache();
        cache.record(job).is_some_and(|known| known.value.holders.len() >= MAX_HOLDERS)
    }

    /// Cancel or delete. A deletion of a job that nobody knows leaves no mark.
    pub(crate) async fn let_go(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        job: &JobId,
        why: EndReason,
        who: crate::queue::command::Who,
        message: Option<String>,
    ) -> Result<Reply, Error> {
        if why == EndReason::Deleted
            && self.record(queue, job).await?.is_none()
            && self.store.document(DocumentKey::Shared(job.clone())).await?.is_none()
        {
            return Ok(Reply::Unknown);
        }
        let command = Command::LetGo { job: job.clone(), why, who, message };
        self.execute(queue, &command).await
    }

    /// Writes the result of a run, small ones with the commit itself.
    pub(super) async fn document_of(&self, run: &LeaseId, finishing: &Finishing) -> Result<With, Error> {
        let document = &finishing.document;
        if document.len() <= self.store.longest_result() {
            let documents = match finishing.ending {
                Ending::Result { .. } => vec![(DocumentKey::Result(run.clone()), document.clone())],
                Ending::Unreadable(_) => Vec::new(),
            };
            return Ok(With { documents, done: None });
        }
        self.documents.put(run, document).await?;
        Ok(With::default())
    }

    /// A finish that was not recorded leaves nothing behind.
    pub(super) async fn drop_document(&self, run: &LeaseId, finishing: &Finishing) -> Result<(), Error> {
        if finishing.document.len() > self.store.longest_result() {
            self.documents.remove(run).await?;
        }
        Ok(())
    }
}

/// What no worker could make sense of is refused at once; all else is the worker's to judge.
fn check_files(definition: &Definition) -> Result<(), Problem> {
    let unreadable = |why: String| Problem::new("definition-unreadable", "Definition not readable", why);
    for name in ["inputs", "configFiles"] {
        match definition.get(name) {
            None => {}
            Some(Value::Object(files)) => {
                if let Some((file, _)) = files.iter().find(|(_, reference)| !reference.is_object()) {
                    return Err(unreadable(format!("`{name}`: `{file}` must be an object with a `value`")));
                }
            }
            Some(_) => return Err(unreadable(format!("`{name}` must be an object of files"))),
        }
    }
    Ok(())
}
