//! Bounds on what comes from outside, in one place, and the reading of sizes and durations in it.
//!
//! What is above one is refused with 413 (too large) or 429 (too many, with `Retry-After`), on a socket of the new
//! ways with a `Done` that says the same (`relay-protocol` R-27). They are so generous that nobody meets them who
//! means well. What a slow or greedy peer makes the relay hold is bounded beside the thing itself:
//!
//! - what waits for a socket: `queue/outbox` (4,096 messages, 64 MiB; states and lines are not held but made when
//!   the socket can take them; a peer that does not read is closed with 1008);
//! - frames: those of one socket are handled one after the other, and the next is not read before; so a socket has
//!   one change under way, however fast it sends;
//! - callbacks: so many at once, in all and for each queue, below.

mod rate;
mod turns;

use dockframe_shared::units;

pub(crate) use rate::Rate;
pub(crate) use turns::{Turn, Turns};

/// Sockets and event streams in all, and of one queue.
pub(crate) const MAX_SOCKETS: usize = 50_000;
pub(crate) const MAX_SOCKETS_OF_A_QUEUE: usize = 20_000;
/// Jobs of one queue that wait, run or are in its list.
pub(crate) const MAX_JOBS_OF_A_QUEUE: usize = 500_000;
/// Submissions to one queue: for each second, and at once after a pause.
pub(crate) const SUBMISSIONS_PER_SECOND: u32 = 20_000;
pub(crate) const SUBMISSIONS_AT_ONCE: u32 = 60_000;
/// Bodies longer than [`LONG_BODY_BYTES`], or of unknown length, that are read into memory at the same time.
pub(crate) const MAX_LONG_BODIES: usize = 32;
pub(crate) const LONG_BODY_BYTES: u64 = 1 << 20;
/// The slowest that a body may come, on the whole: bytes per second, and seconds that any sender is given beyond that.
pub(crate) const SLOWEST_BYTES_PER_SECOND: f64 = 4096.0;
pub(crate) const SLOW_START_S: u64 = 30;
/// What is taken in of a body that is refused, so that its sender reads why: bytes, and seconds.
pub(crate) const DISCARDED_BYTES: usize = 256 << 20;
pub(crate) const LINGER_S: u64 = 5;
/// Uploads at the same time.
pub(crate) const MAX_UPLOADS: usize = 1024;
/// Callbacks under way at the same time, in all and for one queue.
pub(crate) const MAX_CALLBACKS: usize = 1024;
pub(crate) const MAX_CALLBACKS_OF_A_QUEUE: usize = 16;
/// When it makes sense to come again where something is full: in seconds.
pub(crate) const SOON_S: u64 = 5;
pub(crate) const LATER_S: u64 = 60;

/// Longest HTTP body of a submission, and longest socket message (`relay-protocol` R-27).
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;
/// Longest definition, as JSON.
pub(crate) const MAX_DEFINITION_BYTES: usize = 32 << 20;
/// Longest uploaded file unless configured otherwise.
pub(crate) const MAX_BLOB_BYTES: u64 = 16 << 30;
/// Longest `LeaseFinish` frame.
pub(crate) const MAX_FINISH_BYTES: usize = 4 << 20;
/// Longest registration of a worker: everybody of its queue is told of it.
pub(crate) const MAX_REGISTRATION_BYTES: usize = 1 << 20;
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
