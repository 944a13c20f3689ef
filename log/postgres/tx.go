package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// maxRun is how many entries fit a page with what the row needs besides.
const maxRun = 110

// tx is a log.Tx.
type tx struct {
	ctx   context.Context
	s     *Store
	conn  *sqlx.Conn
	tx    *sqlx.Tx
	db    queryer // tx, with prepared statements
	heads map[log.ID]head
	buf   []byte // rows of a COPY
}

// head is a locked head, and where its log's newest content is.
type head struct {
	log.Head
	class string
	part  int
}

// Begin starts a write transaction and locks the heads of its logs.
func (s *Store) Begin(ctx context.Context, logs []log.ID) (_ log.Tx, err error) {
	if s.write == nil {
		return nil, errReadOnly
	}
	if s.parts.stale.Load() {
		if err := s.loadParts(ctx); err != nil {
			return nil, err
		}
	}
	t := &tx{ctx: ctx, s: s, heads: make(map[log.ID]head, len(logs))}
	if t.conn, t.tx, err = s.begin(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.Rollback()
		}
	}()
	ids := make(pq.Int64Array, len(logs))
	for i, id := range logs {
		ids[i] = int64(id)
	}
	t.db = txQueryer{t.tx, s.write}
	rows, err := t.db.QueryContext(ctx, sqlLockHeads, ids)
	if err != nil {
		return nil, describe(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id log.ID
		var h head
		var last, edge []byte
		if err := rows.Scan(&id, &h.Size, &h.ReceivedAt, &last, &edge, &h.Frozen, &h.class, &h.part); err != nil {
			return nil, describe(err)
		}
		if err := unpackHead(&h.Head, last, edge); err != nil {
			return nil, err
		}
		t.heads[id] = h
	}
	return t, describe(rows.Err())
}

func (t *tx) Head(id log.ID) (log.Head, error) {
	h, ok := t.heads[id]
	if !ok {
		return log.Head{}, log.ErrNotFound
	}
	return h.Head, nil
}

func (t *tx) Find(keys []log.EventKey) (map[log.EventKey]uint64, error) {
	logs, ids := make(pq.Int64Array, len(keys)), make(pq.StringArray, len(keys))
	for i, k := range keys {
		logs[i], ids[i] = int64(k.Log), k.ID
	}
	rows, err := t.db.QueryContext(t.ctx, sqlFindAll, logs, ids)
	if err != nil {
		return nil, describe(err)
	}
	defer rows.Close()
	found := make(map[log.EventKey]uint64)
	for rows.Next() {
		var k log.EventKey
		var index uint64
		if err := rows.Scan(&k.Log, &k.ID, &index); err != nil {
			return nil, describe(err)
		}
		found[k] = index
	}
	return found, describe(rows.Err())
}

func (t *tx) PayloadsAt(id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	return t.s.payloadsAt(t.ctx, t.db, id, indices, fn)
}

// smallBatch is up to how many events are appended by one statement. More are copied, which takes four round trips and a third less
// of PostgreSQL's time for each.
const smallBatch = 256

// appendSmall is the statement that appends a small batch whose contents go to a part.
func appendSmall(part int) string {
	return sqlAppendHeads + fmt.Sprintf(sqlAppendRows, part) + sqlAppendEnd
}

// Append moves the heads, which decides whether the rest may be written at all, and writes the rows.
func (t *tx) Append(batches []*log.Batch) error {
	if i := slices.IndexFunc(batches, func(b *log.Batch) bool { return len(b.Growths) > 0 }); i >= 0 {
		if err := t.appendGrowths(batches[i]); err != nil {
			return err
		}
		batches = slices.Concat(batches[:i], batches[i+1:])
	}
	if len(batches) == 0 {
		return nil
	}
	parts := make([]int, len(batches))
	rows := 0
	for i, b := range batches {
		if err := b.Check(); err != nil {
			return err
		}
		h := t.heads[b.Log]
		part, err := t.s.partFor(t.ctx, t.tx, h.class, h.part)
		if err != nil {
			return err
		}
		parts[i] = part
		rows += len(b.Rows)
	}
	if err := t.enterParts(batches, parts); err != nil {
		return err
	}
	into := distinct(parts)
	if rows <= smallBatch && len(into) == 1 && !slices.ContainsFunc(batches, isPartly) {
		return t.s.partEnded(t.move(appendSmall(into[0]), batches, append(headArgs(batches, parts), rowArgs(batches)...)))
	}
	if err := t.move(sqlAppendHeads+sqlAppendEnd, batches, headArgs(batches, parts)); err != nil {
		return err
	}
	if err := t.copy(sqlCopyIDs, batches, writeIDs); err != nil {
		return err
	}
	for _, part := range into {
		var in []*log.Batch
		for i, b := range batches {
			if parts[i] == part {
				in = append(in, b)
			}
		}
		err := t.copy(fmt.Sprintf(sqlCopyPayloads, part), in, func(w *copier, b *log.Batch) error {
			return writePayloads(w, b, part)
		})
		if err != nil {
			return t.s.partEnded(err)
		}
	}
	return nil
}

// isPartly reports whether something of a batch's contents is gone.
func isPartly(b *log.Batch) bool {
	return slices.ContainsFunc(b.Rows, func(r log.Row) bool { return r.Seed == nil || r.Data == nil })
}

// appendGrowths appends to a hub.
func (t *tx) appendGrowths(b *log.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	var hubs, subjects, sizes, indices pq.Int64Array
	for _, g := range b.Growths {
		hubs, subjects = append(hubs, int64(b.Log)), append(subjects, int64(g.Log))
		sizes, indices = append(sizes, int64(g.Size)), append(indices, int64(g.Index))
	}
	batches := []*log.Batch{b}
	args := append(headArgs(batches, []int{t.heads[b.Log].part}), hubs, subjects, sizes, indices)
	return t.move(sqlAppendHeads+sqlAppendGrowths+sqlAppendEnd, batches, args)
}

// move runs a statement that moves the heads.
func (t *tx) move(statement string, batches []*log.Batch, args []any) error {
	var moved int
	if err := scanRow(t.ctx, t.db, statement, args, &moved); err != nil {
		return describe(err)
	}
	if moved != len(batches) {
		return log.ErrHeadMoved
	}
	return nil
}

// headArgs returns the arguments of sqlAppendHeads. Runs of entries end where entry bundles do, so that no reader of one has to read
// much more.
func headArgs(batches []*log.Batch, parts []int) []any {
	var heads struct {
		log, from, size, receivedAt, part pq.Int64Array
		last, edge                        pq.ByteaArray
	}
	var runs struct {
		log, first, start, length pq.Int64Array
		entries                   []byte
	}
	var nodes struct {
		log, level, index pq.Int64Array
		hash              pq.ByteaArray
	}
	for i, b := range batches {
		id := int64(b.Log)
		heads.log, heads.from = append(heads.log, id), append(heads.from, int64(b.From))
		heads.size, heads.receivedAt = append(heads.size, int64(b.Head.Size)), append(heads.receivedAt, b.Head.ReceivedAt)
		heads.last, heads.edge = append(heads.last, b.Head.Last[:]), append(heads.edge, packHashes(b.Head.Edge))
		heads.part = append(heads.part, int64(parts[i]))
		start := len(runs.entries)
		runs.entries = append(runs.entries, b.Entries...)
		for first := b.From; first < b.Head.Size; {
			n := min(merkle.TileWidth-int(first%merkle.TileWidth), int(b.Head.Size-first), maxRun)
			runs.log, runs.first = append(runs.log, id), append(runs.first, int64(first))
			runs.start, runs.length = append(runs.start, int64(start+1)), append(runs.length, int64(n*log.EntrySize))
			first, start = first+uint64(n), start+n*log.EntrySize
		}
		for _, n := range b.Nodes {
			nodes.log, nodes.level = append(nodes.log, id), append(nodes.level, int64(n.Level))
			nodes.index, nodes.hash = append(nodes.index, int64(n.Index)), append(nodes.hash, n.Hash[:])
		}
	}
	return []any{
		heads.log, heads.from, heads.size, heads.receivedAt, heads.last, heads.edge, heads.part,
		runs.entries, runs.log, runs.first, runs.start, runs.length,
		nodes.log, nodes.level, nodes.index, nodes.hash,
	}
}

// rowArgs returns the further arguments of sqlAppendRows.
func rowArgs(batches []*log.Batch) []any {
	var logs, indices, starts, lengths pq.Int64Array
	var ids pq.StringArray
	var seeds, contents []byte
	for _, b := range batches {
		for i := range b.Rows {
			r := &b.Rows[i]
			logs, indices, ids = append(logs, int64(b.Log)), append(indices, int64(b.From)+int64(i)), append(ids, r.ID)
			starts, lengths = append(starts, int64(len(contents)+1)), append(lengths, int64(len(r.Data)))
			seeds, contents = append(seeds, r.Seed...), append(contents, r.Data...)
		}
	}
	return []any{logs, indices, ids, seeds, contents, starts, lengths}
}

// enterParts notes where logs begin to have contents in another part.
func (t *tx) enterParts(batches []*log.Batch, parts []int) error {
	var logs, into, firsts pq.Int64Array
	for i, b := range batches {
		if t.heads[b.Log].part != parts[i] {
			logs, into, firsts = append(logs, int64(b.Log)), append(into, int64(parts[i])), append(firsts, int64(b.From))
		}
	}
	if logs == nil {
		return nil
	}
	_, err := t.tx.ExecContext(t.ctx, sqlEnterParts, logs, into, firsts)
	return describe(err)
}

// copy copies the rows that write makes of each batch.
func (t *tx) copy(statement string, batches []*log.Batch, write func(*copier, *log.Batch) error) (err error) {
	t.buf, err = copyRows(t.ctx, t.conn, t.buf, statement, func(w *copier) error {
		for _, b := range batches {
			if err := write(w, b); err != nil {
				return err
			}
		}
		return nil
	})
	return describe(err)
}

func writeIDs(w *copier, b *log.Batch) error {
	for i := range b.Rows {
		w.int(uint64(b.Log))
		w.int(b.From + uint64(i))
		w.text(b.Rows[i].ID)
		if err := w.end(); err != nil {
			return err
		}
	}
	return nil
}

func writePayloads(w *copier, b *log.Batch, part int) error {
	for i := range b.Rows {
		if b.Rows[i].Data == nil {
			continue
		}
		w.int(uint64(b.Log))
		w.int(b.From + uint64(i))
		w.int(uint64(part))
		w.bytes(b.Rows[i].Seed)
		w.content(b.Rows[i].Data)
		if err := w.end(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) Commit() error {
	err := t.tx.Commit()
	t.conn.Close()
	return describe(err)
}

func (t *tx) Rollback() {
	t.tx.Rollback()
	t.conn.Close()
}

// begin starts a transaction.
func (s *Store) begin(ctx context.Context) (*sqlx.Conn, *sqlx.Tx, error) {
	return s.beginOn(ctx, s.write, ctx)
}

// beginOn starts a transaction on a connection of a pool, which bound ends. A connection that was lost since it was last used is passed
// over: nothing has happened on it.
func (s *Store) beginOn(ctx context.Context, db *pool, bound context.Context) (*sqlx.Conn, *sqlx.Tx, error) {
	if err := s.safe(); err != nil {
		return nil, nil, err
	}
	for lost := 0; ; lost++ {
		conn, err := db.Connx(ctx)
		if err != nil {
			return nil, nil, describe(err)
		}
		t, err := conn.BeginTxx(bound, &sql.TxOptions{Isolation: sql.LevelReadCommitted}) // whatever the database's default
		if err == nil {
			return conn, t, nil
		}
		conn.Close()
		hungUp := errors.Is(err, driver.ErrBadConn) || errors.Is(err, syscall.ECONNRESET)
		if !hungUp || lost > db.Stats().MaxOpenConnections {
			return nil, nil, describe(err)
		}
	}
}

// Attempts at a transaction that PostgreSQL undoes for the sake of others, and the longest first pause between two.
const (
	maxAttempts  = 10
	attemptPause = 2 * time.Millisecond
)

// inTx commits what fn does, and does it again from the start if PostgreSQL undid it for the sake of others. Whatever writes is in
// a transaction: a statement outside of one is repeated by database/sql when its answer is lost, though it was carried out.
func (s *Store) inTx(ctx context.Context, fn func(*sqlx.Conn, *sqlx.Tx) error) error {
	if s.write == nil {
		return errReadOnly
	}
	return s.inTxOn(ctx, s.write, fn)
}

// inTxOn does so on a connection of a pool.
func (s *Store) inTxOn(ctx context.Context, db *pool, fn func(*sqlx.Conn, *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.tryTx(ctx, db, fn)
		if !errors.Is(err, log.ErrRolledBack) || attempt == maxAttempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(attemptPause << attempt)):
		}
	}
}

func (s *Store) tryTx(ctx context.Context, db *pool, fn func(*sqlx.Conn, *sqlx.Tx) error) error {
	conn, t, err := s.beginOn(ctx, db, ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer t.Rollback()
	if err := fn(conn, t); err != nil {
		return describe(err)
	}
	return describe(t.Commit())
}

// class is the retention class of new logs' contents.
const class = "standard"

// CreateLog adds an empty log.
func (s *Store) CreateLog(ctx context.Context, info *log.Info) error {
	var id log.ID
	err := s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		var taken bool
		if err := t.GetContext(ctx, &taken, sqlTaken, info.Name, info.Origin); err != nil {
			return err
		}
		if taken {
			return fmt.Errorf("log %q: %w", info.Name, log.ErrExists)
		}
		c := info.Settings
		err := t.GetContext(ctx, &id, sqlInsertLog, info.Name, info.Origin, info.CreatedAt, c.Title, c.Public, c.Rates.Events,
			c.Rates.Requests, packTexts(c.Required))
		if pq.As(err, pqerror.UniqueViolation) != nil {
			// Another server made a log at the same time, which took the number, or the name.
			return fmt.Errorf("%w: %w", log.ErrRolledBack, err)
		}
		if err != nil {
			return err
		}
		return insertEmpty(ctx, t, id, info)
	})
	if err == nil {
		info.ID = id
	}
	return err
}

// insertEmpty adds what an empty log has besides its row in logs.
func insertEmpty(ctx context.Context, t *sqlx.Tx, id log.ID, info *log.Info) error {
	for i, vkey := range info.VKeys {
		if _, err := t.ExecContext(ctx, sqlInsertVKey, id, i, vkey); err != nil {
			return err
		}
	}
	genesis := log.Genesis(info.Origin)
	if _, err := t.ExecContext(ctx, sqlInsertHead, id, genesis[:], class); err != nil {
		return err
	}
	_, err := t.ExecContext(ctx, sqlInsertSigned, id)
	return err
}

// AddVKey adds a verifier key to those of a log.
func (s *Store) AddVKey(ctx context.Context, id log.ID, vkey string) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlAddVKey, id, vkey)
		if pq.As(err, pqerror.UniqueViolation) != nil {
			// Another server added one at the same time.
			return fmt.Errorf("%w: %w", log.ErrRolledBack, err)
		}
		return err
	})
}

// Freeze ends a log.
func (s *Store) Freeze(ctx context.Context, id log.ID) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return changeOne(t.ExecContext(ctx, sqlFreeze, id)) })
}

// changeOne returns ErrNotFound if a statement changed no row.
func changeOne(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return log.ErrNotFound
	}
	return nil
}

// Record adds a checkpoint. The row in signed is what two servers that record at the same time wait for.
func (s *Store) Record(ctx context.Context, id log.ID, c log.Signed) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		err := changeOne(t.ExecContext(ctx, sqlMoveSigned, id, c.Size))
		if errors.Is(err, log.ErrNotFound) {
			return recorded(ctx, t, id, c)
		}
		if err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, sqlInsertCheckpoint, id, c.Size, c.Note)
		return err
	})
}

// recorded returns nil if c is the newest checkpoint that is recorded.
func recorded(ctx context.Context, t *sqlx.Tx, id log.ID, c log.Signed) error {
	var newest log.Signed
	err := t.QueryRowxContext(ctx, sqlCheckpoint, id, int64(merkle.MaxSize)).Scan(&newest.Size, &newest.Note)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return log.ErrNotFound
	case err != nil:
		return err
	case newest.Size == c.Size && string(newest.Note) == string(c.Note):
		return nil
	}
	return fmt.Errorf("a checkpoint of size %d is recorded, size %d can't be: %w", newest.Size, c.Size, log.ErrExists)
}

// Cosign adds cosignatures.
func (s *Store) Cosign(ctx context.Context, id log.ID, all []log.Cosignature) error {
	if len(all) == 0 {
		return nil
	}
	sizes, times := make(pq.Int64Array, len(all)), make(pq.Int64Array, len(all))
	keys, lines := make(pq.StringArray, len(all)), make(pq.StringArray, len(all))
	for i, c := range all {
		sizes[i], keys[i], times[i], lines[i] = int64(c.Size), c.Key, c.At, c.Line
	}
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		var unrecorded uint64
		err := t.GetContext(ctx, &unrecorded, sqlUnrecorded, id, sizes)
		if err == nil {
			return fmt.Errorf("a cosignature on a checkpoint of size %d: %w", unrecorded, log.ErrNotFound)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := t.ExecContext(ctx, sqlCosign, id, sizes, keys, times, lines); err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, sqlConfirm, id, sizes, keys, times)
		return err
	})
}

// AddEvidence keeps evidence.
func (s *Store) AddEvidence(ctx context.Context, id log.ID, e log.Evidence) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlInsertEvidence, id, e.Kind, e.Key, e.Size, e.At, notNil(e.Ours), notNil(e.Theirs))
		return err
	})
}

// notNil returns what isn't NULL in a database.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Label returns a text kept under name.
func (s *Store) Label(ctx context.Context, name, value string) (kept string, err error) {
	err = s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		if _, err := t.ExecContext(ctx, sqlInsertLabel, name, value); err != nil {
			return err
		}
		return t.GetContext(ctx, &kept, sqlLabel, name)
	})
	return kept, err
}

// CreateKey adds an API key.
func (s *Store) CreateKey(ctx context.Context, k log.Key) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return insertKey(ctx, t, k) })
}

func insertKey(ctx context.Context, t *sqlx.Tx, k log.Key) error {
	_, err := t.ExecContext(ctx, sqlInsertKey, k.ID, k.Hash[:], string(k.Role), k.Log, k.Name, k.CreatedAt, k.CreatedBy, k.Networks, k.Actions,
		k.Rates.Events, k.Rates.Requests, k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt)
	return err
}

// ChangeKey changes an API key, and adds the one that follows it.
func (s *Store) ChangeKey(ctx context.Context, id string, change func(*log.Key) (*log.Key, error)) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		k, err := scanKey(t.QueryRowxContext(ctx, sqlLockKey, id))
		if err != nil {
			return err
		}
		next, err := change(&k)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, sqlChangeKey, id, k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		return insertKey(ctx, t, *next)
	})
}

// UseKeys notes when API keys were used.
func (s *Store) UseKeys(ctx context.Context, at map[string]int64) error {
	var ids pq.StringArray
	var times pq.Int64Array
	for _, id := range slices.Sorted(maps.Keys(at)) {
		ids, times = append(ids, id), append(times, at[id])
	}
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlUseKeys, ids, times)
		return err
	})
}

// Configure changes the settings of a log.
func (s *Store) Configure(ctx context.Context, id log.ID, change func(*log.Settings) error) (c log.Settings, err error) {
	err = s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		c = log.Settings{}
		var required string
		err := t.QueryRowxContext(ctx, sqlLockSettings, id).Scan(&c.Title, &c.Public, &c.Rates.Events, &c.Rates.Requests, &required)
		if err != nil {
			return orNotFound(err)
		}
		if c.Required, err = unpackTexts(required); err != nil {
			return err
		}
		if err := change(&c); err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, sqlConfigure, id, c.Title, c.Public, c.Rates.Events, c.Rates.Requests, packTexts(c.Required))
		return err
	})
	return c, err
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
