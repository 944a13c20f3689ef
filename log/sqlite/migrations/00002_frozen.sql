-- +goose Up

-- 1: nothing may be appended to the log any more.
ALTER TABLE heads ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
