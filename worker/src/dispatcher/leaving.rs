//! How the worker leaves (`worker` 22.3, B24), and what becomes of a run whose task failed.

use std::sync::Arc;
use std::time::Duration;

use dockframe_shared::job::{FinishReason, Finished};
use serde_json::json;
use tokio::task::Id;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::queue::Letter;
use super::{Dispatcher, Standing};
use crate::clock;
use crate::config::{DrainTimeout, OnExit};
use crate::executor::Executor;
use crate::messages::{QueueIndex, StopOrder, Then};
use crate::old_way::OldWay;

/// How the worker leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    pub(crate) drain_timeout: DrainTimeout,
    pub(crate) on_exit: OnExit,
}

impl<E: Executor> Dispatcher<E> {
    /// Whether runs are left for a process that follows.
    pub(crate) fn leaves_runs(&self) -> bool {
        self.table.values().any(|entry| entry.standing == Standing::Left)
    }

    pub(super) fn all_answered(&self) -> bool {
        self.queues.iter().all(|queue| {
            queue.frames.is_none() || queue.letters.values().all(|letter| letter.answered.is_some())
        })
    }

    /// No new jobs. When to give up on those that run.
    pub(super) fn drain(&mut self) -> Option<Instant> {
        self.draining = true;
        for index in 0..self.queues.len() {
            self.announce(QueueIndex(index));
        }
        if !self.table.is_empty() {
            info!("stopping; {} running job(s)", self.table.len());
        }
        match self.rules.leaving.drain_timeout {
            DrainTimeout::After(wait) => Some(Instant::now() + wait),
            DrainTimeout::Job => None,
        }
    }

    pub(super) fn has_unhurried(&self) -> bool {
        self.table.values().any(|entry| {
            entry.stop.borrow().is_none_or(|order| !order.grace.is_zero() && order.then != Then::Leave)
        })
    }

    /// Stops what runs, or leaves it to the process that follows, as configured.
    pub(super) fn stop_all(&mut self, grace: Duration) {
        let on_exit = self.rules.leaving.on_exit;
        for (key, entry) in &mut self.table {
            let leaves = match on_exit {
                OnExit::Leave => true,
                OnExit::Requeue => false,
                // A relay without leases expects that what runs goes on, and gives it to the worker that comes back.
                OnExit::AsAgreed => OldWay::made(&key.lease),
            };
            // What has not begun is given back: nothing of it could be taken up.
            let leaves = leaves && entry.standing != Standing::Offered;
            entry.standing = match entry.standing {
                Standing::Revoked => Standing::Revoked,
                _ if leaves => Standing::Left,
                _ => Standing::GivingBack,
            };
            let then = if entry.standing == Standing::Left { Then::Leave } else { Then::CleanUp };
            entry.stop.send_replace(Some(StopOrder { grace, then }));
        }
    }

    /// A fault of this program: the job gets an error instead of silence.
    pub(super) fn unit_failed(&mut self, id: Id) {
        let Some(key) = self.unit_keys.remove(&id) else { return };
        error!("a job's task failed inside the worker");
        let Some(entry) = self.table.remove(&key) else { return };
        self.capacity.release(&entry.share);
        let shared = Arc::clone(&self.shared);
        let name = entry.directory.container_name();
        self.units.spawn(async move {
            if let Err(failure) = shared.executor.remove(&name).await {
                warn!("a container could not be removed: {failure}");
            }
            let removed = tokio::task::spawn_blocking(move || entry.directory.remove()).await;
            if let Ok(Err(failure)) = removed {
                warn!("a run's directory could not be removed: {failure}");
            }
        });
        if entry.standing != Standing::Held {
            return;
        }
        let mut finished = Finished::new(FinishReason::Error, clock::now());
        let text = "the worker failed inside; please report it";
        finished.worker = Some(self.shared.worker().to_string());
        finished.result = Some(json!({
            "logs": [[format!("💥 {text}"), clock::now(), true]], "error": text, "isTimedOut": false, "outputs": {},
        }));
        let queue = self.queue(key.queue);
        match serde_json::to_value(finished).map(|value| queue.outbox.put(&key.lease, value)) {
            Ok(Ok(frame)) => {
                let sent = queue.send(frame).then(Instant::now);
                queue.letters.insert(key.lease.clone(), Letter { sent, answered: None });
            }
            Ok(Err(failure)) => error!("a result cannot be written to disk: {failure}"),
            Err(failure) => error!("a result cannot be written: {failure}"),
        }
        self.announce(key.queue);
    }
}
