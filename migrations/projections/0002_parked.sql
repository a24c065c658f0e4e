-- Streams that a read model leaves out from a position on, because an event there cannot be read; and how far the file
-- was cleared of texts that were erased in the log.

CREATE TABLE parked_streams (
    projection TEXT NOT NULL,
    generation INTEGER NOT NULL,
    stream     TEXT NOT NULL,
    position   INTEGER NOT NULL,
    cause      TEXT NOT NULL,
    PRIMARY KEY (projection, generation, stream)
) STRICT, WITHOUT ROWID;

-- Positions of the last erasure whose texts are gone: from this file's free pages, from its write-ahead log too, and from
-- the files of the log that it is of.
CREATE TABLE cleared (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    log_id  TEXT NOT NULL,
    of_file INTEGER NOT NULL,
    of_wal  INTEGER NOT NULL,
    of_log  INTEGER NOT NULL
) STRICT;
INSERT INTO cleared (id, log_id, of_file, of_wal, of_log) VALUES (1, '', 0, 0, 0);
