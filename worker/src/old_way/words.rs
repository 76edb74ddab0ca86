//! Small words of the old way: messages, names and wishes as an old relay's table has them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dockframe_shared::ids::hex;
use dockframe_shared::job::{Definition, JobObject};
use dockframe_shared::protocol::{Change, LeaseFinished, LeaseRevoke, RevokeWhy, StateChange, WorkerMessage};
use dockframe_shared::{JobId, LeaseId, Timestamp, WorkerId};
use sha2::{Digest, Sha256};

use crate::messages::LinkEvent;
use crate::plan::Wishes;

pub(super) trait ElapsedAt {
    fn elapsed_at(&self, now: Instant) -> Duration;
}

impl ElapsedAt for Instant {
    fn elapsed_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self)
    }
}

pub(super) fn change(job: &JobId, me: &WorkerId, change: Change) -> WorkerMessage {
    WorkerMessage::StateChange(StateChange { job: job.clone(), tag: me.to_string(), change, reference: None })
}

pub(super) fn running_change(job: &JobId, me: &WorkerId, time: Timestamp) -> WorkerMessage {
    change(job, me, Change::Running { time, worker: me.clone() })
}

pub(super) fn revoke(lease_id: LeaseId, why: RevokeWhy) -> LinkEvent {
    LinkEvent::Revoke(LeaseRevoke { lease_id, why, grace_ms: u64::MAX })
}

pub(super) fn answer(lease_id: LeaseId, recorded: bool) -> LinkEvent {
    LinkEvent::Finished(LeaseFinished { lease_id, recorded, why: None })
}

/// Names the job in a lease id, whatever characters it has.
pub(super) fn digest(job: &JobId) -> String {
    hex(&Sha256::digest(job.as_str().as_bytes())).chars().take(32).collect()
}

/// Spreads the claims of several workers over 150 ms, differently for each job.
pub(super) fn delay(job: &JobId, me: &WorkerId) -> u16 {
    let digest = Sha256::new().chain_update(job.as_str()).chain_update(me.as_str()).finalize();
    u16::from_be_bytes([digest[0], digest[1]]) % 150
}

/// What the job wants: by its definition where that is known, else by what the table says of it.
pub(super) fn wishes(object: &JobObject, definition: Option<&Definition>) -> Wishes {
    let listed = || {
        let mut definition = Definition::default();
        if let Some(requirements) = &object.requirements {
            definition.0.insert("requirements".to_owned(), requirements.clone());
        }
        Wishes::read(&definition)
    };
    // Wishes that cannot be read are the run's to complain about.
    definition.map_or_else(listed, Wishes::read).unwrap_or_default()
}

/// The tags that a worker must offer: the table's and the definition's.
pub(super) fn tags(object: &JobObject, definition: Option<&Definition>) -> BTreeSet<String> {
    let defined = definition.and_then(|definition| definition.get("tags"));
    let lists = object.tags.as_ref().into_iter().chain(defined).filter_map(|tags| tags.as_array());
    lists.flatten().filter_map(|tag| tag.as_str()).map(str::to_owned).collect()
}
