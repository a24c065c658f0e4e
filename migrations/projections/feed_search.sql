-- The words of prompts, messages, titles and tool calls; a row's id is the position of its event.
CREATE VIRTUAL TABLE feed_search_{generation} USING fts5 (text, columnsize = 0, tokenize = "unicode61 remove_diacritics 2");
-- Fewer merges while it grows, for a few more places to look into.
INSERT INTO feed_search_{generation} (feed_search_{generation}, rank) VALUES ('automerge', 8);
-- Messages of which pieces have come.
CREATE TABLE feed_search_pending_{generation} (
    stream TEXT NOT NULL,
    item   TEXT NOT NULL,
    text   TEXT NOT NULL,
    PRIMARY KEY (stream, item)
) STRICT, WITHOUT ROWID;
CREATE VIEW feed_search AS SELECT rowid AS position, text FROM feed_search_{generation};
CREATE VIEW feed_search_pending AS SELECT * FROM feed_search_pending_{generation};
