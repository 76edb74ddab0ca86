//! What is known about the wanted job: the relay's word, the result, and how it ended if it did.
//!
//! The relay's newest word is the state, whatever was shown before (`metaframe` 5.4). A result belongs to the id
//! and the `time` it was asked for, so that a late one is never shown as the current one.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

use dockframe_shared::job::{FinishReason, JobObject, JobResult, ResultReason, StateName};
use dockframe_shared::{Problem, Timestamp};

/// The relay's word about an id on the present socket or, while there is none, on the last one.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Word {
    /// Nothing was heard yet.
    #[default]
    Silent,
    /// The relay does not know the job.
    Unknown,
    Known(Box<JobObject>),
}

/// How a job came to have neither run nor result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    StoppedHere,
    DeletedHere,
    /// Somebody else stopped, deleted or replaced it; `None`: which of them is not known.
    Elsewhere(Option<FinishReason>),
}

/// A change of the user's that the relay has not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub what: PendingWhat,
    pub since: Timestamp,
    /// It took too long; the page says so and shows what the relay says.
    pub is_late: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingWhat {
    Stop,
    Delete,
}

/// A finished job's last change with its result, from `result.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    pub reason: ResultReason,
    pub time: Timestamp,
    pub worker: Option<String>,
    pub result: JobResult,
    /// The result as its worker sent it.
    pub raw: Value,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub enum ResultState {
    #[default]
    None,
    Loading {
        time: Timestamp,
        since: Timestamp,
        failures: u32,
        /// Why the last attempt failed.
        why: Option<String>,
    },
    Loaded(Rc<Finish>),
}

#[derive(Debug, Default)]
pub struct JobView {
    pub word: Word,
    pub result: ResultState,
    pub ending: Option<Ending>,
    pub pending: Option<Pending>,
    /// The user let go, but other namespaces hold the job.
    pub held_by_others: bool,
    /// It ran, and waits again.
    pub was_lost: bool,
    /// The relay refused the last change.
    pub refused: Option<Problem>,
    /// `attempt` of the run whose log lines are shown.
    pub attempt: Option<u32>,
    /// Build lines came and no run line yet: what the worker is at.
    pub build_step: Option<dockframe_shared::protocol::LogStep>,
    /// No word about this job on the present socket yet.
    pub awaits_word: bool,
    /// A result kept from an earlier visit, shown until the relay has spoken; it sends nothing.
    pub kept: Option<Rc<Finish>>,
    /// This page saw the job wait or run: its result is news, not one that was stored before.
    pub saw_run: bool,
    /// The old way: the last full list held the job.
    pub is_listed: bool,
}

impl JobView {
    #[must_use]
    pub fn object(&self) -> Option<&JobObject> {
        match &self.word {
            Word::Known(object) => Some(object),
            Word::Silent | Word::Unknown => None,
        }
    }

    #[must_use]
    pub fn is_live(&self) -> bool {
        self.object().is_some_and(|job| matches!(job.state, StateName::Queued | StateName::Running))
    }

    #[must_use]
    pub fn finish(&self) -> Option<&Rc<Finish>> {
        match &self.result {
            ResultState::Loaded(finish) => Some(finish),
            ResultState::None | ResultState::Loading { .. } => None,
        }
    }

    /// The result on the screen: the relay's, else one kept from an earlier visit.
    #[must_use]
    pub fn shown_finish(&self) -> Option<&Rc<Finish>> {
        self.finish().or(self.kept.as_ref())
    }

    /// The reason of a finished job with a result.
    #[must_use]
    pub fn result_reason(&self) -> Option<ResultReason> {
        let job = self.object().filter(|job| job.state == StateName::Finished)?;
        job.finished_reason?.as_result()
    }
}

/// `{"data": finished job | null}` of `result.json` (`relay-protocol` 2.7).
#[derive(Deserialize)]
struct ResultAnswer {
    #[serde(default)]
    data: Option<ResultData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResultData {
    #[serde(default)]
    finished: Option<FinishedPart>,
}

#[derive(Deserialize)]
struct FinishedPart {
    reason: ResultReason,
    time: Timestamp,
    #[serde(default)]
    worker: Option<String>,
    #[serde(default)]
    result: Option<Value>,
}

/// Reads an answer of `result.json`.
///
/// # Errors
/// A sentence for people: there is no result there, or it cannot be read.
pub fn read_result(text: &str) -> Result<Finish, String> {
    let answer: ResultAnswer =
        serde_json::from_str(text).map_err(|error| crate::text::result_unreadable(&error.to_string()))?;
    let finished = answer.data.and_then(|data| data.finished).ok_or_else(crate::text::result_missing)?;
    let FinishedPart { reason, time, worker, result } = finished;
    let raw = result.unwrap_or_default();
    // A part that has another shape than it should costs the readable view, not the outputs.
    let result = serde_json::from_value(raw.clone()).unwrap_or_default();
    Ok(Finish { reason, time, worker, result, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_and_its_absence_is_said() {
        let text = r#"{"data":{"queuedTime":1,"state":"Finished","time":3,"worker":"w1","finishedReason":"Success",
            "finished":{"type":"Finished","reason":"Success","time":3,"worker":"w1",
            "result":{"StatusCode":0,"logs":[["hi\n",2]],"duration":812,"isTimedOut":false,"outputs":{}}}}}"#;
        let finish = read_result(text).unwrap();
        assert_eq!((finish.reason, finish.result.status_code), (ResultReason::Success, Some(0)));
        for text in [r#"{"data":null}"#, "{}", r#"{"data":{"state":"Queued"}}"#, "<html>"] {
            assert!(read_result(text).is_err(), "{text}");
        }
    }
}
