-- +goose Up

-- What was cosigned last, a row a log: made when the log becomes known, moved by each cosignature, never removed.
CREATE TABLE witness_logs (
    origin      TEXT    NOT NULL PRIMARY KEY,
    size        INTEGER NOT NULL,
    root        BLOB    NOT NULL,
    cosigned_at INTEGER NOT NULL, -- seconds since 1970 UTC, as every time here; 0: never
    note        BLOB              -- with the log's signatures and the witness's own
) STRICT;

-- Keys, in the order in which they became known.
CREATE TABLE witness_keys (
    seq     INTEGER NOT NULL PRIMARY KEY,
    origin  TEXT    NOT NULL REFERENCES witness_logs (origin),
    vkey    TEXT    NOT NULL,
    qpd     INTEGER NOT NULL,
    contact TEXT    NOT NULL
) STRICT;

CREATE INDEX witness_keys_origin ON witness_keys (origin);

-- Checkpoints that logs have signed and that contradict what was cosigned.
CREATE TABLE witness_evidence (
    seq      INTEGER NOT NULL PRIMARY KEY,
    origin   TEXT    NOT NULL REFERENCES witness_logs (origin),
    conflict TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    root     BLOB    NOT NULL,
    note     BLOB    NOT NULL,
    proof    BLOB    NOT NULL,
    seen_at  INTEGER NOT NULL,
    -- of the log's row at the time
    cosigned_size INTEGER NOT NULL,
    cosigned_root BLOB    NOT NULL,
    cosigned_at   INTEGER NOT NULL,
    cosigned_note BLOB,
    UNIQUE (origin, conflict, size, root)
) STRICT;

-- Facts about the witness, written once.
CREATE TABLE witness_labels (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
