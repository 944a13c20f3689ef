package postgres

// Statements of the append path.
const (
	// In the order of the numbers, so that two transactions never wait for each other.
	sqlLockHeads = `
		SELECT log, size, received_at, last, edge, frozen, class, part FROM heads
		WHERE log = ANY($1) ORDER BY log FOR UPDATE`
	// One round trip for all that is little: heads, and the runs of entries and nodes of those logs whose head was moved. It
	// returns how many were; if that isn't all of them, the transaction is undone. Runs come as one piece of bytes, which cross
	// the wire as they are, with offsets from 1.
	sqlAppendHeads = `
		WITH moved AS (
		    UPDATE heads SET size = b.size, received_at = b.received_at, last = b.last, edge = b.edge, part = b.part
		    FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BYTEA[], $6::BYTEA[], $7::INTEGER[])
		         AS b (log, came_from, size, received_at, last, edge, part)
		    WHERE heads.log = b.log AND heads.size = b.came_from
		    RETURNING heads.log
		), runs AS (
		    INSERT INTO entries (log, first, entries)
		    SELECT e.log, e.first, substr($8::BYTEA, e.start, e.length)
		    FROM unnest($9::BIGINT[], $10::BIGINT[], $11::INTEGER[], $12::INTEGER[]) AS e (log, first, start, length)
		         JOIN moved USING (log)
		), complete AS (
		    INSERT INTO nodes (log, level, idx, hash)
		    SELECT n.* FROM unnest($13::BIGINT[], $14::SMALLINT[], $15::BIGINT[], $16::BYTEA[]) AS n (log, level, idx, hash)
		         JOIN moved USING (log)
		)`
	// The same for the ids and contents of a small batch, for which COPY has too many round trips.
	sqlAppendRows = `, named AS (
		    INSERT INTO ids (log, idx, id)
		    SELECT r.* FROM unnest($17::BIGINT[], $18::BIGINT[], $19::TEXT[]) AS r (log, idx, id) JOIN moved USING (log)
		), filled AS (
		    INSERT INTO payloads_%[1]d (log, idx, part, seed, payload)
		    SELECT r.log, r.idx, %[1]d, substr($20::BYTEA, 32 * r.number::INTEGER - 31, 32), substr($21::BYTEA, r.start, r.length)
		    FROM unnest($17::BIGINT[], $18::BIGINT[], $22::INTEGER[], $23::INTEGER[]) WITH ORDINALITY
		         AS r (log, idx, start, length, number)
		         JOIN moved USING (log)
		)`
	// The same for a hub, whose entries have no contents.
	sqlAppendGrowths = `, grown AS (
		    INSERT INTO hub_entries (log, subject, size, idx)
		    SELECT g.* FROM unnest($17::BIGINT[], $18::BIGINT[], $19::BIGINT[], $20::BIGINT[]) AS g (log, subject, size, idx)
		         JOIN moved USING (log)
		)`
	sqlAppendEnd = `
		SELECT count(*) FROM moved`
	sqlEnterParts = `
		INSERT INTO log_parts (log, part, first)
		SELECT * FROM unnest($1::BIGINT[], $2::INTEGER[], $3::BIGINT[])`
	// The subquery can't be flattened, so each key is one look into the index however many the planner believes there are.
	sqlFindAll = `
		SELECT k.log, k.id, i.idx
		FROM unnest($1::BIGINT[], $2::TEXT[]) AS k (log, id),
		     LATERAL (SELECT idx FROM ids WHERE ids.log = k.log AND ids.id = k.id OFFSET 0) AS i`
	sqlCopyIDs = `
		COPY ids (log, idx, id) FROM STDIN`
	// Straight into the part's table.
	sqlCopyPayloads = `
		COPY payloads_%d (log, idx, part, seed, payload) FROM STDIN`
)

// Statements of readers.
const (
	sqlHead = `
		SELECT size, received_at, last, edge, frozen FROM heads WHERE log = $1`
	sqlSizes = `
		SELECT log, size FROM heads`
	// A run may begin before the range: from is looked for in the last run that begins at or before it.
	sqlEntries = `
		SELECT first, entries FROM entries
		WHERE log = $1 AND first < $3
		  AND first >= (SELECT coalesce(max(first), 0) FROM entries WHERE log = $1 AND first <= $2)
		ORDER BY first`
	sqlEntriesAt = `
		SELECT i.idx, substr(e.entries, ((i.idx - e.first) * 73 + 1)::INTEGER, 73)
		FROM unnest($2::BIGINT[]) AS i (idx),
		     LATERAL (SELECT first, entries FROM entries WHERE log = $1 AND first <= i.idx ORDER BY first DESC LIMIT 1) AS e
		ORDER BY i.idx`
	sqlNodes = `
		SELECT idx, hash FROM nodes WHERE log = $1 AND level = $2 AND idx >= $3 AND idx < $4 ORDER BY idx`
	sqlFind = `
		SELECT idx FROM ids WHERE log = $1 AND id = $2`
	// From the part's table, so that a prepared statement needn't look at all of them.
	sqlPayloads = `
		SELECT idx, seed, payload FROM payloads_%d WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx`
	// Each is one look into the index of its part. The planner would read whole parts for some hundreds, hence the subquery.
	sqlPayloadsAt = `
		SELECT p.idx, p.seed, p.payload
		FROM unnest($2::BIGINT[]) AS i (idx),
		     LATERAL (SELECT idx, seed, payload FROM payloads_%d AS c WHERE c.log = $1 AND c.idx = i.idx OFFSET 0) AS p
		ORDER BY p.idx`
	sqlCheckpoint = `
		SELECT size, note FROM checkpoints WHERE log = $1 AND size <= $2 ORDER BY size DESC LIMIT 1`
	sqlCheckpoints = `
		SELECT size, note FROM checkpoints WHERE log = $1 AND size > $2 ORDER BY size LIMIT 1000`
	sqlCosignatures = `
		SELECT size, key, at, line FROM cosignatures WHERE log = $1 AND size = $2 ORDER BY key`
	sqlCosignaturesDown = `
		SELECT size, key, at, line FROM cosignatures
		WHERE log = $1 AND (size < $2 OR size = $2 AND key > $3) ORDER BY size DESC, key LIMIT 1000`
	sqlConfirmations = `
		SELECT key, size, at FROM confirmations WHERE log = $1`
	sqlEvidence = `
		SELECT kind, key, size, at, ours, theirs FROM evidence WHERE log = $1 ORDER BY at, kind, key, size`
	sqlCheckpointsOf = `
		SELECT g.number, c.note
		FROM unnest($1::BIGINT[], $2::BIGINT[]) WITH ORDINALITY AS g (log, size, number),
		     LATERAL (SELECT note FROM checkpoints WHERE checkpoints.log = g.log AND checkpoints.size = g.size OFFSET 0) AS c`
	sqlGrowths = `
		SELECT subject, size, idx FROM hub_entries WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx`
	// For each log a look at the end of its rows, which in general is the one that is wanted. The + 0 keeps PostgreSQL from going
	// through all rows by their indices.
	sqlNewestGrowths = `
		SELECT g.subject, g.size, g.idx
		FROM logs, LATERAL (SELECT subject, size, idx FROM hub_entries
		                    WHERE log = $1 AND subject = logs.id AND idx + 0 < $2 ORDER BY size DESC LIMIT 1) AS g`
	sqlGrowthBefore = `
		SELECT subject, size, idx FROM hub_entries WHERE log = $1 AND subject = $2 AND size < $3 ORDER BY size DESC LIMIT 1`
	sqlCounts = `
		SELECT (SELECT coalesce(sum(length(entries)), 0) FROM entries WHERE log = $1),
		       %s,
		       (SELECT count(*) FROM ids WHERE log = $1),
		       (SELECT count(*) FROM hub_entries WHERE log = $1),
		       (SELECT count(*) FROM nodes WHERE log = $1)`
	sqlLogs = `
		SELECT id, name, origin, created_at, title, public, event_rate, request_rate, required, coalesce(frozen, FALSE),
		       coalesce(vkey, '')
		FROM logs LEFT JOIN heads ON heads.log = id LEFT JOIN log_keys ON log_keys.log = id ORDER BY id, seq`
	sqlKey = `
		SELECT id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate, expires_at, revoked_at,
		       replaced_by, last_used_at
		FROM api_keys WHERE id = $1`
	sqlIDs = `
		SELECT id, idx FROM ids WHERE log = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT 10000`
	sqlLabels = `
		SELECT name, value FROM labels WHERE name >= $1 AND name < $2`
	sqlKeys = `
		SELECT id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate, expires_at, revoked_at,
		       replaced_by, last_used_at
		FROM api_keys ORDER BY created_at, id`
	sqlLabel = `
		SELECT value FROM labels WHERE name = $1`
	sqlSettings = `
		SELECT name, setting FROM pg_settings
		WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'server_version', 'server_version_num',
		               'idle_in_transaction_session_timeout')
		UNION ALL SELECT 'in_recovery', CASE WHEN pg_is_in_recovery() THEN 'on' ELSE 'off' END`
	// The time in seconds, so that it is the same text in any time zone.
	sqlState = `
		SELECT extract(epoch FROM pg_postmaster_start_time())::TEXT, pg_is_in_recovery(), current_setting('fsync'),
		       current_setting('full_page_writes'), current_setting('synchronous_commit')`
	// Which cluster, and which database in it. Standbys have the same.
	sqlIdentity = `
		SELECT system_identifier || ' ' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()`
)

// Statements of parts.
const (
	sqlParts = `
		SELECT part, class, opened_at FROM parts WHERE closed_at IS NULL ORDER BY part`
	sqlPartClass = `
		SELECT class FROM parts WHERE part = $1`
	sqlPartsOf = `
		SELECT heads.size, coalesce(log_parts.part, 0), coalesce(log_parts.first, 0)
		FROM heads LEFT JOIN log_parts USING (log) WHERE heads.log = $1 ORDER BY log_parts.first`
	// Logs that left the part when they changed their class are not worth counting.
	sqlPartRows = `
		SELECT coalesce(sum(heads.size - (SELECT max(first) FROM log_parts WHERE log_parts.log = heads.log)), 0)::BIGINT
		FROM heads WHERE heads.part = $1`
	sqlTables = `
		SELECT part FROM parts WHERE dropped_at IS NULL ORDER BY part`
	// Unless there is one after the part $3. Of two servers that are at it one waits for the other, and then has a number that is
	// taken.
	sqlInsertPart = `
		INSERT INTO parts (part, class, opened_at)
		SELECT coalesce(max(part), 0) + 1, $1, $2 FROM parts
		HAVING NOT coalesce(bool_or(class = $1 AND part > $3), FALSE)
		RETURNING part`
	sqlCloseParts = `
		UPDATE parts SET closed_at = $2 WHERE class = $1 AND part < $3 AND closed_at IS NULL`
	// Made beside the others and then attached, which doesn't hold up those who read or write them.
	sqlCreatePart = `
		CREATE TABLE payloads_%[1]d (LIKE payloads INCLUDING ALL, PRIMARY KEY (log, idx))`
	sqlNoStatistics = `
		ALTER TABLE payloads_%d ALTER COLUMN seed SET STATISTICS 0, ALTER COLUMN payload SET STATISTICS 0`
	sqlAttachPart = `
		ALTER TABLE payloads ATTACH PARTITION payloads_%[1]d FOR VALUES IN (%[1]d)`
)

// Statements of creation.
const (
	sqlTaken = `
		SELECT EXISTS (SELECT 1 FROM logs WHERE name = $1 OR origin = $2)`
	sqlInsertLog = `
		INSERT INTO logs (id, name, origin, created_at, title, public, event_rate, request_rate, required)
		SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM logs
		RETURNING id`
	sqlImportLog = `
		INSERT INTO logs (id, name, origin, created_at, title, public, event_rate, request_rate, required)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`
	sqlLockSettings = `
		SELECT title, public, event_rate, request_rate, required FROM logs WHERE id = $1 FOR UPDATE`
	sqlConfigure = `
		UPDATE logs SET title = $2, public = $3, event_rate = $4, request_rate = $5, required = $6 WHERE id = $1`
	sqlInsertVKey = `
		INSERT INTO log_keys (log, seq, vkey) VALUES ($1, $2, $3)`
	sqlAddVKey = `
		INSERT INTO log_keys (log, seq, vkey)
		SELECT $1, (SELECT coalesce(max(seq), -1) + 1 FROM log_keys WHERE log = $1), $2
		WHERE NOT EXISTS (SELECT 1 FROM log_keys WHERE log = $1 AND vkey = $2)`
	sqlInsertHead = `
		INSERT INTO heads (log, size, received_at, last, edge, frozen, class, part) VALUES ($1, 0, 0, $2, '', FALSE, $3, 0)`
	// Waits for appends under way; those that begin later see it.
	sqlFreeze = `
		UPDATE heads SET frozen = TRUE WHERE log = $1`
	sqlInsertSigned = `
		INSERT INTO signed (log, size) VALUES ($1, -1)`
	sqlMoveSigned = `
		UPDATE signed SET size = $2 WHERE log = $1 AND size < $2`
	sqlMoveSignedOver = `
		UPDATE signed SET size = $3 WHERE log = $1 AND size < $2`
	sqlInsertCheckpoint = `
		INSERT INTO checkpoints (log, size, note) VALUES ($1, $2, $3)`
	sqlInsertCheckpoints = `
		INSERT INTO checkpoints (log, size, note)
		SELECT $1, * FROM unnest($2::BIGINT[], $3::BYTEA[])`
	// The sizes among them of which no checkpoint is recorded.
	sqlUnrecorded = `
		SELECT s FROM unnest($2::BIGINT[]) AS s
		WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE log = $1 AND size = s) LIMIT 1`
	// In an order, so that two servers which add the same ones never wait for each other.
	sqlCosign = `
		INSERT INTO cosignatures (log, size, key, at, line)
		SELECT $1, c.* FROM unnest($2::BIGINT[], $3::TEXT[], $4::BIGINT[], $5::TEXT[]) AS c (size, key, at, line)
		ORDER BY c.size, c.key
		ON CONFLICT (log, size, key) DO UPDATE SET at = excluded.at, line = excluded.line
		WHERE excluded.at > cosignatures.at`
	sqlConfirm = `
		INSERT INTO confirmations (log, key, size, at)
		SELECT $1, c.key, max(c.size), max(c.at) FROM unnest($2::BIGINT[], $3::TEXT[], $4::BIGINT[]) AS c (size, key, at)
		GROUP BY c.key ORDER BY c.key
		ON CONFLICT (log, key) DO UPDATE
		SET size = greatest(confirmations.size, excluded.size), at = greatest(confirmations.at, excluded.at)`
	sqlInsertEvidence = `
		INSERT INTO evidence (log, kind, key, size, at, ours, theirs) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`
	sqlInsertKey = `
		INSERT INTO api_keys (id, hash, role, log, name, created_at, created_by, networks, actions, event_rate, request_rate,
		                      expires_at, revoked_at, replaced_by, last_used_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	sqlLockKey   = sqlKey + ` FOR UPDATE`
	sqlChangeKey = `
		UPDATE api_keys SET expires_at = $2, revoked_at = $3, replaced_by = $4, last_used_at = $5 WHERE id = $1`
	sqlUseKeys = `
		UPDATE api_keys SET last_used_at = u.at
		FROM unnest($1::TEXT[], $2::BIGINT[]) AS u (id, at)
		WHERE api_keys.id = u.id AND api_keys.last_used_at < u.at`
	sqlInsertLabel = `
		INSERT INTO labels (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	sqlImportLabel = `
		INSERT INTO labels (name, value) VALUES ($1, $2)`
	sqlRenameLabel = `
		UPDATE labels SET name = $2 WHERE name = $1`
)
