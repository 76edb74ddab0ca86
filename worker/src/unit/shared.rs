//! What a unit is given: the parts that all of a worker share, and what its own run is.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use dockframe_shared::protocol::LeaseGrant;
use dockframe_shared::{InstanceId, QueueKey, WorkerId};

use crate::capacity::Share;
use crate::config::{Network, PhaseLimits};
use crate::dispatcher::Queue;
use crate::files::inputs::{Owner, Sources};
use crate::files::outputs::Uploader;
use crate::files::secret_files::SecretFiles;
use crate::messages::RunKey;
use crate::outbox::Outbox;
use crate::secrets::Secrets;
use crate::state::{RunDirectory, RunState};

/// What all units of a worker share.
#[derive(Debug)]
pub(crate) struct Shared<E> {
    pub(crate) executor: E,
    pub(crate) sources: Sources,
    pub(crate) uploader: Uploader,
    /// Changes when another process turns out to work under it.
    pub(crate) worker: RwLock<WorkerId>,
    pub(crate) instance: InstanceId,
    pub(crate) relay: String,
    /// The lock that this process holds, as the Engine's host calls it; `None` if it does not see it.
    pub(crate) host_lock: Option<PathBuf>,
    pub(crate) limits: PhaseLimits,
    pub(crate) max_job_duration: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) max_log_bytes: u64,
    pub(crate) network: Network,
    pub(crate) owner: Owner,
    pub(crate) default_memory_bytes: Option<u64>,
    pub(crate) hide_queue: bool,
    pub(crate) secrets: Secrets,
    /// `None`: no memory file system is shared with the Engine's host.
    pub(crate) secret_files: Option<SecretFiles>,
    pub(crate) shell_fallback: bool,
    pub(crate) enforce_cpus: bool,
    /// Containers have an init of the Engine's, which starts the program.
    pub(crate) has_init: bool,
    /// What one job may have on disk.
    pub(crate) job_disk_bytes: u64,
    /// Names of the containers of all runs under way.
    pub(crate) active: Mutex<HashSet<String>>,
    /// Longest result that the relay takes.
    pub(crate) max_finish_bytes: AtomicU64,
}

impl<E> Shared<E> {
    pub(crate) fn worker(&self) -> WorkerId {
        match self.worker.read() {
            Ok(id) => id.clone(),
            // Nothing that holds this lock can fail half way.
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub(crate) fn active(&self) -> HashSet<String> {
        self.active.lock().map(|active| active.clone()).unwrap_or_default()
    }

    pub(super) fn mark_active(&self, name: &str, is_active: bool) {
        if let Ok(mut active) = self.active.lock() {
            if is_active {
                active.insert(name.to_owned())
            } else {
                active.remove(name)
            };
        }
    }

    pub(crate) fn rename(&self, id: WorkerId) {
        match self.worker.write() {
            Ok(mut known) => *known = id,
            Err(poisoned) => *poisoned.into_inner() = id,
        }
    }
}

/// What one run is.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) key: RunKey,
    pub(crate) queue: QueueKey,
    pub(crate) grant: LeaseGrant,
    pub(crate) directory: RunDirectory,
    pub(crate) state: RunState,
    pub(crate) share: Share,
    pub(crate) outbox: Outbox,
    /// Volume at `/job-cache`.
    pub(crate) cache_volume: Option<String>,
}

impl Run {
    /// The run that `state` says, of a queue of this worker.
    pub(crate) fn new(key: RunKey, queue: &Queue, directory: RunDirectory, state: RunState) -> Self {
        Self {
            key,
            queue: queue.key.clone(),
            grant: state.grant.clone(),
            share: state.share(),
            directory,
            outbox: queue.outbox.clone(),
            cache_volume: queue.cache_volume.clone(),
            state,
        }
    }
}
