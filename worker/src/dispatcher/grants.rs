//! What the relay gives and takes: grants, revokes, and what a grant is declined for (`worker` 6.5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::job::Definition;
use dockframe_shared::protocol::{
    DeclineRetry, LeaseDecline, LeaseGrant, LeaseRef, LeaseRevoke, Phase, RevokeWhy, WorkerMessage,
};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Dispatcher, Entry, Standing, short};
use crate::capacity::{NoRoom, Share};
use crate::clock;
use crate::executor::{Executor, Image};
use crate::journal::Batch;
use crate::messages::{QueueIndex, RunKey, StopOrder, Then};
use crate::metrics;
use crate::plan::{Wishes, read_image};
use crate::secrets;
use crate::spool::Spool;
use crate::state::{RunDirectory, RunState};
use crate::unit::{Run, Unit};

impl<E: Executor> Dispatcher<E> {
    pub(super) fn grant(&mut self, index: QueueIndex, grant: LeaseGrant) {
        let key = RunKey { queue: index, lease: grant.lease_id.clone() };
        if self.revoked.contains_key(&key) {
            return;
        }
        if let Some(entry) = self.table.get(&key) {
            if entry.standing == Standing::Held {
                let accept = WorkerMessage::LeaseAccept(LeaseRef { lease_id: key.lease });
                self.queue(index).say(&accept);
            }
            return;
        }
        if let Some((why, retry)) = self.refusal(&grant) {
            return self.decline(&key, &why, retry);
        }
        // Wishes that cannot be read are a fault of the definition: its run says so.
        let wishes = Wishes::read(&grant.definition).unwrap_or_default();
        let share = match self.capacity.take(&wishes) {
            Ok(share) => share,
            Err(refusal) => {
                let retry = match refusal {
                    NoRoom::Now => DeclineRetry::Soon,
                    NoRoom::NeverGpus | NoRoom::NeverMemory => DeclineRetry::Never,
                };
                return self.decline(&key, &refusal.to_string(), retry);
            }
        };
        self.begin(key, grant, share);
    }

    /// Why a job is not for this worker, for a reason of its owner's or of the machine.
    fn refusal(&self, grant: &LeaseGrant) -> Option<(String, DeclineRetry)> {
        if self.draining {
            return Some(("this worker is about to stop".to_owned(), DeclineRetry::Later));
        }
        let rules = &self.rules;
        if let Some(tag) = grant.definition.tags().into_iter().find(|tag| !rules.tags.contains(tag)) {
            let tag: String = tag.chars().take(80).collect();
            return Some((format!("this worker does not offer the tag {tag}"), DeclineRetry::Never));
        }
        // What cannot be read is a fault of the definition: its run says so.
        let wishes = secrets::wishes(&grant.definition).unwrap_or_default();
        if let Some(name) = self.shared.secrets.missing(&wishes) {
            let name: String = name.chars().take(80).collect();
            return Some((format!("this worker has no secret {name}"), DeclineRetry::Never));
        }
        let image = read_image(&grant.definition).ok().and_then(|source| rules.images.refusal(&source));
        if let Some(why) = image {
            return Some((why, DeclineRetry::Never));
        }
        rules.disk.refusal().map(|why| (why, DeclineRetry::Later))
    }

    /// Enters the run into the table and starts its unit, which first writes down what it is.
    fn begin(&mut self, key: RunKey, grant: LeaseGrant, share: Share) {
        let place = self.rules.place.clone();
        let queue = self.queue(key.queue);
        info!(queue = %queue.key.digest(), job = %short(&grant), attempt = grant.attempt, "a job is granted");
        let directory = RunDirectory::new(&place, &queue.key, &grant);
        let state = RunState {
            queue: queue.key.digest().to_hex(),
            grant,
            accepted: clock::now(),
            slots: share.slots,
            memory_bytes: share.memory_bytes,
            gpus: share.gpus,
            started: false,
            image: Image::default(),
            phases: BTreeMap::new(),
            memory_limit: None,
        };
        let run = Run::new(key.clone(), queue, directory, state);
        self.spools.insert(key.clone(), Spool::new(run.grant.job_id.clone(), key.lease));
        self.enter(run, Standing::Offered, None);
    }

    pub(super) fn enter(&mut self, run: Run, standing: Standing, told: Option<Vec<Batch>>) {
        let (key, share) = (run.key.clone(), run.share.clone());
        let (stop, stop_heard) = watch::channel(None);
        let (go, go_heard) = oneshot::channel();
        let directory = run.directory.clone();
        let mut unit = Unit::new(Arc::clone(&self.shared), run, stop_heard, self.events.clone());
        let go = match told {
            Some(told) => {
                unit = unit.taking_up(told);
                // The unit that hears it is begun below.
                let _ = go.send(());
                None
            }
            None => Some(go),
        };
        self.table.insert(key.clone(), Entry { share, phase: Phase::Inputs, stop, go, directory, standing });
        let handle = self.units.spawn(unit.run(go_heard));
        self.unit_keys.insert(handle.id(), key);
    }

    pub(super) fn decline(&mut self, key: &RunKey, why: &str, retry: DeclineRetry) {
        self.metrics().add(&metrics::DECLINED, retry_name(retry), 1);
        let queue = self.queue(key.queue);
        info!(queue = %queue.key.digest(), "a job is declined: {why}");
        queue.say(&WorkerMessage::LeaseDecline(LeaseDecline {
            lease_id: key.lease.clone(),
            why: why.to_owned(),
            retry,
        }));
    }

    pub(super) fn revoke(&mut self, index: QueueIndex, revoke: LeaseRevoke) {
        let key = RunKey { queue: index, lease: revoke.lease_id };
        self.revoked.insert(key.clone(), Instant::now());
        let grace = Duration::from_millis(revoke.grace_ms).min(self.shared.kill_grace);
        let then = if revoke.why == RevokeWhy::Deleted { Then::Forget } else { Then::CleanUp };
        if self.table.contains_key(&key) {
            self.metrics().add(&metrics::LOST, "lease", 1);
        }
        self.forget(&key, StopOrder { grace, then });
        let queue = self.queue(index);
        if queue.letters.remove(&key.lease).is_some()
            && let Err(error) = queue.outbox.remove(&key.lease)
        {
            warn!("a result cannot be removed from disk: {error}");
        }
        self.announce(index);
    }

    /// The run counts no more: its unit stops and says nothing.
    pub(super) fn forget(&mut self, key: &RunKey, order: StopOrder) {
        self.spools.remove(key);
        if let Some(entry) = self.table.get_mut(key) {
            entry.standing = Standing::Revoked;
            entry.stop.send_replace(Some(order));
        }
    }

    /// A job was deleted that is not held here: the image that was made for it alone goes.
    pub(super) fn deleted(&mut self, definition: &Definition) {
        let Ok(source) = read_image(definition) else { return };
        let shared = Arc::clone(&self.shared);
        self.units.spawn(async move { shared.executor.forget(&source).await });
    }
}

fn retry_name(retry: DeclineRetry) -> &'static str {
    match retry {
        DeclineRetry::Soon => "soon",
        DeclineRetry::Later => "later",
        DeclineRetry::Never => "never",
    }
}
