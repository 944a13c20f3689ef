package api

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/treeline-log/treeline/log"
)

// Limits of a search.
const (
	maxFilterValues    = 20 // of one parameter
	maxFilterValue     = log.MaxIndexedValue
	maxMetadataFilters = 10
	maxBack            = 36_500 * 24 * time.Hour // of a time before now
)

// wordsFilter is the parameter that selects by words in any text of the event.
const wordsFilter = "q"

// metadataFilter begins the parameters that are named for what they select by: metadata.<path>.
const metadataFilter = "metadata."

// textFilters are the parameters that select by a text of the event: one that the claim can have.
var textFilters = []struct {
	name, pointer string
	values        func(*log.Filter) *[]string
}{
	{"action", "/action", func(f *log.Filter) *[]string { return &f.Actions }},
	{"actor_id", "/actor/id", func(f *log.Filter) *[]string { return &f.ActorIDs }},
	{"actor_email", "/actor/email", func(f *log.Filter) *[]string { return &f.ActorEmails }},
	{"target_id", "/targets/0/id", func(f *log.Filter) *[]string { return &f.TargetIDs }},
	{"target_type", "/targets/0/type", func(f *log.Filter) *[]string { return &f.TargetTypes }},
	{"outcome", "/outcome", func(f *log.Filter) *[]string { return &f.Outcomes }},
	{"ip", "/context/ip", func(f *log.Filter) *[]string { return &f.IPs }},
}

// filterParams returns the names of the parameters that q.filter reads.
func filterParams() []string {
	var names []string
	for _, t := range textFilters {
		names = append(names, t.name)
	}
	return append(names, wordsFilter, "from", "to", "received_from", "received_to", metadataFilter)
}

// mayRepeat reports whether a parameter may be given more than once, which means any of its values.
func mayRepeat(name string) bool {
	for _, t := range textFilters {
		if name == t.name {
			return true
		}
	}
	return name == wordsFilter || name == withholdParam || strings.HasPrefix(name, metadataFilter)
}

// listEvents answers with a page of the records that the filters select: newest first of the log as it stood at the first page,
// or oldest first up to its end.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	limit, err := q.number("limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	order, ok := q.one("order")
	if !ok {
		order = "newest"
	}
	if order != "newest" && order != "oldest" {
		return badParameter("order", "%q is neither newest nor oldest", order)
	}
	size := l.Sizes().Size
	at := cursor{asOf: s.now().UnixMicro()}
	if order == "newest" {
		at.position = size
	}
	list := order + "?" + q.filterText()
	if text, ok := q.one("cursor"); ok {
		if at, err = s.cursors.decode(text, l.ID, list); err != nil {
			return err
		}
		if at.position > size { // of a log that was put back to an older copy
			return errCursor
		}
	}
	filter, err := q.filter(at.asOf)
	if err != nil {
		return err
	}
	found, err := l.Search(r.Context(), filter, log.Page{
		Oldest: order == "oldest", Position: at.position, Limit: int(limit), MaxBytes: maxPageBytes,
	})
	if err != nil {
		return err
	}
	next := []byte("null")
	if found.More {
		next = quote([]byte(s.cursors.encode(cursor{found.Position, at.asOf}, l.ID, list)))
	}
	out := appendRecords([]byte(`{"data":`), found.Records)
	out = append(append(out, `,"next_cursor":`...), next...)
	out = strconv.AppendBool(append(out, `,"has_more":`...), found.More)
	out = strconv.AppendUint(append(out, `,"size":`...), max(size, found.To), 10) // it may have grown since
	out = strconv.AppendUint(append(out, `,"searched":{"from":`...), found.From, 10)
	out = strconv.AppendUint(append(out, `,"to":`...), found.To, 10)
	writeBody(w, http.StatusOK, append(out, "}}\n"...))
	return nil
}

// filterText returns the parameters that select events, in the one order that a cursor is bound to.
func (q query) filterText() string {
	filters := url.Values{}
	for name, values := range q {
		switch name {
		case "log", "limit", "order", "cursor", "format", "compression", "after", withholdParam:
		default:
			filters[name] = slices.Compact(slices.Sorted(slices.Values(values)))
		}
	}
	return filters.Encode()
}

// filter returns what the parameters select. Times before now are before asOf, in µs since 1970 UTC.
func (q query) filter(asOf int64) (*log.Filter, error) {
	f := new(log.Filter)
	for _, t := range textFilters {
		values, err := q.texts(t.name, t.pointer)
		if err != nil {
			return nil, err
		}
		*t.values(f) = values
	}
	if slices.Contains(f.Actions, "*") {
		f.Actions = nil
	}
	var err error
	if f.Words, err = q.words(wordsFilter); err != nil {
		return nil, err
	}
	if f.Occurred, err = q.span("from", "to", asOf); err != nil {
		return nil, err
	}
	if f.Received, err = q.span("received_from", "received_to", asOf); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		path, ok := strings.CutPrefix(name, metadataFilter)
		if !ok {
			continue
		}
		if path == "" || len(path) > maxFilterValue || !isText(path) {
			return nil, badParameter(name, "must name members by 1 to %d bytes of UTF-8 after the first dot", maxFilterValue)
		}
		values, err := q.texts(name, "")
		if err != nil {
			return nil, err
		}
		f.Metadata = append(f.Metadata, log.Metadata{Path: path, Values: values})
		if len(f.Metadata) > maxMetadataFilters {
			return nil, badParameter(name, "at most %d members of metadata can be asked for at once", maxMetadataFilters)
		}
	}
	return f, nil
}

// texts returns the values of a parameter, each once and in the form in which the claim of the pointer holds them, or for "" as
// they are.
func (q query) texts(name, pointer string) ([]string, error) {
	if len(q[name]) > maxFilterValues {
		return nil, badParameter(name, "is given %d times, want at most %d", len(q[name]), maxFilterValues)
	}
	var out []string
	for _, text := range q[name] {
		if len(text) > maxFilterValue || !isText(text) {
			return nil, badParameter(name, "must be at most %d bytes of UTF-8 without U+0000", maxFilterValue)
		}
		if pointer != "" {
			var err error
			if text, err = normalText(pointer, text); err != nil {
				return nil, badParameter(name, "%q %v", text, err)
			}
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// words returns the words of each of a parameter's values.
func (q query) words(name string) (lists []log.Words, err error) {
	texts, err := q.texts(name, "")
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		words, err := log.ParseWords(text)
		if err != nil {
			return nil, badParameter(name, "%q %v", text, err)
		}
		lists = append(lists, words)
	}
	return lists, nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// normalText is log.NormalText for a filter: an action may end in *, nothing may be empty, and the error is only the reason.
func normalText(pointer, text string) (string, error) {
	if text == "" {
		return text, errors.New("must not be empty")
	}
	begin, star := text, false
	if pointer == "/action" {
		if begin, star = strings.CutSuffix(text, "*"); begin == "" {
			return text, nil
		}
	}
	normal, err := log.NormalText(pointer, begin)
	var invalid *log.InvalidError
	switch {
	case errors.As(err, &invalid) && pointer == "/action":
		return text, errors.New(invalid.Problems[0].Detail + ", or the beginning of that with * after it")
	case errors.As(err, &invalid):
		return text, errors.New(invalid.Problems[0].Detail)
	case err != nil:
		return text, err
	case star:
		normal += "*"
	}
	return normal, nil
}

// span returns the span of time between two parameters.
func (q query) span(from, to string, asOf int64) (s log.TimeSpan, err error) {
	if s.From, err = q.time(from, asOf); err != nil {
		return s, err
	}
	if s.To, err = q.time(to, asOf); err != nil {
		return s, err
	}
	if s.From != nil && s.To != nil && *s.From > *s.To {
		return s, badParameter(to, "is before %s", from)
	}
	return s, nil
}

var backUnits = map[string]time.Duration{"d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second}

// time returns a parameter's time, in µs since 1970 UTC, or nil where it isn't given.
func (q query) time(name string, asOf int64) (*int64, error) {
	text, ok := q.one(name)
	if !ok {
		return nil, nil
	}
	if back, ok := strings.CutPrefix(text, "-"); ok && spanRE.MatchString(back) {
		d, err := parseSpan(back, maxBack)
		if err != nil {
			return nil, badParameter(name, "%q is more than %d days back", text, maxBack/backUnits["d"])
		}
		t := asOf - d.Microseconds()
		return &t, nil
	}
	t, err := log.ParseTime(text)
	if err != nil {
		return nil, badParameter(name, "%q %v, or a time before now such as -90d, -12h, -15m or -30s; a + in a URL is written %%2B", text, err)
	}
	return &t, nil
}
