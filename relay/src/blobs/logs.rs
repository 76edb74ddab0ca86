//! The log lines of runs: numbered from 0 for each run and kind, kept in chunks, the last 10,000 of each
//! (`jobs-and-states` 3.4, `relay-protocol` R-17).
//!
//! A line is appended before anybody hears of it, so every reader pulls from here by number, and no reader can
//! miss a line that another saw. Lines survive the process; they are not synced one by one, so a power cut may take
//! the last of a running job.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{LeaseId, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use super::documents::run_name;
use super::files::unblocked;
use super::shards::{remove_untouched, shards, system_time, touch, untouched};
use super::{LogError, Logs};
use crate::limits::{MAX_LINE_BYTES, MAX_LOG_LINES, cut};
use crate::store::collect::{Cursor, Page};

/// Lines in one file.
const CHUNK: u64 = 1000;
/// Lines of an open log that are in memory too, for those who follow it.
const TAIL: usize = 256;
/// Logs that are kept open; the one not used for longest makes room.
const OPEN: usize = 1024;

/// Some lines of a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lines {
    /// Number of the first of `lines`.
    pub start: u64,
    pub lines: Vec<(LogStep, LogLine)>,
    /// Lines ever: the number of the next one.
    pub total: u64,
}

#[derive(Debug)]
pub(crate) struct LogStore {
    folder: PathBuf,
    incoming: PathBuf,
    open: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    logs: HashMap<(LeaseId, LogKind), Arc<tokio::sync::Mutex<OpenLog>>>,
    order: VecDeque<(LeaseId, LogKind)>,
}

/// One log of one run.
#[derive(Debug)]
struct OpenLog {
    folder: PathBuf,
    kind: LogKind,
    total: u64,
    tail: VecDeque<(LogStep, LogLine)>,
    /// The last chunk's file, once something is written.
    file: Option<fs::File>,
}

impl LogStore {
    pub(crate) fn open(root: &Path) -> std::io::Result<Self> {
        let (folder, incoming) = (root.join("logs"), root.join("incoming"));
        std::fs::create_dir_all(&folder)?;
        std::fs::create_dir_all(&incoming)?;
        Ok(Self { folder, incoming, open: Mutex::default() })
    }

    fn run_folder(&self, run: &LeaseId) -> PathBuf {
        let name = run_name(run);
        self.folder.join(&name[..2]).join(name)
    }

    async fn log(&self, run: &LeaseId, kind: LogKind) -> std::io::Result<Arc<tokio::sync::Mutex<OpenLog>>> {
        let key = (run.clone(), kind);
        if let Some(log) = self.lock().logs.get(&key) {
            return Ok(Arc::clone(log));
        }
        let log = OpenLog::read(self.run_folder(run), kind).await?;
        let mut opened = self.lock();
        // Another may have opened it meanwhile: then that one counts.
        if let Some(log) = opened.logs.get(&key) {
            return Ok(Arc::clone(log));
        }
        while opened.logs.len() >= OPEN {
            let Some(oldest) = opened.order.pop_front() else { break };
            // One in use is opened again by its next user only after this one is let go.
            let in_use = opened.logs.get(&oldest).is_some_and(|log| Arc::strong_count(log) > 1);
            if in_use {
                opened.order.push_back(oldest);
                break;
            }
            opened.logs.remove(&oldest);
        }
        let log = Arc::new(tokio::sync::Mutex::new(log));
        opened.order.push_back(key.clone());
        opened.logs.insert(key, Arc::clone(&log));
        Ok(log)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Opened> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn add(
        &self,
        run: &LeaseId,
        step: &LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> std::io::Result<Vec<LogLine>> {
        let log = self.log(run, step.kind()).await?;
        let mut log = log.lock().await;
        let known = from.map_or(0, |from| log.total.saturating_sub(from));
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(lines.len());
        let fresh = lines[known..].to_vec();
        log.append(step, fresh.iter().cloned()).await?;
        Ok(fresh)
    }

    async fn lines(&self, run: &LeaseId, kind: LogKind, since: u64, limit: usize) -> std::io::Result<Lines> {
        let log = self.log(run, kind).await?;
        let log = log.lock().await;
        log.lines(since, limit).await
    }

    fn close(&self, is_it: impl Fn(&LeaseId) -> bool) {
        let mut opened = self.lock();
        opened.logs.retain(|(run, _), _| !is_it(run));
        opened.order.retain(|(run, _)| !is_it(run));
    }

    /// A page is so many parts of the folder that they hold as many names as wanted.
    async fn page(&self, after: Option<Cursor>, limit: usize) -> std::io::Result<Page<String>> {
        let folder = self.folder.clone();
        unblocked(move || {
            let first = after.and_then(|after| String::from_utf8(after).ok()).unwrap_or_default();
            let mut rest = shards().skip_while(|shard| *shard < first);
            // Whatever its age: a log belongs to a run, and the run's job decides.
            let later = SystemTime::now() + Duration::from_secs(1 << 32);
            let mut page = Page::default();
            while page.items.len() < limit {
                let Some(shard) = rest.next() else { return Ok(page) };
                page.items.extend(untouched(&folder, &shard, later)?);
            }
            page.next = rest.next().map(String::into_bytes);
            Ok(page)
        })
        .await
    }

    async fn remove_all(&self, runs: Vec<String>, since: Timestamp) -> std::io::Result<u64> {
        self.close(|run| runs.contains(&run_name(run)));
        let (folder, incoming) = (self.folder.clone(), self.incoming.clone());
        unblocked(move || {
            let mut removed = 0;
            for run in runs {
                let path = folder.join(run.get(..2).unwrap_or_default()).join(&run);
                removed += u64::from(remove_untouched(&path, &incoming, system_time(since))?);
            }
            Ok(removed)
        })
        .await
    }

    async fn forget(&self, run: &LeaseId) -> std::io::Result<()> {
        self.close(|other| other == run);
        match fs::remove_dir_all(self.run_folder(run)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Logs for LogStore {
    fn append<'a>(
        &'a self,
        run: &'a LeaseId,
        step: &'a LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> BoxFuture<'a, Result<Vec<LogLine>, LogError>> {
        async move { Ok(self.add(run, step, from, lines).await?) }.boxed()
    }

    fn read<'a>(
        &'a self,
        run: &'a LeaseId,
        kind: LogKind,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Lines, LogError>> {
        async move { Ok(self.lines(run, kind, since, limit).await?) }.boxed()
    }

    fn remove<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>> {
        async move { Ok(self.forget(run).await?) }.boxed()
    }

    fn name<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>> {
        let path = self.run_folder(run);
        async move {
            unblocked(move || touch(&path, SystemTime::now(), Duration::ZERO)).await?;
            Ok(())
        }
        .boxed()
    }

    fn runs(&self, after: Option<Cursor>, limit: usize) -> BoxFuture<'_, Result<Page<String>, LogError>> {
        async move { Ok(self.page(after, limit).await?) }.boxed()
    }

    fn remove_unnamed(&self, runs: Vec<String>, since: Timestamp) -> BoxFuture<'_, Result<u64, LogError>> {
        async move { Ok(self.remove_all(runs, since).await?) }.boxed()
    }
}

impl OpenLog {
    fn chunk_path(&self, chunk: u64) -> PathBuf {
        let kind = match self.kind {
            LogKind::Build => "build",
            LogKind::Run => "run",
        };
        self.folder.join(format!("{kind}-{chunk:08}"))
    }

    /// Finds out how many lines there are.
    async fn read(folder: PathBuf, kind: LogKind) -> std::io::Result<Self> {
        let mut log = Self { folder, kind, total: 0, tail: VecDeque::new(), file: None };
        let mut names = match fs::read_dir(&log.folder).await {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(log),
            Err(error) => return Err(error),
        };
        let mut last: Option<u64> = None;
        while let Some(entry) = names.next_entry().await? {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                let (found, number) = name.split_once('-')?;
                let same = matches!((found, kind), ("build", LogKind::Build) | ("run", LogKind::Run));
                same.then(|| number.parse::<u64>().ok()).flatten()
            });
            last = last.max(number);
        }
        if let Some(last) = last {
            let content = fs::read(log.chunk_path(last)).await?;
            // A line that a crash cut short was never announced; it is overwritten by not counting it.
            let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole < content.len() {
                let file = fs::OpenOptions::new().write(true).open(log.chunk_path(last)).await?;
                file.set_len(whole as u64).await?;
            }
            let lines = parse(&content[..whole]);
            log.total = last * CHUNK + lines.len() as u64;
            log.tail = lines.into_iter().rev().take(TAIL).rev().collect();
        }
        Ok(log)
    }

    async fn append(&mut self, step: &LogStep, lines: impl Iterator<Item = LogLine>) -> std::io::Result<()> {
        let mut text = String::new();
        for mut line in lines {
            if line.text.len() > MAX_LINE_BYTES {
                line.text = format!("{} [cut]\n", cut(&line.text, MAX_LINE_BYTES));
            }
            if self.total.is_multiple_of(CHUNK) {
                self.write(&mut text).await?;
                self.file = None;
                self.drop_old().await?;
            }
            write_line(&mut text, step, &line);
            self.tail.push_back((step.clone(), line));
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
            self.total += 1;
            if self.total.is_multiple_of(CHUNK) {
                self.write_to(self.total / CHUNK - 1, &mut text).await?;
            }
        }
        self.write(&mut text).await
    }

    async fn write(&mut self, text: &mut String) -> std::io::Result<()> {
        self.write_to(self.total.saturating_sub(1) / CHUNK, text).await
    }

    async fn write_to(&mut self, chunk: u64, text: &mut String) -> std::io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            fs::create_dir_all(&self.folder).await?;
            let path = self.chunk_path(chunk);
            self.file = Some(fs::OpenOptions::new().create(true).append(true).open(path).await?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes()).await?;
            file.flush().await?;
        }
        text.clear();
        Ok(())
    }

    /// Chunks whose every line is older than the last 10,000.
    async fn drop_old(&self) -> std::io::Result<()> {
        let Some(old) = (self.total / CHUNK).checked_sub(MAX_LOG_LINES / CHUNK + 1) else { return Ok(()) };
        match fs::remove_file(self.chunk_path(old)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn lines(&self, since: u64, limit: usize) -> std::io::Result<Lines> {
        let oldest = self.total.saturating_sub(MAX_LOG_LINES);
        let start = since.max(oldest);
        let mut found = Lines { start, lines: Vec::new(), total: self.total };
        if start >= self.total {
            found.start = since;
            return Ok(found);
        }
        let tail_start = self.total - self.tail.len() as u64;
        if start >= tail_start {
            let skip = usize::try_from(start - tail_start).unwrap_or(usize::MAX);
            found.lines = self.tail.iter().skip(skip).take(limit).cloned().collect();
            return Ok(found);
        }
        for chunk in start / CHUNK..=(self.total - 1) / CHUNK {
            let lines = match fs::read(self.chunk_path(chunk)).await {
                Ok(content) => parse(&content),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let skip = usize::try_from(start.saturating_sub(chunk * CHUNK)).unwrap_or(usize::MAX);
            let room = limit - found.lines.len();
            found.lines.extend(lines.into_iter().skip(skip).take(room));
            if found.lines.len() >= limit {
                break;
            }
        }
        Ok(found)
    }
}

/// `step`, a tab, the line; both as JSON, so neither holds a tab or a newline of its own.
fn write_line(text: &mut String, step: &LogStep, line: &LogLine) {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    text.push_str(&json(serde_json::to_string(step)));
    text.push('\t');
    text.push_str(&json(serde_json::to_string(line)));
    text.push('\n');
}

fn parse(content: &[u8]) -> Vec<(LogStep, LogLine)> {
    let text = String::from_utf8_lossy(content);
    text.lines()
        .map(|line| {
            let read = line.split_once('\t').and_then(|(step, line)| {
                Some((serde_json::from_str(step).ok()?, serde_json::from_str(line).ok()?))
            });
            // Numbers must not shift: what cannot be read keeps its place.
            read.unwrap_or_else(|| {
                let text = "[a line that cannot be read]\n".to_owned();
                let time = dockframe_shared::Timestamp::default();
                (LogStep::Running, LogLine { text, time, is_stderr: false })
            })
        })
        .collect()
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    /// Numbers do not shift: each line of a file is a line, and what was read is written as it is read.
    pub(crate) fn log_file(bytes: &[u8]) {
        let lines = super::parse(bytes);
        assert_eq!(lines.len(), String::from_utf8_lossy(bytes).lines().count());
        let mut written = String::new();
        for (step, line) in &lines {
            super::write_line(&mut written, step, line);
        }
        assert_eq!(super::parse(written.as_bytes()), lines);
    }
}

#[cfg(test)]
mod tests {
    use dockframe_shared::Timestamp;

    use super::*;

    fn lines(from: u64, count: u64) -> Vec<LogLine> {
        (from..from + count)
            .map(|number| LogLine {
                text: format!("{number}\n"),
                time: Timestamp::from_millis(1),
                is_stderr: false,
            })
            .collect()
    }

    fn numbers(found: &Lines) -> Vec<u64> {
        found.lines.iter().map(|(_, line)| line.text.trim().parse().unwrap()).collect()
    }

    fn run() -> LeaseId {
        LeaseId::new("lease").unwrap()
    }

    #[tokio::test]
    async fn all_lines_are_there_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        LogStore::open(folder.path())
            .unwrap()
            .append(&run(), &LogStep::Running, Some(0), lines(0, 2_345))
            .await
            .unwrap();
        let logs = LogStore::open(folder.path()).unwrap();
        logs.append(&run(), &LogStep::Running, Some(2_345), lines(2_345, 10)).await.unwrap();
        let found = logs.read(&run(), LogKind::Run, 995, 2_000).await.unwrap();
        assert_eq!((found.start, found.total), (995, 2_355));
        assert_eq!(numbers(&found), (995..2_355).collect::<Vec<_>>());
    }
}
