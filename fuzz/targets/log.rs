#![no_main]
//! What a container writes, cut anywhere, on its way to watchers and into the result.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_worker::fuzzing::log(data));
