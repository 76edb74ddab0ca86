//! Archives of anybody, unpacked into a directory and nowhere else.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use flate2::read::MultiGzDecoder;

use super::ContextError;
use crate::files::names::{BadFileName, RelativePath};

pub(crate) const MAX_UNPACKED_BYTES: u64 = 2 << 30;
pub(super) const MAX_ENTRIES: usize = 200_000;
/// How far an archive may unfold, above a size that harms nobody.
pub(super) const MAX_RATIO: u64 = 100;
const HARMLESS_BYTES: u64 = 16 << 20;
/// What stands between two contents of a tar archive: names, attributes, padding.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What an archive has used up.
struct Budget {
    bytes_left: u64,
    entries_left: usize,
}

impl Budget {
    fn entry(&mut self) -> Result<(), ContextError> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or(ContextError::TooLarge)?;
        Ok(())
    }

    fn write(
        &mut self,
        into: &Dir,
        path: &Path,
        mode: u32,
        from: &mut impl Read,
    ) -> Result<(), ContextError> {
        make_parents(into, path)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600 | (mode & 0o777));
        let mut file = into.open_with(path, &options)?;
        let copied = io::copy(&mut from.take(self.bytes_left.saturating_add(1)), &mut file)?;
        self.bytes_left = self.bytes_left.checked_sub(copied).ok_or(ContextError::TooLarge)?;
        Ok(())
    }

    fn skip(&mut self, from: &mut impl Read) -> Result<(), ContextError> {
        let skipped = io::copy(&mut from.take(self.bytes_left.saturating_add(1)), &mut io::sink())?;
        self.bytes_left = self.bytes_left.checked_sub(skipped).ok_or(ContextError::TooLarge)?;
        Ok(())
    }
}

/// Unpacks an archive. The result is the directory that counts as its root, relative to `into`.
pub(crate) fn unpack(archive: &Path, into: &Dir) -> Result<PathBuf, ContextError> {
    let mut file = File::open(archive)?;
    let size = file.metadata()?.len();
    let mut budget = Budget {
        bytes_left: MAX_UNPACKED_BYTES.min(size.saturating_mul(MAX_RATIO).max(HARMLESS_BYTES)),
        entries_left: MAX_ENTRIES,
    };
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    match &magic[..read] {
        [0x1f, 0x8b, ..] => unpack_tar(MultiGzDecoder::new(io::BufReader::new(file)), into, &mut budget)?,
        [b'P', b'K', 3, 4] => unpack_zip(file, into, &mut budget)?,
        _ => return Err(ContextError::Format),
    }
    // Most archives wrap everything into one directory.
    let mut entries = into.entries()?;
    match (entries.next(), entries.next()) {
        (Some(only), None) => {
            let only = only?;
            Ok(if only.file_type()?.is_dir() { PathBuf::from(only.file_name()) } else { PathBuf::new() })
        }
        _ => Ok(PathBuf::new()),
    }
}

/// Unpacks a tar archive as it comes, from its own root: nobody has wrapped it, and it is not compressed.
pub(crate) fn unpack_stream(mut from: impl Read, into: &Dir) -> Result<(), ContextError> {
    let mut budget = Budget { bytes_left: MAX_UNPACKED_BYTES, entries_left: MAX_ENTRIES };
    unpack_tar(&mut from, into, &mut budget)?;
    // Whoever writes it comes to its end: there is padding after the last entry.
    io::copy(&mut from.take(MAX_HEADER_BYTES), &mut io::sink())?;
    Ok(())
}

fn safe(name: &str) -> Result<Option<RelativePath>, ContextError> {
    match RelativePath::parse(name) {
        Ok(path) if name.starts_with('/') => {
            Err(ContextError::Name { name: path.as_str().to_owned(), why: BadFileName::NotNormal })
        }
        Ok(path) => Ok(Some(path)),
        // `./`, the archive's own root.
        Err(BadFileName::Empty) => Ok(None),
        Err(why) => Err(ContextError::Name { name: name.chars().take(200).collect(), why }),
    }
}

/// Reads no more than there is leave for.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other("it has names or attributes that are too long"));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

fn unpack_tar(reader: impl Read, into: &Dir, budget: &mut Budget) -> Result<(), ContextError> {
    let left = Rc::new(Cell::new(0));
    let mut archive = tar::Archive::new(Metered { inner: reader, left: Rc::clone(&left) });
    let mut entries = archive.entries()?;
    loop {
        // Long names and attributes are read into memory, whatever their size.
        left.set(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry?;
        left.set(u64::MAX);
        budget.entry()?;
        unpack_entry(&mut entry, into, budget)?;
        // What nobody wants unfolds as well.
        budget.skip(&mut entry)?;
    }
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    into: &Dir,
    budget: &mut Budget,
) -> Result<(), ContextError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    let Some(path) = safe(&name)? else { return Ok(()) };
    let mode = entry.header().mode().unwrap_or(0o644);
    match kind {
        tar::EntryType::Directory => make_directories(into, path.as_path())?,
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            budget.write(into, path.as_path(), mode, entry)?;
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name()?.ok_or_else(|| ContextError::Link(name.clone()))?;
            link(into, path.as_path(), &target)?;
        }
        tar::EntryType::Link => {
            let target = entry.link_name()?.ok_or_else(|| ContextError::Link(name.clone()))?;
            let target = safe(&target.to_string_lossy())?.ok_or(ContextError::Link(name))?;
            let mut source = into.open(target.as_path())?;
            budget.write(into, path.as_path(), mode, &mut source)?;
        }
        // Devices and pipes have no business in a build.
        _ => {}
    }
    Ok(())
}

fn unpack_zip(file: File, into: &Dir, budget: &mut Budget) -> Result<(), ContextError> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        budget.entry()?;
        let name = entry.name()?.into_owned();
        let Some(path) = safe(&name)? else { continue };
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            make_directories(into, path.as_path())?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            (&mut entry).take(4096).read_to_string(&mut target)?;
            link(into, path.as_path(), Path::new(&target))?;
        } else {
            budget.write(into, path.as_path(), mode, &mut entry)?;
        }
    }
    Ok(())
}

/// A link that stays in the archive; one that would lead out is refused.
fn link(into: &Dir, path: &Path, target: &Path) -> Result<(), ContextError> {
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if depth > 0 => depth -= 1,
            _ => return Err(ContextError::Link(path.display().to_string())),
        }
    }
    make_parents(into, path)?;
    into.symlink(target, path)?;
    Ok(())
}

fn make_parents(into: &Dir, path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => make_directories(into, parent),
        None => Ok(()),
    }
}

fn make_directories(into: &Dir, path: &Path) -> io::Result<()> {
    into.create_dir_all(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cap_std::ambient_authority;

    use super::super::pack::header;
    use super::super::tests::{FILE, LINK, tar_gz};
    use super::*;

    #[test]
    fn malicious_archives_are_refused_and_write_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        let directory = outside.path().join("in");
        std::fs::create_dir(&directory).unwrap();
        let into = Dir::open_ambient_dir(&directory, ambient_authority()).unwrap();
        for entries in [
            &[("../evil", FILE, "x")][..],
            &[("/evil", FILE, "x")],
            &[("a/../../evil", FILE, "x")],
            &[("link", LINK, "../..")],
            &[("link", LINK, "/etc")],
            &[("hard", tar::EntryType::Link, "../../etc/passwd")],
            &[("up", LINK, "."), ("up/up/../../../evil", FILE, "x")],
        ] {
            let refused = unpack(tar_gz(entries).path(), &into);
            assert!(refused.is_err(), "{entries:?}: {refused:?}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn bombs_and_other_formats_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let into = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        let zeros = "\0".repeat(40 << 20);
        assert!(matches!(
            unpack(tar_gz(&[("big", FILE, &zeros)]).path(), &into),
            Err(ContextError::TooLarge)
        ));
        let mut text = tempfile::NamedTempFile::new().unwrap();
        text.write_all(b"hello").unwrap();
        assert!(matches!(unpack(text.path(), &into), Err(ContextError::Format)));
    }

    #[test]
    fn what_is_no_file_of_an_archive_is_bounded_too() {
        let directory = tempfile::tempdir().unwrap();
        let into = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        let zeros = "\0".repeat(40 << 20);
        let unpacked = |kind| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let gzip = flate2::write::GzEncoder::new(file.reopen().unwrap(), flate2::Compression::fast());
            let mut archive = tar::Builder::new(gzip);
            let mut header = header(kind, 0o644, zeros.len() as u64);
            header.set_path("x").unwrap();
            header.set_cksum();
            archive.append(&header, zeros.as_bytes()).unwrap();
            archive.into_inner().unwrap().finish().unwrap();
            unpack(file.path(), &into)
        };
        // A name that would be read into memory whole, and a pipe with a content that would be passed over.
        let error = unpacked(tar::EntryType::GNULongName).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(matches!(unpacked(tar::EntryType::Fifo), Err(ContextError::TooLarge)));
    }

    #[test]
    fn zip_archives_are_read_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = zip::ZipWriter::new(file.reopen().unwrap());
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file("repo-main/Dockerfile", options).unwrap();
        archive.write_all(b"FROM a").unwrap();
        archive.start_file("repo-main/b/c", options).unwrap();
        archive.finish().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let into = Dir::open_ambient_dir(directory.path(), ambient_authority()).unwrap();
        assert_eq!(unpack(file.path(), &into).unwrap(), Path::new("repo-main"));
        assert_eq!(into.read("repo-main/Dockerfile").unwrap(), b"FROM a");
    }
}
