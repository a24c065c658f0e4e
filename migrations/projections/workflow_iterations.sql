-- The iterations of workflow runs: one row each, as its workflow.iteration events tell it.
CREATE TABLE workflow_iterations_{generation} (
    run_id              TEXT NOT NULL,
    iteration           INTEGER NOT NULL,
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
CREATE VIEW workflow_iterations AS SELECT * FROM workflow_iterations_{generation};
