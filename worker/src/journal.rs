//! The lines of a run that were told, on disk (`worker` 17).
//!
//! A process that takes a run up again must number lines as the one before did: the relay drops repeats by number, so
//! the tuples must be the same. So each batch is written down before it is told, with how far the container's
//! output had been read by then. Not synced: a killed process leaves what it wrote, and a fallen machine leaves no
//! container to take up.
//!
//! Bounded: two files of a few MiB take turns. What is older was read by the relay, or dropped by the spool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use serde::{Deserialize, Serialize};

/// Size at which the files take turns.
const TURN_BYTES: u64 = 4 << 20;

/// How much of each stream had been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

/// Lines that were told together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Number of the first line, per kind.
    pub(crate) from: u64,
    pub(crate) step: LogStep,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) position: Position,
}

/// The journal of one run.
#[derive(Debug)]
pub(crate) struct Journal {
    current: PathBuf,
    before: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Journal {
    /// The journal in a run's directory; nothing is written yet.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            current: directory.join("log.jsonl"),
            before: directory.join("log.before.jsonl"),
            file: None,
            bytes: 0,
        }
    }

    /// All batches that are there, oldest first. A half written last one is left out.
    pub(crate) fn read(directory: &Path) -> Vec<Batch> {
        let journal = Self::new(directory);
        let mut batches = Vec::new();
        for path in [&journal.before, &journal.current] {
            let Ok(file) = File::open(path) else { continue };
            let lines = BufReader::new(file).lines().map_while(Result::ok);
            batches.extend(lines.map_while(|line| serde_json::from_str::<Batch>(&line).ok()));
        }
        batches
    }

    /// A short write into the kernel's memory: quick enough for an async task.
    pub(crate) fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let mut line = serde_json::to_vec(batch)?;
        line.push(b'\n');
        if self.bytes > TURN_BYTES {
            fs::rename(&self.current, &self.before)?;
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.current)?;
                self.bytes = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dockframe_shared::Timestamp;

    use super::*;

    fn batch(from: u64, text: &str) -> Batch {
        Batch {
            from,
            step: LogStep::Running,
            lines: vec![LogLine { text: text.to_owned(), time: Timestamp::from_millis(1), is_stderr: false }],
            position: Position { stdout: from, stderr: 0 },
        }
    }

    #[test]
    fn batches_come_back_as_they_were_told_and_a_torn_one_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path());
        let batches = [batch(0, "a\n"), batch(1, "b\n")];
        for batch in &batches {
            journal.append(batch).unwrap();
        }
        journal.file.as_mut().unwrap().write_all(b"{\"from\":2,\"st").unwrap();
        assert_eq!(Journal::read(directory.path()), batches);
    }

    #[test]
    fn it_stays_small_and_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(directory.path());
        let text = "x".repeat(1 << 20);
        for number in 0..20 {
            journal.append(&batch(number, &text)).unwrap();
        }
        let kept = Journal::read(directory.path());
        assert_eq!(kept.last().unwrap().from, 19);
        assert!((4..=12).contains(&kept.len()), "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0].from + 1 == pair[1].from));
    }
}
