//! The tests of pages: any metaframe of this protocol, in real Chromium and a real metapage host.
//!
//! [`setup`] is what a test works with: a window of its own, and an end that leaves nothing behind. [`relay`] is the
//! other end of the wire, scripted, in the old way and in watching; the page is loaded through it. [`host`] is a host
//! that a test scripts, for what the library of real hosts never does; everything else runs in that library's.
//! The tests are in [`items`], one file a subject; [`replay`] plays recorded messages.

pub(crate) mod host;
pub(crate) mod items;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod setup;
