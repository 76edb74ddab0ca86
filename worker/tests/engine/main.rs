//! The worker against a real Docker Engine and a relay that follows a script.

mod bench;
mod outcome;
mod relay;
