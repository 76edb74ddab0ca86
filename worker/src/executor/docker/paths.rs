//! How a job's files come into its container (`worker` 4.2).
//!
//! Bind sources are resolved by the Engine, on its host. A worker in a container must not name its own paths there:
//! the Engine would look for them on the host, and a job would find nothing in `/inputs`. So the paths are
//! translated; and where the Engine's host does not see the worker's files at all, they are copied.

use std::path::{Path, PathBuf};

use bollard::models::MountPoint;

/// What the Engine's host and this process have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sharing {
    /// A directory.
    Paths(HostPaths),
    /// No files: they go through the Engine.
    Copies,
}

impl Sharing {
    /// What the host calls a path of ours, if it can see it.
    pub(super) fn to_host(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Paths(paths) => Some(paths.to_host(path)),
            Self::Copies => None,
        }
    }

    /// What this process calls a path of the host, if it can see it.
    pub(super) fn to_here(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Paths(paths) => paths.to_here(path),
            Self::Copies => None,
        }
    }
}

/// Translates paths below one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPaths {
    here: PathBuf,
    there: PathBuf,
}

impl HostPaths {
    pub(super) fn same(directory: &Path) -> Self {
        Self { here: directory.to_owned(), there: directory.to_owned() }
    }

    pub(super) fn given(here: &Path, there: &Path) -> Self {
        Self { here: here.to_owned(), there: there.to_owned() }
    }

    /// From the mounts of the worker's own container: the one that holds `directory`, if any does.
    pub(super) fn by_mounts(directory: &Path, mounts: &[MountPoint]) -> Option<Self> {
        let holds = |mount: &&MountPoint| {
            mount.destination.as_deref().is_some_and(|destination| directory.starts_with(destination))
        };
        let depth = |mount: &&MountPoint| mount.destination.as_deref().map_or(0, str::len);
        let mount = mounts.iter().filter(holds).max_by_key(depth)?;
        let rest = directory.strip_prefix(mount.destination.as_deref()?).ok()?;
        let source = Path::new(mount.source.as_deref().filter(|source| source.starts_with('/'))?);
        Some(Self { here: directory.to_owned(), there: source.join(rest) })
    }

    /// `path` as the host calls it. Paths elsewhere have no other name.
    pub(super) fn to_host(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.here) {
            Ok(rest) if rest.as_os_str().is_empty() => self.there.clone(),
            Ok(rest) => self.there.join(rest),
            Err(_) => path.to_owned(),
        }
    }

    /// What this process calls a path of the host; `None` for what it cannot see.
    pub(super) fn to_here(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.there).ok().map(|rest| self.here.join(rest))
    }
}

/// The id of the container that this process runs in, by what the Engine mounts into every container.
pub(super) fn own_container(mountinfo: &str) -> Option<String> {
    let files = ["/etc/hostname", "/etc/resolv.conf", "/etc/hosts"];
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !files.contains(&point) {
            return None;
        }
        let (_, rest) = root.split_once("/containers/")?;
        let id = rest.split('/').next()?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &str, destination: &str) -> MountPoint {
        MountPoint {
            source: Some(source.to_owned()),
            destination: Some(destination.to_owned()),
            ..MountPoint::default()
        }
    }

    #[test]
    fn the_longest_mount_that_holds_the_directory_names_it() {
        let mounts = [mount("/h", "/"), mount("/srv/vol/_data", "/data"), mount("/x", "/data2")];
        let paths = HostPaths::by_mounts(Path::new("/data/worker"), &mounts).unwrap();
        assert_eq!(paths.to_host(Path::new("/data/worker/j/1")), Path::new("/srv/vol/_data/worker/j/1"));
        assert_eq!(paths.to_host(Path::new("/data/worker")), Path::new("/srv/vol/_data/worker"));
        let lock = Path::new("/srv/vol/_data/worker/worker.lock");
        assert_eq!(paths.to_here(lock), Some(PathBuf::from("/data/worker/worker.lock")));
        assert_eq!(paths.to_here(Path::new("/data/worker/worker.lock")), None);
        assert_eq!(HostPaths::by_mounts(Path::new("/data/worker"), &mounts[2..]), None);
    }

    #[test]
    fn the_own_container_is_seen_in_mountinfo() {
        let id = "0123456789abcdef".repeat(4);
        let line = format!(
            "1386 1358 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw"
        );
        assert_eq!(own_container(&format!("1 2 3:4 / / rw - overlay o rw\n{line}")), Some(id));
        assert_eq!(own_container("36 35 98:0 / /etc/hosts rw - ext4 /dev/sda1 rw"), None);
    }
}
