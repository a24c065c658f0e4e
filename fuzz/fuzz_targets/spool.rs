//! libFuzzer on `spool`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::spool(bytes));
