-- The log: one append-only table of events, and the names of its streams. docs/format.md explains every column.

PRAGMA application_id = 1380729927; -- "RLDG"

CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    log_id     TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE streams (
    stream_key INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    version    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE dictionaries (
    dictionary_id INTEGER PRIMARY KEY,
    created_at    INTEGER NOT NULL,
    bytes         BLOB NOT NULL
) STRICT;

-- Columns are ordered by how often they are read: `content`, the large one, stands last, so that reading anything else
-- never walks its overflow pages.
CREATE TABLE runtime_events (
    position           INTEGER PRIMARY KEY,
    stream_key         INTEGER NOT NULL REFERENCES streams (stream_key),
    stream_version     INTEGER NOT NULL,
    event_id           TEXT NOT NULL,
    kind               TEXT NOT NULL,
    occurred_at        INTEGER NOT NULL,
    recorded_at        INTEGER NOT NULL,
    session_key        INTEGER REFERENCES streams (stream_key),
    run_key            INTEGER REFERENCES streams (stream_key),
    adapter_session_id TEXT,
    causation_id       TEXT,
    correlation_id     TEXT,
    facts              BLOB NOT NULL,
    digest             BLOB NOT NULL,
    chain              BLOB NOT NULL,
    commitment         BLOB NOT NULL,
    salt               BLOB,
    content            BLOB,
    UNIQUE (stream_key, stream_version),
    UNIQUE (stream_key, event_id)
) STRICT;

CREATE INDEX runtime_events_by_session ON runtime_events (session_key, position) WHERE session_key IS NOT NULL;
CREATE INDEX runtime_events_by_run ON runtime_events (run_key, position) WHERE run_key IS NOT NULL;
-- A projection of the workflow kinds reads these alone, however long the log is.
CREATE INDEX runtime_events_of_workflows ON runtime_events (position) WHERE kind GLOB 'workflow.*';

-- Only the next position and the next version of a stream can be taken, and an id once: `INSERT OR REPLACE` would
-- otherwise delete a row without any delete trigger.
CREATE TRIGGER runtime_events_append_only BEFORE INSERT ON runtime_events
WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM runtime_events)
    OR NEW.stream_version IS NOT
        (SELECT coalesce(max(stream_version), 0) + 1 FROM runtime_events WHERE stream_key = NEW.stream_key)
    OR EXISTS (SELECT 1 FROM runtime_events WHERE stream_key = NEW.stream_key AND event_id = NEW.event_id)
BEGIN
    SELECT raise(ABORT, 'runledger: an event is appended at the head, under an id of its own');
END;

CREATE TRIGGER runtime_events_never_deleted BEFORE DELETE ON runtime_events
BEGIN
    SELECT raise(ABORT, 'runledger: events are never deleted; content can be erased by setting content and salt to NULL');
END;

CREATE TRIGGER runtime_events_only_erased BEFORE UPDATE ON runtime_events
WHEN NEW.content IS NOT NULL
    OR NEW.salt IS NOT NULL
    OR (OLD.position, OLD.stream_key, OLD.stream_version, OLD.event_id, OLD.kind, OLD.occurred_at, OLD.recorded_at)
        IS NOT (NEW.position, NEW.stream_key, NEW.stream_version, NEW.event_id, NEW.kind, NEW.occurred_at,
            NEW.recorded_at)
    OR (OLD.session_key, OLD.run_key, OLD.adapter_session_id, OLD.causation_id, OLD.correlation_id)
        IS NOT (NEW.session_key, NEW.run_key, NEW.adapter_session_id, NEW.causation_id, NEW.correlation_id)
    OR (OLD.facts, OLD.digest, OLD.chain, OLD.commitment) IS NOT (NEW.facts, NEW.digest, NEW.chain, NEW.commitment)
BEGIN
    SELECT raise(ABORT, 'runledger: events never change; content can be erased by setting content and salt to NULL');
END;

CREATE TRIGGER streams_never_deleted BEFORE DELETE ON streams
BEGIN
    SELECT raise(ABORT, 'runledger: streams are never deleted');
END;

CREATE TRIGGER streams_only_grow BEFORE UPDATE ON streams
WHEN NEW.stream_key IS NOT OLD.stream_key OR NEW.name IS NOT OLD.name OR NEW.version < OLD.version
BEGIN
    SELECT raise(ABORT, 'runledger: a stream keeps its name, and its version only grows');
END;

-- In these tables, too, a replacing insert would delete without a delete trigger.
CREATE TRIGGER ledger_made_once BEFORE INSERT ON ledger
WHEN EXISTS (SELECT 1 FROM ledger)
BEGIN
    SELECT raise(ABORT, 'runledger: a log keeps its identity');
END;

CREATE TRIGGER streams_named_once BEFORE INSERT ON streams
WHEN EXISTS (SELECT 1 FROM streams WHERE stream_key = NEW.stream_key OR name = NEW.name)
BEGIN
    SELECT raise(ABORT, 'runledger: a stream keeps its name, and its version only grows');
END;

CREATE TRIGGER dictionaries_made_once BEFORE INSERT ON dictionaries
WHEN EXISTS (SELECT 1 FROM dictionaries WHERE dictionary_id = NEW.dictionary_id)
BEGIN
    SELECT raise(ABORT, 'runledger: a dictionary never changes');
END;

CREATE TRIGGER ledger_never_changed BEFORE UPDATE ON ledger
BEGIN
    SELECT raise(ABORT, 'runledger: a log keeps its identity');
END;

CREATE TRIGGER ledger_never_deleted BEFORE DELETE ON ledger
BEGIN
    SELECT raise(ABORT, 'runledger: a log keeps its identity');
END;

CREATE TRIGGER dictionaries_never_changed BEFORE UPDATE ON dictionaries
BEGIN
    SELECT raise(ABORT, 'runledger: a dictionary never changes');
END;

CREATE TRIGGER dictionaries_never_deleted BEFORE DELETE ON dictionaries
BEGIN
    SELECT raise(ABORT, 'runledger: a dictionary is never deleted');
END;
