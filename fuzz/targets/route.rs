#![no_main]
//! Requests to a relay with jobs in it: paths, queries, headers, bodies.

use std::cell::RefCell;

use dockframe_relay::fuzzing::Routes;
use tempfile::TempDir;

thread_local! {
    static ROUTES: RefCell<Option<(Routes, TempDir)>> = const { RefCell::new(None) };
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| ROUTES.with_borrow_mut(|open| {
    if open.as_ref().is_none_or(|(routes, _)| routes.is_worn()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        *open = Some((Routes::open(folder.path()), folder));
    }
    if let Some((routes, _)) = open {
        routes.try_one(data);
    }
}));
