//! libFuzzer on `claude_hooks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::claude_hooks(bytes));
