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

-- Tables whose files have what is no longer in their rows: a part by its number, 0 for index_blocks, or -1 for PostgreSQL's statistics.
-- Whatever leaves something behind counts up version; who has rewritten the table notes which version it was when that began.
CREATE TABLE rewrites (
    part    INTEGER NOT NULL PRIMARY KEY,
    version BIGINT  NOT NULL,
    done    BIGINT  NOT NULL
) WITH (fillfactor = 40);

-- The server that removes what was purged and erased, until when nobody else does, by the database's clock. There is one row.
CREATE TABLE shredder (
    one    BOOLEAN          NOT NULL PRIMARY KEY CHECK (one),
    holder TEXT COLLATE "C" NOT NULL,
    until  TIMESTAMPTZ      NOT NULL
) WITH (fillfactor = 40);
INSERT INTO shredder (one, holder, until) VALUES (TRUE, '', '-infinity');

-- A sealed part takes no more contents, also of a server that hasn't heard of the next one. A dropped one has no table any more.
ALTER TABLE parts
    ADD COLUMN sealed_at  BIGINT,
    ADD COLUMN dropped_at BIGINT;
-- +goose StatementBegin
CREATE FUNCTION refuse_contents() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% takes no more contents', TG_TABLE_NAME USING ERRCODE = 'TL001';
END $$;
-- +goose StatementEnd

-- A log whose class was changed may come back to a part that it left. Part 0 stands for one that was dropped.
ALTER TABLE log_parts DROP CONSTRAINT log_parts_pkey;
ALTER TABLE log_parts ADD PRIMARY KEY (log, first);
CREATE INDEX log_parts_part ON log_parts (part);

-- Statistics are samples of what is in a column, which would outlive it. Nothing is planned by these. Those that there are go when a
-- column is given a type, also the one that it has; but for how it is stored, nothing else is changed by that.
ALTER TABLE payloads
    ALTER COLUMN seed TYPE BYTEA,
    ALTER COLUMN payload TYPE BYTEA;
ALTER TABLE payloads
    ALTER COLUMN seed SET STATISTICS 0,
    ALTER COLUMN payload SET STATISTICS 0,
    ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE index_blocks
    ALTER COLUMN key TYPE BYTEA,
    ALTER COLUMN data TYPE BYTEA;
ALTER TABLE index_blocks
    ALTER COLUMN key SET STATISTICS 0,
    ALTER COLUMN data SET STATISTICS 0,
    ALTER COLUMN data SET STORAGE EXTERNAL;
INSERT INTO rewrites (part, version, done) VALUES (-1, 1, 0);

-- Tells a segment from another one that has taken its place.
ALTER TABLE index_segments ADD COLUMN written BIGINT GENERATED ALWAYS AS IDENTITY;
