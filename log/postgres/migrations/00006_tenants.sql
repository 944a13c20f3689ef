-- +goose Up

-- What may be changed about a log, besides whether it is public.
ALTER TABLE logs
    ADD COLUMN title        TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN event_rate   BIGINT           NOT NULL DEFAULT 0,    -- a second; 0: no limit of its own
    ADD COLUMN request_rate BIGINT           NOT NULL DEFAULT 0,
    ADD COLUMN required     TEXT COLLATE "C" NOT NULL DEFAULT '[]'; -- pointers of claims, a JSON array

-- What an API key may be used for, and what becomes of it. Times are 0 where there is none. The room left on a page lets the update
-- of when it was used last stay on it.
ALTER TABLE api_keys
    ADD COLUMN networks     TEXT COLLATE "C" NOT NULL DEFAULT '', -- address prefixes, a space between two; '': any
    ADD COLUMN actions      TEXT COLLATE "C" NOT NULL DEFAULT '', -- the like, of actions
    ADD COLUMN event_rate   BIGINT           NOT NULL DEFAULT 0,
    ADD COLUMN request_rate BIGINT           NOT NULL DEFAULT 0,
    ADD COLUMN expires_at   BIGINT           NOT NULL DEFAULT 0,
    ADD COLUMN revoked_at   BIGINT           NOT NULL DEFAULT 0,
    ADD COLUMN replaced_by  TEXT COLLATE "C" NOT NULL DEFAULT '', -- id of the key that follows
    ADD COLUMN last_used_at BIGINT           NOT NULL DEFAULT 0;
ALTER TABLE api_keys SET (fillfactor = 70);
