//! What follows from a commit. All of it can be derived again from what is committed, so a crash loses none of it.

use std::sync::Arc;

use dockframe_shared::LeaseId;
use dockframe_shared::protocol::{LeaseRevoke, RelayMessage};

use super::leases::Granted;
use super::{Error, Service};
use crate::queue::command::Effect;
use crate::queue::open::OpenQueue;
use crate::queue::timing::KILL_GRACE;

impl Service {
    /// Tells everybody whom it concerns.
    pub(super) async fn perform(self: &Arc<Self>, queue: &Arc<OpenQueue>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Changed(job) => queue.job_changed(&job),
                Effect::Ended(_) => {
                    for outbox in queue.sockets().old_peers() {
                        outbox.full_list();
                    }
                }
                Effect::Wake => {
                    queue.touch();
                    queue.wake.notify_one();
                }
                Effect::Grant { worker, session, job, lease, attempt, deadline_ms } => {
                    let grant = Granted { worker, session, job, lease, attempt, deadline_ms };
                    self.metrics.grants.inc();
                    self.send_grant(queue, grant).await;
                }
                Effect::Revoke { worker, lease, why } => {
                    queue.has_room_again(&worker);
                    if let Some(outbox) = queue.revoke_target(&worker) {
                        let revoke = LeaseRevoke { lease_id: lease, why, grace_ms: KILL_GRACE };
                        outbox.push(&RelayMessage::LeaseRevoke(revoke));
                    }
                }
                Effect::ClearCache { job, namespace } => {
                    let message = RelayMessage::ClearJobCache { job_id: job, namespace };
                    let sockets = queue.sockets();
                    for socket in sockets.old_workers.values().filter(|socket| socket.registration.is_some())
                    {
                        socket.outbox.push(&message);
                    }
                }
                Effect::DropRun(run) => self.drop_run(run),
                // Went with the commit; the due entry repeats it where a store cannot do both in one step.
                Effect::Share(_) => {}
                Effect::Unshare { job, run } => {
                    if let Err(error) = self.unshare(&job, &run).await {
                        tracing::warn!(%error, job.id = %job, "a shared result could not be taken back");
                    }
                }
                Effect::Callbacks(job) => self.call_soon(queue, job),
            }
        }
    }

    /// What was kept of a run goes, without anybody waiting for it. One that has a result may answer in other queues
    /// too, which nothing that happens here may change: the garbage collection looks whether it does.
    fn drop_run(self: &Arc<Self>, run: LeaseId) {
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            let removed = async {
                if service.bytes_of_run(&run).await?.is_none() {
                    service.logs.remove(&run).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = removed.await {
                tracing::warn!(%error, "what was kept of a run could not be removed");
            }
        });
    }
}
