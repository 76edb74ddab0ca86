//! Bytes: uploaded files under the keys that their senders chose, and, apart from those, the relay's own documents
//! and logs, which no public key can reach (`relay-protocol` 2.13, R-37).

mod documents;
mod files;
mod logs;

pub(crate) use documents::Documents;
pub(crate) use files::{BlobKey, Blobs, PutError};
pub(crate) use logs::{Lines, LogStore};
