//! Results that are on disk before they are sent (`worker` 22.3, B14).
//!
//! A result is written under its lease and synced, sent until the relay has answered, and kept for ten minutes more:
//! a relay whose store lost its tail asks again by greeting with another epoch. Execution is at least once, but a
//! result that was once made is never made again.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dockframe_shared::protocol::{LeaseFinish, WorkerMessage};
use dockframe_shared::{LeaseId, QueueKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::state::write_durably;

/// The results of one queue on disk.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    directory: PathBuf,
}

impl Outbox {
    pub(crate) fn open(place: &Path, queue: &QueueKey) -> io::Result<Self> {
        let directory = place.join("outbox").join(queue.digest().to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// Durable when it returns the frame to be sent.
    pub(crate) fn put(&self, lease: &LeaseId, value: Value) -> io::Result<String> {
        let message = WorkerMessage::LeaseFinish(LeaseFinish { lease_id: lease.clone(), value });
        let frame = serde_json::to_string(&message)?;
        write_durably(&self.directory, &name(lease), frame.as_bytes())?;
        Ok(frame)
    }

    /// The frame to be sent.
    pub(crate) fn get(&self, lease: &LeaseId) -> io::Result<Option<String>> {
        match fs::read_to_string(self.directory.join(name(lease))) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn remove(&self, lease: &LeaseId) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name(lease))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The last epoch of the relay's store that is known.
    pub(crate) fn epoch(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("epoch")).ok().filter(|epoch| !epoch.is_empty())
    }

    pub(crate) fn set_epoch(&self, epoch: &str) -> io::Result<()> {
        write_durably(&self.directory, "epoch", epoch.as_bytes())
    }

    /// Leases of all results that are here, also of earlier processes.
    pub(crate) fn leases(&self) -> Vec<LeaseId> {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let letters = files.filter(|file| file.path().extension().is_some_and(|end| end == "json"));
        letters
            .filter_map(|file| match WorkerMessage::read(&fs::read_to_string(file.path()).ok()?) {
                Ok(WorkerMessage::LeaseFinish(finish)) => Some(finish.lease_id),
                _ => None,
            })
            .collect()
    }
}

/// A lease id is any text.
fn name(lease: &LeaseId) -> String {
    format!("{}.json", dockframe_shared::ids::hex(&Sha256::digest(lease.as_str().as_bytes())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_survives_its_process_and_goes_out_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let queue = QueueKey::new("q").unwrap();
        let lease = LeaseId::new("../../odd lease").unwrap();
        Outbox::open(place.path(), &queue).unwrap().put(&lease, json!({"reason": "Success"})).unwrap();

        let outbox = Outbox::open(place.path(), &queue).unwrap();
        assert_eq!(outbox.leases(), std::slice::from_ref(&lease));
        let letter = outbox.get(&lease).unwrap().unwrap();
        assert_eq!(
            letter,
            r#"{"type":"LeaseFinish","payload":{"leaseId":"../../odd lease","value":{"reason":"Success"}}}"#
        );
        outbox.remove(&lease).unwrap();
        outbox.remove(&lease).unwrap();
        assert_eq!((outbox.leases(), outbox.get(&lease).unwrap()), (Vec::new(), None));
    }

    #[test]
    fn queues_do_not_see_each_others_results() {
        let place = tempfile::tempdir().unwrap();
        let open = |name| Outbox::open(place.path(), &QueueKey::new(name).unwrap()).unwrap();
        open("a").put(&LeaseId::new("l").unwrap(), json!(1)).unwrap();
        assert!(open("b").leases().is_empty());
    }
}
