//! The tests of pages: any metaframe of this protocol, in real Chromium and a real metapage host.
//!
//! [`setup`] is what a test works with: a window of its own, and an end that leaves nothing behind. [`relay`] is the
//! other end of the wire, scripted, in the old way and in watching; the page is loaded through it. [`host`] is a host
//! that a test scripts, for what the library of real hosts never does; everything else runs in that library's.

#![expect(dead_code, reason = "the items that use all of it follow")]

pub(crate) mod host;
pub(crate) mod relay;
pub(crate) mod setup;

mod items;

use std::process::ExitCode;
use std::sync::Arc;

/// Runs the tests of a page.
///
/// # Errors
/// The page or the browser is not there, or a test fails.
pub(crate) async fn run(url: &url::Url) -> anyhow::Result<ExitCode> {
    let setup = Arc::new(setup::Setup::new(url).await?);
    let test = setup::Test::new(&setup);
    let outcome = items::handshake::answers_and_acknowledges(test.clone()).await;
    let closed = test.end().await;
    setup.end().await;
    outcome.and(closed).map(|()| ExitCode::SUCCESS)
}
