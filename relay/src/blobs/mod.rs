//! Bytes: uploaded files under the keys that their senders chose, and, apart from those, the relay's own documents
//! and logs, which no public key can reach (`relay-protocol` 2.13, R-37).

mod documents;
mod files;
mod logs;
mod references;
mod shards;

pub(crate) use documents::{Documents, run_name};
pub(crate) use files::{BlobKey, Blobs, PutError};
#[cfg(any(test, fuzzing))]
pub(crate) use logs::fuzzing;
pub(crate) use logs::{Lines, LogStore};
pub(crate) use references::keys_in;
pub(crate) use shards::shards;

use dockframe_shared::job::LogLine;
use dockframe_shared::protocol::{LogKind, LogStep};
use dockframe_shared::{LeaseId, Timestamp};
use futures_util::future::BoxFuture;

use crate::store::StoreError;
use crate::store::collect::{Cursor, Page};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot use the files of the logs")]
    Files(#[from] std::io::Error),
    #[error("cannot use the store of the logs")]
    Store(#[source] StoreError),
}

/// The log lines of runs: in files, or in a store that several relays share.
///
/// A line is appended before anybody hears of it, and every reader pulls by number: nobody can miss a line that
/// another saw.
pub(crate) trait Logs: Send + Sync + std::fmt::Debug {
    /// Appends lines of which the first has the number `from`; those already there are left out, and without a
    /// number all are new. Lines beyond a gap are taken as the next ones. What was new.
    fn append<'a>(
        &'a self,
        run: &'a LeaseId,
        step: &'a LogStep,
        from: Option<u64>,
        lines: Vec<LogLine>,
    ) -> BoxFuture<'a, Result<Vec<LogLine>, LogError>>;

    /// Lines from number `since` on, at most `limit`; those dropped as too old are left out.
    fn read<'a>(
        &'a self,
        run: &'a LeaseId,
        kind: LogKind,
        since: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Lines, LogError>>;

    /// All lines of a run go.
    fn remove<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>>;

    /// Another job will need the lines of this run.
    fn name<'a>(&'a self, run: &'a LeaseId) -> BoxFuture<'a, Result<(), LogError>>;

    /// The runs that have lines, by [`run_name`]: some of them, and where to go on. For garbage collection.
    fn runs(&self, after: Option<Cursor>, limit: usize) -> BoxFuture<'_, Result<Page<String>, LogError>>;

    /// The lines of runs go, unless they were named since; how many runs'.
    fn remove_unnamed(&self, runs: Vec<String>, since: Timestamp) -> BoxFuture<'_, Result<u64, LogError>>;
}
