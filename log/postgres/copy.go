package postgres

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
)

// copyChunk is how many bytes of a COPY are sent at a time, so that the server reads while the next ones are made.
const copyChunk = 60 << 10

// copier writes rows into a table by COPY, in text format: columns are separated by tabs, backslashes are doubled. The rows
// are made here and not by the driver, which would turn each content into twice as many bytes.
type copier struct {
	ctx  context.Context
	stmt copyStmt
	buf  []byte
}

// copyStmt is the driver's COPY statement.
type copyStmt interface {
	driver.Stmt
	CopyData(ctx context.Context, lines string) (driver.Result, error)
}

// copyRows runs a COPY statement on a connection that is in a transaction, with the rows that fn writes.
func copyRows(ctx context.Context, conn *sqlx.Conn, buf []byte, statement string, fn func(*copier) error) ([]byte, error) {
	w := &copier{ctx: ctx, buf: buf[:0]}
	var err error
	rawErr := conn.Raw(func(c any) error {
		err = w.copy(c.(driver.Conn), statement, fn)
		// Not returned: for a lost connection database/sql would wait here until the transaction has ended, which waits for this.
		return nil
	})
	return w.buf, errors.Join(rawErr, err)
}

func (w *copier) copy(conn driver.Conn, statement string, fn func(*copier) error) (err error) {
	stmt, err := conn.Prepare(statement)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := stmt.Close(); err == nil {
			err = closeErr
		}
	}()
	var ok bool
	if w.stmt, ok = stmt.(copyStmt); !ok {
		return errors.New("the driver can't COPY")
	}
	if err := fn(w); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	_, err = stmt.Exec(nil) //nolint:staticcheck // the driver's way to end a COPY and learn of its errors
	return err
}

func (w *copier) int(n uint64) {
	w.buf = strconv.AppendUint(w.buf, n, 10)
	w.buf = append(w.buf, '\t')
}

// text writes a text that needs no escaping, as ids and names don't.
func (w *copier) text(s string) {
	w.buf = append(append(w.buf, s...), '\t')
}

// bytes writes bytes, or NULL if they are nil.
func (w *copier) bytes(b []byte) {
	if b == nil {
		w.buf = append(w.buf, `\N`...)
		w.buf = append(w.buf, '\t')
		return
	}
	w.buf = append(w.buf, `\\x`...)
	w.buf = append(hex.AppendEncode(w.buf, b), '\t')
}

// content writes bytes that may be mostly text, which PostgreSQL takes as it is: half as many bytes as in hex.
func (w *copier) content(b []byte) {
	if len(b) == 0 || b[0] != 0 || !utf8.Valid(b) {
		w.bytes(b)
		return
	}
	for _, c := range b {
		switch {
		case c == '\\': // doubled once for the type, and once for COPY
			w.buf = append(w.buf, `\\\\`...)
		case c < ' ' || c == 0x7f:
			w.buf = append(w.buf, '\\', '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		default:
			w.buf = append(w.buf, c)
		}
	}
	w.buf = append(w.buf, '\t')
}

// end ends a row.
func (w *copier) end() error {
	w.buf[len(w.buf)-1] = '\n' // instead of the last tab
	if len(w.buf) < copyChunk {
		return nil
	}
	return w.flush()
}

func (w *copier) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.stmt.CopyData(w.ctx, string(w.buf[:len(w.buf)-1])) // which adds the newline
	w.buf = w.buf[:0]
	return err
}
