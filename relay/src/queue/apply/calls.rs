//! Callbacks that are owed (`jobs-and-states` 7).
//!
//! One is owed by the same commit that makes its event true, and a due entry goes with it: so no crash can lose one.
//! Whoever makes it takes it first, by a commit, and says afterwards what became of it; who took one and is not heard
//! of again is taken for ended. So receivers may hear the same twice, never nothing.

use dockframe_shared::job::FinishReason;
use dockframe_shared::{JobId, LeaseId, Namespace};

use super::draft::Draft;
use crate::limits::MAX_CALLS;
use crate::queue::command::{Called, DueKind, Effect, Reply, Submit};
use crate::queue::record::{Call, Event, Holder, Hook, Phase, Record};
use crate::queue::timing::{CALL_BUSY, CALL_OWED, CALL_TAKEN, call_again};
use crate::queue::view::{Need, View};

/// What a submission makes of its namespace's hold.
pub(super) struct Renewal {
    pub(super) holder: Holder,
    /// To be told at once that the job is queued.
    pub(super) queued: Option<Hook>,
    /// To be told at once how it ended.
    pub(super) finished: Option<(Event, Hook)>,
}

/// `record` is as it was before the namespace held it; `renewed`: the submission runs a finished job again.
pub(super) fn renew(submit: &Submit, held: Option<&Holder>, record: &Record, renewed: bool) -> Renewal {
    let mut holder = submit.holder.clone();
    let queued = submit.queued_callback.clone().filter(|_| held.is_none() || renewed);
    let finished = match &record.phase {
        Phase::Done(outcome) => {
            // Once for each job and namespace: who asks again knows the answer.
            let hook = holder.finished_callback.take();
            let was_told = held.is_some_and(|held| held.told);
            holder.told = was_told || hook.is_some();
            let event = Event::Finished { reason: outcome.reason.into(), run: outcome.run().cloned() };
            hook.filter(|_| !was_told).map(|hook| (event, *hook))
        }
        Phase::Waiting { .. } | Phase::Granted(_) | Phase::Held(_) | Phase::LetGo(_) => {
            // A submission that names no callback takes nobody else's away: a namespace may have several users.
            let before = held.and_then(|held| held.finished_callback.clone());
            holder.finished_callback = holder.finished_callback.or(before);
            None
        }
    };
    Renewal { holder, queued, finished }
}

/// The job has a result, for all that hold it.
pub(super) fn ended<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    reason: FinishReason,
    run: Option<&LeaseId>,
) {
    let mut hooks = Vec::new();
    for (namespace, holder) in record.holders.iter_mut() {
        if let Some(hook) = holder.finished_callback.take() {
            holder.told = true;
            hooks.push((namespace.clone(), hook));
        }
    }
    for (namespace, hook) in hooks {
        let event = Event::Finished { reason, run: run.cloned() };
        owe(draft, job, record, &namespace, event, *hook);
    }
}

/// From now on this is to be told. A newer one of its kind and namespace takes the place of an older.
pub(super) fn owe<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    record: &mut Record,
    namespace: &Namespace,
    event: Event,
    hook: Hook,
) {
    let kind = std::mem::discriminant(&event);
    record.calls.retain(|call| call.namespace != *namespace || std::mem::discriminant(&call.event) != kind);
    if record.calls.len() >= MAX_CALLS {
        record.calls.remove(0);
    }
    let now = draft.now;
    record.calls.push(Call {
        id: draft.new_lease_id().as_str().to_owned(),
        namespace: namespace.clone(),
        event,
        hook,
        since: now,
        attempts: 0,
        next: now,
    });
    draft.effect(Effect::Callbacks(job.clone()));
    draft.due(job, DueKind::Callbacks, now);
}

pub(super) fn take<V: View>(draft: &mut Draft<'_, V>, job: &JobId, at_most: usize) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Nothing) };
    let now = draft.now;
    let mut taken = Vec::new();
    for call in record.calls.iter_mut().filter(|call| call.next <= now).take(at_most) {
        call.attempts += 1;
        call.next = now.plus_millis(CALL_TAKEN);
        taken.push(call.clone());
    }
    let next = record.calls.iter().map(|call| call.next).min();
    if let Some(next) = next {
        draft.due(job, DueKind::Callbacks, next.max(now.plus_millis(CALL_BUSY)));
    }
    if taken.is_empty() {
        return Ok(Reply::Nothing);
    }
    draft.put_record(job, record)?;
    Ok(Reply::Calls(taken))
}

pub(super) fn called<V: View>(
    draft: &mut Draft<'_, V>,
    job: &JobId,
    id: &str,
    outcome: Called,
) -> Result<Reply, Need> {
    let Some(mut record) = draft.record(job)? else { return Ok(Reply::Nothing) };
    // A newer one may have taken its place meanwhile.
    let Some(at) = record.calls.iter().position(|call| call.id == id) else { return Ok(Reply::Nothing) };
    let call = &mut record.calls[at];
    let next = draft.now.plus_millis(call_again(call.attempts));
    let given_up = outcome == Called::Again && next.since(call.since) > CALL_OWED;
    if outcome == Called::Over || given_up {
        record.calls.remove(at);
    } else {
        call.next = next;
        draft.due(job, DueKind::Callbacks, next);
    }
    draft.put_record(job, record)?;
    Ok(if given_up { Reply::GivenUp } else { Reply::Nothing })
}

#[cfg(test)]
mod tests {
    use dockframe_shared::job::Rerun;

    use super::super::testing::*;
    use super::*;
    use crate::queue::command::{Command, Decision};
    use crate::queue::record::EndReason;

    fn hook(text: &str) -> Hook {
        Hook { sealed: text.to_owned() }
    }

    fn with_hooks(job: &str, namespace: &str) -> Submit {
        let mut submit = submission(job, namespace);
        submit.queued_callback = Some(hook("queued"));
        submit.holder.finished_callback = Some(Box::new(hook("finished")));
        submit
    }

    fn tell(queue: &mut Queue, submit: Submit) -> Decision {
        queue.tell(&Command::Submit(Box::new(submit)))
    }

    fn take_all(queue: &mut Queue, job: &str) -> Vec<Call> {
        match queue.tell(&Command::TakeCalls { job: id(job), at_most: 100 }).reply {
            Reply::Calls(calls) => calls,
            _ => Vec::new(),
        }
    }

    fn over(queue: &mut Queue, job: &str, call: &Call, outcome: Called) -> Reply {
        queue.tell(&Command::Called { job: id(job), id: call.id.clone(), outcome }).reply
    }

    /// Takes all that is due, and all of it is heard.
    fn heard(queue: &mut Queue, job: &str) -> Vec<(String, String)> {
        let calls = take_all(queue, job);
        for call in &calls {
            over(queue, job, call, Called::Over);
        }
        let told = |call: Call| {
            let event = match call.event {
                Event::Queued => "Queued".to_owned(),
                Event::Finished { reason, .. } => format!("{reason:?}"),
            };
            (call.namespace.as_str().to_owned(), event)
        };
        calls.into_iter().map(told).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(namespace, event)| ((*namespace).to_owned(), (*event).to_owned())).collect()
    }

    #[test]
    fn what_is_owed_is_committed_with_what_it_tells_of_and_with_a_time() {
        let mut queue = Queue::new();
        let decision = tell(&mut queue, with_hooks("a", "n"));
        assert!(decision.due.iter().any(|due| due.what == DueKind::Callbacks && due.at == queue.now));
        assert!(decision.effects.contains(&Effect::Callbacks(id("a"))));
        assert_eq!(queue.of("a").unwrap().calls.len(), 1);
    }

    #[test]
    fn queued_is_told_to_each_new_namespace_once() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", "n"));
        assert_eq!(heard(&mut queue, "a"), pairs(&[("n", "Queued")]));
        assert!(tell(&mut queue, with_hooks("a", "n")).writes.is_empty(), "a repetition");
        tell(&mut queue, with_hooks("a", "m"));
        assert_eq!(heard(&mut queue, "a"), pairs(&[("m", "Queued")]));
        assert!(queue.of("a").unwrap().calls.is_empty());
    }

    #[test]
    fn an_end_is_told_once_to_each_namespace_and_at_once_to_later_ones() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", "n"));
        tell(&mut queue, with_hooks("a", "m"));
        heard(&mut queue, "a");
        let lease = queue.run("a", "w");
        queue.finish(&lease, "w");
        assert_eq!(heard(&mut queue, "a"), pairs(&[("m", "Success"), ("n", "Success")]));
        tell(&mut queue, with_hooks("a", "n"));
        assert_eq!(heard(&mut queue, "a"), pairs(&[]), "it knows");
        tell(&mut queue, with_hooks("a", "late"));
        assert_eq!(heard(&mut queue, "a"), pairs(&[("late", "Queued"), ("late", "Success")]));
        let kept = queue.of("a").unwrap();
        assert!(kept.holders.values().all(|holder| holder.finished_callback.is_none()));
    }

    #[test]
    fn a_namespace_that_lets_go_hears_why_and_the_others_hear_nothing() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", "n"));
        tell(&mut queue, with_hooks("a", "m"));
        heard(&mut queue, "a");
        queue.let_go("a", EndReason::Cancelled, "n");
        assert_eq!(heard(&mut queue, "a"), pairs(&[("n", "Cancelled")]));
        tell(&mut queue, with_hooks("b", "m"));
        assert_eq!(heard(&mut queue, "a"), pairs(&[("m", "JobReplacedByClient")]));
    }

    #[test]
    fn a_cancelled_jobs_callback_is_still_made_also_when_the_job_comes_back() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", ""));
        queue.let_go("a", EndReason::Cancelled, "*");
        queue.submit("a", "other");
        assert_eq!(heard(&mut queue, "a"), pairs(&[("_", "Queued"), ("_", "Cancelled")]));
    }

    #[test]
    fn a_rerun_is_queued_and_ends_anew() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", "n"));
        let lease = queue.run("a", "w");
        queue.finish(&lease, "w");
        heard(&mut queue, "a");
        tell(&mut queue, Submit { rerun: Some(Rerun::Any), ..with_hooks("a", "n") });
        assert_eq!(heard(&mut queue, "a"), pairs(&[("n", "Queued")]));
        let lease = queue.run("a", "w");
        queue.finish(&lease, "w");
        assert_eq!(heard(&mut queue, "a"), pairs(&[("n", "Success")]));
    }

    #[test]
    fn a_submission_without_callbacks_takes_nobody_elses_away() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", ""));
        queue.submit("a", "");
        let lease = queue.run("a", "w");
        queue.finish(&lease, "w");
        assert_eq!(heard(&mut queue, "a"), pairs(&[("_", "Queued"), ("_", "Success")]));
    }

    #[test]
    fn who_takes_a_callback_has_it_alone_until_it_is_taken_for_ended() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", ""));
        let first = take_all(&mut queue, "a");
        assert_eq!(first.len(), 1);
        assert!(take_all(&mut queue, "a").is_empty());
        queue.now = queue.now.plus_millis(CALL_TAKEN);
        let again = take_all(&mut queue, "a");
        assert_eq!((&again[0].id, again[0].attempts), (&first[0].id, 2));
    }

    #[test]
    fn a_failing_callback_waits_longer_each_time_and_is_given_up_after_a_day() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", ""));
        let start = queue.now;
        let mut waits = Vec::new();
        let end = loop {
            let calls = take_all(&mut queue, "a");
            let reply = over(&mut queue, "a", &calls[0], Called::Again);
            if reply == Reply::GivenUp {
                break queue.now;
            }
            let next = queue.of("a").unwrap().calls[0].next;
            waits.push(next.since(queue.now) / 1_000);
            queue.now = next;
        };
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        assert!((CALL_OWED - 600_000..=CALL_OWED).contains(&end.since(start)));
        assert!(queue.of("a").unwrap().calls.is_empty());
    }

    #[test]
    fn a_newer_callback_of_its_namespace_takes_the_place_of_an_open_one() {
        let mut queue = Queue::new();
        tell(&mut queue, with_hooks("a", "n"));
        let old = take_all(&mut queue, "a");
        queue.let_go("a", EndReason::Cancelled, "n");
        tell(&mut queue, with_hooks("a", "n"));
        over(&mut queue, "a", &old[0], Called::Over);
        assert_eq!(heard(&mut queue, "a"), pairs(&[("n", "Cancelled"), ("n", "Queued")]));
    }

    #[test]
    fn what_is_owed_for_a_job_is_bounded() {
        let mut queue = Queue::new();
        for number in 0..=MAX_CALLS {
            tell(&mut queue, with_hooks("a", &format!("n{number}")));
        }
        assert_eq!(queue.of("a").unwrap().calls.len(), MAX_CALLS);
    }
}
