//! What the session's own stream is made of, in its order: runtime events, and what only the feed still tells.
//!
//! Runtime events stand in their order of arrival. A feed event that no runtime event accounts for finds its place by
//! its number in the timeline: after the runtime events that gave earlier feed events, before those that gave later ones.
//!
//! A feed event belongs to the runtime event that it names where both are of the same moment, as all are that the mapper
//! made. One of another moment came from an event whose row was ignored, because its id was taken: the event is made
//! again out of what its feed events say, and gets the id with `~2` (`~3`, …) behind it.

use std::collections::{BTreeMap, HashMap, HashSet};

use runledger_events::EventKind;
use serde_json::Value;

use crate::database::OldDatabase;
use crate::decisions::decision_of;
use crate::rows::{FeedRow, RuntimeRow};

/// Where an item comes from.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// A row of `runtime_events`.
    Runtime(&'a RuntimeRow),
    /// A runtime event without a row: the feed event that shows it best, and all that it gave.
    Lost { shown: &'a FeedRow, all: Vec<&'a FeedRow> },
    /// A decision on the event of this id.
    Decision { row: &'a FeedRow, on: String, decision: String },
    /// A feed event that is kept by its own name.
    Feed(&'a FeedRow),
}

/// One event of the session, in its place.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) told: Told<'a>,
    /// Its id in the log.
    pub(crate) id: String,
    /// When it happened, Unix milliseconds.
    pub(crate) at: i64,
}

/// All events of the session's stream, in order.
pub(crate) fn sequence(database: &OldDatabase) -> Vec<Item<'_>> {
    let rows: HashMap<&str, &RuntimeRow> = database.runtime_events.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut first_seq: HashMap<&str, i64> = HashMap::new();
    let mut groups: BTreeMap<i64, Vec<&FeedRow>> = BTreeMap::new();
    let mut group_of: HashMap<(&str, i64), i64> = HashMap::new();
    for feed in &database.feed_events {
        let named = feed.runtime_event_id.as_deref();
        match named.and_then(|id| rows.get(id)).filter(|row| row.timestamp == feed.timestamp) {
            Some(row) => {
                first_seq.entry(row.id.as_str()).or_insert(feed.seq);
            }
            None => {
                // Feed events of one lost event name the same id at the same moment; those without one stand alone.
                let group = named.map_or(feed.seq, |id| *group_of.entry((id, feed.timestamp)).or_insert(feed.seq));
                groups.entry(group).or_default().push(feed);
            }
        }
    }
    let loose = loose_items(groups, &rows);
    let runtime = database.runtime_events.iter().map(|row| {
        let item = Item { told: Told::Runtime(row), id: row.id.clone(), at: row.timestamp };
        (first_seq.get(row.id.as_str()).copied(), item)
    });
    let mut items = merged(runtime.collect(), loose);
    name_decided(&mut items);
    items
}

/// Items for feed events without a runtime event, with their number in the timeline.
fn loose_items<'a>(groups: BTreeMap<i64, Vec<&'a FeedRow>>, rows: &HashMap<&str, &RuntimeRow>) -> Vec<(i64, Item<'a>)> {
    let mut taken: HashSet<String> = rows.keys().map(|id| (*id).to_owned()).collect();
    let mut items = Vec::new();
    for (seq, group) in groups {
        let shown = group.iter().copied().find(|feed| is_of_a_harness(&feed.kind));
        if let Some(shown) = shown {
            let named = shown.runtime_event_id.as_deref().unwrap_or(&shown.event_id);
            let id = free_id(named, &mut taken);
            items.push((seq, Item { id, at: shown.timestamp, told: Told::Lost { shown, all: group } }));
            continue;
        }
        for row in group {
            let on = row.event.pointer("/cause/hook_request_id").and_then(Value::as_str);
            let told = match (decision_of(&row.event), on) {
                (Some(decision), Some(on)) => Told::Decision { row, on: on.to_owned(), decision },
                _ => Told::Feed(row),
            };
            let sort = if matches!(told, Told::Decision { .. }) { "decision" } else { "feed" };
            items.push((row.seq, Item { id: format!("import:{sort}:{}", row.event_id), at: row.timestamp, told }));
        }
    }
    items
}

/// Whether harnesses tell this kind, so that a feed event of it shows a runtime event.
fn is_of_a_harness(kind: &str) -> bool {
    let kind = EventKind::parse(kind);
    !matches!(kind, EventKind::Other(_) | EventKind::Decision) && !kind.is_workflow()
}

/// The id, or with a number behind it where it is taken.
fn free_id(id: &str, taken: &mut HashSet<String>) -> String {
    let mut free = id.to_owned();
    let mut number = 1;
    while !taken.insert(free.clone()) {
        number += 1;
        free = format!("{id}~{number}");
    }
    free
}

/// Puts each loose item into its place among the runtime events, which keep their order.
fn merged<'a>(runtime: Vec<(Option<i64>, Item<'a>)>, loose: Vec<(i64, Item<'a>)>) -> Vec<Item<'a>> {
    let mut before: Vec<Vec<Item<'a>>> = Vec::new();
    before.resize_with(runtime.len() + 1, Vec::new);
    // The smallest number from each index on: it never falls, so the last smaller one is found by halving.
    let mut smallest: Vec<i64> = runtime.iter().map(|(first, _)| first.unwrap_or(i64::MAX)).collect();
    for index in (1..smallest.len()).rev() {
        smallest[index - 1] = smallest[index - 1].min(smallest[index]);
    }
    for (seq, item) in loose {
        let from = smallest.partition_point(|first| *first < seq);
        // Between its neighbours in the timeline stand events that gave no feed event: of those the moment decides.
        let place = runtime[from..]
            .iter()
            .position(|(first, told)| first.is_some() || told.at > item.at)
            .map_or(runtime.len(), |index| from + index);
        before[place].push(item);
    }
    let mut items = Vec::new();
    let mut before = before.into_iter();
    for (_, item) in runtime {
        items.extend(before.next().unwrap_or_default());
        items.push(item);
    }
    items.extend(before.next().unwrap_or_default());
    items
}

/// Lets each decision name its event by the id that it has in the log: where an id was repeated, the one whose feed event
/// the decision has for a parent.
fn name_decided(items: &mut [Item<'_>]) {
    let mut lost: HashMap<String, String> = HashMap::new();
    for item in items.iter() {
        if let Told::Lost { all, .. } = &item.told {
            lost.extend(all.iter().map(|feed| (feed.event_id.clone(), item.id.clone())));
        }
    }
    for item in items {
        if let Told::Decision { row, on, .. } = &mut item.told
            && let Some(id) =
                row.event.pointer("/cause/parent_event_id").and_then(Value::as_str).and_then(|id| lost.get(id))
        {
            id.clone_into(on);
        }
    }
}
