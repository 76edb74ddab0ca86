//! What a run needs to be taken up again by the next process: its directory and `state.json` (`worker` 4.1, 17).
//!
//! Every run has a directory of its own, so that an old run's files and late writes never meet a new one. The state
//! is written before the lease is accepted, and synced: what was accepted is known after a crash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dockframe_shared::protocol::LeaseGrant;
use dockframe_shared::{Amount, QueueKey, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::capacity::Share;
use crate::executor::Image;
use crate::files::names::job_directory;

/// A file of a run that is larger was not written by us.
const MAX_STATE_BYTES: u64 = 64 << 20;

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    /// Random, and the end of the container's name.
    run: String,
}

/// What is known of a run on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunState {
    /// SHA-256 of the queue's name, hex.
    pub(crate) queue: String,
    pub(crate) grant: LeaseGrant,
    pub(crate) accepted: Timestamp,
    pub(crate) slots: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: Vec<String>,
    /// Set just before the container is created.
    #[serde(default)]
    pub(crate) started: bool,
    #[serde(default)]
    pub(crate) image: Image,
    #[serde(default)]
    pub(crate) phases: BTreeMap<String, Amount>,
    /// Hard limit of the container.
    #[serde(default)]
    pub(crate) memory_limit: Option<u64>,
}

impl RunState {
    /// The part of the machine that the run holds.
    pub(crate) fn share(&self) -> Share {
        Share { slots: self.slots, memory_bytes: self.memory_bytes, gpus: self.gpus.clone() }
    }
}

impl RunDirectory {
    /// A new one below the worker's place, not made yet.
    pub(crate) fn new(place: &Path, queue: &QueueKey, grant: &LeaseGrant) -> Self {
        let run = Uuid::new_v4().simple().to_string();
        Self { path: place.join(job_directory(queue, &grant.job_id)).join(&run), run }
    }

    /// Makes it, empty.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if let Some(jobs) = self.path.parent().and_then(Path::parent) {
            // Other users of the machine have no business with jobs' files.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(jobs)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.path)?;
        for (name, mode) in [("inputs", 0o755), ("outputs", 0o777), ("mounted", 0o755)] {
            let path = self.path.join(name);
            fs::DirBuilder::new().create(&path)?;
            // Not subject to the umask: containers of any user write outputs.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    pub(crate) fn outputs(&self) -> PathBuf {
        self.path.join("outputs")
    }

    /// Files that are mounted one by one, by number.
    pub(crate) fn mounted(&self) -> PathBuf {
        self.path.join("mounted")
    }

    pub(crate) fn container_name(&self) -> String {
        format!("dockframe-{}", self.run)
    }

    /// Durable when it returns.
    pub(crate) fn save(&self, state: &RunState) -> io::Result<()> {
        write_durably(&self.path, "state.json", &serde_json::to_vec(state)?)
    }

    pub(crate) fn load(&self) -> io::Result<RunState> {
        let path = self.path.join("state.json");
        if fs::metadata(&path)?.len() > MAX_STATE_BYTES {
            return Err(io::Error::other("it is too large to be a run's state"));
        }
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// All runs that were left below a worker's place.
    pub(crate) fn all(place: &Path) -> Vec<Self> {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let mut found = Vec::new();
        for job in entries(&place.join("j")) {
            for run in entries(&job.path()) {
                if let Some(name) = run.file_name().to_str().filter(|name| name.len() == 32) {
                    found.push(Self { path: run.path(), run: name.to_owned() });
                }
            }
        }
        found
    }

    /// Removes the run, and the job's directory when this was its last run.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(job) = self.path.parent() {
            // Not empty: another run of the job is there.
            let _ = fs::remove_dir(job);
        }
        Ok(())
    }
}

/// Writes a file so that after a crash either the old or the new content is there, whole.
pub(crate) fn write_durably(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let fresh = directory.join(format!("{name}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use dockframe_shared::job::{Control, Definition};
    use dockframe_shared::{JobId, LeaseId};

    use super::*;

    fn grant(job: &str) -> LeaseGrant {
        LeaseGrant {
            lease_id: LeaseId::new("l").unwrap(),
            job_id: JobId::new(job).unwrap(),
            attempt: 1,
            definition: Definition::default(),
            control: Control::default(),
            deadline_ms: 1000,
        }
    }

    #[test]
    fn a_run_is_found_again_and_removed_without_a_trace() {
        let place = tempfile::tempdir().unwrap();
        let queue = QueueKey::new("q").unwrap();
        for job in ["plain", "../../escape"] {
            let grant = grant(job);
            let directory = RunDirectory::new(place.path(), &queue, &grant);
            directory.prepare().unwrap();
            assert!(directory.path.starts_with(place.path().join("j")));
            let state = RunState {
                queue: queue.digest().to_hex(),
                grant,
                accepted: Timestamp::from_millis(1),
                slots: 1.0,
                memory_bytes: 0,
                gpus: vec!["0".into()],
                started: false,
                image: Image::default(),
                phases: BTreeMap::new(),
                memory_limit: None,
            };
            directory.save(&state).unwrap();
            let found = RunDirectory::all(place.path());
            assert_eq!(found, [directory]);
            assert_eq!(found[0].load().unwrap(), state);
            found[0].remove().unwrap();
        }
        assert_eq!(fs::read_dir(place.path().join("j")).unwrap().count(), 0);
    }

    #[test]
    fn two_runs_of_a_job_share_nothing() {
        let place = tempfile::tempdir().unwrap();
        let queue = QueueKey::new("q").unwrap();
        let first = RunDirectory::new(place.path(), &queue, &grant("j"));
        let second = RunDirectory::new(place.path(), &queue, &grant("j"));
        first.prepare().unwrap();
        second.prepare().unwrap();
        assert_ne!(first.outputs(), second.outputs());
        assert_ne!(first.container_name(), second.container_name());
        first.remove().unwrap();
        assert!(second.outputs().exists());
        let mode = fs::metadata(second.outputs()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
    }
}
