//! A worker with leases registers, renews, comes back, goes (`jobs-and-states` 8.1, 8.3, 8.7).

use dockframe_shared::{InstanceId, LeaseId, WorkerId};

use super::draft::Draft;
use super::lease;
use crate::queue::command::{Effect, Reply};
#[cfg(test)]
use crate::queue::deployment::guards::{self, Guard};
use crate::queue::record::{Phase, WorkerRecord};
use crate::queue::timing::{self, LEASE_TTL, WORKER_KEPT};
use crate::queue::view::{Need, View};

/// `named` are the leases that the worker has accepted and has not been told are over. They are renewed by the one
/// write of the worker's record; what it holds and does not name, it has forgotten.
pub(super) fn register<V: View>(
    draft: &mut Draft<'_, V>,
    worker: &WorkerId,
    instance: &InstanceId,
    first: bool,
    named: &[LeaseId],
) -> Result<Reply, Need> {
    let now = draft.now;
    let mut known = draft.worker(worker)?.unwrap_or_default();
    let first = first || known.instance.as_ref() != Some(instance);
    if first {
        known.session += 1;
        known.instance = Some(instance.clone());
    }
    known.live_until = now.plus_millis(LEASE_TTL);
    known.closed = None;
    let session = known.session;
    draft.put_worker(worker, known)?;

    let mut current = Vec::new();
    for job in draft.leased_to(worker) {
        let Some(mut record) = draft.record(&job)? else { continue };
        let Some(held) = record.lease().cloned().map(Box::new) else { continue };
        if held.worker != *worker {
            continue;
        }
        if named.contains(&held.id) {
            current.push(held.id.clone());
            let moved = held.instance.as_ref() != Some(instance);
            match &record.phase {
                Phase::Held(_) if !moved => {}
                Phase::Held(_) => {
                    let mut adopted = held;
                    adopted.instance = Some(instance.clone());
                    record.phase = Phase::Held(adopted);
                    draft.put_record(&job, record)?;
                }
                Phase::Granted(_) | Phase::Waiting { .. } => {
                    let mut resumed = held;
                    resumed.instance = Some(instance.clone());
                    lease::hold(draft, &job, &mut record, resumed);
                    draft.put_record(&job, record)?;
                }
                Phase::Done(_) | Phase::LetGo(_) => {}
            }
            continue;
        }
        match &record.phase {
            // A claim of the time before this worker spoke of leases: it has dropped it.
            Phase::Held(_) if held.is_claim() => lease::wait_again(draft, &job, &mut record),
            Phase::Held(_) => lease::expire(draft, &job, &mut record, held),
            Phase::Granted(_) if held.session < session => {
                lease::wait_again(draft, &job, &mut record);
            }
            Phase::Granted(_) | Phase::Waiting { .. } | Phase::Done(_) | Phase::LetGo(_) => continue,
        }
        draft.put_record(&job, record)?;
    }
    draft.effect(Effect::Wake);
    let revoked = named.iter().filter(|lease| !current.contains(lease)).cloned().collect();
    Ok(Reply::Registered { session, revoked })
}

/// The socket of a session closed without a word: its leases may be granted anew before their time.
pub(super) fn closed<V: View>(
    draft: &mut Draft<'_, V>,
    worker: &WorkerId,
    session: u64,
) -> Result<Reply, Need> {
    let known = draft.worker(worker)?;
    let is_last = |known: &WorkerRecord| known.session == session;
    #[cfg(test)]
    let is_last = |known: &WorkerRecord| is_last(known) || !guards::stands(Guard::SessionCheck);
    let Some(mut known) = known.filter(is_last) else {
        return Ok(Reply::Stale);
    };
    let now = draft.now;
    known.closed = Some(now);
    draft.put_worker(worker, known)?;
    for job in draft.leased_to(worker) {
        let Some(record) = draft.record(&job)? else { continue };
        if let Phase::Held(held) = &record.phase {
            draft.look_at(&job, now.plus_millis(timing::grace(now.since(held.accepted))));
        }
    }
    Ok(Reply::Nothing)
}

/// A worker that comes back after this is a new one: nothing in the queue speaks of its sessions any more.
pub(super) fn forget<V: View>(draft: &mut Draft<'_, V>, worker: &WorkerId) -> Result<Reply, Need> {
    let Some(known) = draft.worker(worker)? else { return Ok(Reply::Unknown) };
    let is_long_gone = draft.now >= known.live_until.plus_millis(WORKER_KEPT);
    if is_long_gone && draft.leased_to(worker).is_empty() {
        draft.remove_worker(worker)?;
    }
    Ok(Reply::Nothing)
}
