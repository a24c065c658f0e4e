-- The projector's own tables: how far each read model has come, and which of its generations is the one to read.
-- The whole file is disposable: everything in it is built again from the log.

PRAGMA application_id = 1380729936; -- "RLDP"

-- A read model's rows stand in tables named after its generation; a view of the plain name shows the one to read.
CREATE TABLE checkpoints (
    projection TEXT PRIMARY KEY,
    version    INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    log_id     TEXT NOT NULL,
    position   INTEGER NOT NULL,
    chain      BLOB NOT NULL
) STRICT;

-- Generations being built, hidden until the switch. AUTOINCREMENT: a number is never used twice.
CREATE TABLE rebuilds (
    generation INTEGER PRIMARY KEY AUTOINCREMENT,
    projection TEXT NOT NULL,
    position   INTEGER NOT NULL,
    chain      BLOB NOT NULL
) STRICT;
