//! Fields added to JSON text whose rest stays as it is, and what tells texts apart.

use runledger_events::{content_digest, quoted};

/// The object with more fields at its end; what stands in it already stays as it is.
pub(crate) fn with_fields(object: &str, more: &[(&str, String)]) -> String {
    let Some(before) = object.trim_end().strip_suffix('}').filter(|_| !more.is_empty()) else {
        return object.to_owned();
    };
    let mut text = before.to_owned();
    let mut is_first = before.trim_end().ends_with('{');
    for (name, json) in more {
        if !std::mem::take(&mut is_first) {
            text.push(',');
        }
        text.push_str(&quoted(name));
        text.push(':');
        text.push_str(json);
    }
    text.push('}');
    text
}

/// What tells texts apart in ids: 16 hexadecimal digits of their BLAKE3 digest.
pub(crate) fn fingerprint(text: &str) -> String {
    content_digest(text.as_bytes()).to_string().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_added_behind_text_that_stays_as_it_is() {
        let more = [("kind", quoted("a\"b")), ("n", "1e999".to_owned())];
        assert_eq!(with_fields("{ \"x\" : 1.0 } ", &more), "{ \"x\" : 1.0 ,\"kind\":\"a\\\"b\",\"n\":1e999}");
        assert_eq!(with_fields("{}", &more[1..]), "{\"n\":1e999}");
        assert_eq!(with_fields("{\"x\":1}", &[]), "{\"x\":1}");
    }
}
