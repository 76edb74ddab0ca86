//! What a container writes, made into log tuples (`worker` 11.2). Pure: bytes and times in, tuples out.
//!
//! [`Assembler`] joins bytes into whole lines and decides when a batch leaves; [`ResultLog`] keeps the head and the
//! tail for the result; [`LiveLimit`] bounds what watchers are sent. Nothing here can make a container wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dockframe_shared::Timestamp;
use dockframe_shared::job::LogLine;

use crate::journal::Position;

/// Pause between two batches: at most 20 messages a second.
const BATCH_EVERY: Duration = Duration::from_millis(50);
/// A batch leaves early at this size, and a line without end is broken there.
const BATCH_BYTES: usize = 32 << 10;
/// How long an unfinished line waits for its end.
const PARTIAL_LINE_WAIT: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Joins what two streams bring into batches of tuples.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    stdout: Line,
    stderr: Line,
    ready: Vec<LogLine>,
    ready_bytes: usize,
    ready_since: Option<Instant>,
    last_batch: Option<Instant>,
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct Line {
    /// Bytes of a character whose rest has not come yet.
    cut: Vec<u8>,
    text: String,
    since: Option<Instant>,
    time: Timestamp,
    /// Part of this line has left already.
    continues: bool,
    /// Bytes of the stream so far.
    read: u64,
    /// Bytes of the stream that `text` and `cut` are made of.
    held: u64,
}

impl Assembler {
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], now: Instant, time: Timestamp) {
        let line = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        line.read += bytes.len() as u64;
        line.held += bytes.len() as u64;
        line.decode(bytes);
        if line.since.is_none() && !line.text.is_empty() {
            line.since = Some(now);
            line.time = time;
        }
        if let Some(end) = line.text.rfind('\n') {
            let rest = line.text.split_off(end + 1);
            let whole = std::mem::replace(&mut line.text, rest);
            let text = collapse(&whole, line.continues);
            line.continues = false;
            // What is held had no end before, so its last end is in these bytes.
            let after = bytes.iter().rev().position(|byte| *byte == b'\n').unwrap_or_default();
            line.held = after as u64;
            line.since = (!line.text.is_empty()).then_some(now);
            line.time = time;
            self.add(stream, text, now, time);
        }
        if self.line(stream).text.len() >= BATCH_BYTES {
            self.break_line(stream, now);
        }
    }

    /// How much of each stream has been read.
    pub(crate) fn read(&self) -> Position {
        Position { stdout: self.stdout.read, stderr: self.stderr.read }
    }

    /// How much of each stream has left, when nothing is ready: right after a batch was taken.
    pub(crate) fn left(&self) -> Position {
        Position { stdout: self.stdout.read - self.stdout.held, stderr: self.stderr.read - self.stderr.held }
    }

    /// When [`Self::take`] will have something, if nothing more comes.
    pub(crate) fn due(&self) -> Option<Instant> {
        let whole = self.ready_since.map(|since| match self.last_batch {
            Some(last) if self.ready_bytes < BATCH_BYTES => since.max(last + BATCH_EVERY),
            _ => since,
        });
        let partial = [&self.stdout, &self.stderr].into_iter().filter_map(|line| line.since);
        let partial = partial.min().map(|since| since + PARTIAL_LINE_WAIT);
        whole.into_iter().chain(partial).min()
    }

    /// A batch, if one is due.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<LogLine> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.line(stream).since.is_some_and(|since| now >= since + PARTIAL_LINE_WAIT) {
                self.break_line(stream, now);
            }
        }
        let early = self.ready_bytes >= BATCH_BYTES;
        let paused = self.last_batch.is_none_or(|last| now >= last + BATCH_EVERY);
        if self.ready.is_empty() || !(early || paused) {
            return Vec::new();
        }
        self.last_batch = Some(now);
        self.hand_over()
    }

    /// Everything that is left: the streams have ended.
    pub(crate) fn finish(&mut self, now: Instant) -> Vec<LogLine> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = self.line(stream);
            if !line.cut.is_empty() {
                line.cut.clear();
                line.text.push(char::REPLACEMENT_CHARACTER);
            }
            self.break_line(stream, now);
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> Vec<LogLine> {
        self.ready_bytes = 0;
        self.ready_since = None;
        std::mem::take(&mut self.ready)
    }

    fn line(&mut self, stream: Stream) -> &mut Line {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn break_line(&mut self, stream: Stream, now: Instant) {
        let line = self.line(stream);
        line.since = None;
        line.held = line.cut.len() as u64;
        if line.text.is_empty() {
            return;
        }
        let part = std::mem::take(&mut line.text);
        let text = collapse(&part, line.continues);
        line.continues = true;
        let time = line.time;
        self.add(stream, text, now, time);
    }

    /// Lines of one stream that follow each other are one tuple.
    fn add(&mut self, stream: Stream, text: String, now: Instant, time: Timestamp) {
        self.ready_bytes += text.len();
        self.ready_since.get_or_insert(now);
        let is_stderr = stream == Stream::Stderr;
        match self.ready.last_mut() {
            Some(last) if last.is_stderr == is_stderr && last.text.len() < BATCH_BYTES => {
                last.text.push_str(&text);
            }
            _ => self.ready.push(LogLine { text, time, is_stderr }),
        }
    }
}

impl Line {
    /// Adds bytes as text; a character cut by the end of the bytes waits for its rest.
    fn decode(&mut self, bytes: &[u8]) {
        let joined;
        let mut rest = if self.cut.is_empty() {
            bytes
        } else {
            self.cut.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.cut);
            &joined
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    return;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            self.text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            self.cut = after.to_vec();
                            return;
                        }
                    }
                }
            }
        }
    }
}

/// Drops what a carriage return has overwritten within `text`: of a progress bar its last state stays.
///
/// Text that would still show, because what overwrote it is shorter, stays too. `continues`: the first line's
/// beginning has left before, so its first carriage return must stay.
fn collapse(text: &str, continues: bool) -> String {
    if !text.contains('\r') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let (body, end) = match line.strip_suffix("\r\n") {
            Some(body) => (body, "\r\n"),
            None => line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n")),
        };
        let (body, end) = match body.strip_suffix('\r') {
            Some(body) if end.is_empty() => (body, "\r"),
            _ => (body, end),
        };
        let states: Vec<&str> = body.split('\r').collect();
        let last = states.last().copied().unwrap_or_default();
        let width = |state: &str| state.chars().count();
        if states.iter().all(|state| width(state) <= width(last)) {
            if continues && index == 0 && states.len() > 1 {
                out.push('\r');
            }
            out.push_str(last);
        } else {
            out.push_str(body);
        }
        out.push_str(end);
    }
    out
}

/// The log that goes into the result: all of it, or its head and tail with a marker between.
#[derive(Debug)]
pub(crate) struct ResultLog {
    head: Vec<LogLine>,
    head_bytes: usize,
    tail: VecDeque<LogLine>,
    tail_bytes: usize,
    omitted_bytes: u64,
    max_head: usize,
    max_tail: usize,
}

impl ResultLog {
    /// A third of `max_bytes` for the head, the rest for the tail.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        Self {
            head: Vec::new(),
            head_bytes: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            omitted_bytes: 0,
            max_head: max / 3,
            max_tail: max - max / 3,
        }
    }

    pub(crate) fn push(&mut self, line: LogLine) {
        let bytes = line.text.len();
        if self.tail.is_empty() && self.omitted_bytes == 0 && self.head_bytes + bytes <= self.max_head {
            self.head_bytes += bytes;
            self.head.push(line);
            return;
        }
        self.tail_bytes += bytes;
        self.tail.push_back(line);
        while self.tail_bytes > self.max_tail {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.text.len();
            self.omitted_bytes += oldest.text.len() as u64;
        }
    }

    pub(crate) fn into_lines(self, time: Timestamp) -> Vec<LogLine> {
        let mut lines = self.head;
        if self.omitted_bytes > 0 {
            lines.push(omitted(self.omitted_bytes, time));
        }
        lines.extend(self.tail);
        lines
    }
}

/// What takes the place of text that was left out.
pub(crate) fn omitted(bytes: u64, time: Timestamp) -> LogLine {
    LogLine { text: format!("[… {bytes} bytes omitted …]\n"), time, is_stderr: true }
}

/// A bound for what watchers are sent: 1 MiB a second, bursts of 4 MiB.
#[derive(Debug)]
pub(crate) struct LiveLimit {
    room: f64,
    at: Option<Instant>,
    omitted_bytes: u64,
    all_omitted_bytes: u64,
}

impl LiveLimit {
    const PER_SECOND: f64 = 1_048_576.0;
    const BURST: f64 = 4.0 * Self::PER_SECOND;

    pub(crate) fn new() -> Self {
        Self { room: Self::BURST, at: None, omitted_bytes: 0, all_omitted_bytes: 0 }
    }

    /// The part of `lines` that may go now, with a marker for what could not.
    pub(crate) fn admit(&mut self, lines: Vec<LogLine>, now: Instant, time: Timestamp) -> Vec<LogLine> {
        let elapsed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.room = (self.room + elapsed.as_secs_f64() * Self::PER_SECOND).min(Self::BURST);
        let mut admitted = Vec::with_capacity(lines.len());
        for line in lines {
            #[expect(clippy::cast_precision_loss, reason = "sizes of lines are small")]
            let bytes = line.text.len() as f64;
            if bytes > self.room {
                self.omitted_bytes += line.text.len() as u64;
                self.all_omitted_bytes += line.text.len() as u64;
                continue;
            }
            if self.omitted_bytes > 0 {
                admitted.push(omitted(std::mem::take(&mut self.omitted_bytes), time));
            }
            self.room -= bytes;
            admitted.push(line);
        }
        admitted
    }

    /// Everything that was left out so far.
    pub(crate) fn all_omitted_bytes(&self) -> u64 {
        self.all_omitted_bytes
    }

    /// The marker for what was left out at the very end.
    pub(crate) fn finish(&mut self, time: Timestamp) -> Option<LogLine> {
        (self.omitted_bytes > 0).then(|| omitted(std::mem::take(&mut self.omitted_bytes), time))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Timestamp = Timestamp::from_millis(7);

    fn texts(lines: &[LogLine]) -> Vec<(&str, bool)> {
        lines.iter().map(|line| (line.text.as_str(), line.is_stderr)).collect()
    }

    #[test]
    fn the_first_line_after_a_pause_goes_at_once_and_the_next_waits_for_its_batch() {
        let start = Instant::now();
        let mut log = Assembler::default();
        log.push(Stream::Stdout, b"one\n", start, T);
        assert_eq!(texts(&log.take(start)), [("one\n", false)]);
        log.push(Stream::Stdout, b"two\nthree\n", start, T);
        assert!(log.take(start + Duration::from_millis(49)).is_empty());
        assert_eq!(log.due(), Some(start + BATCH_EVERY));
        assert_eq!(texts(&log.take(start + BATCH_EVERY)), [("two\nthree\n", false)]);
    }

    #[test]
    fn streams_keep_their_order_and_flags() {
        let now = Instant::now();
        let mut log = Assembler::default();
        log.push(Stream::Stdout, b"a\n", now, T);
        log.push(Stream::Stderr, b"b\n", now, T);
        log.push(Stream::Stdout, b"c\nd\n", now, T);
        assert_eq!(texts(&log.take(now)), [("a\n", false), ("b\n", true), ("c\nd\n", false)]);
    }

    #[test]
    fn a_character_cut_between_writes_stays_whole() {
        let now = Instant::now();
        let mut log = Assembler::default();
        let text = "日本\n".as_bytes();
        for byte in text {
            log.push(Stream::Stdout, &[*byte], now, T);
        }
        log.push(Stream::Stdout, b"bad \xff byte\n", now, T);
        assert_eq!(texts(&log.take(now)), [("日本\nbad \u{fffd} byte\n", false)]);
        log.push(Stream::Stdout, b"end \xe6", now, T);
        assert_eq!(texts(&log.finish(now)), [("end \u{fffd}", false)]);
    }

    #[test]
    fn an_unfinished_line_waits_a_while_and_then_leaves() {
        let now = Instant::now();
        let mut log = Assembler::default();
        log.push(Stream::Stdout, b"prompt> ", now, T);
        assert!(log.take(now).is_empty());
        assert_eq!(log.due(), Some(now + PARTIAL_LINE_WAIT));
        assert_eq!(texts(&log.take(now + PARTIAL_LINE_WAIT)), [("prompt> ", false)]);
        assert_eq!(log.due(), None);
    }

    #[test]
    fn a_line_without_end_is_broken_at_its_bound() {
        let now = Instant::now();
        let mut log = Assembler::default();
        log.push(Stream::Stdout, &vec![b'x'; BATCH_BYTES], now, T);
        assert_eq!(log.take(now)[0].text.len(), BATCH_BYTES);
    }

    #[test]
    fn overwritten_progress_collapses_to_its_last_state() {
        assert_eq!(collapse("10%\r20%\r30%\n", false), "30%\n");
        assert_eq!(collapse("10%\r20%\r", false), "20%\r");
        assert_eq!(collapse("\r20%\r30%", true), "\r30%");
        assert_eq!(collapse("long text\rx\n", false), "long text\rx\n");
        assert_eq!(collapse("dos\r\nlines\r\n", false), "dos\r\nlines\r\n");
    }

    #[test]
    fn a_long_log_keeps_head_and_tail_with_a_marker() {
        let mut log = ResultLog::new(30);
        for number in 0..10 {
            log.push(LogLine { text: format!("line {number}\n"), time: T, is_stderr: false });
        }
        let lines = log.into_lines(T);
        assert_eq!(
            texts(&lines),
            [
                ("line 0\n", false),
                ("[… 49 bytes omitted …]\n", true),
                ("line 8\n", false),
                ("line 9\n", false),
            ]
        );
    }

    #[test]
    fn a_flood_is_cut_for_watchers_and_says_so() {
        let now = Instant::now();
        let mut limit = LiveLimit::new();
        let line = |bytes: usize| LogLine { text: "x".repeat(bytes), time: T, is_stderr: false };
        let mebibyte = 1 << 20;
        let admitted = limit.admit((0..6).map(|_| line(mebibyte)).collect(), now, T);
        assert_eq!(admitted.len(), 4);
        let later = limit.admit(vec![line(10)], now + Duration::from_secs(1), T);
        assert_eq!(texts(&later), [("[… 2097152 bytes omitted …]\n", true), ("xxxxxxxxxx", false)]);
        assert_eq!(limit.finish(T), None);
    }

    #[test]
    fn what_has_left_is_known_to_the_byte() {
        let now = Instant::now();
        let mut log = Assembler::default();
        log.push(Stream::Stdout, "a\nb\n日".as_bytes(), now, T);
        log.push(Stream::Stderr, b"e\n\xe6", now, T);
        log.take(now);
        assert_eq!(log.left(), Position { stdout: 4, stderr: 2 });
        log.push(Stream::Stdout, b"x\n", now, T);
        assert!(log.take(now).is_empty(), "its batch is not due");
        log.take(now + PARTIAL_LINE_WAIT);
        assert_eq!(log.left(), Position { stdout: 9, stderr: 2 });
        assert_eq!(log.read(), Position { stdout: 9, stderr: 3 });
    }

    proptest! {
        #[test]
        fn no_text_is_lost_or_invented(chunks in prop::collection::vec(("[a-zé日\\n]{0,20}", any::<bool>()), 0..30)) {
            let start = Instant::now();
            let mut log = Assembler::default();
            let mut out = Vec::new();
            for (index, (text, is_stderr)) in chunks.iter().enumerate() {
                let stream = if *is_stderr { Stream::Stderr } else { Stream::Stdout };
                let now = start + Duration::from_millis(30 * index as u64);
                for byte in text.as_bytes() {
                    log.push(stream, &[*byte], now, T);
                }
                out.extend(log.take(now));
            }
            out.extend(log.finish(start));
            for is_stderr in [false, true] {
                let sent: String = chunks.iter().filter(|(_, s)| *s == is_stderr).map(|(t, _)| t.as_str()).collect();
                let got: String = out.iter().filter(|l| l.is_stderr == is_stderr).map(|l| l.text.as_str()).collect();
                prop_assert_eq!(sent, got);
            }
        }
    }
}
