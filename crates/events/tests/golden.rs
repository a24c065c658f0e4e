//! Golden bytes: every kind at each codec version, as that version first wrote it, still decodes to the same; the newest
//! version still encodes to the same.
//!
//! Under `golden/v1`, `golden/v2`, … stand, for each case, `<case>.json` (one event, written by hand), `<case>.facts.hex` and
//! `<case>.content.hex` (the two stored payloads, with their headers). A case is named after its kind; a second case of
//! one kind has `@` and a word behind it. To add one, write its `.json` and run
//! `RUNLEDGER_WRITE_GOLDEN=1 cargo test -p runledger-events --test golden`: that writes the files that are missing, and
//! never changes one that is there. Bytes that were released are never written anew.
//!
//! What zstd makes of a content may change with its version, so that no test asks for the bytes of a compressed one; but what
//! was written has to be read: `golden/compressed` has payloads of some of the cases of `v2`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use runledger_events::{
    Codec, Continuation, EventKind, HEADER_BYTES, KindFacts, RunState, RunStatus, RuntimeEvent, WorkflowIteration,
};

/// The codec versions that were ever written.
const VERSIONS: [u8; 2] = [1, 2];
const NEWEST: u8 = VERSIONS[VERSIONS.len() - 1];

struct Case {
    name: String,
    event: RuntimeEvent,
    facts: Vec<u8>,
    content: Vec<u8>,
}

fn folder(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = text.trim_end();
    assert!(text.len().is_multiple_of(2), "a half byte");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The committed bytes; written first, where they are missing and the environment asks for it.
fn committed(path: &Path, encoded: &[u8]) -> Vec<u8> {
    if !path.exists() && std::env::var_os("RUNLEDGER_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(path, to_hex(encoded) + "\n").unwrap();
    }
    let hex = std::fs::read_to_string(path).unwrap_or_else(|error| {
        panic!("{}: {error}; RUNLEDGER_WRITE_GOLDEN=1 writes the missing golden files", path.display())
    });
    from_hex(&hex)
}

fn cases(version: u8) -> Vec<Case> {
    let codec = Codec::default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(version))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".json").unwrap().to_owned();
            let event = RuntimeEvent::from_json(&std::fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let beside = |part: &str| folder(version).join(format!("{name}.{part}.hex"));
            let facts = committed(&beside("facts"), &codec.encode_facts(event.facts()).unwrap());
            let content = committed(&beside("content"), &codec.encode_content(event.json()).unwrap());
            Case { name, event, facts, content }
        })
        .collect()
}

#[test]
fn every_kind_encodes_to_the_golden_bytes_of_the_newest_version() {
    let codec = Codec::default();
    for Case { name, event, facts, content } in cases(NEWEST) {
        // When
        let encoded_facts = codec.encode_facts(event.facts()).unwrap();
        let encoded_content = codec.encode_content(event.json()).unwrap();
        // Then
        assert_eq!(to_hex(&encoded_facts), to_hex(&facts), "facts of {name}");
        assert_eq!(facts[..HEADER_BYTES], [NEWEST, 0, 0, 0], "header of {name}");
        if encoded_content[..HEADER_BYTES] == [NEWEST, 0, 0, 0] {
            assert_eq!(to_hex(&encoded_content), to_hex(&content), "content of {name}");
        } else {
            assert_eq!(encoded_content[..HEADER_BYTES], [NEWEST, 1, 1, 0], "header of {name}");
            assert!(encoded_content.len() < HEADER_BYTES + event.json().len(), "content of {name}");
        }
    }
}

#[test]
fn golden_bytes_of_every_kind_and_version_decode_to_what_the_json_says() {
    let codec = Codec::default();
    for Case { name, event, facts, content } in VERSIONS.into_iter().flat_map(cases) {
        // When
        let decoded_facts = codec.decode_facts(&facts).unwrap_or_else(|error| panic!("{name}: {error}"));
        let decoded_content = codec.decode_content(&content).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Then
        assert_eq!(&decoded_facts, event.facts(), "facts of {name}");
        assert_eq!(decoded_content, event.json(), "content of {name}");
    }
}

/// Cases of `v2` of which a compressed content is kept.
const COMPRESSED: [&str; 6] =
    ["tool.post", "user.prompt", "user.prompt@odd-json", "permission.request", "unknown", "workflow.start"];

#[test]
fn compressed_content_that_was_written_once_is_read() {
    let codec = Codec::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/compressed");
    let v2 = cases(2);
    for name in COMPRESSED {
        let json = v2.iter().find(|case| case.name == name).unwrap().event.json();
        let encoded = codec.encode_content(json).unwrap();
        let content = committed(&folder.join(format!("{name}.content.hex")), &encoded);
        assert_eq!(content[..HEADER_BYTES], [2, 1, 1, 0], "header of {name}");
        assert_eq!(codec.decode_content(&content).unwrap(), json, "content of {name}");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), COMPRESSED.len());
}

#[test]
fn every_known_kind_and_one_unknown_have_golden_bytes_under_their_name() {
    let cases = cases(NEWEST);
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    for kind in EventKind::KNOWN {
        assert!(names.contains(kind.as_str()), "tests/golden/v{NEWEST}/{kind}.json is missing");
    }
    for case in &cases {
        let kind = case.name.split('@').next().unwrap();
        assert_eq!(case.event.kind().as_str(), kind, "the kind of {}", case.name);
    }
    assert!(cases.iter().any(|case| matches!(case.event.kind(), EventKind::Other(_))), "no unknown kind");
}

#[test]
fn the_golden_event_of_each_kind_sets_every_field_of_its_facts() {
    for case in cases(NEWEST).iter().filter(|case| EventKind::KNOWN.iter().any(|kind| kind.as_str() == case.name)) {
        let facts = case.event.facts();
        assert!(facts.agent_id.is_some() && facts.agent_type.is_some() && facts.expects_decision, "{}", case.name);
        match facts.data {
            KindFacts::None => {
                let is_bare = matches!(
                    case.event.kind(),
                    EventKind::CwdChanged
                        | EventKind::FileChanged
                        | EventKind::LedgerRedacted
                        | EventKind::LedgerSealed
                );
                assert!(is_bare, "{}", case.name);
            }
            ref data => {
                let shown = format!("{data:?}");
                assert!(!shown.contains("None"), "a field of {} is not set: {shown}", case.name);
            }
        }
    }
}

#[test]
fn golden_bytes_hold_every_word_that_is_stored_as_a_number() {
    // Given
    let (mut phases, mut modes, mut outcomes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut states, mut statuses) = (BTreeSet::new(), BTreeSet::new());
    // When
    for case in cases(NEWEST) {
        match &case.event.facts().data {
            KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => {
                phases.insert("start");
                modes.insert(match &start.continuation {
                    Continuation::Fresh => "fresh",
                    Continuation::Resume { .. } => "resume",
                    Continuation::ReuseCurrent => "reuse-current",
                });
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Session(_)) => {
                phases.insert("session");
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Process(_)) => {
                phases.insert("process");
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Deferred(_)) => {
                phases.insert("deferred");
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Continued(_)) => {
                phases.insert("continued");
            }
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => {
                phases.insert("end");
                outcomes.insert(end.outcome.as_str());
            }
            KindFacts::WorkflowTransition(transition) => {
                states.extend([transition.from.as_str(), transition.to.as_str()]);
            }
            KindFacts::WorkflowEnd(end) => {
                statuses.insert(end.status.as_str());
            }
            _ => {}
        }
    }
    // Then
    assert_eq!(phases, BTreeSet::from(["start", "session", "process", "deferred", "continued", "end"]));
    assert_eq!(modes, BTreeSet::from(["fresh", "resume", "reuse-current"]));
    assert_eq!(outcomes.len(), 9, "{outcomes:?}");
    assert_eq!(states, RunState::ALL.iter().map(|state| state.as_str()).collect());
    assert_eq!(statuses, RunStatus::ALL.iter().map(|status| status.as_str()).collect());
}

#[test]
fn every_golden_file_belongs_to_a_case() {
    for version in VERSIONS {
        let names: BTreeSet<String> = cases(version).into_iter().map(|case| case.name).collect();
        for entry in std::fs::read_dir(folder(version)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let case = [".json", ".facts.hex", ".content.hex"].iter().find_map(|end| file.strip_suffix(end));
            assert!(case.is_some_and(|case| names.contains(case)), "{file} belongs to no case");
        }
    }
}
