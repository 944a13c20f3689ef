-- +goose Up

-- As in the store's own file.
CREATE TABLE removals (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    done    INTEGER NOT NULL
) STRICT;
INSERT INTO removals (one, version, done) VALUES (1, 0, 0);
