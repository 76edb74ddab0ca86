//! The times by which the core decides (`jobs-and-states` 5.1, 8), in milliseconds.

use dockframe_shared::Timestamp;

/// How long a lease lives without renewal.
pub(crate) const LEASE_TTL: i64 = 30_000;
/// How often a worker is told to register.
pub(crate) const LEASE_RENEW: i64 = 10_000;
/// How long a grant waits for its accept.
pub(crate) const ACCEPT: i64 = 5_000;
/// How long a worker that said "later" is left out.
pub(crate) const DECLINED_LATER: i64 = 30_000;
/// How long an ended job stays in lists, from its end or its last answer.
pub(crate) const LISTED: i64 = 60_000;
/// How long results and endings are kept.
pub(crate) const KEPT: i64 = 28 * 24 * 3_600_000;
/// How long log lines are kept after their job ended.
pub(crate) const LOGS_KEPT: i64 = 7 * 24 * 3_600_000;
/// How long a worker that is gone is remembered.
pub(crate) const WORKER_KEPT: i64 = 24 * 3_600_000;
/// A job that was passed over for so long gets room reserved.
pub(crate) const PASSED_OVER: i64 = 60_000;
/// Preparing and uploading, on top of a job's own limit.
pub(crate) const AROUND_THE_RUN: i64 = 3_600_000;
/// The longest a lease is held when the job names no limit of its own.
pub(crate) const LONGEST_RUN: i64 = 7 * 24 * 3_600_000;
/// Between SIGTERM and SIGKILL.
pub(crate) const KILL_GRACE: u64 = 2_000;
/// When it is looked whether a result is offered to other queues as it should be.
pub(crate) const SHARED_AGAIN: i64 = 5_000;
/// So many losses of its workers end a job.
pub(crate) const MAX_LOSSES: u8 = 5;

/// How long a superseded job goes on, by its age when its successor came (`jobs-and-states` 5.1).
pub(crate) fn replacement_delay(age: i64) -> i64 {
    match age {
        ..=20_000 => 0,
        20_001..=60_000 => 4_000,
        _ => 8_000,
    }
}

/// How long the leases of a worker whose socket closed are left to it: a second and a tenth of the time since
/// the accept, at most the ttl (`jobs-and-states` 8.7).
pub(crate) fn grace(since_accept: i64) -> i64 {
    (1_000 + since_accept.max(0) / 10).min(LEASE_TTL)
}

/// How long one attempt of a callback may take.
pub(crate) const CALL_LIMIT: i64 = 10_000;
/// Whoever took a callback and was not heard of for so long has ended.
pub(crate) const CALL_TAKEN: i64 = CALL_LIMIT + 5_000;
/// Callbacks that found no free hand are tried after so long.
pub(crate) const CALL_BUSY: i64 = 2_000;
/// How long a callback is tried.
pub(crate) const CALL_OWED: i64 = 24 * 3_600_000;

/// How long to wait after so many attempts of a callback failed: a second, doubled each time, at most ten minutes.
pub(crate) fn call_again(attempts: u32) -> i64 {
    1_000_i64.checked_shl(attempts.saturating_sub(1).min(20)).unwrap_or(i64::MAX).min(600_000)
}

/// The later of two times.
pub(crate) fn later(a: Timestamp, b: Timestamp) -> Timestamp {
    a.max(b)
}
