//! What the tests of all translators share: snapshots of told lines, hostile lines, and the recordings.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::path::PathBuf;

use runledger_adapters::LineAdapter;
use runledger_events::{RuntimeEvent, TimestampMs};

pub(crate) const NOW: TimestampMs = TimestampMs(1_761_000_000_000);

/// The events of each line as they are written, with `<line>` where the line itself stands.
pub(crate) fn told(adapter: &mut dyn LineAdapter, lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        for event in adapter.line(line, Some(NOW)).unwrap() {
            text.push_str(&event.json().replace(line, "<line>"));
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// Compares without the snapshot repeating the lines.
pub(crate) fn assert_told(name: &str, adapter: &mut dyn LineAdapter, lines: &[&str]) {
    let told = told(adapter, lines);
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, told));
}

/// These lines with each value changed to each odd one, each line torn, and lines that are odd altogether.
pub(crate) fn hostile_lines(lines: &[&str]) -> Vec<String> {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let deep_objects = format!("{}1{}", r#"{"content":"#.repeat(5_000), "}".repeat(5_000));
    let values = [
        "null",
        "true",
        "-7",
        "1e999",
        "0.5",
        "[]",
        "[[1,null,{}]]",
        r#"[{"type":"text","text":7},{"type":"tool_use"},{"type":"tool_result"},null]"#,
        "{}",
        r#"{"a":{"b":1}}"#,
        r#""""#,
        r#""\ud83d \u0000""#,
    ];
    let mut hostile: Vec<String> =
        ["", "   ", "null", "7", "[]", "\"x\"", "{", "{}{}", "{}", "\u{feff}{}", r#"{"\ud83d":1}"#, r#"{"a":1,"a":2}"#]
            .map(str::to_owned)
            .into();
    for line in lines {
        let spots = values_of(line);
        for (start, end) in &spots {
            for value in values {
                hostile.push(format!("{}{value}{}", &line[..*start], &line[*end..]));
            }
        }
        for (start, end) in spots.iter().take(6) {
            for value in [&deep, &deep_objects, &format!("\"{}\"", "x".repeat(300_000))] {
                hostile.push(format!("{}{value}{}", &line[..*start], &line[*end..]));
            }
        }
        let ends = (0..line.len()).filter(|end| line.is_char_boundary(*end));
        hostile.extend(ends.map(|end| line[..end].to_owned()));
    }
    hostile
}

/// What these lines tell takes no more memory than a bound, and the last one, of too many blocks, is told as unknown.
pub(crate) fn assert_bounded(adapter: &mut dyn LineAdapter, lines: &[String]) {
    for line in lines {
        let events = events(adapter, line);
        let bytes: usize = events.iter().map(|event| event.json().len()).sum();
        assert!(bytes < 4 * line.len() + (8 << 20), "{bytes} bytes of a line of {}", line.len());
    }
    let last = events(adapter, lines.last().unwrap());
    assert_eq!(last.iter().map(|event| event.kind().to_string()).collect::<Vec<_>>(), ["unknown"]);
    let json = runledger_events::readable(last[0].json()).into_owned();
    let payload = runledger_events::Fields::parse(&json).unwrap().raw("payload").map(str::len);
    assert_eq!(payload, lines.last().map(String::len), "and has the whole line");
}

/// Where each value after a `:` begins and ends in this JSON text without blanks.
pub(crate) fn values_of(json: &str) -> Vec<(usize, usize)> {
    let starts = json.match_indices("\":").map(|(at, _)| at + 2);
    let end = |start: usize| {
        let mut values = serde_json::Deserializer::from_str(&json[start..]).into_iter::<serde_json::Value>();
        values.next()?.ok()?;
        Some((start, start + values.byte_offset()))
    };
    starts.filter_map(end).collect()
}

/// A folder of recordings; `None`, and a word about it, where there are none.
pub(crate) fn recordings(name: &str) -> Option<PathBuf> {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if shared.is_dir() {
        return Some(shared.join("real").join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "../shared is absent");
    let _ = writeln!(std::io::stderr(), "skipped: ../shared is absent");
    None
}

/// The lines of a file. Other line separators may stand inside strings.
pub(crate) fn lines_of(path: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().split_terminator('\n').map(str::to_owned).collect()
}

/// The events of a line that is read.
pub(crate) fn events(adapter: &mut dyn LineAdapter, line: &str) -> Vec<RuntimeEvent> {
    adapter.line(line, Some(NOW)).unwrap()
}
