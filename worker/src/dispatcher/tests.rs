//! Dispatcher and units as they are, with containers in memory and a relay that is this test: what is said to the
//! relay, what is left on disk, and that the machine's room comes back.

mod adoption;
mod bench;
mod endings;
mod leaving;
mod stops;
