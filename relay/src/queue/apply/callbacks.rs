//! Callbacks that are owed: kept in the record until they were made (`jobs-and-states` 7).
//!
//! One is open for each (namespace, kind); a newer submission replaces it. They outlive the job's end: a receiver
//! hears of a cancelled job's queueing too, and of its end.

use dockframe_shared::job::FinishReason;
use dockframe_shared::{JobId, Namespace};

use super::draft::Draft;
use crate::queue::command::{Called, DueKind, Effect, Reply};
use crate::queue::record::{CallbackKind, Hook, OpenCallback, Record};
use crate::queue::timing::{CALLBACK_GIVEN_UP, callback_delay};
use crate::queue::view::{Need, View};

/// From now on the callback is owed.
pub(super) fn owe<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    namespace: &Namespace,
    kind: CallbackKind,
    hook: &Hook,
) {
    let same = |open: &OpenCallback| open.namespace == *namespace && open.kind.same(&kind);
    record.callbacks.retain(|open| !same(open));
    record.callbacks.push(OpenCallback {
        namespace: namespace.clone(),
        kind,
        hook: hook.clone(),
        since: draft.now,
        tries: 0,
        next: draft.now,
    });
    draft.effect(Effect::Callbacks(job.clone()));
    // The effect makes it at once; this is for a process that dies before.
    draft.due(job, DueKind::Callbacks, draft.now.plus_millis(callback_delay(0)));
}

/// The job ended for these namespaces: each that wants to hear of it does, once.
pub(super) fn owe_ends<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    namespaces: &[Namespace],
    reason: FinishReason,
) {
    for namespace in namespaces {
        let hook = record.holders.get_mut(namespace).and_then(|holder| holder.finished_callback.take());
        if let Some(hook) = hook {
            owe(draft, job, record, namespace, CallbackKind::Finished { reason }, &hook);
        }
    }
}

/// A callback was tried.
pub(super) fn called<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    namespace: &Namespace,
    kind: &CallbackKind,
    outcome: Called,
) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Unknown) };
    let now = draft.now;
    let found = record.callbacks.iter().position(|open| open.namespace == *namespace && open.kind.same(kind));
    let Some(at) = found else { return Ok(Reply::Nothing) };
    let open = &mut record.callbacks[at];
    let gives_up = match outcome {
        Called::Made | Called::Refused => true,
        Called::Again => now.since(open.since) >= CALLBACK_GIVEN_UP,
    };
    if gives_up {
        record.callbacks.remove(at);
    } else {
        open.tries += 1;
        open.next = now.plus_millis(callback_delay(open.tries));
        let next = open.next;
        draft.due(job, DueKind::Callbacks, next);
    }
    let revision = draft.revision(job)?;
    draft.put_record(job, record)?;
    Ok(Reply::Done { revision })
}
