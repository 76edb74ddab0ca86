//! The log of the current job: pieces as they stream become the rows of a terminal.
//!
//! A piece may hold several lines or part of one, in the colours of ANSI escapes, with carriage returns that
//! rewrite the line. Rows are plain data: the view makes text nodes of them, so nothing in a log can become HTML.
//! Lines are numbered per run and kind (`relay-protocol` 3.13), which makes a reconnect lossless and free of
//! repeats. What is kept is bounded; the rest is counted.

use dockframe_shared::Timestamp;
use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogCursors, LogKind, LogLines};

use super::ansi::{Painter, Span};
use crate::text::folded;

/// Most rows kept; older ones are dropped and counted.
pub const MAX_ROWS: usize = 20_000;
/// How many rows are dropped at once when there are too many.
const DROP_ROWS: usize = 2_000;
/// Longest row, in bytes; the rest of the line is cut and marked.
const MAX_ROW_BYTES: usize = 16_384;

/// Which of the container's voices a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Voice {
    /// Pull, clone, build, push.
    Build,
    Stdout,
    Stderr,
    /// The page itself: gaps, a lost worker.
    Note,
}

/// One row of the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub voice: Voice,
    pub time: Timestamp,
    pub spans: Vec<Span>,
    bytes: usize,
    is_open: bool,
}

impl Row {
    #[must_use]
    pub fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}

/// All rows of the current job.
#[derive(Debug, Default)]
pub struct Log {
    rows: Vec<Row>,
    dropped: usize,
    /// Grows when rows that were there changed or went: a view that has drawn them starts anew.
    generation: u64,
    /// Number of the next line wanted of each kind.
    next: Cursors,
    painters: Painters,
    first_time: Option<Timestamp>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Cursors {
    build: u64,
    run: u64,
}

/// Colours go on from piece to piece, for each voice on its own.
#[derive(Debug, Default)]
struct Painters {
    build: Painter,
    stdout: Painter,
    stderr: Painter,
}

impl Log {
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Rows that are no longer kept.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When the program's own first line came, to which times are relative.
    #[must_use]
    pub fn first_time(&self) -> Option<Timestamp> {
        self.first_time
    }

    /// What a `Watch` asks for so that nothing is missing and nothing comes twice.
    #[must_use]
    pub fn cursors(&self) -> LogCursors {
        LogCursors { build: Some(self.next.build), run: Some(self.next.run) }
    }

    /// The last row that says something, for the strip.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        let mut recent = self.rows.iter().rev().take(20).filter(|row| row.voice != Voice::Note);
        recent.find_map(|row| {
            let text = row.text();
            let line = text.trim();
            (!line.is_empty()).then(|| line.to_owned())
        })
    }

    /// The last row of stderr that says something: the likeliest cause of a failure.
    #[must_use]
    pub fn last_error_line(&self) -> Option<String> {
        let mut errors = self.rows.iter().rev().take(500).filter(|row| row.voice == Voice::Stderr);
        errors.find_map(|row| {
            let text = row.text();
            let line = text.trim();
            (!line.is_empty() && !is_remark(line)).then(|| line.to_owned())
        })
    }

    /// What the worker is at while it makes the image: the last row of the build's.
    #[must_use]
    pub fn last_build_line(&self) -> Option<String> {
        self.rows.iter().rev().find(|row| row.voice == Voice::Build).map(Row::text)
    }

    /// The rows that hold a text, whatever its case, by their place in [`Self::rows`].
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<usize> {
        let wanted = folded(text);
        if wanted.is_empty() {
            return Vec::new();
        }
        let holds = |row: &Row| folded(&row.text()).contains(&wanted);
        self.rows.iter().enumerate().filter(|(_, row)| holds(row)).map(|(place, _)| place).collect()
    }

    /// Everything that is shown, as text.
    #[must_use]
    pub fn plain_text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for span in &row.spans {
                text.push_str(&span.text);
            }
            text.push('\n');
        }
        text
    }

    /// Another job, or a new run of this one: nothing of the old stays.
    pub fn clear(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }

    /// The same job goes on in a new run (its worker was lost): rows stay, numbering begins again.
    pub fn restart_numbering(&mut self, note: &str, now: Timestamp) {
        self.next = Cursors::default();
        self.painters = Painters::default();
        if !self.rows.is_empty() {
            self.note(note, now);
        }
    }

    /// A row of the page's own.
    pub fn note(&mut self, text: &str, now: Timestamp) {
        self.close_open_row();
        let span = Span { text: text.to_owned(), style: super::ansi::Style::default() };
        self.rows.push(Row {
            voice: Voice::Note,
            time: now,
            bytes: text.len(),
            spans: vec![span],
            is_open: false,
        });
        self.enforce_limit();
    }

    /// Lines as they stream. Returns whether anything changed.
    pub fn append(&mut self, lines: &LogLines, now: Timestamp) -> bool {
        let kind = lines.step.kind();
        let next = match kind {
            LogKind::Build => &mut self.next.build,
            LogKind::Run => &mut self.next.run,
        };
        let count = lines.logs.len() as u64;
        let mut skip = 0;
        let mut missing = 0;
        if let Some(from) = lines.from {
            skip = next.saturating_sub(from).min(count);
            missing = from.saturating_sub(*next);
            *next = (*next).max(from.saturating_add(count));
        }
        if missing > 0 {
            self.note(&crate::text::lines_skipped(missing), now);
        }
        let fresh = lines.logs.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let mut changed = missing > 0;
        for line in fresh {
            let voice = match (kind, line.is_stderr) {
                (LogKind::Build, _) => Voice::Build,
                (LogKind::Run, false) => Voice::Stdout,
                (LogKind::Run, true) => Voice::Stderr,
            };
            self.write(voice, &line.text, line.time);
            changed = true;
        }
        self.enforce_limit();
        changed
    }

    /// The result's log takes the place of the streamed run lines; build lines and notes stay (`metaframe` 5.9).
    pub fn settle(&mut self, result: &[LogLine]) {
        if result.is_empty() {
            return;
        }
        self.rows.retain(|row| row.voice == Voice::Build);
        self.generation += 1;
        self.painters = Painters::default();
        self.first_time = None;
        for line in result {
            let voice = if line.is_stderr { Voice::Stderr } else { Voice::Stdout };
            self.write(voice, &line.text, line.time);
        }
        self.close_open_row();
        self.enforce_limit();
    }

    fn write(&mut self, voice: Voice, text: &str, time: Timestamp) {
        if voice != Voice::Build && self.first_time.is_none() {
            self.first_time = Some(time);
        }
        // A pull says every second how far it is; the newest of these lines stands for all.
        if voice == Voice::Build && pull_percent(text).is_some() {
            let is_newer = |row: &Row| row.voice == Voice::Build && pull_percent(&row.text()).is_some();
            if self.rows.last().is_some_and(is_newer) {
                self.rows.pop();
            }
        }
        // Workers' own remarks come without newlines, and each is a line.
        let is_remark = is_remark(text);
        if is_remark {
            self.close_open_row();
        }
        // Workers say each step of pull and build as a line, most of them without its newline.
        let ends_open = !text.ends_with('\n') && !is_remark && voice != Voice::Build;
        let mut parts = text.split('\n').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            if is_last && part.is_empty() {
                break;
            }
            // An empty text is a line of its own only for old workers, who send lines without their newline.
            self.write_part(voice, part, time, is_last && ends_open);
        }
        if text.is_empty() {
            self.write_part(voice, "", time, false);
        }
    }

    fn write_part(&mut self, voice: Voice, part: &str, time: Timestamp, is_open: bool) {
        let continues = self.rows.last().is_some_and(|row| row.is_open && row.voice == voice);
        if !continues {
            self.close_open_row();
            self.rows.push(Row { voice, time, spans: Vec::new(), bytes: 0, is_open: true });
        }
        let painter = match voice {
            Voice::Build => &mut self.painters.build,
            Voice::Stderr => &mut self.painters.stderr,
            Voice::Stdout | Voice::Note => &mut self.painters.stdout,
        };
        if let Some(row) = self.rows.last_mut() {
            let room = MAX_ROW_BYTES.saturating_sub(row.bytes);
            let kept = floor_char(part, room);
            row.bytes += part.len();
            painter.paint(kept, &mut row.spans);
            if kept.len() < part.len() && room > 0 {
                painter.paint(" …", &mut row.spans);
            }
            if part.contains('\r') {
                row.bytes = row.spans.iter().map(|span| span.text.len()).sum();
            }
            row.is_open = is_open;
        }
        if !is_open {
            painter.end_row();
        }
    }

    fn close_open_row(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.is_open = false;
        }
    }

    fn enforce_limit(&mut self) {
        if self.rows.len() > MAX_ROWS {
            let excess = self.rows.len() - MAX_ROWS + DROP_ROWS;
            self.rows.drain(..excess);
            self.dropped += excess;
            self.generation += 1;
        }
    }
}

/// How far a pull is, if the line says so: `pulling NAME: 3/8 layers, 71 %, 88 MB/s`.
#[must_use]
pub fn pull_percent(line: &str) -> Option<u8> {
    let (_, progress) = line.strip_prefix("pulling ")?.split_once(" layers, ")?;
    let percent: u8 = progress.split_once(" %")?.0.parse().ok()?;
    (percent <= 100).then_some(percent)
}

/// A line that a worker adds to the program's, by the signs that mark it.
fn is_remark(text: &str) -> bool {
    text.starts_with(['💥', '⚠'])
}

/// The longest beginning of `text` that has at most `max` bytes and ends between characters.
fn floor_char(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use dockframe_shared::JobId;
    use dockframe_shared::protocol::LogStep;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn pieces(step: LogStep, from: Option<u64>, texts: &[&str]) -> LogLines {
        let logs = texts.iter().map(|text| LogLine { text: (*text).into(), time: at(1), is_stderr: false });
        LogLines { job_id: JobId::new("j").unwrap(), step, logs: logs.collect(), from }
    }

    fn texts(log: &Log) -> Vec<String> {
        log.rows().iter().map(Row::text).collect()
    }

    #[test]
    fn pieces_become_lines_whatever_their_cuts() {
        let mut log = Log::default();
        log.append(&pieces(LogStep::Running, None, &["a\nb", "c\n", "d\n\ne"]), at(1));
        assert_eq!(texts(&log), ["a", "bc", "d", "", "e"]);
    }

    #[test]
    fn lines_that_come_twice_are_shown_once_and_gaps_are_said() {
        let mut log = Log::default();
        log.append(&pieces(LogStep::Running, Some(0), &["0\n", "1\n"]), at(1));
        log.append(&pieces(LogStep::Running, Some(1), &["1\n", "2\n"]), at(1));
        log.append(&pieces(LogStep::Running, Some(0), &["0\n"]), at(1));
        assert_eq!(texts(&log), ["0", "1", "2"]);
        log.append(&pieces(LogStep::Running, Some(8), &["8\n"]), at(1));
        assert_eq!(log.rows().len(), 5);
        assert_eq!(log.rows()[3].voice, Voice::Note);
        assert_eq!(log.cursors(), LogCursors { build: Some(0), run: Some(9) });
    }

    #[test]
    fn the_results_log_replaces_run_lines_and_keeps_build_lines() {
        let mut log = Log::default();
        log.append(&pieces(LogStep::ImagePull, Some(0), &["pulling\n"]), at(1));
        log.append(&pieces(LogStep::Running, Some(0), &["partly"]), at(1));
        let before = log.generation();
        log.settle(&[LogLine { text: "whole\n".into(), time: at(2), is_stderr: false }]);
        assert_eq!(texts(&log), ["pulling", "whole"]);
        assert!(log.generation() > before);
        log.settle(&[]);
        assert_eq!(texts(&log), ["pulling", "whole"]);
    }

    #[test]
    fn a_flood_keeps_the_newest_rows_and_counts_the_rest() {
        let mut log = Log::default();
        for _ in 0..(MAX_ROWS + 10) {
            log.append(&pieces(LogStep::Running, None, &["x\n"]), at(1));
        }
        assert!(log.rows().len() <= MAX_ROWS);
        assert_eq!(log.rows().len() + log.dropped(), MAX_ROWS + 10);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut log = Log::default();
        for _ in 0..100 {
            log.append(&pieces(LogStep::Running, None, &["é".repeat(1000).as_str()]), at(1));
        }
        assert_eq!(log.rows().len(), 1);
        assert!(log.rows()[0].text().len() <= MAX_ROW_BYTES + 8);
    }

    #[test]
    fn a_workers_remarks_are_lines_of_their_own_and_no_cause() {
        let mut log = Log::default();
        let line = |text: &str| LogLine { text: text.into(), time: at(1), is_stderr: true };
        log.settle(&[
            line("oops"),
            line("⚠️ Container exited with status code: 3"),
            line("💥 StatusCode: 3"),
        ]);
        assert_eq!(log.rows().len(), 3);
        assert_eq!(log.last_error_line().as_deref(), Some("oops"));
    }

    #[test]
    fn a_pulls_progress_is_one_line_that_moves() {
        let mut log = Log::default();
        let lines = ["pulling a:1: 0/3 layers, 4 %, 9 MB/s", "pulling a:1: 1/3 layers, 71 %, 9 MB/s", "done"];
        log.append(&pieces(LogStep::ImagePull, Some(0), &lines[..1]), at(1));
        log.append(&pieces(LogStep::ImagePull, Some(1), &lines[1..]), at(1));
        assert_eq!(texts(&log), [lines[1], "done"]);
        assert_eq!(pull_percent(lines[1]), Some(71));
        for odd in ["pulling a: 1/3 layers", "pulling a: 0/1 layers, 700 %", "71 %"] {
            assert_eq!(pull_percent(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_search_counts_each_row_once_whatever_its_case() {
        let mut log = Log::default();
        log.append(&pieces(LogStep::Running, None, &["Error: error\n", "fine\n", "no ERROR\n"]), at(1));
        assert_eq!(log.find("error"), [0, 2]);
        assert_eq!(log.find(""), [0; 0]);
    }

    #[test]
    fn carriage_returns_rewrite_the_line() {
        let mut log = Log::default();
        log.append(&pieces(LogStep::Running, None, &["10 %\r20 %", "\r30 %\r\n", "done\r\n"]), at(1));
        assert_eq!(texts(&log), ["30 %", "done"]);
    }
}
