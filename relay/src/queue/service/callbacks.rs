//! Callbacks that are owed are made: at once after the commit that made them true, else when they are due.

use std::sync::Arc;

use dockframe_shared::JobId;
use futures_util::future::join_all;

use super::execute::With;
use super::{Error, Service};
use crate::callbacks::Outcome;
use crate::error::chain;
use crate::limits::Turn;
use crate::metrics;
use crate::queue::command::{Called, Command, Due, Reply};
use crate::queue::open::OpenQueue;
use crate::queue::record::{Call, Event, Source};

/// Callbacks of one job that are made at once.
const AT_ONCE: usize = 8;

impl Service {
    /// Makes what is owed for a job, without anybody waiting for it.
    pub(super) fn call_soon(self: &Arc<Self>, queue: &Arc<OpenQueue>, job: JobId) {
        let turns = self.turns.take(queue.digest, AT_ONCE);
        if turns.is_empty() {
            // The due entry that was committed with the debt brings it again.
            return;
        }
        let (service, queue) = (Arc::clone(self), Arc::clone(queue));
        self.tasks.spawn(async move {
            if let Err(error) = service.call(&queue, &job, turns, With::default()).await {
                tracing::error!(error = chain(&error), job.id = %job, "callbacks could not be made");
            }
        });
    }

    /// As a due entry asks for. It is done with at once: what is still owed has another one.
    pub(crate) async fn call_due(self: &Arc<Self>, queue: &Arc<OpenQueue>, due: Due) -> Result<(), Error> {
        let turns = self.turns.take(queue.digest, AT_ONCE);
        let job = due.job.clone();
        let taken = self.take_calls(queue, &job, turns.len(), With { done: Some(due), ..With::default() });
        let calls = taken.await?;
        if !calls.is_empty() {
            let (service, queue) = (Arc::clone(self), Arc::clone(queue));
            self.tasks.spawn(async move { service.make_all(&queue, &job, calls, turns).await });
        }
        Ok(())
    }

    async fn call(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        job: &JobId,
        turns: Vec<Turn>,
        with: With,
    ) -> Result<(), Error> {
        let calls = self.take_calls(queue, job, turns.len(), with).await?;
        self.make_all(queue, job, calls, turns).await;
        Ok(())
    }

    async fn take_calls(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        job: &JobId,
        at_most: usize,
        with: With,
    ) -> Result<Vec<Call>, Error> {
        let command = Command::TakeCalls { job: job.clone(), at_most };
        match self.execute_with(queue, &command, with).await? {
            Reply::Calls(calls) => Ok(calls),
            _ => Ok(Vec::new()),
        }
    }

    async fn make_all(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        job: &JobId,
        calls: Vec<Call>,
        turns: Vec<Turn>,
    ) {
        let made = join_all(calls.into_iter().zip(turns).map(|(call, turn)| async move {
            if let Err(error) = self.make(queue, job, &call).await {
                tracing::error!(error = chain(&error), job.id = %job, "a callback could not be noted");
            }
            drop(turn);
        }));
        tokio::select! {
            _ = made => {}
            // What was taken is owed still, and due again soon.
            () = self.stop.cancelled() => {}
        }
    }

    async fn make(self: &Arc<Self>, queue: &Arc<OpenQueue>, job: &JobId, call: &Call) -> Result<(), Error> {
        let status_code = match &call.event {
            Event::Finished { run: Some(run), .. } => self.status_code(run).await?,
            Event::Finished { run: None, .. } | Event::Queued => None,
        };
        let outcome = self.settings.callbacks.make(queue.digest, job, call, status_code, self.now()).await;
        let called = match &outcome {
            Outcome::Delivered | Outcome::Refused(_) => Called::Over,
            Outcome::Failed(_) => Called::Again,
        };
        match &outcome {
            Outcome::Delivered => self.metrics.called(metrics::Callback::Delivered),
            Outcome::Refused(why) => self.given_up(job, why),
            Outcome::Failed(why) => {
                self.metrics.called(metrics::Callback::Failed);
                tracing::debug!(job.id = %job, attempt = call.attempts, why, "a callback failed for now");
            }
        }
        let command = Command::Called { job: job.clone(), id: call.id.clone(), outcome: called };
        if let (Reply::GivenUp, Outcome::Failed(why)) = (self.execute(queue, &command).await?, &outcome) {
            self.given_up(job, why);
        }
        Ok(())
    }

    /// How the container of a recorded run ended.
    async fn status_code(&self, run: &dockframe_shared::LeaseId) -> Result<Option<i64>, Error> {
        let finished = self.document_of_run(&Source::Run(run.clone())).await?;
        let result = finished.and_then(|finished| finished.result);
        Ok(result.and_then(|result| result.get("StatusCode")?.as_i64()))
    }

    /// It was never heard, and will not be.
    fn given_up(&self, job: &JobId, why: &str) {
        self.metrics.called(metrics::Callback::GivenUp);
        tracing::warn!(job.id = %job, why, "a callback is given up");
    }
}
