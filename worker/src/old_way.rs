//! Working for a relay that knows no leases (`worker` 6.2 to 6.5). Pure.
//!
//! Such a relay shows its table to every worker and lets whoever says `Running` first try. This module plays the
//! part of a granting relay towards the rest of the worker: it claims, and then grants under a lease id of its own
//! making; it translates accepts, declines, lines and results into state changes; it revokes what the relay's table
//! no longer gives us. So nothing else in the worker knows of the old way.

mod words;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use dockframe_shared::job::{Control, Definition, FinishReason, Finished, JobObject, StateName};
use dockframe_shared::protocol::{
    Change, DeclineRetry, Jobs, LeaseGrant, Registration, RevokeWhy, StatusEntry, StatusResponse,
    WatchedJobs, WorkerHello, WorkerMessage,
};
use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};

use self::words::{ElapsedAt as _, answer, change, delay, digest, revoke, running_change, tags, wishes};
use crate::capacity::{Capacity, NoRoom, Share};
use crate::messages::LinkEvent;

/// Beginning of the lease ids that are made here.
const PREFIX: &str = "old-";
/// Before a job is killed that the relay no longer gives us: lists may be behind.
const GRACE: Duration = Duration::from_secs(6);
/// How long to wait, among others, to hear that the claim is ours.
const ECHO_WAIT: Duration = Duration::from_millis(400);
/// Before an unanswered question for definitions is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(11);
/// Before a job that found no room is looked at again.
const DECLINED_PAUSE: Duration = Duration::from_secs(5);
/// After so long without room a job has the next room to itself: smaller ones would never let it in.
const RESERVE_AFTER: Duration = Duration::from_secs(60);
/// How long a result is kept of a job that the relay does not show.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10 * 60);
/// How often claims are said again.
const REMIND_EVERY: Duration = Duration::from_secs(10);
const MAX_DEFINITIONS: usize = 1000;
/// The old way has no deadline but the job's own limits.
const DEADLINE_MS: u64 = 7 * 24 * 3_600_000;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// To the relay.
    Say(WorkerMessage),
    /// To the dispatcher.
    Tell(LinkEvent),
}

/// One queue of an old relay.
#[derive(Debug)]
pub(crate) struct OldWay {
    jobs: BTreeMap<JobId, JobObject>,
    /// Whether a full list has come on this connection.
    is_informed: bool,
    claims: BTreeMap<JobId, Claim>,
    /// Leases of an earlier process, by the digest in their name, until their job is listed.
    earlier: HashMap<String, LeaseId>,
    /// Since when full lists have come.
    informed_since: Option<Instant>,
    definitions: HashMap<JobId, Definition>,
    asked: HashMap<JobId, Instant>,
    declined: HashMap<JobId, Instant>,
    /// Since when jobs have found no room.
    waiting: HashMap<JobId, Instant>,
    unclaimable: BTreeMap<String, String>,
    capacity: Capacity,
    tags: Vec<String>,
    others: bool,
    reminded: Option<Instant>,
}

#[derive(Debug)]
struct Claim {
    lease: LeaseId,
    time: Timestamp,
    share: Option<Share>,
    stage: Stage,
    /// The relay gives the job to somebody else, or to nobody, since then.
    doubt: Option<Instant>,
    is_absent: bool,
    /// The relay has shown it as queued since we last said that it runs.
    is_contradicted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// To be claimed at this time: whoever has more room is quicker.
    Waiting(Instant),
    /// Claimed; to be begun when the relay agrees, or at this time.
    Claimed(Instant),
    Running,
    /// The result of this time was sent; whether on this connection.
    Finished {
        time: Timestamp,
        is_sent: bool,
    },
}

impl OldWay {
    pub(crate) fn new(registration: &Registration) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "our own whole numbers")]
        let (slots, gpus) = (registration.cpus.0 as u32, registration.gpus.0 as u32);
        let gpus = (0..gpus).map(|index| index.to_string()).collect();
        let earlier = registration.leases.iter().flatten().filter_map(|lease| {
            let digest = lease.lease_id.as_str().strip_prefix(PREFIX)?.split('-').next()?;
            Some((digest.to_owned(), lease.lease_id.clone()))
        });
        Self {
            jobs: BTreeMap::new(),
            is_informed: false,
            claims: BTreeMap::new(),
            earlier: earlier.collect(),
            informed_since: None,
            definitions: HashMap::new(),
            asked: HashMap::new(),
            declined: HashMap::new(),
            waiting: HashMap::new(),
            unclaimable: BTreeMap::new(),
            capacity: Capacity::new(slots.max(1), registration.memory_bytes, gpus),
            tags: registration.tags.clone().unwrap_or_default(),
            others: false,
            reminded: None,
        }
    }

    /// Whether a lease was made here.
    pub(crate) fn made(lease: &LeaseId) -> bool {
        lease.as_str().starts_with(PREFIX)
    }

    /// What the relay would say if it knew how to greet.
    pub(crate) fn hello() -> WorkerHello {
        WorkerHello {
            relay: "a relay without leases".to_owned(),
            epoch: "old".to_owned(),
            ttl_ms: 30_000,
            renew_ms: 10_000,
            max_finish_bytes: 32 << 20,
        }
    }

    /// A new connection: nothing is known to have arrived.
    pub(crate) fn connected(&mut self) {
        self.is_informed = false;
        self.reminded = None;
        self.asked.clear();
        for claim in self.claims.values_mut() {
            if let Stage::Finished { is_sent, .. } = &mut claim.stage {
                *is_sent = false;
            }
        }
    }

    /// The relay speaks leases now: everything that was claimed the old way is over.
    pub(crate) fn abandon(registration: &Registration) -> Vec<LinkEvent> {
        let leases = registration.leases.iter().flatten().filter(|lease| Self::made(&lease.lease_id));
        leases.map(|lease| revoke(lease.lease_id.clone(), RevokeWhy::Superseded)).collect()
    }

    pub(crate) fn list(&mut self, jobs: Jobs) {
        if jobs.is_subset {
            let jobs = jobs.state.jobs.into_iter().map(|(id, job)| (id, Some(job))).collect();
            return self.updates(WatchedJobs::new(jobs));
        }
        self.jobs = jobs.state.jobs;
        self.is_informed = true;
        for (id, claim) in &mut self.claims {
            claim.is_absent = !self.jobs.contains_key(id);
            claim.is_contradicted = self.jobs.get(id).is_some_and(|job| job.state == StateName::Queued);
        }
        let jobs = &self.jobs;
        self.definitions.retain(|id, _| jobs.contains_key(id));
        self.declined.retain(|id, _| jobs.contains_key(id));
        self.waiting.retain(|id, _| jobs.get(id).is_some_and(|job| job.state == StateName::Queued));
        self.unclaimable.retain(|id, _| jobs.keys().any(|job| job.as_str() == id));
    }

    /// Absence from an update means nothing.
    pub(crate) fn updates(&mut self, jobs: WatchedJobs) {
        for (id, job) in jobs.state.jobs {
            let Some(job) = job else { continue };
            if let Some(claim) = self.claims.get_mut(&id) {
                claim.is_absent = false;
                claim.is_contradicted = job.state == StateName::Queued;
            }
            self.jobs.insert(id, job);
        }
    }

    /// Only what was asked for is taken.
    pub(crate) fn define(&mut self, definitions: BTreeMap<JobId, Definition>) {
        for (id, definition) in definitions {
            if self.asked.remove(&id).is_some() && self.definitions.len() < MAX_DEFINITIONS {
                self.definitions.insert(id, definition);
            }
        }
    }

    pub(crate) fn workers(&mut self, workers: &[Registration], me: &WorkerId) {
        self.others = workers.iter().any(|worker| worker.id != *me);
    }

    pub(crate) fn status(&self, registration: &Registration, now: Timestamp) -> WorkerMessage {
        let running = self.claims.iter().map(|(id, claim)| {
            let finished = matches!(claim.stage, Stage::Finished { is_sent: true, .. });
            (id.to_string(), StatusEntry { job_id: id.to_string(), finished })
        });
        WorkerMessage::StatusResponse(StatusResponse {
            time: now,
            id: registration.id.clone(),
            cpus: registration.cpus,
            gpus: registration.gpus,
            max_job_duration: Some(registration.max_job_duration.clone()),
            queue: running.collect(),
            unclaimable: (!self.unclaimable.is_empty()).then(|| self.unclaimable.clone()),
        })
    }

    /// The user deleted the job: its run is over at once, and what it still yields counts for nothing.
    pub(crate) fn clear(&mut self, job: &JobId) -> Vec<Effect> {
        let definition = self.definitions.remove(job);
        self.jobs.remove(job);
        match (self.drop_claim(job, RevokeWhy::Deleted), definition) {
            (Some(effect), _) => vec![effect],
            (None, Some(definition)) => vec![Effect::Tell(LinkEvent::Deleted(Box::new(definition)))],
            (None, None) => Vec::new(),
        }
    }

    /// Says of every run that it goes on: directly after each registration, before any line or result (`worker` 5.2).
    pub(crate) fn remind(&mut self, me: &WorkerId, now: Instant) -> Vec<WorkerMessage> {
        self.reminded = Some(now);
        let running = self.claims.iter().filter(|(_, claim)| claim.stage == Stage::Running);
        running.map(|(job, claim)| running_change(job, me, claim.time)).collect()
    }

    /// A frame of the dispatcher's, as the old relay understands it.
    pub(crate) fn translate(
        &mut self,
        message: WorkerMessage,
        me: &WorkerId,
        now: Instant,
        time: Timestamp,
    ) -> Vec<Effect> {
        let job_of = |claims: &BTreeMap<JobId, Claim>, lease: &LeaseId| {
            claims.iter().find(|(_, claim)| claim.lease == *lease).map(|(id, _)| id.clone())
        };
        match message {
            WorkerMessage::Logs(mut logs) => {
                let is_ours = logs.lease_id.as_ref().is_some_and(Self::made);
                logs.lease_id = None;
                logs.from = None;
                if is_ours { vec![Effect::Say(WorkerMessage::Logs(logs))] } else { Vec::new() }
            }
            WorkerMessage::LeaseDecline(decline) => {
                let Some(job) = job_of(&self.claims, &decline.lease_id) else { return Vec::new() };
                if decline.retry == DeclineRetry::Never {
                    self.unclaimable.insert(job.to_string(), decline.why);
                }
                self.declined.insert(job.clone(), now);
                self.release(&job);
                let lost = Finished {
                    worker: Some(me.to_string()),
                    ..Finished::new(FinishReason::WorkerLost, time)
                };
                vec![Effect::Say(change(&job, me, Change::Finished(Box::new(lost))))]
            }
            WorkerMessage::LeaseFinish(finish) => {
                let Some(job) = job_of(&self.claims, &finish.lease_id) else {
                    // Of a lease of another relay, or of a claim that is lost: the latter is over.
                    return if Self::made(&finish.lease_id) && self.is_informed && self.earlier.is_empty() {
                        vec![Effect::Tell(answer(finish.lease_id, false))]
                    } else {
                        Vec::new()
                    };
                };
                let Ok(finished) = serde_json::from_value::<Finished>(finish.value) else {
                    self.release(&job);
                    return vec![Effect::Tell(answer(finish.lease_id, false))];
                };
                if !self.counts(&job, me) {
                    self.release(&job);
                    return vec![Effect::Tell(answer(finish.lease_id, false))];
                }
                let Some(claim) = self.claims.get_mut(&job) else { return Vec::new() };
                if matches!(claim.stage, Stage::Finished { is_sent: true, .. }) {
                    return Vec::new();
                }
                claim.stage = Stage::Finished { time: finished.time, is_sent: true };
                if let Some(share) = claim.share.take() {
                    self.capacity.release(&share);
                }
                vec![Effect::Say(change(&job, me, Change::Finished(Box::new(finished))))]
            }
            // What we claimed we have said already.
            _ => Vec::new(),
        }
    }

    /// Whether a result of ours would be taken: not when the relay has the job elsewhere, ended, or not at all.
    fn counts(&self, job: &JobId, me: &WorkerId) -> bool {
        if !self.is_informed {
            return true;
        }
        let is_absent = self.claims.get(job).is_some_and(|claim| claim.is_absent);
        match self.jobs.get(job).filter(|_| !is_absent) {
            None => false,
            Some(object) => match object.state {
                StateName::Queued => true,
                StateName::Running => object.worker.is_empty() || me.as_str() <= object.worker.as_str(),
                StateName::Finished => object.worker == me.as_str(),
                StateName::Removed => false,
            },
        }
    }

    /// What the table asks for now. `is_closed`: nothing new is claimed.
    pub(crate) fn decide(
        &mut self,
        me: &WorkerId,
        is_closed: bool,
        now: Instant,
        time: Timestamp,
        random: impl FnMut() -> u32,
    ) -> Vec<Effect> {
        if !self.is_informed {
            return Vec::new();
        }
        let informed_since = *self.informed_since.get_or_insert(now);
        let mut effects = self.reconcile(me, now);
        self.find_earlier(me);
        if informed_since.elapsed_at(now) > FORGOTTEN_AFTER {
            // The relay knows nothing of these any more.
            let forgotten = self.earlier.drain().map(|(_, lease)| revoke(lease, RevokeWhy::Unknown));
            effects.extend(forgotten.map(Effect::Tell));
        }
        self.claim_more(me, is_closed, now, random, &mut effects);
        self.advance(me, now, time, &mut effects);
        if self.reminded.is_none_or(|at| now.duration_since(at) >= REMIND_EVERY) {
            effects.extend(self.remind(me, now).into_iter().map(Effect::Say));
        }
        effects
    }

    /// Compares every claim with what the relay says of it (`worker` 6.4).
    fn reconcile(&mut self, me: &WorkerId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut over = Vec::new();
        for (id, claim) in &mut self.claims {
            let object = self.jobs.get(id).filter(|_| !claim.is_absent);
            let state = object.map(|object| (object.state, object.worker.as_str()));
            if let Stage::Finished { time, .. } = claim.stage {
                let is_recorded = object.is_some_and(|object| {
                    object.state == StateName::Finished && object.worker == me.as_str() && object.time == time
                });
                let missing =
                    object.is_none() && claim.doubt.get_or_insert(now).elapsed_at(now) > FORGOTTEN_AFTER;
                if is_recorded || missing {
                    over.push((id.clone(), Over::Answered(true)));
                } else if matches!(state, Some((StateName::Finished, _))) {
                    over.push((id.clone(), Over::Answered(false)));
                }
                continue;
            }
            let is_lost = match state {
                None | Some((StateName::Finished | StateName::Removed, _)) => true,
                Some((StateName::Queued, _)) => false,
                Some((StateName::Running, worker)) => worker != me.as_str() && me.as_str() > worker,
            };
            if matches!(claim.stage, Stage::Waiting(_)) {
                // Nothing was said yet: whoever was quicker has it.
                if !matches!(state, Some((StateName::Queued, _)))
                    && !matches!(state, Some((_, worker)) if worker == me.as_str())
                {
                    over.push((id.clone(), Over::Quietly));
                }
                continue;
            }
            if !is_lost {
                claim.doubt = None;
                if claim.stage == Stage::Running && std::mem::take(&mut claim.is_contradicted) {
                    effects.push(Effect::Say(running_change(id, me, claim.time)));
                }
            } else if claim.doubt.get_or_insert(now).elapsed_at(now) >= GRACE {
                over.push((id.clone(), Over::Lost));
            }
        }
        for (id, over) in over {
            match over {
                Over::Quietly => drop(self.release(&id)),
                Over::Lost => effects.extend(self.drop_claim(&id, RevokeWhy::Superseded)),
                Over::Answered(recorded) => {
                    effects.extend(self.release(&id).map(|lease| Effect::Tell(answer(lease, recorded))));
                }
            }
        }
        effects
    }

    /// Claims of an earlier process, whose runs the dispatcher has taken up.
    fn find_earlier(&mut self, me: &WorkerId) {
        if self.earlier.is_empty() {
            return;
        }
        for (id, object) in &self.jobs {
            if let Some(lease) = self.earlier.remove(&digest(id)) {
                let time = if object.worker == me.as_str() { object.time } else { object.queued_time };
                let claim = Claim {
                    lease,
                    time,
                    share: None,
                    stage: Stage::Running,
                    doubt: None,
                    is_absent: false,
                    is_contradicted: false,
                };
                self.claims.insert(id.clone(), claim);
            }
        }
    }

    fn claim_more(
        &mut self,
        me: &WorkerId,
        is_closed: bool,
        now: Instant,
        mut random: impl FnMut() -> u32,
        effects: &mut Vec<Effect>,
    ) {
        if is_closed {
            return;
        }
        let mut candidates: Vec<(&JobId, &JobObject)> = self
            .jobs
            .iter()
            .filter(|(id, object)| {
                let is_mine = object.state == StateName::Running && object.worker == me.as_str();
                (object.state == StateName::Queued || is_mine) && !self.claims.contains_key(*id)
            })
            .collect();
        // The oldest first; what the relay says we run before all.
        candidates.sort_by_key(|(id, object)| {
            (object.state == StateName::Queued, object.queued_time, (*id).clone())
        });
        let mut ask = Vec::new();
        let mut claims = Vec::new();
        for (id, object) in candidates {
            let is_resting = self.declined.get(id).is_some_and(|at| now.duration_since(*at) < DECLINED_PAUSE);
            if is_resting || self.unclaimable.contains_key(id.as_str()) {
                continue;
            }
            let definition = self.definitions.get(id);
            let wishes = wishes(object, definition);
            if let Some(tag) =
                tags(object, definition).into_iter().find(|tag| !self.tags.iter().any(|known| known == tag))
            {
                self.unclaimable.insert(id.to_string(), format!("this worker does not offer the tag {tag}"));
                continue;
            }
            match self.capacity.take(&wishes) {
                Ok(share) if self.definitions.contains_key(id) => {
                    let jitter = if self.others {
                        Duration::from_millis(u64::from(delay(id, me)))
                    } else {
                        Duration::ZERO
                    };
                    let lease = format!("{PREFIX}{}-{:08x}", digest(id), random());
                    claims.push((id.clone(), lease, share, now + jitter));
                }
                Ok(share) => {
                    // Room for it is looked for again when it is known what it is.
                    self.capacity.release(&share);
                    if self.asked.get(id).is_none_or(|at| now.duration_since(*at) > ASK_AGAIN) {
                        ask.push(id.clone());
                    }
                }
                Err(NoRoom::Now) => {
                    let since = *self.waiting.entry(id.clone()).or_insert(now);
                    if since.elapsed_at(now) >= RESERVE_AFTER {
                        break;
                    }
                }
                Err(never) => drop(self.unclaimable.insert(id.to_string(), never.to_string())),
            }
        }
        for (id, lease, share, at) in claims {
            let Ok(lease) = LeaseId::new(lease) else { continue };
            let stage = Stage::Waiting(at);
            let claim = Claim {
                lease,
                time: Timestamp::default(),
                share: Some(share),
                stage,
                doubt: None,
                is_absent: false,
                is_contradicted: false,
            };
            self.claims.insert(id, claim);
        }
        if !ask.is_empty() {
            self.asked.extend(ask.iter().map(|id| (id.clone(), now)));
            effects.push(Effect::Say(WorkerMessage::RequestJobDefinitions { job_ids: ask }));
        }
    }

    /// Claims whose time has come, and runs that may begin.
    fn advance(&mut self, me: &WorkerId, now: Instant, time: Timestamp, effects: &mut Vec<Effect>) {
        let mut unknown = Vec::new();
        for (id, claim) in &mut self.claims {
            if let Stage::Waiting(at) = claim.stage
                && now >= at
            {
                claim.time = time;
                claim.stage = Stage::Claimed(if self.others { now + ECHO_WAIT } else { now });
                effects.push(Effect::Say(running_change(id, me, time)));
            }
            if let Stage::Claimed(at) = claim.stage {
                let is_echoed = self
                    .jobs
                    .get(id)
                    .is_some_and(|object| object.state == StateName::Running && object.worker == me.as_str());
                if now < at && !is_echoed {
                    continue;
                }
                let Some(definition) = self.definitions.remove(id) else {
                    unknown.push(id.clone());
                    continue;
                };
                claim.stage = Stage::Running;
                effects.push(Effect::Tell(LinkEvent::Grant(Box::new(LeaseGrant {
                    lease_id: claim.lease.clone(),
                    job_id: id.clone(),
                    attempt: 1,
                    definition,
                    control: Control::default(),
                    deadline_ms: DEADLINE_MS,
                }))));
            }
        }
        for id in unknown {
            self.release(&id);
        }
    }

    /// When something will be due without anything coming.
    pub(crate) fn is_waiting(&self) -> bool {
        self.claims.values().any(|claim| {
            matches!(claim.stage, Stage::Waiting(_) | Stage::Claimed(_)) || claim.doubt.is_some()
        })
    }

    fn drop_claim(&mut self, job: &JobId, why: RevokeWhy) -> Option<Effect> {
        self.release(job).map(|lease| Effect::Tell(revoke(lease, why)))
    }

    fn release(&mut self, job: &JobId) -> Option<LeaseId> {
        let claim = self.claims.remove(job)?;
        if let Some(share) = &claim.share {
            self.capacity.release(share);
        }
        Some(claim.lease)
    }
}

/// Why a claim is over.
enum Over {
    Quietly,
    Lost,
    Answered(bool),
}

#[cfg(test)]
mod tests;
