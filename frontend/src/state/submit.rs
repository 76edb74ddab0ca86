//! From "it shall run" to the messages on the socket: wishes wait for uploads and the clock, messages for the
//! socket and for the relay's `Done` (`metaframe` 5.4, 5.6; `relay-protocol` 3.13).

use dockframe_shared::job::{Control, Enqueued, FinishReason, Finished, Rerun, StateName};
use dockframe_shared::protocol::{Change, ClientMessage, Done, StateChange};
use dockframe_shared::{JobId, Namespace, NamespaceSelector, Timestamp};

use super::job_view::{Ending, Pending, PendingWhat, Word};
use super::{Effect, Moment, State, Timer};

/// Wait for a stop or delete to be confirmed.
const CONFIRM_MS: i64 = 15_000;
/// Wait for a rerun to show before the old way is taken.
const RERUN_MS: i64 = 5_000;

/// The wanted job shall be submitted as soon as it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) rerun: Option<Timestamp>,
}

/// A change that the relay has not acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    reference: String,
    job: JobId,
    change: Change,
    /// The socket it was sent on; on another one it is sent again, with the same reference.
    socket: Option<u64>,
}

impl Outgoing {
    pub(super) fn is_submission(&self) -> bool {
        matches!(self.change, Change::Queued { .. })
    }
}

impl State {
    /// Wants the current job submitted after the clock's wait.
    pub(super) fn wish(&mut self, wish: Wish, moment: Moment, effects: &mut Vec<Effect>) {
        self.wish = Some(wish);
        let due = self.clock.trigger(moment.now);
        effects.push(Effect::Set(Timer::Submit, Some(due)));
    }

    /// The user's wish does not wait for a burst to end.
    pub(super) fn wish_now(&mut self, wish: Wish, moment: Moment, effects: &mut Vec<Effect>) {
        self.wish = Some(wish);
        self.fulfil(moment, effects);
    }

    /// Turns the wish into a message if nothing stands in its way.
    pub(super) fn fulfil(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        self.clock.done();
        let (Some(wish), Some(wanted)) = (self.wish, self.current().cloned()) else {
            self.wish = None;
            return;
        };
        if !self.handshake.is_over() || !wanted.is_uploaded(&self.uploads) {
            return;
        }
        self.wish = None;
        effects.push(Effect::Set(Timer::Submit, None));
        let mut control = wanted.control.clone();
        if let Some(time) = wish.rerun {
            control.rerun = Some(Rerun::Of(time));
            effects.push(Effect::Set(Timer::Rerun, Some(RERUN_MS)));
        }
        self.submit(control, moment, effects);
    }

    fn submit(&mut self, control: Control, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current().cloned() else { return };
        if self.stopped.remove(&wanted.id) {
            effects.push(Effect::RememberStop(wanted.id.clone(), false));
        }
        self.job.refused = None;
        self.job.held_by_others = false;
        let enqueued = Enqueued {
            id: wanted.id.clone(),
            definition: Some(wanted.definition.clone()),
            control: Some(control),
            debug: wanted.debug.then_some(true),
        };
        let change = Change::Queued { time: moment.now, enqueued: Box::new(enqueued) };
        // A newer submission of the same job says all that an unsent older one does.
        self.outbox.retain(|outgoing| !outgoing.is_submission());
        self.send(wanted.id.clone(), change, effects);
    }

    fn send(&mut self, job: JobId, change: Change, effects: &mut Vec<Effect>) {
        self.references += 1;
        let reference = format!("{}-{}", self.place.nonce, self.references);
        self.outbox.push(Outgoing { reference, job, change, socket: None });
        self.flush(effects);
    }

    /// Sends what was not yet sent on this socket, in order.
    pub(super) fn flush(&mut self, effects: &mut Vec<Effect>) {
        if !self.connection.may_speak() {
            return;
        }
        let socket = self.connection.socket;
        let watches = self.connection.watches();
        for outgoing in self.outbox.iter_mut().filter(|outgoing| outgoing.socket != Some(socket)) {
            outgoing.socket = Some(socket);
            if outgoing.is_submission() {
                self.submitted = Some((socket, outgoing.job.clone()));
            }
            let message = ClientMessage::StateChange(StateChange {
                job: outgoing.job.clone(),
                tag: String::new(),
                change: outgoing.change.clone(),
                reference: watches.then(|| outgoing.reference.clone()),
            });
            effects.extend(serde_json::to_string(&message).ok().map(Effect::Send));
        }
        // An old relay acknowledges nothing.
        if !watches {
            self.outbox.clear();
        }
    }

    pub(super) fn done(&mut self, done: &Done) {
        let Some(reference) = &done.reference else { return };
        let Some(index) = self.outbox.iter().position(|outgoing| outgoing.reference == *reference) else {
            return;
        };
        let outgoing = self.outbox.remove(index);
        let is_current = self.current().is_some_and(|wanted| wanted.id == outgoing.job);
        if let Some(problem) = done.error.as_ref().filter(|_| is_current) {
            self.job.refused = Some(problem.clone());
            self.job.pending = None;
        }
    }

    /// *Stop* and *Delete*: the user lets go of the current job.
    pub(super) fn let_go(&mut self, what: PendingWhat, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current().cloned() else { return };
        self.wish = None;
        self.clock.done();
        effects.push(Effect::Set(Timer::Submit, None));
        // What was not sent yet need not be taken back.
        let unsent = self.outbox.iter().any(|outgoing| outgoing.is_submission() && outgoing.socket.is_none());
        // What was sent went before this on the same socket; should that break, it need not be said again.
        self.outbox.retain(|outgoing| !outgoing.is_submission());
        let reason = match what {
            PendingWhat::Stop => FinishReason::Cancelled,
            PendingWhat::Delete => FinishReason::Deleted,
        };
        if what == PendingWhat::Stop {
            self.stopped.insert(wanted.id.clone());
            effects.push(Effect::RememberStop(wanted.id.clone(), true));
            if unsent && !self.job.is_live() {
                self.job.ending = Some(Ending::StoppedHere);
                return;
            }
        }
        self.job.refused = None;
        let namespace = wanted.control.namespace();
        self.send(wanted.id.clone(), ending(reason, namespace, moment.now), effects);
        self.job.pending = Some(Pending { what, since: moment.now, is_late: false });
        effects.push(Effect::Set(Timer::Confirm, Some(CONFIRM_MS)));
        if what == PendingWhat::Delete {
            self.sent = None;
            if self.address.settings.autostart {
                // On the same socket, after the deletion.
                self.submit(wanted.control.clone(), moment, effects);
            }
        }
    }

    /// Ends another job of the queue.
    pub(super) fn cancel(&mut self, job: JobId, everybody: bool, moment: Moment, effects: &mut Vec<Effect>) {
        if self.current().is_some_and(|wanted| wanted.id == job) && !everybody {
            self.let_go(PendingWhat::Stop, moment, effects);
            return;
        }
        let own = self.address.settings.control.namespace();
        let mut change = ending(FinishReason::Cancelled, own, moment.now);
        if let Change::Finished(finished) = &mut change
            && everybody
        {
            finished.namespace = Some(NamespaceSelector::All);
        }
        self.send(job, change, effects);
    }

    /// *Run again* did not show in time: the relay does not know reruns, and Deleted and Queued do the same.
    pub(super) fn rerun_the_old_way(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current().cloned() else { return };
        let Word::Known(job) = &self.job.word else { return };
        let still_stands = job.state == StateName::Finished
            && self.job.finish().is_some_and(|finish| finish.time == job.time);
        if !still_stands || !self.connection.may_speak() || self.outbox.iter().any(Outgoing::is_submission) {
            return;
        }
        let deletion = ending(FinishReason::Deleted, wanted.control.namespace(), moment.now);
        self.send(wanted.id.clone(), deletion, effects);
        self.submit(wanted.control.clone(), moment, effects);
    }

    /// Another job is wanted: what was meant for the former one is dropped, unless it is already on its way.
    pub(super) fn drop_intentions(&mut self, effects: &mut Vec<Effect>) {
        self.wish = None;
        self.outbox.retain(|outgoing| outgoing.socket.is_some() && !outgoing.is_submission());
        for timer in [Timer::Submit, Timer::Confirm, Timer::Rerun, Timer::Result] {
            effects.push(Effect::Set(timer, None));
        }
    }
}

fn ending(reason: FinishReason, namespace: Namespace, now: Timestamp) -> Change {
    let mut finished = Finished::new(reason, now);
    finished.namespace = Some(NamespaceSelector::One(namespace));
    if reason == FinishReason::Cancelled {
        finished.message = Some("Job cancelled by client".to_owned());
    }
    Change::Finished(Box::new(finished))
}
