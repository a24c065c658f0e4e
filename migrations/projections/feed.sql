-- The feed: the timeline of each ledger session, its runs, actors and plan, and what the mapper knows of it.
CREATE TABLE feed_events_{generation} (
    entry              INTEGER PRIMARY KEY, -- counts from 1, in the order of the log
    session_id         TEXT NOT NULL, -- the ledger session
    seq                INTEGER NOT NULL, -- counts from 1 within it
    first_position     INTEGER NOT NULL, -- the event of the log that told it first
    position           INTEGER NOT NULL, -- the event in whose words it is shown
    ts                 INTEGER NOT NULL,
    adapter_session_id TEXT NOT NULL,
    run_id             TEXT NOT NULL, -- the agent's run, not the workflow's
    kind               TEXT NOT NULL,
    level              TEXT NOT NULL,
    actor_id           TEXT NOT NULL,
    cause              TEXT NOT NULL, -- JSON object
    title              TEXT NOT NULL,
    data               TEXT NOT NULL, -- JSON object
    display            TEXT, -- JSON
    is_collapsed       INTEGER NOT NULL,
    output_of          TEXT, -- of a piece of a tool's output: the tool call
    output_from        INTEGER, -- and the row with its first piece
    workflow_run_id    TEXT,
    workflow_name      TEXT,
    workflow_iteration INTEGER,
    workflow_state     TEXT,
    UNIQUE (session_id, seq)
) STRICT;
CREATE TABLE runs_{generation} (
    session_id          TEXT NOT NULL,
    number              INTEGER NOT NULL,
    run_id              TEXT NOT NULL,
    adapter_session_id  TEXT NOT NULL,
    workflow_run_id     TEXT,
    started_at          INTEGER NOT NULL,
    ended_at            INTEGER,
    status              TEXT NOT NULL, -- running, completed, failed, aborted
    reason              TEXT,
    trigger             TEXT NOT NULL,
    prompt_preview      TEXT,
    tool_uses           INTEGER NOT NULL,
    tool_failures       INTEGER NOT NULL,
    permission_requests INTEGER NOT NULL,
    blocks              INTEGER NOT NULL,
    subagent_ids        TEXT NOT NULL, -- JSON array
    first_seq           INTEGER NOT NULL,
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE actors_{generation} (
    session_id      TEXT NOT NULL,
    actor_id        TEXT NOT NULL,
    ordinal         INTEGER NOT NULL,
    kind            TEXT NOT NULL,
    display_name    TEXT NOT NULL,
    agent_type      TEXT,
    parent_actor_id TEXT,
    PRIMARY KEY (session_id, actor_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE plan_items_{generation} (
    session_id TEXT NOT NULL,
    item       INTEGER NOT NULL,
    content    TEXT NOT NULL, -- JSON object
    PRIMARY KEY (session_id, item)
) STRICT, WITHOUT ROWID;
-- Events that tell again what an entry shows in the words of another.
CREATE TABLE feed_retellings_{generation} (
    position   INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL,
    seq        INTEGER NOT NULL
) STRICT;
-- What the mapper knows: one small state a session, and values by seam and key.
CREATE TABLE feed_sessions_{generation} (
    session_key INTEGER PRIMARY KEY, -- counts from 1, in the order in which they began
    session_id  TEXT NOT NULL UNIQUE,
    state       TEXT NOT NULL -- JSON object
) STRICT;
CREATE TABLE feed_memory_{generation} (
    session_key INTEGER NOT NULL, -- 0 for what all sessions know
    seam        TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL, -- JSON
    PRIMARY KEY (session_key, seam, key)
) STRICT, WITHOUT ROWID;
-- Which facts were told how often by whom, and which entries show them: so that one is shown once for all who tell it.
-- The latest facts stand in chunks, in the order in which they were told first; the others by their keys.
CREATE TABLE feed_tellings_{generation} (
    session_key INTEGER NOT NULL,
    fact        BLOB NOT NULL, -- of the fact's name, 16 bytes of its digest
    told        BLOB NOT NULL, -- bincode
    PRIMARY KEY (session_key, fact)
) STRICT, WITHOUT ROWID;
CREATE TABLE feed_latest_tellings_{generation} (
    session_key INTEGER NOT NULL,
    chunk       INTEGER NOT NULL,
    facts       BLOB NOT NULL, -- 16 bytes each
    told        BLOB NOT NULL, -- bincode: what was told of each
    PRIMARY KEY (session_key, chunk)
) STRICT, WITHOUT ROWID;
CREATE INDEX feed_events_{generation}_by_position ON feed_events_{generation} (position);
CREATE INDEX feed_events_{generation}_by_workflow
    ON feed_events_{generation} (workflow_run_id) WHERE workflow_run_id IS NOT NULL;
CREATE INDEX feed_events_{generation}_of_output ON feed_events_{generation} (session_id, output_of, output_from, seq)
    WHERE output_of IS NOT NULL;
CREATE INDEX feed_retellings_{generation}_by_entry ON feed_retellings_{generation} (session_id, seq);
CREATE VIEW feed_events AS SELECT * FROM feed_events_{generation};
CREATE VIEW runs AS SELECT * FROM runs_{generation};
CREATE VIEW actors AS SELECT * FROM actors_{generation};
CREATE VIEW plan_items AS SELECT * FROM plan_items_{generation};
CREATE VIEW feed_retellings AS SELECT * FROM feed_retellings_{generation};
CREATE VIEW feed_sessions AS SELECT * FROM feed_sessions_{generation};
CREATE VIEW feed_memory AS SELECT * FROM feed_memory_{generation};
CREATE VIEW feed_latest_tellings AS SELECT * FROM feed_latest_tellings_{generation};
CREATE VIEW feed_tellings AS SELECT * FROM feed_tellings_{generation};
