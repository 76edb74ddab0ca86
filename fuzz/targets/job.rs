#![no_main]
//! Definitions, canonical JSON, data references, what goes with a job and what comes of it.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_shared::fuzzing::job(data));
