-- Permissions and questions: one row for each that was asked, or that a rule decided without asking.
CREATE TABLE permission_requests_{generation} (
    session_id         TEXT NOT NULL, -- the ledger session; empty where none was told
    event_id           TEXT NOT NULL, -- the event that it is about
    request_id         TEXT NOT NULL,
    position           INTEGER NOT NULL, -- the event that asks, or that decides what nobody was asked
    event_position     INTEGER, -- the event that it is about
    tool_use_id        TEXT,
    adapter_session_id TEXT,
    run_id             TEXT, -- where its workflow run stood:
    workflow_name      TEXT,
    state              TEXT,
    iteration          INTEGER,
    max_iterations     INTEGER,
    actor_id           TEXT NOT NULL,
    agent_type         TEXT,
    tool_name          TEXT,
    tool_input         TEXT, -- JSON
    cwd                TEXT,
    question           TEXT NOT NULL, -- permission, question
    mode               TEXT, -- wait, defer; none where nobody waits through the ledger
    on_timeout         TEXT,
    status             TEXT, -- none where nothing is known of it
    asked_at           INTEGER NOT NULL,
    due_at             INTEGER,
    decided_at         INTEGER,
    decided_position   INTEGER,
    decided_by         TEXT,
    decided_via        TEXT,
    intent             TEXT, -- what it came to
    reason             TEXT,
    answers            TEXT, -- JSON object
    scope              TEXT,
    pattern            TEXT,
    rule               TEXT, -- JSON object
    late_decisions     INTEGER NOT NULL,
    log_id             TEXT, -- the log that it was put in, to be answered there; none where nobody waits through the ledger
    PRIMARY KEY (session_id, event_id)
) STRICT, WITHOUT ROWID;
-- Tool calls that are not over: what a permission request may be for.
CREATE TABLE permission_calls_{generation} (
    session_id         TEXT NOT NULL,
    event_id           TEXT NOT NULL,
    position           INTEGER NOT NULL,
    adapter_session_id TEXT NOT NULL,
    tool_use_id        TEXT NOT NULL,
    tool_name          TEXT,
    ask_key            TEXT, -- its turn, tool and input
    agent_id           TEXT,
    agent_type         TEXT,
    cwd                TEXT,
    PRIMARY KEY (session_id, event_id)
) STRICT, WITHOUT ROWID;
-- Workflow runs, as far as their events were taken.
CREATE TABLE permission_runs_{generation} (
    run_id         TEXT NOT NULL,
    state          TEXT NOT NULL, -- JSON object
    iteration_from INTEGER NOT NULL, -- where its last iteration begins
    project_dir    TEXT, -- which its rules are relative to
    PRIMARY KEY (run_id)
) STRICT, WITHOUT ROWID;
-- Which run used an adapter session last.
CREATE TABLE permission_adapters_{generation} (
    adapter_session_id TEXT NOT NULL,
    run_id             TEXT NOT NULL,
    PRIMARY KEY (adapter_session_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX permission_requests_{generation}_by_position ON permission_requests_{generation} (position);
CREATE INDEX permission_requests_{generation}_by_event_position ON permission_requests_{generation} (event_position);
CREATE INDEX permission_requests_{generation}_by_decision ON permission_requests_{generation} (decided_position);
CREATE INDEX permission_requests_{generation}_by_event ON permission_requests_{generation} (event_id);
CREATE INDEX permission_requests_{generation}_by_request ON permission_requests_{generation} (request_id);
CREATE INDEX permission_requests_{generation}_by_call
    ON permission_requests_{generation} (tool_use_id, adapter_session_id);
CREATE INDEX permission_requests_{generation}_by_run ON permission_requests_{generation} (run_id, position);
CREATE INDEX permission_requests_{generation}_by_session ON permission_requests_{generation} (session_id, position);
CREATE INDEX permission_requests_{generation}_by_status ON permission_requests_{generation} (status, position);
CREATE INDEX permission_requests_{generation}_unsettled ON permission_requests_{generation} (adapter_session_id)
    WHERE status IS NULL;
CREATE INDEX permission_requests_{generation}_unlinked ON permission_requests_{generation} (adapter_session_id, position)
    WHERE run_id IS NULL;
CREATE INDEX permission_calls_{generation}_by_call ON permission_calls_{generation} (adapter_session_id, tool_use_id);
CREATE INDEX permission_calls_{generation}_by_ask
    ON permission_calls_{generation} (adapter_session_id, ask_key, position);
CREATE VIEW permission_requests AS SELECT * FROM permission_requests_{generation};
CREATE VIEW permission_calls AS SELECT * FROM permission_calls_{generation};
CREATE VIEW permission_runs AS SELECT * FROM permission_runs_{generation};
CREATE VIEW permission_adapters AS SELECT * FROM permission_adapters_{generation};
