//! What was left behind: containers and directories of runs that nobody takes up again (`worker` 16, 22.2 B10).
//!
//! Only what is provably nobody's is touched: this worker's own containers that are in no run under way, and others'
//! whose worker is dead, because the lock it held can be taken, or whose lease is long over. Never a live worker's,
//! and never one without our labels.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::executor::{Executor, Labelled};
use crate::metrics;
use crate::state::RunDirectory;
use crate::unit::Shared;

/// Between two looks. What is removed was seen by two of them: a worker that restarts has its lock back by then.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long after its deadline a container is nobody's, whoever made it.
const OVERDUE_MS: i64 = 3_600_000;

/// At the start: removes all containers of this worker and all runs in its place, but for those of `kept`.
pub(crate) async fn clear<E: Executor>(executor: &E, worker: &str, place: &Path, kept: &HashSet<String>) {
    match executor.list().await {
        Ok(containers) => {
            let ours = |container: &&Labelled| container.worker == worker && !kept.contains(&container.name);
            for container in containers.iter().filter(ours) {
                remove(executor, container).await;
            }
        }
        Err(error) => warn!("the containers of earlier processes cannot be listed: {error}"),
    }
    let runs = RunDirectory::all(place).into_iter().filter(|run| !kept.contains(&run.container_name()));
    for run in runs {
        let removed = tokio::task::spawn_blocking(move || run.remove()).await;
        if let Ok(Err(error)) = removed {
            warn!("a run's directory could not be removed: {error}");
        }
    }
}

/// While the worker runs. An Engine that does not answer ends nothing here.
pub(crate) async fn run<E: Executor>(shared: Arc<Shared<E>>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspects = HashSet::new();
    loop {
        looks.tick().await;
        let Ok(containers) = shared.executor.list().await else { continue };
        let worker = shared.worker();
        let active = shared.active();
        let mut seen = HashSet::new();
        for container in containers {
            let is_orphan = if container.worker == worker.as_str() {
                !active.contains(&container.name)
            } else {
                is_abandoned(&container)
            };
            if !is_orphan {
                continue;
            }
            if suspects.contains(&container.name) {
                shared.sources.metrics.add(&metrics::ORPHANS, "", 1);
                remove(&shared.executor, &container).await;
            } else {
                seen.insert(container.name);
            }
        }
        suspects = seen;
    }
}

/// Whether another worker's container has provably no worker any more.
fn is_abandoned(container: &Labelled) -> bool {
    let is_overdue = container.deadline.is_some_and(|deadline| clock::now().since(deadline) > OVERDUE_MS);
    let lock_is_free = || {
        // Not made if missing: that would say nothing about its owner.
        let lock = container.lock.as_ref().and_then(|path| File::options().write(true).open(path).ok());
        lock.is_some_and(|lock| lock.try_lock().is_ok())
    };
    is_overdue || lock_is_free()
}

async fn remove<E: Executor>(executor: &E, container: &Labelled) {
    info!("removing a container that no worker looks after");
    if let Err(error) = executor.remove(&container.name).await {
        warn!("a container could not be removed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_workers_containers_are_abandoned() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker.lock");
        let container = |lock, deadline| Labelled { name: "c".into(), worker: "w".into(), lock, deadline };
        let hour = 3_600_000;
        assert!(!is_abandoned(&container(None, None)), "made by a worker that says nothing");
        assert!(!is_abandoned(&container(Some(path.clone()), None)), "its lock cannot be seen");
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        assert!(!is_abandoned(&container(Some(path.clone()), None)), "its worker lives");
        drop(lock);
        assert!(is_abandoned(&container(Some(path), None)), "its worker is dead");
        let now = clock::now();
        assert!(!is_abandoned(&container(None, Some(now.plus_millis(-hour + 1000)))));
        assert!(is_abandoned(&container(None, Some(now.plus_millis(-hour - 1000)))));
    }
}
