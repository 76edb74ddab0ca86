//! The worker against a real Docker Engine and a relay that follows a script.

mod bench;
mod container;
mod faults;
mod outcome;
mod relay;
