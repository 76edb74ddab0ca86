//! Log lines on the server, so that every relay reads what any of them was sent.
//!
//! As in files: numbered from 0 for each run and kind, repeats dropped by number, the last 10,000 kept. Besides, a
//! log is bounded in bytes, since it lies in the server's memory.

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{LeaseId, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::ConnectionManager;
use redis::{cmd, pipe};

use super::script::{APPEND, COLLECT, LINES, call, send};
use super::{collect, keys, unavailable};
use crate::blobs::{Lines, LogError, Logs};
use crate::clock::Clock;
use crate::limits::{MAX_LINE_BYTES, MAX_LOG_LINES, cut};
use crate::store::collect::{Cursor, Page};

/// Bytes kept of each log.
const MAX_BYTES: usize = 16 << 20;
/// Lines sent to the server at once.
const AT_ONCE: usize = 1000;

#[derive(Clone)]
pub(crate) struct RedisLogs {
    connection: ConnectionManager,
    clock: Clock,
}

impl std::fmt::Debug for RedisLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLogs").finish_non_exhaustive()
    }
}

fn name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Build => "build",
        LogKind::Run => "run",
    }
}

impl RedisLogs {
    pub(super) fn new(connection: ConnectionManager, clock: Clock) -> Self {
        Self { connection, clock }
    }

    async fn add(
        &self,
        run: &LeaseId,
        step: &LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> Result<Vec<LogLine>, redis::RedisError> {
        let (list, numbers) = keys::log(run, name(step.kind()));
        let keys = [list, numbers];
        let mut fresh = Vec::new();
        let mut from = from;
        for some in lines.chunks(AT_ONCE) {
            let mut call = call(&APPEND, &keys);
            match from {
                Some(from) => call.arg(from),
                None => call.arg(""),
            };
            call.arg(MAX_LOG_LINES).arg(MAX_BYTES);
            for line in some {
                call.arg(write(step, line));
            }
            let mut pipeline = pipe();
            pipeline.add_command(call);
            let (added,): (usize,) = send(&self.connection, &pipeline, &APPEND).await?;
            fresh.extend_from_slice(&some[some.len() - added.min(some.len())..]);
            from = from.map(|from| from + some.len() as u64);
        }
        Ok(fresh)
    }

    async fn lines(
        &self,
        run: &LeaseId,
        kind: LogKind,
        since: u64,
        limit: usize,
    ) -> Result<Lines, redis::RedisError> {
        let (list, numbers) = keys::log(run, name(kind));
        let mut call = call(&LINES, &[list, numbers]);
        // No log has more lines, and the server counts in numbers that are exact so far.
        let most = usize::try_from(MAX_LOG_LINES).unwrap_or(usize::MAX);
        call.arg(since.min(1 << 52)).arg(limit.min(most));
        let mut pipeline = pipe();
        pipeline.add_command(call);
        let ((total, start, lines),): ((u64, u64, Vec<Vec<u8>>),) =
            send(&self.connection, &pipeline, &LINES).await?;
        let start = if start >= total { since } else { start };
        Ok(Lines { start, lines: lines.iter().map(|line| read(line)).collect(), total })
    }
}

fn write(step: &LogStep, line: &LogLine) -> Vec<u8> {
    let written = if line.text.len() > MAX_LINE_BYTES {
        let text = format!("{} [cut]\n", cut(&line.text, MAX_LINE_BYTES));
        serde_json::to_vec(&(step, LogLine { text, ..line.clone() }))
    } else {
        serde_json::to_vec(&(step, line))
    };
    // Texts and numbers can always be written; a line that could not keeps its number.
    written.unwrap_or_default()
}

fn read(bytes: &[u8]) -> (LogStep, LogLine) {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let text = "[a line that cannot be read]\n".to_owned();
        (LogStep::Running, LogLine { text, time: Timestamp::default(), is_stderr: false })
    })
}

fn failed(error: redis::RedisError) -> LogError {
    LogError::Store(unavailable(error))
}

impl Logs for RedisLogs {
    fn append<'a>(
        &'a self,
        run: &'a LeaseId,
        step: &'a LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> BoxFuture<'a, Result<Vec<LogLine>, LogError>> {
        async move { self.add(run, step, from, lines).await.map_err(failed) }.boxed()
    }

    fn read<'a>(
        &'a self,
        run: &'a LeaseId,
        kind: LogKind,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Lines, LogError>> {
        async move { self.lines(run, kind, since, limit).await.map_err(failed) }.boxed()
    }

    fn remove<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>> {
        async move {
            let mut remove = cmd("DEL");
            for kind in [LogKind::Build, LogKind::Run] {
                let (list, numbers) = keys::log(run, name(kind));
                remove.arg(list).arg(numbers);
            }
            remove.query_async(&mut self.connection.clone()).await.map_err(failed)
        }
        .boxed()
    }

    fn name<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>> {
        async move { collect::name_log(&self.connection, run).await.map_err(failed) }.boxed()
    }

    fn runs(&self, after: Option<Cursor>, limit: usize) -> BoxFuture<'_, Result<Page<String>, LogError>> {
        async move {
            let (names, next) = collect::scan(&self.connection, after, limit).await.map_err(failed)?;
            let runs = names.iter().filter_map(|name| match keys::found(name) {
                Some(keys::Found::Log(run)) => Some(run),
                _ => None,
            });
            let mut items: Vec<String> = runs.collect();
            items.sort_unstable();
            items.dedup();
            Ok(Page { items, next })
        }
        .boxed()
    }

    fn remove_unnamed(&self, runs: Vec<String>, since: Timestamp) -> BoxFuture<'_, Result<u64, LogError>> {
        async move {
            let lately = self.clock.now().since(since) + collect::SLACK_MS;
            let mut removed = 0;
            for run in &runs {
                let mut pipeline = pipe();
                for (lines, numbers) in ["build", "run"].map(|kind| keys::log_of(run, kind)) {
                    for key in [lines, numbers] {
                        let mut call = call(&COLLECT, &[key]);
                        call.arg(collect::NEVER.as_millis().to_string()).arg(lately);
                        pipeline.add_command(call);
                    }
                }
                let gone: Vec<u64> = send(&self.connection, &pipeline, &COLLECT).await.map_err(failed)?;
                removed += u64::from(gone.contains(&1));
            }
            Ok(removed)
        }
        .boxed()
    }
}
