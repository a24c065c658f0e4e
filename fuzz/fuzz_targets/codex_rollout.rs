//! libFuzzer on `codex_rollout`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::codex_rollout(bytes));
