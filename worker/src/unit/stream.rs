//! The second half of a job: what the container writes, until it has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::LogStep;
use futures_util::StreamExt as _;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::start::Started;
use super::{Break, Unit, disk_watch, ordered};
use crate::clock;
use crate::executor::{Chunk, EngineError, Executor, Exit};
use crate::journal::Position;
use crate::logs::{Assembler, LiveLimit, ResultLog, Stream};
use crate::metrics;
use crate::result::Ran;

/// How long the streams may outlast the container: its last words are on their way.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a container may outlast its streams before they are opened anew: usually its end is on its way.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
const REOPEN_MOST: Duration = Duration::from_secs(60);

/// What came of a container.
pub(super) struct Streamed {
    pub(super) ran: Ran,
    pub(super) exit: Result<Exit, EngineError>,
    pub(super) timed_out: Option<Duration>,
    /// Bytes on disk of a job that was stopped because they were too many.
    pub(super) over_disk: Option<u64>,
}

/// The three places that a container's output goes to.
struct Output {
    /// What the process before has told is not told again.
    told: Skip,
    live: Assembler,
    limit: LiveLimit,
    whole: Assembler,
    kept: ResultLog,
}

/// How much of each stream is still to be passed over.
#[derive(Debug, Clone, Copy)]
struct Skip(Position);

impl Skip {
    /// The part of a chunk that is new.
    fn rest<'a>(&mut self, chunk: &'a Chunk) -> &'a [u8] {
        let left = match chunk.stream {
            Stream::Stdout => &mut self.0.stdout,
            Stream::Stderr => &mut self.0.stderr,
        };
        let passed = (*left).min(chunk.bytes.len() as u64);
        *left -= passed;
        // At most the chunk's length.
        &chunk.bytes[usize::try_from(passed).unwrap_or_default()..]
    }
}

impl<E: Executor> Unit<E> {
    /// Until the container has ended and said its last word.
    pub(super) async fn stream(
        &mut self,
        name: &str,
        started: Started,
        limit: Duration,
    ) -> Result<Streamed, Break> {
        let Started { container, running, begun, ran_for, told, memory_bytes } = started;
        let (mut output, mut exit) = (running.output, running.exit);
        let mut ran = Ran { container, memory_bytes, ..Ran::default() };
        let out_of_time = tokio::time::Instant::from_std(begun + limit);
        let mut places = Output {
            told: Skip(told),
            live: Assembler::default(),
            limit: LiveLimit::new(),
            whole: Assembler::default(),
            kept: ResultLog::new(self.shared.max_log_bytes),
        };
        let mut passed = told;
        // Of a stream that was opened anew: what came before it broke.
        let mut again = Skip(Position::default());
        let mut ended: Option<(Result<Exit, EngineError>, tokio::time::Instant)> = None;
        let mut timed_out = None;
        let mut over_disk = None;
        let shared = Arc::clone(&self.shared);
        let directory = self.run.directory.path().to_owned();
        let watching = disk_watch::exceeded(&shared.executor, name, &directory, shared.job_disk_bytes);
        tokio::pin!(watching);
        let mut output_open = true;
        let mut reopen_after = REOPEN_AFTER;
        let mut reopen_at = super::far_away();
        while output_open || ended.is_none() {
            let due = [places.live.due(), places.whole.due()].into_iter().flatten().min();
            let due = due.map_or_else(super::far_away, tokio::time::Instant::from_std);
            let last_words = ended.as_ref().map_or_else(super::far_away, |(_, at)| *at + LAST_WORDS);
            tokio::select! {
                biased;
                order = ordered(&mut self.stop) => return Err(Break::Stopped(order)),
                () = sleep_until(out_of_time), if ended.is_none() && timed_out.is_none() => {
                    timed_out = Some(limit);
                    if let Err(error) = self.shared.executor.stop(name, self.shared.kill_grace).await {
                        ended = Some((Err(error), tokio::time::Instant::now()));
                    }
                }
                used = &mut watching, if ended.is_none() && over_disk.is_none() => {
                    over_disk = Some(used);
                    if let Err(error) = shared.executor.stop(name, Duration::ZERO).await {
                        ended = Some((Err(error), tokio::time::Instant::now()));
                    }
                }
                () = sleep_until(last_words), if output_open && ended.is_some() => {
                    output_open = false;
                    let text = "[the container has ended, but its output has not: the rest is missing]\n";
                    places.kept.push(LogLine { text: text.to_owned(), time: clock::now(), is_stderr: true });
                }
                chunk = output.next(), if output_open => match chunk {
                    Some(chunk) => {
                        let bytes = chunk.bytes.slice_ref(again.rest(&chunk));
                        places.take_in(&Chunk { stream: chunk.stream, bytes });
                    }
                    None => {
                        output_open = false;
                        reopen_at = tokio::time::Instant::now() + reopen_after;
                    }
                },
                result = &mut exit, if ended.is_none() => {
                    ran.duration = ran_for.unwrap_or_else(|| begun.elapsed());
                    ended = Some((result, tokio::time::Instant::now()));
                }
                // The streams broke and the container lives: the Engine was restarted under it.
                () = sleep_until(reopen_at), if !output_open && ended.is_none() => {
                    reopen_after = (reopen_after * 2).min(REOPEN_MOST);
                    reopen_at = tokio::time::Instant::now() + reopen_after;
                    match self.shared.executor.resume(name).await {
                        Ok(Some(resumed)) => {
                            again = Skip(places.whole.read());
                            (output, output_open) = (resumed.running.output, true);
                        }
                        Ok(None) => {}
                        Err(error) => debug!("a container's output cannot be opened again: {error}"),
                    }
                }
                () = sleep_until(due) => {}
            }
            self.tell_output(&mut places, &mut passed, End::NotYet).await;
        }
        self.tell_output(&mut places, &mut passed, End::Now).await;
        let exit = ended.map_or_else(|| Ok(Exit::default()), |(exit, _)| exit);
        if matches!(exit, Ok(Exit { saw_restart: true, .. })) {
            let text = "[the Docker Engine was restarted meanwhile: output that it had not written down is missing]\n";
            places.kept.push(LogLine { text: text.to_owned(), time: clock::now(), is_stderr: true });
        }
        let read = places.whole.read();
        let metrics = &self.shared.sources.metrics;
        metrics.add(&metrics::LOG_BYTES, "", read.stdout + read.stderr);
        metrics.add(&metrics::LOG_DROPPED, "", places.limit.all_omitted_bytes());
        ran.logs = places.kept.into_lines(clock::now());
        Ok(Streamed { ran, exit, timed_out, over_disk })
    }

    async fn tell_output(&mut self, places: &mut Output, passed: &mut Position, end: End) {
        let now = Instant::now();
        let (whole, live) = match end {
            End::NotYet => (places.whole.take(now), places.live.take(now)),
            End::Now => (places.whole.finish(now), places.live.finish(now)),
        };
        for mut line in whole {
            self.mask.apply(&mut line.text);
            places.kept.push(line);
        }
        let mut lines = if live.is_empty() { live } else { places.limit.admit(live, now, clock::now()) };
        for line in &mut lines {
            self.mask.apply(&mut line.text);
        }
        if end == End::Now {
            lines.extend(places.limit.finish(clock::now()));
        }
        if !lines.is_empty() {
            let left = places.live.left();
            let position =
                Position { stdout: passed.stdout + left.stdout, stderr: passed.stderr + left.stderr };
            self.tell_logs(LogStep::Running, lines, position).await;
        }
    }

    /// Writes lines down, and tells them.
    pub(super) async fn tell_logs(&mut self, step: LogStep, lines: Vec<LogLine>, position: Position) {
        let number = self.told.entry(step.kind()).or_default();
        let from = *number;
        *number += lines.len() as u64;
        let batch = crate::journal::Batch { from, step, lines, position };
        if let Err(error) = self.journal.append(&batch) {
            warn!("a run's journal cannot be written: {error}");
        }
        self.tell(crate::messages::UnitEvent::Logs { step: batch.step, lines: batch.lines }).await;
    }
}

/// Whether more may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Now,
}

impl Output {
    fn take_in(&mut self, chunk: &Chunk) {
        let (now, time) = (Instant::now(), clock::now());
        self.whole.push(chunk.stream, &chunk.bytes, now, time);
        let rest = self.told.rest(chunk);
        if !rest.is_empty() {
            self.live.push(chunk.stream, rest, now, time);
        }
    }
}
