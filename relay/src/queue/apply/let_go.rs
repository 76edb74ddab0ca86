//! Cancel, replace, delete: a namespace lets go, and the job ends when none is left (`jobs-and-states` 3.6).

use dockframe_shared::protocol::RevokeWhy;
use dockframe_shared::{JobId, LeaseId, Namespace, NamespaceSelector};

use super::calls;
use super::draft::Draft;
use crate::queue::command::{Effect, Reply, Who};
#[cfg(test)]
use crate::queue::deployment::guards::{self, Guard};
use crate::queue::holders::Holders;
use crate::queue::rare::Rare;
use crate::queue::record::{EndReason, Event, LetGo, Outcome, Phase, Record};
use crate::queue::timing::{KEPT, LISTED};
use crate::queue::view::{Need, View};

pub(super) fn let_go<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    why: EndReason,
    who: &Who,
    message: Option<&str>,
) -> Result<Reply, Need> {
    let Some(record) = draft.record(job)? else {
        if why == EndReason::Deleted {
            mark_deleted(draft, job)?;
            return Ok(Reply::Done { revision: draft.revision(job)? });
        }
        return Ok(Reply::Unknown);
    };
    let ended = !record.is_going();
    if ended && why != EndReason::Deleted {
        return Ok(Reply::AlreadyEnded { revision: draft.revision(job)? });
    }
    #[cfg(test)]
    let who = if guards::stands(Guard::Holders) { who } else { &Who::These(NamespaceSelector::All) };
    let going: Vec<Namespace> = match who {
        Who::These(NamespaceSelector::All) => record.holders.keys().cloned().collect(),
        Who::These(NamespaceSelector::One(one)) => {
            record.holders.keys().filter(|held| *held == one).cloned().collect()
        }
        Who::Own(own) => record.holders.keys().filter(|held| own.contains(held)).cloned().collect(),
    };
    if going.is_empty() && !record.holders.is_empty() {
        return Ok(Reply::Done { revision: draft.revision(job)? });
    }
    release(draft, job, record, &going, why, message)?;
    Ok(Reply::Done { revision: draft.revision(job)? })
}

/// A newer job took these namespaces.
pub(super) fn replace_in<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    namespaces: &[Namespace],
) -> Result<(), Need> {
    match draft.record(job)? {
        Some(record) if record.is_going() => {
            release(draft, job, record, namespaces, EndReason::Replaced, None)
        }
        _ => Ok(()),
    }
}

fn release<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut record: Record,
    going: &[Namespace],
    why: EndReason,
    message: Option<&str>,
) -> Result<(), Need> {
    draft.leave_slots(job, going)?;
    for namespace in going {
        let holder = record.holders.remove(namespace);
        if let Some(hook) = holder.and_then(|holder| holder.finished_callback) {
            let event = Event::Finished { reason: why.into(), run: None };
            calls::owe(draft, job, &mut record, namespace, event, *hook);
        }
    }
    draft.effect(Effect::Changed(job.clone()));
    if record.holders.is_empty() {
        end(draft, job, &mut record, why, message, going.first());
    }
    draft.put_record(job, record)
}

/// Nobody holds the job any more.
fn end<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    why: EndReason,
    message: Option<&str>,
    namespace: Option<&Namespace>,
) {
    let now = draft.now;
    let mut claimer = None;
    if let Some(lease) = record.lease() {
        #[cfg(test)]
        guards::leave_lease(&lease.id, job);
        if lease.is_claim() {
            claimer = Some(lease.worker.clone());
        } else {
            draft.effect(Effect::Revoke {
                worker: lease.worker.clone(),
                lease: lease.id.clone(),
                why: match why {
                    EndReason::Cancelled => RevokeWhy::Cancelled,
                    EndReason::Replaced => RevokeWhy::Replaced,
                    EndReason::Deleted => RevokeWhy::Deleted,
                },
            });
        }
    }
    draft.effect(Effect::Wake);

    // A rerun that is let go leaves the result that it was to replace.
    if why != EndReason::Deleted
        && let Some(outcome) = record.previous.take()
    {
        if let Some(run) = record.run.take().filter(|run| outcome.run() != Some(run)) {
            draft.effect(Effect::DropRun(run));
        }
        // The lines of a shared answer are another queue's.
        record.run = outcome.run().filter(|_| !outcome.is_shared()).cloned().into();
        record.time = outcome.time;
        if !outcome.is_shared() {
            draft.effect(Effect::Share(job.clone()));
            draft.share_later(job);
        }
        record.phase = Phase::Done(outcome);
        record.listed_until = now.plus_millis(LISTED);
        draft.look_at(job, record.listed_until);
        draft.look_at(job, record.listed_until.plus_millis(KEPT));
        return;
    }

    if why == EndReason::Deleted {
        forget_documents(draft, job, record);
        record.own_only = true;
        draft.effect(Effect::ClearCache {
            job: job.clone(),
            namespace: namespace.cloned().unwrap_or_default(),
        });
    }
    record.phase =
        Phase::LetGo(Box::new(LetGo { why, message: message.map(str::to_owned), worker: claimer }));
    record.time = now;
    draft.effect(Effect::Ended(job.clone()));
    draft.look_at(job, now.plus_millis(KEPT));
}

/// All that this queue keeps of the job's runs goes; what other queues keep stays.
fn forget_documents<V: View>(draft: &mut Draft<'_, V>, job: &JobId, record: &mut Record) {
    let outcomes: Vec<Outcome> =
        [record.previous.take().map(|previous| *previous), record.outcome().cloned()]
            .into_iter()
            .flatten()
            .collect();
    // The documents of a shared answer are another queue's.
    let (shared, own): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.is_shared());
    let shared: Vec<&LeaseId> = shared.into_iter().filter_map(Outcome::run).collect();
    for outcome in own {
        if let Some(run) = outcome.run() {
            draft.unshare(job, run);
            draft.effect(Effect::DropRun(run.clone()));
        }
        if record.run.as_ref() == outcome.run() {
            record.run = None.into();
        }
    }
    if let Some(run) = record.run.take().filter(|run| !shared.contains(&run)) {
        draft.effect(Effect::DropRun(run));
    }
}

/// The queue never had the job, or has forgotten it: from now on only a run of its own answers here.
fn mark_deleted<V: View>(draft: &mut Draft<'_, V>, job: &JobId) -> Result<(), Need> {
    let now = draft.now;
    draft.put_record(
        job,
        Record {
            queued_time: now,
            time: now,
            phase: Phase::LetGo(Box::new(LetGo { why: EndReason::Deleted, message: None, worker: None })),
            previous: None,
            holders: Holders::default(),
            verified: false,
            debug: None,
            tags: None,
            requirements: None,
            needs: Rare::default(),
            attempt: 0,
            losses: 0,
            run: Rare::default(),
            listed_until: now,
            calls: Rare::default(),
            own_only: true,
        },
    )?;
    draft.effect(Effect::Changed(job.clone()));
    draft.look_at(job, now.plus_millis(KEPT));
    Ok(())
}
