-- +goose Up

-- Every table of events leads with the log's number, so that all of them can be distributed by it. The small tables without
-- one (logs, log_keys, parts, api_keys, labels) are the same on every node then.

-- A log's number is given by the program, one more than the highest; names and origins are never reused.
CREATE TABLE logs (
    id         BIGINT           NOT NULL PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    origin     TEXT COLLATE "C" NOT NULL UNIQUE,
    public     BOOLEAN          NOT NULL,
    created_at BIGINT           NOT NULL -- µs since 1970 UTC, as every time here
);

-- Verifier keys ever valid for a log, in the order they were added; 0 was made with the log.
CREATE TABLE log_keys (
    log  BIGINT           NOT NULL,
    seq  INTEGER          NOT NULL,
    vkey TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (log, seq)
);

-- The sequenced end of each log: the one row that appends change, always WHERE size is what they read. The room left on a
-- page lets an update stay on it.
CREATE TABLE heads (
    log         BIGINT           NOT NULL PRIMARY KEY,
    size        BIGINT           NOT NULL,
    received_at BIGINT           NOT NULL,
    last        BYTEA            NOT NULL, -- leaf hash of the newest entry
    edge        BYTEA            NOT NULL, -- the compact range [0, size): 32 bytes a hash
    frozen      BOOLEAN          NOT NULL, -- nothing may be appended any more
    class       TEXT COLLATE "C" NOT NULL, -- retention class of new contents
    part        INTEGER          NOT NULL  -- where the newest content is; 0 for an empty log
) WITH (fillfactor = 40);

-- Entries, 73 bytes each, a run of them a row: what one transaction appended, cut at multiples of 256 and to what fits a page.
CREATE TABLE entries (
    log     BIGINT NOT NULL,
    first   BIGINT NOT NULL, -- index of the first of them
    entries BYTEA  NOT NULL,
    PRIMARY KEY (log, first)
);
ALTER TABLE entries ALTER COLUMN entries SET STORAGE PLAIN;

-- Hashes of complete subtrees of 256^level entries, level ≥ 1.
CREATE TABLE nodes (
    log   BIGINT   NOT NULL,
    level SMALLINT NOT NULL,
    idx   BIGINT   NOT NULL,
    hash  BYTEA    NOT NULL,
    PRIMARY KEY (log, level, idx)
);

-- Which id is where, for ever, also when the content is gone.
CREATE TABLE ids (
    log BIGINT           NOT NULL,
    idx BIGINT           NOT NULL,
    id  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (log, id)
);

-- The contents, in parts. Only purge and erasure remove any. They are compressed before they come here.
CREATE TABLE payloads (
    log     BIGINT  NOT NULL,
    idx     BIGINT  NOT NULL,
    part    INTEGER NOT NULL,
    seed    BYTEA,
    payload BYTEA,
    PRIMARY KEY (log, idx, part)
) PARTITION BY LIST (part);
ALTER TABLE payloads ALTER COLUMN payload SET STORAGE EXTERNAL;

-- A part holds the contents of one retention class that came in one span of time, so that what expires goes by whole parts.
-- Its rows are in the table payloads_<part>.
CREATE TABLE parts (
    part      INTEGER          NOT NULL PRIMARY KEY,
    class     TEXT COLLATE "C" NOT NULL,
    opened_at BIGINT           NOT NULL,
    closed_at BIGINT
);

-- Which part a log's contents are in: from first on, up to where the next one begins.
CREATE TABLE log_parts (
    log   BIGINT  NOT NULL,
    part  INTEGER NOT NULL,
    first BIGINT  NOT NULL,
    PRIMARY KEY (log, part)
);

CREATE TABLE checkpoints (
    log  BIGINT NOT NULL,
    size BIGINT NOT NULL,
    note BYTEA  NOT NULL,
    PRIMARY KEY (log, size)
);

-- The size of the newest checkpoint of each log, -1 if there is none: what recording one compares and sets.
CREATE TABLE signed (
    log  BIGINT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL
) WITH (fillfactor = 40);

-- API keys: of the secret only its SHA-256.
CREATE TABLE api_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash       BYTEA            NOT NULL,
    role       TEXT COLLATE "C" NOT NULL,
    log        BIGINT           NOT NULL, -- 0: server-wide
    name       TEXT COLLATE "C" NOT NULL,
    created_at BIGINT           NOT NULL
);

-- Facts about the installation, written once.
CREATE TABLE labels (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
