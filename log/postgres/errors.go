package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
)

var (
	errReadOnly = errors.New("the store was opened for reading")
	errNoTLS    = errors.New("the server has no TLS; switch it on there, or, where nobody else can listen, put ?sslmode=disable into the URL")
)

// describe names the errors of PostgreSQL that a caller or an operator can do something about.
func describe(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrSchema) || errors.Is(err, errNoTLS) { // described already
		return err
	}
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return errNoTLS
	}
	if e := pq.As(err); e != nil {
		return describeServer(err, e)
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

func describeServer(err error, e *pq.Error) error {
	if e.Code == pqerror.ProtocolViolation && strings.Contains(e.Message, "startup parameter") {
		return fmt.Errorf("%w: %w; let the pooler ignore it: ignore_startup_parameters", ErrUnreachable, err)
	}
	switch e.Code.Class() {
	case "40": // transaction rollback: serialization failures, deadlocks
		if e.Code == pqerror.TRStatementCompletionUnknown {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return fmt.Errorf("%w: %w", log.ErrRolledBack, err)
	case "28": // invalid authorization
		return fmt.Errorf("%w: it refuses the user or the password: %w", ErrUnreachable, err)
	case "3D": // no such database
		return fmt.Errorf("%w: %w; make it with createdb", ErrUnreachable, err)
	case "08", "57": // connection; shutdown, start-up, cancelled by a timeout
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case "53": // out of disk, memory or connections
		return fmt.Errorf("%w: PostgreSQL is out of resources: %w", ErrUnreachable, err)
	case "XX":
		if strings.HasPrefix(string(e.Code), "XX00") && e.Code != pqerror.InternalError {
			return fmt.Errorf("%w: %w", err, log.ErrDamaged)
		}
	}
	switch e.Code {
	case pqerror.UniqueViolation, pqerror.CheckViolation, pqerror.NotNullViolation:
		return fmt.Errorf("a row is there that shouldn't be: %w: %w", err, log.ErrDamaged)
	case pqerror.InvalidSQLStatementName, pqerror.DuplicatePstatement:
		return fmt.Errorf("a pooler hands each transaction another connection, start with --db-pooler: %w", err)
	case pqerror.UndefinedTable, pqerror.UndefinedColumn:
		return fmt.Errorf("%w: %w; run: treeline migrate up", ErrSchema, err)
	case pqerror.ReadOnlySQLTransaction:
		return fmt.Errorf("%w: the server is a standby: %w", ErrUnreachable, err)
	}
	return err
}

func orNotFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return log.ErrNotFound
	}
	return describe(err)
}

func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, log.ErrDamaged)...)
}
