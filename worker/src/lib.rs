//! The worker: dials out to a relay, takes the jobs of a queue, runs each in a container, and brings its log and its
//! files back.
//!
//! Where to start reading: [`worker`] puts the parts together, `dispatcher` owns the picture, `unit` is one job from
//! grant to result, `executor` is what can run a container. Everything that decides is pure and has no I/O: `plan`
//! (what a definition means), `capacity`, `logs`, `spool`, `result`.
//!
//! The worker keeps two promises through every fault: a lease that was accepted is known on disk, and so is a result
//! before it is sent.

mod adoption;
pub mod args;
mod build_plan;
mod capacity;
mod clock;
pub mod config;
mod disk;
mod dispatcher;
pub mod doctor;
mod executor;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod housekeeping;
mod identity;
mod image_policy;
mod journal;
mod logs;
mod messages;
mod metrics;
mod old_way;
mod outbox;
mod plan;
mod prepull;
mod reaper;
mod relay_link;
mod result;
mod secrets;
mod shrink;
mod spool;
mod state;
mod tls;
mod unit;
pub mod worker;

pub use args::RunArgs;
pub use config::{Config, ConfigError};
pub use executor::docker::ConnectError;
pub use files::fetch::HttpSetupError;
pub use identity::IdentityError;
pub use worker::{RunError, StartError, Worker, run};

/// TLS of the whole process; whoever comes first decides, and everybody here wants the same.
pub(crate) fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
