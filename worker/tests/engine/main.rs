//! The worker against a real Docker Engine and a relay that follows a script.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod builds;
mod container;
mod doctor;
mod faults;
mod git;
mod hostile;
mod killed;
mod old_way;
mod outcome;
mod owner;
mod process;
mod relay;
