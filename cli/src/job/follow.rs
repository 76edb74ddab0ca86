//! What a client knows of the one job that it submitted, from the messages of a watching socket
//! (`relay-protocol` 3.13). Pure: [`super::run`] connects and prints.

use dockframe_shared::Problem;
use dockframe_shared::job::{FinishReason, JobObject, LogLine, StateName};
use dockframe_shared::protocol::{LogCursors, LogKind, LogLines, RelayMessage};
use dockframe_shared::{JobId, Timestamp};

/// `ref` of the submission.
pub(crate) const SUBMIT: &str = "submit";
/// `ref` of the cancel.
pub(crate) const CANCEL: &str = "cancel";

/// What there is to do about a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// The submission is durable: lines may be asked for.
    Submitted,
    /// The relay refuses the submission.
    Refused(Problem),
    /// New lines, in order.
    Print(LogKind, Vec<LogLine>),
    /// A word to the user about the job's state.
    Tell(String),
    /// It ended with this reason.
    Finished(FinishReason),
}

/// One job as seen so far.
#[derive(Debug)]
pub(crate) struct Follow {
    job: JobId,
    /// Revision at which the submission stood; states before it are not about it.
    submitted: Option<u64>,
    latest: Option<JobObject>,
    /// The run that `lines` count in.
    attempt: Option<u32>,
    lines: LogCursors,
    told: Option<String>,
    /// It was seen unfinished after the submission.
    was_live: bool,
}

impl Follow {
    pub(crate) fn new(job: JobId) -> Self {
        Self {
            job,
            submitted: None,
            latest: None,
            attempt: None,
            lines: LogCursors::default(),
            told: None,
            was_live: false,
        }
    }

    pub(crate) fn is_submitted(&self) -> bool {
        self.submitted.is_some()
    }

    /// Numbers of the first lines still wanted.
    pub(crate) fn cursors(&self) -> LogCursors {
        LogCursors { build: Some(self.next(LogKind::Build)), run: Some(self.next(LogKind::Run)) }
    }

    pub(crate) fn next(&self, kind: LogKind) -> u64 {
        match kind {
            LogKind::Build => self.lines.build,
            LogKind::Run => self.lines.run,
        }
        .unwrap_or(0)
    }

    pub(crate) fn receive(&mut self, message: RelayMessage) -> Vec<Step> {
        match message {
            RelayMessage::Done(done) if done.reference.as_deref() == Some(SUBMIT) => match done.error {
                Some(problem) => vec![Step::Refused(problem)],
                None => {
                    let first = self.submitted.is_none();
                    self.submitted = Some(done.revision.unwrap_or(0));
                    let mut steps = Vec::new();
                    if first {
                        steps.push(Step::Submitted);
                    }
                    steps.extend(self.judge());
                    steps
                }
            },
            RelayMessage::JobStateUpdates(update) => {
                match update.state.jobs.into_iter().find(|(id, _)| *id == self.job) {
                    Some((_, Some(state))) if self.is_newer(&state) => {
                        self.follow_attempt(&state);
                        self.latest = Some(state);
                        self.judge()
                    }
                    _ => Vec::new(),
                }
            }
            RelayMessage::JobStatusPayload(lines) if lines.job_id == self.job => self.take_lines(lines),
            _ => Vec::new(),
        }
    }

    fn is_newer(&self, state: &JobObject) -> bool {
        self.latest.as_ref().is_none_or(|held| state.revision > held.revision || state.revision.is_none())
    }

    /// A further attempt counts its lines from 0 again. Only states of a run name theirs.
    fn follow_attempt(&mut self, state: &JobObject) {
        if state.attempt.is_none() || state.attempt == self.attempt {
            return;
        }
        if self.attempt.is_some() {
            self.lines = LogCursors::default();
        }
        self.attempt = state.attempt;
    }

    fn judge(&mut self) -> Vec<Step> {
        let (Some(submitted), Some(state)) = (self.submitted, &self.latest) else { return Vec::new() };
        if state.revision.is_some_and(|revision| revision < submitted) {
            return Vec::new();
        }
        self.was_live |= matches!(state.state, StateName::Queued | StateName::Running);
        let word = match state.state {
            StateName::Queued => match (&state.wait_reason, state.place) {
                (Some(reason), _) => format!("waiting: {reason}"),
                (None, Some(place)) if place > 1 => format!("waiting, place {place} in line"),
                // Its turn comes at once: not worth a word.
                (None, _) => return Vec::new(),
            },
            StateName::Running => format!("running on worker {}", state.worker),
            StateName::Finished => {
                return vec![Step::Finished(state.finished_reason.unwrap_or(FinishReason::Deleted))];
            }
            StateName::Removed => return vec![Step::Finished(FinishReason::Deleted)],
        };
        if self.told.as_ref() == Some(&word) {
            return Vec::new();
        }
        self.told = Some(word.clone());
        vec![Step::Tell(word)]
    }

    fn take_lines(&mut self, lines: LogLines) -> Vec<Step> {
        let kind = lines.step.kind();
        let next = self.next(kind);
        let from = lines.from.unwrap_or(next);
        let n_lines = lines.logs.len() as u64;
        // Repeats after a reconnect are dropped by number; a gap is filled when the job has ended.
        if from > next || from + n_lines <= next {
            return Vec::new();
        }
        let n_known = usize::try_from(next - from).unwrap_or(usize::MAX);
        let cursor = Some(from + n_lines);
        match kind {
            LogKind::Build => self.lines.build = cursor,
            LogKind::Run => self.lines.run = cursor,
        }
        vec![Step::Print(kind, lines.logs.into_iter().skip(n_known).collect())]
    }

    /// Time of the last state that the relay told, for people.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.latest.as_ref().map(|state| state.time)
    }

    /// It was finished when it was submitted: the answer is a stored result.
    pub(crate) fn was_stored(&self) -> bool {
        !self.was_live
    }

    /// The result that stands was computed in another queue.
    pub(crate) fn is_shared(&self) -> bool {
        self.latest.as_ref().and_then(|state| state.shared).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RelayMessage {
        RelayMessage::read(text).unwrap()
    }

    fn state(revision: u64, state: &str, more: &str) -> RelayMessage {
        read(&format!(
            r#"{{"type":"JobStateUpdates","payload":{{"isSubset":true,"state":{{"jobs":{{"j1":{{"queuedTime":1,"time":1,"state":"{state}","revision":{revision}{more}}}}}}}}}}}"#
        ))
    }

    fn done(revision: u64) -> RelayMessage {
        read(&format!(r#"{{"type":"Done","payload":{{"ref":"submit","jobId":"j1","revision":{revision}}}}}"#))
    }

    fn lines(from: u64, texts: &[&str]) -> RelayMessage {
        let logs = texts.iter().map(|text| format!(r#"["{text}",1]"#)).collect::<Vec<_>>().join(",");
        read(&format!(
            r#"{{"type":"JobStatusPayload","payload":{{"jobId":"j1","step":"Running","logs":[{logs}],"from":{from}}}}}"#
        ))
    }

    fn follow() -> Follow {
        Follow::new(JobId::new("j1").unwrap())
    }

    #[test]
    fn a_result_from_before_a_rerun_is_not_the_answer() {
        let mut follow = follow();
        assert_eq!(follow.receive(state(3, "Finished", r#","finishedReason":"Error""#)), []);
        assert_eq!(follow.receive(done(4)), [Step::Submitted]);
        assert_eq!(follow.receive(state(4, "Queued", "")), []);
        assert_eq!(
            follow.receive(state(5, "Queued", r#","place":2"#)),
            [Step::Tell("waiting, place 2 in line".into())]
        );
        assert_eq!(
            follow.receive(state(7, "Finished", r#","finishedReason":"Success""#)),
            [Step::Finished(FinishReason::Success)]
        );
    }

    #[test]
    fn a_stored_result_answers_at_once() {
        let mut follow = follow();
        follow.receive(state(3, "Finished", r#","finishedReason":"Success""#));
        assert_eq!(follow.receive(done(3)), [Step::Submitted, Step::Finished(FinishReason::Success)]);
    }

    #[test]
    fn lines_are_printed_once_whatever_is_repeated() {
        let mut follow = follow();
        let texts = |steps: Vec<Step>| {
            steps
                .into_iter()
                .flat_map(|step| match step {
                    Step::Print(_, lines) => lines.into_iter().map(|line| line.text).collect(),
                    _ => Vec::new(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(follow.receive(lines(0, &["a", "b"]))), ["a", "b"]);
        assert_eq!(texts(follow.receive(lines(1, &["b", "c"]))), ["c"]);
        assert_eq!(texts(follow.receive(lines(0, &["a"]))), [""; 0]);
        assert_eq!(texts(follow.receive(lines(9, &["later"]))), [""; 0]);
        assert_eq!(follow.next(LogKind::Run), 3);
    }

    #[test]
    fn another_attempt_begins_its_lines_anew() {
        let mut follow = follow();
        follow.receive(done(1));
        follow.receive(state(2, "Running", r#","worker":"w","attempt":1"#));
        follow.receive(lines(0, &["a"]));
        follow.receive(state(3, "Queued", ""));
        assert_eq!(follow.next(LogKind::Run), 1);
        follow.receive(state(5, "Running", r#","worker":"w","attempt":2"#));
        assert_eq!(follow.next(LogKind::Run), 0);
    }
}
