#![no_main]
//! Frames of all sockets.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_shared::fuzzing::frame(data));
