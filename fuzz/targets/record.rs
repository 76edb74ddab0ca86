#![no_main]
//! What the stores hold, and what relays tell each other over one.

libfuzzer_sys::fuzz_target!(|data: &[u8]| dockframe_relay::fuzzing::record(data));
