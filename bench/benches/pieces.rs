//! The inner pieces, each alone: encode, decode, digest, fold.

use divan::Bencher;
use runledger_events::{
    Codec, Digest, EventId, Metadata, RuntimeEvent, StreamName, StreamVersion, TimestampMs, chain, commitment,
    event_digest,
};

/// A tool's result of about 425 bytes.
const JSON: &str = r#"{"id":"e-1","timestamp":1760000000000,"kind":"tool.post","sessionId":"adapter-1","data":{"tool_name":"Bash","tool_use_id":"toolu_0123456789abcdef","tool_input":{"command":"cargo test -p runledger-store --test append","description":"Runs the tests of the append path"},"tool_response":{"stdout":"running 12 tests\ntest result: ok. 12 passed; 0 failed; finished in 0.31s","stderr":"","interrupted":false},"cwd":"/home/dev/work"}}"#;

fn main() {
    divan::main();
}

fn event() -> RuntimeEvent {
    RuntimeEvent::from_json(JSON).expect("an event")
}

#[divan::bench]
fn read_json(bencher: Bencher) {
    bencher.bench(event);
}

#[divan::bench]
fn encode_facts(bencher: Bencher) {
    let (codec, event) = (Codec::default(), event());
    bencher.bench(|| codec.encode_facts(event.facts()));
}

#[divan::bench]
fn decode_facts(bencher: Bencher) {
    let codec = Codec::default();
    let payload = codec.encode_facts(event().facts()).expect("facts");
    bencher.bench(|| codec.decode_facts(&payload));
}

#[divan::bench]
fn encode_content(bencher: Bencher) {
    let codec = Codec::default();
    bencher.bench(|| codec.encode_content(JSON));
}

#[divan::bench]
fn decode_content(bencher: Bencher) {
    let codec = Codec::default();
    let payload = codec.encode_content(JSON).expect("content");
    bencher.bench(|| codec.decode_content(&payload));
}

#[divan::bench]
fn commit_to_content(bencher: Bencher) {
    bencher.bench(|| commitment(&[7; 16], divan::black_box(JSON.as_bytes())));
}

#[divan::bench]
fn digest_and_chain(bencher: Bencher) {
    let event = event();
    let facts = Codec::default().encode_facts(event.facts()).expect("facts");
    let (stream, id) = (StreamName::new("session/s").expect("a name"), EventId::new("e-1").expect("an id"));
    let (at, metadata) = (TimestampMs(1_760_000_000_000), Metadata::default());
    let content = commitment(&[7; 16], JSON.as_bytes());
    bencher.bench(|| {
        let version = StreamVersion(9);
        let digest =
            event_digest(&Digest::ZERO, &stream, version, &id, event.kind(), at, at, &metadata, &facts, &content);
        chain(&Digest::ZERO, &digest)
    });
}
