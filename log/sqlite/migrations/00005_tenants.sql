-- +goose Up

-- What may be changed about a log, besides whether it is public.
ALTER TABLE logs ADD COLUMN title        TEXT    NOT NULL DEFAULT '';
ALTER TABLE logs ADD COLUMN event_rate   INTEGER NOT NULL DEFAULT 0;    -- a second; 0: no limit of its own
ALTER TABLE logs ADD COLUMN request_rate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN required     TEXT    NOT NULL DEFAULT '[]'; -- pointers of claims, a JSON array

-- What an API key may be used for, and what becomes of it. Times are 0 where there is none.
ALTER TABLE api_keys ADD COLUMN networks     TEXT    NOT NULL DEFAULT ''; -- address prefixes, a space between two; '': any
ALTER TABLE api_keys ADD COLUMN actions      TEXT    NOT NULL DEFAULT ''; -- the like, of actions
ALTER TABLE api_keys ADD COLUMN event_rate   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN request_rate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN expires_at   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN revoked_at   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN replaced_by  TEXT    NOT NULL DEFAULT ''; -- id of the key that follows
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER NOT NULL DEFAULT 0;
