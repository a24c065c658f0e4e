//! The feed, event by event: what the fold gives now, and what the old mapper stored.
//!
//! Two feed events are of one thing where they have the same kind and were made of the same runtime event (the n-th of
//! that kind of it). Then every field is compared but `raw`. Numbers count within one feed, and the feed of the log has
//! entries that the old one had not (of workflows); so `seq` and `event_id` are compared by what
//! they mean: the order among the entries that both have, and the parent by what it is. A run's number is compared as it
//! is, with its own reason, because one run more or less moves all those after it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::compare::Comparison;
use crate::rows::FeedRow;

/// Fields that say something, but for those of `cause` and `data`.
const FIELDS: [&str; 7] = ["ts", "session_id", "level", "actor_id", "title", "body", "ui"];

/// Compares the stored feed with the `derived` one, both in order and in the reference's field names.
pub fn compare_feed(stored: &[FeedRow], derived: impl IntoIterator<Item = Value>) -> Comparison {
    let stored: Vec<&Value> = stored.iter().map(|row| &row.event).collect();
    let derived: Vec<Value> = derived.into_iter().filter(|event| !is_new(event)).collect();
    let mut keys = Keys::default();
    let mut places: HashMap<Key, usize> = derived.iter().enumerate().map(|(at, event)| (keys.of(event), at)).collect();
    let mut keys = Keys::default();
    let pairs: Vec<Option<usize>> = stored.iter().map(|event| places.remove(&keys.of(event))).collect();

    let matched = Matched::new(&stored, &derived, &pairs);
    let mut comparison = Comparison::default();
    for (at, (event, pair)) in stored.iter().zip(&pairs).enumerate() {
        let reason = match pair {
            Some(pair) => matched.difference(at, event, &derived[*pair]),
            None => Some(format!("{}: stored, and not shown now", kind(event))),
        };
        comparison.count(reason);
    }
    for at in places.into_values() {
        comparison.count([format!("{}: shown now, and not stored", kind(&derived[at]))]);
    }
    comparison
}

/// Whether the old design had no such entry: one of a workflow's course.
fn is_new(event: &Value) -> bool {
    kind(event).starts_with("workflow.")
}

fn text<'a>(event: &'a Value, pointer: &str) -> Option<&'a str> {
    event.pointer(pointer).and_then(Value::as_str)
}

fn kind(event: &Value) -> &str {
    text(event, "/kind").unwrap_or("an event")
}

/// What two tellings of one feed event have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: String,
    request: String,
    /// Which of those that are otherwise alike.
    nth: usize,
}

#[derive(Default)]
struct Keys(HashMap<(String, String), usize>);

impl Keys {
    fn of(&mut self, event: &Value) -> Key {
        // Without a request the moment has to do.
        let moment = || event.get("ts").map(Value::to_string).unwrap_or_default();
        let request = text(event, "/cause/hook_request_id").map_or_else(moment, without_number);
        let kind = kind(event).to_owned();
        let nth = self.0.entry((kind.clone(), request.clone())).or_default();
        *nth += 1;
        Key { kind, request, nth: *nth }
    }
}

/// The id as the old database has it: a repeated one has a number behind it in the log.
fn without_number(id: &str) -> String {
    match id.rsplit_once('~') {
        Some((id, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => id.to_owned(),
        _ => id.to_owned(),
    }
}

/// Both feeds, with what is known of them together.
struct Matched<'a> {
    /// The id in the old feed of each entry of the new one that both have.
    old_ids: HashMap<&'a str, &'a str>,
    /// For each stored entry: whether those before it stand before it now too.
    is_in_order: Vec<bool>,
}

impl<'a> Matched<'a> {
    fn new(stored: &[&'a Value], derived: &'a [Value], pairs: &[Option<usize>]) -> Self {
        let ids = stored
            .iter()
            .zip(pairs)
            .filter_map(|(event, pair)| Some((text(&derived[(*pair)?], "/event_id")?, text(event, "/event_id")?)));
        let mut latest = None;
        let in_order = pairs.iter().map(|pair| {
            let is_in_order = pair.is_none() || *pair > latest;
            latest = latest.max(*pair);
            is_in_order
        });
        Self { is_in_order: in_order.collect(), old_ids: ids.collect() }
    }

    /// Why two tellings of one feed event differ; none where they are equal.
    fn difference(&self, at: usize, stored: &Value, derived: &Value) -> Option<String> {
        let mut different = unequal_fields(stored, derived);
        let parent = text(derived, "/cause/parent_event_id").map(|id| self.old_ids.get(id).copied().unwrap_or(id));
        if parent != text(stored, "/cause/parent_event_id") {
            different.push("cause.parent_event_id".to_owned());
        }
        if !self.is_in_order[at] {
            different.push("its place".to_owned());
        }
        if !different.is_empty() {
            return Some(format!("{}: {}", kind(stored), different.join(", ")));
        }
        let is_same_run = text(stored, "/run_id") == text(derived, "/run_id");
        (!is_same_run).then(|| "run_id: another number, after a run more or less".to_owned())
    }
}

/// The names of the fields that are not equal; those of `cause` and `data` by their path, and null the same as missing.
fn unequal_fields(stored: &Value, derived: &Value) -> Vec<String> {
    let (stored, derived) = (flat(stored), flat(derived));
    let mut different: Vec<String> =
        stored.iter().filter(|(name, value)| derived.get(*name) != Some(value)).map(|(name, _)| name.clone()).collect();
    different.extend(derived.into_keys().filter(|name| !stored.contains_key(name)));
    different
}

fn flat(event: &Value) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    let mut add = |name: String, value: &Value| {
        if !value.is_null() {
            fields.insert(name, normal(value));
        }
    };
    for name in FIELDS {
        add(name.to_owned(), event.get(name).unwrap_or(&Value::Null));
    }
    for object in ["cause", "data"] {
        for (name, value) in event.get(object).and_then(Value::as_object).into_iter().flatten() {
            // The parent is compared by what it is.
            if name != "parent_event_id" {
                add(format!("{object}.{name}"), value);
            }
        }
    }
    fields
}

/// The value with each number in one form: it is the same however it is written.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), normal(value))).collect(),
        value => value.clone(),
    }
}
