// Package postgres keeps logs in a PostgreSQL database (14 or newer): the store for production, for any number of servers.
//
// What keeps a log from forking is one statement: its head is moved WHERE size is what the writer built on, in the
// transaction that adds the rows. That transaction first locks the heads of its logs, in the order of their numbers, so
// that writers queue instead of failing. Nothing depends on a session: no advisory locks, no LISTEN, and no prepared statements
// where a pooler may hand each transaction another connection, see Options.Pooler.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/treeline-log/treeline/log"
)

// Options say how a store is opened. URL is required.
type Options struct {
	URL string // postgres://user:password@host:port/database?sslmode=…
	// AllowUnsafe opens a database on a server that may lose or damage what it has committed.
	AllowUnsafe bool
	// PartRows is how many contents a part takes before the next one is opened; 0 is DefaultPartRows.
	PartRows uint64
	// Conns bounds the connections that read; those that write are one for each lane. 0 is DefaultConns.
	Conns int
	// Lanes is how many transactions append at a time; 0 is DefaultLanes.
	Lanes int
	// Pooler means that the URL leads to a pooler that hands each transaction another connection, so that statements can't be
	// prepared: that costs PostgreSQL the planning of each.
	Pooler bool
	// Unhurried lets statements take up to an hour instead of 30 s, for a checker.
	Unhurried bool
	Logger    *slog.Logger // nil: none

	// For tests.
	now   func() time.Time // of the age of parts; nil: time.Now
	grace time.Duration    // 0: grace
}

func (o Options) patience() time.Duration {
	if o.Unhurried {
		return checkTimeout
	}
	return statementTimeout
}

// Defaults of Options.
const (
	DefaultPartRows = 1_000_000
	DefaultConns    = 16
	DefaultLanes    = 4
)

// Limits of what is waited for. They hold unless the URL sets the parameter of that name.
const (
	connectTimeout   = 10 * time.Second
	statementTimeout = 30 * time.Second
	checkTimeout     = time.Hour        // of a statement, for a checker or a migration
	idleTimeout      = 30 * time.Second // of an open transaction: a server that vanished must not keep its locks
	grace            = 15 * time.Second // beyond the longest statement, after which a silent connection is given up
	pingTimeout      = 5 * time.Second
)

// Errors of opening.
var (
	// ErrUnreachable means that PostgreSQL doesn't answer, refuses, or has no time or room. It may pass.
	ErrUnreachable = fmt.Errorf("PostgreSQL: %w", log.ErrUnreachable)
	// ErrSchema means that the database has another schema than this program works with.
	ErrSchema = errors.New("the database isn't ready for this program")
	// ErrUnsafe means that the server's settings let it lose what it has committed, so nothing is written.
	ErrUnsafe = fmt.Errorf("%w: PostgreSQL's settings let it lose committed data", log.ErrUnavailable)
)

// Store is a log.Store in a PostgreSQL database.
type Store struct {
	write   *pool // nil when read-only
	custody *pool // for guards and Shred; nil when read-only
	read    *pool
	parts   parts

	allowUnsafe bool
	unsafe      atomic.Pointer[string] // the settings that let the server lose commits, by name; nil: not looked at yet

	end     context.CancelFunc // ends the loop that opens parts
	ended   sync.WaitGroup
	logger  *slog.Logger
	address string // for messages

	shredder shredder
	copied   *partCopy // by this server, and yet to take its part's place

	testingOnlyFault func(step string) error // that a step of removing contents ends with, as if the process ended there
}

var _ log.Importer = (*Store)(nil)

// Open opens the store in a database that has the schema which this program works with, see Migrate.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PartRows == 0 {
		o.PartRows = DefaultPartRows
	}
	if o.now == nil {
		o.now = time.Now
	}
	s, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx, o); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.address, err)
	}
	return s, nil
}

// OpenReadOnly opens the store for reading, as a replica or a checker does. What would write fails.
func OpenReadOnly(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := checkVersion(ctx, s.read.DB); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.address, err)
	}
	s.write.Close()
	s.custody.Close()
	s.write, s.custody = nil, nil
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	if o.grace == 0 {
		o.grace = grace
	}
	s := &Store{logger: o.Logger, end: func() {}}
	connections := func(n int) (*pool, error) {
		var db *sqlx.DB
		// After a network was cut all that are idle are as silent as the first that was noticed.
		silent := func() {
			db.SetMaxIdleConns(-1)
			db.SetMaxIdleConns(n)
		}
		connector, address, err := connect(o.URL, o.patience(), o.grace, !o.Pooler, silent)
		if err != nil {
			return nil, err
		}
		s.address = address
		db = sqlx.NewDb(sql.OpenDB(connector), "postgres")
		db.SetMaxOpenConns(n)
		db.SetMaxIdleConns(n)
		db.SetConnMaxIdleTime(5 * time.Minute)
		return &pool{DB: db, pooler: o.Pooler}, nil
	}
	var err error
	if s.read, err = connections(orDefault(o.Conns, DefaultConns)); err != nil {
		return nil, err
	}
	// Checkpoints and administration beside the lanes.
	if s.write, err = connections(orDefault(o.Lanes, DefaultLanes) + 2); err != nil {
		return nil, err
	}
	if s.custody, err = connections(custodyConns); err != nil {
		return nil, err
	}
	if err := s.read.PingContext(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.address, describe(err))
	}
	return s, nil
}

// prepare checks the database and its server, and starts to look after the parts.
func (s *Store) prepare(ctx context.Context, o Options) error {
	if err := checkVersion(ctx, s.read.DB); err != nil {
		return err
	}
	s.allowUnsafe = o.AllowUnsafe
	if err := s.checkServer(ctx); err != nil {
		return err
	}
	for _, query := range []string{sqlLockHeads, sqlFindAll, sqlAppendHeads + sqlAppendEnd} {
		if _, err := s.write.stmt(ctx, query); err != nil {
			return describe(err)
		}
	}
	s.parts.rows, s.parts.now = o.PartRows, o.now
	if err := s.openPart(ctx, class, 0); err != nil {
		return err
	}
	ctx, s.end = context.WithCancel(context.Background())
	s.ended.Go(func() { s.rotate(ctx) })
	return nil
}

// checkServer refuses a server that would lose commits, and one that can't be written to.
func (s *Store) checkServer(ctx context.Context) error {
	settings := make(map[string]string)
	err := each(ctx, s.read, sqlSettings, func(rows *sql.Rows) error {
		var name, value string
		err := rows.Scan(&name, &value)
		settings[name] = value
		return err
	})
	if err != nil {
		return err
	}
	if v, _ := strconv.Atoi(settings["server_version_num"]); v < 140000 {
		return fmt.Errorf("it is PostgreSQL %s, want 14 or newer", settings["server_version"])
	}
	if settings["in_recovery"] != "off" {
		return fmt.Errorf("the server is a standby: it can't be written to: %w", ErrUnreachable)
	}
	s.noteSafety(settings["fsync"], settings["full_page_writes"], settings["synchronous_commit"])
	if err := s.safe(); err != nil {
		return err
	}
	if settings["idle_in_transaction_session_timeout"] == "0" {
		s.logger.Warn("a server that vanishes keeps its locks: a pooler ignores idle_in_transaction_session_timeout; set it for the role")
	}
	return nil
}

// noteSafety notes which settings let the server lose what it has committed, and says so when that has changed.
func (s *Store) noteSafety(fsync, fullPageWrites, synchronousCommit string) {
	var off []string
	for _, setting := range []struct{ name, value string }{
		{"fsync", fsync}, {"full_page_writes", fullPageWrites}, {"synchronous_commit", synchronousCommit},
	} {
		if setting.value == "off" {
			off = append(off, setting.name)
		}
	}
	unsafe := strings.Join(off, ", ")
	before := s.unsafe.Swap(&unsafe)
	switch {
	case before != nil && *before == unsafe || before == nil && unsafe == "":
	case unsafe == "":
		s.logger.Info("the database's settings are safe again")
	case s.allowUnsafe:
		s.logger.Warn("UNSAFE DATABASE: a crash loses or damages acknowledged events", "off", unsafe)
	default:
		s.logger.Error("UNSAFE DATABASE: a crash would lose or damage acknowledged events, so nothing is written", "off", unsafe)
	}
}

// safe returns ErrUnsafe if nothing may be written since the server may lose it.
func (s *Store) safe() error {
	unsafe := s.unsafe.Load()
	if unsafe == nil || *unsafe == "" || s.allowUnsafe {
		return nil
	}
	return fmt.Errorf("%w: off is %s; turn it on, or accept the loss of acknowledged events with --allow-unsafe-db", ErrUnsafe, *unsafe)
}

// CheckCopy returns an error if other isn't this database, on the same server or on one that follows it: whatever is read there
// would be of other logs.
func (s *Store) CheckCopy(ctx context.Context, other *Store) error {
	var here, there string
	if err := s.read.GetContext(ctx, &here, sqlIdentity); err != nil {
		return fmt.Errorf("%s: %w", s.address, describe(err))
	}
	if err := other.read.GetContext(ctx, &there, sqlIdentity); err != nil {
		return fmt.Errorf("%s: %w", other.address, describe(err))
	}
	if here != there {
		return fmt.Errorf("%s isn't a standby of %s", other.address, s.address)
	}
	return nil
}

// Address returns where the database is, for messages: it has no password.
func (s *Store) Address() string { return s.address }

// planning lets PostgreSQL plan a prepared statement once, for any parameters: otherwise it plans some of them anew each time, which
// takes it longer than to run them. The plan is kept while tables grow that were empty when it was made, so it must not be to
// read them whole. Nor is anything compiled: what can't be read otherwise than whole then costs so much by PostgreSQL's reckoning
// (until version 17) that it would be, for 10 ms each time, and for 300 the first time in a session.
var planning = map[string]string{"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

// connect returns what makes connections, and the address for messages, which has no password. A connection that is silent for a
// grace longer than a statement may take is given up, and silent is called.
func connect(url string, patience, grace time.Duration, prepared bool, silent func()) (*pq.Connector, string, error) {
	c, err := pq.NewConfig(url)
	if err != nil {
		return nil, "", errors.New("the database's URL can't be read: want postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full")
	}
	// One round trip a statement, and none that needs the same connection as the one before.
	c.BinaryParameters = true
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.ApplicationName == "" {
		c.ApplicationName = "treeline"
	}
	if c.Runtime == nil {
		c.Runtime = make(map[string]string)
	}
	parameters := map[string]string{
		"statement_timeout":                   strconv.FormatInt(patience.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": strconv.FormatInt(idleTimeout.Milliseconds(), 10),
		// While PostgreSQL waits for the data of a COPY it minds neither: a client that vanished is noticed by TCP, in 30 s.
		"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4",
	}
	if prepared {
		maps.Copy(parameters, planning)
	}
	for name, value := range parameters {
		if _, set := c.Runtime[name]; !set {
			c.Runtime[name] = value
		}
	}
	if patience, err = timeout(c.Runtime["statement_timeout"]); err != nil {
		return nil, "", err
	}
	connector, err := pq.NewConnectorConfig(c)
	if err != nil {
		return nil, "", fmt.Errorf("the database's URL: %w", err)
	}
	connector.Dialer(dialer{patience + grace, silent})
	host := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	return connector, fmt.Sprintf("database %s at %s, user %s", c.Database, host, c.User), nil
}

// timeout reads a statement_timeout as it is written in a URL: milliseconds, or a number and a unit. 0 is none, so the longest.
func timeout(value string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.Replace(value, "min", "m", 1))
	if ms, atoiErr := strconv.Atoi(value); atoiErr == nil {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("the database's URL has statement_timeout=%s: want milliseconds, or a number and ms, s, min or h", value)
	}
	if d == 0 {
		d = checkTimeout
	}
	return d, nil
}

// dialer makes connections that fail when the other side owes an answer for too long, as after a network was cut.
type dialer struct {
	silence time.Duration
	silent  func()
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, connectTimeout)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: c, dialer: d}, nil
}

// patientConn is a connection on which each read and each write waits so long and no longer. Nothing is read from one that is idle.
type patientConn struct {
	net.Conn
	dialer
	limited bool // by the driver, while it connects
}

func (c *patientConn) SetDeadline(t time.Time) error {
	c.limited = !t.IsZero()
	return c.Conn.SetDeadline(t)
}

func (c *patientConn) Read(b []byte) (int, error) {
	return c.patiently(c.SetReadDeadline, c.Conn.Read, b)
}

func (c *patientConn) Write(b []byte) (int, error) {
	return c.patiently(c.SetWriteDeadline, c.Conn.Write, b)
}

func (c *patientConn) patiently(limit func(time.Time) error, do func([]byte) (int, error), b []byte) (int, error) {
	if !c.limited {
		if err := limit(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	n, err := do(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.limited {
		go c.silent() // which closes connections, and may not be called by one
	}
	return n, err
}

// Ping reports whether the database can be written to.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- s.ping(ctx) }() // the driver doesn't give up a silent connection when ctx ends
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: it doesn't answer", s.address, ErrUnreachable)
	}
}

func (s *Store) ping(ctx context.Context) error {
	_, standby, err := s.look(ctx)
	switch {
	case err != nil:
	case standby:
		err = errors.New("the server is a standby")
	default:
		err = s.safe()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.address, err)
	}
	return nil
}

// Incarnation returns when the server was started.
func (s *Store) Incarnation(ctx context.Context) (string, error) {
	started, _, err := s.look(ctx)
	return started, err
}

// look reads what may have changed when the server was started again, another one has taken its place, or it has read its
// configuration again. Whether it is safe to write to is noted.
func (s *Store) look(ctx context.Context) (started string, standby bool, err error) {
	var fsync, fullPageWrites, synchronousCommit string
	err = scanRow(ctx, s.read, sqlState, nil, &started, &standby, &fsync, &fullPageWrites, &synchronousCommit)
	if err != nil {
		return "", false, describe(err)
	}
	s.noteSafety(fsync, fullPageWrites, synchronousCommit)
	return started, standby, nil
}

// Close closes all connections.
func (s *Store) Close() error {
	s.end()
	s.ended.Wait()
	var errs []error
	for _, db := range []*pool{s.read, s.custody, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// fault ends a step of removing contents, for tests.
func (s *Store) fault(step string) error {
	if s.testingOnlyFault == nil {
		return nil
	}
	return s.testingOnlyFault(step)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
