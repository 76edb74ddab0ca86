//! A folder of things named by digests, in 256 folders by their first two digits: so that no folder is large, and
//! garbage collection can take one after the other.
//!
//! When a thing was last needed is its time of change: whoever counts on it sets that anew ([`touch`]).

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dockframe_shared::Timestamp;

/// A file that was touched so lately need not be touched again: it is kept for weeks.
pub(super) const LATELY: Duration = Duration::from_secs(24 * 3600);

/// What garbage collection calls the parts of such a folder.
pub(crate) fn shards() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|number| format!("{number:02x}"))
}

pub(super) fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0))
}

/// Names in one part, of what was not touched since `before`. Blocks.
pub(super) fn untouched(folder: &Path, shard: &str, before: SystemTime) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder.join(shard)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // What goes while it is looked at is gone; what has no name of ours is not ours.
        let (Ok(metadata), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
        if changed(&metadata) < before {
            names.push(name);
        }
    }
    Ok(names)
}

fn changed(metadata: &Metadata) -> SystemTime {
    // A file system without times of change keeps everything.
    metadata.modified().unwrap_or_else(|_| SystemTime::now())
}

/// Says that a thing is needed, unless that was said so lately; whether it is there. Blocks for a few system calls.
pub(super) fn touch(path: &Path, now: SystemTime, lately: Duration) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let since = now.duration_since(changed(&file.metadata()?));
    if since.is_ok_and(|since| since >= lately) {
        file.set_modified(now)?;
        // It may have been put aside between the two.
        return path.try_exists();
    }
    Ok(true)
}

/// Takes a thing away, a file or a folder, unless it was touched since `before`. Whoever touches it meanwhile either
/// keeps it or is told that it is gone. Blocks.
pub(super) fn remove_untouched(path: &Path, incoming: &Path, before: SystemTime) -> Result<bool> {
    let aside: PathBuf = incoming.join(uuid::Uuid::new_v4().simple().to_string());
    match std::fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let metadata = std::fs::metadata(&aside)?;
    if changed(&metadata) >= before {
        std::fs::rename(&aside, path)?;
        return Ok(false);
    }
    if metadata.is_dir() {
        std::fs::remove_dir_all(&aside)?
    } else {
        std::fs::remove_file(&aside)?
    }
    Ok(true)
}

/// Takes away what uploads left behind that nobody has added to since `before`. Blocks.
pub(super) fn clear_incoming(incoming: &Path, before: SystemTime) -> Result<()> {
    for entry in std::fs::read_dir(incoming)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if changed(&metadata) < before {
            let gone = if metadata.is_dir() {
                std::fs::remove_dir_all(entry.path())
            } else {
                std::fs::remove_file(entry.path())
            };
            // Another relay may do the same.
            if let Err(error) = gone
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_stays_and_what_is_not_goes() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = folder.path().join("incoming");
        std::fs::create_dir_all(folder.path().join("ab")).unwrap();
        std::fs::create_dir(&incoming).unwrap();
        let now = SystemTime::now();
        let long_ago = now - 30 * LATELY;
        let [used, unused] = ["ab1", "ab2"].map(|name| folder.path().join("ab").join(name));
        for path in [&used, &unused] {
            File::create(path).unwrap().set_modified(long_ago).unwrap();
        }
        let before = now - 3 * LATELY;
        let mut names = untouched(folder.path(), "ab", before).unwrap();
        names.sort();
        assert_eq!(names, ["ab1", "ab2"]);
        assert!(touch(&used, now, LATELY).unwrap());
        assert!(!touch(&folder.path().join("ab/ab3"), now, LATELY).unwrap());
        assert_eq!(untouched(folder.path(), "ab", before).unwrap(), ["ab2"]);
        assert!(!remove_untouched(&used, &incoming, before).unwrap());
        assert!(remove_untouched(&unused, &incoming, before).unwrap());
        assert!(!remove_untouched(&unused, &incoming, before).unwrap());
        assert!(used.exists() && !unused.exists());
        assert_eq!(std::fs::read_dir(&incoming).unwrap().count(), 0);
    }

    #[test]
    fn an_upload_that_goes_on_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        let now = SystemTime::now();
        File::create(&old).unwrap().set_modified(now - LATELY).unwrap();
        File::create(&new).unwrap();
        clear_incoming(folder.path(), now - Duration::from_secs(3600)).unwrap();
        assert!(!old.exists() && new.exists());
    }
}
