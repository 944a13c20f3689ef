-- +goose Up

-- Which entry of a hub says that a log has grown to a size: sizes and indices of one log grow together.
CREATE TABLE hub_entries (
    log     INTEGER NOT NULL, -- the hub's number
    subject INTEGER NOT NULL, -- the number of the log that has grown
    size    INTEGER NOT NULL,
    idx     INTEGER NOT NULL,
    PRIMARY KEY (log, subject, size)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX hub_entries_idx ON hub_entries (log, idx);
