//! The one door: a message changes the state and says what to do outside.

use std::rc::Rc;

use std::sync::Arc;

use dockframe_shared::metaframe::inputs::{PipeValue, Staged};
use dockframe_shared::metaframe::job_input::{JOB_INPUT, job_from_input};
use serde_json::{Map, Value};

use super::address::Address;
use super::connection::{ATTEMPT_MS, Phase};
use super::handshake::{Handshake, LIMIT_MS};
use super::job_view::{JobView, PendingWhat};
use super::submit::Wish;
use super::wanted::{self, Wanted, WantedError};
use super::{Effect, Intent, Message, Moment, Short, State, Timer};

/// The list of jobs is as old as this at most, while it is shown.
const JOBS_MS: i64 = 3_000;
/// Longest list that is asked for.
const MAX_JOBS: u32 = 100;

/// Applies `message`; returns what is to be done, in this order.
#[must_use]
pub fn reduce(state: &mut State, message: Message, moment: Moment) -> Vec<Effect> {
    let mut effects = Vec::new();
    state.apply(message, moment, &mut effects);
    effects
}

impl State {
    fn apply(&mut self, message: Message, moment: Moment, effects: &mut Vec<Effect>) {
        match message {
            Message::HashChanged { hash } => self.hash_changed(&hash, moment, effects),
            Message::HostAnswered { origin, inputs, stopped } => {
                self.consent.heard_from(origin);
                self.handshake = Handshake::Done;
                let job = inputs.get(JOB_INPUT).cloned();
                self.inputs.clear();
                self.inputs.extend(inputs.into_iter().map(|(name, value)| (name, Staged::from(value))));
                self.stopped.extend(stopped);
                effects.push(Effect::Set(Timer::Handshake, None));
                self.job_input(job, effects);
                self.recompute(moment, effects);
                self.send_outputs(effects);
            }
            Message::InputsUpdated(changes) => self.inputs_updated(changes, moment, effects),
            Message::ShortLoaded(outcome) => {
                self.short = match outcome {
                    Ok(Some(definition)) => {
                        if let Some(Value::Object(files)) = definition.get("configFiles") {
                            effects.push(Effect::FetchShortFiles(files.clone()));
                        }
                        Short::Loaded(definition)
                    }
                    Ok(None) => Short::Failed(crate::text::short_unknown().to_owned()),
                    Err(why) => Short::Failed(why),
                };
                self.recompute(moment, effects);
            }
            Message::ShortFilesLoaded(files) => self.short_files = Some(files),
            Message::SocketOpened { socket } if socket == self.connection.socket => {
                self.socket_opened(effects)
            }
            Message::SocketFrame { socket, text } if socket == self.connection.socket => {
                self.frame(&text, moment, effects);
            }
            Message::SocketClosed { socket } if socket == self.connection.socket => {
                if self.connection.phase != Phase::Off && self.connection.phase != Phase::Lost {
                    self.socket_lost(moment, effects);
                }
            }
            // Of a socket that was given up.
            Message::SocketOpened { .. } | Message::SocketFrame { .. } | Message::SocketClosed { .. } => {}
            Message::Uploaded { url, outcome } => {
                self.uploads.finish(url, outcome);
                self.fulfil(moment, effects);
            }
            Message::ResultLoaded { job, time, text, outcome } => {
                self.result_loaded(&job, time, text, outcome, effects);
            }
            Message::KeptLoaded { job, text } => self.kept_loaded(&job, &text, effects),
            Message::JobsLoaded(outcome) => {
                // A failed look leaves the last list; the connection's state is said elsewhere.
                if let Ok(jobs) = outcome {
                    self.jobs = Some(jobs);
                }
                if self.shows_queue {
                    effects.push(Effect::Set(Timer::Jobs, Some(JOBS_MS)));
                }
            }
            Message::OutputsResolved { job, time, outputs } => {
                let is_current = self.current().is_some_and(|wanted| wanted.id == job)
                    && self.job.finish().is_some_and(|finish| finish.time == time);
                if is_current && self.handshake.has_host() {
                    effects.push(Effect::PostOutputs(outputs));
                }
            }
            Message::TimerFired(timer) => self.timer_fired(timer, moment, effects),
            Message::User(intent) => self.user(intent, moment, effects),
        }
    }

    fn hash_changed(&mut self, hash: &str, moment: Moment, effects: &mut Vec<Effect>) {
        let is_first = matches!(self.wanted, Err(WantedError::NotYet));
        let before = std::mem::replace(&mut self.address, Address::parse(hash, &self.place.origin));
        if is_first {
            if self.handshake == Handshake::Waiting {
                effects.push(Effect::Set(Timer::Handshake, Some(LIMIT_MS)));
            }
            if let (Short::Loading, Some(id)) = (&self.short, &self.place.short_id) {
                effects.push(Effect::FetchShort { id: id.clone() });
            }
        }
        if self.address.settings.allow_set_job && !before.settings.allow_set_job && !is_first {
            let job = self.last_job_input.take();
            self.set_job(job, effects);
        }
        self.settle_drafts();
        self.recompute(moment, effects);
        self.run_after_save(moment, effects);
        if !is_first {
            self.resend_outputs(&before, effects);
            if self.address.settings.autostart && !before.settings.autostart {
                self.start_if_idle(moment, effects);
            }
        }
    }

    /// `autostart` was switched on: what would have started by itself starts now.
    fn start_if_idle(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let is_idle = self.current().is_some_and(|wanted| self.starts_by_itself(&wanted.id))
            && self.job.object().is_none()
            && !self.is_submitting();
        if is_idle {
            self.wish(Wish { rerun: None }, moment, effects);
        }
    }

    fn inputs_updated(
        &mut self,
        changes: Vec<(String, Option<PipeValue>)>,
        moment: Moment,
        effects: &mut Vec<Effect>,
    ) {
        // Before the handshake answered there are no updates (`metaframe` 1.6).
        if !self.handshake.has_answered() {
            return;
        }
        let job = changes.iter().find(|(name, _)| name == JOB_INPUT).and_then(|(_, value)| value.clone());
        for (name, value) in changes {
            match value {
                Some(value) => self.inputs.insert(name, Staged::from(value)),
                None => self.inputs.remove(&name),
            };
        }
        self.job_input(job, effects);
        self.recompute(moment, effects);
    }

    /// A message itself held this `job` (`metaframe` 5.7).
    fn job_input(&mut self, value: Option<PipeValue>, effects: &mut Vec<Effect>) {
        let Some(value) = value else {
            self.last_job_input = None;
            return;
        };
        self.job_input_problem = None;
        match job_from_input(&value) {
            Ok(job) => self.last_job_input = job,
            Err(problem) => {
                self.last_job_input = None;
                self.job_input_problem = Some(problem.to_string());
            }
        }
        if self.address.settings.allow_set_job {
            let job = self.last_job_input.take();
            self.set_job(job, effects);
        }
    }

    fn set_job(&mut self, job: Option<Map<String, Value>>, effects: &mut Vec<Effect>) {
        let Some(job) = job else { return };
        let mut params = self.address.params.clone();
        if params.set_json("job", &Value::Object(job)) {
            self.write_hash(&params.to_string(), effects);
        }
    }

    fn write_hash(&mut self, hash: &str, effects: &mut Vec<Effect>) {
        self.address = Address::parse(hash, &self.place.origin);
        effects.push(Effect::WriteHash(hash.to_owned()));
    }

    /// Address, inputs or handshake changed: connects, computes, and starts what starts by itself.
    fn recompute(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        self.follow_queue(moment, effects);
        let before = self.current().map(|wanted| wanted.id.clone());
        self.wanted = self.want();
        let after = self.current().cloned();
        if let Some(wanted) = &after {
            self.begin_uploads(wanted, effects);
        }
        match after {
            Some(wanted) if before.as_ref() != Some(&wanted.id) => {
                self.another_job(moment, effects);
                if self.starts_by_itself(&wanted.id) {
                    self.wish(Wish { rerun: None }, moment, effects);
                } else {
                    self.clock.done();
                }
            }
            // An upload that is no longer needed held the job up.
            Some(_) if self.wish.is_some() => {
                let due = self.clock.trigger(moment.now);
                effects.push(Effect::Set(Timer::Submit, Some(due)));
            }
            Some(_) => {}
            None if before.is_some() => {
                self.another_job(moment, effects);
                self.clock.done();
            }
            None => {}
        }
    }

    fn want(&self) -> Result<Rc<Wanted>, WantedError> {
        if !self.handshake.is_over() {
            return Err(WantedError::WaitsForHost);
        }
        wanted::want(self).map(Rc::new)
    }

    fn begin_uploads(&mut self, wanted: &Wanted, effects: &mut Vec<Effect>) {
        for needed in &wanted.uploads {
            if self.uploads.begin(&needed.url) {
                let bytes = Arc::clone(&needed.blob.bytes);
                effects.push(Effect::Upload { url: needed.url.clone(), bytes });
            }
        }
    }

    /// The id changed: nothing of the former job is shown or sent as this one's.
    fn another_job(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        self.drop_intentions(effects);
        self.job = JobView::default();
        self.log.clear();
        self.sent = None;
        effects.push(Effect::LogChanged);
        self.hear_early(moment, effects);
        if let Some(wanted) = self.current() {
            effects.push(Effect::ReadKept { job: wanted.id.clone(), key: wanted.kept_key() });
        }
        self.watch(effects);
        self.query_later(effects);
    }

    /// Connects to the address's queue, or to none.
    fn follow_queue(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let url = self.address.settings.queue.as_ref().map(wanted::socket_url);
        if url == self.socket_url {
            return;
        }
        self.socket_url = url;
        if self.connection.phase != Phase::Off {
            effects.push(Effect::Disconnect);
        }
        self.connection.reset();
        for timer in [Timer::Attempt, Timer::Ping, Timer::Pong, Timer::Stable, Timer::Query, Timer::Reconnect]
        {
            effects.push(Effect::Set(timer, None));
        }
        self.summary = None;
        self.workers = None;
        self.jobs = None;
        self.listed_early.clear();
        self.outbox.clear();
        self.job = JobView::default();
        self.log.clear();
        effects.push(Effect::LogChanged);
        self.connect(moment, effects);
        self.fetch_jobs(effects);
        // The same id is submitted to the new queue as well.
        if self.connection.phase != Phase::Off
            && let Some(wanted) = self.current()
            && self.starts_by_itself(&wanted.id)
        {
            self.wish(Wish { rerun: None }, moment, effects);
        }
    }

    fn connect(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        let Some(url) = self.socket_url.clone() else { return };
        let socket = self.connection.begin(moment.now);
        effects.push(Effect::Set(Timer::Reconnect, None));
        effects.push(Effect::Set(Timer::Attempt, Some(ATTEMPT_MS)));
        effects.push(Effect::Connect { socket, url });
    }

    fn timer_fired(&mut self, timer: Timer, moment: Moment, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Handshake => {
                if self.handshake == Handshake::Waiting {
                    self.handshake = Handshake::Silent;
                    self.recompute(moment, effects);
                }
            }
            Timer::Submit => self.fulfil(moment, effects),
            Timer::Attempt | Timer::Pong => self.socket_lost(moment, effects),
            Timer::Reconnect => self.connect(moment, effects),
            Timer::Ping => self.ping(effects),
            Timer::Stable => self.connection.is_stable(),
            Timer::Confirm => {
                if let Some(pending) = &mut self.job.pending {
                    pending.is_late = true;
                }
            }
            Timer::Result => self.fetch_result(effects),
            Timer::Rerun => self.rerun_the_old_way(moment, effects),
            Timer::Query => self.query(effects),
            Timer::Jobs => self.fetch_jobs(effects),
        }
    }

    fn user(&mut self, intent: Intent, moment: Moment, effects: &mut Vec<Effect>) {
        match intent {
            Intent::Run => {
                self.sent = None;
                self.wish_now(Wish { rerun: None }, moment, effects);
            }
            Intent::RunAgain => self.run_what_there_is(moment, effects),
            Intent::Draft { file, text } => self.draft(file, text),
            Intent::Save => {
                self.save_drafts(effects);
            }
            Intent::SaveAndRun => self.save_and_run(moment, effects),
            Intent::Stop => self.let_go(PendingWhat::Stop, moment, effects),
            Intent::Delete => self.let_go(PendingWhat::Delete, moment, effects),
            Intent::RetryUploads => {
                self.uploads.forget_failures();
                if let Some(wanted) = self.current().cloned() {
                    self.begin_uploads(&wanted, effects);
                    if self.starts_by_itself(&wanted.id) && self.job.object().is_none() {
                        self.wish(Wish { rerun: None }, moment, effects);
                    }
                }
            }
            Intent::RetryShort => {
                if let Some(id) = self.place.short_id.clone() {
                    self.short = Short::Loading;
                    effects.push(Effect::FetchShort { id });
                }
            }
            Intent::Consent => {
                let sites = self.consent.give(&self.place.origin);
                effects.push(Effect::RememberConsent(sites));
                self.start_if_idle(moment, effects);
            }
            Intent::Edit(changes) => {
                self.edit(&changes, effects);
            }
            Intent::EditDefinition(definition) => self.edit_definition(definition, effects),
            Intent::ShowQueue(shows) => {
                if self.shows_queue != shows {
                    self.shows_queue = shows;
                    self.watch(effects);
                    if shows {
                        self.fetch_jobs(effects);
                    } else {
                        effects.push(Effect::Set(Timer::Jobs, None));
                    }
                }
            }
            Intent::Cancel { job, everybody } => self.cancel(job, everybody, moment, effects),
        }
    }

    /// Asks for the list that the queue panel shows.
    fn fetch_jobs(&self, effects: &mut Vec<Effect>) {
        if let Some(queue) = self.address.settings.queue.as_ref().filter(|_| self.shows_queue) {
            effects.push(Effect::FetchJobs { url: format!("{}?limit={MAX_JOBS}", queue.jobs()) });
        }
    }

    /// Sets or removes parameters of the address. Whether that changes it.
    pub(super) fn edit(&self, changes: &[(String, Option<String>)], effects: &mut Vec<Effect>) -> bool {
        let mut params = self.address.params.clone();
        let mut changed = false;
        for (key, value) in changes {
            changed |= params.set(key, value.as_deref());
        }
        // The browser encodes what it is given, and says what came of it: `HashChanged` follows.
        if changed {
            effects.push(Effect::WriteHash(params.to_string()));
        }
        changed
    }

    fn edit_definition(&self, definition: dockframe_shared::job::Definition, effects: &mut Vec<Effect>) {
        let mut params = self.address.params.clone();
        params.set_json("job", &Value::Object(definition.0));
        if matches!(self.short, Short::Loaded(_)) {
            // Only an edit of the definition leaves a short address (`metaframe` 5.10).
            effects.push(Effect::Navigate(format!("{}/#{params}", self.place.origin)));
            return;
        }
        let mut changes = vec![("job".to_owned(), params.get("job").map(str::to_owned))];
        // A job made here runs by itself; a switch on the page turns that off.
        if self.address.is_blank() {
            changes.push(("autostart".to_owned(), Some("true".to_owned())));
        }
        self.edit(&changes, effects);
    }
}
