//! Bounds on what comes from outside, and the reading of sizes and durations in it.

use dockframe_shared::units;

/// Longest HTTP body of a submission, and longest socket message (`relay-protocol` R-27).
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
/// Longest definition, as JSON.
pub(crate) const MAX_DEFINITION_BYTES: usize = 32 << 20;
/// Longest uploaded file unless configured otherwise.
pub(crate) const MAX_BLOB_BYTES: u64 = 16 << 30;
/// Longest `LeaseFinish` frame.
pub(crate) const MAX_FINISH_BYTES: usize = 4 << 20;
/// Jobs that one socket may watch.
pub(crate) const MAX_WATCHED: usize = 256;
/// Longest frame that a watching client may send, and the longest that it is sent.
pub(crate) const MAX_CLIENT_FRAME_BYTES: usize = 4 << 20;
/// Namespaces that may hold one job.
pub(crate) const MAX_HOLDERS: usize = 1024;
/// Callbacks that may be owed for one job; the oldest makes room.
pub(crate) const MAX_CALLS: usize = 256;
/// Longest address of a callback, and longest payload, as JSON.
pub(crate) const MAX_CALLBACK_URL_BYTES: usize = 4 << 10;
pub(crate) const MAX_CALLBACK_PAYLOAD_BYTES: usize = 16 << 10;
/// Lines kept of each log of a run; older ones are dropped.
pub(crate) const MAX_LOG_LINES: u64 = 10_000;
/// Longest text of one log line; the rest is cut.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;
/// Longest message of a cancel that is kept.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// Results up to this size are kept in the store, in the commit of their job; longer ones are files.
pub(crate) const INLINE_RESULT_BYTES: usize = 32 << 10;
/// Leases that one registration may name.
pub(crate) const MAX_NAMED_LEASES: usize = 4096;
/// Old peers get at most so many jobs in a list (`relay-protocol` 3.13).
pub(crate) const MAX_LISTED: usize = 1000;

/// A time limit such as `5m`, in whole milliseconds; `None` when it cannot be read.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let limit = units::duration::parse_limit(text).ok()?;
    i64::try_from(limit.as_millis()).ok()
}

/// A size such as `4G`, in bytes; `None` when it cannot be read.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    units::bytes::parse(text).ok()
}

/// The beginning of a text, at most so many bytes, cut between characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
