//! Which facts of a session were told how often by whom, and which entries show them: nearly as many as events.
//!
//! New facts stand beside each other in the order of their first telling, chunk by chunk, so that what is written is what
//! is new; by their keys they would be scattered over as many pages. Once there are many, the oldest of them go to the
//! table by key together. So a session is taken up again at the cost of those chunks, however long it is.
//!
//! Invariant: a fact stands in a chunk or in the table by key, never in both. Which one depends on the facts before it
//! alone.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bincode::config;
use rusqlite::{OptionalExtension, Params};

use super::NAME;
use super::retelling::{FactKey, Told};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::kept_rows::KeptRows;
use crate::views::sqlite;

/// The table by key.
pub(super) const TABLE: &str = "feed_tellings";
/// The table of the chunks.
pub(super) const CHUNKS: &str = "feed_latest_tellings";

/// Facts in one chunk: so many are under 1,000 bytes, which a page of this table holds in itself.
const CHUNK: usize = 32;
/// Chunks of a session, at the most: few sessions have more facts.
const CHUNKS_MAX: usize = 512;
/// Chunks that go to the table by key at once.
const OLDEST: usize = CHUNKS_MAX / 4;
/// Bytes of a fact in memory, about: in a chunk as it is stored, and its place.
const FACT_BYTES: usize = 64;
/// Bytes of one that is changed, or was looked for in the table by key.
const OPEN_FACT_BYTES: usize = 192;

/// The facts of one chunk, in the order of their first telling.
type Chunk = Vec<(FactKey, Told)>;

/// The same as it is stored.
struct StoredChunk {
    /// The keys, one behind the other.
    facts: Vec<u8>,
    /// What was told of each.
    told: Vec<u8>,
}

/// What is known of one session's facts.
pub(super) struct Tellings {
    session_key: i64,
    /// Chunks as they are stored, by number, as far as they were looked into; the open ones are not up to date here.
    stored: BTreeMap<usize, StoredChunk>,
    /// Chunks that are not written as they are now.
    open: BTreeMap<usize, Chunk>,
    /// The chunk that each fact stands in.
    places: HashMap<FactKey, usize>,
    /// The number of the first chunk, and of the next new one.
    chunks: Range<usize>,
    /// Facts in the last chunk.
    in_last: usize,
    /// Whether the table has chunks whose facts went to the table by key.
    has_stale_chunks: bool,
    older: KeptRows<FactKey, Told>,
    /// Whether the table by key has facts of this session.
    has_older: bool,
    /// Whether the chunks' keys were read.
    is_loaded: bool,
}

impl Tellings {
    /// Those of a session; of a new one nothing was told.
    pub(super) fn new(session_key: i64, is_new: bool) -> Self {
        Self {
            session_key,
            stored: BTreeMap::new(),
            open: BTreeMap::new(),
            places: HashMap::new(),
            chunks: 0..0,
            in_last: CHUNK,
            has_stale_chunks: false,
            older: KeptRows::default(),
            has_older: false,
            is_loaded: is_new,
        }
    }

    /// How many bytes are known, about.
    pub(super) fn bytes(&self) -> usize {
        self.places.len() * FACT_BYTES + (self.open.len() * CHUNK + self.older.len()) * OPEN_FACT_BYTES
    }

    /// What was told of a fact.
    pub(super) fn get(&mut self, target: &Target<'_>, fact: FactKey) -> Result<Option<Told>, ProjectionError> {
        self.load(target)?;
        let Some(place) = self.places.get(&fact).copied() else {
            let load = || load_older(target, self.session_key, fact);
            return if self.has_older { Ok(self.older.get(&fact, load)?.cloned()) } else { Ok(None) };
        };
        let of = |chunk: &Chunk| chunk.iter().find(|(known, _)| *known == fact).map(|(_, told)| told.clone());
        match self.open.get(&place) {
            Some(chunk) => Ok(of(chunk)),
            None => Ok(of(&self.stored(target, place)?.decoded()?)),
        }
    }

    /// Says what was told of a fact.
    pub(super) fn put(&mut self, target: &Target<'_>, fact: FactKey, told: Told) -> Result<(), ProjectionError> {
        self.load(target)?;
        let session_key = self.session_key;
        if let Some(place) = self.places.get(&fact).copied() {
            let known = self.open(target, place)?.iter_mut().find(|(known, _)| *known == fact);
            if let Some((_, known)) = known {
                *known = told;
            }
        } else if self.has_older && self.older.get(&fact, || load_older(target, session_key, fact))?.is_some() {
            *self.older.change(&fact, || Ok(None))? = Some(told);
        } else {
            if self.in_last >= CHUNK {
                self.begin_chunk(target)?;
            }
            let place = self.chunks.end - 1;
            self.open(target, place)?.push((fact, told));
            self.in_last += 1;
            self.places.insert(fact, place);
        }
        Ok(())
    }

    /// A chunk, to be changed.
    fn open(&mut self, target: &Target<'_>, place: usize) -> Result<&mut Chunk, ProjectionError> {
        let chunk = match self.open.remove(&place) {
            Some(chunk) => chunk,
            None => self.stored(target, place)?.decoded()?,
        };
        Ok(self.open.entry(place).or_insert(chunk))
    }

    /// A chunk as it is stored.
    fn stored(&mut self, target: &Target<'_>, place: usize) -> Result<&StoredChunk, ProjectionError> {
        if !self.stored.contains_key(&place) {
            let sql = format!("SELECT facts, told FROM {} WHERE session_key = ?1 AND chunk = ?2", target.table(CHUNKS));
            let chunk = target
                .connection
                .prepare_cached(&sql)
                .and_then(|mut statement| {
                    statement.query_row((self.session_key, place), |row| {
                        Ok(StoredChunk { facts: row.get(0)?, told: row.get(1)? })
                    })
                })
                .map_err(|source| sqlite(target, NAME, &source))?;
            self.stored.insert(place, chunk);
        }
        self.stored.get(&place).ok_or_else(|| damaged(&format!("chunk {place} is gone")))
    }

    fn begin_chunk(&mut self, target: &Target<'_>) -> Result<(), ProjectionError> {
        if self.chunks.len() >= CHUNKS_MAX {
            let first = self.chunks.start;
            for place in first..first + OLDEST {
                for (fact, told) in std::mem::take(self.open(target, place)?) {
                    self.places.remove(&fact);
                    *self.older.change(&fact, || Ok(None))? = Some(told);
                }
                self.open.remove(&place);
                self.stored.remove(&place);
            }
            self.chunks.start = first + OLDEST;
            (self.has_older, self.has_stale_chunks) = (true, true);
        }
        self.open.insert(self.chunks.end, Chunk::new());
        self.chunks.end += 1;
        self.in_last = 0;
        Ok(())
    }

    /// Writes what changed, about `left` facts at the most; says whether that was all.
    pub(super) fn flush(&mut self, target: &Target<'_>, left: &mut usize) -> Result<bool, ProjectionError> {
        let (session_key, table, chunks) = (self.session_key, target.table(TABLE), target.table(CHUNKS));
        if std::mem::take(&mut self.has_stale_chunks) {
            let remove = format!("DELETE FROM {chunks} WHERE session_key = ?1 AND chunk < ?2");
            execute(target, &remove, (session_key, self.chunks.start))?;
        }
        let put = format!("INSERT OR REPLACE INTO {table} (session_key, fact, told) VALUES (?1, ?2, ?3)");
        let is_all = self
            .older
            .flush_in_order(left, |fact, told| execute(target, &put, (session_key, fact.0, encoded(told)?)))?;
        let put = format!("INSERT OR REPLACE INTO {chunks} (session_key, chunk, facts, told) VALUES (?1, ?2, ?3, ?4)");
        while is_all && *left > 0 {
            let Some((place, chunk)) = self.open.pop_first() else {
                return Ok(true);
            };
            let stored = StoredChunk::encoded(&chunk)?;
            execute(target, &put, (session_key, place, &stored.facts, &stored.told))?;
            *left = left.saturating_sub(chunk.len());
            self.stored.insert(place, stored);
        }
        Ok(is_all && self.open.is_empty())
    }

    /// Reads the chunks' keys, once.
    fn load(&mut self, target: &Target<'_>) -> Result<(), ProjectionError> {
        if self.is_loaded {
            return Ok(());
        }
        let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
        let sql = format!("SELECT chunk, facts FROM {} WHERE session_key = ?1 ORDER BY chunk", target.table(CHUNKS));
        let mut statement = target.connection.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query([self.session_key]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let place: usize = row.get(0).map_err(failed)?;
            let facts = row.get_ref(1).and_then(|facts| Ok(facts.as_blob()?)).map_err(failed)?;
            let keys = keys_of(facts)?;
            if self.places.is_empty() {
                self.chunks = place..place;
                self.places.reserve(CHUNKS_MAX * CHUNK);
            }
            if place != self.chunks.end {
                return Err(damaged(&format!("chunk {} is gone", self.chunks.end)));
            }
            self.chunks.end = place.saturating_add(1);
            self.in_last = keys.len();
            self.places.extend(keys.map(|fact| (fact, place)));
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {} WHERE session_key = ?1)", target.table(TABLE));
        self.has_older = target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([self.session_key], |row| row.get(0)))
            .map_err(failed)?;
        self.is_loaded = true;
        Ok(())
    }
}

impl StoredChunk {
    fn encoded(chunk: &Chunk) -> Result<Self, ProjectionError> {
        let facts = chunk.iter().flat_map(|(fact, _)| fact.0).collect();
        let told: Vec<&Told> = chunk.iter().map(|(_, told)| told).collect();
        Ok(Self { facts, told: encoded(&told)? })
    }

    fn decoded(&self) -> Result<Chunk, ProjectionError> {
        let (keys, told): (_, Vec<Told>) = (keys_of(&self.facts)?, decoded(&self.told)?);
        if keys.len() != told.len() {
            return Err(damaged(&format!("a chunk has {} facts, and {} were told", keys.len(), told.len())));
        }
        Ok(keys.zip(told).collect())
    }
}

/// The keys that stand one behind the other.
fn keys_of(facts: &[u8]) -> Result<impl ExactSizeIterator<Item = FactKey> + '_, ProjectionError> {
    let (keys, rest) = facts.as_chunks::<16>();
    if keys.is_empty() || keys.len() > CHUNK || !rest.is_empty() {
        return Err(damaged(&format!("a chunk has {} bytes of keys", facts.len())));
    }
    Ok(keys.iter().map(|key| FactKey(*key)))
}

fn load_older(target: &Target<'_>, session_key: i64, fact: FactKey) -> Result<Option<Told>, ProjectionError> {
    let sql = format!("SELECT told FROM {} WHERE session_key = ?1 AND fact = ?2", target.table(TABLE));
    let told: Option<Vec<u8>> = target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row((session_key, fact.0), |row| row.get(0)).optional())
        .map_err(|source| sqlite(target, NAME, &source))?;
    told.map(|bytes| decoded(&bytes)).transpose()
}

fn execute(target: &Target<'_>, sql: &str, parameters: impl Params) -> Result<(), ProjectionError> {
    let done = target.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters));
    done.map(|_| ()).map_err(|source| sqlite(target, NAME, &source))
}

fn encoded<T: bincode::Encode>(value: &T) -> Result<Vec<u8>, ProjectionError> {
    bincode::encode_to_vec(value, config::standard()).map_err(|error| damaged(&error))
}

fn decoded<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, ProjectionError> {
    // A length that no chunk has can only be damage, and must not make us allocate it.
    let config = config::standard().with_limit::<{ 1 << 20 }>();
    let (value, read) = bincode::decode_from_slice(bytes, config).map_err(|error| damaged(&error))?;
    if read == bytes.len() { Ok(value) } else { Err(damaged(&format!("{} bytes too many", bytes.len() - read))) }
}

fn damaged(error: &dyn std::fmt::Display) -> ProjectionError {
    ProjectionError::Row { projection: NAME, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use rusqlite::Connection;

    use super::super::run_lifecycle::Teller;
    use super::*;

    const TABLES: &str = "
        CREATE TABLE feed_tellings_1 (session_key, fact BLOB, told BLOB, PRIMARY KEY (session_key, fact)) WITHOUT ROWID;
        CREATE TABLE feed_latest_tellings_1 (
            session_key, chunk, facts BLOB, told BLOB, PRIMARY KEY (session_key, chunk)
        ) WITHOUT ROWID;";
    /// More than the chunks take, twice.
    const FACTS: u64 = 2 * (CHUNK * CHUNKS_MAX) as u64 + 777;

    fn fact(number: u64) -> FactKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        FactKey(key)
    }

    fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
        let sql = "SELECT session_key, fact, told FROM feed_tellings_1
                   UNION ALL SELECT chunk, facts, told FROM feed_latest_tellings_1 ORDER BY 1, 2, 3";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// Tells every fact once and every seventh again, writes after every `batch` of them, in pieces of `piece`, and begins
    /// anew from the tables after every `life` batches.
    fn tell_all(connection: &Connection, batch: u64, piece: usize, life: u64) {
        let target = Target { connection, generation: 1 };
        let mut tellings = Tellings::new(3, true);
        for number in 0..FACTS {
            for (number, teller) in [(number, Teller::Hook), (number / 7, Teller::Stream)] {
                let mut told = tellings.get(&target, fact(number)).unwrap().unwrap_or_default();
                *told.count(teller) += 1;
                tellings.put(&target, fact(number), told).unwrap();
            }
            if number % batch == batch - 1 || number == FACTS - 1 {
                while !tellings.flush(&target, &mut { piece }).unwrap() {}
                if (number / batch).is_multiple_of(life) {
                    tellings = Tellings::new(3, false);
                }
            }
        }
    }

    #[test]
    fn what_is_written_depends_on_the_facts_alone_and_every_one_is_found_again() {
        let made =
            [(1, 1, 1_000_000), (613, 100, 3), (FACTS, 1000, 1), (31, usize::MAX, 40)].map(|(batch, piece, life)| {
                let connection = Connection::open_in_memory().unwrap();
                connection.execute_batch(TABLES).unwrap();
                tell_all(&connection, batch, piece, life);
                connection
            });
        let first = rows(&made[0]);
        assert!(made.iter().all(|connection| rows(connection) == first));

        let target = Target { connection: &made[1], generation: 1 };
        let mut tellings = Tellings::new(3, false);
        for number in 0..FACTS {
            let mut told = tellings.get(&target, fact(number)).unwrap().unwrap();
            let again = (number * 7..number * 7 + 7).filter(|number| *number < FACTS).count() as u64;
            assert_eq!((*told.count(Teller::Hook), *told.count(Teller::Stream)), (1, again), "{number}");
        }
        assert!(tellings.get(&target, fact(FACTS)).unwrap().is_none());
        let chunks: usize =
            made[0].query_row("SELECT count(*) FROM feed_latest_tellings_1", [], |row| row.get(0)).unwrap();
        assert!(chunks <= CHUNKS_MAX);
    }

    #[test]
    fn a_damaged_chunk_is_an_error() {
        let chunk = |count: u64| (0..count).map(|number| (fact(number), Told::default())).collect::<Chunk>();
        let (three, none, many) = (chunk(3), chunk(0), chunk(33));
        let [three, none, many] = [three, none, many].map(|chunk| StoredChunk::encoded(&chunk).unwrap());
        let longer = [&three.told[..], &[7]].concat();
        for (facts, told) in [
            (&three.facts, &longer),
            (&none.facts, &none.told),
            (&many.facts, &many.told),
            (&three.facts, &none.told),
            (&three.facts[..40].to_vec(), &three.told),
            (&three.facts, &vec![0xFF; 9]),
        ] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(TABLES).unwrap();
            connection.execute("INSERT INTO feed_latest_tellings_1 VALUES (3, 0, ?1, ?2)", (facts, told)).unwrap();
            let target = Target { connection: &connection, generation: 1 };
            let found = Tellings::new(3, false).get(&target, fact(0));
            assert!(matches!(found, Err(ProjectionError::Row { .. })), "{facts:?} {told:?}");
        }
    }

    #[test]
    fn a_chunk_that_is_gone_is_an_error() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let chunk = StoredChunk::encoded(&vec![(fact(1), Told::default())]).unwrap();
        for place in [4, 6] {
            let row = (place, &chunk.facts, &chunk.told);
            connection.execute("INSERT INTO feed_latest_tellings_1 VALUES (3, ?1, ?2, ?3)", row).unwrap();
        }
        let target = Target { connection: &connection, generation: 1 };
        let found = Tellings::new(3, false).get(&target, fact(1));
        assert!(matches!(found, Err(ProjectionError::Row { .. })));
    }
}
