//! A context as the Engine wants it: one archive, with its Dockerfile and without what is to be ignored.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use cap_std::fs::{Dir, PermissionsExt as _};

use super::ContextError;
use super::ignored::Ignored;
use crate::files::names::RelativePath;

const MAX_DOCKERFILE_BYTES: u64 = 8 << 20;
const MAX_IGNORE_BYTES: u64 = 1 << 20;

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

pub(super) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_what_from_lines_name() {
        let dockerfile = "ARG V=1\nFROM --platform=linux/amd64 registry.example/a:1 AS build\nFROM build AS next\n\
                          from b:$V\nFROM scratch\n  FROM registry.example/a:1\nCOPY --from=c x y\nFROM c";
        assert_eq!(bases(dockerfile), ["registry.example/a:1", "c"]);
    }
}
