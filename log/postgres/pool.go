package postgres

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/jmoiron/sqlx"
)

// pool is connections to a database. Their statements are prepared, once a connection, since planning is most of what a small one
// costs. Behind a pooler that hands each transaction another connection none is.
type pool struct {
	*sqlx.DB
	pooler bool

	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

// stmt returns the prepared statement, nil behind a pooler.
func (p *pool) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if p.pooler {
		return nil, nil
	}
	if stmt := p.prepared(query); stmt != nil {
		return stmt, nil
	}
	stmt, err := p.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.stmts[query]; other != nil { // made at the same time
		return other, stmt.Close()
	}
	if p.stmts == nil {
		p.stmts = make(map[string]*sql.Stmt)
	}
	p.stmts[query] = stmt
	return stmt, nil
}

func (p *pool) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := p.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	if stmt == nil {
		return p.DB.QueryContext(ctx, query, args...)
	}
	return stmt.QueryContext(ctx, args...)
}

// scanRow reads the one row of a query; sql.ErrNoRows if there is none.
func scanRow(ctx context.Context, db queryer, query string, args []any, into ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), sql.ErrNoRows)
	}
	if err := rows.Scan(into...); err != nil {
		return err
	}
	return rows.Close()
}

// prepared returns the statement if it is prepared already.
func (p *pool) prepared(query string) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stmts[query]
}

// txQueryer runs statements within a transaction, as prepared ones if they are: it has its connection and must not wait for
// another one.
type txQueryer struct {
	tx   *sqlx.Tx
	pool *pool
}

func (t txQueryer) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt := t.pool.prepared(query)
	if stmt == nil {
		return t.tx.QueryContext(ctx, query, args...)
	}
	return t.tx.Tx.StmtContext(ctx, stmt).QueryContext(ctx, args...)
}

// Close closes the statements and the connections.
func (p *pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, stmt := range p.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, p.DB.Close())...)
}
