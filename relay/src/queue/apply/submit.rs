//! Submissions (`jobs-and-states` 3.2, 4).

use dockframe_shared::job::Rerun;
use dockframe_shared::{JobId, Namespace};

use super::calls::{self, Renewal};
use super::draft::Draft;
use super::let_go::replace_in;
use crate::queue::command::{Effect, Reply, Submit};
use crate::queue::holders::Holders;
use crate::queue::record::{Event, Holder, Outcome, Phase, Place, Record};
use crate::queue::timing::{self, KEPT, LISTED};
use crate::queue::view::{Need, View};

pub(super) fn submit<V: View>(draft: &mut Draft<'_, V>, submit: &Submit) -> Result<Reply, Need> {
    let job = &submit.job;
    let mut renewed = false;
    let record = match draft.record(job)? {
        None => fresh(draft, submit, None),
        Some(old) => match &old.phase {
            Phase::LetGo(_) => fresh(draft, submit, Some(&old)),
            Phase::Done(outcome) if wants_rerun(submit.rerun, outcome) => {
                let outcome = outcome.clone();
                renewed = true;
                rerun(draft, job, old, outcome)?
            }
            Phase::Done(_) | Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_) => {
                if is_repeat(draft, submit, &old)? {
                    // Old peers take what they are told of the job as the answer (`relay-protocol` 3.9).
                    draft.effect(Effect::Changed(job.clone()));
                    return Ok(Reply::Done { revision: draft.revision(job)? });
                }
                old
            }
        },
    };
    hold(draft, submit, record, renewed)?;
    Ok(Reply::Done { revision: draft.revision(job)? })
}

/// A job that this queue does not have, or not any more.
fn fresh<V: View>(draft: &mut Draft<'_, V>, submit: &Submit, old: Option<&Record>) -> Record {
    let now = draft.now;
    let own_only = old.is_some_and(|old| old.own_only);
    let answer = submit.shared.as_ref().filter(|_| !own_only);
    let (phase, queued_time, time) = match answer {
        Some(answer) => {
            (Phase::Done(Box::new(answer.outcome.clone())), answer.queued_time, answer.outcome.time)
        }
        None => (Phase::Waiting { expired: None }, now, now),
    };
    Record {
        queued_time,
        time,
        phase,
        previous: None,
        holders: Holders::default(),
        verified: submit.verified,
        debug: submit.debug,
        tags: submit.tags.clone().map(Box::new),
        requirements: submit.requirements.clone().map(Box::new),
        needs: submit.needs.clone().into(),
        attempt: old.map_or(0, |old| old.attempt),
        losses: 0,
        run: old.map(|old| old.run.clone()).unwrap_or_default(),
        listed_until: now,
        calls: old.map(|old| old.calls.clone()).unwrap_or_default(),
        own_only,
    }
}

fn wants_rerun(rerun: Option<Rerun>, outcome: &Outcome) -> bool {
    match rerun {
        None => false,
        Some(Rerun::Any) => true,
        Some(Rerun::Of(time)) => outcome.time == time,
    }
}

/// The job runs again; its result stays readable until the new one is recorded.
fn rerun<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    mut old: Record,
    outcome: Box<Outcome>,
) -> Result<Record, Need> {
    // A job with a result is never replaced; now it is live again, and newer ones of its namespaces count. One that
    // had left the list had left the slots: it comes back as the oldest.
    for (namespace, holder) in old.holders.iter_mut().filter(|(namespace, _)| !namespace.is_default()) {
        let mut slot = draft.slot(namespace)?;
        if !slot.holders.contains_key(job) {
            holder.number = 0;
            slot.holders.insert(job.clone(), Place { number: 0, superseded: None });
        }
        let superseded = slot.supersedes(job);
        if let Some(place) = slot.holders.get_mut(job).filter(|_| superseded) {
            place.superseded = Some(draft.now);
            draft.look_at(job, draft.now);
        }
        draft.put_slot(namespace, slot)?;
    }
    if let (false, Some(run)) = (outcome.is_shared(), outcome.run()) {
        draft.unshare(job, run);
    }
    Ok(Record {
        phase: Phase::Waiting { expired: None },
        previous: Some(outcome),
        queued_time: draft.now,
        time: draft.now,
        losses: 0,
        own_only: true,
        ..old
    })
}

/// Nothing would change but times that nobody would miss: spare the write.
fn is_repeat<V: View>(draft: &Draft<'_, V>, submit: &Submit, record: &Record) -> Result<bool, Need> {
    let Some(held) = record.holders.get(&submit.namespace) else { return Ok(false) };
    let Renewal { holder, finished, .. } = calls::renew(submit, Some(held), record, false);
    let wanted = Holder { number: held.number, since: held.since, ..holder };
    let listed = record.is_going() || record.listed_until.since(draft.now) > LISTED - 5_000;
    if *held != wanted || finished.is_some() || !listed {
        return Ok(false);
    }
    if submit.namespace.is_default() {
        return Ok(true);
    }
    let slot = draft.slot(&submit.namespace)?;
    Ok(held.number == slot.last && slot.holders.contains_key(&submit.job))
}

/// Adds or renews the namespace's hold, and supersedes what it held before.
fn hold<V: View>(
    draft: &mut Draft<'_, V>,
    submit: &Submit,
    mut record: Record,
    renewed: bool,
) -> Result<(), Need> {
    let Submit { job, namespace, .. } = submit;
    let now = draft.now;
    let mut superseded = Vec::new();
    let mut number = 0;
    if !namespace.is_default() {
        let mut slot = draft.slot(namespace)?;
        slot.last += 1;
        number = slot.last;
        slot.holders.insert(job.clone(), Place { number, superseded: None });
        for (other, place) in &mut slot.holders {
            if other == job || place.superseded.is_some() {
                continue;
            }
            place.superseded = Some(now);
            // What is known of the other may be old, and nothing of it is compared when this is committed: its own
            // look decides.
            let delay = draft
                .record(other)?
                .filter(Record::is_going)
                .map_or(0, |older| timing::replacement_delay(now.since(older.queued_time)));
            superseded.push((other.clone(), now.plus_millis(delay)));
        }
        draft.put_slot(namespace, slot)?;
    }

    let held = record.holders.get(namespace);
    let Renewal { holder, queued, finished } = calls::renew(submit, held, &record, renewed);
    record.holders.insert(namespace.clone(), Holder { number, since: now, ..holder });
    if let Some(hook) = queued {
        calls::owe(draft, job, &mut record, namespace, Event::Queued, hook);
    }
    if let Some((event, hook)) = finished {
        calls::owe(draft, job, &mut record, namespace, event, hook);
    }
    match record.phase {
        Phase::Waiting { .. } => draft.effect(Effect::Wake),
        Phase::Done(_) => {
            record.listed_until = now.plus_millis(LISTED);
            draft.look_at(job, record.listed_until);
            draft.look_at(job, record.listed_until.plus_millis(KEPT));
        }
        Phase::Granted(_) | Phase::Held(_) | Phase::LetGo(_) => {}
    }
    draft.put_record(job, record)?;
    draft.effect(Effect::Changed(job.clone()));

    for (other, at) in superseded {
        draft.look_at(&other, at);
        if at <= now {
            replace_in(draft, &other, std::slice::from_ref::<Namespace>(namespace))?;
        }
    }
    Ok(())
}
