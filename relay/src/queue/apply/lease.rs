//! The life of a lease: granted, accepted or declined, finished (`jobs-and-states` 8.2, 8.6).

use dockframe_shared::job::ResultReason;
use dockframe_shared::protocol::RevokeWhy;
use dockframe_shared::{InstanceId, JobId, LeaseId, WorkerId};

use super::calls;
use super::draft::Draft;
use crate::queue::command::{Effect, Ending, Reply};
#[cfg(test)]
use crate::queue::deployment::guards::{self, Guard};
use crate::queue::record::{Lease, Outcome, Phase, Record, Source};
use crate::queue::timing::{self, ACCEPT, KEPT, LEASE_TTL, LISTED, MAX_LOSSES};
use crate::queue::view::{Need, View};

pub(super) fn grant<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    worker: &WorkerId,
    instance: &InstanceId,
    session: u64,
) -> Result<Reply, Need> {
    let known = draft.worker(worker)?;
    if known.is_none_or(|known| known.session != session || known.closed.is_some()) {
        return Ok(Reply::Stale);
    }
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    let Phase::Waiting { expired } = &record.phase else { return Ok(Reply::Nothing) };
    if expired.is_some() {
        match lose(draft, job, record)? {
            Some(goes_on) => record = goes_on,
            None => return Ok(Reply::Nothing),
        }
    }
    record.attempt += 1;
    let now = draft.now;
    let lease = Box::new(Lease {
        id: draft.new_lease_id(),
        worker: worker.clone(),
        instance: Some(instance.clone()),
        claimed: None,
        attempt: record.attempt,
        session,
        granted: now,
        accepted: now,
        live_until: now.plus_millis(ACCEPT),
        deadline_ms: deadline_ms(&record),
    });
    draft.effect(Effect::Grant {
        worker: worker.clone(),
        session,
        job: job.clone(),
        lease: lease.id.clone(),
        attempt: lease.attempt,
        deadline_ms: lease.deadline_ms,
    });
    draft.look_at(job, lease.live_until);
    record.phase = Phase::Granted(lease);
    draft.effect(Effect::Changed(job.clone()));
    let revision = draft.revision(job)?;
    draft.put_record(job, record)?;
    Ok(Reply::Done { revision })
}

/// The longest time that the job's run may be held.
fn deadline_ms(record: &Record) -> i64 {
    let job = record.needs.max_duration_ms;
    let submissions = submissions_limit(record).and_then(|text| crate::limits::duration_ms(&text));
    [job, submissions]
        .into_iter()
        .flatten()
        .min()
        .map_or(timing::LONGEST_RUN, |limit| limit.saturating_add(timing::AROUND_THE_RUN))
}

/// The largest ceiling of those who share the run; none, if one of them has none.
pub(crate) fn submissions_limit(record: &Record) -> Option<String> {
    let mut largest: Option<(i64, &str)> = None;
    for holder in record.holders.values() {
        let text = holder.max_duration.as_deref()?;
        let limit = crate::limits::duration_ms(text)?;
        if largest.is_none_or(|(most, _)| limit > most) {
            largest = Some((limit, text));
        }
    }
    largest.map(|(_, text)| text.to_owned())
}

pub(super) fn accept<V: View>(
    draft: &mut Draft<'_, V>,
    lease: &LeaseId,
    worker: &WorkerId,
) -> Result<Reply, Need> {
    let Some((job, mut record)) = current(draft, lease, worker)? else { return Ok(Reply::NotCurrent) };
    match &record.phase {
        Phase::Granted(granted) => {
            let granted = granted.clone();
            hold(draft, &job, &mut record, granted);
            draft.put_record(&job, record)?;
            Ok(Reply::Done { revision: draft.revision(&job)? })
        }
        Phase::Held(_) => Ok(Reply::Done { revision: draft.revision(&job)? }),
        // Only naming it in a registration brings an expired lease back.
        Phase::Waiting { .. } | Phase::Done(_) | Phase::LetGo(_) => Ok(Reply::NotCurrent),
    }
}

/// The job runs from now on under this lease, whose lines are the job's.
pub(super) fn hold<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    mut lease: Box<Lease>,
) {
    let now = draft.now;
    if record.run.as_ref() != Some(&lease.id) {
        let old = record.run.replace(lease.id.clone());
        // The lines of a result that a rerun has not replaced yet are still to be read.
        let readable = record.previous.as_deref().and_then(Outcome::run);
        if let Some(old) = old.filter(|old| readable != Some(old)) {
            draft.effect(Effect::DropRun(old));
        }
    }
    if matches!(record.phase, Phase::Granted(_)) {
        lease.accepted = now;
    }
    lease.live_until = now.plus_millis(LEASE_TTL);
    draft.look_at(job, lease.live_until);
    draft.look_at(job, lease.accepted.plus_millis(lease.deadline_ms));
    record.time = if matches!(record.phase, Phase::Waiting { .. }) { lease.accepted } else { now };
    record.phase = Phase::Held(lease);
    draft.effect(Effect::Changed(job.clone()));
}

/// Nothing was heard of the worker for too long, or it has forgotten the job: that waits again, and the lease may still
/// come back until something takes its place.
pub(super) fn expire<V: View>(draft: &mut Draft<'_, V>, job: &JobId, record: &mut Record, lease: Box<Lease>) {
    record.phase = Phase::Waiting { expired: Some(lease) };
    record.time = draft.now;
    draft.effect(Effect::Changed(job.clone()));
    draft.effect(Effect::Wake);
    if is_last_loss(record) {
        // Nobody may want the job any more who could give it up.
        draft.look_at(job, draft.now.plus_millis(LEASE_TTL));
    }
}

/// Whether the job ends unless its expired lease comes back.
pub(super) fn is_last_loss(record: &Record) -> bool {
    matches!(record.phase, Phase::Waiting { expired: Some(_) }) && record.losses + 1 >= MAX_LOSSES
}

/// The expired lease does not come back: its worker is lost to the job. `None`: it was one too many, and the job has
/// ended (`jobs-and-states` 8.7).
pub(super) fn lose<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut record: Record,
) -> Result<Option<Record>, Need> {
    if let Some(expired) = record.lease().filter(|expired| !expired.is_claim()) {
        draft.effect(Effect::Revoke {
            worker: expired.worker.clone(),
            lease: expired.id.clone(),
            why: RevokeWhy::Superseded,
        });
    }
    record.losses += 1;
    if record.losses < MAX_LOSSES {
        return Ok(Some(record));
    }
    let text = format!("given up: {MAX_LOSSES} workers were lost while they ran this job");
    end_by_relay(draft, job, record, ResultReason::Error, text)?;
    Ok(None)
}

/// Before the accept a refusal, after it the job given back: it waits again either way, and nothing is lost.
pub(super) fn decline<V: View>(
    draft: &mut Draft<'_, V>,
    lease: &LeaseId,
    worker: &WorkerId,
) -> Result<Reply, Need> {
    let Some((job, mut record)) = current(draft, lease, worker)? else { return Ok(Reply::NotCurrent) };
    wait_again(draft, &job, &mut record);
    draft.put_record(&job, record)?;
    Ok(Reply::Done { revision: draft.revision(&job)? })
}

/// Back to waiting, with the place in line that it had.
pub(super) fn wait_again<V: View>(draft: &mut Draft<'_, V>, job: &JobId, record: &mut Record) {
    if matches!(record.phase, Phase::Held(_)) {
        record.time = draft.now;
    }
    record.phase = Phase::Waiting { expired: None };
    draft.effect(Effect::Changed(job.clone()));
    draft.effect(Effect::Wake);
}

pub(super) fn finish<V: View>(
    draft: &mut Draft<'_, V>,
    lease: &LeaseId,
    worker: &WorkerId,
    ending: &Ending,
) -> Result<Reply, Need> {
    let Some((job, mut record)) = current(draft, lease, worker)? else {
        let recorded = was_recorded(draft, lease)?;
        let why = (!recorded).then(|| "this lease is not the current one".to_owned());
        return Ok(Reply::Finished { recorded, why });
    };
    match ending {
        Ending::Unreadable(why) => {
            wait_again(draft, &job, &mut record);
            draft.put_record(&job, record)?;
            Ok(Reply::Finished { recorded: false, why: Some(why.clone()) })
        }
        Ending::Result { reason, time } => {
            let outcome = Outcome {
                reason: *reason,
                time: *time,
                worker: worker.as_str().to_owned(),
                source: Source::Run(lease.clone()),
            };
            record_outcome(draft, &job, record, outcome)?;
            Ok(Reply::Finished { recorded: true, why: None })
        }
    }
}

/// The one place where a job gets its result.
pub(super) fn record_outcome<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut record: Record,
    outcome: Outcome,
) -> Result<(), Need> {
    let now = draft.now;
    let replaced = record.previous.take().filter(|replaced| !replaced.is_shared());
    if let Some(run) = replaced.as_deref().and_then(Outcome::run) {
        draft.put_run(run, None)?;
        draft.effect(Effect::DropRun(run.clone()));
    }
    if let Source::Run(run) = &outcome.source {
        if let Some(old) = record.run.replace(run.clone()).filter(|old| old != run) {
            draft.effect(Effect::DropRun(old));
        }
        draft.put_run(run, Some(job))?;
        draft.effect(Effect::Share(job.clone()));
        draft.share_later(job);
    }
    calls::ended(draft, job, &mut record, outcome.reason.into(), outcome.run());
    record.time = outcome.time;
    record.phase = Phase::Done(Box::new(outcome));
    record.listed_until = now.plus_millis(LISTED);
    draft.look_at(job, record.listed_until);
    draft.look_at(job, record.listed_until.plus_millis(KEPT));
    draft.put_record(job, record)?;
    draft.effect(Effect::Changed(job.clone()));
    draft.effect(Effect::Wake);
    Ok(())
}

/// A result that no worker gave: attempts used up, or held too long.
pub(super) fn end_by_relay<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: Record,
    reason: ResultReason,
    text: String,
) -> Result<(), Need> {
    let worker = record.lease().map_or_else(String::new, |lease| lease.worker.as_str().to_owned());
    let outcome = Outcome { reason, time: draft.now, worker, source: Source::Relay(text) };
    record_outcome(draft, job, record, outcome)
}

/// The job whose slot this lease of this worker is in.
fn current<V: View>(
    draft: &Draft<'_, V>,
    lease: &LeaseId,
    worker: &WorkerId,
) -> Result<Option<(JobId, Record)>, Need> {
    let job = draft.job_of(lease)?;
    #[cfg(test)]
    let job = job.or_else(|| guards::left_behind(lease));
    let Some(job) = job else { return Ok(None) };
    let Some(record) = draft.record(&job)? else { return Ok(None) };
    let is_current = record.lease().is_some_and(|held| held.id == *lease && held.worker == *worker);
    #[cfg(test)]
    let is_current = is_current
        || guards::left_behind(lease).is_some()
        || (!guards::stands(Guard::Fence) && record.lease().is_some());
    Ok(is_current.then_some((job, record)))
}

/// Whether the result that stands, or the one that a rerun has not replaced yet, came of this lease.
fn was_recorded<V: View>(draft: &Draft<'_, V>, lease: &LeaseId) -> Result<bool, Need> {
    let Some(job) = draft.job_of(lease)? else { return Ok(false) };
    let record = draft.record(&job)?;
    Ok(record.is_some_and(|record| record.outcome().and_then(Outcome::run) == Some(lease)))
}
