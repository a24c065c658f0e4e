//! libFuzzer on `workflow_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::workflow_file(bytes));
