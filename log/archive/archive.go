package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// Errors of archives.
var (
	// ErrExists means that an object of that name is there already.
	ErrExists = errors.New("already in the archive")
	// ErrNotFound means that the archive has no such object.
	ErrNotFound = errors.New("not in the archive")
	// ErrLocked is what every LockedError is.
	ErrLocked = errors.New("locked in the archive")
)

// LockedError means that the archive keeps what was to be removed from it: it is under a lock.
type LockedError struct {
	Name  string
	Until time.Time // when the lock ends; zero: nobody knows
}

func (e *LockedError) Error() string {
	if e.Until.IsZero() {
		return fmt.Sprintf("%s is locked", e.Name)
	}
	return fmt.Sprintf("%s is locked until %s", e.Name, e.Until.UTC().Format(time.RFC3339))
}

// Is makes a LockedError ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Archive keeps objects by their names. It is safe for concurrent use, also by several servers.
type Archive interface {
	// Put adds an object, whose content write writes. Others see all of it, or none of it; on return it is durable. It is ErrExists if
	// there is an object of that name, which stays as it is. After any other error the object may be there or not.
	Put(ctx context.Context, name string, write func(io.Writer) error) error
	// Replace does that in place of the object that is there, if any, of which nothing is left then. If the archive doesn't let the old
	// content be removed it is a *LockedError, after the new one has taken its place: it's what readers get.
	Replace(ctx context.Context, name string, write func(io.Writer) error) error
	// Forget removes what writes have left of an object besides the content that readers get: older versions, and pieces of those that
	// were interrupted. The error may be a *LockedError.
	Forget(ctx context.Context, name string) error
	// Open returns the content of an object, or ErrNotFound.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// List returns the names that begin with a prefix, in byte order.
	List(ctx context.Context, prefix string) ([]string, error)
	// String returns the archive's place, without what is secret.
	String() string
	Close() error
}

// Open opens the archive at a URL:
//
//	dir:PATH
//	s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION&lock=compliance|governance&lock_for=6y
//
// The directory is made if it isn't there, the bucket must exist. See OpenS3 for what its parameters mean.
func Open(ctx context.Context, url string) (Archive, error) {
	if path, ok := strings.CutPrefix(url, "dir:"); ok && path != "" {
		return OpenDir(path)
	}
	if strings.HasPrefix(url, "s3:") {
		return OpenS3(ctx, url)
	}
	return nil, errors.New("opening archive: want dir:PATH, or a URL like s3://BUCKET/PREFIX?endpoint=https://s3.example.com&region=REGION")
}

// digits is how many digits an index has in a name at least, so that names are in the order of what they name.
const digits = 12

// Name returns the name of the bundle of all events [from, to) of the log with an origin.
func Name(origin string, from, to uint64) string {
	return fmt.Sprintf("%s/%0*d-%0*d.zip", origin, digits, from, digits, to)
}

// ParseName returns what a name says; ok is false if it isn't one that Name makes.
func ParseName(name string) (origin string, from, to uint64, ok bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", 0, 0, false
	}
	first, end, ok := strings.Cut(strings.TrimSuffix(name[i+1:], ".zip"), "-")
	if !ok {
		return "", 0, 0, false
	}
	origin = name[:i]
	from, err := strconv.ParseUint(first, 10, 64)
	to, endErr := strconv.ParseUint(end, 10, 64)
	if err != nil || endErr != nil || from > to || checkpoint.CheckOrigin(origin) != nil || Name(origin, from, to) != name {
		return "", 0, 0, false
	}
	return origin, from, to, true
}
