//! Names of a job's files, made safe (`worker` 7.3). Pure.
//!
//! A name comes from whoever wrote the job. What leaves this module is relative, normalised, bounded, and names no
//! file that is another one's directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dockframe_shared::{JobId, QueueKey};
use sha2::{Digest, Sha256};

const MAX_SEGMENT_BYTES: usize = 255;
const MAX_NAME_BYTES: usize = 4096;
const MAX_DEPTH: usize = 32;

/// Why a name cannot be a job's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFileName {
    #[error("it is empty")]
    Empty,
    #[error("it has a `..`")]
    Parent,
    #[error("it has a NUL character")]
    Nul,
    #[error("it is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    #[error("one of its parts is longer than {MAX_SEGMENT_BYTES} bytes")]
    SegmentTooLong,
    #[error("it is deeper than {MAX_DEPTH} directories")]
    TooDeep,
    #[error("it is also the directory of another file")]
    AlsoDirectory,
    #[error("it must be written without `.`, `..` and double or final slashes")]
    NotNormal,
    #[error("nothing may be put there")]
    Reserved,
}

/// A path below some directory: normalised, without `..`, never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelativePath(String);

impl RelativePath {
    /// Empty and `.` segments are dropped; a leading slash has no meaning.
    pub(crate) fn parse(name: &str) -> Result<Self, BadFileName> {
        if name.contains('\0') {
            return Err(BadFileName::Nul);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(BadFileName::TooLong);
        }
        let segments: Vec<&str> = name.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
        if segments.is_empty() {
            return Err(BadFileName::Empty);
        }
        if segments.contains(&"..") {
            return Err(BadFileName::Parent);
        }
        if segments.iter().any(|segment| segment.len() > MAX_SEGMENT_BYTES) {
            return Err(BadFileName::SegmentTooLong);
        }
        if segments.len() > MAX_DEPTH {
            return Err(BadFileName::TooDeep);
        }
        Ok(Self(segments.join("/")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    pub(crate) fn parent(&self) -> Option<&Path> {
        self.as_path().parent().filter(|parent| !parent.as_os_str().is_empty())
    }
}

/// Where a config file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigTarget {
    /// Among the inputs.
    Input(RelativePath),
    /// Mounted at this absolute path of the container.
    Mounted(String),
}

impl ConfigTarget {
    pub(crate) fn parse(name: &str) -> Result<Self, BadFileName> {
        if let Some(rest) = name.strip_prefix("/inputs/") {
            return RelativePath::parse(rest).map(Self::Input);
        }
        if !name.starts_with('/') {
            return RelativePath::parse(name).map(Self::Input);
        }
        let relative = RelativePath::parse(name)?;
        if relative.as_str() != &name[1..] {
            return Err(BadFileName::NotNormal);
        }
        let top = relative.as_str().split('/').next().unwrap_or_default();
        if matches!(top, "proc" | "sys" | "dev" | "inputs" | "outputs" | "job-cache") {
            return Err(BadFileName::Reserved);
        }
        Ok(Self::Mounted(name.to_owned()))
    }
}

/// Refuses a set of names in which one is the directory of another. The offending name is in the error.
pub(crate) fn check_conflicts<'a>(
    names: impl IntoIterator<Item = &'a RelativePath>,
) -> Result<(), (String, BadFileName)> {
    let names: BTreeSet<&str> = names.into_iter().map(RelativePath::as_str).collect();
    for name in &names {
        let mut directory = Path::new(name);
        while let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            if let Some(text) = parent.to_str().filter(|text| names.contains(text)) {
                return Err((text.to_owned(), BadFileName::AlsoDirectory));
            }
            directory = parent;
        }
    }
    Ok(())
}

/// A job's id as label and directory: itself when harmless, else its digest.
pub(crate) fn job_label(job: &JobId) -> String {
    let text = job.as_str();
    let harmless = text.len() <= 128
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if harmless { text.to_owned() } else { dockframe_shared::ids::hex(&Sha256::digest(text.as_bytes())) }
}

/// Directory of all runs of a job of a queue, relative to the worker's place.
pub(crate) fn job_directory(queue: &QueueKey, job: &JobId) -> PathBuf {
    Path::new("j").join(format!("{}-{}", queue.digest(), job_label(job)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_normalised_or_refused_with_a_reason() {
        for (name, expected) in [
            ("a.txt", Ok("a.txt")),
            ("/a//b/./c", Ok("a/b/c")),
            ("日本/ü.txt", Ok("日本/ü.txt")),
            (".hidden", Ok(".hidden")),
            ("..a", Ok("..a")),
            ("", Err(BadFileName::Empty)),
            ("./", Err(BadFileName::Empty)),
            ("../x", Err(BadFileName::Parent)),
            ("a/../../x", Err(BadFileName::Parent)),
            ("a\0b", Err(BadFileName::Nul)),
        ] {
            let path = RelativePath::parse(name);
            assert_eq!(path.as_ref().map(RelativePath::as_str), expected.as_ref().copied(), "{name:?}");
        }
    }

    #[test]
    fn bounds_hold_at_the_edge_and_one_past_it() {
        assert!(RelativePath::parse(&"x".repeat(255)).is_ok());
        assert_eq!(RelativePath::parse(&"x".repeat(256)), Err(BadFileName::SegmentTooLong));
        assert!(RelativePath::parse(&["x"; 32].join("/")).is_ok());
        assert_eq!(RelativePath::parse(&["x"; 33].join("/")), Err(BadFileName::TooDeep));
        assert_eq!(RelativePath::parse(&"x".repeat(4097)), Err(BadFileName::TooLong));
    }

    #[test]
    fn config_files_go_among_the_inputs_or_to_their_own_path() {
        let input = |name| Ok(ConfigTarget::Input(RelativePath(String::from(name))));
        assert_eq!(ConfigTarget::parse("run.sh"), input("run.sh"));
        assert_eq!(ConfigTarget::parse("/inputs/a/run.sh"), input("a/run.sh"));
        assert_eq!(ConfigTarget::parse("/etc/a:b.conf"), Ok(ConfigTarget::Mounted("/etc/a:b.conf".into())));
        for name in [
            "/",
            "/proc/x",
            "/dev/null",
            "/outputs/x",
            "/job-cache/x",
            "/etc/../x",
            "/etc//x",
            "/etc/",
            "/inputs",
        ] {
            assert!(ConfigTarget::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_also_a_directory_is_refused() {
        let paths = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| RelativePath::parse(name).unwrap()).collect()
        };
        assert!(check_conflicts(&paths(&["a", "b/a", "b/c/a"])).is_ok());
        let refused = check_conflicts(&paths(&["a/b/c", "a", "z"]));
        assert_eq!(refused, Err(("a".to_owned(), BadFileName::AlsoDirectory)));
    }

    #[test]
    fn odd_job_ids_become_digests() {
        let label = |id: &str| job_label(&JobId::new(id).unwrap());
        assert_eq!(label("0e43af30"), "0e43af30");
        assert_eq!(label("..").len(), 64);
        assert_eq!(label("../x").len(), 64);
        assert_eq!(label(&"x".repeat(129)).len(), 64);
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_directory(name in "[a./\\x00 \\\\:é-]{0,40}") {
            if let Ok(path) = RelativePath::parse(&name) {
                let components: Vec<_> = path.as_path().components().collect();
                prop_assert!(!components.is_empty());
                prop_assert!(components.iter().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(RelativePath::parse(path.as_str()), Ok(path.clone()));
            }
        }
    }
}
