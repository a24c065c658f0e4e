//! libFuzzer on `claude_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::claude_stream(bytes));
