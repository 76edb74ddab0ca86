//! Runs that an earlier process of this worker accepted and did not end: which of them to take up (`worker` 17).

use std::collections::HashSet;
use std::path::Path;

use dockframe_shared::QueueKey;
use tracing::{info, warn};

use crate::journal::{Batch, Journal};
use crate::messages::QueueIndex;
use crate::outbox::Outbox;
use crate::state::{RunDirectory, RunState};

/// A run to be taken up.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) queue: QueueIndex,
    pub(crate) directory: RunDirectory,
    pub(crate) state: RunState,
    /// What was told of its output.
    pub(crate) told: Vec<Batch>,
}

/// All runs below `place` that belong to a queue of ours and have no result yet.
pub(crate) fn find(place: &Path, queues: &[QueueKey]) -> Vec<Leftover> {
    let digests: Vec<String> = queues.iter().map(|queue| queue.digest().to_hex()).collect();
    let has_result = |queue: &QueueKey, state: &RunState| {
        Outbox::open(place, queue)
            .and_then(|outbox| outbox.get(&state.grant.lease_id))
            .is_ok_and(|found| found.is_some())
    };
    let mut leases = HashSet::new();
    let mut found = Vec::new();
    for directory in RunDirectory::all(place) {
        let state = match directory.load() {
            Ok(state) => state,
            Err(error) => {
                // It fell before its lease was accepted.
                info!("a run of an earlier process has no readable state and is removed: {error}");
                continue;
            }
        };
        let Some(index) = digests.iter().position(|digest| *digest == state.queue) else {
            warn!(
                "a run of an earlier process is of a queue that this worker no longer serves, and is removed"
            );
            continue;
        };
        let is_new = leases.insert((index, state.grant.lease_id.clone()));
        if !is_new || has_result(&queues[index], &state) {
            continue;
        }
        let told = Journal::read(directory.path());
        found.push(Leftover { queue: QueueIndex(index), directory, state, told });
    }
    found
}
