//! The whole system, for real: the harness behind the scenarios in `scenarios/`.
//!
//! A scenario starts what it needs (relay, worker, Redis, Chromium, a host page) as processes and servers of its
//! own, on ports of its own, in a directory of its own, and drives them from outside: over HTTP, sockets, the
//! command line and the browser. Nothing here looks into the product, so the same checks can be pointed at any
//! implementation by its address.
//!
//! [`scenario::run`] is the frame of each scenario: it bounds its time, keeps logs and a screenshot in
//! `tests/artifacts/` when it fails, and closes everything, also after a panic. Waiting is [`wait::until`], always
//! for a wanted value and with a limit; nothing sleeps for a guess.
//!
//! What is started is in a module of its own: [`relay`], [`worker`], [`redis`], [`docker`], [`browser`],
//! [`metapage`] (a page that hosts metaframes), [`proxy`] (a link that can be cut), [`player`] (a worker that does as it
//! is told). [`client`] speaks the relay's public protocol. [`pages`] says what a user sees and does on a page.

pub mod binary;
pub mod browser;
pub mod client;
pub mod docker;
pub mod hash;
pub mod load;
pub mod metapage;
pub mod own_engine;
pub mod pages;
pub mod player;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod relay;
pub mod scenario;
pub mod wait;
pub mod worker;

use std::path::{Path, PathBuf};

/// The folder of this crate, where the host page and the node packages lie.
#[must_use]
pub fn tests_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the checkout, by its path from the top.
#[must_use]
pub fn checkout(path: &str) -> PathBuf {
    tests_folder().join("..").join(path)
}
