package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// What one statement reads at most, so that none takes long or holds back the clearing of dead rows.
const (
	pageEntries  = 64 * merkle.TileWidth
	pagePayloads = 1024
)

// queryer is what reads: a pool of connections, or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func unpackHead(h *log.Head, last, edge []byte) error {
	if len(last) != merkle.HashSize || len(edge)%merkle.HashSize != 0 {
		return damaged("head of %d bytes last and %d bytes edge", len(last), len(edge))
	}
	h.Last = merkle.Hash(last)
	for ; len(edge) > 0; edge = edge[merkle.HashSize:] {
		h.Edge = append(h.Edge, merkle.Hash(edge[:merkle.HashSize]))
	}
	return nil
}

// Logs returns all logs.
func (s *Store) Logs(ctx context.Context) ([]log.Info, error) {
	var logs []log.Info
	err := each(ctx, s.read, sqlLogs, func(rows *sql.Rows) error {
		var l log.Info
		c := &l.Settings
		var required, vkey string
		err := rows.Scan(&l.ID, &l.Name, &l.Origin, &l.CreatedAt, &c.Title, &c.Public, &c.Rates.Events, &c.Rates.Requests, &required,
			&l.Frozen, &vkey)
		if err != nil {
			return err
		}
		if c.Required, err = unpackTexts(required); err != nil {
			return err
		}
		if n := len(logs); n == 0 || logs[n-1].ID != l.ID {
			logs = append(logs, l)
		}
		if vkey != "" {
			last := &logs[len(logs)-1]
			last.VKeys = append(last.VKeys, vkey)
		}
		return nil
	})
	return logs, err
}

// Head returns the log's committed head.
func (s *Store) Head(ctx context.Context, id log.ID) (log.Head, error) {
	var h log.Head
	var last, edge []byte
	err := scanRow(ctx, s.read, sqlHead, []any{id}, &h.Size, &h.ReceivedAt, &last, &edge, &h.Frozen)
	if err != nil {
		return h, orNotFound(err)
	}
	return h, unpackHead(&h, last, edge)
}

// Sizes returns the sizes of all logs.
func (s *Store) Sizes(ctx context.Context) (map[log.ID]uint64, error) {
	sizes := make(map[log.ID]uint64)
	err := each(ctx, s.read, sqlSizes, func(rows *sql.Rows) error {
		var id log.ID
		var size uint64
		err := rows.Scan(&id, &size)
		sizes[id] = size
		return err
	})
	return sizes, err
}

// Entries calls fn with the entries [from, to).
func (s *Store) Entries(ctx context.Context, id log.ID, from, to uint64, fn func(entry []byte) error) error {
	for from < to {
		end := min(to, from+pageEntries)
		if err := s.pageOfEntries(ctx, id, from, end, fn); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (s *Store) pageOfEntries(ctx context.Context, id log.ID, from, to uint64, fn func(entry []byte) error) error {
	rows, err := s.read.QueryContext(ctx, sqlEntries, id, from, to)
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	next, run := from, sql.RawBytes(nil)
	for next < to && rows.Next() {
		var first uint64
		if err := rows.Scan(&first, &run); err != nil {
			return describe(err)
		}
		if len(run)%log.EntrySize != 0 || first > next || first+uint64(len(run)/log.EntrySize) <= next {
			return damaged("entry %d is missing: the nearest run begins at %d and is %d bytes long", next, first, len(run))
		}
		for run = run[(next-first)*log.EntrySize:]; len(run) > 0 && next < to; run = run[log.EntrySize:] {
			if err := fn(run[:log.EntrySize:log.EntrySize]); err != nil {
				return err
			}
			next++
		}
	}
	if err := rows.Err(); err != nil {
		return describe(err)
	}
	if next < to {
		return damaged("entry %d is missing", next)
	}
	return nil
}

// EntriesAt calls fn with the entries at the indices, each cut out of its run by PostgreSQL.
func (s *Store) EntriesAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, []byte) error) error {
	if len(indices) == 0 {
		return nil
	}
	rows, err := s.read.QueryContext(ctx, sqlEntriesAt, id, intArray(indices))
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	for _, want := range indices {
		var index uint64
		var entry sql.RawBytes
		if rows.Next() {
			if err := rows.Scan(&index, &entry); err != nil {
				return describe(err)
			}
		} else if err := rows.Err(); err != nil {
			return describe(err)
		}
		if index != want || len(entry) != log.EntrySize {
			return damaged("entry %d is missing", want)
		}
		if err := fn(index, entry); err != nil {
			return err
		}
	}
	return describe(rows.Err())
}

// PayloadsAt calls fn with the contents that are there at the indices.
func (s *Store) PayloadsAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	return s.again(ctx, func() error {
		return s.payloadsAt(ctx, s.read, id, indices, func(index uint64, p log.Payload) error {
			n, _ := slices.BinarySearch(indices, index+1)
			indices = indices[n:]
			return fn(index, p)
		})
	})
}

func intArray(numbers []uint64) pq.Int64Array {
	out := make(pq.Int64Array, len(numbers))
	for i, n := range numbers {
		out[i] = int64(n)
	}
	return out
}

// Nodes returns the hashes [from, to) of a tile level.
func (s *Store) Nodes(ctx context.Context, id log.ID, level int, from, to uint64) ([]merkle.Hash, error) {
	if from >= to {
		return nil, nil
	}
	rows, err := s.read.QueryContext(ctx, sqlNodes, id, level, from, to)
	if err != nil {
		return nil, describe(err)
	}
	defer rows.Close()
	out := make([]merkle.Hash, 0, to-from)
	for rows.Next() {
		var index uint64
		var hash sql.RawBytes
		if err := rows.Scan(&index, &hash); err != nil {
			return nil, describe(err)
		}
		if want := from + uint64(len(out)); index != want || len(hash) != merkle.HashSize {
			return nil, damaged("tree node %d of level %d is missing", want, level)
		}
		out = append(out, merkle.Hash(hash))
	}
	if err := rows.Err(); err != nil {
		return nil, describe(err)
	}
	if uint64(len(out)) != to-from {
		return nil, damaged("tree node %d of level %d is missing", from+uint64(len(out)), level)
	}
	return out, nil
}

// Find returns the index of the event with the id.
func (s *Store) Find(ctx context.Context, id log.ID, event string) (index uint64, err error) {
	err = scanRow(ctx, s.read, sqlFind, []any{id, event}, &index)
	return index, orNotFound(err)
}

// IDs calls fn with every id of a log.
func (s *Store) IDs(ctx context.Context, id log.ID, fn func(id string, index uint64) error) error {
	return s.idsBetween(ctx, id, "", beyondIDs, fn)
}

// beyondIDs is after all characters of an id.
const beyondIDs = "\x7f"

// IDsWithPrefix calls fn with those that begin with a prefix.
func (s *Store) IDsWithPrefix(ctx context.Context, id log.ID, prefix string, fn func(id string, index uint64) error) error {
	after := prefix
	if n := len(prefix); n > 0 { // after all ids that begin with what is one less
		after = prefix[:n-1] + string(prefix[n-1]-1) + beyondIDs
	}
	return s.idsBetween(ctx, id, after, prefix+beyondIDs, fn)
}

// idsBetween calls fn with the ids after one and before another.
func (s *Store) idsBetween(ctx context.Context, id log.ID, after, before string, fn func(id string, index uint64) error) error {
	for more := true; more; {
		more = false
		err := each(ctx, s.read, sqlIDs, func(rows *sql.Rows) error {
			var index uint64
			if err := rows.Scan(&after, &index); err != nil {
				return err
			}
			more = true
			return fn(after, index)
		}, id, after, before)
		if err != nil {
			return err
		}
	}
	return nil
}

// Payloads calls fn with the contents in [from, to).
func (s *Store) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	if from >= to {
		return nil
	}
	return s.again(ctx, func() error {
		where, err := s.partsOf(ctx, s.read, id, to)
		for err == nil && from < to {
			part, end := where.at(from)
			end = min(to, end, from+pagePayloads)
			if err = s.payloadsIn(ctx, s.read, part, sqlPayloads, fn, id, from, end); err != nil {
				return s.partGone(err, id)
			}
			from = end
		}
		return err
	})
}

// again does what reads contents, and does it again, from where it was, if it ended since a part was dropped meanwhile.
func (s *Store) again(ctx context.Context, fn func() error) error {
	for attempt := 1; ; attempt++ {
		err := fn()
		if pq.As(err, pqerror.UndefinedTable) == nil || attempt == maxAttempts || ctx.Err() != nil {
			return err
		}
	}
}

func eachPayload(rows *sql.Rows, fn func(uint64, log.Payload) error) error {
	defer rows.Close()
	var seed, data sql.RawBytes
	for rows.Next() {
		var index uint64
		if err := rows.Scan(&index, &seed, &data); err != nil {
			return describe(err)
		}
		if err := fn(index, log.Payload{Seed: seed, Data: data}); err != nil {
			return err
		}
	}
	return describe(rows.Err())
}

// Checkpoint returns the newest recorded checkpoint of at most the given size.
func (s *Store) Checkpoint(ctx context.Context, id log.ID, size uint64) (c log.Signed, err error) {
	err = scanRow(ctx, s.read, sqlCheckpoint, []any{id, int64(min(size, merkle.MaxSize))}, &c.Size, &c.Note)
	return c, orNotFound(err)
}

// Checkpoints calls fn with every recorded checkpoint of at least the given size.
func (s *Store) Checkpoints(ctx context.Context, id log.ID, from uint64, fn func(log.Signed) error) error {
	for after, more := int64(min(from, merkle.MaxSize))-1, true; more; {
		more = false
		err := each(ctx, s.read, sqlCheckpoints, func(rows *sql.Rows) error {
			var c log.Signed
			if err := rows.Scan(&c.Size, &c.Note); err != nil {
				return err
			}
			after, more = int64(c.Size), true
			return fn(c)
		}, id, after)
		if err != nil {
			return err
		}
	}
	return nil
}

// Cosignatures returns the cosignatures on a checkpoint.
func (s *Store) Cosignatures(ctx context.Context, id log.ID, size uint64) (all []log.Cosignature, err error) {
	err = each(ctx, s.read, sqlCosignatures, func(rows *sql.Rows) error {
		c, err := scanCosignature(rows)
		all = append(all, c)
		return err
	}, id, int64(min(size, merkle.MaxSize)))
	return all, err
}

// CosignaturesDown calls fn with every cosignature on checkpoints of at most the given size.
func (s *Store) CosignaturesDown(ctx context.Context, id log.ID, size uint64, fn func(log.Cosignature) error) error {
	at := log.Cosignature{Size: min(size, merkle.MaxSize)} // before all keys of that size
	for more := true; more; {
		more = false
		err := each(ctx, s.read, sqlCosignaturesDown, func(rows *sql.Rows) error {
			c, err := scanCosignature(rows)
			if err != nil {
				return err
			}
			at, more = c, true
			return fn(c)
		}, id, int64(at.Size), at.Key)
		if err != nil {
			return err
		}
	}
	return nil
}

func scanCosignature(rows *sql.Rows) (c log.Cosignature, err error) {
	err = rows.Scan(&c.Size, &c.Key, &c.At, &c.Line)
	return c, err
}

// Confirmations returns what each witness has confirmed last.
func (s *Store) Confirmations(ctx context.Context, id log.ID) (map[string]log.Confirmation, error) {
	all := make(map[string]log.Confirmation)
	err := each(ctx, s.read, sqlConfirmations, func(rows *sql.Rows) error {
		var key string
		var c log.Confirmation
		err := rows.Scan(&key, &c.Size, &c.At)
		all[key] = c
		return err
	}, id)
	return all, err
}

// Evidence returns what is kept of contradictions.
func (s *Store) Evidence(ctx context.Context, id log.ID) (all []log.Evidence, err error) {
	err = each(ctx, s.read, sqlEvidence, func(rows *sql.Rows) error {
		var e log.Evidence
		err := rows.Scan(&e.Kind, &e.Key, &e.Size, &e.At, &e.Ours, &e.Theirs)
		all = append(all, e)
		return err
	}, id)
	return all, err
}

// Counts counts the rows of a log.
func (s *Store) Counts(ctx context.Context, id log.ID) (c log.Counts, err error) {
	err = s.again(ctx, func() error {
		contents := "0" // in all parts, by their names: one that is swapped isn't attached for a moment
		err := each(ctx, s.read, sqlTables, func(rows *sql.Rows) error {
			var part int
			err := rows.Scan(&part)
			contents += fmt.Sprintf(" + (SELECT count(*) FROM payloads_%d WHERE log = $1)", part)
			return err
		})
		if err != nil {
			return err
		}
		row := s.read.QueryRowContext(ctx, fmt.Sprintf(sqlCounts, contents), id)
		return row.Scan(&c.Entries, &c.Payloads, &c.IDs, &c.Growths, &c.Nodes)
	})
	if err == nil && c.Entries%log.EntrySize != 0 {
		err = damaged("%d bytes of entries, not a multiple of %d", c.Entries, log.EntrySize)
	}
	c.Entries /= log.EntrySize
	return c, describe(err)
}

// Key returns the API key with the public id.
func (s *Store) Key(ctx context.Context, id string) (log.Key, error) {
	var keys []log.Key
	err := each(ctx, s.read, sqlKey, func(rows *sql.Rows) error {
		k, err := scanKey(rows)
		keys = append(keys, k)
		return err
	}, id)
	if err == nil && len(keys) == 0 {
		err = log.ErrNotFound
	}
	if err != nil {
		return log.Key{}, err
	}
	return keys[0], nil
}

// Keys returns all API keys.
func (s *Store) Keys(ctx context.Context) (keys []log.Key, err error) {
	err = each(ctx, s.read, sqlKeys, func(rows *sql.Rows) error {
		k, err := scanKey(rows)
		keys = append(keys, k)
		return err
	})
	return keys, err
}

// unpackTexts returns the texts of a JSON array, nil for an empty one.
func unpackTexts(array string) (texts []string, err error) {
	if err := json.Unmarshal([]byte(array), &texts); err != nil {
		return nil, damaged("%q isn't an array of texts", array)
	}
	if len(texts) == 0 {
		return nil, nil
	}
	return texts, nil
}

// Labels returns the labels whose names begin with a prefix.
func (s *Store) Labels(ctx context.Context, prefix string) (map[string]string, error) {
	labels := make(map[string]string)
	err := each(ctx, s.read, sqlLabels, func(rows *sql.Rows) error {
		var name, value string
		err := rows.Scan(&name, &value)
		labels[name] = value
		return err
	}, prefix, prefix+"\U0010ffff") // which is after all characters
	return labels, err
}

func scanKey(row interface{ Scan(...any) error }) (k log.Key, err error) {
	var hash []byte
	if err := row.Scan(&k.ID, &hash, &k.Role, &k.Log, &k.Name, &k.CreatedAt, &k.CreatedBy, &k.Networks, &k.Actions,
		&k.Rates.Events, &k.Rates.Requests, &k.ExpiresAt, &k.RevokedAt, &k.ReplacedBy, &k.LastUsedAt); err != nil {
		return k, orNotFound(err)
	}
	if len(hash) != len(k.Hash) {
		return k, damaged("API key %s has a hash of %d bytes", k.ID, len(hash))
	}
	copy(k.Hash[:], hash)
	return k, nil
}

// each calls fn with every row of a query.
func each(ctx context.Context, db queryer, query string, fn func(*sql.Rows) error, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return describe(err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading rows: %w", describe(err))
	}
	return nil
}
