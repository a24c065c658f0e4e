//! The subject of a ledger stream: `NAME.SORT.REST`, with what subjects cannot hold written as `=` and two hexadecimal digits.

use std::fmt::Write as _;

use runledger_events::StreamName;

/// The subject of a stream of the ledger of this name.
pub(crate) fn subject_of(name: &str, stream: &StreamName) -> String {
    let mut subject = format!("{name}.");
    let (sort, rest) = stream.as_str().split_once('/').unwrap_or((stream.as_str(), ""));
    push_escaped(&mut subject, sort);
    subject.push('.');
    push_escaped(&mut subject, rest);
    subject
}

/// The subjects of all streams of the ledger.
pub(crate) fn subjects_of(name: &str) -> String {
    format!("{name}.>")
}

/// A text as a part of a subject.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    push_escaped(&mut escaped, text);
    escaped
}

fn push_escaped(subject: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            subject.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(subject, "={byte:02x}");
        }
    }
    if text.is_empty() {
        // A part of a subject is never empty.
        subject.push('=');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn each_stream_has_a_subject_of_its_own() {
        let subject = |name: &str| subject_of("team", &StreamName::new(name).unwrap());
        assert_eq!(subject("run/0199-a_b"), "team.run.0199-a_b");
        assert_eq!(subject("session/a.b*c>d e=ü"), "team.session.a=2eb=2ac=3ed=20e=3d=c3=bc");
        let names = ["session/a", "session/A", "session/=61", "run/a", "run/a/b", "run/a=2fb", "rules/=", "rules/=3d"];
        let mut subjects: Vec<String> = names.iter().map(|name| subject(name)).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), names.len());
        let longest = format!("session/{}", "ü".repeat(400));
        assert!(subject(&longest).len() < 2600);
    }
}
