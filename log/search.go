package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// Page says which part of what a search finds is wanted.
type Page struct {
	Oldest bool // oldest first; otherwise newest first
	// Position is where to go on: newest first the size of what is still to be searched, oldest first the index to begin at.
	Position uint64
	Size     uint64 // of the log as it is searched, at most its own; 0: as it stands now
	Limit    int    // of records
	MaxBytes int    // of content, from which on the page is full
}

// Found is a page of what a search finds.
type Found struct {
	Records  []Record
	Position uint64 // for the next page
	More     bool   // whether anything is left to be searched, not whether anything will be found in it
	// From and To are which part of the log was searched for the page: all that match of the events [From, To) are in it.
	From, To uint64
}

// A page's share of work: the search ends there, with what it has found until then, and the next page goes on. It bounds what
// one request costs when little of what has to be looked at matches.
const (
	maxChecked = 20_000 // contents that are read and compared with the filter
	maxSearch  = 3 * time.Second
)

const (
	searchChunk  = 64      // candidates read at a time, if no more are wanted
	scanChunk    = 256     // the same, if more are
	maxScanChunk = 1024    // events read at a time where there is no index, after searchChunk at first
	maxLookups   = 256     // segments looked into at a time, as long as the sets of candidates stay small:
	maxSetsBytes = 8 << 20 // what they may take
)

// Search returns a page of the events that the filter selects, as records. It is exact: it looks into the index as far as that
// goes and then at the events themselves, and whatever the index has found is compared with the filter. A page holds fewer
// records than there are if it is full or its share of work is done; then More is true, also when it holds none.
//
// Events whose content is gone are not found but by a filter that selects all. A content that has to be looked at and isn't
// what was stored is ErrDamaged, as is a damaged index.
func (l *Log) Search(ctx context.Context, f *Filter, p Page) (Found, error) {
	if l.IsHub() {
		return Found{}, ErrHub
	}
	s := &search{log: l, filter: f, page: p, to: l.Sizes().Size, until: time.Now().Add(maxSearch)}
	if p.Size > 0 {
		s.to = min(p.Size, s.to)
	}
	if p.Oldest {
		s.from = min(p.Position, s.to)
	} else {
		s.to = min(p.Position, s.to)
	}
	s.found.From, s.found.To = s.from, s.to
	var err error
	if f == nil || f.All() {
		err = s.list(ctx)
	} else if err = s.narrow(ctx); err == nil {
		err = s.run(ctx)
	}
	if errors.Is(err, index.ErrDamaged) {
		err = fmt.Errorf("searching log %s: %v; run `treeline reindex %s`: %w", l.Name, err, l.Name, ErrDamaged)
	}
	if err != nil {
		return Found{}, err
	}
	s.found.More, s.found.Position = s.from < s.to, s.to
	if p.Oldest {
		s.found.Position = s.from
	}
	switch {
	case !s.found.More: // nor could anything be found where the filter's times don't lead
	case p.Oldest:
		s.found.To = s.from
	default:
		s.found.From = s.to
	}
	return s.found, nil
}

// search is one page in the making.
type search struct {
	log     *Log
	filter  *Filter
	page    Page
	query   *index.Query // nil: the index can't help
	older   *index.Query // the same of segments that have no words, or others
	needles needles

	from, to uint64 // what is still to be searched
	found    Found
	bytes    int
	checked  int
	until    time.Time
	gone     error // what was wrong with a segment that isn't what it was listed as
}

// list is the search for everything.
func (s *search) list(ctx context.Context) (err error) {
	n := min(uint64(max(s.page.Limit, 1)), s.to-s.from)
	var records []Record
	if s.page.Oldest {
		records, err = s.log.Records(ctx, s.from, s.from+n, s.page.MaxBytes)
	} else {
		records, err = s.log.RecordsBackwards(ctx, s.to-n, s.to, max(s.page.MaxBytes, 1))
	}
	if err != nil {
		return err
	}
	for i := range records { // they were read in steps, and may be more than the page takes
		if s.bytes += len(records[i].Event); s.bytes >= s.page.MaxBytes {
			records = records[:i+1]
			break
		}
	}
	s.found.Records = records
	if s.page.Oldest {
		s.from += uint64(len(records))
	} else {
		s.to -= uint64(len(records))
	}
	return nil
}

// narrow leaves of what is to be searched what was received when the filter says.
func (s *search) narrow(ctx context.Context) (err error) {
	span := s.filter.Received
	if span.From != nil {
		if s.from, err = s.receivedFrom(ctx, *span.From); err != nil {
			return err
		}
	}
	if span.To != nil {
		s.to, err = s.receivedFrom(ctx, *span.To)
	}
	return err
}

// receivedFrom returns the index of the first event to be searched that was received at or after a time, which never decreases
// within a log.
func (s *search) receivedFrom(ctx context.Context, t int64) (uint64, error) {
	from, to := s.from, s.to
	for from < to { // the answer is in [from, to]; each round divides that by 64
		step := (to - from + 63) / 64
		var probes []uint64
		for at := from + step - 1; at < to; at += step {
			probes = append(probes, at)
		}
		err := s.log.service.reader.EntriesAt(ctx, s.log.ID, probes, func(at uint64, b []byte) error {
			e, err := storedEntry(at, b)
			switch {
			case err != nil:
				return err
			case e.ReceivedAt < t:
				from = at + 1
				return nil
			}
			to = at
			return errEnough
		})
		if err != nil && !errors.Is(err, errEnough) {
			return 0, fmt.Errorf("reading entries of log %s: %w", s.log.Name, err)
		}
	}
	return from, nil
}

// run searches what the index covers and what it doesn't, in the order of the page.
func (s *search) run(ctx context.Context) error {
	s.query, s.older, s.needles = s.filter.query(true), s.filter.query(false), s.filter.needles()
	metas, covered, err := s.segments(ctx)
	if err != nil {
		return err
	}
	if s.page.Oldest {
		if done, err := s.lookAll(ctx, metas, covered); done || err != nil {
			return err
		}
		_, err = s.scan(ctx, s.from, s.to)
		return err
	}
	if done, err := s.scan(ctx, max(s.from, covered), s.to); done || err != nil {
		return err
	}
	_, err = s.lookAll(ctx, metas, covered)
	return err
}

// queryOf returns what to look up in a segment, nil if all of its events are candidates.
func (s *search) queryOf(m index.Meta) *index.Query {
	if m.Words == wordsVersion || len(s.filter.Words) == 0 {
		return s.query
	}
	return s.older
}

// segments returns the segments of the index and up to where they cover the log. There are none where the index isn't known
// to be of this record, or can't help.
func (s *search) segments(ctx context.Context) (metas []index.Meta, covered uint64, err error) {
	_, searchable := s.log.progress.unindexed()
	if !searchable || s.query == nil && s.filter.Occurred == (TimeSpan{}) {
		return nil, 0, nil
	}
	if metas, err = s.log.service.reader.Segments(ctx, s.log.ID); err != nil {
		return nil, 0, fmt.Errorf("reading the segments of log %s: %w", s.log.Name, err)
	}
	for _, m := range metas {
		if m.Level > index.Level1 || m.First() != covered {
			return nil, 0, fmt.Errorf("segment %d/%d follows on event %d: %w", m.Level, m.Number, covered, index.ErrDamaged)
		}
		covered = m.End()
	}
	return metas, covered, nil
}

// lookAll searches what the index covers. A segment that is merged with others meanwhile, or rewritten, is looked for again.
func (s *search) lookAll(ctx context.Context, metas []index.Meta, covered uint64) (done bool, err error) {
	for {
		gone, done, err := s.look(ctx, metas)
		if done || err != nil {
			return done, err
		}
		if gone == nil {
			if s.page.Oldest {
				s.from = max(s.from, min(covered, s.to))
			} else {
				s.to = s.from
			}
			return false, nil
		}
		if metas, covered, err = s.segments(ctx); err != nil {
			return false, err
		}
		if slices.Contains(metas, *gone) {
			return false, s.gone
		}
		if !s.page.Oldest && covered < s.to { // the index was dropped
			return s.scan(ctx, max(s.from, covered), s.to)
		}
	}
}

// look searches segments, more of them at a time the longer it takes. It returns a segment that wasn't there as it was listed, if it
// met one.
func (s *search) look(ctx context.Context, metas []index.Meta) (gone *index.Meta, done bool, err error) {
	metas = slices.DeleteFunc(slices.Clone(metas), func(m index.Meta) bool {
		occurred := s.filter.Occurred
		return m.End() <= s.from || m.First() >= s.to ||
			occurred.From != nil && m.MaxOccurred < *occurred.From || occurred.To != nil && m.MinOccurred >= *occurred.To
	})
	if !s.page.Oldest {
		slices.Reverse(metas)
	}
	for n := 8; len(metas) > 0; n *= 8 {
		level, query := metas[0].Level, s.queryOf(metas[0])
		n = min(n, maxLookups)
		if query != nil {
			n = max(1, min(n, maxSetsBytes*8/int(index.Events(level))/query.Members()))
		}
		batch := metas[:min(n, len(metas))]
		if i := slices.IndexFunc(batch, func(m index.Meta) bool { return m.Level != level || s.queryOf(m) != query }); i >= 0 {
			batch = batch[:i]
		}
		metas = metas[len(batch):]
		if gone, done, err := s.lookInto(ctx, query, batch); gone != nil || done || err != nil {
			return gone, done, err
		}
	}
	return nil, false, nil
}

// lookInto searches segments of one level for one query.
func (s *search) lookInto(ctx context.Context, query *index.Query, metas []index.Meta) (gone *index.Meta, done bool, err error) {
	sets := make([]index.Set, len(metas))
	if query == nil {
		for i, m := range metas {
			sets[i] = index.NewSet(m.Level)
			for j := range sets[i] {
				sets[i][j] = ^uint64(0)
			}
		}
	} else if gone, err := s.lookup(ctx, query, metas, sets); gone != nil || err != nil {
		return gone, false, err
	}
	for len(metas) > 0 {
		// Few candidates of many segments are read at once.
		var candidates []uint64
		n := 0
		for ; n < len(metas) && len(candidates) < searchChunk; n++ {
			m, first := metas[n], metas[n].First()
			sets[n].Keep(int(max(s.from, first)-first), int(min(s.to, m.End())-first))
			if there, err := s.keepOccurred(ctx, m, sets[n]); err != nil {
				return nil, false, err
			} else if !there {
				gone = &metas[n]
				break
			}
			if s.page.Oldest {
				candidates = sets[n].Append(candidates, first)
			} else {
				candidates = append(sets[n].Append(nil, first), candidates...)
			}
		}
		size := min(max(s.page.Limit-len(s.found.Records), searchChunk), scanChunk)
		if done, err := s.check(ctx, candidates, size); done || err != nil {
			return nil, done, err
		}
		if n > 0 {
			if last := metas[n-1]; s.page.Oldest {
				s.from = max(s.from, min(last.End(), s.to))
			} else {
				s.to = min(s.to, max(last.First(), s.from))
			}
		}
		if gone != nil {
			return gone, false, nil
		}
		if s.spent() {
			return nil, true, nil
		}
		metas, sets = metas[n:], sets[n:]
	}
	return nil, false, nil
}

// lookup sets the candidates of segments of one level, in one request to the store. What is wrong with one may be that it isn't any
// more what it was listed as.
func (s *search) lookup(ctx context.Context, query *index.Query, metas []index.Meta, sets []index.Set) (gone *index.Meta, err error) {
	numbers := make([]uint64, len(metas))
	lookups := make(map[uint64]*index.Lookup, len(metas))
	for i, m := range metas {
		numbers[i], lookups[m.Number] = m.Number, query.NewLookup(m)
	}
	slices.Sort(numbers)
	var at uint64
	err = s.log.service.reader.Blocks(ctx, s.log.ID, metas[0].Level, numbers, query.Ranges(),
		func(segment uint64, key, data []byte) error {
			at = segment
			return lookups[segment].Add(key, data)
		})
	if errors.Is(err, index.ErrDamaged) {
		s.gone = err
		return &metas[slices.IndexFunc(metas, func(m index.Meta) bool { return m.Number == at })], nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the index of log %s: %w", s.log.Name, err)
	}
	for i, m := range metas {
		l := lookups[m.Number]
		if l.Blocks() == 0 {
			s.gone = errNoBlocks(m)
			return &metas[i], nil
		}
		if sets[i], s.gone = l.Result(); s.gone != nil {
			return &metas[i], nil //nolint:nilerr // lookAll returns it, if the segment is still listed
		}
	}
	return nil, nil
}

func errNoBlocks(m index.Meta) error {
	return fmt.Errorf("segment %d/%d has no blocks: %w", m.Level, m.Number, index.ErrDamaged)
}

// keepOccurred removes the candidates that occurred at another time than the filter says, where the segment's column of times is
// worth reading. It returns false if the segment isn't there any more, or isn't what it was listed as; then the set is worthless.
func (s *search) keepOccurred(ctx context.Context, m index.Meta, set index.Set) (there bool, err error) {
	span := s.filter.Occurred
	if span.Contains(m.MinOccurred) && span.Contains(m.MaxOccurred) || set.Count() <= searchChunk/4 {
		return true, nil
	}
	column := index.NewColumn(m)
	err = s.log.service.reader.Blocks(ctx, s.log.ID, m.Level, []uint64{m.Number}, []index.Range{index.Times},
		func(_ uint64, key, data []byte) error {
			there = true
			return column.Add(key, data, func(offset int, occurred int64) {
				if !span.Contains(occurred) {
					set.Remove(offset)
				}
			})
		})
	switch {
	case err == nil && !there:
		err = errNoBlocks(m)
	case err == nil:
		err = column.Close()
	}
	if errors.Is(err, index.ErrDamaged) {
		s.gone = err
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the times of log %s: %w", s.log.Name, err)
	}
	return true, nil
}

// scan searches the events [from, to) without an index.
func (s *search) scan(ctx context.Context, from, to uint64) (done bool, err error) {
	var indices []uint64
	for n := uint64(searchChunk); from < to; n = min(4*n, maxScanChunk) {
		first, end := from, min(to, from+n)
		if !s.page.Oldest {
			first, end = to-min(to-from, n), to
		}
		indices = indices[:0]
		for i := first; i < end; i++ {
			indices = append(indices, i)
		}
		if done, err := s.check(ctx, indices, len(indices)); done || err != nil {
			return done, err
		}
		if s.page.Oldest {
			from, s.from = end, end
		} else {
			to, s.to = first, first
		}
		if s.spent() {
			return true, nil
		}
	}
	return false, nil
}

// spent reports whether the page's share of work is done.
func (s *search) spent() bool { return s.checked >= maxChecked || time.Now().After(s.until) }

// check compares candidates, which are ascending, with the filter, a chunk at a time in the order of the page, and adds those
// that match. It is done when the page is full or its share of work is.
func (s *search) check(ctx context.Context, candidates []uint64, size int) (done bool, err error) {
	for len(candidates) > 0 {
		if s.checked > 0 && s.spent() { // each page gets on by something
			return true, nil
		}
		n := min(size, len(candidates))
		chunk := candidates[:n]
		if s.page.Oldest {
			candidates = candidates[n:]
		} else {
			chunk = candidates[len(candidates)-n:]
			candidates = candidates[:len(candidates)-n]
		}
		matches, err := s.read(ctx, chunk)
		if err != nil {
			return false, err
		}
		s.checked += n
		if !s.page.Oldest {
			slices.Reverse(matches)
		}
		for _, r := range matches {
			s.found.Records = append(s.found.Records, r)
			s.bytes += len(r.Event)
			if len(s.found.Records) >= s.page.Limit || s.bytes >= s.page.MaxBytes {
				s.passed(r.Index, r.Index+1)
				return true, nil
			}
		}
		s.passed(chunk[0], chunk[n-1]+1)
	}
	return false, nil
}

// passed notes that the events [first, end), which were next in the order of the page, are searched.
func (s *search) passed(first, end uint64) {
	if s.page.Oldest {
		s.from = end
	} else {
		s.to = first
	}
}

// read reads candidates, and returns those that match, in the order of their indices. First it reads the contents, which nearly
// always decide, and then the entries of those that are left.
func (s *search) read(ctx context.Context, candidates []uint64) ([]Record, error) {
	var indices []uint64
	var events []*Event
	var seeds [][]byte
	addContent := func(index uint64, p Payload) error {
		if p.Data == nil {
			return nil
		}
		json, err := decodePayload(p.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if !s.needles.in(json) {
			return nil
		}
		e, err := storedEvent(json)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if s.filter.matchContent(e) {
			indices, events, seeds = append(indices, index), append(events, e), append(seeds, slices.Clone(p.Seed))
		}
		return nil
	}
	store, id := s.log.service.reader, s.log.ID
	var err error
	if from, to, ok := run(candidates); ok {
		err = store.Payloads(ctx, id, from, to, addContent)
	} else {
		err = store.PayloadsAt(ctx, id, candidates, addContent)
	}
	if err != nil {
		return nil, fmt.Errorf("reading contents of log %s: %w", s.log.Name, err)
	}
	if len(indices) == 0 {
		return nil, nil
	}
	sizes := s.log.Sizes()
	out, i := make([]Record, 0, len(indices)), 0
	addEntry := func(b []byte) error {
		index, event, seed := indices[i], events[i], seeds[i]
		i++
		e, err := storedEntry(index, b)
		if err != nil {
			return err
		}
		if !s.filter.Match(event, e.ReceivedAt) {
			return nil
		}
		r := Record{
			ID: event.ID(), Log: s.log.Name, Index: index, Hash: merkle.LeafHash(b),
			State: sizes.State(index), ReceivedAt: e.ReceivedAt, Previous: e.Previous, Event: event.JSON(), Seed: seed,
			parsed: event,
		}
		out = append(out, r)
		return nil
	}
	if from, to, ok := run(indices); ok {
		err = store.Entries(ctx, id, from, to, addEntry)
	} else {
		err = store.EntriesAt(ctx, id, indices, func(_ uint64, b []byte) error { return addEntry(b) })
	}
	if err != nil {
		return nil, fmt.Errorf("reading entries of log %s: %w", s.log.Name, err)
	}
	return out, nil
}

// run returns the range that ascending indices are all of, if they are.
func run(indices []uint64) (from, to uint64, ok bool) {
	from, to = indices[0], indices[len(indices)-1]+1
	return from, to, to-from == uint64(len(indices))
}
