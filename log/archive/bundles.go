package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// ErrUnsound is wrapped by errors about an object that isn't the bundle that its name says. The rest says what is wrong with it.
var ErrUnsound = errors.New("not a sound bundle")

// Bundle is an archived bundle of all events [From, To) of a log, by its name.
type Bundle struct {
	Name     string
	From, To uint64
}

// Bundles returns the bundles of the log with an origin that an archive has, in the order of their ranges. Other objects are left out.
func Bundles(ctx context.Context, a Archive, origin string) (all []Bundle, err error) {
	names, err := a.List(ctx, origin+"/")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if of, from, to, ok := ParseName(name); ok && of == origin {
			all = append(all, Bundle{name, from, to})
		}
	}
	slices.SortFunc(all, func(a, b Bundle) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return all, nil
}

// Read reads a bundle from an archive and verifies it, as bundle.Read does: visit, if not nil, is called with each of its events. The
// error wraps ErrUnsound unless all of it is VALID, and it is the complete bundle that its name says; or else it is the archive's, or
// visit's.
func Read(ctx context.Context, a Archive, name string, trust log.Trust, visit func(index uint64, d *log.Disclosure) error) (*bundle.Verification, error) {
	origin, from, to, ok := ParseName(name)
	if !ok {
		return nil, fmt.Errorf("%s isn't the name of a bundle in an archive", name)
	}
	r, err := a.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	v, err := bundle.Read(r, trust, visit)
	if err == nil {
		err = ctx.Err()
	}
	return v, check(name, v, err, origin, from, to)
}

// check returns what is wrong with a bundle that was verified.
func check(name string, v *bundle.Verification, err error, origin string, from, to uint64) error {
	switch {
	case errors.Is(err, log.ErrInvalidProof) || errors.Is(err, log.ErrNotVerifiable):
		return fmt.Errorf("%s in the archive: %w: %w", name, ErrUnsound, err)
	case err != nil:
		return fmt.Errorf("%s in the archive: %w", name, err)
	case v.Checkpoint.Origin != origin || v.From != from || v.To != to || v.Filter != "" || !v.Complete:
		return fmt.Errorf("%s in the archive: %w: it has %d events from %d to %d of %s", name, ErrUnsound, v.Count, v.From, v.To, v.Checkpoint.Origin)
	}
	return nil
}

// Rewrite writes a bundle of an archive anew, as bundle.Rewrite does, in its own place. What can't be read or verified stays as it is. The
// error is a *LockedError if only the old version stays, under a lock.
func Rewrite(ctx context.Context, a Archive, name string, trust log.Trust, change bundle.Change) error {
	return a.Replace(ctx, name, func(w io.Writer) error {
		origin, from, to, ok := ParseName(name)
		if !ok {
			return fmt.Errorf("%s isn't the name of a bundle in an archive", name)
		}
		r, err := a.Open(ctx, name)
		if err != nil {
			return err
		}
		defer r.Close()
		v, err := bundle.Rewrite(r, w, trust, change)
		return check(name, v, err, origin, from, to)
	})
}
