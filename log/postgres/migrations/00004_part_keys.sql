-- +goose Up

-- Each part has a key of its own, without the part's number, which is the same in all of its rows. Logs that grow side by side split
-- pages in the middle of an index, and PostgreSQL leaves the left one full, instead of half full, only where an entry is no larger
-- than two numbers.
ALTER TABLE payloads DROP CONSTRAINT payloads_pkey;
-- +goose StatementBegin
DO $$
DECLARE
    number INTEGER;
BEGIN
    FOR number IN SELECT part FROM parts ORDER BY part LOOP
        EXECUTE format('ALTER TABLE payloads_%s ADD PRIMARY KEY (log, idx)', number);
    END LOOP;
END $$;
-- +goose StatementEnd
