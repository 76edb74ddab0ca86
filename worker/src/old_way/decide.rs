//! What the relay's table asks for: claims to make, runs to begin, and claims that are over.

use std::time::{Duration, Instant};

use dockframe_shared::job::{Control, JobObject, StateName};
use dockframe_shared::protocol::{LeaseGrant, RevokeWhy, WorkerMessage};
use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};

use super::words::{ElapsedAt as _, answer, delay, digest, revoke, running_change, tags, wishes};
use super::{Claim, Effect, OldWay, PREFIX, Stage};
use crate::capacity::NoRoom;
use crate::messages::LinkEvent;

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
/// The old way has no deadline but the job's own limits.
const DEADLINE_MS: u64 = 7 * 24 * 3_600_000;

/// Why a claim is over.
enum Over {
    Quietly,
    Lost,
    Answered(bool),
}

impl OldWay {
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
}
