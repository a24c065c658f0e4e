//! libFuzzer on `codex_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::codex_json(bytes));
