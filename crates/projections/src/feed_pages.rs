//! Pages of the feed as SQL: of the entries that fit a filter, and of those among them that words are found in.
//!
//! Invariants: a page is the same whichever way it is found. A common word is looked for on the way along the feed, at a cost
//! that depends on the page; a rare one leads to its entries, at a cost that depends on how many they are.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::feed_queries::FeedFilter;
use crate::views::feed::{FeedEvent, rows};
use crate::views::feed_search;

/// Entries that are looked at first, for each that the page may have.
const WALKED_PER_ENTRY: usize = 4;
/// How many times more are looked at next, where the page is not full yet.
const WALKED_FACTOR: usize = 8;

/// Which way a page of what is found is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Entries that are looked at first, at the least.
    walked_min: usize,
    /// A page that may have more is taken of all that are found.
    walked_limit_max: usize,
    /// Events with a rare word, at the most: to look up their entries takes about 20 ms.
    rare_max: usize,
}

impl Default for Way {
    fn default() -> Self {
        Self { walked_min: 400, walked_limit_max: 10_000, rare_max: 20_000 }
    }
}

/// A page that is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) filter: &'a FeedFilter,
    /// From the end: the entries come the last first.
    pub(crate) is_backward: bool,
    /// Only those behind the entry with this number, or before it: its number in the session where that is given, else in the
    /// feed.
    pub(crate) from: Option<u64>,
    pub(crate) limit: usize,
    pub(crate) way: Way,
}

impl Asked<'_> {
    /// The entries that fit the filter, whatever words are in them.
    pub(crate) fn page(&self, connection: &Connection) -> rusqlite::Result<Vec<FeedEvent>> {
        self.select(connection, self.clause(false), self.order(), self.limit)
    }

    /// The entries that fit the filter and that words, as FTS5 takes them, are found in.
    pub(crate) fn page_of_found(
        &self,
        connection: &Connection,
        table: &str,
        words: String,
    ) -> rusqlite::Result<Vec<FeedEvent>> {
        if self.limit > self.way.walked_limit_max {
            return self.gathered(connection, table, words);
        }
        let mut walked = self.way.walked_min.max(self.limit.saturating_mul(WALKED_PER_ENTRY));
        let mut found = self.walked(connection, table, &words, walked)?;
        if found.is_enough(self.limit) {
            return Ok(found.events);
        }
        if feed_search::has_at_most(connection, table, &words, self.way.rare_max)? {
            return self.gathered(connection, table, words);
        }
        while !found.is_enough(self.limit) {
            walked = walked.saturating_mul(WALKED_FACTOR);
            let rest = Asked { from: found.walked_to, limit: self.limit - found.events.len(), ..*self };
            let next = rest.walked(connection, table, &words, walked)?;
            found.events.extend(next.events);
            found.walked_to = next.walked_to;
        }
        Ok(found.events)
    }

    /// Looks at the next so many entries that fit the filter for those that the words are found in. Of these only the events
    /// between the first and the last that they show are looked for: to gather a common word's million takes a second.
    fn walked(&self, connection: &Connection, table: &str, words: &str, count: usize) -> rusqlite::Result<Walked> {
        let order = self.order();
        let mut clause = self.clause(false);
        clause.behind(order, self.is_backward, self.from);
        let behind = clause.ordered(order, self.is_backward, count);
        let Some(stretch) = rows::select_stretch(connection, order, count, &behind, clause.values())? else {
            return Ok(Walked { events: Vec::new(), walked_to: None });
        };
        let ((least, greatest), (first, last)) = (stretch.numbers, stretch.shown);
        let mut clause = self.clause(false);
        let (from, to) = (clause.mark(integer(least)), clause.mark(integer(greatest)));
        clause.conditions.push(format!("{order} BETWEEN ?{from} AND ?{to}"));
        let words = clause.mark(Value::Text(words.to_owned()));
        let (first, last) = (clause.mark(integer(first.0)), clause.mark(integer(last.0)));
        clause.conditions.push(feed_search::is_found_between(table, words, first, last));
        let events = self.select(connection, clause, order, self.limit)?;
        let walked_to = if self.is_backward { least } else { greatest };
        Ok(Walked { events, walked_to: stretch.is_whole.then_some(walked_to) })
    }

    /// Takes the page of all entries that the words are found in.
    fn gathered(&self, connection: &Connection, table: &str, words: String) -> rusqlite::Result<Vec<FeedEvent>> {
        let mut clause = self.clause(true);
        let words = clause.mark(Value::Text(words));
        clause.conditions.push(feed_search::is_among_found(table, words));
        let order = if self.filter.session.is_some() { "+seq" } else { "entry" };
        self.select(connection, clause, order, self.limit)
    }

    fn select(
        &self,
        connection: &Connection,
        mut clause: Clause,
        order: &str,
        limit: usize,
    ) -> rusqlite::Result<Vec<FeedEvent>> {
        clause.behind(order, self.is_backward, self.from);
        let sql = clause.ordered(order, self.is_backward, limit);
        rows::select(connection, &sql, clause.values())
    }

    /// Those of one session are in the order of their numbers in it too, and found by them.
    fn order(&self) -> &'static str {
        if self.filter.session.is_some() { "seq" } else { "entry" }
    }

    /// What the filter asks for, but for words. Where the rows are known by their entries, they are not looked up by more.
    fn clause(&self, are_known: bool) -> Clause {
        let mut clause = Clause::default();
        let plus = if are_known { "+" } else { "" };
        if let Some(session) = &self.filter.session {
            clause.equals(&format!("{plus}session_id"), session.to_string());
        }
        if let Some(run) = &self.filter.run {
            clause.equals(&format!("{plus}workflow_run_id"), run.to_string());
        }
        if let Some(kind) = &self.filter.kind {
            let (kind, family) = (clause.mark(Value::Text(kind.clone())), clause.mark(Value::Text(format!("{kind}."))));
            clause.conditions.push(format!("(kind = ?{kind} OR substr(kind, 1, length(?{family})) = ?{family})"));
        }
        if let Some(level) = self.filter.level {
            clause.equals("level", level.as_str().to_owned());
        }
        clause
    }
}

/// What was found in some of the entries.
struct Walked {
    events: Vec<FeedEvent>,
    /// Where the entries go on that were not looked at; `None` where there are no more.
    walked_to: Option<u64>,
}

impl Walked {
    fn is_enough(&self, limit: usize) -> bool {
        self.events.len() >= limit || self.walked_to.is_none()
    }
}

/// Conditions, as they are put together, and the values that stand in them.
#[derive(Default)]
struct Clause {
    conditions: Vec<String>,
    parameters: Vec<Value>,
}

impl Clause {
    /// The number of the mark that stands for a value.
    fn mark(&mut self, value: Value) -> usize {
        self.parameters.push(value);
        self.parameters.len()
    }

    fn equals(&mut self, column: &str, text: String) {
        let mark = self.mark(Value::Text(text));
        self.conditions.push(format!("{column} = ?{mark}"));
    }

    fn behind(&mut self, order: &str, is_backward: bool, from: Option<u64>) {
        if let Some(from) = from {
            let mark = self.mark(integer(from));
            let sign = if is_backward { "<" } else { ">" };
            self.conditions.push(format!("{order} {sign} ?{mark}"));
        }
    }

    /// The SQL behind the table's name.
    fn ordered(&mut self, order: &str, is_backward: bool, limit: usize) -> String {
        let mut conditions = String::new();
        if !self.conditions.is_empty() {
            conditions = format!("WHERE {} ", self.conditions.join(" AND "));
        }
        let limit = self.mark(integer(u64::try_from(limit).unwrap_or(u64::MAX)));
        let direction = if is_backward { " DESC" } else { "" };
        format!("{conditions}ORDER BY {order}{direction} LIMIT ?{limit}")
    }

    fn values(self) -> impl rusqlite::Params {
        rusqlite::params_from_iter(self.parameters)
    }
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use runledger_testkit::TempLedger;

    use super::*;
    use crate::{FeedLevel, Projections, Queries};

    const WORDS: [&str; 5] = ["pear", "pearls", "quince", "the tests", "rare"];

    /// Prompts, messages, calls and failures of four sessions, many told by one source and later by another.
    fn ledger() -> TempLedger {
        let ledger = TempLedger::new();
        let tell = |number: usize, source: &str| {
            let (session, words) = (number % 4, WORDS[if number.is_multiple_of(97) { 4 } else { number * 7 / 3 % 4 }]);
            let (kind, data) = match number * 5 / 4 % 4 {
                0 => ("user.prompt", format!(r#"{{"prompt":"Go on {number} with {words}"}}"#)),
                1 => ("stop.request", format!(r#"{{"last_assistant_message":"Done {number} with {words}"}}"#)),
                2 => (
                    "tool.pre",
                    format!(r#"{{"tool_name":"Bash","tool_use_id":"t{number}","tool_input":{{"command":"{words}"}}}}"#),
                ),
                _ => (
                    "tool.failure",
                    format!(r#"{{"tool_name":"Bash","tool_use_id":"t{number}","tool_input":{{}},"error":"{words}"}}"#),
                ),
            };
            let rest = format!(r#""timestamp":{number},"sessionId":"a{session}""#);
            let json = format!(r#"{{"id":"{source}:e{number}",{rest},"kind":"{kind}","data":{data}}}"#);
            ledger.append(&format!("session/s{session}"), &json);
        };
        for number in 0..300 {
            tell(number, "hook");
            if number.is_multiple_of(3) && number > 30 {
                tell(number - 30, "transcript");
            }
        }
        ledger
    }

    /// The entries of a page by what it means: each that shows an event with the words.
    fn meant(asked: &Asked<'_>, connection: &Connection, table: &str, words: &str) -> Vec<u64> {
        let hits = format!("SELECT rowid FROM {table} WHERE {table} MATCH ?1");
        let sql = format!(
            "SELECT entry FROM feed_events WHERE (session_id, seq) IN (
                 SELECT session_id, seq FROM feed_events WHERE position IN ({hits})
                     AND kind NOT IN ('run.start', 'run.end', 'stop.request', 'todo.update')
                 UNION SELECT session_id, seq FROM feed_retellings WHERE position IN ({hits}))"
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let found: Vec<u64> = statement.query_map([words], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut all = Asked { limit: 1 << 30, ..*asked }.page(connection).unwrap();
        all.retain(|event| found.contains(&event.entry));
        all.truncate(asked.limit);
        all.into_iter().map(|event| event.entry).collect()
    }

    #[test]
    fn a_page_of_what_is_found_is_the_same_whichever_way_it_is_made() {
        let ledger = ledger();
        Projections::open(&ledger.path).unwrap().catch_up().unwrap();
        let queries = Queries::open(&ledger.path).unwrap();
        let connection = queries.connection().unwrap();
        let table = feed_search::table(&connection).unwrap().unwrap();
        let retold: u64 = connection.query_row("SELECT count(*) FROM feed_retellings", [], |row| row.get(0)).unwrap();
        assert!(retold > 10, "{retold}");
        let of_session = FeedFilter { session: Some("s1".parse().unwrap()), ..FeedFilter::default() };
        let of_kind = FeedFilter { kind: Some("tool".to_owned()), ..of_session.clone() };
        let of_level = FeedFilter { level: Some(FeedLevel::Error), ..FeedFilter::default() };
        // Forwards step by step; by looking up what is rare; all of it.
        let ways = [(1, 1 << 40, 0), (3, 1 << 40, 0), (1, 1 << 40, 1 << 40), (1, 0, 0), (400, 10_000, 20_000)];
        let (mut full, mut rest) = (0, 0);
        for filter in [FeedFilter::default(), of_session, of_kind, of_level] {
            for text in ["pear", "go", "the tests", "rare", "nowhere"] {
                for (is_backward, from) in [(false, None), (true, None), (false, Some(9)), (true, Some(200))] {
                    for (limit, (walked_min, walked_limit_max, rare_max)) in
                        [0, 1, 2, 7, 50, usize::MAX / 2].into_iter().flat_map(|limit| ways.map(|way| (limit, way)))
                    {
                        let way = Way { walked_min, walked_limit_max, rare_max };
                        let asked = Asked { filter: &filter, is_backward, from, limit, way };
                        let words = feed_search::query(text);
                        let then = meant(&asked, &connection, &table, &words);
                        let found = asked.page_of_found(&connection, &table, words).unwrap();
                        let found: Vec<u64> = found.into_iter().map(|event| event.entry).collect();
                        assert_eq!(found, then, "{text} in {filter:?}, {from:?} {is_backward} {limit}, {way:?}");
                        *(if found.len() == limit { &mut full } else { &mut rest }) += 1;
                    }
                }
            }
        }
        assert!(full > 100 && rest > 100, "{full} {rest}");
    }
}
