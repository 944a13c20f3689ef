package sqlite

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Statements of the append path, prepared once for the one writing connection.
const (
	sqlHead = `
		SELECT size, received_at, last, edge, frozen FROM heads WHERE log = ?`
	sqlMoveHead = `
		UPDATE heads SET size = ?, received_at = ?, last = ?, edge = ? WHERE log = ? AND size = ?`
	sqlInsertEntries = `
		INSERT INTO entries (log, first, entries) VALUES (?, ?, ?)`
	sqlInsertNode = `
		INSERT INTO nodes (log, level, idx, hash) VALUES (?, ?, ?, ?)`
	sqlInsertID = `
		INSERT INTO ids (log, id, idx) VALUES (?, ?, ?)`
	sqlInsertPayload = `
		INSERT INTO payloads (log, idx, seed, payload) VALUES (?, ?, ?, ?)`
	sqlInsertGrowth = `
		INSERT INTO hub_entries (log, subject, size, idx) VALUES (?, ?, ?, ?)`
)

// Statements of both the append path and readers.
const (
	sqlFind = `
		SELECT idx FROM ids WHERE log = ? AND id = ?`
	sqlPayload = `
		SELECT seed, payload FROM payloads WHERE log = ? AND idx = ?`
)

// Statements of readers.
const (
	sqlSizes = `
		SELECT log, size FROM heads`
	// A run may begin before the range: from is looked for in the last run that begins at or before it.
	sqlEntries = `
		SELECT first, entries FROM entries
		WHERE log = ?1 AND first < ?3
		  AND first >= (SELECT coalesce(max(first), 0) FROM entries WHERE log = ?1 AND first <= ?2)
		ORDER BY first`
	sqlRun = `
		SELECT first, entries FROM entries WHERE log = ? AND first <= ? ORDER BY first DESC LIMIT 1`
	sqlNodes = `
		SELECT idx, hash FROM nodes WHERE log = ? AND level = ? AND idx >= ? AND idx < ? ORDER BY idx`
	sqlPayloads = `
		SELECT idx, seed, payload FROM payloads WHERE log = ? AND idx >= ? AND idx < ? ORDER BY idx`
	sqlCheckpoint = `
		SELECT size, note FROM checkpoints WHERE log = ? AND size <= ? ORDER BY size DESC LIMIT 1`
	sqlCheckpoints = `
		SELECT size, note FROM checkpoints WHERE log = ? AND size >= ? ORDER BY size`
	sqlCosignatures = `
		SELECT size, key, at, line FROM cosignatures WHERE log = ? AND size = ? ORDER BY key`
	sqlCosignaturesDown = `
		SELECT size, key, at, line FROM cosignatures WHERE log = ? AND size <= ? ORDER BY size DESC, key`
	sqlConfirmations = `
		SELECT key, size, at FROM confirmations WHERE log = ?`
	sqlEvidence = `
		SELECT kind, key, size, at, ours, theirs FROM evidence WHERE log = ? ORDER BY at, kind, key, size`
	sqlCheckpointOf = `
		SELECT note FROM checkpoints WHERE log = ? AND size = ?`
	sqlGrowths = `
		SELECT subject, size, idx FROM hub_entries WHERE log = ? AND idx >= ? AND idx < ? ORDER BY idx`
	// For each log a look at the end of its rows, which in general is the one that is wanted. The + keeps SQLite from going through all
	// rows by their indices.
	sqlNewestGrowths = `
		SELECT g.subject, g.size, g.idx
		FROM logs CROSS JOIN hub_entries AS g ON g.log = ?1 AND g.subject = logs.id AND g.size =
		     (SELECT size FROM hub_entries WHERE log = ?1 AND subject = logs.id AND +idx < ?2 ORDER BY size DESC LIMIT 1)`
	sqlGrowthBefore = `
		SELECT subject, size, idx FROM hub_entries WHERE log = ? AND subject = ? AND size < ? ORDER BY size DESC LIMIT 1`
	sqlCounts = `
		SELECT (SELECT coalesce(sum(length(entries)), 0) FROM entries WHERE log = ?1),
		       (SELECT count(*) FROM payloads WHERE log = ?1),
		       (SELECT count(*) FROM ids WHERE log = ?1),
		       (SELECT count(*) FROM hub_entries WHERE log = ?1),
		       (SELECT count(*) FROM nodes WHERE log = ?1)`
	sqlLogs = `
		SELECT id, name, origin, created_at, title, public, event_rate, request_rate, required, coalesce(frozen, 0), coalesce(vkey, '')
		FROM logs LEFT JOIN heads ON heads.log = id LEFT JOIN log_keys ON log_keys.log = id ORDER BY id, seq`
	sqlKey = `
		SELECT id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate, expires_at, revoked_at,
		       replaced_by, last_used_at
		FROM api_keys WHERE id = ?`
	sqlIDs = `
		SELECT id, idx FROM ids WHERE log = ? ORDER BY id`
	sqlIDsBetween = `
		SELECT id, idx FROM ids WHERE log = ? AND id >= ? AND id < ? ORDER BY id`
	sqlLabels = `
		SELECT name, value FROM labels WHERE name >= ? AND name < ?`
	sqlKeys = `
		SELECT id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate, expires_at, revoked_at,
		       replaced_by, last_used_at
		FROM api_keys ORDER BY created_at, id`
)

// Statements of creation.
const (
	sqlInsertLog = `
		INSERT INTO logs (id, name, origin, created_at, title, public, event_rate, request_rate, required)
		SELECT coalesce(max(id), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ? FROM logs
		RETURNING id`
	sqlSettings = `
		SELECT title, public, event_rate, request_rate, required FROM logs WHERE id = ?`
	sqlConfigure = `
		UPDATE logs SET title = ?, public = ?, event_rate = ?, request_rate = ?, required = ? WHERE id = ?`
	sqlInsertVKey = `
		INSERT INTO log_keys (log, seq, vkey) VALUES (?, ?, ?)`
	sqlAddVKey = `
		INSERT INTO log_keys (log, seq, vkey)
		SELECT ?1, (SELECT coalesce(max(seq), -1) + 1 FROM log_keys WHERE log = ?1), ?2
		WHERE NOT EXISTS (SELECT 1 FROM log_keys WHERE log = ?1 AND vkey = ?2)`
	sqlInsertHead = `
		INSERT INTO heads (log, size, received_at, last, edge, frozen) VALUES (?, 0, 0, ?, x'', 0)`
	sqlFreeze = `
		UPDATE heads SET frozen = 1 WHERE log = ?`
	sqlInsertCheckpoint = `
		INSERT INTO checkpoints (log, size, note) VALUES (?, ?, ?)`
	sqlIsRecorded = `
		SELECT EXISTS (SELECT 1 FROM checkpoints WHERE log = ? AND size = ?)`
	sqlCosign = `
		INSERT INTO cosignatures (log, size, key, at, line) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET at = excluded.at, line = excluded.line WHERE excluded.at > at`
	sqlConfirm = `
		INSERT INTO confirmations (log, key, size, at) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET size = max(size, excluded.size), at = max(at, excluded.at)`
	sqlInsertEvidence = `
		INSERT INTO evidence (log, kind, key, size, at, ours, theirs) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
	sqlInsertKey = `
		INSERT INTO api_keys (id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate,
		                      expires_at, revoked_at, replaced_by, last_used_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	sqlChangeKey = `
		UPDATE api_keys SET expires_at = ?, revoked_at = ?, replaced_by = ?, last_used_at = ? WHERE id = ?`
	sqlUseKey = `
		UPDATE api_keys SET last_used_at = ?1 WHERE id = ?2 AND last_used_at < ?1`
	sqlInsertLabel = `
		INSERT INTO labels (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`
	sqlLabel = `
		SELECT value FROM labels WHERE name = ?`
)

// statements are the prepared ones. The w… are bound to the writing connection, the r… to any that reads.
type statements struct {
	wHead, wMoveHead, wEntries, wNode, wID, wInsertPayload, wInsertGrowth, wFind, wPayload      *sqlx.Stmt
	rHead, rFind, rEntries, rRun, rNodes, rPayloads, rPayload, rCheckpoint, rCheckpointOf, rKey *sqlx.Stmt
	all                                                                                         []*sqlx.Stmt
}

func (s *statements) prepare(ctx context.Context, write, read *sqlx.DB) error {
	type row struct {
		db   *sqlx.DB
		into **sqlx.Stmt
		sql  string
	}
	rows := []row{
		{read, &s.rHead, sqlHead}, {read, &s.rFind, sqlFind}, {read, &s.rEntries, sqlEntries},
		{read, &s.rRun, sqlRun}, {read, &s.rNodes, sqlNodes}, {read, &s.rPayloads, sqlPayloads},
		{read, &s.rPayload, sqlPayload}, {read, &s.rCheckpoint, sqlCheckpoint}, {read, &s.rCheckpointOf, sqlCheckpointOf},
		{read, &s.rKey, sqlKey},
	}
	if write != nil {
		rows = append(rows,
			row{write, &s.wHead, sqlHead}, row{write, &s.wMoveHead, sqlMoveHead},
			row{write, &s.wEntries, sqlInsertEntries}, row{write, &s.wNode, sqlInsertNode},
			row{write, &s.wID, sqlInsertID}, row{write, &s.wInsertPayload, sqlInsertPayload}, row{write, &s.wInsertGrowth, sqlInsertGrowth},
			row{write, &s.wFind, sqlFind}, row{write, &s.wPayload, sqlPayload})
	}
	for _, r := range rows {
		stmt, err := r.db.PreparexContext(ctx, r.sql)
		if err != nil {
			return fmt.Errorf("preparing %s: %w", r.sql, describe(err))
		}
		*r.into = stmt
		s.all = append(s.all, stmt)
	}
	return nil
}

func (s *statements) close() {
	for _, stmt := range s.all {
		stmt.Close()
	}
}
