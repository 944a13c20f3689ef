package api

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"testing"
)

// What selects everything is an empty filter, which costs a search nothing.
func TestFiltersThatSelectEverything(t *testing.T) {
	for _, q := range []query{nil, {"limit": {"5"}, "order": {"oldest"}, "log": {"x"}}, {"action": {"*"}}, {"action": {"a", "*", "b.*"}}} {
		if f, err := q.filter(0); err != nil || !f.All() {
			t.Errorf("%v: got %+v, %v", q, f, err)
		}
	}
}

// A filter holds each value once, as events hold it.
func TestFiltersHoldEachValueOnce(t *testing.T) {
	f, err := query{"ip": {"2001:DB8::1", "::ffff:10.0.0.1", "2001:db8:0::1"}, "action": {"b.*", "a", "b.*"}, "metadata.x": {"2", "1", "2"}}.filter(0)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.IPs, []string{"10.0.0.1", "2001:db8::1"}) || !slices.Equal(f.Actions, []string{"a", "b.*"}) ||
		!slices.Equal(f.Metadata[0].Values, []string{"1", "2"}) {
		t.Errorf("got %+v", f)
	}
}

// Whatever stands in a URL is a filter or a problem that names its parameter, and a filter is the same however it is written.
func FuzzFilters(f *testing.F) {
	for _, text := range []string{
		"", "action=a.*&action=b", "q=a+B*&q=c.d", "q=%22a%22", "action=*", "from=-90d&to=2026-01-01T00:00:00.1%2B01:00", "metadata.a.b=1&metadata.a.b=&metadata.=x", "ip=::1",
		"outcome=denied&outcome=x", "received_from=-0s&received_from=-1s", "actor_id=%ff", "metadata.%00=1", "a;b", "%zz", "metadata", "to=-99999999999999999999d",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parse := func(text string) (query, error) {
			return parseQuery(&http.Request{URL: &url.URL{RawQuery: text}}, filterParams()...)
		}
		q, err := parse(text)
		if err != nil {
			return
		}
		filter, err := q.filter(1_800_000_000_000_000)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.Status != http.StatusBadRequest || len(p.Errors) != 1 || q[p.Errors[0].Parameter] == nil {
				t.Errorf("%q: got %v", text, err)
			}
			return
		}
		again, err := parse(q.filterText())
		if err != nil {
			t.Fatalf("%q is written %q, which is %v", text, q.filterText(), err)
		}
		if same, err := again.filter(1_800_000_000_000_000); err != nil || !reflect.DeepEqual(same, filter) || again.filterText() != q.filterText() {
			t.Errorf("%q: got %+v, %v, want %+v", text, same, err, filter)
		}
	})
}
