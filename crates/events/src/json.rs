//! Reading single fields out of JSON text without parsing, or losing, the rest of it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text with each half of a surrogate pair that stands alone shown as U+FFFD.
///
/// Strict readers refuse `"\ud83d"`; the log keeps it, typed fields show this form. Text without one is borrowed.
pub fn readable(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut repaired: Option<String> = None;
    let mut copied_to = 0;
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += next;
        match unicode_escape(bytes, at) {
            None => at += 2,
            Some(unit) if (0xD800..0xDC00).contains(&unit) => {
                let low = unicode_escape(bytes, at + 6).filter(|unit| (0xDC00..0xE000).contains(unit));
                if low.is_some() {
                    at += 12;
                } else {
                    replace(json, &mut repaired, &mut copied_to, at);
                    at += 6;
                }
            }
            Some(unit) if (0xDC00..0xE000).contains(&unit) => {
                replace(json, &mut repaired, &mut copied_to, at);
                at += 6;
            }
            Some(_) => at += 6,
        }
    }
    match repaired {
        None => Cow::Borrowed(json),
        Some(mut text) => {
            text.push_str(&json[copied_to..]);
            Cow::Owned(text)
        }
    }
}

fn replace(json: &str, repaired: &mut Option<String>, copied_to: &mut usize, at: usize) {
    let text = repaired.get_or_insert_with(|| String::with_capacity(json.len()));
    text.push_str(&json[*copied_to..at]);
    text.push_str("\\ufffd");
    *copied_to = at + 6;
}

/// The UTF-16 unit of a `\uHHHH` that begins at `at`.
fn unicode_escape(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?;
    if &escape[..2] != b"\\u" {
        return None;
    }
    std::str::from_utf8(&escape[2..]).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok())
}

/// Bytes of what an error of serde_json quotes, about, at the most.
const ERROR_BYTES_MAX: usize = 512;

/// The same error, where it quotes a long text only its beginning: whoever is told of it need not read the whole input.
pub fn brief(error: serde_json::Error) -> serde_json::Error {
    let text = error.to_string();
    if text.len() <= 2 * ERROR_BYTES_MAX {
        return error;
    }
    let begin = &text[..text.floor_char_boundary(ERROR_BYTES_MAX)];
    let (line, column) = (error.line(), error.column());
    serde::de::Error::custom(format_args!("{begin}… at line {line} column {column}"))
}

/// Bytes of one text in the facts, at the most: facts are small, and never erased.
const FACT_BYTES_MAX: usize = 1 << 10;

/// The fields of one JSON object, unparsed, in their order. Of a repeated name the last counts, as in JavaScript.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    pub(crate) fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json).map_err(brief)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// Every field, in the order of the text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> + '_ {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// The field as an object; an empty one where it is missing or something else.
    pub(crate) fn object(&self, name: &str) -> Object<'a> {
        self.get(name).and_then(|raw| Object::parse(raw.get()).ok()).unwrap_or_default()
    }

    pub(crate) fn is_present(&self, name: &str) -> bool {
        self.get(name).is_some_and(|raw| raw.get() != "null")
    }

    /// The field where it is a string.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(as_text)
    }

    /// The field where it is a string, as facts hold it: up to a bound, whole characters. The JSON text has all of it.
    pub(crate) fn fact(&self, name: &str) -> Option<String> {
        let mut text = self.text(name)?;
        text.truncate(text.floor_char_boundary(FACT_BYTES_MAX));
        Some(text)
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// The field as it is written, where it is a number.
    pub(crate) fn number(&self, name: &str) -> Option<String> {
        let text = self.get(name)?.get();
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && text.len() <= 40;
        is_number.then(|| text.to_owned())
    }

    /// The field where it is a whole number.
    pub(crate) fn whole(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(as_whole)
    }
}

pub(crate) fn as_text(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// A number as a whole one: `12`, and `12.0` or `1.2e1` too; nothing else.
pub(crate) fn as_whole(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole);
    }
    let number = serde_json::from_str::<f64>(text).ok()?;
    // Beyond 2^53 a double no longer names one whole number.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    fields.push((key.0, map.next_value::<&'de RawValue>()?));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A field's name: borrowed where the text has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_shown_as_the_replacement_and_pairs_are_kept() {
        let json = r#"["\ud83d\ude00 \\ud83d \ud83d x \ude00 \ud83d\ud83d\ude00"]"#;
        let text: Vec<String> = serde_json::from_str(&readable(json)).expect("strict JSON");
        assert_eq!(text, ["😀 \\ud83d \u{fffd} x \u{fffd} \u{fffd}😀"]);
        assert!(matches!(readable(r#"{"a":"\u00e9"}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn an_error_quotes_the_beginning_of_a_long_text() {
        let error = |json: &str| Object::parse(json).expect_err("no object").to_string();
        assert_eq!(error("\"é\""), "invalid type: string \"é\", expected a JSON object at line 1 column 4");
        let long = error(&format!("\"{}\"", "é".repeat(100_000)));
        assert!(long.starts_with("invalid type: string \"éé") && long.len() < 600, "{long}");
        assert!(long.ends_with("é… at line 1 column 200002"), "{long}");
    }

    #[test]
    fn a_field_is_read_whatever_stands_beside_it() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(r#"{{"n":1e999,"deep":{deep},"a":"x","a":"y","t":12.0}}"#);
        let object = Object::parse(&json).expect("an object");
        assert_eq!(object.text("a").as_deref(), Some("y"));
        assert_eq!(object.whole("t"), Some(12));
        assert_eq!(object.whole("n"), None);
    }
}
