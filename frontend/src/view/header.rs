//! The header: what the job is doing, since when, what came of it. In a strip it is all there is.

use dockframe_shared::Timestamp;
use dockframe_shared::job::{FinishReason, ResultReason, StateName};
use dockframe_shared::protocol::LogStep;

use super::Tone;
use super::failure::{FailureKind, brief, error_text, exit_advice, exit_meaning, failure};
use crate::state::actions::{JobButton, job_button};
use crate::state::connection::Phase;
use crate::state::job_view::{Ending, PendingWhat, ResultState, Word};
use crate::state::log::pull_percent;
use crate::state::uploads::Upload;
use crate::state::wanted::WantedError;
use crate::state::{Short, State};
use crate::text;

/// What is shown; times that grow are drawn by the component.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    pub tone: Tone,
    /// The state in a word or two.
    pub title: String,
    /// What follows it in plain type.
    pub suffix: String,
    /// A growing time since then stands after the suffix.
    pub since: Option<Timestamp>,
    /// The second line.
    pub detail: String,
    /// `detail` is the age of this time, said as *ago*, before its text.
    pub detail_ago: Option<Timestamp>,
    /// The suffix is the age of this time.
    pub kept_since: Option<Timestamp>,
    /// Something is under way: the dot breathes.
    pub is_busy: bool,
    /// How far it is, in percent, where that is known.
    pub percent: Option<u8>,
}

impl Header {
    fn new(tone: Tone, title: &str) -> Self {
        Self { tone, title: title.to_owned(), ..Self::default() }
    }

    fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    fn busy(mut self) -> Self {
        self.is_busy = true;
        self
    }
}

/// The header for this state.
#[must_use]
pub fn header(state: &State) -> Header {
    let mut header = of_state(state);
    if is_cut_off(state) && state.wanted.is_ok() {
        // What is shown is as of then.
        let note = "connection lost, trying again";
        header.detail =
            if header.detail.is_empty() { note.into() } else { format!("{note} · {}", header.detail) };
        header.is_busy = false;
    }
    header
}

/// The socket is gone though the relay had spoken.
fn is_cut_off(state: &State) -> bool {
    let heard = !matches!(state.job.word, Word::Silent);
    heard && !state.connection.may_speak() && state.connection.phase != Phase::Off
}

fn of_state(state: &State) -> Header {
    if let Some(header) = before_a_job(state) {
        return header;
    }
    if let Some(pending) = &state.job.pending {
        let title = match pending.what {
            PendingWhat::Stop => "Stopping",
            PendingWhat::Delete => "Deleting",
        };
        let header = Header::new(Tone::Wait, title).since(pending.since).busy();
        return if pending.is_late {
            header.detail("the queue has not confirmed it; what it says is shown below")
        } else {
            header
        };
    }
    if let Some(kept) = &state.job.kept {
        let mut header = Header::new(Tone::Idle, "Kept result");
        header.kept_since = Some(kept.time);
        header.detail = "from an earlier visit; the queue has not confirmed it yet".to_owned();
        return header;
    }
    match state.job.object() {
        Some(job) if job.state == StateName::Queued => queued(state, job.queued_time, job),
        Some(job) if job.state == StateName::Running => running(state, job),
        Some(job) if state.job.result_reason().is_some() => finished(state, job),
        _ => without_a_run(state),
    }
}

/// Nothing can run yet, and why.
fn before_a_job(state: &State) -> Option<Header> {
    match &state.short {
        Short::Loading => return Some(Header::new(Tone::Wait, "Loading the job").busy()),
        Short::Failed(why) if state.address.is_blank() => {
            return Some(Header::new(Tone::Bad, "Job not found").detail(why.clone()));
        }
        Short::None | Short::Loaded(_) | Short::Failed(_) => {}
    }
    let wanted = match &state.wanted {
        Ok(wanted) => wanted,
        Err(error) => return Some(unwanted(error)),
    };
    match wanted.upload_state(&state.uploads) {
        Some(Upload::Failed(why)) => Some(Header::new(Tone::Bad, "Input not uploaded").detail(why.clone())),
        Some(Upload::Sending) => Some(
            Header::new(Tone::Run, "Uploading")
                .suffix(text::plural(wanted.uploads.len() as u64, "input", "inputs"))
                .busy(),
        ),
        Some(Upload::Done) | None => None,
    }
}

fn unwanted(error: &WantedError) -> Header {
    match error {
        WantedError::NotYet => Header::new(Tone::Idle, "Starting"),
        WantedError::WaitsForHost => {
            Header::new(Tone::Wait, "Waiting").suffix("for the page around this one").busy()
        }
        WantedError::WaitsForDefinition => Header::new(Tone::Wait, "Loading the job").busy(),
        WantedError::Malformed(bad) => {
            Header::new(Tone::Bad, "Link not readable").detail(format!("{}: {}", bad.name, bad.problem))
        }
        WantedError::Shape(why) => Header::new(Tone::Bad, "Job not readable").detail(why.clone()),
        WantedError::NoJob => Header::new(Tone::Idle, "No job yet").detail("choose an image and a command"),
        WantedError::NoImage => {
            Header::new(Tone::Warn, "No image").detail("the job names neither image nor build")
        }
        WantedError::NoQueue => {
            Header::new(Tone::Warn, "No queue").detail("connect a computer to run this job")
        }
    }
}

fn queued(state: &State, since: Timestamp, job: &dockframe_shared::job::JobObject) -> Header {
    let place = match job.place {
        // What a strip has room for.
        Some(1) => "first in line".to_owned(),
        Some(place) => format!("place {} in line", text::count(u64::from(place))),
        None => "for a worker".to_owned(),
    };
    let mut header = Header::new(Tone::Wait, "Waiting").suffix(place).busy();
    header.detail_ago = Some(since);
    header.detail = match (&job.wait_reason, state.job.was_lost) {
        (Some(reason), _) => reason.clone(),
        (None, true) => "the worker was lost; the job waits again".to_owned(),
        (None, false) => String::new(),
    };
    header
}

fn running(state: &State, job: &dockframe_shared::job::JobObject) -> Header {
    let title = match &state.job.build_step {
        Some(LogStep::ImagePull) => "Pulling image",
        Some(LogStep::CloningRepo) => "Fetching sources",
        Some(LogStep::Build) => "Building image",
        Some(LogStep::ImagePush) => "Pushing image",
        _ => "Running",
    };
    let mut detail = state.log.last_line().unwrap_or_default();
    if detail.is_empty() && !job.worker.is_empty() {
        detail = format!("worker {}", short(&job.worker));
    }
    let mut header = Header::new(Tone::Run, title).since(job.time).busy();
    if state.job.build_step.is_some() {
        let line = state.log.last_build_line().unwrap_or_default();
        header.percent = pull_percent(&line);
        detail = match header.percent {
            Some(percent) => {
                header = header.suffix(format!("{percent} %"));
                line.trim_start_matches("pulling ").to_owned()
            }
            None => line,
        };
    }
    if state.job.held_by_others {
        detail = "others still hold this job, so it goes on for them".to_owned();
    }
    header.detail(detail)
}

fn finished(state: &State, job: &dockframe_shared::job::JobObject) -> Header {
    let ResultState::Loaded(finish) = &state.job.result else {
        let header = Header::new(Tone::Good, "Finished").suffix("loading the result").busy();
        return match &state.job.result {
            ResultState::Loading { why: Some(why), failures, .. } if *failures >= 3 => {
                Header::new(Tone::Warn, "Finished").suffix("result not loaded yet").detail(why.clone())
            }
            _ => header,
        };
    };
    let result = &finish.result;
    let took = result.duration.map(|duration| {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a run")]
        let millis = duration.0 as i64;
        text::duration(millis)
    });
    let in_time = took.as_ref().map(|took| format!("in {took}")).unwrap_or_default();
    let after = took.as_ref().map(|took| format!("after {took}")).unwrap_or_default();
    let worker = finish.worker.as_deref().or(Some(job.worker.as_str())).filter(|id| !id.is_empty());
    let mut facts = Vec::new();
    if let Some(code) = result.status_code {
        facts.push(format!("exit {code}"));
    }
    facts.extend(worker.map(|worker| format!("worker {}", short(worker))));
    let facts = facts.join(" · ");
    let mut header = match failure(finish) {
        Some(failure) => {
            let title = match failure.kind {
                FailureKind::OutOfMemory => "Out of memory",
                FailureKind::TimedOut => "Timed out",
                FailureKind::ImageNotFound => "Image not found",
                FailureKind::PullDenied => "Image not allowed",
                FailureKind::BuildFailed => "Build failed",
                FailureKind::InputFailed => "Input not available",
                FailureKind::CommandNotFound => "Could not start",
                FailureKind::TooLarge => "Too large",
                FailureKind::NoNetwork => "Not reachable",
                FailureKind::Other => "Failed",
            };
            let cause = if failure.message.is_empty() { facts } else { brief(&failure.message).to_owned() };
            Header::new(Tone::Bad, title).suffix(after).detail(cause)
        }
        None => match result.status_code {
            Some(0) | None => Header::new(Tone::Good, "Finished").suffix(in_time).detail(facts),
            Some(code) => {
                let cause = state.log.last_error_line().or_else(|| exit_meaning(code).map(str::to_owned));
                Header::new(Tone::Warn, &format!("Exit {code}"))
                    .suffix(in_time)
                    .detail(cause.unwrap_or(facts))
            }
        },
    };
    // What this page did not see run is no news: when it ran is said, and where.
    if job.shared == Some(true) || !state.job.saw_run {
        header.kept_since = Some(finish.time);
        header.suffix.clear();
        let mut parts = Vec::new();
        if job.shared == Some(true) {
            parts.push("computed in another queue");
        }
        if header.tone == Tone::Good {
            header.title = "Stored result".to_owned();
            parts.extend(took.as_deref());
        } else if parts.is_empty() {
            parts.push("stored");
        }
        parts.push(&header.detail);
        parts.retain(|part| !part.is_empty());
        header.detail = parts.join(" · ");
    }
    header
}

fn without_a_run(state: &State) -> Header {
    if let Some(problem) = &state.job.refused {
        return Header::new(Tone::Bad, "Refused").detail(problem.title.to_string());
    }
    if state.is_submitting() {
        let header = Header::new(Tone::Run, "Sending").suffix("the job to its queue").busy();
        return if state.connection.may_speak() { header } else { header.detail(connection_words(state)) };
    }
    match state.job.ending {
        Some(Ending::StoppedHere) => Header::new(Tone::Idle, "Stopped").detail("by you"),
        Some(Ending::DeletedHere) => Header::new(Tone::Idle, "Deleted").detail("the result is gone"),
        Some(Ending::Elsewhere(Some(FinishReason::JobReplacedByClient))) => {
            Header::new(Tone::Idle, "Replaced").detail("a newer job took its place")
        }
        Some(Ending::Elsewhere(Some(FinishReason::Deleted))) => {
            Header::new(Tone::Idle, "Deleted").detail("by somebody else")
        }
        Some(Ending::Elsewhere(Some(FinishReason::Cancelled))) => {
            Header::new(Tone::Idle, "Stopped").detail("by somebody else")
        }
        Some(Ending::Elsewhere(_)) => {
            Header::new(Tone::Idle, "Ended elsewhere").detail("stopped, deleted or replaced by somebody else")
        }
        None if !state.connection.may_speak() => Header::new(Tone::Wait, "Connecting")
            .suffix("to the queue")
            .detail(connection_words(state))
            .busy(),
        None if state.address.settings.autostart && state.awaits_consent().is_some() => {
            Header::new(Tone::Warn, "Waiting")
                .suffix("for you")
                .detail("the page around this one asks to run jobs")
        }
        None => Header::new(Tone::Idle, "Ready").detail("not run yet"),
    }
}

fn connection_words(state: &State) -> &'static str {
    match state.connection.phase {
        Phase::Lost => "the queue server does not answer; trying again",
        Phase::Off | Phase::Connecting | Phase::Open(_) => "",
    }
}

fn short(worker: &str) -> &str {
    match worker.char_indices().nth(12) {
        Some((end, _)) => &worker[..end],
        None => worker,
    }
}

/// The last lines of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub tone: Tone,
    /// Exit, duration, what was peculiar.
    pub line: String,
    /// What to do, where there is something; else empty.
    pub advice: &'static str,
}

/// How the run ended.
#[must_use]
pub fn end_line(state: &State) -> Option<End> {
    let finish = state.job.shown_finish()?;
    let result = &finish.result;
    let mut facts = Vec::new();
    let (tone, mark) = match (failure(finish), result.status_code) {
        (Some(failure), _) => {
            facts.push(brief(&failure.message).chars().take(120).collect());
            (Tone::Bad, "✕")
        }
        (None, Some(0) | None) => (Tone::Good, "✓"),
        (None, Some(_)) => (Tone::Warn, "!"),
    };
    if let Some(code) = result.status_code {
        let meaning = exit_meaning(code).map(|meaning| format!(", {meaning}")).unwrap_or_default();
        facts.push(format!("exit {code}{meaning}"));
    }
    if let Some(duration) = result.duration {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a run")]
        let millis = duration.0 as i64;
        facts.push(text::duration(millis));
    }
    let skipped = result.outputs_skipped.as_ref().map_or(0, Vec::len);
    if skipped > 0 {
        facts.push(text::plural(skipped as u64, "file is no output", "files are no outputs"));
    }
    facts.retain(|fact| !fact.is_empty());
    let advice = match (tone, result.status_code) {
        (Tone::Warn, Some(code)) => exit_advice(code),
        _ => "",
    };
    (!facts.is_empty()).then(|| End { tone, line: format!("{mark} {}", facts.join(" · ")), advice })
}

/// What the component needs beside the words: the button, and how the result's error reads in full.
#[must_use]
pub fn button(state: &State) -> JobButton {
    job_button(state)
}

/// Whether *Stop* stands beside *Save+Run*.
#[must_use]
pub fn can_stop(state: &State) -> bool {
    crate::state::actions::can_stop(state)
}

/// Whether the job can name the very image that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pin {
    /// It has not run, or does so already.
    #[default]
    None,
    /// The image's name with the digest that ran in place of its tag.
    To(String),
    /// The image is only on the machine that ran it: its digest cannot be pulled.
    Local,
}

/// How the image of the shown result can be pinned.
#[must_use]
pub fn pin(state: &State) -> Pin {
    let pinned = || {
        let result = &state.job.shown_finish()?.result;
        let definition = state.edited_definition()?;
        let name = crate::state::edit::pinned(definition.text("image")?, result.image_digest.as_deref()?)?;
        Some(if result.image_is_local == Some(true) { Pin::Local } else { Pin::To(name) })
    };
    pinned().unwrap_or_default()
}

/// Whether there is a result that *Delete* would remove.
#[must_use]
pub fn can_delete(state: &State) -> bool {
    state.job.result_reason().is_some() && state.wanted.is_ok()
}

/// The error's full text, for the details of a failure.
#[must_use]
pub fn full_error(state: &State) -> Option<String> {
    let finish = state.job.finish()?;
    (finish.reason != ResultReason::Success).then(|| error_text(&finish.result))
}
