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

-- Positions of the last erasure whose texts are gone: from the file's free pages, and from its write-ahead log too.
CREATE TABLE cleared (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    of_file  INTEGER NOT NULL,
    of_wal   INTEGER NOT NULL
) STRICT;
INSERT INTO cleared (id, of_file, of_wal) VALUES (1, 0, 0);
