#![no_main]
//! Archives of build contexts.

use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("a temporary folder");
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    FOLDER.with(|folder| dockframe_worker::fuzzing::archive(folder.path(), data));
});
