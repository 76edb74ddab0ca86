//! Workers of the old way: they take jobs unasked, and the relay arbitrates (`jobs-and-states` 3.1, 8.8).
//!
//! A claim is a lease without renewal. It lives as long as its worker's record does, which the worker's frames
//! keep alive; so losing an old worker is the same look at the record as losing a new one.

use std::cmp::Ordering;

use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};

use super::draft::Draft;
use super::lease::{hold, lose, record_outcome, wait_again};
use crate::queue::command::{Effect, Ending, Reply};
use crate::queue::record::{Lease, Outcome, Phase, Source};
use crate::queue::timing::{self, LEASE_TTL};
use crate::queue::view::{Need, View};

/// A registration (`first`), or a sign of life.
pub(super) fn old_worker<V: View>(
    draft: &mut Draft<'_, V>,
    worker: &WorkerId,
    first: bool,
) -> Result<Reply, Need> {
    let mut known = draft.worker(worker)?.unwrap_or_default();
    if first {
        known.session += 1;
        known.instance = None;
    }
    known.live_until = draft.now.plus_millis(LEASE_TTL);
    known.closed = None;
    let session = known.session;
    draft.put_worker(worker, known)?;
    Ok(Reply::Registered { session, revoked: Vec::new() })
}

pub(super) fn claim<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    worker: &WorkerId,
    time: Timestamp,
) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    let again = match &record.phase {
        Phase::Waiting { expired } => match expired {
            // Of another time it is another claim: what came between the two was a loss.
            Some(own) if own.worker == *worker && own.claimed == Some(time) => Some(own.clone()),
            _ => None,
        },
        Phase::Held(held) if held.is_claim() => {
            if sorts_first(&held.worker, worker) != Ordering::Greater {
                return Ok(Reply::NotCurrent);
            }
            None
        }
        // Made, a grant stands.
        Phase::Granted(_) | Phase::Held(_) | Phase::Done(_) | Phase::LetGo(_) => {
            return Ok(Reply::NotCurrent);
        }
    };
    if again.is_none() && matches!(record.phase, Phase::Waiting { expired: Some(_) }) {
        match lose(draft, job, record)? {
            Some(goes_on) => record = goes_on,
            None => return Ok(Reply::NotCurrent),
        }
    }
    let now = draft.now;
    let lease = again.unwrap_or_else(|| {
        record.attempt += 1;
        Box::new(Lease {
            id: draft.new_lease_id(),
            worker: worker.clone(),
            instance: None,
            claimed: Some(time),
            attempt: record.attempt,
            session: 0,
            granted: now,
            accepted: now,
            live_until: now,
            deadline_ms: timing::LONGEST_RUN,
        })
    });
    hold(draft, job, &mut record, lease);
    // Lists show what the claimer says (`jobs-and-states` 1.4); nothing is decided by it.
    record.time = time;
    draft.put_record(job, record)?;
    Ok(Reply::Done { revision: draft.revision(job)? })
}

/// A result counts from the worker that holds the claim or, after a loss, was the last to hold it.
pub(super) fn finish<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    worker: &WorkerId,
    run: &LeaseId,
    ending: &Ending,
) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    let Some(held) = record.lease().filter(|held| held.is_claim() && held.worker == *worker).cloned() else {
        return Ok(Reply::Finished { recorded: false, why: None });
    };
    match ending {
        Ending::Unreadable(_) => {
            wait_again(draft, job, &mut record);
            draft.put_record(job, record)?;
            Ok(Reply::Finished { recorded: false, why: None })
        }
        Ending::Result { .. } if held.id != *run => {
            // The document was written for an earlier claim: the shell writes it anew.
            Ok(Reply::Stale)
        }
        Ending::Result { reason, time } => {
            let outcome = Outcome {
                reason: *reason,
                time: *time,
                worker: worker.as_str().to_owned(),
                source: Source::Run(run.clone()),
            };
            record_outcome(draft, job, record, outcome)?;
            Ok(Reply::Finished { recorded: true, why: None })
        }
    }
}

/// The worker drains: its claim goes back, and is not held against the job.
pub(super) fn give_back<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    worker: &WorkerId,
) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    match &record.phase {
        Phase::Held(held) if held.is_claim() && held.worker == *worker => {
            wait_again(draft, job, &mut record);
            draft.put_record(job, record)?;
            draft.effect(Effect::Changed(job.clone()));
            Ok(Reply::Done { revision: draft.revision(job)? })
        }
        _ => Ok(Reply::NotCurrent),
    }
}

/// Of two workers that claim one job the one whose id sorts first has it: punctuation before digits before
/// letters, `a` < `A` < `b` (`jobs-and-states` 3.1).
fn sorts_first(a: &WorkerId, b: &WorkerId) -> Ordering {
    dockframe_shared::job::resolve::compare_worker_ids(a.as_str(), b.as_str())
}
