-- +goose Up

-- Witnesses' signatures on checkpoints. A newer one of the same key on the same checkpoint replaces the older one.
CREATE TABLE cosignatures (
    log  INTEGER NOT NULL,
    size INTEGER NOT NULL, -- of the checkpoint
    key  TEXT    NOT NULL, -- of the witness: <name>+<8 hex digits>
    at   INTEGER NOT NULL, -- the time in it, in seconds since 1970 UTC
    line TEXT    NOT NULL, -- the signature's line in a note, with its newline
    PRIMARY KEY (log, size, key)
) STRICT, WITHOUT ROWID;

-- The largest size, and the newest time, that each witness has confirmed.
CREATE TABLE confirmations (
    log  INTEGER NOT NULL,
    key  TEXT    NOT NULL,
    size INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    PRIMARY KEY (log, key)
) STRICT, WITHOUT ROWID;

-- What witnesses have said of a log that contradicts it, and what an operator made of that. Nothing removes any.
CREATE TABLE evidence (
    log    INTEGER NOT NULL,
    kind   TEXT    NOT NULL, -- contradiction, claim, accepted
    key    TEXT    NOT NULL, -- of the witness; '' for what an operator did
    size   INTEGER NOT NULL, -- what the witness says the log has
    at     INTEGER NOT NULL, -- µs since 1970 UTC
    ours   BLOB    NOT NULL, -- the log's newest checkpoint then
    theirs BLOB    NOT NULL, -- the checkpoint that the witness showed; empty if it showed none
    PRIMARY KEY (log, kind, key, size)
) STRICT, WITHOUT ROWID;
