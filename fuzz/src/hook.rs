//! Payloads as a live hook gets them.

use runledger_adapters::redact_secrets;
use runledger_events::call_fingerprint;
use runledger_store::SpoolRecord;

use crate::event_json::comes_back;
use crate::permissions::tool_call;

/// The program has no library, so its reader of payloads is compiled in here.
#[path = "../../crates/cli/src/commands/hook/payload.rs"]
mod payload;
use payload::Payload;

/// Any bytes on standard input.
pub fn hook(bytes: &[u8]) {
    stays_json_without_secrets(bytes);
    match Payload::read(bytes, false).expect("memory can be read") {
        Payload::Nothing => assert!(std::str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty())),
        Payload::Unusable { bytes: kept, reason } => {
            assert!(bytes.starts_with(&kept) && (1..4096).contains(&reason.len()));
            assert!(kept.len() == bytes.len() || bytes.len() > 16 << 20, "what is not too long is kept whole");
        }
        Payload::Event(record) => {
            comes_back(&record.event);
            assert!(record.event.id().is_some(), "a hook's event has an id");
            let line = record.to_line().expect("a spool takes it");
            let line = line.strip_suffix('\n').expect("a whole line");
            assert!(!line.contains('\n'));
            assert_eq!(SpoolRecord::from_line(line.as_bytes()).as_ref(), Ok(&*record));
            if let Some((tool, input)) = tool_call_of(record.event.json()) {
                call_fingerprint(Some(&tool), Some(&input));
                let _ = tool_call(&tool, input).pattern();
            }
            record.into_append().expect("the log takes it");
        }
    }
}

/// Taking secrets out leaves JSON that reads, and nothing to take out a second time.
fn stays_json_without_secrets(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let redacted = redact_secrets(text);
    assert_eq!(redact_secrets(&redacted), redacted, "twice is once");
    // A key whose name is a secret may meet another one: what is asked is that it reads.
    if serde_json::from_str::<serde_json::Value>(text).is_ok() {
        serde_json::from_str::<serde_json::Value>(&redacted).expect("JSON stays JSON");
    }
}

/// The tool that the payload is about, and its input.
fn tool_call_of(event_json: &str) -> Option<(String, String)> {
    let text = runledger_events::readable(event_json);
    let payload = runledger_events::Fields::parse(&text).ok()?.object("payload")?;
    Some((payload.text("tool_name")?, payload.raw("tool_input").unwrap_or("{}").to_owned()))
}
