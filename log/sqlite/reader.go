package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

func orNotFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return log.ErrNotFound
	}
	return describe(err)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, log.ErrDamaged)...)
}

func scanHead(row *sqlx.Row) (log.Head, error) {
	var h log.Head
	var last, edge []byte
	if err := row.Scan(&h.Size, &h.ReceivedAt, &last, &edge, &h.Frozen); err != nil {
		return h, orNotFound(err)
	}
	if len(last) != merkle.HashSize || len(edge)%merkle.HashSize != 0 {
		return h, damaged("head of %d bytes last and %d bytes edge", len(last), len(edge))
	}
	h.Last = merkle.Hash(last)
	for ; len(edge) > 0; edge = edge[merkle.HashSize:] {
		h.Edge = append(h.Edge, merkle.Hash(edge[:merkle.HashSize]))
	}
	return h, nil
}

// Logs returns all logs.
func (s *Store) Logs(ctx context.Context) ([]log.Info, error) {
	var logs []log.Info
	err := each(ctx, s.read, sqlLogs, func(rows *sqlx.Rows) error {
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
	return scanHead(s.stmts.rHead.QueryRowxContext(ctx, id))
}

// Sizes returns the sizes of all logs.
func (s *Store) Sizes(ctx context.Context) (map[log.ID]uint64, error) {
	sizes := make(map[log.ID]uint64)
	err := each(ctx, s.read, sqlSizes, func(rows *sqlx.Rows) error {
		var id log.ID
		var size uint64
		if err := rows.Scan(&id, &size); err != nil {
			return err
		}
		sizes[id] = size
		return nil
	})
	return sizes, err
}

// Entries calls fn with the entries [from, to).
func (s *Store) Entries(ctx context.Context, id log.ID, from, to uint64, fn func(entry []byte) error) error {
	if from >= to {
		return nil
	}
	rows, err := s.stmts.rEntries.QueryxContext(ctx, id, from, to)
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

// EntriesAt calls fn with the entries at indices.
func (s *Store) EntriesAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, []byte) error) error {
	var first uint64
	var run []byte // the one that begins at first
	for _, index := range indices {
		if index < first || index-first >= uint64(len(run)/log.EntrySize) {
			run = run[:0]
			err := s.stmts.rRun.QueryRowxContext(ctx, id, index).Scan(&first, &run)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return describe(err)
			}
			if len(run)%log.EntrySize != 0 || index-first >= uint64(len(run)/log.EntrySize) {
				return damaged("entry %d is missing", index)
			}
		}
		at := (index - first) * log.EntrySize
		if err := fn(index, run[at:at+log.EntrySize:at+log.EntrySize]); err != nil {
			return err
		}
	}
	return nil
}

// Nodes returns the hashes [from, to) of a tile level.
func (s *Store) Nodes(ctx context.Context, id log.ID, level int, from, to uint64) ([]merkle.Hash, error) {
	if from >= to {
		return nil, nil
	}
	rows, err := s.stmts.rNodes.QueryxContext(ctx, id, level, from, to)
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
	err = s.stmts.rFind.QueryRowxContext(ctx, id, event).Scan(&index)
	return index, orNotFound(err)
}

// IDs calls fn with every id of a log.
func (s *Store) IDs(ctx context.Context, id log.ID, fn func(id string, index uint64) error) error {
	return s.ids(ctx, sqlIDs, fn, id)
}

// IDsWithPrefix calls fn with those that begin with a prefix.
func (s *Store) IDsWithPrefix(ctx context.Context, id log.ID, prefix string, fn func(id string, index uint64) error) error {
	return s.ids(ctx, sqlIDsBetween, fn, id, prefix, prefix+"\x7f") // which is after all characters of an id
}

func (s *Store) ids(ctx context.Context, query string, fn func(id string, index uint64) error, args ...any) error {
	return each(ctx, s.read, query, func(rows *sqlx.Rows) error {
		var event string
		var index uint64
		if err := rows.Scan(&event, &index); err != nil {
			return err
		}
		return fn(event, index)
	}, args...)
}

// Payloads calls fn with the contents in [from, to).
func (s *Store) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	rows, err := s.stmts.rPayloads.QueryxContext(ctx, id, from, to)
	if err != nil {
		return describe(err)
	}
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

// PayloadsAt calls fn with the contents that are there at indices.
func (s *Store) PayloadsAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	for _, index := range indices {
		var p log.Payload
		err := s.stmts.rPayload.QueryRowxContext(ctx, id, index).Scan(&p.Seed, &p.Data)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return describe(err)
		}
		if err := fn(index, p); err != nil {
			return err
		}
	}
	return nil
}

// Checkpoint returns the newest recorded checkpoint of at most the given size.
func (s *Store) Checkpoint(ctx context.Context, id log.ID, size uint64) (c log.Signed, err error) {
	err = s.stmts.rCheckpoint.QueryRowxContext(ctx, id, int64(min(size, 1<<63-1))).Scan(&c.Size, &c.Note)
	return c, orNotFound(err)
}

// Checkpoints calls fn with every recorded checkpoint of at least the given size.
func (s *Store) Checkpoints(ctx context.Context, id log.ID, from uint64, fn func(log.Signed) error) error {
	return each(ctx, s.read, sqlCheckpoints, func(rows *sqlx.Rows) error {
		var c log.Signed
		if err := rows.Scan(&c.Size, &c.Note); err != nil {
			return err
		}
		return fn(c)
	}, id, int64(min(from, merkle.MaxSize)))
}

// Cosignatures returns the cosignatures on a checkpoint.
func (s *Store) Cosignatures(ctx context.Context, id log.ID, size uint64) (all []log.Cosignature, err error) {
	err = s.cosignatures(ctx, sqlCosignatures, id, size, func(c log.Cosignature) error {
		all = append(all, c)
		return nil
	})
	return all, err
}

// CosignaturesDown calls fn with every cosignature on checkpoints of at most the given size.
func (s *Store) CosignaturesDown(ctx context.Context, id log.ID, size uint64, fn func(log.Cosignature) error) error {
	return s.cosignatures(ctx, sqlCosignaturesDown, id, size, fn)
}

func (s *Store) cosignatures(ctx context.Context, query string, id log.ID, size uint64, fn func(log.Cosignature) error) error {
	return each(ctx, s.read, query, func(rows *sqlx.Rows) error {
		var c log.Cosignature
		if err := rows.Scan(&c.Size, &c.Key, &c.At, &c.Line); err != nil {
			return err
		}
		return fn(c)
	}, id, int64(min(size, merkle.MaxSize)))
}

// Confirmations returns what each witness has confirmed last.
func (s *Store) Confirmations(ctx context.Context, id log.ID) (map[string]log.Confirmation, error) {
	all := make(map[string]log.Confirmation)
	err := each(ctx, s.read, sqlConfirmations, func(rows *sqlx.Rows) error {
		var key string
		var c log.Confirmation
		if err := rows.Scan(&key, &c.Size, &c.At); err != nil {
			return err
		}
		all[key] = c
		return nil
	}, id)
	return all, err
}

// Evidence returns what is kept of contradictions.
func (s *Store) Evidence(ctx context.Context, id log.ID) (all []log.Evidence, err error) {
	err = each(ctx, s.read, sqlEvidence, func(rows *sqlx.Rows) error {
		var e log.Evidence
		if err := rows.Scan(&e.Kind, &e.Key, &e.Size, &e.At, &e.Ours, &e.Theirs); err != nil {
			return err
		}
		all = append(all, e)
		return nil
	}, id)
	return all, err
}

// Counts counts the rows of a log.
func (s *Store) Counts(ctx context.Context, id log.ID) (c log.Counts, err error) {
	err = s.read.QueryRowxContext(ctx, sqlCounts, id).Scan(&c.Entries, &c.Payloads, &c.IDs, &c.Growths, &c.Nodes)
	if err == nil && c.Entries%log.EntrySize != 0 {
		err = damaged("%d bytes of entries, not a multiple of %d", c.Entries, log.EntrySize)
	}
	c.Entries /= log.EntrySize
	return c, describe(err)
}

// Key returns the API key with the public id.
func (s *Store) Key(ctx context.Context, id string) (log.Key, error) {
	return scanKey(s.stmts.rKey.QueryRowxContext(ctx, id))
}

// Keys returns all API keys.
func (s *Store) Keys(ctx context.Context) (keys []log.Key, err error) {
	err = each(ctx, s.read, sqlKeys, func(rows *sqlx.Rows) error {
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
	err := each(ctx, s.read, sqlLabels, func(rows *sqlx.Rows) error {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		labels[name] = value
		return nil
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
func each(ctx context.Context, db *sqlx.DB, query string, fn func(*sqlx.Rows) error, args ...any) error {
	rows, err := db.QueryxContext(ctx, query, args...)
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return describe(rows.Err())
}
