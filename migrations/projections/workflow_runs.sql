-- Workflow runs: one row a run, as its own events tell it. A read-only cache of the log.
CREATE TABLE workflow_runs_{generation} (
    run_id              TEXT PRIMARY KEY,
    session_id          TEXT NOT NULL,
    workflow_name       TEXT,
    harness             TEXT,
    status              TEXT NOT NULL,
    state               TEXT NOT NULL,
    iteration           INTEGER NOT NULL,
    iteration_is_open   INTEGER NOT NULL,
    max_iterations      INTEGER NOT NULL,
    started_at          INTEGER NOT NULL,
    ended_at            INTEGER,
    stop_reason         TEXT,
    tracker_path        TEXT,
    tokens_input        INTEGER,
    tokens_output       INTEGER,
    tokens_cache_read   INTEGER,
    tokens_cache_write  INTEGER,
    tokens_total        INTEGER,
    tokens_context_size INTEGER,
    tokens_context_window_size INTEGER,
    adapter_session_ids TEXT NOT NULL, -- JSON array
    parent_run_id       TEXT,
    forked_at           INTEGER,
    attempt             INTEGER NOT NULL,
    deadline_at         INTEGER,
    owner               TEXT, -- JSON object
    forked_from         TEXT,
    retries             INTEGER NOT NULL,
    waiting_for         TEXT, -- the question that its open iteration waits for, with nobody waiting beside it
    is_paused           INTEGER NOT NULL,
    more                TEXT NOT NULL, -- JSON object: what else the fold of the run knows
    first_position      INTEGER NOT NULL,
    last_position       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX workflow_runs_{generation}_by_age ON workflow_runs_{generation} (first_position DESC);
CREATE INDEX workflow_runs_{generation}_by_session ON workflow_runs_{generation} (session_id, first_position DESC);
CREATE INDEX workflow_runs_{generation}_by_parent ON workflow_runs_{generation} (parent_run_id, first_position)
    WHERE parent_run_id IS NOT NULL;
CREATE INDEX workflow_runs_{generation}_by_origin ON workflow_runs_{generation} (forked_from, first_position)
    WHERE forked_from IS NOT NULL;
CREATE VIEW workflow_runs AS SELECT * FROM workflow_runs_{generation};
