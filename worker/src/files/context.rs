//! Build contexts: archives unpacked safely, and packed again for the Engine (`worker` 10.3, 10.4). Blocking.
//!
//! An archive comes from anybody. Nothing in it can be written outside of the given directory, and its size, its
//! number of entries and how far it unfolds are bounded.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};
use flate2::read::MultiGzDecoder;
use globset::{GlobBuilder, GlobMatcher};

use super::names::{BadFileName, RelativePath};

const MAX_UNPACKED_BYTES: u64 = 2 << 30;
const MAX_ENTRIES: usize = 200_000;
/// How far an archive may unfold, above a size that harms nobody.
const MAX_RATIO: u64 = 100;
const HARMLESS_BYTES: u64 = 16 << 20;
/// What stands between two contents of a tar archive: names, attributes, padding.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// A pattern is kept compiled, in a hundred times its size.
const MAX_PATTERNS: usize = 2_000;
const MAX_DOCKERFILE_BYTES: u64 = 8 << 20;
const MAX_IGNORE_BYTES: u64 = 1 << 20;

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

/// What is sent to the Engine.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Name of the Dockerfile in it.
    pub(crate) dockerfile: String,
    /// Images that it begins from, as far as they are plain names.
    pub(crate) bases: Vec<String>,
}

/// Packs the context below `root` for the Engine into `out`, with its Dockerfile and without what is to be ignored.
pub(crate) fn pack(
    root: &Dir,
    subdirectory: Option<&RelativePath>,
    filename: &RelativePath,
    text: Option<&str>,
    out: &mut File,
) -> Result<Packed, ContextError> {
    let context = match subdirectory {
        None => root.try_clone()?,
        Some(path) => root
            .open_dir(path.as_path())
            .map_err(|_| ContextError::NoFile(format!("directory {}", path.as_str())))?,
    };
    // The archive's root first, as ever; then where people expect it.
    let dockerfile = match text {
        Some(text) => text.as_bytes().to_vec(),
        None => read_file(root, filename.as_path(), MAX_DOCKERFILE_BYTES)
            .or_else(|_| read_file(&context, filename.as_path(), MAX_DOCKERFILE_BYTES))
            .map_err(|_| ContextError::NoFile(filename.as_str().to_owned()))?,
    };
    let own_ignore = format!("{}.dockerignore", filename.as_str());
    let ignore = read_file(root, Path::new(&own_ignore), MAX_IGNORE_BYTES)
        .or_else(|_| read_file(&context, Path::new(&own_ignore), MAX_IGNORE_BYTES))
        .or_else(|_| read_file(&context, Path::new(".dockerignore"), MAX_IGNORE_BYTES))
        .unwrap_or_default();
    let ignored = Ignored::read(&String::from_utf8_lossy(&ignore))?;

    let mut archive = tar::Builder::new(out);
    // A name that no context has: the Dockerfile may lie outside of it, or be replaced by a text.
    let name = ".dockframe.Dockerfile".to_owned();
    add(&mut archive, &context, Path::new(""), &ignored)?;
    let mut header = header(tar::EntryType::Regular, 0o644, dockerfile.len() as u64);
    archive.append_data(&mut header, &name, dockerfile.as_slice())?;
    archive.into_inner()?.flush()?;
    Ok(Packed { dockerfile: name, bases: bases(&String::from_utf8_lossy(&dockerfile)) })
}

/// What `FROM` lines name, but for earlier stages and what build arguments fill in.
fn bases(dockerfile: &str) -> Vec<String> {
    let (mut bases, mut stages) = (Vec::new(), vec!["scratch".to_owned()]);
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("from")) {
            continue;
        }
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let Some(base) = words.next() else { continue };
        let is_stage = stages.iter().any(|stage| stage.eq_ignore_ascii_case(base));
        if !is_stage && !base.contains('$') && !bases.iter().any(|known| known == base) {
            bases.push(base.to_owned());
        }
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("as")) {
            stages.extend(words.next().map(str::to_owned));
        }
    }
    bases
}

fn read_file(directory: &Dir, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = directory.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max { Err(io::Error::other("it is too large")) } else { Ok(content) }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn add(
    archive: &mut tar::Builder<&mut File>,
    context: &Dir,
    path: &Path,
    ignored: &Ignored,
) -> Result<(), ContextError> {
    let here = if path.as_os_str().is_empty() { context.try_clone()? } else { context.open_dir(path)? };
    let mut names: Vec<_> =
        here.entries()?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    // The same context is the same archive.
    names.sort();
    for name in names {
        let path = path.join(name);
        let metadata = context.symlink_metadata(&path)?;
        let is_left_out = ignored.covers(&path);
        if metadata.is_dir() {
            if !is_left_out {
                archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), &path, io::empty())?;
            }
            // Something below may be taken in again.
            if !is_left_out || ignored.has_exceptions {
                add(archive, context, &path, ignored)?;
            }
        } else if is_left_out {
        } else if metadata.is_symlink() {
            let target = context.read_link_contents(&path)?;
            archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), &path, target)?;
        } else if metadata.is_file() {
            let mode = metadata.permissions().mode() & 0o777;
            let file = context.open(&path)?;
            archive.append_data(&mut header(tar::EntryType::Regular, mode, metadata.len()), &path, file)?;
        }
    }
    Ok(())
}

/// The patterns of a `.dockerignore`.
#[derive(Debug, Default)]
struct Ignored {
    patterns: Vec<(GlobMatcher, bool)>,
    has_exceptions: bool,
}

impl Ignored {
    fn read(text: &str) -> Result<Self, ContextError> {
        let mut ignored = Self::default();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (is_exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let segments: Vec<&str> =
                pattern.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
            if segments.is_empty() {
                continue;
            }
            let glob = GlobBuilder::new(&segments.join("/"))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|_| ContextError::Pattern(pattern.chars().take(200).collect()))?;
            if ignored.patterns.len() == MAX_PATTERNS {
                return Err(ContextError::TooManyPatterns);
            }
            ignored.has_exceptions |= is_exception;
            ignored.patterns.push((glob.compile_matcher(), is_exception));
        }
        Ok(ignored)
    }

    /// The last pattern that fits the path, or a directory above it, decides.
    fn covers(&self, path: &Path) -> bool {
        let mut is_covered = false;
        for (pattern, is_exception) in &self.patterns {
            let mut ancestors = path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty());
            if ancestors.any(|ancestor| pattern.is_match(ancestor)) {
                is_covered = !is_exception;
            }
        }
        is_covered
    }
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    fn tar_gz(entries: &[(&str, tar::EntryType, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
            file.reopen().unwrap(),
            flate2::Compression::fast(),
        ));
        for (name, kind, content) in entries {
            let mut header = header(*kind, 0o755, if kind.is_file() { content.len() as u64 } else { 0 });
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

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const LINK: tar::EntryType = tar::EntryType::Symlink;

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

    #[test]
    fn bases_are_what_from_lines_name() {
        let dockerfile = "ARG V=1\nFROM --platform=linux/amd64 registry.example/a:1 AS build\nFROM build AS next\n\
                          from b:$V\nFROM scratch\n  FROM registry.example/a:1\nCOPY --from=c x y\nFROM c";
        assert_eq!(bases(dockerfile), ["registry.example/a:1", "c"]);
    }

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
    fn patterns_are_counted_at_the_edge_and_one_past_it() {
        assert!(Ignored::read(&"a\n".repeat(MAX_PATTERNS)).is_ok());
        let more = Ignored::read(&"a\n".repeat(MAX_PATTERNS + 1));
        assert!(matches!(more, Err(ContextError::TooManyPatterns)));
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
