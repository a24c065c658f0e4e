//! libFuzzer on `runtime_lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::runtime_lines(bytes));
