package log

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A filter as text is a query: the parameters by which the API searches and exports, and in which an event that places a hold, or the
// manifest of a bundle, says which events it means.

// Limits of a query.
const (
	MaxFilterValues    = 20 // of one parameter
	MaxFilterValue     = MaxIndexedValue
	MaxMetadataFilters = 10
)

// MetadataParameter begins the parameters that are named for what they select by: metadata.<path>.
const MetadataParameter = "metadata."

// ErrFilter is what every ParameterError is.
var ErrFilter = errors.New("not a filter")

// ParameterError means that a query isn't a filter, on account of one of its parameters.
type ParameterError struct {
	Name   string
	Detail string // what is wrong, to be read after the name
}

func (e *ParameterError) Error() string { return e.Name + " " + e.Detail }

// Is makes a ParameterError ErrFilter.
func (e *ParameterError) Is(target error) bool { return target == ErrFilter }

func badParameter(name, format string, args ...any) error {
	return &ParameterError{name, fmt.Sprintf(format, args...)}
}

// textParameters are the parameters that select by a text of the event: one that the claim can have.
var textParameters = []struct {
	name, pointer string
	values        func(*Filter) *[]string
}{
	{"action", "/action", func(f *Filter) *[]string { return &f.Actions }},
	{"actor_id", "/actor/id", func(f *Filter) *[]string { return &f.ActorIDs }},
	{"actor_email", "/actor/email", func(f *Filter) *[]string { return &f.ActorEmails }},
	{"target_id", "/targets/0/id", func(f *Filter) *[]string { return &f.TargetIDs }},
	{"target_type", "/targets/0/type", func(f *Filter) *[]string { return &f.TargetTypes }},
	{"outcome", "/outcome", func(f *Filter) *[]string { return &f.Outcomes }},
	{"ip", "/context/ip", func(f *Filter) *[]string { return &f.IPs }},
}

// ParseFilter returns what the parameters of a query select, times in RFC 3339. Whatever is no parameter of a filter, or has a value that none
// can have, is a *ParameterError.
func ParseFilter(query url.Values) (*Filter, error) {
	f := new(Filter)
	known := map[string]bool{}
	for _, t := range textParameters {
		values, err := queryTexts(query, t.name, t.pointer)
		if err != nil {
			return nil, err
		}
		*t.values(f), known[t.name] = values, true
	}
	if slices.Contains(f.Actions, "*") {
		f.Actions = nil
	}
	words, err := queryTexts(query, "q", "")
	if err != nil {
		return nil, err
	}
	for _, text := range words {
		list, err := ParseWords(text)
		if err != nil {
			return nil, badParameter("q", "%q %v", text, err)
		}
		f.Words = append(f.Words, list)
	}
	for _, s := range []struct {
		from, to string
		span     *TimeSpan
	}{{"from", "to", &f.Occurred}, {"received_from", "received_to", &f.Received}} {
		if s.span.From, err = queryTime(query, s.from); err != nil {
			return nil, err
		}
		if s.span.To, err = queryTime(query, s.to); err != nil {
			return nil, err
		}
		if s.span.From != nil && s.span.To != nil && *s.span.From > *s.span.To {
			return nil, badParameter(s.to, "is before %s", s.from)
		}
		known[s.from], known[s.to] = true, true
	}
	known["q"] = true
	for _, name := range slices.Sorted(maps.Keys(query)) {
		path, ok := strings.CutPrefix(name, MetadataParameter)
		switch {
		case !ok && !known[name]:
			return nil, badParameter(name, "is no parameter of a filter")
		case !ok:
			continue
		case path == "" || len(path) > MaxFilterValue || !isText(path):
			return nil, badParameter(name, "must name members by 1 to %d bytes of UTF-8 after the first dot", MaxFilterValue)
		}
		values, err := queryTexts(query, name, "")
		if err != nil {
			return nil, err
		}
		f.Metadata = append(f.Metadata, Metadata{Path: path, Values: values})
		if len(f.Metadata) > MaxMetadataFilters {
			return nil, badParameter(name, "at most %d members of metadata can be asked for at once", MaxMetadataFilters)
		}
	}
	return f, nil
}

// queryTexts returns the values of a parameter, each once and in the form in which the claim of the pointer holds them, or for "" as
// they are.
func queryTexts(query url.Values, name, pointer string) ([]string, error) {
	if len(query[name]) > MaxFilterValues {
		return nil, badParameter(name, "is given %d times, want at most %d", len(query[name]), MaxFilterValues)
	}
	var out []string
	for _, text := range query[name] {
		if len(text) > MaxFilterValue || !isText(text) {
			return nil, badParameter(name, "must be at most %d bytes of UTF-8 without U+0000", MaxFilterValue)
		}
		if pointer != "" {
			var err error
			if text, err = filterText(pointer, text); err != nil {
				return nil, badParameter(name, "%q %v", text, err)
			}
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// filterText is NormalText for a filter: an action may end in *, nothing may be empty, and the error is only the reason.
func filterText(pointer, text string) (string, error) {
	if text == "" {
		return text, errors.New("must not be empty")
	}
	begin, star := text, false
	if pointer == "/action" {
		if begin, star = strings.CutSuffix(text, "*"); begin == "" {
			return text, nil
		}
	}
	normal, err := NormalText(pointer, begin)
	var invalid *InvalidError
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

// queryTime returns a parameter's time, in µs since 1970 UTC, or nil where it isn't given.
func queryTime(query url.Values, name string) (*int64, error) {
	values := query[name]
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, badParameter(name, "is given %d times", len(values))
	}
	t, err := time.Parse(time.RFC3339Nano, values[0])
	if err != nil {
		return nil, badParameter(name, "%q is no time such as 2026-01-31T12:00:00Z", values[0])
	}
	micros := t.UnixMicro()
	return &micros, nil
}
