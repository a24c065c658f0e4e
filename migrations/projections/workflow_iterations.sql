-- The iterations of workflow runs: one row each, as the events of its run tell it.
CREATE TABLE workflow_iterations_{generation} (
    run_id              TEXT NOT NULL,
    iteration           INTEGER NOT NULL,
    attempt             INTEGER NOT NULL, -- how often it was begun
    retry               TEXT, -- JSON object: what it is another try of
    waiting_for         TEXT, -- the question it waits for, with nobody waiting beside it
    continuation        TEXT NOT NULL, -- JSON object
    started_at          INTEGER NOT NULL,
    start_position      INTEGER NOT NULL,
    start_event_id      TEXT NOT NULL,
    ended_at            INTEGER,
    end_position        INTEGER,
    outcome             TEXT,
    exit_code           INTEGER,
    error               TEXT,
    tokens_input        INTEGER,
    tokens_output       INTEGER,
    tokens_cache_read   INTEGER,
    tokens_cache_write  INTEGER,
    tokens_total        INTEGER,
    tokens_context_size INTEGER,
    tokens_context_window_size INTEGER,
    tracker             TEXT, -- JSON object
    adapter_session_id  TEXT,
    PRIMARY KEY (run_id, iteration)
) STRICT, WITHOUT ROWID;
CREATE INDEX workflow_iterations_{generation}_open ON workflow_iterations_{generation} (run_id, iteration)
    WHERE ended_at IS NULL;
CREATE VIEW workflow_iterations AS SELECT * FROM workflow_iterations_{generation};
