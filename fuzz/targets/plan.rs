#![no_main]
//! What a worker makes of a definition, and of the names of files.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_worker::fuzzing::plan(data));
