package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// Query says which archived events are looked for.
type Query struct {
	Origin   string // of the log
	From, To uint64 // the half-open range of their indices; To 0: no end
	Filter   *log.Filter
	Trust    log.Trust // under which each bundle must be VALID
}

// Found is an event in an archive.
type Found struct {
	Bundle string // the name of the bundle
	log.Record
}

// Search calls fn with the archived events that a query selects, in the order of their indices, each once. A bundle is verified before
// anything of it is told, and once more while it is read. There is no index of what is archived: each bundle of the range is read.
//
// It goes on past a bundle that can't be read or isn't sound, and returns what is wrong at its end: only without an error has everything
// been found. An error of fn ends it at once.
func Search(ctx context.Context, a Archive, q Query, fn func(*Found) error) error {
	bundles, err := Bundles(ctx, a, q.Origin)
	if err != nil {
		return err
	}
	if q.To == 0 {
		q.To = math.MaxUint64
	}
	var wrong []error
	for _, b := range bundles {
		part := q
		if part.From, part.To = max(q.From, b.From), min(q.To, b.To); part.From >= part.To {
			continue
		}
		var stopped error
		err := part.searchBundle(ctx, a, b.Name, func(f *Found) error {
			stopped = fn(f)
			return stopped
		})
		switch {
		case stopped != nil:
			return stopped
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			wrong = append(wrong, err)
		default:
			q.From = b.To // bundles may overlap
		}
	}
	return errors.Join(wrong...)
}

// searchBundle searches one bundle.
func (q *Query) searchBundle(ctx context.Context, a Archive, name string, fn func(*Found) error) error {
	v, err := Read(ctx, a, name, q.Trust, nil)
	if err != nil {
		return err
	}
	again, err := Read(ctx, a, name, q.Trust, func(index uint64, d *log.Disclosure) error {
		if index < q.From || index >= q.To || !d.Shows() || !q.Filter.MatchDisclosure(d) {
			return nil
		}
		return fn(&Found{Bundle: name, Record: record(v, index, d)})
	})
	if err == nil && again.Manifest != v.Manifest {
		err = fmt.Errorf("%s in the archive was changed while it was read", name)
	}
	return err
}

// record returns the record of an archived event.
func record(v *bundle.Verification, index uint64, d *log.Disclosure) log.Record {
	r := log.Record{
		ID: d.Shown().ID(), Log: path.Base(v.Checkpoint.Origin), Index: index, Hash: d.Entry().LeafHash(), State: v.Checkpoint.State,
		ReceivedAt: d.ReceivedAt, Previous: d.Previous, Claims: d.Claims,
	}
	if d.Event != nil {
		r.Event, r.Seed = d.Event.JSON(), d.Seed[:]
	}
	return r
}

// AppendJSON appends the record as an export has it, with the name of the bundle that it is from.
func (f *Found) AppendJSON(dst []byte) []byte {
	dst = append(f.Record.AppendJSON(dst, true), `,"bundle":`...)
	name, _ := json.Marshal(f.Bundle) // a text
	return append(append(dst, name...), '}')
}

// Restore writes the archived events that a query selects, a line each, in the form of an export in NDJSON, and returns how many. The
// error is as Search's.
func Restore(ctx context.Context, a Archive, q Query, w io.Writer) (n uint64, err error) {
	var line []byte
	err = Search(ctx, a, q, func(f *Found) error {
		line = append(f.Record.AppendJSON(line[:0], false), '\n')
		_, err := w.Write(line)
		if err == nil {
			n++
		}
		return err
	})
	return n, err
}
