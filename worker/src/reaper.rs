//! What earlier processes left behind: containers and directories of runs that nobody takes up again.
//!
//! Only what carries this worker's own id is touched; other workers of the same Engine have others.

use std::collections::HashSet;
use std::path::Path;

use tracing::{info, warn};

use crate::executor::Executor;
use crate::state::RunDirectory;

/// Removes all containers of this worker and all runs in its place, but for those of `kept`.
pub(crate) async fn clear<E: Executor>(executor: &E, place: &Path, kept: &HashSet<String>) {
    match executor.list().await {
        Ok(containers) => {
            for container in containers.iter().filter(|container| !kept.contains(&container.name)) {
                info!("removing a container that an earlier process left behind");
                if let Err(error) = executor.remove(&container.name).await {
                    warn!("a container could not be removed: {error}");
                }
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
