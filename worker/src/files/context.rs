//! Build contexts: archives unpacked safely, and packed again for the Engine (`worker` 10.3, 10.4). Blocking.
//!
//! An archive comes from anybody. Nothing in it can be written outside of the given directory, and its size, its
//! number of entries and how far it unfolds are bounded.

mod ignored;
mod pack;
mod unpack;

use std::io;

use self::ignored::MAX_PATTERNS;
pub(crate) use self::pack::{Packed, pack};
use self::unpack::{MAX_ENTRIES, MAX_RATIO};
pub(crate) use self::unpack::{MAX_UNPACKED_BYTES, unpack, unpack_stream};
use super::names::BadFileName;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("it is neither a tar.gz nor a zip archive")]
    Format,
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("its entry \"{name}\" cannot be used: {why}")]
    Name { name: String, why: BadFileName },
    #[error("its entry \"{0}\" is a link to somewhere else")]
    Link(String),
    #[error(
        "it unpacks to more than {MAX_UNPACKED_BYTES} bytes, {MAX_ENTRIES} entries, or {MAX_RATIO} times its size"
    )]
    TooLarge,
    #[error("there is no {0} in it")]
    NoFile(String),
    #[error("its .dockerignore has a pattern that cannot be read: {0}")]
    Pattern(String),
    #[error("its .dockerignore has more than {MAX_PATTERNS} patterns")]
    TooManyPatterns,
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::path::Path;

    use cap_std::ambient_authority;
    use cap_std::fs::Dir;

    use super::*;
    use crate::files::names::RelativePath;

    /// An archive of these entries, with any name and kind.
    pub(super) fn tar_gz(entries: &[(&str, tar::EntryType, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
            file.reopen().unwrap(),
            flate2::Compression::fast(),
        ));
        for (name, kind, content) in entries {
            let size = if kind.is_file() { content.len() as u64 } else { 0 };
            let mut header = pack::header(*kind, 0o755, size);
            // Written by hand: the library would refuse the names that an attacker uses.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if kind.is_symlink() || kind.is_hard_link() {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            archive.append(&header, if kind.is_file() { content.as_bytes() } else { b"" }).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
        file
    }

    pub(super) const FILE: tar::EntryType = tar::EntryType::Regular;
    pub(super) const LINK: tar::EntryType = tar::EntryType::Symlink;

    fn packed(
        root: &Dir,
        subdirectory: Option<&str>,
        text: Option<&str>,
    ) -> Result<Vec<String>, ContextError> {
        let mut out = tempfile::tempfile().unwrap();
        let subdirectory = subdirectory.map(|path| RelativePath::parse(path).unwrap());
        pack(root, subdirectory.as_ref(), &RelativePath::parse("Dockerfile").unwrap(), text, &mut out)?;
        out.rewind().unwrap();
        let mut archive = tar::Archive::new(out);
        Ok(archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect())
    }

    #[test]
    fn a_wrapped_archive_is_unpacked_and_packed_again() {
        let archive = tar_gz(&[
            ("tool-1/Dockerfile", FILE, "FROM a"),
            ("tool-1/src/main.c", FILE, "int"),
            ("tool-1/link", LINK, "src/main.c"),
            ("tool-1/.dockerignore", FILE, "# c\n*.log\n!keep.log\nsecret/\n**/deep.txt\n"),
            ("tool-1/a.log", FILE, ""),
            ("tool-1/keep.log", FILE, ""),
            ("tool-1/secret/key", FILE, ""),
            ("tool-1/x/y/deep.txt", FILE, ""),
        ]);
        let directory = tempfile::tempdir().unwrap();
        let into = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        let root = unpack(archive.path(), &into).unwrap();
        assert_eq!(root, Path::new("tool-1"));
        let root = into.open_dir(root).unwrap();
        assert_eq!(
            packed(&root, None, None).unwrap(),
            [
                ".dockerignore",
                "Dockerfile",
                "keep.log",
                "link",
                "src",
                "src/main.c",
                "x",
                "x/y",
                ".dockframe.Dockerfile",
            ]
        );
        assert_eq!(packed(&root, Some("src"), None).unwrap(), ["main.c", ".dockframe.Dockerfile"]);
        assert!(matches!(packed(&root, Some("nowhere"), None), Err(ContextError::NoFile(_))));
        let bare = tempfile::tempdir().unwrap();
        let bare = Dir::open_ambient_dir(bare.path(), ambient_authority()).unwrap();
        assert!(matches!(packed(&bare, None, None), Err(ContextError::NoFile(_))));
        assert_eq!(packed(&bare, None, Some("FROM a")).unwrap(), [".dockframe.Dockerfile"]);
    }
}
