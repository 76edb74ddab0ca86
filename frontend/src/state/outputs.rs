//! The result is fetched, then its outputs go to the host, once (`metaframe` 5.8).

use std::rc::Rc;

use dockframe_shared::metaframe::outputs::{Outputs, RESULT_OUTPUT, outputs};
use dockframe_shared::{JobId, Timestamp};

use super::address::Address;
use super::job_view::{Finish, ResultState, Word};
use super::wanted::Wanted;
use super::{Effect, State, Timer};

/// First pause before a result is asked for again; doubled up to the longest.
const FIRST_PAUSE_MS: i64 = 200;
const LONGEST_PAUSE_MS: i64 = 10_000;
/// From here on the page says that the result cannot be loaded, and why.
pub const LATE_MS: i64 = 30_000;

impl State {
    /// Asks for the result that is being loaded.
    pub(super) fn fetch_result(&self, effects: &mut Vec<Effect>) {
        let (Some(wanted), ResultState::Loading { time, .. }) = (self.current(), &self.job.result) else {
            return;
        };
        let url = wanted.queue.result(&wanted.id);
        effects.push(Effect::FetchResult { job: wanted.id.clone(), time: *time, url });
    }

    pub(super) fn result_loaded(
        &mut self,
        job: &JobId,
        asked: Timestamp,
        text: String,
        outcome: Result<Box<Finish>, String>,
        effects: &mut Vec<Effect>,
    ) {
        // For a job, or a result, that is no longer the current one.
        if self.current().is_none_or(|wanted| wanted.id != *job) {
            return;
        }
        let ResultState::Loading { time, since, failures, .. } = self.job.result.clone() else { return };
        if time != asked {
            return;
        }
        match outcome {
            Ok(finish) => {
                if let Some(wanted) = self.current() {
                    effects.push(Effect::Keep { key: wanted.kept_key(), text: Some(text) });
                }
                self.job.kept = None;
                self.log.settle(&finish.result.logs);
                // The relay's word names the result; the document may carry its worker's clock.
                self.job.result = ResultState::Loaded(Rc::new(Finish { time, ..*finish }));
                effects.push(Effect::Set(Timer::Result, None));
                effects.push(Effect::LogChanged);
                self.send_outputs(effects);
            }
            Err(why) => {
                let pause = FIRST_PAUSE_MS.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE_MS);
                self.job.result =
                    ResultState::Loading { time, since, failures: failures + 1, why: Some(why) };
                effects.push(Effect::Set(Timer::Result, Some(pause)));
            }
        }
    }

    /// A result of an earlier visit counts until the relay has spoken (`metaframe` 5.12).
    pub(super) fn kept_loaded(&mut self, job: &JobId, text: &str, effects: &mut Vec<Effect>) {
        let is_wanted = self.current().is_some_and(|wanted| wanted.id == *job);
        let is_silent = self.job.word == Word::Silent && matches!(self.job.result, ResultState::None);
        if !is_wanted || !is_silent || self.is_submitting() && self.connection.may_speak() {
            return;
        }
        if let Ok(finish) = super::job_view::read_result(text) {
            self.log.settle(&finish.result.logs);
            self.job.kept = Some(Rc::new(finish));
            effects.push(Effect::LogChanged);
        }
    }

    /// The relay has spoken: a kept result of the same time is the result, any other is dropped.
    pub(super) fn settle_kept(&mut self, time: Option<Timestamp>, effects: &mut Vec<Effect>) {
        let Some(kept) = self.job.kept.take() else { return };
        if time == Some(kept.time) {
            self.job.result = ResultState::Loaded(kept);
            self.send_outputs(effects);
            return;
        }
        self.log.clear();
        effects.push(Effect::LogChanged);
        if let Some(wanted) = self.current() {
            effects.push(Effect::Keep { key: wanted.kept_key(), text: None });
        }
    }

    /// Sends the outputs of the shown result unless that was done.
    pub(super) fn send_outputs(&mut self, effects: &mut Vec<Effect>) {
        let (Some(wanted), Some(finish)) = (self.current().cloned(), self.job.finish().cloned()) else {
            return;
        };
        if !self.handshake.has_host() {
            return;
        }
        let mark = (wanted.id.clone(), finish.time);
        if self.sent.as_ref() == Some(&mark) {
            return;
        }
        self.sent = Some(mark);
        let outputs = self.outputs_of(&wanted, &finish);
        self.deliver(outputs, finish.time, effects);
    }

    /// `allowsetjob` or `resolverefs` was switched on: what that changes is sent at once.
    pub(super) fn resend_outputs(&mut self, before: &Address, effects: &mut Vec<Effect>) {
        let (Some(wanted), Some(finish)) = (self.current().cloned(), self.job.finish().cloned()) else {
            return;
        };
        if self.sent.as_ref() != Some(&(wanted.id.clone(), finish.time)) || !self.handshake.has_host() {
            return;
        }
        let resolves = self.address.settings.resolve_refs && !before.settings.resolve_refs;
        let tells = self.address.settings.allow_set_job && !before.settings.allow_set_job;
        let mut outputs = self.outputs_of(&wanted, &finish);
        outputs.ready.retain(|(name, _)| if name == RESULT_OUTPUT { tells } else { resolves });
        if !resolves {
            outputs.fetch.clear();
        }
        if !(outputs.ready.is_empty() && outputs.fetch.is_empty()) {
            self.deliver(outputs, finish.time, effects);
        }
    }

    fn outputs_of(&self, wanted: &Wanted, finish: &Finish) -> Outputs {
        let settings = &self.address.settings;
        outputs(finish.reason.into(), Some(&finish.raw), &wanted.queue, &wanted.id, settings)
            .unwrap_or_default()
    }

    fn deliver(&self, outputs: Outputs, time: Timestamp, effects: &mut Vec<Effect>) {
        let Some(wanted) = self.current() else { return };
        effects.push(if outputs.fetch.is_empty() {
            Effect::PostOutputs(outputs.ready)
        } else {
            Effect::ResolveOutputs { job: wanted.id.clone(), time, outputs }
        });
    }
}
