-- The same guards of what an append does, by rolling back: a trigger that aborts one statement makes SQLite copy every
-- page that the statement touches before, about six pages an event, in case it has to be undone. Nothing that is refused
-- here is ever left half done either way.

DROP TRIGGER runtime_events_append_only;
CREATE TRIGGER runtime_events_append_only BEFORE INSERT ON runtime_events
WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM runtime_events)
    OR NEW.stream_version IS NOT
        (SELECT coalesce(max(stream_version), 0) + 1 FROM runtime_events WHERE stream_key = NEW.stream_key)
    OR EXISTS (SELECT 1 FROM runtime_events WHERE stream_key = NEW.stream_key AND event_id = NEW.event_id)
BEGIN
    SELECT raise(ROLLBACK, 'runledger: an event is appended at the head, under an id of its own');
END;

DROP TRIGGER streams_only_grow;
CREATE TRIGGER streams_only_grow BEFORE UPDATE ON streams
WHEN NEW.stream_key IS NOT OLD.stream_key OR NEW.name IS NOT OLD.name OR NEW.version < OLD.version
BEGIN
    SELECT raise(ROLLBACK, 'runledger: a stream keeps its name, and its version only grows');
END;
