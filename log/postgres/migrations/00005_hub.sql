-- +goose Up

-- Which entry of a hub says that a log has grown to a size: sizes and indices of one log grow together. It leads with the hub's
-- number, since it is written in one transaction with the hub's entries.
CREATE TABLE hub_entries (
    log     BIGINT NOT NULL, -- the hub's number
    subject BIGINT NOT NULL, -- the number of the log that has grown
    size    BIGINT NOT NULL,
    idx     BIGINT NOT NULL,
    PRIMARY KEY (log, subject, size)
);
CREATE UNIQUE INDEX hub_entries_idx ON hub_entries (log, idx);
