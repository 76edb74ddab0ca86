//! What the relay says becomes what is known (`metaframe` 5.4, `relay-protocol` 3.8, 3.13).
//!
//! Messages are applied strictly in order; none waits for a fetch. The old way (full lists, `QueryJob`, endings
//! that must be guessed) and watching meet in [`State::hear`]: one word about the wanted job.

use std::collections::BTreeMap;

use dockframe_shared::job::{FinishReason, JobObject, StateName};
use dockframe_shared::protocol::{
    ClientMessage, Jobs, LogKind, LogLines, RelayMessage, Table, Watch, WatchedJobs,
};

use super::connection::{PING_MS, PONG_MS, STABLE_MS, Speech};
use super::job_view::{Ending, PendingWhat, ResultState, Word};
use super::submit::Wish;
use super::{Effect, Moment, State, Timer};

/// The old way's query is sent this long after it was wanted.
const QUERY_MS: i64 = 200;

impl State {
    pub(super) fn socket_opened(&mut self, effects: &mut Vec<Effect>) {
        self.connection.opened();
        effects.push(Effect::Set(Timer::Attempt, None));
        effects.push(Effect::Set(Timer::Stable, Some(STABLE_MS)));
        self.ping(effects);
    }

    pub(super) fn ping(&self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Send("PING".to_owned()));
        effects.push(Effect::Set(Timer::Ping, None));
        effects.push(Effect::Set(Timer::Pong, Some(PONG_MS)));
    }

    pub(super) fn socket_lost(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let pause = self.connection.lost(moment.now, moment.random);
        for timer in [Timer::Attempt, Timer::Ping, Timer::Pong, Timer::Stable, Timer::Query] {
            effects.push(Effect::Set(timer, None));
        }
        effects.push(Effect::Disconnect);
        effects.push(Effect::Set(Timer::Reconnect, Some(pause)));
    }

    pub(super) fn frame(&mut self, text: &str, moment: Moment, effects: &mut Vec<Effect>) {
        // What cannot be read costs only itself.
        let Ok(message) = RelayMessage::read_as_client(text) else { return };
        if let RelayMessage::Pong(_) = message {
            effects.push(Effect::Set(Timer::Pong, None));
            effects.push(Effect::Set(Timer::Ping, Some(PING_MS)));
            return;
        }
        if let RelayMessage::ClientHello(hello) = message {
            self.connection.heard(Speech::Watch(hello));
            self.begin_speaking(effects);
            return;
        }
        if matches!(self.connection.phase, super::connection::Phase::Open(Speech::Unheard)) {
            self.connection.heard(Speech::Old { listed: false });
        }
        match message {
            RelayMessage::QueueSummary(summary) => self.summary = Some(summary),
            RelayMessage::Workers(workers) => self.workers = Some(workers.workers),
            RelayMessage::JobStatusPayload(lines) => self.log_lines(&lines, moment, effects),
            RelayMessage::JobStateUpdates(update) => self.updates(update, moment, effects),
            RelayMessage::JobStates(jobs) => self.full_list(jobs, moment, effects),
            RelayMessage::Done(done) => self.done(&done),
            _ => {}
        }
    }

    /// From here on the page may speak: it names its job, then sends what was kept.
    fn begin_speaking(&mut self, effects: &mut Vec<Effect>) {
        self.job.awaits_word = true;
        self.watch(effects);
        self.flush(effects);
    }

    /// Names the wanted job, with the numbers of the lines already held.
    pub(super) fn watch(&self, effects: &mut Vec<Effect>) {
        if !self.connection.watches() {
            return;
        }
        let job = self.current().map(|wanted| (wanted.id.clone(), self.log.cursors()));
        let mut jobs = BTreeMap::new();
        jobs.extend(job);
        let watch = Watch { jobs, workers: self.shows_queue.then_some(true), reference: None };
        effects.extend(serde_json::to_string(&ClientMessage::Watch(watch)).ok().map(Effect::Send));
    }

    /// Asks an old relay for the wanted job, collected like submissions.
    pub(super) fn query_later(&self, effects: &mut Vec<Effect>) {
        if self.connection.may_speak() && !self.connection.watches() {
            effects.push(Effect::Set(Timer::Query, Some(QUERY_MS)));
        }
    }

    pub(super) fn query(&self, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current() else { return };
        if self.connection.may_speak() && !self.connection.watches() {
            let message = ClientMessage::QueryJob { job_id: wanted.id.clone() };
            effects.extend(serde_json::to_string(&message).ok().map(Effect::Send));
        }
    }

    fn updates(&mut self, update: WatchedJobs, moment: Moment, effects: &mut Vec<Effect>) {
        let WatchedJobs { state: Table { mut jobs }, .. } = update;
        let Some(id) = self.current().map(|wanted| wanted.id.clone()) else {
            for (id, job) in jobs {
                match job {
                    Some(job) => self.listed_early.insert(id, job),
                    None => self.listed_early.remove(&id),
                };
            }
            return;
        };
        let is_empty = jobs.is_empty();
        match jobs.remove(&id) {
            Some(Some(job)) => self.hear(Word::Known(Box::new(job)), moment, effects),
            Some(None) => self.hear(Word::Unknown, moment, effects),
            // The old way: an ending without result, or the answer to a query for an unknown job.
            None if is_empty && !self.connection.watches() => self.hear(Word::Unknown, moment, effects),
            None => {}
        }
    }

    fn full_list(&mut self, jobs: Jobs, moment: Moment, effects: &mut Vec<Effect>) {
        let is_first = matches!(
            self.connection.phase,
            super::connection::Phase::Open(Speech::Old { listed: false } | Speech::Unheard)
        );
        self.summarise(&jobs.state.jobs);
        if is_first {
            self.connection.heard(Speech::Old { listed: true });
            self.job.awaits_word = true;
        }
        let Jobs { state: Table { mut jobs }, .. } = jobs;
        let Some(id) = self.current().map(|wanted| wanted.id.clone()) else {
            self.listed_early = jobs;
            self.flush(effects);
            return;
        };
        match jobs.remove(&id) {
            Some(job) => {
                self.job.is_listed = true;
                self.hear(Word::Known(Box::new(job)), moment, effects);
            }
            // A finished job leaves the lists and still answers: ask before anything is believed.
            None if is_first || self.job.is_listed => {
                self.job.is_listed = false;
                self.query(effects);
            }
            None => {}
        }
        self.flush(effects);
    }

    /// There is a job to look for now: an old relay may have listed it before the host had answered.
    pub(super) fn hear_early(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let mut early = std::mem::take(&mut self.listed_early);
        let known = self.current().and_then(|wanted| early.remove(&wanted.id));
        if let Some(job) = known.filter(|_| self.connection.may_speak()) {
            self.job.is_listed = true;
            self.hear(Word::Known(Box::new(job)), moment, effects);
        }
    }

    /// An old relay's list says what a watching one says by `QueueSummary`.
    fn summarise(&mut self, jobs: &BTreeMap<dockframe_shared::JobId, JobObject>) {
        let count = |state| jobs.values().filter(|job| job.state == state).count() as u64;
        let mut summary = self.summary.unwrap_or_default();
        summary.queued = count(StateName::Queued);
        summary.running = count(StateName::Running);
        self.summary = Some(summary);
    }

    /// The relay's newest word about the wanted job.
    fn hear(&mut self, word: Word, moment: Moment, effects: &mut Vec<Effect>) {
        if let (Word::Known(new), Some(held)) = (&word, self.job.object()) {
            let is_older = !self.job.awaits_word
                && matches!((new.revision, held.revision), (Some(new), Some(held)) if new < held);
            if is_older {
                return;
            }
        }
        let before = std::mem::replace(&mut self.job.word, word);
        let is_first_word = std::mem::take(&mut self.job.awaits_word);
        match self.job.word.clone() {
            Word::Known(job) => match job.state {
                StateName::Queued | StateName::Running => self.hear_live(&before, &job, moment, effects),
                StateName::Finished => self.hear_finished(&before, &job, moment, effects),
                StateName::Removed => self.hear_ended(&before, None, effects),
            },
            Word::Unknown => self.hear_ended(&before, None, effects),
            Word::Silent => {}
        }
        if is_first_word {
            self.start_after_reconnect(moment, effects);
        }
    }

    fn hear_live(&mut self, before: &Word, job: &JobObject, moment: Moment, effects: &mut Vec<Effect>) {
        self.settle_kept(None, effects);
        let was_over = !matches!(self.job.result, ResultState::None)
            || self.job.ending.is_some()
            || matches!(before, Word::Known(held) if held.state == StateName::Finished);
        if was_over {
            // A new run: what was shown belongs to the former one.
            self.log.clear();
            self.job.attempt = None;
            effects.push(Effect::LogChanged);
        }
        self.job.saw_run = true;
        self.job.result = ResultState::None;
        effects.push(Effect::Set(Timer::Result, None));
        self.job.ending = None;
        let was_running = matches!(before, Word::Known(held) if held.state == StateName::Running);
        match job.state {
            StateName::Queued => self.job.was_lost = self.job.was_lost || (was_running && !was_over),
            _ => self.job.was_lost = false,
        }
        if !matches!(before, Word::Known(held) if held.state == StateName::Running && held.attempt == job.attempt)
        {
            self.job.build_step = None;
        }
        if let Some(attempt) = job.attempt.filter(|_| job.state == StateName::Running) {
            if self.job.attempt.is_some_and(|shown| shown != attempt) {
                // Lines of another run are numbered from 0 again.
                let had_lines = self.log.cursors()
                    != dockframe_shared::protocol::LogCursors { build: Some(0), run: Some(0) };
                self.log.restart_numbering(&crate::text::next_attempt(attempt), moment.now);
                effects.push(Effect::LogChanged);
                if had_lines {
                    self.watch(effects);
                }
            }
            self.job.attempt = Some(attempt);
        }
        self.confirm(job, effects);
    }

    fn hear_finished(&mut self, before: &Word, job: &JobObject, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(reason) = job.finished_reason else { return };
        if reason.as_result().is_none() {
            self.hear_ended(before, Some(reason), effects);
            return;
        }
        self.settle_kept(Some(job.time), effects);
        // It was not there before: a run so short that only its end was told.
        self.job.saw_run = self.job.saw_run || *before == Word::Unknown;
        self.job.ending = None;
        self.job.was_lost = false;
        self.job.build_step = None;
        let is_stop = self.job.pending.is_some_and(|pending| pending.what == PendingWhat::Stop);
        if is_stop {
            self.end_pending(effects);
        }
        let is_same = match &self.job.result {
            ResultState::Loaded(finish) => finish.time == job.time,
            ResultState::Loading { time, .. } => *time == job.time,
            ResultState::None => false,
        };
        if !is_same {
            let is_another = self.job.finish().is_some();
            if is_another {
                self.log.clear();
                effects.push(Effect::LogChanged);
            }
            self.job.result =
                ResultState::Loading { time: job.time, since: moment.now, failures: 0, why: None };
            self.fetch_result(effects);
        }
        if !is_same {
            effects.push(Effect::Set(Timer::Rerun, None));
        }
    }

    /// The job is neither live nor finished with a result.
    fn hear_ended(&mut self, before: &Word, reason: Option<FinishReason>, effects: &mut Vec<Effect>) {
        self.settle_kept(None, effects);
        let was_live = matches!(before, Word::Known(held)
            if matches!(held.state, StateName::Queued | StateName::Running));
        let pending = self.job.pending.map(|pending| pending.what);
        let ending = match (pending, reason) {
            (Some(PendingWhat::Stop), _) => Some(Ending::StoppedHere),
            (Some(PendingWhat::Delete), _) => Some(Ending::DeletedHere),
            (None, Some(reason)) => match self.job.ending {
                Some(mine @ (Ending::StoppedHere | Ending::DeletedHere)) => Some(mine),
                _ => Some(Ending::Elsewhere(Some(reason))),
            },
            (None, None) if was_live => Some(Ending::Elsewhere(None)),
            (None, None) => self.job.ending,
        };
        let had_result = !matches!(self.job.result, ResultState::None);
        if pending == Some(PendingWhat::Delete) || (had_result && reason.is_none()) {
            self.log.clear();
            effects.push(Effect::LogChanged);
        }
        self.job.ending = ending;
        self.job.result = ResultState::None;
        self.job.was_lost = false;
        self.job.build_step = None;
        effects.push(Effect::Set(Timer::Result, None));
        self.end_pending(effects);
    }

    /// A stop is confirmed when the own namespace is gone, though others may hold the job.
    fn confirm(&mut self, job: &JobObject, effects: &mut Vec<Effect>) {
        let Some(pending) = self.job.pending else { return };
        let own = self.current().map(|wanted| wanted.control.namespace()).unwrap_or_default();
        let holds_own = job.namespaces.as_ref().is_none_or(|names| names.contains(&own));
        match pending.what {
            PendingWhat::Stop if !holds_own => {
                self.job.held_by_others = true;
                self.end_pending(effects);
            }
            PendingWhat::Delete if job.state == StateName::Queued || !holds_own => {
                self.job.held_by_others = !holds_own;
                self.end_pending(effects);
            }
            PendingWhat::Stop | PendingWhat::Delete => {}
        }
    }

    fn end_pending(&mut self, effects: &mut Vec<Effect>) {
        if self.job.pending.take().is_some() {
            effects.push(Effect::Set(Timer::Confirm, None));
        }
    }

    /// With `autostart` a reconnect submits, unless the relay has the job, somebody ended it, or the user did.
    fn start_after_reconnect(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current().cloned() else { return };
        let own = wanted.control.namespace();
        let is_held = self.job.object().is_some_and(|job| match job.state {
            StateName::Queued | StateName::Running => {
                job.namespaces.as_ref().is_none_or(|names| names.contains(&own))
            }
            // With a result, or ended by somebody: an ending starts nothing.
            StateName::Finished | StateName::Removed => true,
        });
        // The answer to a question that went before the submission does not know of it.
        let is_on_its_way = self.submitted.as_ref() == Some(&(self.connection.socket, wanted.id.clone()));
        let may_start = self.starts_by_itself(&wanted.id)
            && !is_held
            && !is_on_its_way
            && !self.is_submitting()
            && self.job.pending.is_none();
        if may_start {
            self.wish(Wish { rerun: None }, moment, effects);
        }
    }

    fn log_lines(&mut self, lines: &LogLines, moment: Moment, effects: &mut Vec<Effect>) {
        if self.current().is_none_or(|wanted| wanted.id != lines.job_id) {
            return;
        }
        // The result's log is the whole one; what still comes was in it.
        if self.job.finish().is_some() && lines.step.kind() == LogKind::Run {
            return;
        }
        match lines.step.kind() {
            LogKind::Build => self.job.build_step = Some(lines.step.clone()),
            LogKind::Run => self.job.build_step = None,
        }
        if self.log.append(lines, moment.now) {
            effects.push(Effect::LogChanged);
        }
    }
}
