-- +goose Up

-- Which key made a key; '' for what the server or a command made, and where it wasn't kept yet.
ALTER TABLE api_keys ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
