package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
	"github.com/treeline-log/treeline/merkle"
)

// testingOnlyFull says, in tests, that a bundle with so many events is full.
var testingOnlyFull func(events uint64) bool

// errBundleFull ends a bundle that can't be larger.
var errBundleFull = errors.New("the bundle is full")

// getBundle streams an export as an evidence bundle, up to where the log is attested. One that has reached the format's limits ends
// there, and the cursor in its end goes on.
func (s *Server) getBundle(w http.ResponseWriter, r *http.Request, x *export) error {
	head, note, err := x.log.Attested(r.Context())
	if err != nil {
		return err
	}
	if x.from > head.Size {
		return log.ErrNotSigned
	}
	x.size = min(x.size, head.Size)
	out := s.newExportWriter(w, r, x.key)
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", `attachment; filename="`+x.log.Name+`.zip"`)
	h["Cache-Control"] = noStore
	h.Set("Trailer", exportEndHeader)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := x.begin(r.Context()); err != nil {
		return s.finish(out, r, err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	var b *bundle.Writer
	end := exportEnd{Log: x.log.Name, From: x.from, Size: x.size}
	err = x.pages(ctx, func(records []log.Record) (err error) {
		if b == nil {
			b, err = x.newBundle(ctx, out, head.Size, note)
		}
		for i := range records {
			if err != nil {
				return err
			}
			if b.Full() || testingOnlyFull != nil && testingOnlyFull(end.Count) {
				x.size = records[i].Index
				return errBundleFull
			}
			end.note(records[i : i+1]) // before it may leave: what is told of a bundle that breaks off must not be too little
			err = x.addRecord(ctx, b, &records[i])
		}
		return err
	})
	if errors.Is(err, errBundleFull) {
		err = nil
	}
	if err == nil && b == nil { // there was nothing to be searched
		b, err = x.newBundle(ctx, out, head.Size, note)
	}
	if err != nil {
		x.end(&end, err)
		return s.finish(out, r, err)
	}
	manifest, err := b.Close(ctx, bundle.Selection{From: x.from, To: x.size, Filter: x.absoluteFilter()})
	if err == nil {
		end.Size, end.SHA256, end.Manifest = x.size, hex.EncodeToString(out.sum.Sum(nil)), hex.EncodeToString(manifest[:])
		end.Cursor = s.cursors.encode(cursor{x.size, x.asOf}, x.log.ID, exportGoesOn+x.filterText)
		h.Set(exportEndHeader, string(end.json()))
	}
	x.end(&end, err)
	return s.finish(out, r, err)
}

// newBundle begins a bundle with the proofs of what was removed from the events in it, as far as these are signed.
func (x *export) newBundle(ctx context.Context, out *exportWriter, size uint64, note []byte) (*bundle.Writer, error) {
	b, err := bundle.NewWriter(out, note, x.log.PolicyFile(), func(ctx context.Context, from, to uint64) ([]merkle.Hash, error) {
		return x.log.Cover(ctx, from, to, size)
	})
	if err != nil {
		return nil, err
	}
	removals, err := x.log.Removals(ctx, x.from, x.size)
	if err != nil {
		return nil, err
	}
	for _, by := range removals {
		proof, err := x.log.Proof(ctx, by.Index)
		if errors.Is(err, log.ErrNotSigned) {
			return b, nil // nor are later ones
		}
		if err == nil {
			err = b.AddRemoval(proof)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// addRecord adds a record to a bundle, after re-hashing it: what its entry doesn't commit to is log.ErrDamaged.
func (x *export) addRecord(ctx context.Context, b *bundle.Writer, r *log.Record) error {
	d, err := r.Disclosure()
	if err != nil {
		return fmt.Errorf("entry %d: %w", r.Index, err)
	}
	if entry := d.Entry(); entry.LeafHash() != r.Hash {
		return fmt.Errorf("entry %d: its content isn't what it commits to: %w", r.Index, log.ErrDamaged)
	}
	if d, err = x.without.From(d); err != nil {
		return fmt.Errorf("entry %d: %w", r.Index, err)
	}
	return b.Add(ctx, r.Index, d)
}

// absoluteFilter returns the parameters that select events, with all times as such.
func (x *export) absoluteFilter() string {
	values, err := url.ParseQuery(x.filterText)
	if err != nil {
		panic(err) // it comes from url.Values
	}
	for name, t := range map[string]*int64{
		"from": x.filter.Occurred.From, "to": x.filter.Occurred.To,
		"received_from": x.filter.Received.From, "received_to": x.filter.Received.To,
	} {
		if t != nil {
			values.Set(name, string(log.AppendTime(nil, *t)))
		}
	}
	return values.Encode()
}
