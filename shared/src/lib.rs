//! What relay, worker and page have in common: the names of things, the messages they exchange, how a job is
//! identified and which of its states wins, and how a page's address becomes a job.
//!
//! Everything here is a plain function on plain types: no clock, no randomness, no I/O, no async. The crate
//! builds for native targets and for `wasm32-unknown-unknown`, so the browser and the server cannot disagree.
//!
//! Where to start reading: [`job::definition`] (what runs), [`job::digest`] (its identity), [`protocol`] (what
//! travels), [`metaframe`] (the page's address and the host's pipes).

pub mod command;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ids;
pub mod javascript;
pub mod job;
mod lenient;
pub mod metaframe;
pub mod net;
pub mod number;
pub mod problem;
pub mod protocol;
pub mod time;
pub mod units;

pub use ids::{
    BadName, ContentHash, InstanceId, JobId, LeaseId, Namespace, NamespaceSelector, QueueDigest, QueueKey,
    WorkerId,
};
pub use number::Amount;
pub use problem::Problem;
pub use time::Timestamp;
