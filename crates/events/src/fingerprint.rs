//! What tells one question from another under the same name: a digest of the tool and its input.

use serde_json::value::RawValue;

use crate::json_text::{Fields, as_text, quoted};

/// Levels of objects and lists that are put in order; what lies deeper is taken as it is written.
const DEPTH_MAX: usize = 64;

/// BLAKE3 of a tool's name and its input, in hexadecimal. The order of fields, spaces and escapes do not count.
pub fn call_fingerprint(tool_name: Option<&str>, tool_input_json: Option<&str>) -> String {
    let mut text = quoted(tool_name.unwrap_or_default());
    text.push('\n');
    if let Some(json) = tool_input_json {
        write_canonical(json, DEPTH_MAX, &mut text);
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn write_canonical(json: &str, depth: usize, text: &mut String) {
    let json = json.trim();
    if let Some(string) = as_text(json) {
        text.push_str(&quoted(&string));
    } else if depth > 0
        && let Ok(fields) = Fields::parse(json)
    {
        text.push('{');
        for (name, value) in fields.iter() {
            text.push_str(&quoted(name));
            text.push(':');
            write_canonical(value, depth - 1, text);
            text.push(',');
        }
        text.push('}');
    } else if depth > 0
        && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json)
    {
        text.push('[');
        for item in items {
            write_canonical(item.get(), depth - 1, text);
            text.push(',');
        }
        text.push(']');
    } else {
        text.push_str(json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_written_otherwise_has_the_same_fingerprint_and_another_call_has_another() {
        let of = |json: &str| call_fingerprint(Some("Bash"), Some(json));
        let call = of(r#"{"command":"ls é","options":[1,{"a":null,"b":2}]}"#);
        assert_eq!(call, of("{ \"options\" : [ 1, {\"b\":2, \"a\":null} ],\n \"command\":\"ls \\u00e9\"}"));
        for other in
            [r#"{"command":"ls e","options":[1,{"a":null,"b":2}]}"#, r#"{"command":"ls é","options":[1]}"#, "{}"]
        {
            assert_ne!(call, of(other), "{other}");
        }
        assert_ne!(of("{}"), call_fingerprint(Some("Read"), Some("{}")));
        assert_ne!(of("{}"), call_fingerprint(Some("Bash"), None));
    }

    #[test]
    fn input_as_deep_as_it_likes_has_a_fingerprint() {
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(100_000), "]".repeat(100_000));
        let of = |json: &str| call_fingerprint(None, Some(json));
        assert_ne!(of(&deep("1")), of(&deep("2")));
        assert_ne!(of("no JSON"), of("no JSON at all"));
    }
}
