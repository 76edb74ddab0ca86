//! Under which id a worker registers, and the place on disk that goes with it (`worker` 2.5).
//!
//! A place is held by a lock on a file in it, so two processes never share one. The first is the data directory
//! itself; a second process with the same directory gets a *slot*, a directory of its own below it, with an id of
//! its own. The lock is the kernel's: it is gone when the process is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dockframe_shared::WorkerId;
use tracing::warn;
use uuid::Uuid;

use crate::config::WorkerIdChoice;

/// More processes than anybody starts on one directory.
const MAX_SLOTS: u32 = 256;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the data directory {path} cannot be used: {cause}")]
    Directory { path: String, cause: io::Error },
    #[error("all {MAX_SLOTS} places in the data directory are taken by other workers")]
    Full,
}

/// A place on disk that is ours alone, and the id that belongs to it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: WorkerId,
    /// Runs and results are below it.
    pub(crate) place: PathBuf,
    /// Held for as long as the process lives.
    pub(crate) lock_path: PathBuf,
    _lock: File,
}

impl Identity {
    /// The first free place of `directory`, which is made if missing.
    pub(crate) fn acquire(directory: &Path, choice: &WorkerIdChoice) -> Result<Self, IdentityError> {
        Self::from_slot(directory, choice, 1)
    }

    /// A place after the first, with an id of its own: another process elsewhere works under ours.
    pub(crate) fn acquire_slot(directory: &Path) -> Result<Self, IdentityError> {
        Self::from_slot(directory, &WorkerIdChoice::Stored, 2)
    }

    fn from_slot(directory: &Path, choice: &WorkerIdChoice, first: u32) -> Result<Self, IdentityError> {
        for slot in first..=MAX_SLOTS {
            let place = match slot {
                1 => directory.to_owned(),
                _ => directory.join(format!("slot-{slot}")),
            };
            let failed = |cause| IdentityError::Directory { path: place.display().to_string(), cause };
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&place).map_err(failed)?;
            let lock_path = place.join("worker.lock");
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&lock_path)
                .map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
            if slot > 1 && first == 1 {
                warn!(
                    "another worker uses this data directory, going on under an id of its own (slot {slot})"
                );
            }
            let id = match choice {
                WorkerIdChoice::Given(id) if slot == 1 => id.clone(),
                WorkerIdChoice::Fresh => random_id(),
                _ => stored_id(&place).map_err(failed)?,
            };
            return Ok(Self { id, place, lock_path, _lock: lock });
        }
        Err(IdentityError::Full)
    }
}

fn stored_id(place: &Path) -> io::Result<WorkerId> {
    let path = place.join("worker-id");
    let mut text = String::new();
    if let Ok(file) = File::open(&path) {
        file.take(1024).read_to_string(&mut text)?;
        if let Ok(id) = WorkerId::new(text.trim()) {
            return Ok(id);
        }
    }
    let id = random_id();
    let fresh = place.join("worker-id.new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    Ok(id)
}

fn random_id() -> WorkerId {
    // A UUID is a short printable text, which every id may be.
    #[expect(clippy::expect_used, reason = "see above")]
    WorkerId::new(Uuid::new_v4().to_string()).expect("a UUID is a worker id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_persists_with_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::acquire(directory.path(), &WorkerIdChoice::Stored).unwrap();
        let id = first.id.clone();
        drop(first);
        assert_eq!(Identity::acquire(directory.path(), &WorkerIdChoice::Stored).unwrap().id, id);
    }

    #[test]
    fn a_given_id_wins_and_is_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let given = WorkerIdChoice::Given(WorkerId::new("mine").unwrap());
        assert_eq!(Identity::acquire(directory.path(), &given).unwrap().id.as_str(), "mine");
        assert_ne!(Identity::acquire(directory.path(), &WorkerIdChoice::Stored).unwrap().id.as_str(), "mine");
        let fresh = |()| Identity::acquire(directory.path(), &WorkerIdChoice::Fresh).unwrap().id;
        assert_ne!(fresh(()), fresh(()));
    }

    #[test]
    fn a_second_process_on_the_same_directory_gets_another_id_and_place() {
        let directory = tempfile::tempdir().unwrap();
        let given = WorkerIdChoice::Given(WorkerId::new("mine").unwrap());
        let first = Identity::acquire(directory.path(), &given).unwrap();
        let second = Identity::acquire(directory.path(), &given).unwrap();
        assert_ne!(first.id, second.id);
        assert_ne!(first.place, second.place);
        let third = Identity::acquire_slot(directory.path()).unwrap();
        assert_ne!(second.place, third.place);
    }
}
