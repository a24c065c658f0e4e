//! Reading single fields out of JSON text, and writing objects around such fields, without changing their text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::json::Object;

/// The fields of one JSON object, unparsed. Of a repeated name the last counts; a `null` counts as missing.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Object<'a>);

impl<'a> Fields<'a> {
    /// Reads the fields of this JSON text, which is to be read strictly: see [`readable`](crate::readable).
    ///
    /// # Errors
    /// Those of serde_json when the text is no JSON object.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        Object::parse(json).map(Self)
    }

    /// The field's JSON text.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.raw_or_null(name).filter(|json| *json != "null")
    }

    /// The field's JSON text, where it is there at all: a `null` too.
    pub fn raw_or_null(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(RawValue::get)
    }

    /// The field's JSON text where it is a string, quotes and escapes as they are.
    pub fn raw_text(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|json| json.starts_with('"'))
    }

    /// The field where it is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(as_text)
    }

    /// The field where it is an object.
    pub fn object(&self, name: &str) -> Option<Self> {
        self.raw(name).and_then(|json| Self::parse(json).ok())
    }

    /// The field's items where it is an array.
    pub fn list(&self, name: &str) -> Option<Vec<&'a str>> {
        let items: Vec<&RawValue> = serde_json::from_str(self.raw(name)?).ok()?;
        Some(items.into_iter().map(RawValue::get).collect())
    }

    /// The field where it is a whole number from 0; what is too large becomes the largest.
    pub fn count(&self, name: &str) -> Option<u64> {
        let json = self.raw(name)?;
        if let Ok(count) = json.parse() {
            return Some(count);
        }
        let number: f64 = json.parse().ok()?;
        let is_whole = number.is_infinite() || number.fract() == 0.0;
        // A cast of a float saturates.
        (is_whole && number >= 0.0).then_some(number as u64)
    }

    /// The field where it is `true` or `false`.
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.raw(name).and_then(|json| json.parse().ok())
    }

    /// Every field and its JSON text, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> + '_ {
        let by_name: BTreeMap<&str, &'a str> = self.0.iter().map(|(name, raw)| (name, raw.get())).collect();
        by_name.into_iter()
    }

    /// Every value that is an object, in the order of their names.
    pub fn objects(&self) -> impl Iterator<Item = Self> + '_ {
        self.iter().filter_map(|(_, json)| Self::parse(json).ok())
    }
}

/// The string that this JSON text is, if it is one.
pub fn as_text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// The text of one JSON object as it grows, field by field. A missing value leaves its field out.
#[derive(Debug, Clone)]
pub struct ObjectText(String);

impl Default for ObjectText {
    fn default() -> Self {
        Self::new()
    }
}

impl ObjectText {
    /// An object without fields.
    pub fn new() -> Self {
        Self(String::from("{"))
    }

    /// Adds a field whose value is JSON text already.
    #[must_use]
    pub fn raw<'v>(mut self, name: &str, json: impl Into<Option<&'v str>>) -> Self {
        if let Some(json) = json.into() {
            self.begin(name);
            self.0.push_str(json);
        }
        self
    }

    /// Adds a field whose value is this text.
    #[must_use]
    pub fn text<'v>(mut self, name: &str, text: impl Into<Option<&'v str>>) -> Self {
        if let Some(text) = text.into() {
            self.begin(name);
            push_quoted(&mut self.0, text);
        }
        self
    }

    fn begin(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_quoted(&mut self.0, name);
        self.0.push(':');
    }

    /// Adds those of `names` that the object has, as they are.
    #[must_use]
    pub fn fields(self, of: &Fields<'_>, names: &[&str]) -> Self {
        names.iter().fold(self, |object, name| object.raw(name, of.raw(name)))
    }

    /// The object's text.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// The text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_quoted(&mut json, text);
    json
}

fn push_quoted(json: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..b' ')) {
        json.push_str(&serde_json::Value::from(text).to_string());
    } else {
        // Most texts need no escape, and no copy.
        json.push('"');
        json.push_str(text);
        json.push('"');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_count_saturates_and_what_is_no_count_is_unknown() {
        let json = r#"{"a":7,"b":1e999,"c":99999999999999999999999,"d":-1,"e":1.5,"f":"7","g":null,"h":12.0,"i":-0}"#;
        let fields = Fields::parse(json).unwrap();
        let counts: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|name| fields.count(name)).into();
        let max = Some(u64::MAX);
        assert_eq!(counts, [Some(7), max, max, None, None, None, None, Some(12), Some(0), None]);
    }

    #[test]
    fn a_field_deep_in_arrays_costs_no_stack_and_a_repeated_one_counts_last() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(r#"{{"deep":{deep},"a":"x","a":"y"}}"#);
        let fields = Fields::parse(&json).unwrap();
        assert_eq!(fields.text("a").as_deref(), Some("y"));
        assert_eq!(fields.raw("deep").map(str::len), Some(200_000));
    }

    #[test]
    fn an_object_is_written_around_text_that_stays_as_it_is() {
        let json = ObjectText::new().text("a\"", "b\n").raw("n", "1e999").text("none", None).finish();
        assert_eq!(json, r#"{"a\"":"b\n","n":1e999}"#);
        assert_eq!(ObjectText::new().finish(), "{}");
    }
}
