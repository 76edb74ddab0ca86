//! Secrets as files that are on no disk (`worker` 22.1, B26): in a memory file system of the Engine's host, where this
//! process sees one. They go with the run, and with the machine.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use dockframe_shared::ids::hex;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::inputs::Owner;

/// The secret files of one worker.
#[derive(Debug, Clone)]
pub(crate) struct SecretFiles {
    directory: PathBuf,
}

impl SecretFiles {
    /// Below `memory`, for the worker of this place on disk; what runs left there that are not `kept` is removed.
    pub(crate) fn open(memory: &Path, place: &Path, kept: &HashSet<String>) -> io::Result<Self> {
        let name = hex(&Sha256::digest(place.as_os_str().as_encoded_bytes()));
        let directory = memory.join(format!("dockframe-{}", &name[..16]));
        match DirBuilder::new().mode(0o700).create(&directory) {
            // Whoever else made it could read what is written there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let metadata = fs::symlink_metadata(&directory)?;
                let me = rustix::process::geteuid().as_raw();
                if !metadata.is_dir() || std::os::unix::fs::MetadataExt::uid(&metadata) != me {
                    return Err(io::Error::other(format!("{} is somebody else's", directory.display())));
                }
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
            }
            other => other?,
        }
        let files = Self { directory };
        for entry in fs::read_dir(&files.directory)?.flatten() {
            let run = entry.file_name().to_string_lossy().into_owned();
            if !kept.contains(&run) {
                files.remove(&run);
            }
        }
        Ok(files)
    }

    /// Writes the secrets of a run, by its container's name; where they are, in this order.
    pub(crate) fn write(
        &self,
        run: &str,
        secrets: &[(String, String)],
        owner: Owner,
    ) -> io::Result<Vec<PathBuf>> {
        let directory = self.directory.join(run);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let write = |(number, (_, value)): (usize, &(String, String))| {
            let path = directory.join(number.to_string());
            // The container's user may be any.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
            file.write_all(value.as_bytes())?;
            if let Some((uid, gid)) = owner {
                // A worker that is not root cannot give files away; they stay readable.
                let _ = fchown(&file, Some(uid), Some(gid));
            }
            Ok(path)
        };
        secrets.iter().enumerate().map(write).collect()
    }

    pub(crate) fn remove(&self, run: &str) {
        match fs::remove_dir_all(self.directory.join(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("a run's secrets cannot be removed from memory: {error}");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_there_for_their_run_and_gone_after_it() {
        let memory = tempfile::tempdir().unwrap();
        let place = Path::new("/data/remote");
        let files = SecretFiles::open(memory.path(), place, &HashSet::new()).unwrap();
        let secrets = [("A".to_owned(), "one".to_owned()), ("B".to_owned(), "two".to_owned())];
        let paths = files.write("run-1", &secrets, None).unwrap();
        assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "two");
        assert_eq!(fs::metadata(&files.directory).unwrap().permissions().mode() & 0o777, 0o700);
        files.write("run-2", &secrets, None).unwrap();
        // A process that follows keeps what belongs to runs that it takes up.
        let kept = HashSet::from(["run-1".to_owned()]);
        let files = SecretFiles::open(memory.path(), place, &kept).unwrap();
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "one");
        assert_eq!(fs::read_dir(&files.directory).unwrap().count(), 1);
        files.remove("run-1");
        files.remove("run-1");
        assert_eq!(fs::read_dir(&files.directory).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_their_place_is_not_followed() {
        let memory = tempfile::tempdir().unwrap();
        let place = Path::new("/data/remote");
        let files = SecretFiles::open(memory.path(), place, &HashSet::new()).unwrap();
        fs::remove_dir(&files.directory).unwrap();
        std::os::unix::fs::symlink("/etc", &files.directory).unwrap();
        assert!(SecretFiles::open(memory.path(), place, &HashSet::new()).is_err());
    }
}
