//! libFuzzer on `event_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::event_json(bytes));
