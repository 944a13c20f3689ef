-- +goose Up

-- What a segment's blocks hold of words; those that are there hold none.
ALTER TABLE index_segments ADD COLUMN words INTEGER NOT NULL DEFAULT 0;
