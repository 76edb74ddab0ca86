//! A job's files where the Engine's host does not see the worker's (`worker` 4.2): they go in and out as archives.
//!
//! What comes out was written by a stranger. It is unpacked through a handle of the run's own directory, links stay
//! links and pipes stay pipes, and all of it is bounded; what counts as an output is decided afterwards, as for files
//! that were there all along.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use bollard::Docker as Engine;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::client::{engine_error, reason};
use crate::executor::{ContainerSpec, EngineError};
use crate::files::outputs::{MAX_ENTRIES, MAX_TOTAL_BYTES};

const BUFFER_BYTES: usize = 256 << 10;

/// Brings inputs and config files in, and makes `/outputs` writable for every user.
pub(super) async fn fill(engine: &Engine, spec: &ContainerSpec) -> Result<(), EngineError> {
    let inputs = spec.inputs.clone();
    send(engine, &spec.name, "/inputs", move |archive| add_tree(archive, &inputs, Path::new(""))).await?;
    let mounted = spec.mounted.clone();
    // By way of its parent: the root of an archive keeps the mode that it has.
    send(engine, &spec.name, "/", move |archive| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_data(&mut header, "outputs/", io::empty())?;
        for (file, target) in mounted {
            // Directories on the way are made by the Engine.
            let name = PathBuf::from(target.trim_start_matches('/'));
            add_file(archive, &file, &name)?;
        }
        Ok(())
    })
    .await
}

type Archive = tar::Builder<io::PipeWriter>;

/// Writes an archive into a pipe, at whose other end the Engine reads.
async fn send(
    engine: &Engine,
    name: &str,
    path: &str,
    write: impl FnOnce(&mut Archive) -> io::Result<()> + Send + 'static,
) -> Result<(), EngineError> {
    let (reader, writer) = io::pipe().map_err(|error| unreadable(&error))?;
    let writing = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(writer);
        archive.follow_symlinks(false);
        write(&mut archive)?;
        archive.into_inner()?.flush()
    });
    let reader = tokio::fs::File::from_std(File::from(std::os::fd::OwnedFd::from(reader)));
    let body = bollard::body_try_stream(ReaderStream::with_capacity(reader, BUFFER_BYTES));
    let options = UploadToContainerOptionsBuilder::default().path(path).build();
    let sent =
        engine.upload_to_container(name, Some(options), body).await.map_err(|error| engine_error(&error));
    // A refusal of the Engine's also breaks the pipe, and says more.
    sent?;
    let written = writing.await.map_err(io::Error::other).and_then(|written| written);
    written.map_err(|error| unreadable(&error))
}

fn unreadable(error: &io::Error) -> EngineError {
    EngineError::Unreachable(format!("files could not be copied to the container: {error}"))
}

fn add_tree(archive: &mut Archive, root: &Path, below: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            let metadata = entry.metadata()?;
            let mut header = header(tar::EntryType::Directory, &metadata);
            header.set_size(0);
            archive.append_data(&mut header, &path, io::empty())?;
            add_tree(archive, root, &path)?;
        } else {
            add_file(archive, &entry.path(), &path)?;
        }
    }
    Ok(())
}

fn add_file(archive: &mut Archive, file: &Path, name: &Path) -> io::Result<()> {
    let file = File::open(file)?;
    let metadata = file.metadata()?;
    let mut header = header(tar::EntryType::Regular, &metadata);
    header.set_size(metadata.len());
    archive.append_data(&mut header, name, file)
}

fn header(kind: tar::EntryType, metadata: &std::fs::Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.permissions().mode() & 0o777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header
}

/// Brings everything below `/outputs` of an ended container into an empty directory.
pub(super) async fn bring_outputs(engine: &Engine, name: &str, into: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("the outputs cannot be copied from the container: {error}");
    let (reader, writer) = io::pipe().map_err(failed)?;
    let into = Dir::open_ambient_dir(into, ambient_authority()).map_err(failed)?;
    let unpacking = tokio::task::spawn_blocking(move || unpack(reader, &into));
    let mut writer = tokio::fs::File::from_std(File::from(std::os::fd::OwnedFd::from(writer)));
    let options = DownloadFromContainerOptionsBuilder::default().path("/outputs").build();
    let mut chunks = std::pin::pin!(engine.download_from_container(name, Some(options)));
    let mut broken = None;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            // Whoever unpacks has said why it stopped.
            Ok(chunk) if writer.write_all(&chunk).await.is_err() => break,
            Ok(_) => {}
            Err(error) => {
                broken = Some(reason(&error));
                break;
            }
        }
    }
    // The last write is in the background until it is flushed.
    let _ = writer.flush().await;
    drop(writer);
    let unpacked = unpacking.await.map_err(|error| failed(io::Error::other(error)))?;
    match broken {
        Some(why) => Err(failed(io::Error::other(why))),
        None => unpacked,
    }
}

fn unpack(reader: impl Read, into: &Dir) -> Result<(), String> {
    let failed = |error: io::Error| format!("the outputs cannot be copied from the container: {error}");
    let mut archive = tar::Archive::new(reader);
    let (mut bytes_left, mut entries) = (MAX_TOTAL_BYTES, 0);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(format!("outputs too large: more than {MAX_ENTRIES} directory entries"));
        }
        let Some(path) = below_outputs(&entry.path_bytes()) else { continue };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            into.create_dir_all(parent).map_err(failed)?;
        }
        let kind = entry.header().entry_type();
        match kind {
            tar::EntryType::Directory => into.create_dir_all(&path).map_err(failed)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mut file = into.create(&path).map_err(failed)?;
                let copied = io::copy(&mut (&mut entry).take(bytes_left + 1), &mut file).map_err(failed)?;
                bytes_left = bytes_left
                    .checked_sub(copied)
                    .ok_or_else(|| format!("outputs too large: more than {MAX_TOTAL_BYTES} bytes in all"))?;
            }
            tar::EntryType::Symlink => {
                if let Ok(Some(target)) = entry.link_name() {
                    into.symlink_contents(target, &path).map_err(failed)?;
                }
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().and_then(|name| below_outputs(&name));
                if let Some(target) = target {
                    into.hard_link(target, into, &path).map_err(failed)?;
                }
            }
            // Kept as what it is, so that it is skipped by its name like everywhere.
            _ => make_pipe(into, &path).map_err(failed)?,
        }
    }
    Ok(())
}

/// The path below `/outputs`; `None` for the directory itself, and for what no Engine writes.
fn below_outputs(name: &[u8]) -> Option<PathBuf> {
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    let path: PathBuf = name.components().skip(1).collect();
    let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    (is_plain && !path.as_os_str().is_empty()).then_some(path)
}

fn make_pipe(into: &Dir, path: &Path) -> io::Result<()> {
    let parent = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => into.open_dir(parent)?,
        None => into.try_clone()?,
    };
    let name = path.file_name().unwrap_or_default();
    rustix::fs::mknodat(parent.as_fd(), name, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_stays_in_its_directory() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("in")).unwrap();
        let into = Dir::open_ambient_dir(outside.path().join("in"), ambient_authority()).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            // Written by hand: the library would refuse the names that an attacker uses.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            archive.append(&header, content).unwrap();
        };
        add("outputs/", tar::EntryType::Directory, "", b"");
        add("outputs/a/b", tar::EntryType::Regular, "", b"content");
        add("outputs/same", tar::EntryType::Link, "outputs/a/b", b"");
        add("outputs/shadow", tar::EntryType::Symlink, "/etc/shadow", b"");
        add("outputs/pipe", tar::EntryType::Fifo, "", b"");
        add("outputs/../evil", tar::EntryType::Regular, "", b"x");
        let archive = archive.into_inner().unwrap();
        unpack(archive.as_slice(), &into).unwrap();
        assert_eq!(into.read("a/b").unwrap(), b"content");
        assert_eq!(into.read("same").unwrap(), b"content");
        assert!(into.symlink_metadata("shadow").unwrap().is_symlink());
        assert!(!into.symlink_metadata("pipe").unwrap().is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "nothing beside it");

        // A link to somewhere else is no way out.
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "outputs/out", "/tmp").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "outputs/out/evil", &b"x"[..]).unwrap();
        assert!(unpack(archive.into_inner().unwrap().as_slice(), &into).is_err());
        assert!(!Path::new("/tmp/evil").exists());
    }
}
