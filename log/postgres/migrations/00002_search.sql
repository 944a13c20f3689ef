-- +goose Up

-- The search index, which is built from the record and can be dropped at any time.

-- How far the index of each log has come. Writers change it WHERE size and last are what they read.
CREATE TABLE index_logs (
    log  BIGINT NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    last BYTEA  NOT NULL -- leaf hash of the newest indexed entry
) WITH (fillfactor = 40);

CREATE TABLE index_segments (
    log            BIGINT   NOT NULL,
    level          SMALLINT NOT NULL,
    segment        BIGINT   NOT NULL,
    min_occurred   BIGINT   NOT NULL, -- µs since 1970 UTC, as every time here; both ends included
    max_occurred   BIGINT   NOT NULL,
    first_received BIGINT   NOT NULL,
    last_received  BIGINT   NOT NULL,
    PRIMARY KEY (log, level, segment)
);

-- Opaque blocks of about 4 KiB, which a page takes whole. New segments lie at the right edge of the key, so writing reads nothing.
CREATE TABLE index_blocks (
    log     BIGINT   NOT NULL,
    level   SMALLINT NOT NULL,
    segment BIGINT   NOT NULL,
    key     BYTEA    NOT NULL,
    data    BYTEA    NOT NULL,
    PRIMARY KEY (log, level, segment, key)
) WITH (toast_tuple_target = 8160);
ALTER TABLE index_blocks ALTER COLUMN data SET STORAGE EXTERNAL;
