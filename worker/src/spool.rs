//! Lines on their way to the relay (`worker` 22.3, B12; `jobs-and-states` 8.4). Pure.
//!
//! Lines are numbered per run and kind from 0. A line stays here until the relay has certainly read it: frames of a
//! socket are read in order, so a `PONG` confirms all that was sent before its `PING`. After a reconnect everything
//! unconfirmed goes again; the relay drops repeats by number. Bounded: the oldest lines go first, and their place
//! says how much is missing.

use std::collections::VecDeque;

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogKind, LogStep, Logs};
use dockframe_shared::{JobId, LeaseId};

use crate::logs::omitted;

/// What one run may keep.
const MAX_BYTES: usize = 8 << 20;
/// Text in one frame.
const MAX_FRAME_BYTES: usize = 192 << 10;
/// What a line costs besides its text.
const LINE_OVERHEAD: usize = 48;

/// The lines of one run.
#[derive(Debug)]
pub(crate) struct Spool {
    job: JobId,
    lease: LeaseId,
    build: Kind,
    run: Kind,
}

/// Lines of one kind: `lines[0]` has the number `first`.
#[derive(Debug, Default)]
struct Kind {
    lines: VecDeque<(LogStep, LogLine)>,
    bytes: usize,
    first: u64,
    sent: u64,
}

/// Up to which line of a kind a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpTo {
    pub(crate) kind: LogKind,
    pub(crate) number: u64,
}

impl Spool {
    pub(crate) fn new(job: JobId, lease: LeaseId) -> Self {
        Self { job, lease, build: Kind::default(), run: Kind::default() }
    }

    /// Numbering goes on where an earlier process has left it.
    pub(crate) fn continue_from(&mut self, kind: LogKind, number: u64) {
        let kind = self.kind(kind);
        kind.first = number;
        kind.sent = number;
    }

    pub(crate) fn push(&mut self, step: &LogStep, lines: Vec<LogLine>) {
        let kind = self.kind(step.kind());
        for line in lines {
            kind.bytes += line.text.len() + LINE_OVERHEAD;
            kind.lines.push_back((step.clone(), line));
        }
        kind.shrink(MAX_BYTES);
    }

    /// The next frame to send, with what its confirmation will mean.
    pub(crate) fn next_frame(&mut self) -> Option<(Logs, UpTo)> {
        let which = [LogKind::Build, LogKind::Run].into_iter().find(|kind| self.kind(*kind).has_unsent())?;
        let (from, step, logs) = self.kind(which).take_frame()?;
        let number = from + logs.len() as u64;
        let frame = Logs {
            job_id: self.job.clone(),
            step,
            logs,
            lease_id: Some(self.lease.clone()),
            from: Some(from),
        };
        Some((frame, UpTo { kind: which, number }))
    }

    pub(crate) fn confirm(&mut self, up_to: UpTo) {
        let kind = self.kind(up_to.kind);
        while kind.first < up_to.number {
            let Some((_, line)) = kind.lines.pop_front() else { break };
            kind.bytes -= line.text.len() + LINE_OVERHEAD;
            kind.first += 1;
        }
    }

    /// The connection is gone: what was not confirmed goes again.
    pub(crate) fn rewind(&mut self) {
        self.build.sent = self.build.first;
        self.run.sent = self.run.first;
    }

    /// What is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.build.bytes + self.run.bytes
    }

    /// Loses the oldest lines, so that at least so many bytes are free again, if there are so many.
    pub(crate) fn lose(&mut self, bytes: usize) {
        let kind = if self.run.bytes >= self.build.bytes { &mut self.run } else { &mut self.build };
        kind.shrink(kind.bytes.saturating_sub(bytes));
    }

    fn kind(&mut self, kind: LogKind) -> &mut Kind {
        match kind {
            LogKind::Build => &mut self.build,
            LogKind::Run => &mut self.run,
        }
    }
}

impl Kind {
    fn has_unsent(&self) -> bool {
        self.sent < self.first + self.lines.len() as u64
    }

    /// Lines of one step, as many as a frame takes.
    fn take_frame(&mut self) -> Option<(u64, LogStep, Vec<LogLine>)> {
        let from = self.sent.max(self.first);
        let skip = usize::try_from(from - self.first).ok()?;
        let mut unsent = self.lines.iter().skip(skip).peekable();
        let step = unsent.peek()?.0.clone();
        let mut bytes = 0;
        let mut lines = Vec::new();
        for (_, line) in unsent.take_while(|(line_step, _)| *line_step == step) {
            bytes += line.text.len() + LINE_OVERHEAD;
            if bytes > MAX_FRAME_BYTES && !lines.is_empty() {
                break;
            }
            lines.push(line.clone());
        }
        self.sent = from + lines.len() as u64;
        Some((from, step, lines))
    }

    /// Drops the oldest lines over the bound; the first that stays tells how much is missing.
    fn shrink(&mut self, max_bytes: usize) {
        let mut lost = 0_u64;
        while self.bytes > max_bytes && self.lines.len() > 1 {
            let Some((_, line)) = self.lines.pop_front() else { break };
            self.bytes -= line.text.len() + LINE_OVERHEAD;
            self.first += 1;
            if self.first > self.sent {
                lost += line.text.len() as u64;
            }
        }
        self.sent = self.sent.max(self.first);
        if lost > 0
            && let Some((_, oldest)) = self.lines.front_mut()
        {
            lost += oldest.text.len() as u64;
            self.bytes -= oldest.text.len();
            *oldest = omitted(lost, oldest.time);
            self.bytes += oldest.text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use dockframe_shared::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn spool() -> Spool {
        Spool::new(JobId::new("j").unwrap(), LeaseId::new("l").unwrap())
    }

    fn line(text: &str) -> LogLine {
        LogLine { text: text.to_owned(), time: Timestamp::from_millis(1), is_stderr: false }
    }

    fn drain(spool: &mut Spool) -> Vec<(u64, Vec<String>)> {
        std::iter::from_fn(|| spool.next_frame())
            .map(|(frame, _)| (frame.from.unwrap(), frame.logs.into_iter().map(|line| line.text).collect()))
            .collect()
    }

    #[test]
    fn lines_are_numbered_per_kind_from_0() {
        let mut spool = spool();
        spool.push(&LogStep::Running, vec![line("a"), line("b")]);
        spool.push(&LogStep::ImagePull, vec![line("p")]);
        assert_eq!(drain(&mut spool), [(0, vec!["p".to_owned()]), (0, vec!["a".to_owned(), "b".to_owned()])]);
        spool.push(&LogStep::Running, vec![line("c")]);
        assert_eq!(drain(&mut spool), [(2, vec!["c".to_owned()])]);
    }

    #[test]
    fn unconfirmed_lines_go_again_with_the_same_numbers() {
        let mut spool = spool();
        spool.push(&LogStep::Running, vec![line("a"), line("b")]);
        let (_, up_to) = spool.next_frame().unwrap();
        spool.push(&LogStep::Running, vec![line("c")]);
        assert_eq!(drain(&mut spool), [(2, vec!["c".to_owned()])]);
        spool.confirm(up_to);
        spool.rewind();
        assert_eq!(drain(&mut spool), [(2, vec!["c".to_owned()])]);
    }

    #[test]
    fn a_full_spool_loses_the_oldest_and_says_so() {
        let mut spool = spool();
        let big = "x".repeat(1 << 20);
        spool.push(&LogStep::Running, (0..10).map(|_| line(&big)).collect());
        let frames = drain(&mut spool);
        assert!(frames[0].0 > 0);
        assert!(frames[0].1[0].contains("bytes omitted"), "{}", frames[0].1[0]);
        let kept: usize = frames.iter().map(|(_, lines)| lines.len()).sum();
        assert_eq!(frames[0].0 as usize + kept, 10, "numbers do not change");
    }

    #[test]
    fn a_spool_can_be_made_to_lose_its_oldest_lines() {
        let mut spool = spool();
        let text = "x".repeat(1000);
        spool.push(&LogStep::Running, (0..10).map(|_| line(&text)).collect());
        let before = spool.bytes();
        spool.lose(3000);
        assert!(spool.bytes() <= before - 3000);
        let frames = drain(&mut spool);
        assert_eq!((frames[0].0, frames[0].1.len()), (3, 7));
        assert!(frames[0].1[0].contains("bytes omitted"));
    }

    #[test]
    fn frames_hold_one_step_and_stay_small() {
        let mut spool = spool();
        spool.push(&LogStep::ImagePull, vec![line("p")]);
        spool.push(&LogStep::Build, (0..100).map(|_| line(&"y".repeat(10_000))).collect());
        while let Some((frame, _)) = spool.next_frame() {
            let bytes: usize = frame.logs.iter().map(|line| line.text.len()).sum();
            assert!(bytes <= MAX_FRAME_BYTES);
            assert_eq!(frame.logs.len() == 1, frame.step == LogStep::ImagePull);
        }
    }

    proptest! {
        #[test]
        fn the_relay_gets_every_line_once_by_number(moves in prop::collection::vec(0_u8..4, 1..60)) {
            let mut spool = spool();
            let mut pushed = 0_u64;
            let mut seen: std::collections::BTreeMap<u64, String> = Default::default();
            let mut in_flight = Vec::new();
            for step in moves {
                match step {
                    0 => { spool.push(&LogStep::Running, vec![line(&pushed.to_string())]); pushed += 1; }
                    1 => if let Some((frame, up_to)) = spool.next_frame() {
                        for (offset, line) in frame.logs.iter().enumerate() {
                            let known = seen.entry(frame.from.unwrap() + offset as u64).or_insert_with(|| line.text.clone());
                            prop_assert_eq!(known.as_str(), line.text.as_str());
                        }
                        in_flight.push(up_to);
                    },
                    2 => if !in_flight.is_empty() { spool.confirm(in_flight.remove(0)); },
                    _ => { spool.rewind(); in_flight.clear(); }
                }
            }
            while let Some((frame, _)) = spool.next_frame() {
                for (offset, line) in frame.logs.iter().enumerate() {
                    seen.entry(frame.from.unwrap() + offset as u64).or_insert_with(|| line.text.clone());
                }
            }
            prop_assert_eq!(seen.len() as u64, pushed);
            prop_assert!(seen.iter().all(|(number, text)| *text == number.to_string()));
        }
    }
}
