-- +goose Up

-- A log's number is given by the program, one more than the highest; names and origins are never reused.
CREATE TABLE logs (
    id         INTEGER NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    origin     TEXT    NOT NULL UNIQUE,
    public     INTEGER NOT NULL,
    created_at INTEGER NOT NULL -- µs since 1970 UTC, as every time here
) STRICT;

-- Verifier keys ever valid for a log, in the order they were added; 0 was made with the log.
CREATE TABLE log_keys (
    log   INTEGER NOT NULL REFERENCES logs (id),
    seq   INTEGER NOT NULL,
    vkey  TEXT    NOT NULL,
    PRIMARY KEY (log, seq)
) STRICT, WITHOUT ROWID;

-- The sequenced end of each log: the one row that appends change, always WHERE size is what they read.
CREATE TABLE heads (
    log         INTEGER NOT NULL PRIMARY KEY REFERENCES logs (id),
    size        INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    last        BLOB    NOT NULL, -- leaf hash of the newest entry
    edge        BLOB    NOT NULL  -- the compact range [0, size): 32 bytes a hash
) STRICT;

-- Entries, 73 bytes each, a run of them a row: what one transaction appended, cut at multiples of 256.
CREATE TABLE entries (
    log     INTEGER NOT NULL,
    first   INTEGER NOT NULL, -- index of the first of them
    entries BLOB    NOT NULL,
    PRIMARY KEY (log, first)
) STRICT, WITHOUT ROWID;

-- Hashes of complete subtrees of 256^level entries, level ≥ 1.
CREATE TABLE nodes (
    log   INTEGER NOT NULL,
    level INTEGER NOT NULL,
    idx   INTEGER NOT NULL,
    hash  BLOB    NOT NULL,
    PRIMARY KEY (log, level, idx)
) STRICT, WITHOUT ROWID;

-- Which id is where, for ever, also when the content is gone.
CREATE TABLE ids (
    log INTEGER NOT NULL,
    id  TEXT    NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY (log, id)
) STRICT, WITHOUT ROWID;

-- The contents. Only purge and erasure remove any.
CREATE TABLE payloads (
    log     INTEGER NOT NULL,
    idx     INTEGER NOT NULL,
    seed    BLOB,
    payload BLOB,
    PRIMARY KEY (log, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    log  INTEGER NOT NULL,
    size INTEGER NOT NULL,
    note BLOB    NOT NULL,
    PRIMARY KEY (log, size)
) STRICT, WITHOUT ROWID;

-- API keys: of the secret only its SHA-256.
CREATE TABLE api_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       BLOB    NOT NULL,
    role       TEXT    NOT NULL,
    log        INTEGER NOT NULL, -- 0: server-wide
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Facts about the installation, written once.
CREATE TABLE labels (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
