//! libFuzzer on `claude_transcript`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runledger_fuzz::claude_transcript(bytes));
