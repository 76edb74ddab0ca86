//! Working for a relay that knows no leases (`worker` 6.2 to 6.5). Pure.
//!
//! Such a relay shows its table to every worker and lets whoever says `Running` first try. This module plays the
//! part of a granting relay towards the rest of the worker: it claims, and then grants under a lease id of its own
//! making; it translates accepts, declines, lines and results into state changes; it revokes what the relay's table
//! no longer gives us. So nothing else in the worker knows of the old way.

mod decide;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use dockframe_shared::job::{Definition, FinishReason, Finished, JobObject, StateName};
use dockframe_shared::protocol::{
    Change, DeclineRetry, Jobs, Registration, RevokeWhy, StatusEntry, StatusResponse, WatchedJobs,
    WorkerHello, WorkerMessage,
};
use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};

use self::words::{answer, change, revoke, running_change};
use crate::capacity::{Capacity, Share};
use crate::messages::LinkEvent;

/// Beginning of the lease ids that are made here.
const PREFIX: &str = "old-";
const MAX_DEFINITIONS: usize = 1000;

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

#[cfg(test)]
mod tests;
