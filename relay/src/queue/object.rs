//! A record as the wire shows it (`jobs-and-states` 1.4, `relay-protocol` 3.13).

use dockframe_shared::job::{FinishReason, Finished, JobObject, StateName};

use super::record::{Phase, Record};

/// What only watchers are told besides.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extra {
    pub wait_reason: Option<String>,
    pub place: Option<u32>,
    pub revision: Option<u64>,
}

/// The job as lists and updates show it, endings without result included.
pub(crate) fn job_object(record: &Record, extra: Extra) -> JobObject {
    let mut object = JobObject {
        queued_time: record.queued_time,
        state: StateName::Queued,
        time: record.time,
        worker: String::new(),
        namespaces: Some(record.holders.keys().cloned().collect()),
        debug: record.debug,
        tags: record.tags.as_deref().cloned(),
        requirements: record.requirements.as_deref().cloned(),
        finished_reason: None,
        finished: None,
        wait_reason: None,
        attempt: None,
        shared: None,
        revision: extra.revision,
        place: None,
    };
    match &record.phase {
        Phase::Waiting { .. } | Phase::Granted(_) => {
            object.wait_reason = extra.wait_reason;
            object.place = extra.place;
        }
        Phase::Held(lease) => {
            object.state = StateName::Running;
            object.worker = lease.worker.as_str().to_owned();
            object.attempt = (!lease.is_claim()).then_some(lease.attempt);
        }
        Phase::Done(outcome) => {
            object.state = StateName::Finished;
            object.worker.clone_from(&outcome.worker);
            object.finished_reason = Some(outcome.reason.into());
            object.shared = outcome.is_shared().then_some(true);
        }
        Phase::LetGo(let_go) => {
            object.state = StateName::Finished;
            object.finished_reason = Some(let_go.why.into());
        }
    }
    object
}

/// Whether lists show it (`relay-protocol` 3.8).
pub(crate) fn is_shown(record: &Record) -> bool {
    !matches!(record.phase, Phase::LetGo(_))
}

/// The job with its result, as `result.json` has it: the one that stands, also while a rerun is under way.
pub(crate) fn with_result(record: &Record, finished: Finished) -> JobObject {
    let mut object = job_object(record, Extra::default());
    if let Some(outcome) = record.outcome() {
        object.state = StateName::Finished;
        object.time = outcome.time;
        object.worker.clone_from(&outcome.worker);
        object.finished_reason = Some(FinishReason::from(outcome.reason));
        object.shared = outcome.is_shared().then_some(true);
        object.attempt = None;
    }
    object.finished = Some(Box::new(finished));
    object
}
