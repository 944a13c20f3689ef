package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// tx is a log.Tx. The one writing connection is its lock on every head.
type tx struct {
	tx                                                                          *sqlx.Tx
	head, moveHead, entries, node, id, insertPayload, growth, findID, payloadAt *sqlx.Stmt
}

// Begin starts a write transaction; it waits for the one before it.
func (s *Store) Begin(ctx context.Context, _ []log.ID) (log.Tx, error) {
	if s.write == nil {
		return nil, errReadOnly
	}
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return nil, describe(err)
	}
	return &tx{
		tx:   t,
		head: t.Stmtx(s.stmts.wHead), moveHead: t.Stmtx(s.stmts.wMoveHead),
		entries: t.Stmtx(s.stmts.wEntries), node: t.Stmtx(s.stmts.wNode),
		id: t.Stmtx(s.stmts.wID), insertPayload: t.Stmtx(s.stmts.wInsertPayload), growth: t.Stmtx(s.stmts.wInsertGrowth),
		findID: t.Stmtx(s.stmts.wFind), payloadAt: t.Stmtx(s.stmts.wPayload),
	}, nil
}

func (t *tx) Head(id log.ID) (log.Head, error) {
	return scanHead(t.head.QueryRowx(id))
}

func (t *tx) Find(keys []log.EventKey) (map[log.EventKey]uint64, error) {
	found := make(map[log.EventKey]uint64)
	for _, k := range keys {
		var index uint64
		switch err := t.findID.QueryRowx(k.Log, k.ID).Scan(&index); {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, describe(err)
		default:
			found[k] = index
		}
	}
	return found, nil
}

func (t *tx) PayloadsAt(id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	for _, index := range indices {
		var p log.Payload
		switch err := t.payloadAt.QueryRowx(id, index).Scan(&p.Seed, &p.Data); {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return describe(err)
		default:
			if err := fn(index, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tx) Append(batches []*log.Batch) error {
	for _, b := range batches {
		if err := t.append(b); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) append(b *log.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	// The head first: it decides whether the rest may be written at all.
	res, err := t.moveHead.Exec(b.Head.Size, b.Head.ReceivedAt, b.Head.Last[:], packHashes(b.Head.Edge), b.Log, b.From)
	if err != nil {
		return describe(err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return log.ErrHeadMoved
	}
	// Runs end where entry bundles do, so that no reader of one has to read much more.
	for first, rest := b.From, b.Entries; len(rest) > 0; {
		n := min(merkle.TileWidth-int(first%merkle.TileWidth), len(rest)/log.EntrySize)
		if _, err := t.entries.Exec(b.Log, first, rest[:n*log.EntrySize]); err != nil {
			return describe(err)
		}
		first, rest = first+uint64(n), rest[n*log.EntrySize:]
	}
	for i, r := range b.Rows {
		index := b.From + uint64(i)
		if r.Data != nil {
			if _, err := t.insertPayload.Exec(b.Log, index, r.Seed, r.Data); err != nil {
				return describe(err)
			}
		}
		if _, err := t.id.Exec(b.Log, r.ID, index); err != nil {
			return describe(err)
		}
	}
	for _, g := range b.Growths {
		if _, err := t.growth.Exec(b.Log, g.Log, g.Size, g.Index); err != nil {
			return describe(err)
		}
	}
	for _, n := range b.Nodes {
		if _, err := t.node.Exec(b.Log, n.Level, n.Index, n.Hash[:]); err != nil {
			return describe(err)
		}
	}
	return nil
}

func (t *tx) Commit() error { return describe(t.tx.Commit()) }

func (t *tx) Rollback() { t.tx.Rollback() }

// CreateLog adds an empty log.
func (s *Store) CreateLog(ctx context.Context, info *log.Info) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	var taken bool
	err = t.GetContext(ctx, &taken, `SELECT EXISTS (SELECT 1 FROM logs WHERE name = ? OR origin = ?)`, info.Name, info.Origin)
	if err != nil {
		return describe(err)
	}
	if taken {
		return fmt.Errorf("log %q: %w", info.Name, log.ErrExists)
	}
	var id log.ID
	c := info.Settings
	err = t.GetContext(ctx, &id, sqlInsertLog, info.Name, info.Origin, info.CreatedAt, c.Title, c.Public, c.Rates.Events, c.Rates.Requests,
		packTexts(c.Required))
	if err != nil {
		return describe(err)
	}
	for i, vkey := range info.VKeys {
		if _, err := t.ExecContext(ctx, sqlInsertVKey, id, i, vkey); err != nil {
			return describe(err)
		}
	}
	genesis := log.Genesis(info.Origin)
	if _, err := t.ExecContext(ctx, sqlInsertHead, id, genesis[:]); err != nil {
		return describe(err)
	}
	if err := t.Commit(); err != nil {
		return describe(err)
	}
	info.ID = id
	return nil
}

// AddVKey adds a verifier key to those of a log.
func (s *Store) AddVKey(ctx context.Context, id log.ID, vkey string) error {
	_, err := s.write.ExecContext(ctx, sqlAddVKey, id, vkey)
	return describe(err)
}

// Freeze ends a log.
func (s *Store) Freeze(ctx context.Context, id log.ID) error {
	res, err := s.write.ExecContext(ctx, sqlFreeze, id)
	if err != nil {
		return describe(err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return log.ErrNotFound
	}
	return nil
}

// Record adds a checkpoint.
func (s *Store) Record(ctx context.Context, id log.ID, c log.Signed) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	var newest log.Signed
	switch err := t.QueryRowxContext(ctx, sqlCheckpoint, id, int64(1<<63-1)).Scan(&newest.Size, &newest.Note); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return describe(err)
	case newest.Size == c.Size && slices.Equal(newest.Note, c.Note):
		return nil
	case newest.Size >= c.Size:
		return fmt.Errorf("a checkpoint of size %d is recorded, size %d can't be: %w", newest.Size, c.Size, log.ErrExists)
	}
	if _, err := t.ExecContext(ctx, sqlInsertCheckpoint, id, c.Size, c.Note); err != nil {
		return describe(err)
	}
	return describe(t.Commit())
}

// Cosign adds cosignatures.
func (s *Store) Cosign(ctx context.Context, id log.ID, all []log.Cosignature) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	for _, c := range all {
		var recorded bool
		if err := t.GetContext(ctx, &recorded, sqlIsRecorded, id, c.Size); err != nil {
			return describe(err)
		}
		if !recorded {
			return fmt.Errorf("a cosignature on a checkpoint of size %d: %w", c.Size, log.ErrNotFound)
		}
		if _, err := t.ExecContext(ctx, sqlCosign, id, c.Size, c.Key, c.At, c.Line); err != nil {
			return describe(err)
		}
		if _, err := t.ExecContext(ctx, sqlConfirm, id, c.Key, c.Size, c.At); err != nil {
			return describe(err)
		}
	}
	return describe(t.Commit())
}

// AddEvidence keeps evidence.
func (s *Store) AddEvidence(ctx context.Context, id log.ID, e log.Evidence) error {
	_, err := s.write.ExecContext(ctx, sqlInsertEvidence, id, e.Kind, e.Key, e.Size, e.At, notNil(e.Ours), notNil(e.Theirs))
	return describe(err)
}

// notNil returns what isn't NULL in a database.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Label returns a text kept under name.
func (s *Store) Label(ctx context.Context, name, value string) (string, error) {
	if _, err := s.write.ExecContext(ctx, sqlInsertLabel, name, value); err != nil {
		return "", describe(err)
	}
	var kept string
	err := s.write.GetContext(ctx, &kept, sqlLabel, name)
	return kept, describe(err)
}

// Configure changes the settings of a log.
func (s *Store) Configure(ctx context.Context, id log.ID, change func(*log.Settings) error) (c log.Settings, err error) {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return c, describe(err)
	}
	defer t.Rollback()
	var required string
	err = t.QueryRowxContext(ctx, sqlSettings, id).Scan(&c.Title, &c.Public, &c.Rates.Events, &c.Rates.Requests, &required)
	if err != nil {
		return c, orNotFound(err)
	}
	if c.Required, err = unpackTexts(required); err != nil {
		return c, err
	}
	if err := change(&c); err != nil {
		return c, err
	}
	_, err = t.ExecContext(ctx, sqlConfigure, c.Title, c.Public, c.Rates.Events, c.Rates.Requests, packTexts(c.Required), id)
	if err != nil {
		return c, describe(err)
	}
	return c, describe(t.Commit())
}

// CreateKey adds an API key.
func (s *Store) CreateKey(ctx context.Context, k log.Key) error { return insertKey(ctx, s.write, k) }

func insertKey(ctx context.Context, db sqlx.ExecerContext, k log.Key) error {
	_, err := db.ExecContext(ctx, sqlInsertKey, k.ID, k.Hash[:], k.Role, k.Log, k.Name, k.CreatedAt, k.CreatedBy, k.Networks, k.Actions,
		k.Rates.Events, k.Rates.Requests, k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt)
	return describe(err)
}

// ChangeKey changes an API key, and adds the one that follows it.
func (s *Store) ChangeKey(ctx context.Context, id string, change func(*log.Key) (*log.Key, error)) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	k, err := scanKey(t.QueryRowxContext(ctx, sqlKey, id))
	if err != nil {
		return err
	}
	next, err := change(&k)
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, sqlChangeKey, k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt, id); err != nil {
		return describe(err)
	}
	if next != nil {
		if err := insertKey(ctx, t, *next); err != nil {
			return err
		}
	}
	return describe(t.Commit())
}

// UseKeys notes when API keys were used.
func (s *Store) UseKeys(ctx context.Context, at map[string]int64) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	for id, used := range at {
		if _, err := t.ExecContext(ctx, sqlUseKey, used, id); err != nil {
			return describe(err)
		}
	}
	return describe(t.Commit())
}

// packTexts returns texts as a JSON array.
func packTexts(texts []string) string {
	if texts == nil {
		texts = []string{}
	}
	out, err := json.Marshal(texts)
	if err != nil {
		panic(err) // texts always have a JSON form
	}
	return string(out)
}

func packHashes(hashes []merkle.Hash) []byte {
	out := make([]byte, 0, len(hashes)*merkle.HashSize)
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out
}
