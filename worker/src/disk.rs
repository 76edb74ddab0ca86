//! How full the worker's disk is, and what follows from it (`worker` 17, 22.2 B9).
//!
//! The numbers are the file system's, at the moment of asking: whoever else writes to it counts too.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

/// When a disk counts as low, and when as so full that images must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRules {
    /// Below this share of the whole, or `low_bytes` if that is less, no job is taken.
    pub low_percent: u64,
    pub low_bytes: u64,
    /// From this use on images are removed …
    pub images_from_percent: u64,
    /// … down to this one.
    pub images_to_percent: u64,
}

impl Default for DiskRules {
    fn default() -> Self {
        Self { low_percent: 5, low_bytes: 2 << 30, images_from_percent: 85, images_to_percent: 80 }
    }
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// The file system of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    path: PathBuf,
    rules: DiskRules,
}

impl Space {
    fn is_low(self, rules: &DiskRules) -> bool {
        self.free < rules.low_bytes.min(self.total / 100 * rules.low_percent)
    }

    /// How full it is, in percent of the whole.
    pub(crate) fn used_percent(self) -> u64 {
        (self.total - self.free.min(self.total)).saturating_mul(100).checked_div(self.total).unwrap_or(0)
    }
}

impl Disk {
    pub(crate) fn new(path: &Path, rules: DiskRules) -> Self {
        Self { path: path.to_owned(), rules }
    }

    pub(crate) fn rules(&self) -> &DiskRules {
        &self.rules
    }

    /// `None` where the system does not say.
    pub(crate) fn space(&self) -> Option<Space> {
        let found = statvfs(&self.path).ok()?;
        let size = found.f_frsize.max(1);
        let space =
            Space { total: found.f_blocks.saturating_mul(size), free: found.f_bavail.saturating_mul(size) };
        (space.total > 0).then_some(space)
    }

    /// Why no job is to be taken now, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        let space = self.space()?;
        space.is_low(&self.rules).then(|| {
            format!(
                "this worker's disk is nearly full: {} of {} MiB are free",
                space.free >> 20,
                space.total >> 20
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_a_share_of_it_or_two_gibibytes_whichever_is_less() {
        let rules = DiskRules::default();
        let low = |total: u64, free: u64| Space { total, free }.is_low(&rules);
        let gib = 1 << 30;
        assert!(low(1000 * gib, 2 * gib - 1));
        assert!(!low(1000 * gib, 2 * gib));
        assert!(low(1000 << 20, (50 << 20) - 1));
        assert!(!low(1000 << 20, 50 << 20));
    }

    #[test]
    fn use_is_told_in_percent() {
        assert_eq!(Space { total: 1000, free: 150 }.used_percent(), 85);
        assert_eq!(Space { total: 0, free: 0 }.used_percent(), 0);
        let here = Disk::new(Path::new("/"), DiskRules::default());
        assert!(here.space().unwrap().free <= here.space().unwrap().total);
    }
}
