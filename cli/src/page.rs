//! The page's files, as `build.rs` found and compressed them.

use dockframe_relay::page::{Asset, Page};

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/page_assets.rs"));

/// The page that this binary carries.
pub(crate) fn page() -> Page {
    Page { assets: ASSETS }
}
