//! Which state wins: `resolve-job.json`.

use dockframe_shared::job::FinishReason::{
    self, Cancelled, Error, JobReplacedByClient, Success, TimedOut, WorkerLost,
};
use dockframe_shared::job::resolve::{Candidate, Standing, Winner, ours, reference};
use dockframe_shared::time::Timestamp;
use serde_json::Value;

use crate::{Differences, entries, load, text};

fn candidate(side: &Value) -> Candidate<'_> {
    let standing = match text(side, "state") {
        "Queued" => Standing::Queued,
        "Running" => Standing::Running(text(side, "worker")),
        "Removed" => Standing::Removed,
        "Finished" => Standing::Finished(Some(
            serde_json::from_value(side["finishedReason"].clone()).expect("a reason"),
        )),
        other => panic!("unknown state {other}"),
    };
    Candidate { standing, time: Timestamp::from_millis(side["time"].as_i64().expect("a time")) }
}

fn recorded(entry: &Value) -> Winner {
    match text(entry, "winner") {
        "a" => Winner::Held,
        "b" => Winner::Arriving,
        other => panic!("unknown winner {other}"),
    }
}

#[test]
fn the_table_is_that_of_the_reference() {
    let mut differences = Differences::default();
    for entry in entries(&load("resolve-job.json")) {
        let winner = reference(&candidate(&entry["a"]), &candidate(&entry["b"]));
        differences.check(text(entry, "note"), &winner, &recorded(entry));
    }
}

/// When times matter for an exception.
#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Always,
    /// The arriving side is earlier, or both have the same time.
    ArrivingNotLater,
}

/// Held and arriving, where ours is meant to answer differently (`jobs-and-states` 3.1): none is a submission.
const EXCEPTIONS: [(FinishReason, Option<FinishReason>, When); 15] = [
    // Rule 1, two results of one run: the first stands.
    (Success, Some(Success), When::ArrivingNotLater),
    (Error, Some(Error), When::ArrivingNotLater),
    (TimedOut, Some(TimedOut), When::ArrivingNotLater),
    (Error, Some(Success), When::Always),
    (TimedOut, Some(Success), When::Always),
    (TimedOut, Some(Error), When::Always),
    // Rule 1, a result is not taken away.
    (Success, Some(Cancelled), When::Always),
    (TimedOut, Some(WorkerLost), When::Always),
    // Rule 2: a new submission counts.
    (Cancelled, None, When::ArrivingNotLater),
    (JobReplacedByClient, None, When::Always),
    // Rule 5: a result that comes too late is dropped.
    (Cancelled, Some(Error), When::Always),
    (Cancelled, Some(TimedOut), When::Always),
    (JobReplacedByClient, Some(Success), When::Always),
    (JobReplacedByClient, Some(Error), When::Always),
    (JobReplacedByClient, Some(TimedOut), When::Always),
];

fn is_exception(held: &Candidate<'_>, arriving: &Candidate<'_>) -> bool {
    EXCEPTIONS.into_iter().any(|(a, b, when)| {
        let b = b.map_or(Standing::Queued, |reason| Standing::Finished(Some(reason)));
        held.standing == Standing::Finished(Some(a))
            && arriving.standing == b
            && (when == When::Always || arriving.time <= held.time)
    })
}

#[test]
fn our_rules_differ_from_the_reference_exactly_where_they_are_meant_to() {
    let mut differences = Differences::default();
    let mut exceptions = 0;
    for entry in entries(&load("resolve-job.json")) {
        let (held, arriving) = (candidate(&entry["a"]), candidate(&entry["b"]));
        let is_exception = is_exception(&held, &arriving);
        exceptions += usize::from(is_exception);
        differences.check(text(entry, "note"), &(ours(&held, &arriving) != recorded(entry)), &is_exception);
    }
    // Four pairs with two of three orders of time, eleven with all three.
    assert_eq!(exceptions, 4 * 2 + 11 * 3);
}
