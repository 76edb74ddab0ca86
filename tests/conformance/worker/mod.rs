//! The tests of workers: any program that takes jobs from a relay, on a real Docker Engine.
//!
//! [`setup`] is what a test works with: it starts workers and ends what it began. [`relay`] is the other end of the
//! wire, scripted: it speaks the old way or leases, holds the table and the blobs, and remembers all that it heard.
//! [`bench`] puts the two together; [`engine`] looks at containers. The tests are in [`items`].

pub(crate) mod bench;
pub(crate) mod engine;
pub(crate) mod items;
pub(crate) mod relay;
pub(crate) mod setup;
#[cfg(test)]
mod table;
