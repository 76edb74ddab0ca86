//! Time passed: whatever is due for a job is done, and the next look is arranged.
//!
//! A look is idempotent and may come early, late, twice or for nothing. It takes no decision from the due entry that
//! brought it, only from the record as it is.

use dockframe_shared::job::ResultReason;
use dockframe_shared::protocol::RevokeWhy;
use dockframe_shared::{JobId, Namespace, Timestamp};

use super::draft::Draft;
use super::lease;
use super::let_go::replace_in;
use crate::queue::command::{Effect, Reply};
use crate::queue::record::{Lease, Outcome, Phase, Record};
use crate::queue::timing::{self, ACCEPT, KEPT, LEASE_TTL, later};
use crate::queue::view::{Need, View};

pub(super) fn look<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    healthy_since: Timestamp,
    another_free: bool,
) -> Result<Reply, Need> {
    let Some(record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    match record.phase.clone() {
        Phase::Waiting { .. } if lease::is_last_loss(&record) => {
            give_up(draft, job, record, healthy_since)?;
        }
        Phase::Waiting { .. } => {}
        Phase::Granted(granted) => grant_timeout(draft, job, record, &granted, healthy_since)?,
        Phase::Held(held) => held_too_long(draft, job, record, held, healthy_since, another_free)?,
        Phase::Done(_) => leave_the_list(draft, job, record)?,
        Phase::LetGo(_) => {
            if draft.now >= record.time.plus_millis(KEPT) {
                if let Some(run) = &*record.run {
                    draft.effect(Effect::DropRun(run.clone()));
                }
                draft.remove_record(job)?;
            }
        }
    }
    replace_superseded(draft, job)?;
    Ok(Reply::Nothing)
}

fn grant_timeout<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut record: Record,
    granted: &Lease,
    healthy_since: Timestamp,
) -> Result<(), Need> {
    let until = later(granted.granted, healthy_since).plus_millis(ACCEPT);
    if draft.now < until {
        draft.look_at(job, until);
        return Ok(());
    }
    draft.effect(Effect::Revoke {
        worker: granted.worker.clone(),
        lease: granted.id.clone(),
        why: RevokeWhy::Unknown,
    });
    lease::wait_again(draft, job, &mut record);
    draft.put_record(job, record)
}

fn held_too_long<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut record: Record,
    held: Box<Lease>,
    healthy_since: Timestamp,
    another_free: bool,
) -> Result<(), Need> {
    let now = draft.now;
    let deadline = held.accepted.plus_millis(held.deadline_ms);
    if now >= deadline {
        if !held.is_claim() {
            draft.effect(Effect::Revoke {
                worker: held.worker.clone(),
                lease: held.id.clone(),
                why: RevokeWhy::Deadline,
            });
        }
        let text = format!("stopped by the relay: held for longer than {} s", held.deadline_ms / 1000);
        return lease::end_by_relay(draft, job, record, ResultReason::TimedOut, text);
    }

    let worker = draft.worker(&held.worker)?.unwrap_or_default();
    let same_process = worker.instance == held.instance;
    let renewed = if same_process { worker.live_until } else { held.live_until };
    let lives_until = later(later(held.live_until, renewed), healthy_since.plus_millis(LEASE_TTL));
    // Its socket closed: somebody else may have the job sooner, if there is somebody.
    let early = worker.closed.filter(|_| same_process).map(|closed| {
        let grace = timing::grace(closed.since(held.accepted));
        later(closed, healthy_since).plus_millis(grace)
    });
    // A claim's worker said all there is to say by closing its last socket: nobody else needs to be free.
    let may_be_early = another_free || held.is_claim();
    let lost = now >= lives_until || (may_be_early && early.is_some_and(|early| now >= early));
    if !lost {
        let next = match early {
            Some(early) => later(early, now.plus_millis(1_000)).min(lives_until),
            None => lives_until,
        };
        draft.look_at(job, next.min(deadline));
        return Ok(());
    }
    // Compared as well: a worker that has come back meanwhile has lost nothing (`jobs-and-states` 8.7).
    if let Some(known) = draft.worker(&held.worker)? {
        draft.put_worker(&held.worker, known)?;
    }
    lease::expire(draft, job, &mut record, held);
    draft.put_record(job, record)
}

/// One worker too many was lost: the last of them has its time to come back, then the job ends.
fn give_up<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: Record,
    healthy_since: Timestamp,
) -> Result<(), Need> {
    let until = later(record.time, healthy_since).plus_millis(LEASE_TTL);
    if draft.now < until {
        draft.look_at(job, until);
        return Ok(());
    }
    lease::lose(draft, job, record).map(drop)
}

fn leave_the_list<V: View>(draft: &mut Draft<'_, V>, job: &JobId, record: Record) -> Result<(), Need> {
    if draft.now < record.listed_until {
        draft.look_at(job, record.listed_until);
        return Ok(());
    }
    let namespaces: Vec<Namespace> = record.holders.keys().cloned().collect();
    draft.leave_slots(job, &namespaces)?;
    if draft.now < record.listed_until.plus_millis(KEPT) {
        // Written as it is: what changes is that it is not in the index of live jobs any more.
        return draft.put_record(job, record);
    }
    let own = record.outcome().filter(|outcome| !outcome.is_shared()).and_then(Outcome::run).cloned();
    if let Some(run) = own {
        draft.put_run(&run, None)?;
        draft.unshare(job, &run);
        draft.effect(Effect::DropRun(run));
    }
    draft.remove_record(job)
}

/// The namespaces that a newer job took, once their delays are over (`jobs-and-states` 4).
fn replace_superseded<V: View>(draft: &mut Draft<'_, V>, job: &JobId) -> Result<(), Need> {
    let Some(record) = draft.record(job)?.filter(Record::is_going) else { return Ok(()) };
    let mut lost = Vec::new();
    for namespace in record.holders.keys().filter(|namespace| !namespace.is_default()) {
        let mut slot = draft.slot(namespace)?;
        let newer_stands = slot.supersedes(job);
        let Some(place) = slot.holders.get_mut(job) else { continue };
        match place.superseded {
            Some(since) if newer_stands => {
                let age = since.since(record.queued_time);
                let at = since.plus_millis(timing::replacement_delay(age));
                if at <= draft.now {
                    lost.push(namespace.clone());
                } else {
                    draft.look_at(job, at);
                }
            }
            // The newer one is gone again: this one is the newest once more.
            Some(_) => {
                place.superseded = None;
                draft.put_slot(namespace, slot)?;
            }
            None => {}
        }
    }
    if lost.is_empty() { Ok(()) } else { replace_in(draft, job, &lost) }
}
