-- +goose Up

-- Which key made a key; '' for what the server or a command made, and where it wasn't kept yet.
ALTER TABLE api_keys ADD COLUMN created_by TEXT COLLATE "C" NOT NULL DEFAULT '';

-- Who decides what becomes of a log's contents locks its row, and counts up.
CREATE TABLE custody (
    log     BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
) WITH (fillfactor = 40);

-- Contents that were purged and may still be in a part, until that was dropped or rewritten. Spans may overlap.
CREATE TABLE purged_spans (
    log      BIGINT NOT NULL,
    first    BIGINT NOT NULL,
    until    BIGINT NOT NULL, -- the index after the last one
    noted_at BIGINT NOT NULL, -- µs since 1970 UTC
    PRIMARY KEY (log, first)
);

-- Tables whose files have what is no longer in their rows: a part by its number, or 0 for index_blocks. Whatever leaves something
-- behind counts up version; who has rewritten the table notes which version it was when that began.
CREATE TABLE rewrites (
    part    INTEGER NOT NULL PRIMARY KEY,
    version BIGINT  NOT NULL,
    done    BIGINT  NOT NULL
) WITH (fillfactor = 40);

-- A log whose class was changed may come back to a part that it left.
ALTER TABLE log_parts DROP CONSTRAINT log_parts_pkey;
ALTER TABLE log_parts ADD PRIMARY KEY (log, first);
CREATE INDEX log_parts_part ON log_parts (part);
