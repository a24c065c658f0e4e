-- Indexes alone, for what is asked of runs and permissions; no row of any table changes. docs/format.md names them.

-- A projection of runs, questions, timers and permissions reads these alone, however long the log is.
CREATE INDEX runtime_events_of_runs_and_permissions ON runtime_events (position)
    WHERE kind GLOB 'workflow.*' OR kind = 'decision' OR kind GLOB 'relay.*' OR kind GLOB 'timer.*'
        OR kind GLOB 'permission.*';
-- The latest workflow event of a harness session names the run that drives it.
CREATE INDEX runtime_events_of_workflows_by_adapter_session ON runtime_events (adapter_session_id, position)
    WHERE kind GLOB 'workflow.*' AND adapter_session_id IS NOT NULL;
