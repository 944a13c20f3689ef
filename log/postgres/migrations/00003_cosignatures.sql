-- +goose Up

-- Witnesses' signatures on checkpoints. A newer one of the same key on the same checkpoint replaces the older one.
CREATE TABLE cosignatures (
    log  BIGINT           NOT NULL,
    size BIGINT           NOT NULL, -- of the checkpoint
    key  TEXT COLLATE "C" NOT NULL, -- of the witness: <name>+<8 hex digits>
    at   BIGINT           NOT NULL, -- the time in it, in seconds since 1970 UTC
    line TEXT COLLATE "C" NOT NULL, -- the signature's line in a note, with its newline
    PRIMARY KEY (log, size, key)
);

-- The largest size, and the newest time, that each witness has confirmed.
CREATE TABLE confirmations (
    log  BIGINT           NOT NULL,
    key  TEXT COLLATE "C" NOT NULL,
    size BIGINT           NOT NULL,
    at   BIGINT           NOT NULL,
    PRIMARY KEY (log, key)
) WITH (fillfactor = 40);

-- What witnesses have said of a log that contradicts it, and what an operator made of that. Nothing removes any.
CREATE TABLE evidence (
    log    BIGINT           NOT NULL,
    kind   TEXT COLLATE "C" NOT NULL, -- contradiction, claim, accepted
    key    TEXT COLLATE "C" NOT NULL, -- of the witness; '' for what an operator did
    size   BIGINT           NOT NULL, -- what the witness says the log has
    at     BIGINT           NOT NULL, -- µs since 1970 UTC
    ours   BYTEA            NOT NULL, -- the log's newest checkpoint then
    theirs BYTEA            NOT NULL, -- the checkpoint that the witness showed; empty if it showed none
    PRIMARY KEY (log, kind, key, size)
);
