//! What happens by itself: due work, found by time, whoever has a queue open (`jobs-and-states` 8.3).
//!
//! Sweepers take no input, may crash anywhere and may run twice: each step is a command to the same core, decided
//! from the record as it is.

mod collect;
mod due;

pub(crate) use collect::collect;
pub(crate) use due::sweep;
#[cfg(test)]
pub(crate) use due::sweep_once;
