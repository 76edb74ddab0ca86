//! Owed callbacks are made: at once when they come up, and again by their due entries (`jobs-and-states` 7).

use std::sync::Arc;

use dockframe_shared::JobId;
use dockframe_shared::ids::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Error, Scope, Service};
use crate::error::chain;
use crate::queue::command::{Called, Command, Due, DueKind};
use crate::queue::open::OpenQueue;
use crate::queue::record::{CallbackKind, OpenCallback};
use crate::store::{Commit, Committed};
use crate::webhooks::Call;

/// After so long a callback that is being made is looked at again: longer than one may take.
const REARM_MS: i64 = 15_000;
/// While nobody has named the queue since the start, its name cannot be told: looked at again after so long.
const NAMELESS_MS: i64 = 60_000;
/// For so long a relay that does not know the name leaves a callback to the others.
const OTHERS_MS: i64 = 5_000;

impl Service {
    /// Makes what is owed for a job, without anybody waiting for it.
    pub(super) fn start_callbacks(self: &Arc<Self>, queue: &Arc<OpenQueue>, job: JobId) {
        let (service, queue) = (Arc::clone(self), Arc::clone(queue));
        self.tasks.spawn(async move {
            tokio::select! {
                made = service.make_callbacks(&queue, &job) => {
                    if let Err(error) = made {
                        tracing::error!(error = chain(&error), job.id = %job, "callbacks could not be made");
                    }
                }
                // What is not made yet is owed still, by its due entry.
                () = service.stop.cancelled() => {}
            }
        });
    }

    /// A due entry asks. It is set anew before the calls are made, so that none is lost with this process.
    pub(crate) async fn callbacks_due(
        self: &Arc<Self>,
        queue: &Arc<OpenQueue>,
        due: Due,
    ) -> Result<(), Error> {
        let record = self.record(queue, &due.job).await?;
        let open = record.is_some_and(|record| !record.callbacks.is_empty());
        let is_named = queue.name().is_some();
        // Another relay may know the name.
        let is_left_to_others = self.store.others().is_some() && self.now().since(due.at) < OTHERS_MS;
        if open && !is_named && is_left_to_others {
            return Ok(());
        }
        let again = if is_named { REARM_MS } else { NAMELESS_MS };
        let at = self.now().plus_millis(again);
        let rearmed = Due { at, what: DueKind::Callbacks, job: due.job.clone() };
        let job = due.job.clone();
        let commit = Commit {
            queue: queue.digest,
            at: self.now(),
            writes: Vec::new(),
            due: open.then_some(rearmed).into_iter().collect(),
            done: vec![due],
            claims: true,
            documents: Vec::new(),
            offers: Vec::new(),
        };
        let mine = self.store.commit(commit).await? == Committed::Ok;
        if open && mine {
            self.start_callbacks(queue, job);
        }
        Ok(())
    }

    async fn make_callbacks(self: &Arc<Self>, queue: &Arc<OpenQueue>, job: &JobId) -> Result<(), Error> {
        let _turn = self.calling.turn(queue.digest, job).await;
        let Some(record) = self.record(queue, job).await? else { return Ok(()) };
        let now = self.now();
        let Some(name) = queue.name() else { return Ok(()) };
        for open in record.callbacks.iter().filter(|open| open.next <= now) {
            let body = self.body(queue, name.reveal(), job, open).await?;
            let id = id_of(queue, job, open);
            let call = Call { url: &open.hook.url, id: &id, body: body.to_string(), now: self.now() };
            let outcome = self.settings.webhooks.make(call).await;
            if outcome == Called::Refused {
                tracing::info!(callback.id = id, job.id = %job, "a callback is given up");
            }
            let command = Command::Called {
                job: job.clone(),
                namespace: open.namespace.clone(),
                kind: open.kind.clone(),
                outcome,
            };
            self.execute(queue, &command).await?;
        }
        Ok(())
    }

    async fn body(
        &self,
        queue: &Arc<OpenQueue>,
        name: &str,
        job: &JobId,
        open: &OpenCallback,
    ) -> Result<Value, Error> {
        let config = open.hook.payload.clone().unwrap_or_else(|| json!({}));
        let mut body = json!({ "jobId": job, "queue": name, "namespace": open.namespace, "config": config });
        let CallbackKind::Finished { reason } = &open.kind else { return Ok(body) };
        body["state"] = json!("Finished");
        body["reason"] = json!(reason);
        if reason.as_result().is_some() {
            let result = self.result(Scope::Queue(queue), job).await?;
            let result = result.and_then(|job| job.finished).and_then(|finished| finished.result);
            if let Some(code) = result.as_ref().and_then(|result| result.get("StatusCode")) {
                body["statusCode"] = code.clone();
            }
            if let Some(public) = &self.settings.public_url {
                let mut url = public.clone();
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty().extend(["q", name, "j", job.as_str(), "result.json"]);
                }
                body["resultUrl"] = json!(url.as_str());
            }
        }
        Ok(body)
    }
}

/// The same for all tries of one callback, and for no other.
fn id_of(queue: &OpenQueue, job: &JobId, open: &OpenCallback) -> String {
    let kind = match open.kind {
        CallbackKind::Queued => "queued",
        CallbackKind::Finished { .. } => "finished",
    };
    let text = json!([queue.digest.to_hex(), job, open.namespace, kind, open.since]).to_string();
    format!("msg_{}", hex(&Sha256::digest(text.as_bytes())[..16]))
}
