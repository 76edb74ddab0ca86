//! Promises of the stores' keys and messages (`crate::fuzzing`).

use dockframe_shared::QueueDigest;

use super::{embedded, redis};

/// A key that can be read is written as it was.
pub(crate) fn keys(bytes: &[u8]) {
    embedded::fuzzing::keys(bytes);
    redis::fuzzing::keys(bytes);
}

/// A message of another relay: it is read, or it is not.
pub(crate) fn message(queue: QueueDigest, bytes: &[u8]) {
    redis::fuzzing::message(queue, bytes);
}
