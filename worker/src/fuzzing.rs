//! What must hold for whatever a job, an archive or a container brings. The fuzz targets (`fuzz/`) try these promises
//! on bytes of their own making, and the tests here on every seed. Built for these two alone.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use dockframe_shared::job::{Control, Definition, LogLine};
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{JobId, LeaseId, QueueKey, Timestamp};
use serde_json::{Map, Value};
use url::Url;

use crate::build_plan::{BuildPlan, Source};
use crate::files::context;
use crate::files::names::{ConfigTarget, RelativePath, job_directory, job_label};
use crate::logs::{Assembler, LiveLimit, ResultLog, Stream};
use crate::plan::{ImageSource, JobPlan};
use crate::spool::Spool;

/// Longest sentence about a fault: people read it, and it goes into a result.
const SENTENCE: usize = 4096;

/// A definition as what is to be done, or a sentence about what is wrong; as file name, what does not read as JSON.
pub fn plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(fields) => definition(&Definition(fields)),
        Err(_) => names(text),
    }
}

fn definition(definition: &Definition) {
    let control =
        definition.get("control").and_then(|value| serde_json::from_value::<Control>(value.clone()).ok());
    let plan = match JobPlan::of(definition, &control.unwrap_or_default()) {
        Ok(plan) => plan,
        Err(error) => return is_sentence(&error),
    };
    for input in &plan.inputs {
        is_inside(input.path.as_str());
    }
    for file in &plan.mounted {
        is_inside(file.target.strip_prefix('/').expect("a mounted file has an absolute path"));
    }
    let words = plan.command.iter().chain(&plan.entrypoint).flatten();
    assert!(
        words.chain(plan.env.iter().flat_map(|(name, value)| [name, value])).all(|word| !word.contains('\0'))
    );
    assert!(plan.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('=')));
    assert!(plan.workdir.is_none_or(|workdir| workdir.starts_with('/')));
    if let ImageSource::Build(block) = plan.image {
        build(&block);
    }
}

fn build(block: &Map<String, Value>) {
    let address = block.get("context").and_then(Value::as_str).unwrap_or_default();
    let url = Url::parse(address).ok();
    let secret = url.as_ref().and_then(Url::password).filter(|password| password.len() >= 6);
    // One that stands in the rest of the address as well is shown there, and tells nothing.
    let secret = secret.filter(|secret| address.matches(secret).count() == 1);
    let hides =
        |text: &str| assert!(secret.is_none_or(|secret| !text.contains(secret)), "a credential in {text}");
    match BuildPlan::read(block) {
        Ok(plan) => {
            assert_eq!(plan.key.len(), 32);
            is_inside(plan.filename.as_str());
            plan.subdirectory.iter().for_each(|path| is_inside(path.as_str()));
            if let Some(context) = plan.context {
                hides(&context.name);
                let is_web = |url: &Url| matches!(url.scheme(), "http" | "https");
                match context.source {
                    Source::Archive(addresses) => assert!(addresses.iter().all(is_web)),
                    Source::Git(repository) => {
                        assert!(is_web(&repository.url));
                        repository.directory.iter().for_each(|path| is_inside(path.as_str()));
                        let names = repository.reference.candidates();
                        assert!(
                            names
                                .iter()
                                .all(|name| !name.starts_with('-') && !name.contains(char::is_whitespace))
                        );
                    }
                }
            }
        }
        Err(error) => {
            hides(&error.to_string());
            is_sentence(&error);
        }
    }
}

fn is_sentence(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= SENTENCE, "{} bytes: {text}", text.len());
}

fn is_inside(path: &str) {
    let parts = || path.split('/');
    assert!(parts().all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255), "{path}");
    assert!(!path.contains('\0') && path.len() <= 4096 && parts().count() <= 32, "{path}");
}

fn names(text: &str) {
    if let Ok(path) = RelativePath::parse(text) {
        is_inside(path.as_str());
        assert_eq!(RelativePath::parse(path.as_str()).as_ref(), Ok(&path));
    }
    match ConfigTarget::parse(text) {
        Ok(ConfigTarget::Input(path)) => is_inside(path.as_str()),
        Ok(ConfigTarget::Mounted(target)) => {
            assert!(
                !["/proc", "/sys", "/dev", "/inputs", "/outputs"]
                    .iter()
                    .any(|top| target == *top || target.starts_with(&format!("{top}/")))
            );
        }
        Err(_) => {}
    }
    if let Ok(job) = JobId::new(text) {
        is_inside(&job_label(&job));
        let queue = QueueKey::new("a queue of seeds").expect("a name");
        let directory = job_directory(&queue, &job).display().to_string();
        is_inside(&directory);
        // Such a text, with its spaces, is no job's label: that would be its digest.
        assert!(!directory.contains("a queue of seeds"));
    }
}

/// What a container writes. Each step is a byte that says what happens, and for a chunk one with its length.
pub fn log(data: &[u8]) {
    let time = Timestamp::from_millis(7);
    let begin = Instant::now();
    let mut now = begin;
    let mut assembler = Assembler::default();
    let mut kept = ResultLog::new(300);
    let mut limit = LiveLimit::new();
    let mut spool = Spool::new(JobId::new("j").expect("a name"), LeaseId::new("l").expect("a name"));
    let (mut told, mut sent) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut confirmed = 0;
    let mut rest = data;
    let mut take = |lines: Vec<LogLine>, now, told: &mut Vec<LogLine>, spool: &mut Spool| {
        told.extend(lines.iter().cloned());
        lines.iter().for_each(|line| kept.push(line.clone()));
        spool.push(&LogStep::Running, limit.admit(lines, now, time));
    };
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match step % 6 {
            kind @ (0 | 1) => {
                let Some((length, after)) = rest.split_first() else { break };
                let (chunk, after) = after.split_at(usize::from(*length).min(after.len()));
                rest = after;
                let (stream, all) =
                    if kind == 0 { (Stream::Stdout, &mut stdout) } else { (Stream::Stderr, &mut stderr) };
                all.extend_from_slice(chunk);
                assembler.push(stream, chunk, now, time);
            }
            2 => now += Duration::from_millis(u64::from(*step)),
            3 => {
                let lines = assembler.take(now);
                take(lines, now, &mut told, &mut spool);
            }
            4 => {
                if let Some((frame, up_to)) = spool.next_frame() {
                    let from = frame.from.expect("frames are numbered");
                    assert!(from >= confirmed && from <= sent.len() as u64, "no line is left out");
                    assert_eq!(up_to.number, from + frame.logs.len() as u64);
                    sent.truncate(usize::try_from(from).expect("a number of a line here"));
                    sent.extend(frame.logs);
                    if step % 4 == 0 {
                        spool.confirm(up_to);
                        confirmed = up_to.number;
                    }
                }
            }
            _ => spool.rewind(),
        }
        let (left, read) = (assembler.left(), assembler.read());
        assert!(left.stdout <= read.stdout && left.stderr <= read.stderr);
        assert!((read.stdout, read.stderr) == (stdout.len() as u64, stderr.len() as u64));
    }
    let lines = assembler.finish(now);
    take(lines, now, &mut told, &mut spool);
    assert_eq!(assembler.left(), assembler.read(), "all has left at the end");
    for (all, is_stderr) in [(&stdout, false), (&stderr, true)] {
        let told: String =
            told.iter().filter(|line| line.is_stderr == is_stderr).map(|line| line.text.as_str()).collect();
        if !all.contains(&b'\r') {
            assert_eq!(told, String::from_utf8_lossy(all), "what was written is what is told");
        } else {
            assert!(told.len() <= String::from_utf8_lossy(all).len());
        }
    }
    let omitted = "[… 18446744073709551615 bytes omitted …]\n".len();
    let bytes: usize = kept.into_lines(time).iter().map(|line| line.text.len()).sum();
    assert!(bytes <= 300 + omitted, "{bytes}");
    spool.rewind();
    while let Some((frame, up_to)) = spool.next_frame() {
        assert_eq!(frame.from, Some(up_to.number - frame.logs.len() as u64));
        spool.confirm(up_to);
        confirmed = up_to.number;
    }
    assert_eq!(confirmed, told.len() as u64, "every line has gone, each under its number");
    let _ = LogKind::Run;
}

/// An archive as the context of a build: first letter `t` for tar, else zip. It is unpacked in `folder/in`, which is
/// emptied before.
pub fn archive(folder: &Path, data: &[u8]) {
    try_archive(folder, data).expect("files can be written in the folder");
}

fn try_archive(folder: &Path, data: &[u8]) -> std::io::Result<()> {
    let Some((kind, content)) = data.split_first() else { return Ok(()) };
    let (inside, file) = (folder.join("in"), folder.join("archive"));
    if inside.exists() {
        std::fs::remove_dir_all(&inside)?;
    }
    std::fs::create_dir_all(&inside)?;
    if *kind == b't' {
        // Stored, not compressed, so that a change of the input is a change of the archive.
        let target = std::fs::File::create(&file)?;
        let mut gzip = flate2::write::GzEncoder::new(target, flate2::Compression::none());
        gzip.write_all(content)?;
        gzip.finish()?;
    } else {
        std::fs::write(&file, content)?;
    }
    let into = Dir::open_ambient_dir(&inside, ambient_authority())?;
    let root = match context::unpack(&file, &into) {
        Ok(root) => root,
        Err(error) => {
            is_sentence(&error);
            return is_untouched(folder);
        }
    };
    is_untouched(folder)?;
    let mut out = std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(folder.join("out"))?;
    let dockerfile = RelativePath::parse("Dockerfile").expect("a name");
    let root = into.open_dir(if root.as_os_str().is_empty() { Path::new(".") } else { &root })?;
    if let Err(error) = context::pack(&root, None, &dockerfile, Some("FROM a"), &mut out) {
        is_sentence(&error);
        return Ok(());
    }
    out.rewind()?;
    for entry in tar::Archive::new(out).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        assert!(
            path.is_relative() && !path.components().any(|part| part == std::path::Component::ParentDir),
            "{path:?}"
        );
        let size = entry.header().size()?;
        assert_eq!(std::io::copy(&mut entry.by_ref().take(u64::MAX), &mut std::io::sink())?, size);
    }
    Ok(())
}

/// Nothing but the three names of this test is in the folder.
fn is_untouched(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        assert!(["in", "archive", "out"].iter().any(|known| name == *known), "{name:?} was written outside");
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_plans_holds() {
        seeds::of("plan").iter().for_each(|seed| plan(seed));
    }

    #[test]
    fn every_seed_of_logs_holds() {
        seeds::of("log").iter().for_each(|seed| log(seed));
    }

    #[test]
    fn every_seed_of_archives_holds() {
        let folder = tempfile::tempdir().unwrap();
        seeds::of("archive").iter().for_each(|seed| archive(folder.path(), seed));
    }
}
