-- +goose Up

-- Which key made a key; '' for what the server or a command made, and where it wasn't kept yet.
ALTER TABLE api_keys ADD COLUMN created_by TEXT NOT NULL DEFAULT '';

-- Counts up whenever something is removed of which pages may still have a copy; done is what it was when all pages were looked through
-- last. There is one row.
CREATE TABLE removals (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    done    INTEGER NOT NULL
) STRICT;
INSERT INTO removals (one, version, done) VALUES (1, 0, 0);
