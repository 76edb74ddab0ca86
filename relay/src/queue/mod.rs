//! Who gets which job, what becomes of it, and who is told.
//!
//! The core is pure: [`apply`] takes what is known ([`View`]), one [`Command`], the time and a source of ids, and
//! answers a [`Decision`]: what to write, when to look again, whom to tell. It knows nothing of sockets, stores,
//! clocks or threads. `service` is the imperative shell: it loads what the core asks for, commits its decisions by
//! compare-and-set, decides again where another was faster, and performs the effects.
//!
//! All that one decision needs lies under one queue, so that nothing in one queue can touch another
//! (`jobs-and-states` 3.8). Read `record`, then `command`, then `apply/`.

pub(crate) mod apply;
pub(crate) mod cache;
pub(crate) mod command;
#[cfg(test)]
mod deployment;
mod derive;
pub(crate) mod elsewhere;
pub(crate) mod heard;
pub(crate) mod holders;
pub(crate) mod matching;
pub(crate) mod object;
pub(crate) mod open;
pub(crate) mod outbox;
mod rare;
pub(crate) mod record;
pub(crate) mod service;
pub(crate) mod timing;
pub(crate) mod view;

pub(crate) use apply::apply;
