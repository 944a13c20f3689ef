-- +goose Up

-- What was cosigned last, a row a log: made when the log becomes known, moved by each cosignature, never removed.
-- The order of origins is that of their bytes.
CREATE TABLE witness_logs (
    origin      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size        BIGINT NOT NULL,
    root        BYTEA  NOT NULL,
    cosigned_at BIGINT NOT NULL, -- seconds since 1970 UTC, as every time here; 0: never
    note        BYTEA            -- with the log's signatures and the witness's own
) WITH (fillfactor = 50);

-- Keys, in the order in which they became known.
CREATE TABLE witness_keys (
    seq     BIGINT NOT NULL PRIMARY KEY,
    origin  TEXT COLLATE "C" NOT NULL REFERENCES witness_logs (origin),
    vkey    TEXT   NOT NULL,
    qpd     BIGINT NOT NULL,
    contact TEXT   NOT NULL
);

CREATE INDEX witness_keys_origin ON witness_keys (origin);

-- Checkpoints that logs have signed and that contradict what was cosigned.
CREATE TABLE witness_evidence (
    seq      BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    origin   TEXT COLLATE "C" NOT NULL REFERENCES witness_logs (origin),
    conflict TEXT   NOT NULL,
    size     BIGINT NOT NULL,
    root     BYTEA  NOT NULL,
    note     BYTEA  NOT NULL,
    proof    BYTEA  NOT NULL,
    seen_at  BIGINT NOT NULL,
    -- of the log's row at the time
    cosigned_size BIGINT NOT NULL,
    cosigned_root BYTEA  NOT NULL,
    cosigned_at   BIGINT NOT NULL,
    cosigned_note BYTEA,
    UNIQUE (origin, conflict, size, root)
);

-- Facts about the witness, written once.
CREATE TABLE witness_labels (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
