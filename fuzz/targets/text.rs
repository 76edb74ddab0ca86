#![no_main]
//! Commands, page addresses, data addresses, queues, sizes, durations, names; and which of two states wins.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_shared::fuzzing::text(data));
