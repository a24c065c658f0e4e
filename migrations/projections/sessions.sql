-- Ledger sessions and the adapter (harness) sessions in them, with what they cost.
CREATE TABLE sessions_{generation} (
    session_id          TEXT PRIMARY KEY,
    first_at            INTEGER NOT NULL,
    last_at             INTEGER NOT NULL,
    events              INTEGER NOT NULL,
    runs                INTEGER NOT NULL,
    -- What iterations without an adapter session cost; the others stand with their adapter session.
    tokens_input        INTEGER,
    tokens_output       INTEGER,
    tokens_cache_read   INTEGER,
    tokens_cache_write  INTEGER,
    tokens_total        INTEGER,
    tokens_context_size INTEGER,
    tokens_context_window_size INTEGER,
    first_position      INTEGER NOT NULL,
    last_position       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE adapter_sessions_{generation} (
    session_id          TEXT NOT NULL,
    adapter_session_id  TEXT NOT NULL,
    run_id              TEXT, -- the workflow run that used it last
    started_at          INTEGER,
    ended_at            INTEGER,
    model               TEXT,
    source              TEXT,
    end_reason          TEXT,
    events              INTEGER NOT NULL,
    tokens_input        INTEGER,
    tokens_output       INTEGER,
    tokens_cache_read   INTEGER,
    tokens_cache_write  INTEGER,
    tokens_total        INTEGER,
    tokens_context_size INTEGER,
    tokens_context_window_size INTEGER,
    first_position      INTEGER NOT NULL,
    last_position       INTEGER NOT NULL,
    recorded_tokens     TEXT NOT NULL, -- JSON object: what the harness's own record tells, by thread
    PRIMARY KEY (session_id, adapter_session_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_{generation}_by_age ON sessions_{generation} (last_position DESC);
CREATE INDEX adapter_sessions_{generation}_by_id ON adapter_sessions_{generation} (adapter_session_id);
CREATE VIEW sessions AS SELECT * FROM sessions_{generation};
CREATE VIEW adapter_sessions AS SELECT * FROM adapter_sessions_{generation};
