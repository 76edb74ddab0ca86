//! What follows from a change that another process committed: the same effects, found by comparing what was with
//! what is. Nothing but records is needed, so a change that nobody told of has its effects as well, once it is read.

use dockframe_shared::JobId;
use dockframe_shared::protocol::RevokeWhy;

use super::command::Effect;
use super::record::{EndReason, Outcome, Phase, Record};

/// The effects on those who are connected here. What concerns documents was done by whoever committed.
pub(crate) fn effects(job: &JobId, before: Option<&Record>, after: Option<&Record>) -> Vec<Effect> {
    let mut effects = vec![Effect::Changed(job.clone())];
    if let Some(lost) = before.and_then(Record::lease).filter(|lease| !lease.is_claim()) {
        let stands = after.and_then(Record::lease).is_some_and(|lease| lease.id == lost.id);
        let recorded = after.and_then(Record::outcome).and_then(Outcome::run) == Some(&lost.id);
        if !stands && !recorded {
            effects.push(Effect::Revoke {
                worker: lost.worker.clone(),
                lease: lost.id.clone(),
                why: why(after),
            });
        }
    }
    match after.map(|record| &record.phase) {
        Some(Phase::LetGo(let_go)) => {
            effects.push(Effect::Ended(job.clone()));
            if let_go.why == EndReason::Deleted {
                let namespace = before.and_then(|before| before.holders.keys().next().cloned());
                let namespace = namespace.unwrap_or_default();
                effects.push(Effect::ClearCache { job: job.clone(), namespace });
            }
        }
        Some(Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_) | Phase::Done(_)) | None => {}
    }
    let waits = after.is_some_and(|record| matches!(record.phase, Phase::Waiting { .. }));
    let had_room = before.is_some_and(|record| record.active_lease().is_some());
    let has_room = after.is_some_and(|record| record.active_lease().is_some());
    if waits || (had_room && !has_room) {
        effects.push(Effect::Wake);
    }
    effects
}

/// Why the lease that was there is not any more.
fn why(after: Option<&Record>) -> RevokeWhy {
    match after.map(|record| &record.phase) {
        Some(Phase::LetGo(let_go)) => match let_go.why {
            EndReason::Cancelled => RevokeWhy::Cancelled,
            EndReason::Replaced => RevokeWhy::Replaced,
            EndReason::Deleted => RevokeWhy::Deleted,
        },
        Some(Phase::Granted(_) | Phase::Held(_)) => RevokeWhy::Superseded,
        Some(Phase::Done(outcome)) if outcome.run().is_none() => RevokeWhy::Deadline,
        Some(Phase::Done(_)) => RevokeWhy::Superseded,
        Some(Phase::Waiting { .. }) | None => RevokeWhy::Unknown,
    }
}
