-- +goose Up

-- How far the index of each log has come. Writers change it WHERE size and last are what they read.
CREATE TABLE index_logs (
    log  INTEGER NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    last BLOB    NOT NULL -- leaf hash of the newest indexed entry
) STRICT;

CREATE TABLE index_segments (
    log            INTEGER NOT NULL,
    level          INTEGER NOT NULL,
    segment        INTEGER NOT NULL,
    min_occurred   INTEGER NOT NULL, -- µs since 1970 UTC, as every time here; both ends included
    max_occurred   INTEGER NOT NULL,
    first_received INTEGER NOT NULL,
    last_received  INTEGER NOT NULL,
    PRIMARY KEY (log, level, segment)
) STRICT, WITHOUT ROWID;

-- Opaque blocks of about 4 KiB. New segments lie at the right edge of the tree, so writing reads nothing. The rows have a rowid, so
-- that the primary key is an index of its own: in a tree whose rows spill over into other pages, SQLite would read those for
-- each key that it compares.
CREATE TABLE index_blocks (
    log     INTEGER NOT NULL,
    level   INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    key     BLOB    NOT NULL,
    data    BLOB    NOT NULL,
    PRIMARY KEY (log, level, segment, key)
) STRICT;
